"""Places: where the text of a SELECT reads a table, and the text with other SELECTs put there.

Owns the author's own text. A source is a place and not a name: a SELECT may read one table twice, and mean two things.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from cqrs_lab.errors import QueryFailed
from cqrs_lab.sql.duck import operators
from cqrs_lab.sql.names import quote
from cqrs_lab.sql.parse import Node, same, syntax_text, syntax_tree
from cqrs_lab.sql.withs import tables


@dataclass(frozen=True)
class Place:
    """A place in a SELECT where it reads a table.

    Attributes:
        number: which it is, in order of the text.
        name: of the table, as the author spells it.
        start, end: the characters of the text that name it.
        has_alias: whether the author calls it by another name there.
    """

    number: int
    name: str
    start: int
    end: int
    has_alias: bool


@cache
def places(sql: str) -> tuple[Place, ...]:
    """Return the places where a SELECT reads tables, in order of the text; names that a WITH gives are none."""
    found = []
    for node in tables(syntax_tree(sql)):
        start = _character(sql, node["query_location"])
        # The location covers an alias, too; the name alone is what gets replaced.
        end = start + len(quote(node["table_name"]) if sql[start] == '"' else node["table_name"])
        found.append((start, end, node["table_name"], bool(node["alias"])))
    return tuple(
        Place(number, name, start, end, has_alias)
        for number, (start, end, name, has_alias) in enumerate(sorted(found, key=lambda one: one[0]))
    )


def replaced(sql: str, read: Callable[[Place], str | None]) -> str:
    """Return the text with its sources replaced.

    Args:
        read: a place -> the SELECT to read there instead, or None to leave the name.
    """
    text = sql
    for place in reversed(places(sql)):
        select = read(place)
        if select is not None:
            alias = "" if place.has_alias else f" AS {quote(place.name)}"
            text = f"{text[: place.start]}({select}\n){alias}{text[place.end :]}"
    return text.strip()


def number_of(sql: str, node: Node) -> int | None:
    """Return the number of the place that a table in the parse of a text is; None when a WITH gives its name."""
    start = _character(sql, node["query_location"])
    return next((place.number for place in places(sql) if place.start == start), None)


def bare(sql: str) -> str:
    """Return the text of one statement without a semicolon and what stands behind it, so that it fits into brackets."""
    data = sql.encode()
    for at in operators(sql):
        if data[at : at + 1] == b";":
            return data[:at].decode()
    return sql


def _character(text: str, byte: int) -> int:
    """The character that begins at a byte; DuckDB counts bytes."""
    return len(text.encode()[:byte].decode())


@dataclass(frozen=True)
class Template:
    """An edited parse, turned back into text once, in which sources are put again and again.

    Attributes:
        text: with a mark for each place.
        marks: number of a place -> its mark.
    """

    text: str
    marks: dict[int, str]

    def filled(self, read: Callable[[int], str]) -> str:
        """Return the text; `read` gives the SELECT to read at a place of a number."""
        text = self.text
        for number, mark in self.marks.items():
            text = text.replace(mark, f"({read(number)}\n)")
        return text


def template(tree: Node, sql: str) -> Template:
    """Return the text of a parse of a SELECT, edited or not, with a mark at each of its places.

    Args:
        sql: the text that the tables in the parse stand in.

    Raises:
        QueryFailed: DuckDB does not read its own text of the parse as that parse.
    """
    salt = 0
    while f"_place_{salt}_" in sql:  # a mark is no part of what the author wrote
        salt += 1
    marks: dict[int, str] = {}

    def change(node: Any) -> Any:
        if isinstance(node, list):
            return [change(item) for item in node]
        if not isinstance(node, dict):
            return node
        if node.get("type") == "BASE_TABLE":
            number = number_of(sql, node)
            if number is None:
                return node
            mark = marks[number] = f"_place_{salt}_{number}_"
            named = {"table_name": mark, "alias": node["alias"] or node["table_name"]}
            return node | named | {"qualified_name": {"path": [mark]}}
        return {name: change(value) for name, value in node.items()}

    marked = change(tree)
    text = syntax_text(marked)
    if not same(syntax_tree(text), marked) or any(text.count(mark) != 1 for mark in marks.values()):
        raise QueryFailed(f"DuckDB writes this SELECT in another way than it reads it: {text[:200]}")
    return Template(text, marks)
