"""The mover: how the stored rows of a read model follow the log.

Owns the one routine that moves any plan: the keys that the new events and the changed rows of layers reach, the rows
before, the rows after, replace, hand on. A move of one read model notes, in the same transaction, which keys of those
built on it may have changed; they make these rows again when they move themselves. Where no keys can be told, all rows
are made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from cqrs_lab.errors import ProjectionFailed, QueryFailed, RebuildRefused, StoreError
from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.plan import AnyPlan, Recompute, Touch
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.read.catalog import Catalog
from cqrs_lab.read.differences import columns_of, differences
from cqrs_lab.read.table import Table, check_keys
from cqrs_lab.sql.names import literal, names_events, quote
from cqrs_lab.store.memory import Checkpoint, Text
from cqrs_lab.store.move import SERVINGS, Move, moving
from cqrs_lab.store.rows import Rows

Check = Callable[[Rows], bool]
Tell = Callable[[float], None]

_DENSE = 20  # stored rows between those of a batch, for each of them, up to which they stand together
_FEW = 100  # keys up to which the index is faster than a look at all rows between them


class Stored(Table):
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
            noted = self._run(f"SELECT count(*) FROM {self.dirty}")[0][0] if layers else 0
            if start >= end and not noted:
                return start
            if isinstance(plan, Recompute):
                with moving(self._memory):
                    return self.build(end)
            self._move(plan, start, end, noted)
            return end

    @property
    def is_whole(self) -> bool:
        """Whether it moves by a build of all rows: it always does so, or something below was made otherwise."""
        if self.as_ == "materialized":
            return True
        plan = self._catalog.plan(self.model)
        return isinstance(plan, Recompute) or not all(layer.is_fit for layer in self._layers(plan))

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

    def _move(self, plan: Merge | Touch, start: int, end: int, noted: int) -> None:
        """Replace the rows that new events and so many noted keys can reach, and hand the change on."""
        new, read = self.reader(start, end), self.reader(0, end)
        with self.moving_to(end) as move:
            tables = plan.fold.model.sources() if isinstance(plan, Merge) else self.model.sources()
            # A look whether there are events takes a quarter of the time in which their fold is planned.
            names = {place.name.lower() for place in tables if names_events(place.name)}
            is_new = bool(names) and self._catalog.log.has_events(names, start, end)
            count = 0
            if is_new or noted:
                count = self._make("_reached", plan.reached(new, read, self.dirty if noted else None))
            if count:
                near, nulls = self._near("_reached", count, plan.found_by)
                columns = plan.names.values() if isinstance(plan, Merge) else plan.found_by
                there = self._find("_reached", near, plan.found_by, columns, nulls=nulls)
                one_for_one = isinstance(plan, Merge)
                after = plan.after("_before", "_reached", read, nulls=nulls, few=count <= _FEW)
                self._store(move, after, there, nulls=nulls, in_place=one_for_one)
            if noted:
                self._run(f"DELETE FROM {self.dirty}")
            self._is_told = True

    def _find(self, rows: str, near: str, keys: tuple[str, ...], columns: Iterable[str], *, nulls: bool) -> int:
        """Put the stored rows that have the keys of some rows into `_before`, with their place, `_row`; say how many.

        They are looked for once: whatever comes after finds them by their place (UPDATE of 1,000: 3 ms, by key 17).

        Args:
            near: a condition that they meet, and few others.
            keys: the columns to find them by.
            columns: what is needed of them; all there are when somebody is to be told of the change.
            nulls: whether a key among them holds NULL. These have a branch of their own: a join by IS NOT DISTINCT FROM
                looks at all rows (1,000 keys among 1 M: 31 ms, and 2 by =).
        """
        told = self._is_read or self._memory.answers.needs(self.place)
        needed = dict.fromkeys([*self.model.keys, *columns] if not self._has_places else [*keys, *columns])
        wanted = "old.*" if told else ", ".join(f"old.{quote(column)}" for column in needed)
        same = " AND ".join(f"old.{quote(key)} = new.{quote(key)}" for key in keys)
        sought = f"(SELECT DISTINCT {', '.join(map(quote, keys))} FROM {rows})"
        place = "old.rowid" if self._has_places else "0"
        select = f"SELECT {wanted}, {place} AS _row FROM {self.table} AS old"
        found = f"{select} SEMI JOIN {sought} AS new ON {same} WHERE {near}"
        if nulls:
            is_null = " OR ".join(f"old.{quote(key)} IS NULL" for key in keys)
            alike = " AND ".join(f"old.{quote(key)} IS NOT DISTINCT FROM new.{quote(key)}" for key in keys)
            found += f" UNION ALL {select} WHERE ({is_null}) AND EXISTS (SELECT 1 FROM {sought} AS new WHERE {alike})"
        return self._make("_before", found)

    def _near(self, rows: str, count: int, keys: tuple[str, ...]) -> tuple[str, bool]:
        """Return a condition that the stored rows, `old`, of the keys of some rows meet, and whether a key holds NULL.

        Some keys are looked up in the index, row by row. For many it is faster to look at all rows between the first
        and the last: new events are mostly about what is new, and parts of a table with other keys are skipped.
        """
        key, *more = keys
        name = quote(key)
        if count <= _FEW and not more:
            all_found = self._run(f"SELECT DISTINCT {name}::VARCHAR, typeof({name}) FROM {rows}")
            found = [row for row in all_found if row[0] is not None]
            nulls = len(found) < len(all_found)
        else:
            is_null = " OR ".join(f"{quote(one)} IS NULL" for one in keys)
            ends = f"min({name})::VARCHAR, max({name})::VARCHAR, typeof(any_value({name}))"
            ((*row, nulls),) = self._run(f"SELECT {ends}, bool_or({is_null}) FROM {rows}")
            found = [tuple(row)]
        if not found or found[0][0] is None:
            return "false", nulls
        kind = found[0][-1]
        if kind not in ("VARCHAR", "DATE", "TIMESTAMP", "BIGINT", "INTEGER"):
            return "true", nulls
        values = [f"CAST({literal(value)} AS {kind})" for row in found for value in row[:-1]]
        is_some = f"IN ({', '.join(values)})" if len(found[0]) == 2 else f"BETWEEN {' AND '.join(values)}"
        return f"old.{name} {is_some}", nulls

    def _store(self, move: Move, rows: str, there: int, *, nulls: bool, in_place: bool) -> None:
        """Put rows in the place of those in `_before`, and tell the projections that are built on them.

        Args:
            rows: a SELECT of them, as they are stored.
            there: how many are in `_before`.
            nulls: whether a key among them may hold NULL.
            in_place: each row of `_before` has one, and only one, that follows it.
        """
        moved = self._make("_moved", rows)
        far = self._run("SELECT max(_row) - min(_row) FROM _before")[0][0] if there > 1 else 0
        equal = "IS NOT DISTINCT FROM" if nulls else "="
        same = " AND ".join(f"_old.{quote(key)} {equal} _new.{quote(key)}" for key in self.model.keys)
        if in_place and self._has_places and there and far < _DENSE * there:
            # Rows that stand together are changed in their place: 9 ms for 1,000 recent rows of 1 M, and not 25 as a
            # deleted and a new row with its key. Where they stand apart, it is 400 ms and not 60.
            keys = {key.lower() for key in self.model.keys}
            columns = [name for name in self._kept() if name.lower() not in keys]
            sets = ", ".join(f"{quote(name)} = _new.{quote(name)}" for name in columns)
            placed = f"(SELECT _new.*, _old._row FROM _moved AS _new JOIN _before AS _old ON {same})"
            if columns:
                self._run(f"UPDATE {self.table} AS _at SET {sets} FROM {placed} AS _new WHERE _at.rowid = _new._row")
            if there < moved:
                self._run(
                    f"INSERT INTO {self.table} SELECT _new.* FROM _moved AS _new ANTI JOIN _before AS _old ON {same}"
                )
        else:
            if there:
                alike = " AND ".join(
                    f"_at.{quote(key)} IS NOT DISTINCT FROM _old.{quote(key)}" for key in self.model.keys
                )
                is_one = f"EXISTS (SELECT 1 FROM _before AS _old WHERE {alike})"
                is_there = "_at.rowid IN (SELECT _row FROM _before)" if self._has_places else is_one
                self._run(f"DELETE FROM {self.table} AS _at WHERE {is_there}")
            self._run(f"INSERT INTO {self.table} SELECT * FROM _moved")  # two rows of one key are an error here
        if nulls or (not in_place and self._has_nulls("_moved", self.model.keys)):
            self._check_nulls(self.table)
        if self._is_read:
            self._hand_on(move, "SELECT * EXCLUDE (_row) FROM _before", "SELECT * FROM _moved")
        needs = self._memory.answers.needs(self.place)
        if needs:
            self._drop_answers({name for need in needs for name, _ in need})

    def _drop_answers(self, needed: set[str]) -> None:
        """Drop the answers that are kept and could have been made of the rows of `_before` or `_moved`."""
        columns = [c for c in self._catalog.columns(self.model) if c.lower() in needed or c in self.model.keys]
        names, most = ", ".join(map(quote, columns)), self._memory.answers.most_rows
        rows = f"SELECT {names} FROM (FROM _before UNION ALL BY NAME FROM _moved) LIMIT {most + 1}"
        self._memory.answers.drop(self.place, columns, self._run(rows))

    def _note(self, keys: str) -> None:
        """Remember keys whose rows have to be made again."""
        names = ", ".join(map(quote, self._catalog.plan(self.model).found_by))
        self._run(f"INSERT INTO {self.dirty} SELECT {names} FROM ({keys}\n)")

    @property
    def _is_read(self) -> bool:
        """Whether the rows of other projections are made of these, or of which that cannot be told."""
        found, unknown = self._readers()
        return bool(found or unknown or self._memory.beside.get(self.model.id))

    def _hand_on(self, move: Move, before: str, after: str) -> None:
        """Note what rows that have changed reach, as they were and as they are, in the projections that read them."""
        changed = f"{before} UNION ALL BY NAME {after}"
        found, unknown = self._readers()
        for other in found:
            plan, read = self._catalog.plan(other.model), other.reader(0, other.position)
            for use in plan.uses:
                if use.name == self.model.id and not isinstance(plan, Recompute):
                    try:
                        other._note(plan.keys_of(use, changed, read))
                    except QueryFailed as error:  # its fault, and not that of the rows that move
                        name = other.model.name
                        raise ProjectionFailed(f"the keys of {name} could not be told: {error}", name) from error
        for name in unknown:
            there = self._memory.checkpoints[name, "projection"]
            move.checkpoint(self._memory.texts[name].name if name in self._memory.texts else name, "projection",
                            Checkpoint(there.mode, "", there.position))  # fmt: skip
        columns = ", ".join(map(quote, self._catalog.columns(self.model)))
        for table in self._memory.beside.get(self.model.id, ()):  # rows that are being built meanwhile
            self._run(f"INSERT INTO {table} SELECT {columns} FROM ({changed})")

    def _layers(self, plan: AnyPlan) -> list[Stored]:
        """The projections whose stored rows this one is made of."""
        known = self._catalog.known
        return [Stored(self._catalog, known[name], "projection") for name in plan.layers]

    def _readers(self) -> tuple[list[Stored], list[str]]:
        """The projections that read the rows of this one, and those of which that cannot be told."""
        if self.as_ != "projection":
            return [], []
        found, unknown = self._catalog.readers(self.model)
        return [Stored(self._catalog, other, "projection") for other in found], unknown

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
        database, is_part = self._catalog.log.database, self._memory.open is not None
        if is_part or self._catalog.log.is_appending:
            with moving(self._memory), self.named_failures():
                head = self._layers_at(head)
                with database.telling(tell):
                    self._fold(head)
                return self._swap(head, check)
        with self._memory.building(), database.lock(f"build {self.place}"):
            for below in self._layers(self._catalog.plan(self.model)) if self.as_ == "projection" else ():
                if not below.is_fit:
                    below.build(head)
            with database.lock(SERVINGS):
                head = self._layers_at(head)
                collected = self._collecting()
            try:
                with self.named_failures(), moving(self._memory), database.telling(tell):
                    self._fold(head)
                with database.lock(SERVINGS), moving(self._memory):
                    return self._swap(self._caught_up(head, collected), check)
            finally:
                self._clear(collected)

    def _layers_at(self, head: int) -> int:
        """Move what this is built on to a position; return that, or where they are when one is ahead."""
        plan = self._catalog.plan(self.model)
        for below in self._layers(plan) if self.as_ == "projection" else ():
            head = max(head, below.forward(head) if below.is_fit else below.build(head))
        return head

    def _fold(self, head: int) -> None:
        """Make all rows of a position, beside the old ones.

        The key is added after the fold: 1.2 s instead of 2.1 s for 1 M rows from 3.35 M events.
        """
        fold = self._all(self._catalog.plan(self.model), head)
        # In order of the key, so that a batch's rows stand in few places: 0.1 s for 1 M rows, and its key is made
        # sooner for it.
        order = f" ORDER BY {self.keys}" if self.as_ == "projection" else ""
        self._run(f"CREATE OR REPLACE TABLE {self.beside} AS SELECT * FROM ({fold}\n){order}")
        if self.as_ == "projection":
            # A key may hold NULL, so it is UNIQUE and not PRIMARY; what that lets in is looked for.
            self._run(f"ALTER TABLE {self.beside} ADD UNIQUE ({self.keys})")
        if self.as_ == "materialized":
            check_keys(self._catalog.log.database, self.model, self.beside)
        elif self._has_nulls(self.beside, self.model.keys):
            self._check_nulls(self.beside)

    def _swap(self, head: int, check: Check | None) -> int:
        """Put the rows that were made beside into the place of the old ones, and hand the difference on."""
        plan = self._catalog.plan(self.model)
        with self.moving_to(head) as move:
            self._check(check, self.beside, head)
            if self._is_read:
                old, new = f"SELECT * FROM {self.table}", f"SELECT * FROM {self.beside}"
                self._hand_on(move, f"({old} EXCEPT ALL {new})", f"({new} EXCEPT ALL {old})")
            self._run(f"DROP TABLE IF EXISTS {self.table}")
            self._run(f"ALTER TABLE {self.beside} RENAME TO {quote(self.model.name)}")
            if self.as_ == "projection" and plan.layers:
                found_by = ", ".join(map(quote, plan.found_by))
                self._run(f"CREATE OR REPLACE TABLE {self.dirty} AS SELECT {found_by} FROM {self.table} LIMIT 0")
            move.text(Text(self.model.name, self.model.keys, self.model.sql))
        return head

    # -- what happens while rows are built beside ------------------------------------------------------------------

    def _collecting(self) -> dict[str, str]:
        """Have what changes in the layers from now on collected; return layer -> the table of its rows that changed."""
        plan, found = self._catalog.plan(self.model), {}
        for name in plan.layers if self.as_ == "projection" else ():
            layer = self._catalog.known[name]
            table = f"projection.{quote(f'_changed_{name}_in_{self.model.id}')}"
            columns = ", ".join(map(quote, self._catalog.columns(layer)))
            with moving(self._memory):
                self._run(
                    f"CREATE OR REPLACE TABLE {table} AS SELECT {columns} FROM projection.{quote(layer.name)} LIMIT 0"
                )
            found[name] = table
            self._memory.beside.setdefault(name, []).append(table)
        return found

    def _caught_up(self, head: int, collected: dict[str, str]) -> int:
        """Move the rows beside to where their layers and the old rows stand by now; return that position."""
        plan, end = self._catalog.plan(self.model), max(head, self.position)
        end = self._layers_at(end) if collected else end
        if self.as_ == "materialized" or isinstance(plan, Recompute):
            if end > head:
                self._fold(end)
            return end
        beside = _Beside(self._catalog, self.model, head)
        found_by = ", ".join(map(quote, plan.found_by))
        self._run(f"CREATE OR REPLACE TEMP TABLE {beside.dirty} AS SELECT {found_by} FROM {self.beside} LIMIT 0")
        for use in plan.uses:
            if use.name in collected:
                beside._note(plan.keys_of(use, f"SELECT * FROM {collected[use.name]}", beside.reader(0, end)))
        noted = self._run(f"SELECT count(*) FROM {beside.dirty}")[0][0]
        if noted or end > head:
            beside._move(plan, head, end, noted)
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
        model, database, position = self.model, self._catalog.log.database, self.position
        columns = ", ".join(map(quote, self._catalog.columns(model)))
        new = f"SELECT {columns} FROM {beside}"
        if 0 < position < head and model.sql:  # what only happened since is no difference between the two
            new = model.expanded(self._catalog.known, self._catalog.window(0, position, model))
        old = f"FROM {self.table}" if position else f"{new} LIMIT 0"
        told = [(text, columns_of(database, text)) for text in (old, new)]
        changes = Rows.of(self._catalog.log, differences(database, model.keys, *told))
        if not check(changes):
            raise RebuildRefused(
                f"{model.name} as {self.as_} keeps its old rows: {len(changes):,} would have changed, and that was "
                "refused. Call rehearse() to see them"
            )

    def _all(self, plan: AnyPlan, head: int) -> str:
        """The SELECT of all rows as they are stored, from the events up to a position."""
        models = self._catalog.known
        if self.as_ == "materialized":
            return self.model.expanded(models, self._catalog.window(0, head))
        if not isinstance(plan, Merge):
            return self._catalog.expanded(self.model, 0, head)
        there = self.reader(0, head)
        return plan.rows(lambda use: there(use) if use.is_events else self._catalog.expanded(models[use.name], 0, head))


class _Beside(Stored):
    """Rows that are being built: they are moved like others, and nobody knows of them yet."""

    def __init__(self, catalog: Catalog, model: ReadModel, position: int) -> None:
        super().__init__(catalog, model, "projection")
        self.table, self.dirty = self.beside, "_dirty_beside"
        self.place = (model.id, "beside")
        self._at = position

    @property
    def position(self) -> int:
        """The position that the rows tell."""
        return self._at

    @property
    def _is_read(self) -> bool:
        return False

    @contextmanager
    def moving_to(self, position: int, mode: str | None = None) -> Iterator[Move]:
        """A part of the move that swaps them; arguments as of `Table.moving_to`."""
        with self.named_failures(), moving(self._memory) as move:
            yield move
