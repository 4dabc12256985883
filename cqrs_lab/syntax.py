"""What DuckDB itself says about SQL: its parse of a SELECT, its catalogue of functions, and which calls are pure.

Owns a database without tables, for such questions alone, and the lists of what a function of the events may call.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from cqrs_lab.database import MEMORY, Database
from cqrs_lab.errors import QueryFailed

# Aggregates whose result does not depend on the order in which rows arrive. Sums of DOUBLE do; a Lab refuses those
# when it binds the model, because only then the types are known.
ORDERLESS = frozenset(
    """count count_star count_if countif sum sum_no_overflow avg mean min max bool_and bool_or bit_and bit_or bit_xor
       median quantile quantile_cont quantile_disc mad approx_count_distinct histogram""".split()
)
SUMS = frozenset("sum sum_no_overflow avg mean".split())
# These pick or list rows, so they need to be told an order without ties: the position.
BY_ORDER = frozenset("first last any_value arbitrary list array_agg string_agg group_concat listagg".split())
BY_ARGUMENT = frozenset(
    """arg_max arg_min argmax argmin max_by min_by arg_max_null arg_min_null arg_max_nulls_last
       arg_min_nulls_last""".split()
)
# SQL's functions without parentheses; DuckDB parses them as columns.
_KEYWORDS = frozenset(
    """current_date current_time current_timestamp localtime localtimestamp current_user session_user user
       current_role current_catalog current_schema""".split()
)
TABLE_FUNCTIONS = frozenset("unnest range generate_series".split())

Node = dict[str, Any]


def nodes(tree: Any) -> Iterator[Node]:
    """Yield every node of a parse, parents first."""
    if isinstance(tree, dict):
        yield tree
        for child in tree.values():
            yield from nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from nodes(child)


@cache
def _scratch() -> Database:
    """A database without tables, for questions about SQL itself."""
    return Database.open(MEMORY, threads=1)


@cache
def syntax_tree(sql: str) -> Any:
    """Return DuckDB's own parse of one SELECT, as nested dicts and lists.

    Raises:
        QueryFailed: it does not parse, or is not one SELECT.
    """
    answer = json.loads(_scratch().execute("SELECT json_serialize_sql(?::VARCHAR)", [sql])[0][0])
    if answer["error"]:
        raise QueryFailed(f"{answer['error_message']}\nIn: {' '.join(sql.split())[:500]}")
    if len(answer["statements"]) != 1:
        raise QueryFailed(f"a SELECT was expected, and nothing beside it: {sql.strip()[:200]}")
    return answer["statements"][0]["node"]


def syntax_text(node: Any) -> str:
    """Return SQL for a parse as `syntax_tree` gives it."""
    statement = json.dumps({"error": False, "statements": [{"node": node}]})
    text: str = _scratch().execute("SELECT json_deserialize_sql(?::JSON)", [statement])[0][0]
    return text


@cache
def function_catalogue() -> dict[str, tuple[str, str | None, str | None]]:
    """Return DuckDB's functions: name to (kind, stability, definition of a macro).

    Where a name has several meanings, an aggregate counts first, then the least stable.
    """
    rows = _scratch().execute(
        """SELECT lower(function_name), function_type, stability, macro_definition FROM duckdb_functions()
           WHERE function_type IN ('scalar', 'macro', 'aggregate')
           ORDER BY function_type = 'aggregate', stability = 'VOLATILE', stability = 'CONSISTENT_WITHIN_QUERY'"""
    )
    return {name: (kind, stability, definition) for name, kind, stability, definition in rows}


def call_reasons(node: Node) -> Iterator[str]:
    """Yield why a node is not a function of the events, when it calls something that is not."""
    if node.get("class") == "FUNCTION":
        yield from _function_reasons(node)
    elif node.get("class") == "WINDOW":
        yield from _window_reasons(node)
    elif node.get("class") == "COLUMN_REF" and len(node["column_names"]) == 1:
        name = node["column_names"][0].lower()
        if name in _KEYWORDS:
            yield f"{name} is not a function of the events; use occurred_at or recorded_at"


def _function_reasons(node: Node) -> Iterator[str]:
    name = node["function_name"].lower()
    known = function_catalogue().get(name)
    if known is None:
        if not node.get("is_operator") and name not in TABLE_FUNCTIONS:
            yield f"DuckDB has no function {name}()"
        return
    kind, stability, definition = known
    if kind == "aggregate":
        if name not in ORDERLESS | BY_ORDER | BY_ARGUMENT:
            yield f"{name}() may depend on the order in which rows arrive; use an aggregate that does not"
    elif kind == "macro":
        if definition is None or not pure(definition):
            yield f"{name}() is not a function of the events: it asks the session or the catalogue"
    elif stability not in (None, "CONSISTENT"):
        yield f"{name}() is not a function of the events: it may answer differently tomorrow"
    elif name.startswith("pg_") or name in ("read_text", "read_blob", "getenv", "query", "query_table"):
        yield f"{name}() reads something else than the events"


def pure(definition: str) -> bool:
    """Return whether an expression, such as a macro's text, calls only what always answers the same."""
    try:
        tree = syntax_tree(f"SELECT {definition}")
    except QueryFailed:
        return False
    if any(node.get("type") in ("BASE_TABLE", "TABLE_FUNCTION", "SUBQUERY") for node in nodes(tree)):
        return False
    return not any(True for node in nodes(tree) for _ in call_reasons(node))


def _window_reasons(node: Node) -> Iterator[str]:
    name = node["function_name"].lower()
    ordered = any(is_position(order["expression"]) for order in node["orders"])
    if name in ("rank", "dense_rank", "percent_rank", "cume_dist"):
        return
    if not ordered and (node["orders"] or name not in ORDERLESS):
        yield f"{name}() OVER (…) needs an order without ties: end its ORDER BY with position"


def is_position(node: Node) -> bool:
    """Return whether an expression is the column `position`, which has no ties."""
    return node.get("class") == "COLUMN_REF" and node["column_names"][-1].lower() == "position"


def same(one: Any, other: Any) -> bool:
    """Return whether two parses mean the same, wherever they stand."""
    return bool(_meaning(one) == _meaning(other))


def _meaning(node: Any) -> Any:
    """A parse without what does not change its meaning: where it stands and what it is called."""
    if isinstance(node, dict):
        skip = ("query_location", "query_location_length", "alias")
        return {name: _meaning(value) for name, value in node.items() if name not in skip}
    return [_meaning(item) for item in node] if isinstance(node, list) else node


def not_of_one_row(expression: str) -> str | None:
    """Return why a text is not one pure expression over the columns of one row; None when it is."""
    try:
        # Both: brackets catch a comment or a semicolon at the end, and without them two columns cannot hide.
        trees = [syntax_tree(f"SELECT {expression}"), syntax_tree(f"SELECT ({expression}\n)")]
    except QueryFailed as error:
        return str(error).splitlines()[0]
    if any(tree["type"] != "SELECT_NODE" or len(tree["select_list"]) != 1 for tree in trees):
        return "it is not one expression"
    tree = trees[0]
    rest = (tree["where_clause"], tree["group_expressions"], tree["having"], tree["qualify"], tree["modifiers"])
    if tree["from_table"]["type"] != "EMPTY" or any(rest) or tree["select_list"][0]["alias"]:
        return "it is more than an expression"
    for node in nodes(tree):
        if node.get("class") in ("STAR", "WINDOW", "PARAMETER", "SUBQUERY"):
            return f"it has a {node['class'].lower()}"
        if node.get("class") == "FUNCTION":
            name = node["function_name"].lower()
            if name == "unnest" or function_catalogue().get(name, ("",))[0] == "aggregate":
                return f"{name}() is not a function of one row"
        for reason in call_reasons(node):
            return reason
    return None
