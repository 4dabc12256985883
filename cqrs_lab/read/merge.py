"""Merge: moving a projection forward by folding the new events alone.

Owns the question whether a read model's rows can be combined from two halves of the log, and the SQL that does it.
Works on the author's own text: it cuts out each aggregate, checks with DuckDB's parser that the piece means the same
alone as it did in place, and gives up with a reason where it is not sure. Giving up costs time, never a wrong row.

A row keeps the aggregates it was made of. Where a column is one aggregate, the column is that state; where it is an
expression over aggregates (a status from four flags), the aggregates are kept beside it in columns `_1`, `_2`, ….
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlglot
from sqlglot.tokens import Token, TokenType  # type: ignore[attr-defined]  # it re-exports them

from cqrs_lab.database import quote
from cqrs_lab.errors import QueryFailed
from cqrs_lab.read.models import Derived, ReadModel, item_name, span
from cqrs_lab.syntax import Node, is_aggregate, nodes, same, syntax_tree

# How the aggregate of both halves follows from {old}, over the events before, and {new}, over those after. NULL means
# that a half had no value; least and greatest skip NULLs.
_ADD = "coalesce({old} + {new}, {old}, {new})"
_LATEST = "coalesce({new}, {old})"  # by position, and every new position is above every old one
_EARLIEST = "coalesce({old}, {new})"
COMBINE = {
    "count": _ADD,
    "count_star": _ADD,
    "count_if": _ADD,
    "countif": _ADD,
    "sum": _ADD,
    "min": "least({old}, {new})",
    "max": "greatest({old}, {new})",
    "bool_and": "coalesce({old} AND {new}, {old}, {new})",
    "bool_or": "coalesce({old} OR {new}, {old}, {new})",
    "bit_and": "coalesce({old} & {new}, {old}, {new})",
    "bit_or": "coalesce({old} | {new}, {old}, {new})",
    "arg_max": _LATEST,
    "argmax": _LATEST,
    "max_by": _LATEST,
    "arg_min": _EARLIEST,
    "argmin": _EARLIEST,
    "min_by": _EARLIEST,
}


class CannotMerge(Exception):
    """The reason why a read model cannot be merged."""


@dataclass(frozen=True)
class State:
    """One aggregate, kept in a column: how its two halves combine."""

    column: str
    text: str
    combine: str


@dataclass(frozen=True)
class Merge:
    """How a read model's rows are combined from two halves of the log.

    Attributes:
        model: the read model.
        columns: its columns, in order.
        states: the aggregates that its rows keep.
        outputs: column -> expression over the states, for columns that are not a state themselves.
        hidden_at: where in the text the hidden states are selected: behind the last column.
    """

    model: ReadModel
    columns: tuple[str, ...]
    states: tuple[State, ...]
    outputs: dict[str, str]
    hidden_at: int

    @property
    def hidden(self) -> tuple[State, ...]:
        """The states that are not among the read model's columns."""
        return tuple(state for state in self.states if state.column not in self.columns)

    def stored(self) -> ReadModel:
        """Return the read model with its hidden states as further columns."""
        more = "".join(f",\n       {state.text} AS {quote(state.column)}" for state in self.hidden)
        before, after = self.model.sql[: self.hidden_at], self.model.sql[self.hidden_at :]
        return Derived(self.model.name, self.model.key, f"{before}{more}{after}")

    def rows(self, table: str, fold: str) -> str:
        """Return the SELECT of the rows of `table` that new events change, as they will be; `fold` gives their own."""
        return f"{self.combined(table, fold)}\n{self.finished('FROM combined')}"

    @property
    def _everything(self) -> list[str]:
        return [*self.columns, *(state.column for state in self.hidden)]

    def finished(self, states: str, more: str = "") -> str:
        """Return the SELECT of rows with all their columns, out of their keys and states."""
        outputs = ",\n       ".join(
            f"{self.outputs[name]} AS {quote(name)}" if name in self.outputs else quote(name)
            for name in self._everything
        )
        source = states if states.startswith("FROM ") else f"FROM ({states})"
        return f"SELECT {outputs}{more}\n{source}"

    def combined(self, table: str, fold: str, more: str = "") -> str:
        """Return WITH new, combined: the keys and states of the rows that the new events change, as they will be."""
        keys = ", ".join(map(quote, self.model.keys))
        states = ",\n       ".join(
            state.combine.format(old=f"old.{quote(state.column)}", new=f"new.{quote(state.column)}")
            + f" AS {quote(state.column)}"
            for state in self.states
        )
        return (
            f"WITH new AS (\n{fold}\n),\n"
            f"combined AS (\nSELECT {keys}{',' if states else ''}\n       {states}{more}\n"
            f"FROM new LEFT JOIN {table} AS old USING ({keys})\n)"
        )


def merge_of(model: ReadModel, tables: Sequence[str]) -> Merge:
    """Return how a read model merges.

    Args:
        tables: names of the tables of events.

    Raises:
        CannotMerge: with the reason.
    """
    tree = model.tree
    _check_shape(tree, tables)
    items, hidden_at = _split(model.sql)
    select = tree["select_list"]
    if len(items) != len(select):
        raise CannotMerge("its columns could not be told apart in the text")
    columns = tuple(item_name(item) for item in select)
    keys = {key.lower() for key in model.keys}
    visible: list[State] = []
    hidden: dict[str, State] = {}
    outputs: dict[str, str] = {}
    grouped = []
    for item, name, (start, end) in zip(select, columns, items, strict=True):
        text = model.sql[start:end]
        aggregates = list(_aggregates(item))
        if not aggregates:
            if name.lower() not in keys:
                raise CannotMerge(f"its column {name!r} is neither part of the key nor an aggregate")
            grouped.append((item, name))
            continue
        if name.lower() in keys:
            raise CannotMerge(f"its key {name!r} is an aggregate")
        _check_same(text, item)
        _check_outside(item, aggregates)
        pieces = [(*span(model.sql, node), _combine(node)) for node in aggregates]
        for (first, last, _), node in zip(pieces, aggregates, strict=True):
            _check_same(model.sql[first:last], node)
        if [(first, last) for first, last, _ in pieces] == [(start, end)]:
            visible.append(State(name, text, pieces[0][2]))
            continue
        expression = text
        for first, last, combine in sorted(pieces, reverse=True):
            piece = model.sql[first:last]
            state = hidden.setdefault(piece, State(f"_{len(hidden) + 1}", piece, combine))
            expression = expression[: first - start] + quote(state.column) + expression[last - start :]
        outputs[name] = expression
    _check_groups(tree, grouped, len(keys))
    return Merge(model, columns, (*visible, *hidden.values()), outputs, hidden_at)


def _check_shape(tree: Node, tables: Sequence[str]) -> None:
    if tree["type"] != "SELECT_NODE" or tree["cte_map"]["map"]:
        raise CannotMerge("it is more than one SELECT")
    if tree["modifiers"]:
        raise CannotMerge("it has DISTINCT or ORDER BY")
    if tree["having"] or tree["qualify"]:
        raise CannotMerge("it has HAVING or QUALIFY, which need the whole history of a row")
    source = tree["from_table"]
    while source["type"] == "JOIN" and source["ref_type"] == "CROSS" and _is_unnest(source["right"]):
        source = source["left"]  # the items of an event's own lists belong to that event alone
    if source["type"] != "BASE_TABLE":
        raise CannotMerge("it reads more than one table" if source["type"] == "JOIN" else "it reads a subquery")
    if source["table_name"].lower() not in tables:
        raise CannotMerge(f"it reads the rows of {source['table_name']}, which change; events only come")
    for kind in ("SUBQUERY", "WINDOW"):
        if any(node.get("class") == kind for node in nodes(tree)):
            raise CannotMerge(f"it has a {kind.lower()}")
    if len(tree["group_sets"]) > 1 or (not tree["group_expressions"] and tree["aggregate_handling"] == "STANDARD"):
        raise CannotMerge("it is not grouped by its key")


def _is_unnest(source: Node) -> bool:
    return bool(source["type"] == "TABLE_FUNCTION" and source["function"]["function_name"].lower() == "unnest")


def _split(sql: str) -> tuple[list[tuple[int, int]], int]:
    """Return where each selected expression stands, without its name, and where the last of them ends."""
    try:
        tokens = sqlglot.tokenize(sql, read="duckdb")
    except sqlglot.errors.TokenError as error:
        raise CannotMerge(f"its text could not be read: {error}") from None
    depth = 0
    items: list[list[Token]] = []
    for token in tokens:
        if token.token_type in (TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE):
            depth += 1
        elif token.token_type in (TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE):
            depth -= 1
        if depth == 0 and token.token_type is TokenType.SELECT:
            items = [[]]
            continue
        if not items:
            if token.token_type is TokenType.FROM:
                break
            continue
        if depth == 0 and token.token_type is TokenType.FROM:
            # After the last column's own last word: a comment behind it would swallow what came after the comment.
            return [_without_name(sql, item) for item in items], items[-1][-1].end + 1
        if depth == 0 and token.token_type is TokenType.COMMA:
            items.append([])
        else:
            items[-1].append(token)
    raise CannotMerge("its text is not SELECT … FROM …")


def last_column(sql: str) -> int:
    """Return where in a SELECT's text more columns can be selected: behind the last one.

    Raises:
        CannotMerge: it could not be told.
    """
    return _split(sql)[1]


def _without_name(sql: str, tokens: list[Token]) -> tuple[int, int]:
    """Where one selected expression stands, up to its alias."""
    if not tokens:
        raise CannotMerge("its text has an empty column")
    whole = sql[tokens[0].start : tokens[-1].end + 1]
    alias = syntax_tree(f"SELECT {whole}")["select_list"][0]["alias"]
    if alias:
        tokens = tokens[:-1]
        if tokens and tokens[-1].token_type is TokenType.ALIAS:
            tokens = tokens[:-1]
    return tokens[0].start, tokens[-1].end + 1


def _aggregates(item: Node) -> Iterator[Node]:
    return (node for node in nodes(item) if is_aggregate(node))


def _combine(node: Node) -> str:
    name = node["function_name"].lower()
    said = f"{name}()"
    arguments = [argument["expression"] for argument in node["arguments"]]
    if node["distinct"]:
        raise CannotMerge(f"{name}(DISTINCT …) needs all the values that a row has seen")
    if node["order_bys"]["orders"]:
        raise CannotMerge(f"{said} has an ORDER BY")
    if name not in COMBINE:
        raise CannotMerge(f"{said} of two halves does not follow from the {said} of each")
    if COMBINE[name] in (_LATEST, _EARLIEST):
        by = arguments[1] if len(arguments) == 2 else {}
        if by.get("class") != "COLUMN_REF" or by["column_names"][-1].lower() != "position":
            raise CannotMerge(f"{said} is not by position alone")
    elif len(arguments) > 1:
        raise CannotMerge(f"{said} has more than one argument")
    return COMBINE[name]


def _check_outside(item: Node, aggregates: list[Node]) -> None:
    """Outside its aggregates an expression may use nothing of the events: one row stands for many."""
    inside = {id(node) for aggregate in aggregates for node in nodes(aggregate)}
    for node in nodes(item):
        if node.get("class") == "COLUMN_REF" and id(node) not in inside and not _is_lambda_name(item, node):
            raise CannotMerge(f"{node['column_names'][-1]!r} stands outside an aggregate")


def _is_lambda_name(item: Node, node: Node) -> bool:
    names = {
        column["column_names"][-1]
        for part in nodes(item)
        if part.get("class") == "LAMBDA"
        for column in nodes(part["lhs"])
        if column.get("class") == "COLUMN_REF"
    }
    return node["column_names"][0] in names


def _check_groups(tree: Node, grouped: list[tuple[Node, str]], keys: int) -> None:
    if len(grouped) != keys:
        raise CannotMerge("its key is not what it is grouped by")
    names = {name.lower() for _, name in grouped}
    for expression in tree["group_expressions"]:
        literal = expression.get("literal", {}).get("text") if expression["class"] == "CONSTANT" else None
        if literal is not None:
            item = tree["select_list"][int(literal) - 1]
            if any(item is one for one, _ in grouped):
                continue
        if any(same(expression, item) for item, _ in grouped):
            continue
        if expression["class"] == "COLUMN_REF" and expression["column_names"][-1].lower() in names:
            continue
        raise CannotMerge("it is grouped by more than its key")
    if tree["group_expressions"] and len(tree["group_expressions"]) < keys:
        raise CannotMerge("it is grouped by less than its key")


def _check_same(text: str, node: Node) -> None:
    """Check that a piece of text, parsed alone, is what it was in its place."""
    try:
        alone = syntax_tree(f"SELECT {text}")["select_list"]
    except QueryFailed:
        alone = []
    if len(alone) != 1 or not same(alone[0], node):
        raise CannotMerge(f"{text[:60]!r} could not be cut out of the text")
