"""Kept history: the past rows of a read model that merges, so that a question about the past is a lookup.

Owns the tables `history."<model>"`. They hold every version of every row, with the position that made it and the one
that ended it. It follows from the log alone, and is let fall behind it by some thousand events: as of a position that
it has not reached is the rows where it ends, with the events since merged into them. A read model that does not merge
keeps the histories of those below it that do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from cqrs_lab.errors import NotServed, QueryFailed
from cqrs_lab.ivm.merge import Merge, merge_of
from cqrs_lab.ivm.plan import AnyPlan
from cqrs_lab.read.catalog import Catalog
from cqrs_lab.read.history import EVER
from cqrs_lab.read.projection import Model
from cqrs_lab.sql.names import quote
from cqrs_lab.store.memory import Checkpoint
from cqrs_lab.store.move import SERVINGS, moving

DUE = 20_000  # events after which it is moved on; fewer make questions about the last of them cheaper
_MOST = 1_000_000  # positions that one statement adds
_AS = "history"


class Kept:
    """The kept history of one read model that merges.

    Args:
        catalog: the read models of the lab.
        merge: how the read model merges.
    """

    def __init__(self, catalog: Catalog, merge: Merge) -> None:
        self.model, fold = merge.model, merge.fold
        self._catalog, self._log, self._memory = catalog, catalog.log, catalog.memory
        self._fold, self._run = fold, catalog.log.database.execute
        self._table = f"{quote(catalog.log.database.catalog)}.{_AS}.{quote(self.model.name)}"
        self._lock = catalog.log.database.lock(f"history {self.model.id}")  # of who builds, moves or drops it
        self._keys = ", ".join(map(quote, self.model.keys))
        self._every = ", ".join(map(quote, [*fold.columns, *fold.hidden]))

    @property
    def position(self) -> int:
        """The position that it has reached."""
        found = self._catalog.checkpoint(self.model, _AS)
        return found.position if found else 0

    @property
    def is_fit(self) -> bool:
        """Whether it was made by the SELECT that is declared now."""
        found = self._catalog.checkpoint(self.model, _AS)
        return found is not None and found.fingerprint == self._catalog.fingerprint(self.model)

    def forward(self, end: int) -> None:
        """Add what is new up to a position, once it is worth it."""
        with self._lock:
            self._forward(end)

    def _forward(self, end: int) -> None:
        while end - self.position >= DUE:
            start, to = self.position, min(end, self.position + _MOST)
            with self._moving_to(to):
                self._add(start, to, self._table)

    def build(self, head: int) -> None:
        """Make all versions beside those that there are, which questions rely on meanwhile, and swap them."""
        folds = self._fold.finished(self._fold.by_event(self._events(0, 0)), ", _at")
        schema = f"{quote(self._log.database.catalog)}.{_AS}"
        beside = f"{schema}.{quote(f'_next_{self.model.name}')}"
        with nullcontext() if self._memory.open else self._memory.building(), self._lock:
            with moving(self._memory):
                self._run(f"CREATE SCHEMA IF NOT EXISTS {schema}")
                self._run(
                    f"CREATE OR REPLACE TABLE {beside} AS "
                    f"SELECT {self._every}, _at AS _from, _at AS _to FROM ({folds}\n) LIMIT 0"
                )
            # Each in a transaction of its own: of 2.5 M rows in one, made with their table, DuckDB 2.0.0 found none
            # later.
            for start in range(0, head, _MOST):
                with moving(self._memory):
                    self._add(start, min(head, start + _MOST), beside)
            with self._moving_to(head):
                self._run(f"DROP TABLE IF EXISTS {self._table}")
                self._run(f"ALTER TABLE {beside} RENAME TO {quote(self.model.name)}")

    def drop(self) -> None:
        """Forget it, in the open move when there is one."""
        with self._lock, moving(self._memory) as move:
            self._run(f"DROP TABLE IF EXISTS {self._table}")
            move.checkpoint(self.model.name, _AS, None)

    def rows(self, position: int) -> str | None:
        """Return the SELECT of the rows as of a position, None when there are none."""
        at = min(position, self.position)
        if not at or not self.is_fit:
            return None
        columns = ", ".join(map(quote, self._fold.columns))
        there = f"FROM {self._table} WHERE _from <= {at} AND _to > {at}"
        if at == position:
            return f"SELECT {columns} {there}"
        base = f"SELECT {self._every}, 0 AS _row {there}"
        kinds = self._log.database.columns(f"SELECT * FROM {self._table}")
        moved = ", ".join(f"CAST({quote(c)} AS {kinds[c]}) AS {quote(c)}" for c in self._fold.columns)
        merge = merge_of(self._fold)
        reached = merge.reached(lambda _: self._events(at, position), lambda _: "", None)
        # NULL or not, a key is compared with all: these are two small relations.
        after = merge.after("_there", "_reached", lambda _: "", nulls=True)
        same = " AND ".join(
            f"_there.{quote(key)} IS NOT DISTINCT FROM _reached.{quote(key)}" for key in self.model.keys
        )
        return (
            f"WITH _there AS ({base}), _reached AS ({reached})\n"
            f"SELECT {moved} FROM ({after})\n"
            f"UNION ALL SELECT {columns} FROM _there WHERE NOT EXISTS (SELECT 1 FROM _reached WHERE {same})"
        )

    def _events(self, start: int, end: int) -> str:
        """The SELECT of the events between two positions."""
        return self._catalog.window(start, end)(self._fold.use.name)

    @contextmanager
    def _moving_to(self, position: int) -> Iterator[None]:
        """A move in which versions and checkpoint move together."""
        with moving(self._memory) as move:
            yield
            move.checkpoint(self.model.name, _AS, Checkpoint("kept", self._catalog.fingerprint(self.model), position))

    def _add(self, start: int, to: int, table: str) -> None:
        """Add the versions that begin between two positions, and end those before them."""
        fold = self._fold
        folds = fold.by_event(self._events(start, to))
        kinds = self._log.database.columns(folds)
        states = f"{self._keys}{''.join(f', {quote(state.column)}' for state in fold.states)}"
        self._run(f"CREATE OR REPLACE TEMP TABLE _folds AS SELECT {states}, _at FROM ({folds}\n)")
        alike = " AND ".join(f"_f.{quote(key)} IS NOT DISTINCT FROM _t.{quote(key)}" for key in self.model.keys)
        last = f"_to = {EVER} AND EXISTS (SELECT 1 FROM _folds AS _f WHERE {alike})"
        both = f"SELECT * FROM _folds UNION ALL SELECT {states}, _from FROM {table} AS _t WHERE {last}"
        rows = fold.running(both, kinds)
        ends = f"coalesce(lead(_at) OVER (PARTITION BY {self._keys} ORDER BY _at), {EVER})"
        self._run(f"CREATE OR REPLACE TEMP TABLE _rows AS SELECT *, {ends} AS _to FROM ({rows})")
        same = " AND ".join(f"_t.{quote(key)} IS NOT DISTINCT FROM _first.{quote(key)}" for key in self.model.keys)
        self._run(
            f"UPDATE {table} AS _t SET _to = _first._at FROM (SELECT {self._keys}, min(_at) AS _at FROM _folds "
            f"GROUP BY {self._keys}) AS _first WHERE _t._to = {EVER} AND {same}"
        )
        self._run(f"INSERT INTO {table} SELECT {self._every}, _at, _to FROM _rows WHERE _at > {start} ORDER BY _at")
        self._run("DROP TABLE _folds")
        self._run("DROP TABLE _rows")


def kept(catalog: Catalog, model: Model) -> Kept | None:
    """Return the history that is kept of a read model, None when there is none."""
    if catalog.checkpoint(model, _AS) is None:
        return None
    return _kept_by(catalog, catalog.plan(model))


def _kept_by(catalog: Catalog, plan: AnyPlan) -> Kept | None:
    """The history that a plan can keep: of rows that are a fold of events themselves."""
    if isinstance(plan, Merge) and plan.looked_up is None and plan.fold.shows_position:
        return Kept(catalog, plan)
    return None


def keep(catalog: Catalog, model: Model, *, wanted: bool) -> None:
    """Begin or end to keep the history of a read model, or of those below it that merge.

    Raises:
        NotServed: none of them does, so that its past can only be folded.
    """
    below = (_kept_by(catalog, catalog.plan(catalog.models[name.lower()])) for name in sorted(catalog.below(model)))
    found = [one for one in below if one is not None]
    if wanted and not found:
        raise NotServed(
            f"no history of {model.name} can be kept: {catalog.plan(model).reason}; as_of() folds the log instead"
        )
    for one in found:
        there = catalog.checkpoint(one.model, _AS)
        if wanted and (there is None or not one.is_fit):
            one.build(catalog.log.head)
        elif not wanted and there is not None:
            with catalog.log.database.lock(SERVINGS):  # an erasure drops it, too, and commits that later
                one.drop()


def follow(catalog: Catalog, model: Model, position: int) -> None:
    """Move histories on when the rows of a read model have moved to a position."""
    for one in _below(catalog, [model]):
        if one.is_fit:
            with catalog.log.database.lock(SERVINGS), suppress(QueryFailed):  # it stays behind, and more is folded
                one.forward(position)


def remake(catalog: Catalog, models: Iterable[Model]) -> None:
    """Make the histories of read models, and of those that they are built on, again."""
    for one in _below(catalog, models):
        # What was there stays, and is no less true.
        with catalog.memory.building(), catalog.log.database.lock(SERVINGS), suppress(QueryFailed):
            one.build(catalog.log.head)


def _below(catalog: Catalog, models: Iterable[Model]) -> list[Kept]:
    if not any(as_ == _AS for _, as_ in catalog.memory.checkpoints):
        return []
    names = {name.lower() for model in models for name in catalog.below(model)}
    found = (kept(catalog, catalog.models[name]) for name in sorted(names))
    return [one for one in found if one is not None]


@contextmanager
def remade(catalog: Catalog, is_concerned: Callable[[Model], bool]) -> Iterator[Callable[[], None]]:
    """Drop histories that something in the past of the log changes, and make them again when it is done.

    Yields:
        What drops them, to be called in the transaction of the change.
    """
    there = [one for one in _below(catalog, catalog.models.values()) if is_concerned(one.model) or not one.is_fit]

    def drop() -> None:
        for one in there:
            one.drop()

    yield drop
    for one in there:
        with suppress(QueryFailed):
            one.build(catalog.log.head)
