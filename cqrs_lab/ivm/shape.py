"""The shape of a SELECT: the places that it reads, its conditions, and the parts of its key.

Owns what a plan has to know of a SELECT, whatever is then made of it. Everything is said in full names (see
`cqrs_lab.ivm.scope`), so that it means the same in another FROM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.ivm.reading import CannotPlan, Use, makes_rows
from cqrs_lab.ivm.scope import read
from cqrs_lab.sql.parse import Node, is_aggregate, item_name, lenient_text, named_in, nodes, text_of


@dataclass(frozen=True)
class Part:
    """One column of the key.

    Attributes:
        name: the column, as the SELECT spells it.
        expression: what it is, in full names.
        uses: numbers of the places that it comes from; none for a constant.
        unnests: aliases of the lists that it reads, in lower case.
    """

    name: str
    expression: Node
    uses: frozenset[int]
    unnests: frozenset[str]

    @cached_property
    def text(self) -> str:
        """Its SQL, written by DuckDB once and not at every batch; NULL where it fails."""
        return text_of(self.expression) if self.makes_rows else lenient_text(self.expression)

    @cached_property
    def makes_rows(self) -> bool:
        """Whether it makes several rows of one, so that it cannot be asked for in a WHERE."""
        return makes_rows(self.expression)


class Shape:
    """What a SELECT reads and demands, subqueries and WITHs followed to what they read.

    Args:
        model: the read model.
        columns: name of a source, in lower case -> its columns, in order.
        shown: the columns of its rows, as DuckDB spells them: as the source does, where the SELECT writes another case.

    Raises:
        CannotPlan: something in it is not a SELECT over tables, inner and left joins, and unnest.
    """

    def __init__(self, model: ReadModel, columns: Callable[[str], Iterable[str]], shown: Iterable[str] = ()) -> None:
        self.model, self.tree = model, _spelled(model.tree, shown)
        self.reading, self.scopes = read(model.sql, self.tree, columns)
        self.top = self.scopes[0]
        named = named_in(self.tree)
        self.uses, self.conditions = self.reading.uses, self.reading.conditions
        if named is not None:
            self.uses = [replace(use, named=tuple(sorted(named & use.columns)) or None) for use in self.uses]
        self._simplify()

    @property
    def is_nested(self) -> bool:
        """Whether it is more than one SELECT."""
        return len(self.scopes) > 1

    def use(self, number: int) -> Use:
        """Return the place of a number."""
        return self.uses[number]

    def at(self, place: int) -> list[Use]:
        """Return what reads a place of the text: one, or several where a WITH is read twice."""
        return [use for use in self.uses if use.place == place]

    def uses_of(self, expression: Node) -> frozenset[int]:
        """Return the numbers of the places that an expression in full names reads."""
        return self.reading.uses_of(expression)

    @cached_property
    def position(self) -> Node | None:
        """How the outermost SELECT calls the position of the only events that are read; None when it has none."""
        for source in self.top.sources:
            for name in source.names:
                with suppress(CannotPlan):
                    if is_position(source.meaning([name]), self.uses[0]):
                        return source.named([name])
        return None

    def _simplify(self) -> None:
        """Take a LEFT JOIN for an inner one where a condition above it lets no row through that lacks its right side.

        After C. Galindo-Legaria and A. Rosenthal, "Outerjoin Simplification and Reordering" (1997).
        """
        while True:
            inner = {
                number
                for condition in self.conditions
                if condition.is_equality
                for use in condition.uses
                if self.use(use).optional[: len(condition.scope)] == condition.scope
                for number in self.use(use).optional[len(condition.scope) :]
            }
            if not inner:
                return
            self.uses = [replace(use, optional=tuple(n for n in use.optional if n not in inner)) for use in self.uses]
            self.conditions = [
                replace(
                    c, within=tuple(n for n in c.within if n not in inner), left=None if c.left in inner else c.left
                )
                for c in self.conditions
            ]

    def parts(self, columns: Iterable[str] | None = None) -> list[Part]:
        """Return the columns of the key, or others, that say, of a row, which rows of its places it is made of.

        A part is one expression, without aggregate, over places that no LEFT JOIN can drop; with windows it stands in
        every PARTITION BY.
        """
        keys = {key.lower() for key in (self.model.keys if columns is None else columns)}
        found = []
        for item in self.tree["select_list"]:
            if item_name(item).lower() not in keys:
                continue
            try:
                whole = self.top.full(item, is_item=True) | {"alias": ""}
            except CannotPlan:
                continue
            if any(is_aggregate(node) or node.get("class") == "WINDOW" for node in nodes(whole)):
                continue
            uses = self.uses_of(whole)
            if any(self.use(use).optional for use in uses) or not self.top.is_partition(whole):
                continue
            unnests = self.reading.unnests_of(whole)
            part = Part(item_name(item), whole, uses, unnests)
            # Two lists in one SELECT go side by side; of two SELECTs, each item of one meets each of the other.
            if not part.makes_rows or self._listing == 1:
                found.append(part)
        return found

    @cached_property
    def _listing(self) -> int:
        """How many SELECTs make several rows of one in their own columns."""
        return sum(makes_rows(scope.select["select_list"]) for scope in self.scopes)


def _spelled(tree: Node, shown: Iterable[str]) -> Node:
    """A parse in which each column that is selected under its own name is called as it is shown."""
    names = {name.lower(): name for name in shown}
    if tree["type"] != "SELECT_NODE":
        return tree
    items = [
        item | {"alias": names.get(item_name(item).lower(), "")}
        if item["class"] == "COLUMN_REF" and not item["alias"] and item_name(item) not in names.values()
        else item
        for item in tree["select_list"]
    ]
    return tree | {"select_list": items}


def is_position(expression: Node, use: Use) -> bool:
    """Return whether an expression in full names is the position of the events of a place."""
    names = expression["column_names"] if expression.get("class") == "COLUMN_REF" else []
    return len(names) == 2 and names[0] == use.alias and names[1].lower() == "position"
