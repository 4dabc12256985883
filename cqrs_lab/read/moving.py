"""Moving: how the stored rows of a read model follow the log.

Owns everything that writes rows of a serving. Rows and checkpoint always commit together. A projection moves in the
first way that is sure: merge the new events into its rows; make the rows anew whose keys the change can reach; make all
rows anew. Whoever changes rows of one read model notes, in the same transaction, which keys of those built on it may
have changed; they make these anew when they move themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from cqrs_lab.database import literal, quote
from cqrs_lab.errors import ConstraintViolated, ProjectionFailed, QueryFailed, RebuildRefused
from cqrs_lab.read.differences import columns_of, differences
from cqrs_lab.read.fused import Fused
from cqrs_lab.read.merge import Merge
from cqrs_lab.read.models import ReadModel
from cqrs_lab.read.touched import Touched
from cqrs_lab.rows import Rows

if TYPE_CHECKING:
    from cqrs_lab.read.servings import Servings

ServedAs = Literal["view", "materialized", "projection"]
WAYS: tuple[ServedAs, ...] = get_args(ServedAs)
STORED = ("materialized", "projection")
SERVINGS = "servings"  # the lock under which rows of servings move
Way = Merge | Fused | Touched | str
"""How a projection moves forward; a text is the reason why all of it is made anew."""


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
        self._place, self._is_told = (model.name, as_), False

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
        way = self._side.way(self.model)
        layers = [self._side.stored(layer) for layer in self._side.layers(way)]
        if not all(layer.is_fit for layer in layers):  # what changed below since is not known
            return self.build(end)
        with self._side.at_once() if layers else nullcontext():  # one commit
            for layer in layers:
                layer.forward(end)
            end = max([end, *(layer.position for layer in layers)])
            start = self.position
            if start >= end:
                return start
            if isinstance(way, Merge):
                self._merge(way, start, end)
            elif isinstance(way, Fused):
                self._fuse(way, start, end)
            elif isinstance(way, Touched):
                self._touch(way, start, end)
            else:
                return self.build(end)
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

    def _merge(self, way: Merge, start: int, end: int) -> None:
        """Fold the new events alone and combine them with the stored rows."""
        tables = {source.name for source in self.model.sources()}
        with self.moving_to(end):
            # A look whether there are any takes a quarter of the time in which their fold is planned.
            is_new = self._side.log.has_events(tables, start, end)
            count = self._make("_new", self._side.expanded(way.stored(), start, end)) if is_new else 0
            if count:
                there = self._find("_new", count, [*self.model.keys, *(state.column for state in way.states)])
                self._store(way.rows("_before", "SELECT * FROM _new"), there)
            self._is_told = True

    def _fuse(self, way: Fused, start: int, end: int) -> None:
        """Merge the new events into the rows of the base that are kept here, and look up what goes with them."""
        fold = self._side.expanded(way.base.stored(), start, end)
        with self.moving_to(end):
            count = self._make("_new", fold)
            if count:
                there = self._find(
                    "_new", count, way.kept.values(), {key: way.kept[key] for key in way.base.model.keys}
                )
                moved, read = way.moved("_before", "SELECT * FROM _new"), self.reader(end)
                if count <= _FEW:  # a statement less, which is more than what it would save
                    self._store(
                        way.stored(lambda name: moved if name == way.base.model.name.lower() else read(name)), there
                    )
                else:
                    self._make("_base", moved)
                    self._store(way.looked_up("_base", read), there)
            count = self._run(f"SELECT count(*) FROM {self.dirty}")[0][0]
            if count:  # what is looked up has changed
                there = self._find(self.dirty, count, way.kept.values())
                self._make("_base", way.base_rows("_before"))
                self._store(way.looked_up("_base", self.reader(end)), there)
                self._run(f"DELETE FROM {self.dirty}")
            self._is_told = True

    def _touch(self, way: Touched, start: int, end: int) -> None:
        """Make the rows anew whose keys new events, or changes below, can reach."""
        read = self._side.reader(end, self.model)
        with self.moving_to(end):
            for number, use in enumerate(way.uses):
                if self._side.is_events(use.name):
                    self._note(way.keys_of(number, self._side.window(start, end, self.model)(use.name), read))
            count = self._run(f"SELECT count(*) FROM {self.dirty}")[0][0]
            there = self._find(self.dirty, count, self.model.keys)
            self._store(way.rows_of(self.dirty, read), there, in_place=False)
            self._run(f"DELETE FROM {self.dirty}")
            self._is_told = True

    def _make(self, name: str, select: str) -> int:
        """Put rows into a temporary table, and return how many: what DuckDB has counted it joins in the right order.

        One new event merged into 1 M rows takes 42 ms as one statement, and 4 ms with a table in between.
        """
        return int(self._run(f"CREATE OR REPLACE TEMP TABLE {name} AS {select}")[0][0])

    def _find(self, rows: str, count: int, columns: Iterable[str], kept: dict[str, str] | None = None) -> int:
        """Put the stored rows that have the keys of some rows into `_before`, with their place, `_row`; say how many.

        They are looked for once: whatever comes after finds them by their place (UPDATE of 1,000: 3 ms, by key 17).

        Args:
            count: how many these rows are.
            columns: what is needed of them; all there are when somebody is to be told of the change.
            kept: key of `rows` -> the column that keeps it here; the read model's own keys when None.
        """
        keys = kept or {key: key for key in self.model.keys}
        same = " AND ".join(f"old.{quote(column)} = new.{quote(key)}" for key, column in keys.items())
        sought = f"(SELECT DISTINCT {', '.join(map(quote, keys))} FROM {rows})"
        told = self._side.built_on(self.model) or self._side.caches.needs(self._place)
        wanted = "old.*" if told else ", ".join(f"old.{quote(column)}" for column in columns)
        return self._make(
            "_before",
            f"SELECT {wanted}, old.rowid AS _row FROM {self.table} AS old SEMI JOIN {sought} AS new ON {same} "
            f"WHERE {self._near(rows, count, keys)}",
        )

    def _near(self, rows: str, count: int, keys: dict[str, str]) -> str:
        """Return a condition that the stored rows, `old`, of the keys of some rows meet, and few others.

        Some keys are looked up in the index, row by row. For many it is faster to look at all rows between the first
        and the last: new events are mostly about what is new, and parts of a table with other keys are skipped.
        """
        (key, column), *more = keys.items()
        name, known = quote(key), f"FROM {rows} WHERE {quote(key)} IS NOT NULL"
        if count <= _FEW and not more:
            found = self._run(f"SELECT DISTINCT {name}::VARCHAR, typeof({name}) {known}")
        else:
            found = self._run(f"SELECT min({name})::VARCHAR, max({name})::VARCHAR, typeof(any_value({name})) {known}")
        if not found or found[0][0] is None:
            return "false"
        kind = found[0][-1]
        if kind not in ("VARCHAR", "DATE", "TIMESTAMP", "BIGINT", "INTEGER"):
            return "true"
        values = [f"CAST({literal(value)} AS {kind})" for row in found for value in row[:-1]]
        is_some = f"IN ({', '.join(values)})" if len(found[0]) == 2 else f"BETWEEN {' AND '.join(values)}"
        return f"old.{quote(column)} {is_some}"

    def _store(self, rows: str, there: int, *, in_place: bool = True) -> None:
        """Put rows in the place of those in `_before`, and tell the projections that are built on them.

        Args:
            rows: a SELECT of them, as they are stored.
            there: how many are in `_before`.
            in_place: each row of `_before` has one, and only one, that follows it.
        """
        moved = self._make("_moved", rows)
        far = self._run("SELECT max(_row) - min(_row) FROM _before")[0][0] if there > 1 else 0
        same = " AND ".join(f"old.{quote(key)} = new.{quote(key)}" for key in self.model.keys)
        if in_place and there and far < _DENSE * there:
            # Rows that stand together are changed in their place: 9 ms for 1,000 recent rows of 1 M, and not 25 as a
            # deleted and a new row with its key. Where they stand apart, it is 400 ms and not 60.
            columns = [name for name in self._kept() if name not in self.model.keys]
            sets = ", ".join(f"{quote(name)} = new.{quote(name)}" for name in columns)
            placed = f"(SELECT new.*, old._row FROM _moved AS new JOIN _before AS old ON {same})"
            if columns:
                self._run(f"UPDATE {self.table} AS old SET {sets} FROM {placed} AS new WHERE old.rowid = new._row")
            if there < moved:
                self._run(
                    f"INSERT INTO {self.table} SELECT new.* FROM _moved AS new ANTI JOIN _before AS old ON {same}"
                )
        else:
            if there:
                self._run(f"DELETE FROM {self.table} WHERE rowid IN (SELECT _row FROM _before)")
            self._run(f"INSERT INTO {self.table} SELECT * FROM _moved")  # two rows of one key are an error here
        built_on_it, needs = self._side.built_on(self.model), self._side.caches.needs(self._place)
        if built_on_it:
            self._tell(built_on_it, "SELECT * EXCLUDE (_row) FROM _before", "SELECT * FROM _moved")
        if needs:
            self._drop_answers({name for need in needs for name, _ in need})

    def _kept(self) -> list[str]:
        """The columns of a row that is merged: the read model's, and the states that are none of these."""
        way = self._side.way(self.model)
        states = [state.column for state in way.hidden] if isinstance(way, Merge) else []
        states += [column for column in way.kept.values() if column.startswith("_")] if isinstance(way, Fused) else []
        return [*self._side.columns(self.model), *states]

    def _drop_answers(self, needed: set[str]) -> None:
        """Drop the answers that are kept and could have been made of the rows of `_before` or `_moved`."""
        columns = [c for c in self._side.columns(self.model) if c.lower() in needed or c in self.model.keys]
        names, most = ", ".join(map(quote, columns)), self._side.caches.most_rows
        rows = f"SELECT {names} FROM (FROM _before UNION ALL BY NAME FROM _moved) LIMIT {most + 1}"
        self._side.caches.drop(self._place, columns, self._run(rows))

    def reader(self, position: int) -> Callable[[str], str]:
        """Return what reads a source of this projection at a position."""
        way, read = self._side.way(self.model), self._side.reader(position, self.model)
        if not isinstance(way, Fused):
            return read
        base = way.base_rows(self.table)
        return lambda name: base if name == way.base.model.name.lower() else read(name)

    def _note(self, keys: str) -> None:
        """Remember keys whose rows have to be made anew; a row without a key is none."""
        there = " AND ".join(f"{quote(key)} IS NOT NULL" for key in self.model.keys)
        self._run(f"INSERT INTO {self.dirty} SELECT {self.keys} FROM ({keys}\n) WHERE {there}")

    def _tell(self, built_on_it: list[tuple[Stored, Touched | Fused]], before: str, after: str) -> None:
        """Note the keys of other projections that rows of this one reach, as they were and as they are."""
        for other, way in built_on_it:
            read = other.reader(other.position)
            for number, use in enumerate(way.uses):
                if use.name == self.model.name.lower():
                    try:
                        other._note(way.keys_of(number, f"{before} UNION ALL BY NAME {after}", read))
                    except QueryFailed as error:  # its fault, and not that of the rows that move
                        name = other.model.name
                        raise ProjectionFailed(f"the keys of {name} could not be told: {error}", name) from error

    # -- anew ------------------------------------------------------------------------------------------------------

    def build(self, head: int, check: Check | None = None, tell: Tell | None = None) -> int:
        """Build the table beside the old one and swap them, in one transaction; return the position reached.

        The key is added after the fold: 1.2 s instead of 2.1 s for 1 M rows from 3.35 M events.

        Args:
            check: told what the new rows change, before the swap; False refuses them.
            tell: told from time to time how much of the work at hand is done, from 0 to 1.

        Raises:
            RebuildRefused: by `check`; the old rows stay.
        """
        way = self._side.way(self.model) if self.as_ == "projection" else ""
        for layer in self._side.layers(way):
            below = self._side.stored(layer)
            head = max(head, below.forward(head) if below.is_fit else below.build(head))
        fold = self._fold(way, head)
        beside = f"{quote(self.as_)}.{quote(f'_next_{self.model.name}')}"
        built_on_it = self._side.built_on(self.model) if self.as_ == "projection" else []
        with self.moving_to(head), self._side.log.database.telling(tell):
            # In order of the key, so that a batch's rows stand in few places: 0.1 s for 1 M rows, and its key is made
            # sooner for it.
            order = f" ORDER BY {self.keys}" if self.as_ == "projection" else ""
            self._run(f"CREATE TABLE {beside} AS SELECT * FROM ({fold}\n){order}")
            if self.as_ == "projection":
                self._run(f"ALTER TABLE {beside} ADD PRIMARY KEY ({self.keys})")
            self._check(check, beside, head)
            if built_on_it:
                old, new = f"SELECT * FROM {self.table}", f"SELECT * FROM {beside}"
                self._tell(built_on_it, f"({old} EXCEPT ALL {new})", f"({new} EXCEPT ALL {old})")
            self._run(f"DROP TABLE IF EXISTS {self.table}")
            self._run(f"ALTER TABLE {beside} RENAME TO {quote(self.model.name)}")
            if isinstance(way, (Touched, Fused)):
                self._run(f"CREATE OR REPLACE TABLE {self.dirty} AS SELECT {self.keys} FROM {self.table} LIMIT 0")
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

    def _fold(self, way: Way, head: int) -> str:
        """The SELECT of all rows as they are stored, from the events up to a position."""
        models = self._side.models
        if isinstance(way, Merge):
            return self._side.expanded(way.stored(), 0, head)
        if isinstance(way, Fused):
            base, kept = way.base.model.name.lower(), way.base.stored()
            return way.stored(lambda name: self._side.expanded(kept if name == base else models[name], 0, head))
        if self.as_ == "projection":
            return self._side.expanded(self.model, 0, head)
        return self.model.expanded(models, self._side.window(0, head))

    def set_aside(self) -> None:
        """Say that the rows need a rebuild: what would have to be made anew could not be told."""
        self._run("UPDATE servings SET fingerprint = '' WHERE model = ? AND served_as = ?", [self.model.name, self.as_])
        self._side.load_checkpoints()

    def write_mode(self) -> None:
        """Store another mode."""
        with self.moving_to(self.position, self.mode):
            pass

    def create_view(self) -> None:
        """Make the view under its name, for whoever opens the file with DuckDB."""
        text = self.model.expanded(self._side.models, self._side.log.source)
        with self.moving_to(0):
            self._run(f"CREATE OR REPLACE VIEW {self.table} AS {text}")

    @contextmanager
    def moving_to(self, position: int, mode: str | None = None) -> Iterator[None]:
        """A transaction, or part of one, in which rows and checkpoint move together; its failures name the model.

        Answers that were kept are dropped before others can see the rows: all, unless the block says which.

        Args:
            mode: the mode that it has from now on; None: the one that it has, whoever moves it may know an older one.
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
            if is_part:  # others may rely on it only once the whole is committed
                self._side.pending[self.model.name, self.as_] = checkpoint
            else:
                self._side.checkpoints[self.model.name, self.as_] = checkpoint
        except ConstraintViolated as error:
            raise ProjectionFailed(
                f"the rows of {self.model.name} do not fit its key ({', '.join(self.model.keys)}): {error}. "
                "Group by the key, and leave out rows where it is NULL",
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
