"""The shape of a SELECT: its places, what its names mean, its conditions, and the parts of its key.

Owns the reading of one SELECT's parse, whatever is then made of it. Every expression is returned with its columns named
in full, so that it means the same in another FROM.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property

from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.sql.parse import (
    Node,
    columns_of,
    conjuncts,
    is_aggregate,
    item_name,
    lambda_names,
    nodes,
    same,
    syntax_text,
    syntax_tree,
    text_of,
)
from cqrs_lab.sql.places import number_of


class CannotPlan(Exception):
    """The reason why a read model cannot be moved in some way."""


@dataclass(frozen=True)
class Unnest:
    """A list in FROM that makes several rows of one; it belongs to the place whose columns it reads.

    Attributes:
        text: what stands in FROM, its columns named in full.
        alias: what the SELECT calls it.
        columns: that it has, in lower case.
    """

    text: str
    alias: str
    columns: frozenset[str]


@dataclass(frozen=True)
class Use:
    """One place where a SELECT reads a table of events or another read model.

    Attributes:
        number: which place it is, in order of the text.
        name: of the source, in lower case.
        alias: what the SELECT calls it.
        columns: that it has, in lower case.
        optional: numbers of the LEFT JOINs that let rows go on without it, outermost first.
    """

    number: int
    name: str
    alias: str
    columns: frozenset[str]
    optional: tuple[int, ...]


@dataclass(frozen=True)
class Condition:
    """One conjunct of an ON, a USING or WHERE.

    Attributes:
        expression: its parse, with columns named in full.
        uses: numbers of the places whose columns it reads.
        within: the LEFT JOINs in whose right side it stands, outermost first.
        left: number of the LEFT JOIN in whose ON it stands; None for an inner join and for WHERE.
    """

    expression: Node
    uses: frozenset[int]
    within: tuple[int, ...]
    left: int | None

    @cached_property
    def text(self) -> str:
        """Its SQL, written by DuckDB once and not at every batch."""
        return text_of(self.expression)

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
class Part:
    """One column of the key.

    Attributes:
        name: the column, as the SELECT spells it.
        expression: what it is, with columns named in full.
        use: number of the place that it comes from; None for a constant.
        unnests: aliases of the lists that it reads, in lower case.
    """

    name: str
    expression: Node
    use: int | None
    unnests: frozenset[str]

    @cached_property
    def text(self) -> str:
        """Its SQL, written by DuckDB once and not at every batch."""
        return text_of(self.expression)


class Shape:
    """What a SELECT of one level reads and demands.

    Args:
        model: the read model.
        columns: name of a source, in lower case -> its columns.

    Raises:
        CannotPlan: it is more than one SELECT over tables, inner and left joins, and unnest.
    """

    def __init__(self, model: ReadModel, columns: Callable[[str], Iterable[str]]) -> None:
        self.model, self.tree = model, model.tree
        self._columns_of = columns
        if self.tree["type"] != "SELECT_NODE" or self.tree["cte_map"]["map"]:
            raise CannotPlan("it is more than one SELECT; make the parts read models of their own")
        if any("SUBQUERY" in (node.get("class"), node.get("type")) for node in nodes(self.tree)):
            raise CannotPlan("it has a subquery; make the inner SELECT a read model of its own")
        if len(self.tree["group_sets"]) > 1:
            raise CannotPlan("it has grouping sets")
        self.uses: list[Use] = []
        self.unnests: dict[str, tuple[Unnest, int]] = {}
        self.conditions: list[Condition] = []
        self._lost: set[str] = set()  # aliases of lists whose columns are not followed
        self._lists: list[tuple[Node, bool]] = []
        self._given: list[tuple[Node | None, list[str], tuple[int, ...], int | None, Node]] = []
        self._lefts = 0
        self._read(self.tree["from_table"], ())
        if not self.uses:
            raise CannotPlan("it reads no events")
        for node, is_optional in self._lists:
            self._unnest(node, is_optional=is_optional)
        self._gather()
        self._simplify()

    # -- FROM ------------------------------------------------------------------------------------------------------

    def _read(self, source: Node, within: tuple[int, ...]) -> None:
        kind = source["type"]
        if kind == "BASE_TABLE":
            if source.get("column_name_alias"):
                raise CannotPlan("it renames the columns of a source")
            name = source["table_name"].lower()
            number = number_of(self.model.sql, source)
            found = frozenset(column.lower() for column in self._columns_of(name))
            assert number is not None
            self.uses.append(Use(number, name, source["alias"] or source["table_name"], found, within))
        elif kind == "JOIN":
            self._join(source, within)
        elif kind == "TABLE_FUNCTION" and source["function"]["function_name"].lower() == "unnest":
            self._lists.append((source, bool(within)))
        else:
            if kind != "EMPTY":
                raise CannotPlan(f"it reads a {kind.lower().replace('_', ' ')}")

    def _join(self, source: Node, within: tuple[int, ...]) -> None:
        kind, how = source["join_type"], source["ref_type"]
        if kind not in ("INNER", "LEFT") or how not in ("REGULAR", "CROSS", "NATURAL"):
            words = f"{how} {kind}".lower().removeprefix("regular ")
            article = "an" if words[0] in "aeiou" else "a"
            raise CannotPlan(f"it has {article} {words} join; write it as an inner or a left join")
        if how == "NATURAL":
            raise CannotPlan("it has a natural join, which new columns change; say USING")
        left = None
        if kind == "LEFT":
            self._lefts += 1
            left = self._lefts
        self._read(source["left"], within)
        self._read(source["right"], within if left is None else (*within, left))
        self._given.append((source["condition"], source["using_columns"], within, left, source))

    def _unnest(self, node: Node, *, is_optional: bool) -> None:
        alias = node["alias"] or "unnest"
        names = node["column_name_alias"] or ["unnest"]
        arguments = node["function"]["arguments"]
        owners = {self._owner(column) for argument in arguments for column in columns_of(argument)}
        is_plain = len(arguments) == 1 and not arguments[0]["name"]
        if is_optional or not is_plain or len(owners) != 1 or None in owners:
            self._lost |= {alias.lower(), *(name.lower() for name in names)}
            return
        (owner,) = owners
        assert owner is not None
        whole = copy.deepcopy(node)
        whole["function"]["arguments"] = [
            argument | {"expression": self.qualified(argument["expression"])} for argument in arguments
        ]
        # Of FROM only this; the rest of the SELECT is put round it later.
        text = syntax_text(syntax_tree("SELECT 1 FROM t") | {"from_table": whole}).split(" FROM ", 1)[1]
        self.unnests[alias.lower()] = (Unnest(text, alias, frozenset(n.lower() for n in names)), owner)

    @property
    def has_lists(self) -> bool:
        """Whether it makes several rows of one by unnest in FROM."""
        return bool(self._lists)

    @property
    def has_optional_lists(self) -> bool:
        """Whether it does so on the right of a LEFT JOIN."""
        return any(is_optional for _, is_optional in self._lists)

    # -- names -----------------------------------------------------------------------------------------------------

    def use(self, number: int) -> Use:
        """Return the place of a number."""
        return next(use for use in self.uses if use.number == number)

    def _owner(self, column: Node) -> int | None:
        """The place that a column comes from, the one of a list included; None when it is not known.

        A column that several places have comes from the first: only USING allows that, and it means that one.
        """
        found = self._find(column["column_names"])
        return found[0] if found else None

    def _find(self, names: list[str]) -> tuple[int, list[str]] | None:
        """The place and the full name of a column."""
        first, *rest = names
        if rest:
            for use in self.uses:
                if use.alias.lower() == first.lower() and rest[0].lower() in use.columns:
                    return use.number, [use.alias, *rest]
            if first.lower() in self.unnests:
                unnest, owner = self.unnests[first.lower()]
                if rest[0].lower() in unnest.columns:
                    return owner, [unnest.alias, *rest]
        if first.lower() in self._lost:
            return None
        for use in self.uses:
            if first.lower() in use.columns:
                return use.number, [use.alias, *names]
        for unnest, owner in self.unnests.values():
            if first.lower() in unnest.columns:
                return owner, [unnest.alias, *names]
        return None

    def qualified(self, expression: Node, *, is_item: bool = False) -> Node:
        """Return an expression with its columns named in full.

        Args:
            is_item: whether names may be those of columns that the SELECT makes.

        Raises:
            CannotPlan: a name is not that of a column of a place.
        """
        bound = lambda_names(expression)

        def change(node: object) -> object:
            if isinstance(node, list):
                return [change(item) for item in node]
            if not isinstance(node, dict):
                return node
            if node.get("class") == "COLUMN_REF" and node["column_names"][0] not in bound:
                found = self._find(node["column_names"])
                if found is not None:
                    plain = {name: value for name, value in node.items() if name != "qualified_name"}
                    return plain | {"column_names": found[1]}
                item = self._item(node["column_names"]) if is_item else None
                if item is None:
                    raise CannotPlan(f"{'.'.join(node['column_names'])!r} could not be followed to its source")
                return self.qualified(item | {"alias": node["alias"]}, is_item=True)
            return {name: change(value) for name, value in node.items()}

        whole = change(expression)
        assert isinstance(whole, dict)
        return whole

    def _item(self, names: list[str]) -> Node | None:
        """The column of the SELECT that has a name."""
        items = (item for item in self.tree["select_list"] if item["alias"].lower() == names[0].lower())
        return next(items, None) if len(names) == 1 else None

    def uses_of(self, expression: Node) -> frozenset[int]:
        """Return the numbers of the places that an expression in full names reads."""
        found = (self._find(column["column_names"]) for column in columns_of(expression))
        return frozenset(one[0] for one in found if one is not None)

    def unnests_of(self, expression: Node) -> frozenset[str]:
        """Return the aliases of the lists that an expression in full names reads, in lower case."""
        return frozenset(
            column["column_names"][0].lower()
            for column in columns_of(expression)
            if column["column_names"][0].lower() in self.unnests
        )

    # -- conditions ------------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        for condition, using, within, left, source in self._given:
            for conjunct in conjuncts(condition):
                self._add(conjunct, within, left)
            for column in using:
                sides = [self._first(source[side], column) for side in ("left", "right")]
                if None not in sides:
                    self._add(_equality([sides[0], column], [sides[1], column]), within, left)  # type: ignore[list-item]
        for conjunct in conjuncts(self.tree["where_clause"]):
            self._add(conjunct, (), None)

    def _add(self, conjunct: Node, within: tuple[int, ...], left: int | None) -> None:
        try:
            whole = self.qualified(conjunct, is_item=True)
        except CannotPlan:
            return  # without it more keys are reached, and none is missed
        if any(is_aggregate(node) or node.get("class") == "WINDOW" for node in nodes(whole)):
            return
        self.conditions.append(Condition(whole, self.uses_of(whole), within, left))

    def _first(self, source: Node, column: str) -> str | None:
        """The alias of the first place in a part of FROM that has a column."""
        numbers = [number_of(self.model.sql, n) for n in nodes(source) if n.get("type") == "BASE_TABLE"]
        there = [use for use in self.uses if use.number in numbers and column.lower() in use.columns]
        return there[0].alias if there else None

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
            self.uses = [
                Use(u.number, u.name, u.alias, u.columns, tuple(n for n in u.optional if n not in inner))
                for u in self.uses
            ]
            self.conditions = [
                Condition(
                    c.expression,
                    c.uses,
                    tuple(n for n in c.within if n not in inner),
                    None if c.left in inner else c.left,
                )
                for c in self.conditions
            ]

    # -- the key ---------------------------------------------------------------------------------------------------

    def parts(self) -> list[Part]:
        """Return the columns of the key that say, of a row, which rows of one place it is made of.

        A part is one expression, without aggregate, over one place that no LEFT JOIN can drop; with windows it stands
        in every PARTITION BY.
        """
        windows = [node for node in nodes(self.tree) if node.get("class") == "WINDOW"]
        found = []
        for item in self.tree["select_list"]:
            name = item_name(item)
            if name.lower() not in {key.lower() for key in self.model.keys}:
                continue
            try:
                whole = self.qualified(item, is_item=True) | {"alias": ""}
            except CannotPlan:
                continue
            if any(is_aggregate(node) or node.get("class") == "WINDOW" for node in nodes(whole)):
                continue
            uses = self.uses_of(whole)
            if len(uses) > 1 or any(self.use(use).optional for use in uses):
                continue
            if uses and not all(self._is_partition(whole, window) for window in windows):
                continue
            found.append(Part(name, whole, next(iter(uses), None), self.unnests_of(whole)))
        return found

    def _is_partition(self, part: Node, window: Node) -> bool:
        for partition in window["partitions"]:
            try:
                if same(self.qualified(partition, is_item=True), part):
                    return True
            except CannotPlan:
                continue
        return False


@cache
def _template() -> Node:
    condition: Node = syntax_tree("SELECT 1 FROM t WHERE a.b = c.d")["where_clause"]
    return condition


def _equality(one: list[str], other: list[str]) -> Node:
    condition = copy.deepcopy(_template())
    for side, names in (("left", one), ("right", other)):
        condition[side]["column_names"] = names
        condition[side].pop("qualified_name", None)
    return condition
