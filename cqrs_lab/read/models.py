"""A read model: its SELECT, declared once, and the check that it is a function of the events.

Owns the declaration and what DuckDB's own parse says about it. The author's text is what runs, in every serving; here
it is only read, and the names of its sources are replaced where a serving needs a part of the log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import sqlglot
from sqlglot.tokens import TokenType  # type: ignore[attr-defined]  # it re-exports it

from cqrs_lab.categories import check_name
from cqrs_lab.database import quote
from cqrs_lab.errors import QueryFailed, ReadModelRefused
from cqrs_lab.log import TABLES
from cqrs_lab.sql.functions import BY_ARGUMENT, BY_ORDER, TABLE_FUNCTIONS
from cqrs_lab.syntax import Node, call_reasons, is_position, nodes, same, syntax_tree


@dataclass(frozen=True)
class Source:
    """A place in a SELECT where it reads a table: characters `start` to `end` of its text."""

    name: str
    start: int
    end: int
    has_alias: bool


@dataclass(frozen=True)
class ReadModel:
    """A read model, declared once as a SELECT over the tables of events or over other read models.

    Args:
        name: what queries call it.
        key: the column that names a row, or a tuple of columns.
        sql: the SELECT. Every column has a name; it reads nothing but the log (`order_events`, …) and other read
            models, calls no function that could answer differently tomorrow, and picks rows by `position` where it
            picks by order.
        over: read models that the SELECT names; a lab that knows none of that name takes them in with this one.

    Raises:
        ReadModelRefused: with the reason.
    """

    name: str
    key: str | tuple[str, ...]
    sql: str
    over: tuple[ReadModel, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        check_model_name("read model", self.name)
        try:
            tree = syntax_tree(self.sql)
        except QueryFailed as error:
            raise ReadModelRefused(f"read model {self.name!r}: {error}") from None
        object.__setattr__(self, "sql", _bare(self.sql))
        reasons = list(_reasons(tree, self.keys))
        if reasons:
            raise ReadModelRefused(f"read model {self.name!r} was refused: {'; '.join(reasons)}")

    @property
    def keys(self) -> tuple[str, ...]:
        """The key's columns."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def tree(self) -> Node:
        """DuckDB's parse of the SELECT."""
        tree: Node = syntax_tree(self.sql)
        return tree

    def sources(self) -> tuple[Source, ...]:
        """Return the places where the SELECT reads the log or another read model, in order of the text."""
        return _sources(self.sql)

    def bound(self, replace: Callable[[str], str | None]) -> str:
        """Return the author's text with names of sources replaced.

        Args:
            replace: name of a source -> the SELECT to read instead, or None to leave the name.
        """
        text = self.sql
        for source in reversed(self.sources()):
            select = replace(source.name)
            if select is not None:
                alias = "" if source.has_alias else f" AS {quote(source.name)}"
                text = f"{text[: source.start]}({select}\n){alias}{text[source.end :]}"
        return text.strip()

    def expanded(self, models: Mapping[str, ReadModel], window: Callable[[str], str | None]) -> str:
        """Return the text with layers written out and every table of events cut to a window.

        Args:
            models: the read models that it may be built on, by lower-case name.
            window: name of a table of events -> the SELECT that reads the wanted part, None for all of it.
        """
        return written_out(self, models, lambda layer, table: window(table))

    def fingerprint(self, models: Mapping[str, ReadModel], source: Callable[[str], str | None]) -> str:
        """Return what tells this SELECT, with its layers and sources, from another one; arguments as of `expanded`."""
        said = f"{self.keys}\n{self.expanded(models, source)}"
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()

    def __str__(self) -> str:
        return f"{self.name} (key {', '.join(self.keys)})\n{self.sql.strip()}"


def written_out(model: ReadModel, models: Mapping[str, ReadModel], read: Callable[[ReadModel, str], str | None]) -> str:
    """Return the text of a read model with its layers written out.

    Args:
        models: the read models that it may be built on, by lower-case name.
        read: the model that reads, the name of a table of events -> the SELECT to read instead, None to leave the name.
    """

    def replace(name: str) -> str | None:
        layer = models.get(name.lower())
        return read(model, name) if layer is None else written_out(layer, models, read)

    return model.bound(replace)


def _bare(sql: str) -> str:
    """Return the text of one statement without a semicolon and what stands behind it, so that it fits into brackets."""
    try:
        tokens = sqlglot.tokenize(sql, read="duckdb")
    except sqlglot.errors.TokenError:
        return sql  # DuckDB will say what is wrong with it
    ends = (token.start for token in tokens if token.token_type is TokenType.SEMICOLON)
    return sql[: next(ends, len(sql))]


def check_model_name(kind: str, name: str) -> None:
    """Refuse a name that a read model cannot have.

    Raises:
        DeclarationError: nobody could type it.
        ReadModelRefused: it is kept for a table of the log.
    """
    check_name(kind, name)
    if name.lower() in TABLES or name.lower().endswith(("_events", "_personal")):
        raise ReadModelRefused(f"the name {name!r} is kept for a table of the log; choose another")


def span(text: str, node: Node) -> tuple[int, int]:
    """Return the characters of `text` that a node of its parse covers; DuckDB counts bytes."""
    start, length = node["query_location"], node["query_location_length"]
    data = text.encode()
    begin = len(data[:start].decode())
    return begin, begin + len(data[start : start + length].decode())


@cache
def _sources(sql: str) -> tuple[Source, ...]:
    tree = syntax_tree(sql)
    common = _common_names(tree)
    found = []
    for node in nodes(tree):
        if node.get("type") == "BASE_TABLE" and node["table_name"].lower() not in common:
            start, _ = span(sql, node)
            # The location covers an alias, too; the name alone is what gets replaced.
            end = start + len(quote(node["table_name"]) if sql[start] == '"' else node["table_name"])
            found.append(Source(node["table_name"], start, end, bool(node["alias"])))
    return tuple(sorted(found, key=lambda source: source.start))


def _common_names(tree: Any) -> set[str]:
    """Names that a WITH gives."""
    return {
        entry["key"].lower()
        for node in nodes(tree)
        if isinstance(node.get("cte_map"), dict)
        for entry in node["cte_map"]["map"]
    }


def _reasons(tree: Node, keys: tuple[str, ...]) -> Iterator[str]:
    """Everything that keeps a SELECT from being a read model."""
    yield from _column_reasons(tree, keys)
    common = _common_names(tree)
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
        elif kind == "LIMIT_MODIFIER" or kind == "LIMIT_PERCENT_MODIFIER":
            yield "it has a LIMIT, which depends on the order of rows; put the LIMIT into the question"
        elif kind == "DISTINCT_MODIFIER" and node.get("distinct_on_targets"):
            yield "it has DISTINCT ON, which depends on the order of rows; use arg_max(…, position)"
        if node.get("sample"):
            yield "it samples rows, so it would answer differently every time"
        if id(node) not in in_from:
            yield from call_reasons(node)
    for name in common:
        if name.endswith("_events"):
            yield f"WITH {name} hides a table of events; choose another name"
    yield from _picking_reasons(tree)


def _column_reasons(tree: Node, keys: tuple[str, ...]) -> Iterator[str]:
    top = tree
    while top["type"] == "SET_OPERATION_NODE":
        top = (top.get("children") or [top["left"]])[0]
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


def item_name(item: Node) -> str:
    """Return the name of a select item, empty when it has none."""
    if item["alias"]:
        return str(item["alias"])
    return str(item["column_names"][-1]) if item["class"] == "COLUMN_REF" else ""


def _picking_reasons(tree: Any) -> Iterator[str]:
    """Aggregates that pick a row: their order must have no ties, or ties between equal values alone.

    The position has no ties in one table; and what is picked has none that matter when it is part of the order.
    """
    for select in (node for node in nodes(tree) if node.get("type") == "SELECT_NODE"):
        one_table = select["from_table"]["type"] == "BASE_TABLE"
        for node in nodes([select["select_list"], select.get("having"), select.get("qualify")]):
            if node.get("class") != "FUNCTION":
                continue
            name = node["function_name"].lower()
            arguments = [argument["expression"] for argument in node["arguments"]]
            if name in BY_ORDER:
                by = [order["expression"] for order in node["order_bys"]["orders"]]
                needs = f"{name}(… ORDER BY position)"
            elif name in BY_ARGUMENT:
                by = arguments[1:2]
                by += [a["expression"] for a in by[0]["arguments"]] if by and _is_row(by[0]) else []
                needs = f"{name}(…, position)"
            else:
                continue
            if arguments and any(same(arguments[0], part) for part in by):
                continue
            if not any(is_position(part) for part in by):
                yield f"{name}() picks among rows without a total order; say {needs}"
            elif not one_table:
                yield f"{name}() picks by position over a join, where several rows share one; pick before joining"


def _is_row(node: Node) -> bool:
    return node.get("class") == "FUNCTION" and node["function_name"].lower() in ("row", "struct_pack")


class Derived(ReadModel):
    """A SELECT made from a read model's own, whose parts were checked with it."""

    def __post_init__(self) -> None:
        pass
