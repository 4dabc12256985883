"""What DuckDB says about SQL: its parse of a SELECT, and which calls in it are functions of the events.

Owns the reading of parses. What is said of each function stands in `cqrs_lab.sql.functions`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from cqrs_lab.errors import QueryFailed
from cqrs_lab.sql import functions
from cqrs_lab.sql.duck import ask

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


def own_nodes(tree: Any) -> Iterator[Node]:
    """Yield every node of a SELECT, or of parts of one, parents first, and none of a SELECT inside it."""
    yield from _own(tree, is_root=True)


def _own(tree: Any, *, is_root: bool = False) -> Iterator[Node]:
    if isinstance(tree, dict):
        if tree.get("type") == "SELECT_NODE" and not is_root:
            return
        yield tree
        for child in tree.values():
            yield from _own(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _own(child)


@cache
def syntax_tree(sql: str) -> Any:
    """Return DuckDB's own parse of one SELECT, as nested dicts and lists.

    Raises:
        QueryFailed: it does not parse, or is not one SELECT.
    """
    answer = json.loads(ask("SELECT json_serialize_sql(?::VARCHAR)", [sql])[0][0])
    if answer["error"]:
        raise QueryFailed(f"{answer['error_message']}\nIn: {' '.join(sql.split())[:500]}")
    if len(answer["statements"]) != 1:
        raise QueryFailed(f"a SELECT was expected, and nothing beside it: {sql.strip()[:200]}")
    return answer["statements"][0]["node"]


def syntax_text(node: Any) -> str:
    """Return SQL for a parse as `syntax_tree` gives it."""
    statement = json.dumps({"error": False, "statements": [{"node": node}]})
    text: str = ask("SELECT json_deserialize_sql(?::JSON)", [statement])[0][0]
    return text


@cache
def _catalogue() -> frozenset[str]:
    """The names of the functions that the installed DuckDB has."""
    return frozenset(name for (name,) in ask("SELECT lower(function_name) FROM duckdb_functions()"))


def is_aggregate(node: Node) -> bool:
    """Return whether a node of a parse calls an aggregate."""
    return node.get("class") == "FUNCTION" and node["function_name"].lower() in functions.AGGREGATES


def call_reasons(node: Node) -> Iterator[str]:
    """Yield why a node is not a function of the events, when it calls something that is not."""
    if node.get("class") == "FUNCTION":
        yield from _function_reasons(node)
    elif node.get("class") == "WINDOW":
        name = node["function_name"].lower()
        if name not in functions.WINDOWS | functions.AGGREGATES:
            yield f"{name}() OVER (…) is not known to be a function of the events"
    elif node.get("class") == "COLUMN_REF" and len(node["column_names"]) == 1:
        name = node["column_names"][0].lower()
        if name in functions.KEYWORDS:
            yield (
                f"{name} is not a function of the events: {functions.refusal(name)}. A column that is called {name} "
                f"has to be named with its table, as in order_events.{name}"
            )


def _function_reasons(node: Node) -> Iterator[str]:
    name = node["function_name"].lower()
    arguments = [argument["expression"] for argument in node["arguments"]]
    reason = functions.refusal(name, len(arguments))
    if reason is not None:
        yield f"{name}() is not a function of the events: {reason}"
    elif name in functions.BY_ARRIVAL:
        instead = functions.INSTEAD.get(name, "use an aggregate that does not")
        yield f"{name}() may depend on the order in which rows arrive; {instead}"
    elif not functions.is_classified(name):
        if name in _catalogue():
            yield (
                f"{name}() is not known to be a function of the events: this version of cqrs_lab has no judgement of "
                "it. Write it with functions that it knows, or upgrade cqrs_lab"
            )
        else:
            yield f"DuckDB has no function {name}()"
    elif functions.draws_a_sample(name, _text(arguments[1]) if len(arguments) > 1 else ""):
        yield f"{name}() needs the name of an aggregate that draws no sample, written as a text"


def _text(node: Node) -> str | None:
    """The text that a node of a parse is a constant of; None when it is something else."""
    literal = node.get("literal") or {}
    return str(literal["text"]) if literal.get("kind") == "STRING" else None


def first_select(tree: Node) -> Node:
    """Return the SELECT whose columns give a parse its names: itself, or the first of a UNION."""
    while tree["type"] == "SET_OPERATION_NODE":
        tree = (tree.get("children") or [tree["left"]])[0]
    return tree


def item_name(item: Node) -> str:
    """Return the name of a select item, empty when it has none."""
    if item["alias"]:
        return str(item["alias"])
    return str(item["column_names"][-1]) if item["class"] == "COLUMN_REF" else ""


def lenient_text(expression: Node) -> str:
    """Return the SQL of an expression that gives NULL where it would fail.

    Who looks for keys asks more rows than the author's own WHERE lets through, so that a cast may meet what it cannot
    read. The two sides of a comparison are wrapped apart: DuckDB still finds a hash join there. TRY costs nothing where
    nothing fails, and 4 microseconds for a row that does; TRY_CAST 0.04.
    """
    if expression.get("class") == "COMPARISON":
        sides = {side: syntax_tree(f"SELECT {lenient_text(expression[side])}")["select_list"][0] for side in _SIDES}
        return text_of(expression | sides)
    text = text_of(_lenient(expression))
    return f"TRY({text})" if any(node.get("class") == "FUNCTION" for node in nodes(expression)) else text


_SIDES = ("left", "right")


def _lenient(tree: Any) -> Any:
    """A parse in which each cast gives NULL where it would fail."""
    if isinstance(tree, list):
        return [_lenient(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    whole = {name: _lenient(value) for name, value in tree.items()}
    return whole | {"try_cast": True} if tree.get("class") == "CAST" else whole


def left_out_of(star: Node) -> frozenset[str] | None:
    """Return the columns, in lower case, that a `*` leaves out; None when it changes others."""
    if star["columns"] or star["expr"] or star["replace_list"] or star["rename_list"]:
        return None
    return frozenset(
        name.lower() for name in [*star["exclude_list"], *(one["column"] for one in star["qualified_exclude_list"])]
    )


def columns_of(expression: Any, bound: frozenset[str] = frozenset()) -> list[Node]:
    """Return the columns that an expression reads; what a lambda calls its arguments is none in its own body.

    Args:
        bound: the names, in lower case, that lambdas around the expression give.
    """
    if isinstance(expression, list):
        return [column for item in expression for column in columns_of(item, bound)]
    if not isinstance(expression, dict):
        return []
    if expression.get("class") == "LAMBDA":
        return columns_of(expression["expr"], bound | arguments_of(expression))
    if expression.get("class") == "COLUMN_REF":
        return [] if expression["column_names"][0].lower() in bound else [expression]
    return [column for child in expression.values() for column in columns_of(child, bound)]


def named_in(tree: Any) -> frozenset[str] | None:
    """Return all names by which a SELECT may mean a column of a table, in lower case; None when it may mean any.

    They are too many rather than too few: names of tables and of a lambda's arguments are among them.
    """
    names: set[str] = set()
    tables: set[str] = set()
    rows: set[str] = set()
    for node in nodes(tree):
        if node.get("class") in ("STAR", "POSITIONAL_REFERENCE") or node.get("type") == "PIVOT":
            return None
        if node.get("ref_type") == "NATURAL" or node.get("using_columns") or node.get("column_name_alias"):
            return None
        if node.get("type") == "BASE_TABLE":
            tables.add((node["alias"] or node["table_name"]).lower())
        if node.get("class") == "COLUMN_REF":
            names.update(name.lower() for name in node["column_names"])
            rows.add(node["column_names"][-1].lower())
    return None if rows & tables else frozenset(names)  # the name of a table alone is its whole row


def arguments_of(function: Node) -> frozenset[str]:
    """Return what a lambda calls its arguments, in lower case."""
    return frozenset(n["column_names"][-1].lower() for n in nodes(function["lhs"]) if n.get("class") == "COLUMN_REF")


def lambda_names(expression: object) -> frozenset[str]:
    """Return the names that lambdas in an expression give to their arguments, in lower case."""
    lambdas = (node for node in nodes(expression) if node.get("class") == "LAMBDA")
    return frozenset(name for node in lambdas for name in arguments_of(node))


def text_of(expression: Node) -> str:
    """Return the SQL of an expression."""
    tree = syntax_tree("SELECT 1") | {"select_list": [expression | {"alias": ""}]}
    return syntax_text(tree).removeprefix("SELECT ")


@cache
def _equality() -> Node:
    condition: Node = syntax_tree("SELECT 1 FROM t WHERE a.b = c.d")["where_clause"]
    return condition


def equality(one: Node, other: Node) -> Node:
    """Return the condition that two expressions are equal."""
    return _equality() | {"left": one, "right": other}


@cache
def _field() -> Node:
    expression: Node = syntax_tree("SELECT struct_extract(a, 'b')")["select_list"][0]
    return expression


def field_of(expression: Node, name: str) -> Node:
    """Return the expression for one field of a struct."""
    whole = copy.deepcopy(_field())
    whole["arguments"][0]["expression"] = expression
    whole["arguments"][1]["expression"]["literal"]["text"] = name
    return whole


def conjuncts(condition: Node | None) -> Iterator[Node]:
    """Yield the conditions that a condition demands together."""
    if condition and condition.get("type") == "CONJUNCTION_AND":
        for child in condition["children"]:
            yield from conjuncts(child)
    elif condition:
        yield condition


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
            if name == "unnest" or is_aggregate(node):
                return f"{name}() is not a function of one row"
        for reason in call_reasons(node):
            return reason
    return None
