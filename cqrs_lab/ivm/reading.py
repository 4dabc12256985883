"""What is read: all places that a SELECT and those inside it read, and what is demanded of their rows.

Owns the full names: each place has an alias that no other one shares, so that an expression means the same wherever it
is put.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from cqrs_lab.sql.names import names_events
from cqrs_lab.sql.parse import Node, columns_of, field_of, is_aggregate, lenient_text, nodes
from cqrs_lab.sql.places import number_of

_MOST_PLACES = 40  # a chain of WITHs that each read the one before twice doubles at every link


class CannotPlan(Exception):
    """The reason why a read model cannot be moved in some way."""


@dataclass(frozen=True)
class Unnest:
    """A list in FROM that makes several rows of one; it belongs to the place whose columns it reads.

    Attributes:
        text: what stands in FROM, in full names.
        alias: what it is called in full names.
        owner: number of the place.
        over: aliases of the lists that it reads, in lower case.
    """

    text: str
    alias: str
    owner: int
    over: frozenset[str]


@dataclass(frozen=True)
class Use:
    """One place where a SELECT, or one inside it, reads a table of events or another read model.

    Attributes:
        number: which it is, in the order of reading; a WITH that is read twice has its places twice.
        place: number of the place in the text.
        name: of the source, in lower case.
        alias: what it is called in full names: as the SELECT does, or with a number where others share that.
        columns: that it has, in lower case.
        optional: numbers of what lets rows go on without it, outermost first: LEFT JOINs, subqueries in an expression,
            aggregates over all rows.
        named: those of its columns that the SELECT may mean, and perhaps more; None for all.
    """

    number: int
    place: int
    name: str
    alias: str
    columns: frozenset[str]
    optional: tuple[int, ...]
    named: tuple[str, ...] | None = None

    @property
    def is_events(self) -> bool:
        """Whether it reads a table of events."""
        return names_events(self.name)


@dataclass(frozen=True)
class Condition:
    """One conjunct of an ON, a USING or WHERE.

    Attributes:
        expression: its parse, in full names.
        uses: numbers of the places whose columns it reads.
        within: what lets rows go on without those that it judges, outermost first.
        left: number of the LEFT JOIN in whose ON it stands; None for an inner join and for WHERE.
    """

    expression: Node
    uses: frozenset[int]
    within: tuple[int, ...]
    left: int | None

    @cached_property
    def text(self) -> str:
        """Its SQL, written by DuckDB once and not at every batch; where it fails, it does not hold."""
        return lenient_text(self.expression)

    @property
    def scope(self) -> tuple[int, ...]:
        """The LEFT JOINs whose matches it decides on; it need not hold for what lacks a partner there."""
        return self.within if self.left is None else (*self.within, self.left)

    @property
    def is_equality(self) -> bool:
        """Whether it compares two plain columns with =; NULL meets nothing there."""
        return self.expression["type"] == "COMPARE_EQUAL" and all(
            self.expression[side]["class"] == "COLUMN_REF" for side in ("left", "right")
        )


@dataclass(frozen=True)
class Source:
    """One thing that FROM names: a table, or columns that are followed or, being None, cannot be."""

    alias: str
    names: tuple[str, ...]
    table: str | None = None  # its alias in full names
    columns: Mapping[str, Node | None] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether it has a column of a name."""
        return name.lower() in self.names

    def meaning(self, names: list[str]) -> Node:
        """Return the expression that a column, or a field of it, stands for.

        Raises:
            CannotPlan: it cannot be followed.
        """
        if self.table is not None:
            return column_of([self.table, *names])
        found = self.columns.get(names[0].lower())
        if found is None:
            raise CannotPlan(
                f"{names[0]!r} of a SELECT inside it may differ in rows of one key; make that SELECT a read model"
            )
        if found["class"] == "COLUMN_REF":
            return column_of([*found["column_names"], *names[1:]])
        for name in names[1:]:
            found = field_of(found, name)
        return found

    def named(self, names: list[str]) -> Node:
        """A column of it as the SELECT that reads it calls it; a subquery may have no name."""
        return column_of([self.alias, *names] if self.alias else names)


@dataclass
class Reading:
    """All that is read by a SELECT and those inside it.

    Attributes:
        sql: the text.
        columns_of: name of a source, in lower case -> its columns.
        uses: the places, in the order of reading.
        unnests: alias in full names, in lower case -> a list in FROM that can be followed.
        has_lists, has_optional_lists: whether there are any; whether one stands on the right of a LEFT JOIN.
        conditions: those that can be followed; without one, more keys are reached, and none is missed.
        taken: aliases in full names, and what lambdas call their arguments, in lower case.
    """

    sql: str
    columns_of: Callable[[str], Iterable[str]]
    uses: list[Use] = field(default_factory=list)
    unnests: dict[str, Unnest] = field(default_factory=dict)
    has_lists: bool = False
    has_optional_lists: bool = False
    conditions: list[Condition] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    _optional: int = 0
    _values: set[int] = field(default_factory=set)

    def optional(self, *, is_join: bool = False) -> int:
        """Return a new number of something that lets rows go on without what it holds: a LEFT JOIN, or a value."""
        self._optional += 1
        if not is_join:
            self._values.add(self._optional)
        return self._optional

    def is_loose(self, use: Use) -> bool:
        """Return whether a place is read for a value: in an expression, or by an aggregate over all rows."""
        return not self._values.isdisjoint(use.optional)

    def alias(self, wanted: str) -> str:
        """Return an alias that no other place has."""
        alias, number = wanted, 1
        while alias.lower() in self.taken:
            number += 1
            alias = f"{wanted}_{number}"
        self.taken.add(alias.lower())
        return alias

    def use(self, node: Node, optional: tuple[int, ...]) -> Use:
        """Return a new place for a table."""
        place = number_of(self.sql, node)
        if place is None or len(self.uses) >= _MOST_PLACES:
            raise CannotPlan("its WITHs lead to too many places, or to themselves; make them read models of their own")
        name = node["table_name"].lower()
        columns = frozenset(column.lower() for column in self.columns_of(name))
        use = Use(len(self.uses), place, name, self.alias(node["alias"] or node["table_name"]), columns, optional)
        self.uses.append(use)
        return use

    def uses_of(self, expression: Node) -> frozenset[int]:
        """Return the numbers of the places that an expression in full names reads."""
        owners = {use.alias.lower(): use.number for use in self.uses}
        owners |= {alias: unnest.owner for alias, unnest in self.unnests.items()}
        return frozenset(owners[column["column_names"][0].lower()] for column in columns_of(expression))

    def unnests_of(self, expression: Node) -> frozenset[str]:
        """Return the aliases of the lists that an expression in full names reads, in lower case."""
        found: set[str] = set()
        todo = {column["column_names"][0].lower() for column in columns_of(expression)}
        while todo := {alias for alias in todo if alias in self.unnests and alias not in found}:
            found |= todo
            todo = {alias for one in todo for alias in self.unnests[one].over}
        return frozenset(found)

    def demand(self, expression: Node, within: tuple[int, ...], left: int | None) -> None:
        """Keep a condition in full names, where it can be asked of rows that stand side by side."""
        if makes_rows(expression) or any(
            is_aggregate(node) or node.get("class") == "WINDOW" for node in nodes(expression)
        ):
            return
        self.conditions.append(Condition(expression, self.uses_of(expression), within, left))


def makes_rows(expression: object) -> bool:
    """Return whether an expression makes several rows of one."""
    return any(n.get("class") == "FUNCTION" and n["function_name"].lower() == "unnest" for n in nodes(expression))


def column_of(names: list[str]) -> Node:
    """Return the expression for a column of that name."""
    place = {"query_location": 0, "query_location_length": 0}
    return {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", **place, "column_names": names}
