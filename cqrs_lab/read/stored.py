"""A stored read model: how its rows follow the log, and how all of them are built.

Owns two things. A projection moves in the first way that is sure, together with the layers that it is made of. A build
makes all rows beside the old ones, while the log grows and other rows move, and swaps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from cqrs_lab.errors import ConstraintViolated, ProjectionFailed, RebuildRefused, StoreError
from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.plan import AnyPlan, Recompute
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.read.catalog import Catalog
from cqrs_lab.read.changes import Differences
from cqrs_lab.read.differences import columns_of, differences
from cqrs_lab.read.mover import Mover
from cqrs_lab.read.projection import Model
from cqrs_lab.read.table import check_keys, is_indexed
from cqrs_lab.sql.names import quote
from cqrs_lab.store.memory import Text
from cqrs_lab.store.move import SERVINGS, Move, moving
from cqrs_lab.store.progress import telling
from cqrs_lab.store.rows import Rows

Check = Callable[[Rows], bool]
Tell = Callable[[float], None]


class Stored(Mover):
    """The table of a read model that is a SELECT; arguments as of `Table`."""

    def forward(self, end: int) -> int:
        """Move a projection to a position, or to that of what it is built on when that is ahead; return where it is."""
        plan = self._catalog.plan(self.model)
        layers = self._layers(plan)
        if not all(layer.is_fit for layer in layers):  # what changed below since is not known
            with moving(self._memory):
                return self.build(end)
        with moving(self._memory) if layers else nullcontext():  # one commit
            start, reached = self.position, -1
            while reached < end:  # one that is ahead takes the others along: rows are those of one position
                reached = end
                for layer in layers:
                    layer.forward(end)
                end = max([end, *(layer.position for layer in layers)])
            noted = self._noted() if layers else 0
            if start >= end and not noted:
                return start
            if isinstance(plan, Recompute):
                with moving(self._memory):
                    return self.build(end)
            self.move(plan, start, end, noted)
            return end

    def _noted(self) -> int:
        """How many keys are noted whose rows have to be made again; memory knows when there are none."""
        if self._memory.is_noted(self.model.id) is False:
            return 0
        with moving(self._memory) as move:
            count: int = self._run(f"SELECT count(*) FROM {self.dirty}")[0][0]
            move.noted[self.model.id] = count > 0
        return count

    def is_built(self, to: int) -> bool:
        """Return whether a build brings it to a position: it always moves so, or something below was made otherwise."""
        if self.as_ == "materialized":
            return True
        plan = self._catalog.plan(self.model)
        if not all(layer.is_fit for layer in self._layers(plan)):
            return True
        return isinstance(plan, Recompute) and self.position < to

    def first_failing(self, end: int) -> int | None:
        """Move up to just before the first event at which this fails; return its position, None when it moved.

        Events are halved until one is left; those that fail together with others only are moved one by one.
        """
        last = end
        while last > self.position + 1:
            try:
                self.forward((self.position + last) // 2)
            except ProjectionFailed:
                last = (self.position + last) // 2
        try:
            self.forward(last)
        except ProjectionFailed:
            return self.position + 1
        return None

    def _layers(self, plan: AnyPlan) -> list[Stored]:
        """The projections whose stored rows this one is made of."""
        known = self._catalog.known
        return [Stored(self._catalog, known[name], "projection") for name in plan.layers]

    # -- all rows --------------------------------------------------------------------------------------------------

    def build(self, head: int, check: Check | None = None, tell: Tell | None = None) -> int:
        """Build the rows of a position beside the old ones and swap them; return the position reached.

        As part of a move it is all done in that. By itself only the swap holds up others: the fold goes on while the
        log grows and other rows move, and what it has missed of its layers is caught up with before the swap.

        Args:
            check: told what the new rows change, before the swap; False refuses them.
            tell: told from time to time how much of the work at hand is done, from 0 to 1.

        Raises:
            RebuildRefused: by `check`; the old rows stay.
        """
        database = self._catalog.log.database
        if self._memory.open is not None or self._catalog.log.is_appending:
            return self._build_at_once(head, check, tell)
        with self._memory.building(), database.lock(f"build {self.place}"):
            for below in self._below() if check is None else ():
                if not below.is_fit:
                    below.build(head)
            with database.lock(SERVINGS):
                if check is None:
                    at = head = self._layers_at(head)
                elif self._is_level:  # what is refused leaves what it is built on where it stands
                    at = next((below.position for below in self._below()), head)
                else:
                    return self._build_at_once(head, check, tell)
                collected = self._collecting()
            try:
                with self.named_failures(), telling(database, tell):
                    self._fold(at, self.beside)
                    if self.model.sql:
                        self._check(check, self.beside, at)
                    self._collect_difference(collected)
                with database.lock(SERVINGS), moving(self._memory) as move:
                    end = self._caught_up(move, at, max(at, head), collected)
                    if not self.model.sql:  # what handlers made can be held against rows of the same moment only
                        self._check(check, self.beside, end)
                    own = collected.get(self.model.id)
                    return self._swap(end, self.beside, f"FROM {own}" if own else None)
            finally:
                self._clear(collected)

    def take(self, rows: str, at: int) -> int:
        """Put rows that were made elsewhere into the place of the old ones; return the position reached.

        That is their own, or a later one where the old rows or those of layers are: nothing goes back. What has changed
        in a layer since is told by its rows as of their position. Who calls it keeps erasures out (`Memory.building`).

        Args:
            rows: the SELECT of them, as they are stored.
            at: the position that they tell.
        """
        database = self._catalog.log.database
        with database.lock(f"build {self.place}"), database.lock(SERVINGS):
            for below in self._below():
                if not below.is_fit:
                    below.build(at)
            collected = self._collecting()
            try:
                with self.named_failures():
                    self._fill(rows, self.beside)
                    for below in self._below():
                        if below.position > at:
                            then = self._catalog.expanded(self._catalog.known[below.model.id], 0, at)
                            with moving(self._memory):
                                changed = below._differing(f"({then})")
                                self._run(f"INSERT INTO {collected[below.model.id]} {changed}")
                    self._collect_difference(collected)
                with moving(self._memory) as move:
                    end = self._caught_up(move, at, at, collected)
                    own = collected.get(self.model.id)
                    return self._swap(end, self.beside, f"FROM {own}" if own else None)
            finally:
                self._clear(collected)

    def _build_at_once(self, head: int, check: Check | None, tell: Tell | None) -> int:
        """Build and swap in one move, or in part of one, with what this is built on; arguments as of `build`."""
        # Under a name of its own: another thread may be building the same rows beside.
        part = f"{quote(self.as_)}.{quote(f'_part_{self.model.name}')}"
        database = self._catalog.log.database
        with database.lock(SERVINGS), moving(self._memory), self.named_failures():
            head = self._layers_at(head)
            with telling(database, tell):
                self._fold(head, part)
            self._check(check, part, head)
            return self._swap(head, part)

    def _below(self) -> list[Stored]:
        """The projections whose stored rows a build of this reads; a materialized table is made of events alone."""
        return self._layers(self._catalog.plan(self.model)) if self.as_ == "projection" else []

    @property
    def _is_level(self) -> bool:
        """Whether all that this is built on tells one moment, which is not before that of its own rows."""
        below = self._below()
        stand = {layer.position if layer.is_fit else -1 for layer in below}
        return not below or (len(stand) == 1 and min(stand) >= self.position)

    def _layers_at(self, head: int) -> int:
        """Move what this is built on to a position; return that, or where they are when one is ahead."""
        for below in self._below():
            head = max(head, below.forward(head) if below.is_fit else below.build(head))
        return head

    def _fold(self, head: int, beside: str) -> None:
        """Make all rows of a position, in a table beside the old ones.

        The key is added after the fold: 1.2 s instead of 2.1 s for 1 M rows from 3.35 M events. And by a commit of its
        own, for while one is written no other one can be.
        """
        fold = self.every(head)
        # In order of the key, so that a batch's rows stand in few places: 0.1 s for 1 M rows, and its key is made
        # sooner for it.
        self._fill(fold, beside)

    def _fill(self, rows: str, beside: str) -> None:
        """Put the rows of a SELECT into a table beside the old ones, and make its key."""
        types = self._catalog.log.database.columns(rows)
        in_order = f"SELECT * FROM ({rows}\n) ORDER BY {self.keys}"
        with moving(self._memory):
            if self.is_collated:
                self._run(f"CREATE OR REPLACE TABLE {beside} AS {in_order}")
            else:
                self._run(f"CREATE OR REPLACE TABLE {beside} ({self.definition(types)})")
                self._run(f"INSERT INTO {beside} {in_order}")
        kinds = {name.lower(): kind for name, kind in types.items()}
        if not is_indexed(self.model, self.as_, [kinds[key.lower()] for key in self.model.keys]):
            check_keys(self._catalog.log.database, self.model, beside)
            return
        try:
            with moving(self._memory):  # a key may hold NULL, so it is UNIQUE and not PRIMARY; NULLs are looked for
                self._run(f"ALTER TABLE {beside} ADD UNIQUE ({self.keys})")
        except ConstraintViolated:
            if self._memory.open is None:  # where nothing else was undone with it, the key can be named
                check_keys(self._catalog.log.database, self.model, beside)
            raise
        if self._has_nulls(beside, self.model.keys):
            self._check_nulls(beside)

    def _swap(self, head: int, beside: str, changed: str | None = None) -> int:
        """Put the rows that were made beside into the place of the old ones, and hand the difference on.

        Args:
            changed: the SELECT of the rows that differ, where they are known.
        """
        plan = self._catalog.plan(self.model)
        with self.moving_to(head) as move:
            self.hand_on(move, changed or self._differing(beside))
            self._run(f"DROP TABLE IF EXISTS {self.table}")
            self._run(f"ALTER TABLE {beside} RENAME TO {quote(self.model.name)}")
            self.fit_indexes()  # not before: a table that has some cannot be renamed
            if self.as_ == "projection" and plan.layers:
                found_by = ", ".join(map(quote, plan.found_by))
                self._run(f"CREATE OR REPLACE TABLE {self.dirty} AS SELECT {found_by} FROM {self.table} LIMIT 0")
                move.noted[self.model.id] = False
            for name in self._catalog.below(self.model) - {self.model.name}:  # so that its text alone can be read
                layer = self._catalog.models[name.lower()]
                if isinstance(layer, ReadModel) and name.lower() not in self._memory.texts:
                    move.text(Text(layer.name, layer.keys, layer.sql))
            move.text(Text(self.model.name, self.model.keys, self.model.sql))
        return head

    def _differing(self, beside: str) -> str:
        """The SELECT of the rows that are in one of two tables alone: in the one that serves, or in one beside it."""
        new = f"SELECT {self._shown} FROM {beside}"
        old = f"SELECT {self._shown} FROM {self.table}" if self._has_shown else f"{new} LIMIT 0"
        return f"SELECT * FROM (({old}) EXCEPT ALL ({new})) UNION ALL (({new}) EXCEPT ALL ({old}))"

    @property
    def _shown(self) -> str:
        return ", ".join(map(quote, self._catalog.columns(self.model)))

    @property
    def _has_shown(self) -> bool:
        """Whether there are rows with the columns that are declared now."""
        if self.checkpoint is None:
            return False
        there = columns_of(self._catalog.log.database, f"FROM {self.table}")
        return {column.lower() for column in self._catalog.columns(self.model)} <= {name.lower() for name in there}

    # -- what happens while rows are built beside ------------------------------------------------------------------

    def _collecting(self) -> dict[str, str]:
        """Have what changes from now on collected, in the layers, and in the old rows where others are made of them.

        Returns:
            Name of a read model -> the table of its rows that changed.
        """
        layers, found = self._below(), {}
        for one in [*layers, self] if self.as_ == "projection" and self.is_read and self._has_shown else layers:
            table = f"projection.{quote(f'_changed_{one.model.id}_in_{self.model.id}')}"
            with moving(self._memory):
                self._run(f"CREATE OR REPLACE TABLE {table} AS SELECT {one._shown} FROM {one.table} LIMIT 0")
            found[one.model.id] = table
            self._memory.beside.setdefault(one.model.id, []).append(table)
        return found

    def _collect_difference(self, collected: dict[str, str]) -> None:
        """Collect where old and new rows differ; what changes in either from then on is collected as it changes."""
        if self.model.id in collected:
            with moving(self._memory):
                self._run(f"INSERT INTO {collected[self.model.id]} {self._differing(self.beside)}")

    def _caught_up(self, move: Move, at: int, head: int, collected: dict[str, str]) -> int:
        """Move the rows beside from a position to another, or to where their layers or the old rows stand by now.

        Returns:
            The position reached.
        """
        plan, end = self._catalog.plan(self.model), max(head, self.position)
        end = self._layers_at(end)
        if self.as_ == "materialized" or isinstance(plan, Recompute):
            if end > at:
                self._fold(end, self.beside)
                self._collect_difference(collected)
            return end
        beside = _Beside(self._catalog, self.model, at, collected.get(self.model.id))
        found_by = ", ".join(map(quote, plan.found_by))
        self._run(f"CREATE OR REPLACE TEMP TABLE {beside.dirty} AS SELECT {found_by} FROM {self.beside} LIMIT 0")
        changed = {name: f"SELECT * FROM {table}" for name, table in collected.items()}
        for use in plan.uses:
            if use.name in collected:
                beside.note(move, plan.keys_of(use, changed[use.name], beside.reader(0, end, changed)))
        noted = self._run(f"SELECT count(*) FROM {beside.dirty}")[0][0]
        if noted or end > at:
            beside.move(plan, at, end, noted)
        return end

    def _clear(self, collected: dict[str, str]) -> None:
        """Leave nothing behind of a build: its tables, and the word that something is collected for it."""
        for name, table in collected.items():
            self._memory.beside[name].remove(table)
        with suppress(StoreError), moving(self._memory):
            for table in (self.beside, *collected.values()):
                self._run(f"DROP TABLE IF EXISTS {table}")

    def _check(self, check: Check | None, beside: str, head: int) -> None:
        """Ask whether the rows in a table beside may take the place of the old ones, if anybody wants to know."""
        if check is None:
            return
        model, database = self.model, self._catalog.log.database
        new = f"SELECT {self._shown} FROM {beside}"
        with moving(self._memory):  # one moment: the old rows may be moved meanwhile
            there = "SELECT position FROM servings WHERE lower(model) = ? AND served_as = ?"
            position = next((at for (at,) in self._run(there, list(self.place))), 0)
            is_other = position != head or any(below.position != head for below in self._below())
            if position and is_other and model.sql:  # what only happened since is no difference between the two
                new = model.expanded(self._catalog.known, self._catalog.window(0, position, model))
            old = f"FROM {self.table}" if position else f"{new} LIMIT 0"
            told = [(text, columns_of(database, text)) for text in (old, new)]
            changes = Differences.of(self._catalog.log, differences(database, model.keys, *told))
        if not check(changes):
            raise RebuildRefused(
                f"{model.name} as {self.as_} keeps its old rows: {len(changes):,} would have changed, and that was "
                "refused. Call rehearse() to see them"
            )

    def every(self, head: int) -> str:
        """Return the SELECT of all rows as they are stored, from the events up to a position."""
        plan, models = self._catalog.plan(self.model), self._catalog.known
        if self.as_ == "materialized":
            return self.model.expanded(models, self._catalog.window(0, head))
        if not isinstance(plan, Merge):
            assert isinstance(self.model, ReadModel), "handlers make their own rows"
            return self._catalog.expanded(self.model, 0, head)
        there = self.reader(0, head)
        return plan.rows(lambda use: there(use) if use.is_events else self._catalog.expanded(models[use.name], 0, head))


class _Beside(Stored):
    """Rows that are being built: they are moved like others, and nobody knows of them yet.

    Args:
        position: that the rows tell.
        told: the table that collects what changes in them, if anybody will want to know.
    """

    def __init__(self, catalog: Catalog, model: Model, position: int, told: str | None) -> None:
        super().__init__(catalog, model, "projection")
        self.table, self.dirty = self.beside, "_dirty_beside"
        self.place = (model.id, "beside")
        self._at, self._told = position, told

    @property
    def position(self) -> int:
        """The position that the rows tell."""
        return self._at

    def _readers(self) -> tuple[list[Mover], list[str], list[str]]:
        return [], [], [self._told] if self._told else []

    @contextmanager
    def moving_to(self, position: int, mode: str | None = None) -> Iterator[Move]:
        """A part of the move that swaps them; arguments as of `Table.moving_to`."""
        with self.named_failures(), moving(self._memory) as move:
            yield move
