"""Moving: how the stored rows of a read model follow the log.

Owns everything that writes rows of a serving. Rows and checkpoint always commit together. A projection moves in the
first way that is sure: merge the new events into its rows; make the rows again whose keys the change can reach; make
all rows again. A move of one read model notes, in the same transaction, which keys of those built on it may have
changed; they make these rows again when they move themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from cqrs_lab.errors import ConstraintViolated, ProjectionFailed, QueryFailed, RebuildRefused
from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.plan import AnyPlan, Recompute, Touch
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.ivm.reading import Use
from cqrs_lab.read.differences import columns_of, differences
from cqrs_lab.sql.names import literal, names_events, quote
from cqrs_lab.store.database import Database
from cqrs_lab.store.rows import Rows

if TYPE_CHECKING:
    from cqrs_lab.read.servings import Servings

ServedAs = Literal["view", "materialized", "projection"]
WAYS: tuple[ServedAs, ...] = get_args(ServedAs)
STORED = ("materialized", "projection")
SERVINGS = "servings"  # the lock under which rows of servings move
Check = Callable[[Rows], bool]
Tell = Callable[[float], None]

_DENSE = 20  # stored rows between those of a batch, for each of them, up to which they stand together
_FEW = 100  # keys up to which the index is faster than a look at all rows between them


@dataclass(frozen=True)
class Checkpoint:
    """What a stored serving says of itself: its mode, the SELECT that made its rows, the position they tell."""

    mode: str
    fingerprint: str
    position: int


def check_keys(database: Database, model: ReadModel, table: str, *, only_nulls: bool = False) -> None:
    """Refuse rows of which two have one key.

    Args:
        only_nulls: look only at keys that hold NULL, of which a UNIQUE key says nothing.

    Raises:
        ProjectionFailed: with the key.
    """
    keys = ", ".join(map(quote, model.keys))
    is_null = f"WHERE {' OR '.join(f'{quote(key)} IS NULL' for key in model.keys)}" if only_nulls else ""
    twice = database.execute(f"SELECT {keys} FROM {table} {is_null} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1")
    if twice:
        key = ", ".join(f"{name} = {value!r}" for name, value in zip(model.keys, twice[0], strict=True))
        raise ProjectionFailed(
            f"two rows of {model.name} have the key {key}. Group by the key, or name as the key what tells rows apart",
            model.name,
        )


class Stored:
    """The table that keeps a read model's rows.

    Args:
        side: the servings that it is one of.
        model: the read model.
        as_: "materialized" or "projection"; a view keeps no rows, but a name.
        mode: how it moves.
    """

    def __init__(self, side: Servings, model: ReadModel, as_: str, mode: str = "manual") -> None:
        self.model, self.as_, self.mode = model, as_, mode
        self.table = f"{quote(as_)}.{quote(model.name)}"
        self.dirty = f"{quote(as_)}.{quote(f'_dirty_{model.name}')}"
        self.keys = ", ".join(map(quote, model.keys))
        self._side, self._run = side, side.log.database.execute
        self._place, self._is_told = (model.id, as_), False
        self._unfit: dict[tuple[str, str], Checkpoint] = {}  # what the open transaction found to need a rebuild

    @property
    def position(self) -> int:
        """The position that the rows tell, 0 when there are none."""
        found = self._side.checkpoint(self.model, self.as_)
        return found.position if found else 0

    @property
    def is_fit(self) -> bool:
        """Whether there are rows, made by the SELECT that is declared now."""
        found = self._side.checkpoint(self.model, self.as_)
        return found is not None and found.fingerprint == self._side.fingerprint(self.model)

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward(self, end: int) -> int:
        """Move a projection to a position, or to that of what it is built on when that is ahead; return where it is."""
        plan = self._side.plan(self.model)
        layers = [self._side.stored(layer) for layer in self._side.layers(plan)]
        if not all(layer.is_fit for layer in layers):  # what changed below since is not known
            return self.build(end)
        with self._side.at_once() if layers else nullcontext():  # one commit
            start, reached = self.position, -1
            while reached < end:  # one that is ahead takes the others along: rows are those of one position
                reached = end
                for layer in layers:
                    layer.forward(end)
                end = max([end, *(layer.position for layer in layers)])
            noted = self._run(f"SELECT count(*) FROM {self.dirty}")[0][0] if plan.layers else 0
            if start >= end and not noted:
                return start
            if isinstance(plan, Recompute):
                return self.build(end)
            self._move(plan, start, end, noted)
            return end

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
        new, read = self._reader(start, end), self.reader(end)
        with self.moving_to(end):
            tables = plan.fold.model.sources() if isinstance(plan, Merge) else self.model.sources()
            # A look whether there are events takes a quarter of the time in which their fold is planned.
            names = {place.name.lower() for place in tables if names_events(place.name)}
            is_new = bool(names) and self._side.log.has_events(names, start, end)
            count = 0
            if is_new or noted:
                count = self._make("_reached", plan.reached(new, read, self.dirty if noted else None))
            if count:
                near, nulls = self._near("_reached", count, plan.found_by)
                columns = plan.names.values() if isinstance(plan, Merge) else plan.found_by
                there = self._find("_reached", near, plan.found_by, columns, nulls=nulls)
                one_for_one = isinstance(plan, Merge)
                after = plan.after("_before", "_reached", read, nulls=nulls, few=count <= _FEW)
                self._store(after, there, nulls, in_place=one_for_one)
            if noted:
                self._run(f"DELETE FROM {self.dirty}")
            self._is_told = True

    @property
    def _has_places(self) -> bool:
        """Whether rows can be found by their place; a column that is called rowid hides it."""
        return all(column.lower() != "rowid" for column in self._side.columns(self.model))

    def _has_nulls(self, table: str, columns: Iterable[str]) -> bool:
        """Whether a column of a table holds NULL."""
        is_null = " OR ".join(f"{quote(column)} IS NULL" for column in columns)
        return bool(self._run(f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {is_null} LIMIT 1)")[0][0])

    def _make(self, name: str, select: str) -> int:
        """Put rows into a temporary table, and return how many: what DuckDB has counted it joins in the right order.

        One new event merged into 1 M rows takes 42 ms as one statement, and 4 ms with a table in between.
        """
        return int(self._run(f"CREATE OR REPLACE TEMP TABLE {name} AS {select}")[0][0])

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
        told = self._side.built_on(self.model) or self._side.caches.needs(self._place)
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

    def _store(self, rows: str, there: int, nulls: bool, *, in_place: bool = True) -> None:
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
            self._check_nulls()
        built_on_it, needs = self._side.built_on(self.model), self._side.caches.needs(self._place)
        self._tell_strangers(built_on_it)
        if built_on_it:
            self._tell(built_on_it, "SELECT * EXCLUDE (_row) FROM _before", "SELECT * FROM _moved")
        if needs:
            self._drop_answers({name for need in needs for name, _ in need})

    def _check_nulls(self, table: str | None = None) -> None:
        """Refuse two rows of one key that holds NULL, which a UNIQUE key lets in.

        Raises:
            ProjectionFailed: with the key.
        """
        check_keys(self._side.log.database, self.model, table or self.table, only_nulls=True)

    def _kept(self) -> list[str]:
        """The columns of a row: the read model's, and the states that are none of these."""
        return [*self._side.columns(self.model), *self._side.plan(self.model).hidden]

    def _drop_answers(self, needed: set[str]) -> None:
        """Drop the answers that are kept and could have been made of the rows of `_before` or `_moved`."""
        columns = [c for c in self._side.columns(self.model) if c.lower() in needed or c in self.model.keys]
        names, most = ", ".join(map(quote, columns)), self._side.caches.most_rows
        rows = f"SELECT {names} FROM (FROM _before UNION ALL BY NAME FROM _moved) LIMIT {most + 1}"
        self._side.caches.drop(self._place, columns, self._run(rows))

    def _reader(self, start: int, end: int) -> Callable[[Use], str]:
        """Return what reads a place of this projection: events between two positions, or the rows of a layer."""
        plan, window = self._side.plan(self.model), self._side.window
        fold = plan.fold if isinstance(plan, Merge) else None

        def read(use: Use) -> str:
            if fold is not None and use == fold.use:
                return window(start, end, self.model, fold.model)(use.name)
            if fold is not None and isinstance(plan, Merge) and plan.ways and use == plan.ways.shape.uses[0]:
                return plan.base_rows(self.table)
            if use.is_events:
                return window(start, end, self.model)(use.name)
            layer = self._side.models[use.name]
            columns = ", ".join(map(quote, self._side.columns(layer)))
            return f"SELECT {columns} FROM projection.{quote(layer.name)}"

        return read

    def reader(self, position: int) -> Callable[[Use], str]:
        """Return what reads a place of this projection, as of a position."""
        return self._reader(0, position)

    def _note(self, keys: str) -> None:
        """Remember keys whose rows have to be made again."""
        names = ", ".join(map(quote, self._side.plan(self.model).found_by))
        self._run(f"INSERT INTO {self.dirty} SELECT {names} FROM ({keys}\n)")

    def _tell(self, built_on_it: list[tuple[Stored, AnyPlan]], before: str, after: str) -> None:
        """Note the keys of other projections that rows of this one reach, as they were and as they are."""
        for other, plan in built_on_it:
            read = other.reader(other.position)
            for use in plan.uses:
                if use.name == self.model.name.lower() and not isinstance(plan, Recompute):
                    try:
                        other._note(plan.keys_of(use, f"{before} UNION ALL BY NAME {after}", read))
                    except QueryFailed as error:  # its fault, and not that of the rows that move
                        name = other.model.name
                        raise ProjectionFailed(f"the keys of {name} could not be told: {error}", name) from error

    def _tell_strangers(self, known: list[tuple[Stored, AnyPlan]]) -> None:
        """Say that what is built on this one needs a rebuild where this lab cannot tell which keys are reached.

        Another domain may have served it; the store knows that it reads these rows, and not how.
        """
        if self.as_ != "projection":
            return
        for name in self._side.dependents(self.model) - {other.model.id for other, _ in known}:
            found = self._side.checkpoints.get((name, "projection"))
            if found is not None and found.fingerprint:
                unfit = "UPDATE servings SET fingerprint = '' WHERE lower(model) = ? AND served_as = 'projection'"
                self._run(unfit, [name])
                self._unfit[name, "projection"] = Checkpoint(found.mode, "", found.position)

    # -- all rows --------------------------------------------------------------------------------------------------

    def build(self, head: int, check: Check | None = None, tell: Tell | None = None) -> int:
        """Build the table beside the old one and swap them, in one transaction; return the position reached.

        The key is added after the fold: 1.2 s instead of 2.1 s for 1 M rows from 3.35 M events.

        Args:
            check: told what the new rows change, before the swap; False refuses them.
            tell: told from time to time how much of the work at hand is done, from 0 to 1.

        Raises:
            RebuildRefused: by `check`; the old rows stay.
        """
        plan = self._side.plan(self.model)
        for layer in self._side.layers(plan) if self.as_ == "projection" else ():
            below = self._side.stored(layer)
            head = max(head, below.forward(head) if below.is_fit else below.build(head))
        fold = self._all(plan, head)
        beside = f"{quote(self.as_)}.{quote(f'_next_{self.model.name}')}"
        built_on_it = self._side.built_on(self.model) if self.as_ == "projection" else []
        with self.moving_to(head), self._side.log.database.telling(tell):
            # In order of the key, so that a batch's rows stand in few places: 0.1 s for 1 M rows, and its key is made
            # sooner for it.
            order = f" ORDER BY {self.keys}" if self.as_ == "projection" else ""
            self._run(f"CREATE TABLE {beside} AS SELECT * FROM ({fold}\n){order}")
            if self.as_ == "projection":
                # A key may hold NULL, so it is UNIQUE and not PRIMARY; what that lets in is looked for.
                self._run(f"ALTER TABLE {beside} ADD UNIQUE ({self.keys})")
            if self.as_ == "materialized":
                check_keys(self._side.log.database, self.model, beside)
            elif self._has_nulls(beside, self.model.keys):
                self._check_nulls(beside)
            self._check(check, beside, head)
            self._tell_strangers(built_on_it)
            if built_on_it:
                old, new = f"SELECT * FROM {self.table}", f"SELECT * FROM {beside}"
                self._tell(built_on_it, f"({old} EXCEPT ALL {new})", f"({new} EXCEPT ALL {old})")
            self._run(f"DROP TABLE IF EXISTS {self.table}")
            self._run(f"ALTER TABLE {beside} RENAME TO {quote(self.model.name)}")
            if self.as_ == "projection" and plan.layers:
                found_by = ", ".join(map(quote, plan.found_by))
                self._run(f"CREATE OR REPLACE TABLE {self.dirty} AS SELECT {found_by} FROM {self.table} LIMIT 0")
            if self.as_ == "projection":
                self._side.write_layers(self.model, plan.layers)
        return head

    def _check(self, check: Check | None, beside: str, head: int) -> None:
        """Ask whether the rows in a table beside may take the place of the old ones, if anybody wants to know."""
        if check is None:
            return
        model, database, position = self.model, self._side.log.database, self.position
        columns = ", ".join(map(quote, self._side.columns(model)))
        new = f"SELECT {columns} FROM {beside}"
        if 0 < position < head and model.sql:  # what only happened since is no difference between the two
            new = model.expanded(self._side.models, self._side.window(0, position, model))
        old = f"FROM {self.table}" if position else f"{new} LIMIT 0"
        told = [(text, columns_of(database, text)) for text in (old, new)]
        changes = Rows.of(self._side.log, differences(database, model.keys, *told))
        if not check(changes):
            raise RebuildRefused(
                f"{model.name} as {self.as_} keeps its old rows: {len(changes):,} would have changed, and that was "
                "refused. Call rehearse() to see them"
            )

    def _all(self, plan: AnyPlan, head: int) -> str:
        """The SELECT of all rows as they are stored, from the events up to a position."""
        models = self._side.models
        if self.as_ == "materialized":
            return self.model.expanded(models, self._side.window(0, head))
        if not isinstance(plan, Merge):
            return self._side.expanded(self.model, 0, head)
        there = self._reader(0, head)
        return plan.rows(lambda use: there(use) if use.is_events else self._side.expanded(models[use.name], 0, head))

    def set_aside(self) -> None:
        """Say that the rows need a rebuild: which of them have changed could not be told."""
        self._run(
            "UPDATE servings SET fingerprint = '' WHERE lower(model) = ? AND served_as = ?", [self.model.id, self.as_]
        )
        self._side.load_checkpoints()

    def write_mode(self) -> None:
        """Store another mode."""
        with self.moving_to(self.position, self.mode):
            pass

    def create_view(self) -> None:
        """Make the view under its name, for people who open the file with DuckDB."""
        text = self.model.expanded(self._side.models, self._side.log.source)
        with self.moving_to(0):
            self._run(f"CREATE OR REPLACE VIEW {self.table} AS {text}")

    @contextmanager
    def moving_to(self, position: int, mode: str | None = None) -> Iterator[None]:
        """A transaction, or part of one, in which rows and checkpoint move together; its failures name the model.

        Answers that were kept are dropped before others can see the rows: all, unless the block says which.

        Args:
            mode: the mode that it has from now on; None: the one that is stored, which may be newer than `self.mode`.
        """
        database, there = self._side.log.database, self._side.checkpoint(self.model, self.as_)
        mode = mode or (there.mode if there else self.mode)
        self._is_told, is_part = False, database.in_transaction
        self._side.caches.begin(self._place)
        if is_part:
            self._side.changing.append(self._place)
        try:
            with nullcontext() if is_part else database.transaction():
                yield
                if not self._is_told:
                    self._side.caches.drop(self._place)
                checkpoint = self._side.write_checkpoint(self.model, self.as_, mode, position)
            told = {**self._unfit, self._place: checkpoint}
            self._unfit = {}
            # Others may rely on it only once the whole is committed.
            (self._side.pending if is_part else self._side.checkpoints).update(told)
        except ConstraintViolated as error:
            raise ProjectionFailed(
                f"two rows of {self.model.name} have one key ({', '.join(self.model.keys)}): {error}. Group by the "
                "key, or name as the key what tells rows apart",
                self.model.name,
            ) from error
        except QueryFailed as error:
            raise ProjectionFailed(
                f"the rows of {self.model.name} could not be made: {str(error).splitlines()[0]}", self.model.name
            ) from error
        except KeyboardInterrupt:
            self._side.load_checkpoints()  # it may have come just after the commit
            raise
        finally:
            if not is_part:
                self._side.caches.end(self._place)
