"""Plans: how the stored rows of a read model move when events come and other rows change.

Owns the choice between the ways, and what a plan is. One routine moves any plan (`cqrs_lab.read.mover`): the keys that
are reached, the rows before, the rows after, replace, hand on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from cqrs_lab.ivm.fold import fold_of
from cqrs_lab.ivm.merge import Merge, look_ups_of, merge_of
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.ivm.reading import CannotPlan, Use
from cqrs_lab.ivm.shape import Shape
from cqrs_lab.ivm.ways import Read, Ways, ways_of
from cqrs_lab.sql.names import quote


@dataclass(frozen=True)
class Touch:
    """Rows are made again for the keys that a change can reach."""

    model: ReadModel
    ways: Ways
    reason: str
    way: str = "touched keys"
    hidden: tuple[str, ...] = ()

    @property
    def uses(self) -> tuple[Use, ...]:
        """All places."""
        return tuple(self.ways.shape.uses)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the read models that are read, in lower case."""
        return tuple(dict.fromkeys(use.name for use in self.uses if not use.is_events))

    @property
    def found_by(self) -> tuple[str, ...]:
        """The parts of the key that a change can reach."""
        return self.ways.names

    def rows(self, read: Read) -> str:
        """Return the author's own text."""
        return self.model.bound(lambda place: read(self.ways.shape.at(place.number)[0]))

    def reached(self, new: Read, read: Read, noted: str | None) -> str:
        """Return the keys that new events and changed rows reach."""
        selects = [self.keys_of(use, new(use), read) for use in self.uses if use.is_events]
        if noted:
            selects.append(f"SELECT {', '.join(map(quote, self.found_by))} FROM {noted}")
        whole = "\nUNION ALL BY NAME\n".join(f"({select})" for select in selects)
        return f"SELECT DISTINCT * FROM ({whole}\n)"

    def after(self, before: str, reached: str, read: Read, *, nulls: bool, few: bool = False) -> str:
        """Return the author's own text over what the keys need, cut to their rows."""

        def cut(place: Use) -> str:
            condition = self.ways.cut(place, reached, nulls=nulls)
            select = read(place)
            return f"SELECT * FROM ({select}\n) AS {quote(place.alias)} WHERE {condition}" if condition else select

        names = ", ".join(map(quote, self.found_by))
        if not nulls:
            return f"SELECT * FROM ({self.rows(cut)}\n) WHERE ({names}) IN (SELECT ({names}) FROM {reached})"
        same = " AND ".join(f"_a.{quote(n)} IS NOT DISTINCT FROM _r.{quote(n)}" for n in self.found_by)
        return f"SELECT * FROM ({self.rows(cut)}\n) AS _a WHERE EXISTS (SELECT 1 FROM {reached} AS _r WHERE {same})"

    def keys_of(self, use: Use, changed: str, read: Read) -> str:
        """Return the keys that changed rows of a place reach."""
        return self.ways.keys_of(use, changed, read)

    def versions(self, new: Read, inside: str) -> str | None:
        """Return the rows after each event, with its position as `_at`; None where they are made of others' rows.

        Args:
            inside: the condition on keys that they meet.
        """
        try:
            fold = fold_of(self.ways.shape, combines_too=False)
        except CannotPlan:
            return None
        return fold.windowed(new(fold.use), inside) if fold.shows_position else None


@dataclass(frozen=True)
class Recompute:
    """All rows are made again."""

    model: object
    reason: str
    way: str = "recompute all"
    uses: tuple[Use, ...] = ()
    layers: tuple[str, ...] = ()
    found_by: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def versions(self, new: Read, inside: str) -> str | None:
        """Return None: each position has to be asked for."""
        return None


AnyPlan = Merge | Touch | Recompute


def plan_of(
    model: ReadModel,
    columns: Callable[[str], Iterable[str]],
    models: Mapping[str, ReadModel],
    plan: Callable[[ReadModel], AnyPlan],
    shown: Iterable[str] = (),
) -> AnyPlan:
    """Return how the rows of a read model move: by the first way that is sure.

    Args:
        columns: name of a source, in lower case -> its columns.
        models: the read models that it may be built on, by lower-case name.
        plan: how another read model moves.
        shown: the columns of its rows, as DuckDB spells them.
    """
    try:
        shape = Shape(model, columns, shown)
    except CannotPlan as reason:
        return Recompute(model, str(reason))
    try:
        return merge_of(fold_of(shape))
    except CannotPlan as reason:
        why_not_merge = str(reason)
    try:
        ways = ways_of(shape)
    except CannotPlan as reason:
        return Recompute(model, str(reason))
    first = models.get(shape.uses[0].name)
    base = plan(first) if first else None
    if isinstance(base, Merge) and base.looked_up is None:
        with suppress(CannotPlan):
            return look_ups_of(ways, base.fold, lambda use: models[use.name].keys if use.name in models else ())
    return Touch(model, ways, why_not_merge)
