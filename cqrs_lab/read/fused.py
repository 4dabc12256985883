"""Fused rows: a read model that adds columns of others to the rows of one that merges.

Owns the case that most lists of a shop are: `SELECT o.…, c.name FROM order_facts o LEFT JOIN customer_contacts c`. Its
rows keep the aggregates of `order_facts` beside their own columns, so new events are merged straight into them, and
what is looked up is looked up for the rows that move. One table instead of two: half the work of every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cqrs_lab.database import quote
from cqrs_lab.read.merge import CannotMerge, Merge, last_column
from cqrs_lab.read.models import Derived, ReadModel, item_name
from cqrs_lab.read.touched import Touched, Use, equalities, is_aggregate, owner_of
from cqrs_lab.syntax import Node, nodes


class CannotFuse(Exception):
    """The reason why a read model keeps no aggregates of another one."""


@dataclass(frozen=True)
class Fused:
    """How rows are merged that are those of a merging read model with more columns.

    Attributes:
        touched: its sources, and how rows are reached through those that are looked up.
        base: how the read model merges whose rows they are.
        kept: state of the base -> the column that keeps it here.
        hidden_at: where in the text the states are selected that are no columns of it.
    """

    touched: Touched
    base: Merge
    kept: dict[str, str]
    hidden_at: int

    @property
    def model(self) -> ReadModel:
        """The read model."""
        return self.touched.model

    @property
    def uses(self) -> tuple[Use, ...]:
        """The sources that are looked up."""
        return self.touched.uses[1:]

    def keys_of(self, use: int, changed: str, read: Callable[[str], str]) -> str:
        """Return the SELECT of the keys that changed rows of a source reach (see `Touched.keys_of`)."""
        return self.touched.keys_of(use + 1, changed, read)

    def stored(self, read: Callable[[str], str]) -> str:
        """Return the SELECT of rows as they are stored, its sources read from `read`."""
        visible = {name for name in self.kept.values() if not name.startswith("_")}
        alias = quote(self.touched.uses[0].alias)
        more = "".join(
            f",\n       {alias}.{quote(state)} AS {quote(column)}"
            for state, column in self.kept.items()
            if column not in visible
        )
        text = f"{self.model.sql[: self.hidden_at]}{more}{self.model.sql[self.hidden_at :]}"
        return Derived(self.model.name, self.model.key, text).bound(lambda name: read(name.lower()))

    def base_rows(self, table: str) -> str:
        """Return the SELECT of the base's rows, states included, out of rows as they are stored here."""
        states = ", ".join(f"{quote(column)} AS {quote(state)}" for state, column in self.kept.items())
        return self.base.finished(f"SELECT {states} FROM {table}")

    def merged(self, table: str, fold: str, read: Callable[[str], str]) -> str:
        """Return the SELECT of the rows that new events change, as they will be.

        Args:
            table: the stored rows.
            fold: the base's SELECT over the new events.
            read: name of a source that is looked up -> the SELECT of its rows.
        """
        states = ", ".join(f"{quote(column)} AS {quote(state)}" for state, column in self.kept.items())
        combined = self.base.combined(f"(SELECT {states} FROM {table})", fold)
        base = self.base.finished("FROM combined")
        first = self.touched.uses[0].name
        rows = self.stored(lambda name: "SELECT * FROM base" if name == first else read(name))
        return f"{combined},\nbase AS (\n{base}\n)\n{rows}"


def fused_of(touched: Touched, base: Merge, keys_of: Callable[[str], Iterable[str]]) -> Fused:
    """Return how a read model's rows are merged.

    Args:
        touched: the analysis of its sources.
        base: how the first of them merges.
        keys_of: name of a source -> the columns that name its rows, empty when there are none.

    Raises:
        CannotFuse: with the reason.
    """
    model, tree, first = touched.model, touched.model.tree, touched.uses[0]
    if tree["where_clause"] or tree["having"] or tree["group_expressions"] or tree["modifiers"] or tree["qualify"]:
        raise CannotFuse("it leaves rows out or puts several together")
    if tree["aggregate_handling"] != "STANDARD_HANDLING" or any(is_aggregate(n) for n in nodes(tree)):
        raise CannotFuse("it puts several rows together")
    if not all(use.is_optional for use in touched.uses[1:]) or tree["from_table"]["type"] != "JOIN":
        raise CannotFuse("it joins what it does not look up")
    if any(node.get("type") == "TABLE_FUNCTION" for node in nodes(tree["from_table"])):
        raise CannotFuse("it makes several rows of one")
    for use in touched.uses[1:]:
        wanted = {key.lower() for key in keys_of(use.name)}
        if not wanted or not wanted <= _compared(tree["from_table"], use, touched.uses):
            raise CannotFuse(f"it may find several rows of {use.alias!r} for one of its own")
    shown: dict[str, str] = {}
    for item in tree["select_list"]:
        if item["class"] == "COLUMN_REF" and owner_of(item, touched.uses) == first:
            shown.setdefault(item["column_names"][-1].lower(), item_name(item))
    keys = {key.lower() for key in base.model.keys}
    if {column for column, name in shown.items() if name in touched.keys} != keys or len(touched.keys) != len(keys):
        raise CannotFuse(f"its key is not that of {base.model.name}")
    states = [*base.model.keys, *(state.column for state in base.states)]
    kept = {state: shown.get(state.lower(), f"_{state}") for state in states}
    try:
        return Fused(touched, base, kept, last_column(model.sql))
    except CannotMerge as reason:
        raise CannotFuse(str(reason)) from None


def _compared(source: Node, use: Use, uses: tuple[Use, ...]) -> set[str]:
    """The columns of a source that the join, or joins, that bring it in compare with something."""
    found: set[str] = set()
    for join in nodes(source):
        right = join.get("right")
        if join.get("type") != "JOIN" or not isinstance(right, dict) or right.get("type") != "BASE_TABLE":
            continue
        if (right["alias"] or right["table_name"]).lower() != use.alias.lower():
            continue
        found |= {column.lower() for column in join["using_columns"]}
        for equal in equalities(join["condition"]):
            for side in (equal["left"], equal["right"]):
                if side["class"] == "COLUMN_REF" and owner_of(side, uses) == use:
                    found.add(side["column_names"][-1].lower())
    return found
