"""Admission: what is refused as a read model, because its answer is not a function of the events.

Owns the reasons; those about orders stand in `cqrs_lab.ivm.orders`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cqrs_lab.errors import ReadModelRefused
from cqrs_lab.ivm.orders import Layer, order_reasons
from cqrs_lab.sql.functions import TABLE_FUNCTIONS
from cqrs_lab.sql.names import TABLES, check_name, names_events
from cqrs_lab.sql.parse import Node, call_reasons, first_select, item_name, nodes
from cqrs_lab.sql.withs import common_names


def check_model_name(kind: str, name: str) -> None:
    """Refuse a name that a read model cannot have.

    Raises:
        DeclarationError: nobody could type it.
        ReadModelRefused: it is kept for a table of the log.
    """
    check_name(kind, name)
    if name.lower() in TABLES or names_events(name) or name.lower().endswith("_personal"):
        raise ReadModelRefused(f"the name {name!r} is kept for a table of the log; choose another")


def reasons_against(tree: Node, keys: tuple[str, ...], layers: Mapping[str, Layer]) -> list[str]:
    """Return everything that keeps a SELECT from being a read model, each reason once.

    Args:
        layers: the read models that it may read, by lower-case name. One that is not among them is not judged: a lab
            that knows it judges again.
    """
    reasons = [*_column_reasons(tree, keys), *_reading_reasons(tree), *order_reasons(tree, layers)]
    return list(dict.fromkeys(reasons))


def _column_reasons(tree: Node, keys: tuple[str, ...]) -> Iterator[str]:
    top = first_select(tree)
    if top["type"] != "SELECT_NODE":
        yield f"it is a {top['type']}, not a SELECT"
        return
    names: list[str] = []
    for number, item in enumerate(top["select_list"], start=1):
        if item["class"] == "STAR":
            yield "it selects *; name its columns, so that a new field of an event does not change it"
            continue
        name = item_name(item)
        if not name:
            yield f"column {number} has no name; give it one with AS"
        elif name.lower() in names:
            yield f"two columns are called {name!r}"
        elif name.startswith("_"):
            yield f"the column {name!r} starts with an underscore; those are kept for the projection's own state"
        names.append(name.lower())
    for key in keys:
        if key.lower() not in names:
            yield f"the key {key!r} is not among its columns"


def _reading_reasons(tree: Node) -> Iterator[str]:
    in_from: set[int] = set()  # parents come before their children
    for node in nodes(tree):
        kind = node.get("type")
        if kind == "BASE_TABLE":
            if node["schema_name"] or node["catalog_name"]:
                whole = f"{node['schema_name']}.{node['table_name']}"
                yield f"it reads {whole}; name tables of events and read models alone"
            if node.get("at_clause"):
                yield "it reads a table AT a version; lab.as_of() asks about the past"
        elif kind == "TABLE_FUNCTION":
            name = node["function"]["function_name"].lower()
            in_from.add(id(node["function"]))
            if name not in TABLE_FUNCTIONS:
                yield f"it reads {name}(), which is not the log"
        elif kind == "SHOW_REF":
            yield "it reads a description of the catalogue, which is not the log"
        elif kind in ("LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"):
            yield "it has a LIMIT, which depends on the order of rows; put the LIMIT into the question"
        elif kind == "DISTINCT_MODIFIER" and node.get("distinct_on_targets"):
            yield "it has DISTINCT ON, which depends on the order of rows; use arg_max(…, position)"
        if node.get("sample"):
            yield "it samples rows, so it would answer differently every time"
        if id(node) not in in_from:
            yield from call_reasons(node)
    for name in common_names(tree):
        if names_events(name):
            yield f"WITH {name} hides a table of events; choose another name"
