"""The mover: the one routine by which stored rows of a read model are replaced.

Owns its steps, whatever the plan: the keys that new events and changed rows of layers reach, the rows before, the rows
after, replace, hand on. A move of one read model notes, in the same transaction, which keys of those built on it may
have changed; they make these rows again when they move themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cqrs_lab.errors import ProjectionFailed, QueryFailed
from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.plan import Recompute, Touch
from cqrs_lab.read.few import MOST, TOLD, Few
from cqrs_lab.sql.names import literal, names_events, quote
from cqrs_lab.store.memory import Checkpoint
from cqrs_lab.store.move import Move

_SOME = 100  # rows up to which it does not matter where they stand
_DENSE = 20  # stored rows between those of a batch, for each of them, up to which they stand together


class Mover(Few):
    """A table whose rows can be replaced by what a plan says; arguments as of `Table`."""

    def move(self, plan: Merge | Touch, start: int, end: int, noted: int) -> None:
        """Replace the rows that new events and so many noted keys can reach, and hand the change on."""
        with self.moving_to(end) as move:
            tables = plan.fold.model.sources() if isinstance(plan, Merge) else self.model.sources()
            names = {place.name.lower() for place in tables if names_events(place.name)}
            is_new = self._catalog.log.may_have_events(names, start)
            if is_new or noted:
                told = self.is_read or bool(self._memory.answers.needs(self.place))
                is_few = end - start <= (TOLD if told else MOST) and noted <= MOST
                if not (is_few and self._move_few(move, plan, start, end, noted, told=told)):
                    # A look whether there are events takes a quarter of the time in which their fold is planned.
                    is_new = is_new and self._catalog.log.has_events(names, start, end)
                    if is_new or noted:
                        self._move_many(move, plan, start, end, noted, told=told)
            if noted:
                self._run(f"DELETE FROM {self.dirty}")
                move.noted[self.model.id] = False
            self._is_told = True

    def _move_few(self, move: Move, plan: Merge | Touch, start: int, end: int, noted: int, *, told: bool) -> bool:
        """Move in the short way; return whether it could.

        Args:
            told: whether somebody wants to know the rows as they were and as they are.
        """
        changed = self.move_few(plan, start, end, noted=noted > 0, told=told)
        if changed is None:
            return False
        if told and changed.keys:
            self.hand_on(move, *self.changed_rows(changed))
            if self._memory.answers.needs(self.place):
                rows = [*changed.before, *self.stored(changed.keys)]
                self._memory.answers.drop(self.place, list(self._types), rows)
        return True

    def _move_many(self, move: Move, plan: Merge | Touch, start: int, end: int, noted: int, *, told: bool) -> None:
        """Move in the long way, through tables; arguments as of `_move_few`."""
        new, read = self.reader(start, end), self.reader(0, end)
        count = self._make("_reached", plan.reached(new, read, self.dirty if noted else None))
        if not count:
            return
        if count > _SOME:
            near, nulls = self._near("_reached", plan.found_by)
        else:
            near, nulls = "true", self._has_nulls("_reached", plan.found_by)
        columns = plan.names.values() if isinstance(plan, Merge) else plan.found_by
        there = self._find("_reached", near, plan.found_by, columns, nulls=nulls, told=told)
        after = plan.after("_before", "_reached", read, nulls=nulls, few=count <= _SOME)
        self._store(move, after, there, nulls=nulls, in_place=isinstance(plan, Merge))

    def _find(
        self, rows: str, near: str, keys: tuple[str, ...], columns: Iterable[str], *, nulls: bool, told: bool
    ) -> int:
        """Put the stored rows that have the keys of some rows into `_before`, with their place, `_row`; say how many.

        They are looked for once: whatever comes after finds them by their place (UPDATE of 1,000: 3 ms, by key 17).

        Args:
            near: a condition that they meet, and few others.
            keys: the columns to find them by.
            columns: what is needed of them.
            nulls: whether a key among them holds NULL. These have a branch of their own: a join by IS NOT DISTINCT FROM
                looks at all rows (1,000 keys among 1 M: 31 ms, and 2 by =).
            told: whether somebody wants to know the rows, so that all columns are needed.
        """
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

    def _near(self, rows: str, keys: tuple[str, ...]) -> tuple[str, bool]:
        """Return a condition that the stored rows, `old`, of the keys of some rows meet, and whether a key holds NULL.

        New events are mostly about what is new, and parts of a table with other keys are skipped.
        """
        name = quote(keys[0])
        is_null = " OR ".join(f"{quote(one)} IS NULL" for one in keys)
        ends = f"min({name})::VARCHAR, max({name})::VARCHAR, typeof(any_value({name}))"
        ((first, last, kind, nulls),) = self._run(f"SELECT {ends}, bool_or({is_null}) FROM {rows}")
        if first is None:
            return "false", nulls
        if kind not in ("VARCHAR", "DATE", "TIMESTAMP", "BIGINT", "INTEGER"):
            return "true", nulls
        return f"old.{name} BETWEEN CAST({literal(first)} AS {kind}) AND CAST({literal(last)} AS {kind})", nulls

    def _store(self, move: Move, rows: str, there: int, *, nulls: bool, in_place: bool) -> None:
        """Put rows in the place of those in `_before`, and tell the projections that are built on them.

        Args:
            rows: a SELECT of them, as they are stored.
            there: how many are in `_before`.
            nulls: whether a key among them may hold NULL.
            in_place: each row of `_before` has one, and only one, that follows it.
        """
        moved = self._make("_moved", rows)
        # Of few it does not matter where they stand; a look at it takes as long as is won.
        may_stand = in_place and self._has_places and there > _SOME
        far = self._run("SELECT max(_row) - min(_row) FROM _before")[0][0] if may_stand else 0
        equal = "IS NOT DISTINCT FROM" if nulls else "="
        same = " AND ".join(f"_old.{quote(key)} {equal} _new.{quote(key)}" for key in self.model.keys)
        if may_stand and far < _DENSE * there:
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
        self.hand_on(move, "SELECT * EXCLUDE (_row) FROM _before UNION ALL BY NAME SELECT * FROM _moved")
        needs = self._memory.answers.needs(self.place)
        if needs:
            self._drop_answers({name for need in needs for name, _ in need})

    def _drop_answers(self, needed: set[str]) -> None:
        """Drop the answers that are kept and could have been made of the rows of `_before` or `_moved`."""
        columns = [c for c in self._catalog.columns(self.model) if c.lower() in needed or c in self.model.keys]
        names, most = ", ".join(map(quote, columns)), self._memory.answers.most_rows
        rows = f"SELECT {names} FROM (FROM _before UNION ALL BY NAME FROM _moved) LIMIT {most + 1}"
        self._memory.answers.drop(self.place, columns, self._run(rows))

    def note(self, move: Move, keys: str, given: Sequence[Any] = ()) -> None:
        """Remember keys whose rows have to be made again.

        Args:
            keys: the SELECT of them.
            given: the values that it needs.
        """
        names = ", ".join(map(quote, self._catalog.plan(self.model).found_by))
        if self._run(f"INSERT INTO {self.dirty} SELECT {names} FROM ({keys}\n)", given) != [(0,)]:
            move.noted[self.model.id] = True

    @property
    def is_read(self) -> bool:
        """Whether the rows of other projections are made of these, or of which that cannot be told."""
        return any(self._readers())

    def hand_on(self, move: Move, changed: str, given: Sequence[Any] = ()) -> None:
        """Note what rows that have changed reach, as they were and as they are, in the projections that read them.

        Args:
            changed: the SELECT of them.
            given: the values that it needs.
        """
        found, unknown, building = self._readers()
        for other in found:
            plan, read = self._catalog.plan(other.model), other.reader(0, other.position, {self.model.id: changed})
            for use in plan.uses:
                if use.name == self.model.id and not isinstance(plan, Recompute):
                    try:
                        other.note(move, plan.keys_of(use, changed, read), given)
                    except QueryFailed as error:  # its fault, and not that of the rows that move
                        name = other.model.name
                        raise ProjectionFailed(f"the keys of {name} could not be told: {error}", name) from error
        for name in unknown:
            there = self._memory.checkpoints[name, "projection"]
            move.checkpoint(self._memory.texts[name].name if name in self._memory.texts else name, "projection",
                            Checkpoint(there.mode, "", there.position))  # fmt: skip
        columns = ", ".join(map(quote, self._catalog.columns(self.model)))
        for table in building:
            self._run(f"INSERT INTO {table} SELECT {columns} FROM ({changed})", given)

    def _readers(self) -> tuple[list[Mover], list[str], list[str]]:
        """The projections that read these rows, those of which that cannot be told, and what collects for a build."""
        if self.as_ != "projection":
            return [], [], []
        found, unknown = self._catalog.readers(self.model)
        movers = [Mover(self._catalog, other, "projection") for other in found]
        return movers, unknown, self._memory.beside.get(self.model.id, [])
