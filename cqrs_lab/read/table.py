"""A table: the rows of a read model that are kept, and where they stand.

Owns the names of what is stored for a serving, the transaction in which its rows and its checkpoint move together, and
the rule that a key names one row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import Literal, get_args

from cqrs_lab.errors import ConstraintViolated, NotServed, ProjectionFailed, QueryFailed
from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.reading import Use
from cqrs_lab.read.catalog import Catalog
from cqrs_lab.read.projection import Model, Projection
from cqrs_lab.sql.names import quote
from cqrs_lab.store.bounds import Bound
from cqrs_lab.store.database import Database
from cqrs_lab.store.memory import Checkpoint, Memory
from cqrs_lab.store.move import Move, moving

ServedAs = Literal["view", "materialized", "projection"]
WAYS: tuple[ServedAs, ...] = get_args(ServedAs)
"""The ways to serve a read model."""
STORED: tuple[ServedAs, ...] = ("materialized", "projection")
"""Those of them that keep rows."""


# Types of a key that DuckDB does not index; and lists.
_NOT_INDEXED = ("STRUCT", "MAP", "UNION", "INTERVAL", "VARIANT")
# Types that DuckDB packs in as many bits as they need, each value in its place.
_PACKED = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|DECIMAL\(.*\)|DATE|TIME|TIMESTAMP.*")


def is_indexed(model: Model, as_: str, kinds: Iterable[str]) -> bool:
    """Return whether the key of stored rows can have an index, given the types of its columns.

    Raises:
        ProjectionFailed: it cannot, and a projection finds its rows by one.
    """
    odd = next((kind for kind in kinds if kind.endswith("]") or kind.startswith(_NOT_INDEXED)), None)
    if odd and as_ == "projection":
        raise ProjectionFailed(
            f"a projection finds its rows by an index, and DuckDB has none for the type {odd}, which is in the key of "
            f"{model.name}. Take its text or a number as the key, such as epoch(…) of a duration, or serve it as view "
            "or materialized",
            model.name,
        )
    return odd is None


def mode_of(mode: str | None, as_: str, refresh_every: int | timedelta | None) -> str | None:
    """Return a mode as it is stored, None to leave it as it is.

    Raises:
        NotServed: there is no such mode, or not for this way of serving.
    """
    if refresh_every is not None:
        if as_ != "materialized":
            raise NotServed("refresh_every is for materialized tables; a projection has mode='background'")
        seconds = refresh_every.total_seconds() if isinstance(refresh_every, timedelta) else None
        amount = refresh_every if seconds is None else seconds
        if mode is not None:
            raise NotServed(f"refresh_every says how the table moves; leave mode={mode!r} out")
        if isinstance(amount, bool) or not isinstance(amount, int if seconds is None else float) or amount <= 0:
            raise NotServed(f"refresh_every={refresh_every!r} is neither a number of events nor a time above 0")
        return f"every {amount} events" if seconds is None else f"every {seconds:g} seconds"
    allowed: Iterable[str] = ("manual", "inline", "background") if as_ == "projection" else ("manual",)
    if mode is not None and mode not in allowed:
        raise NotServed(f"a {as_} moves in the mode {', '.join(allowed)}, not {mode!r}")
    return mode


def check_keys(database: Database, model: Model, table: str, *, only_nulls: bool = False) -> None:
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


def drop_unfinished(memory: Memory) -> None:
    """Drop tables that a build left behind which was killed or interrupted; nothing is being built now."""
    found = memory.database.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() "
        "AND regexp_matches(table_name, '^_(next|part|changed)_')"
    )
    if found:
        with moving(memory):
            for schema, name in found:
                memory.database.execute(f"DROP TABLE {quote(schema)}.{quote(name)}")


class Table:
    """The table that keeps the rows of a serving.

    Args:
        catalog: the read models of the lab.
        model: the read model.
        as_: how it is served; a view keeps no rows, but a name.
        mode: how it moves.
    """

    def __init__(self, catalog: Catalog, model: Model, as_: str, mode: str = "manual") -> None:
        self.model, self.as_, self.mode = model, as_, mode
        self.table = f"{quote(as_)}.{quote(model.name)}"
        self.beside = f"{quote(as_)}.{quote(f'_next_{model.name}')}"
        self.dirty = f"{quote(as_)}.{quote(f'_dirty_{model.name}')}"
        self.keys = ", ".join(map(quote, model.keys))
        self.place = (model.id, as_)
        self._catalog, self._memory, self._run = catalog, catalog.memory, catalog.log.database.execute
        self._is_told = False

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What it says of itself, None when it is not there."""
        return self._memory.checkpoint(self.place)

    @property
    def position(self) -> int:
        """The position that the rows tell, 0 when there are none."""
        found = self.checkpoint
        return found.position if found else 0

    @property
    def is_fit(self) -> bool:
        """Whether there are rows, made by the SELECT that is declared now."""
        found = self.checkpoint
        return found is not None and found.fingerprint == self._catalog.fingerprint(self.model)

    @contextmanager
    def moving_to(self, position: int, mode: str | None = None) -> Iterator[Move]:
        """A move, or part of one, in which rows and checkpoint move together; its failures name the model.

        Answers that were kept are dropped before others can see the rows: all, unless the block says which.

        Args:
            mode: the mode that it has from now on; None: the one that is stored, which may be newer than `self.mode`.
        """
        there = self.checkpoint
        mode = mode or (there.mode if there else self.mode)
        with self.named_failures(), moving(self._memory) as move:
            move.change(self.place)
            self._is_told = False
            yield move
            if not self._is_told:
                self._memory.answers.drop(self.place)
            fingerprint = self._catalog.fingerprint(self.model)
            move.checkpoint(self.model.name, self.as_, Checkpoint(mode, fingerprint, position))

    @contextmanager
    def named_failures(self) -> Iterator[None]:
        """Say of what fails in the block which read model it is about."""
        try:
            yield
        except ConstraintViolated as error:
            if "onflict" in str(error):
                raise ProjectionFailed(
                    f"another thread changed {self.model.name} at once, so nothing was stored: {error}. Ask again",
                    self.model.name,
                ) from error
            raise ProjectionFailed(
                f"two rows of {self.model.name} have one key ({', '.join(self.model.keys)}): {error}. Group by the "
                "key, or name as the key what tells rows apart",
                self.model.name,
            ) from error
        except QueryFailed as error:
            raise ProjectionFailed(
                f"the rows of {self.model.name} could not be made: {str(error).splitlines()[0]}", self.model.name
            ) from error

    def set_aside(self) -> None:
        """Say that the rows need a rebuild: which of them have changed could not be told."""
        found = self.checkpoint
        if found is not None:
            with moving(self._memory) as move:
                move.checkpoint(self.model.name, self.as_, Checkpoint(found.mode, "", found.position))

    def empty(self) -> None:
        """Leave no rows, and say that they need a rebuild."""
        there = "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = ?"
        names = {name for (name,) in self._run(there, [self.as_])}
        with moving(self._memory):
            for name, table in ((self.model.name, self.table), (f"_dirty_{self.model.name}", self.dirty)):
                if name in names:  # made again and not deleted from, which would leave the rows in the file
                    self._run(f"CREATE OR REPLACE TABLE {table} AS FROM {table} LIMIT 0")
            self.set_aside()

    def write_mode(self) -> None:
        """Store another mode."""
        with self.moving_to(self.position, self.mode):
            pass

    def create_view(self) -> None:
        """Make the view under its name, for people who open the file with DuckDB."""
        text = self.model.expanded(self._catalog.known, self._catalog.log.source)
        with self.moving_to(0):
            self._run(f"CREATE OR REPLACE VIEW {self.table} AS {text}")

    # -- indexes ---------------------------------------------------------------------------------------------------

    def definition(self, types: Mapping[str, str]) -> str:
        """Return the columns of stored rows as a CREATE TABLE has them.

        Texts that an index is over are kept as they are, and numbers and times so that each can be read by itself.
        DuckDB packs others in blocks or runs, and goes through a whole one for each row that it takes out of an index
        or looks up: 1,000 rows of 200,000 are found in 5 ms and not 14, and replaced by a commit of 3 ms and not 23.
        At a million it is 14 and not 25, 8 and not 32; with a column of times that mostly is empty, 330 are changed in
        12 ms and not 18. The file is a seventh larger for the texts.

        Args:
            types: column -> its type.
        """
        indexed = {column.lower() for index in (self.model.keys, *self._declared) for column in index}

        def packed(name: str, kind: str) -> str:
            if kind == "VARCHAR" and name.lower() in indexed:
                return " USING COMPRESSION uncompressed"
            return " USING COMPRESSION bitpacking" if _PACKED.fullmatch(kind) else ""

        return ", ".join(f"{quote(name)} {kind}{packed(name, kind)}" for name, kind in types.items())

    @property
    def is_collated(self) -> bool:
        """Whether a column may compare its texts by a collation, of which DuckDB does not tell where it is."""
        known = self._catalog.known.values()
        return any("collate" in model.sql.lower() for model in (self.model, *known))

    @property
    def _declared(self) -> tuple[tuple[str, ...], ...]:
        """The columns of each index beside the key."""
        found = () if isinstance(self.model, Projection) else self.model.indexes
        return tuple((one,) if isinstance(one, str) else one for one in found)

    def fit_indexes(self) -> None:
        """Make the indexes that the read model declares, and drop those that it no longer does."""
        wanted = {f"{self.model.name} by {', '.join(columns)}": columns for columns in self._declared}
        found = self._run(
            "SELECT index_name FROM duckdb_indexes() WHERE schema_name = ? AND lower(table_name) = ? "
            "AND sql IS NOT NULL AND database_name = current_database()",
            [self.as_, self.model.id],
        )
        there = {name for (name,) in found}
        if there == wanted.keys():
            return
        with moving(self._memory):
            for name in there - wanted.keys():
                self._run(f"DROP INDEX {quote(self.as_)}.{quote(name)}")
            for name in wanted.keys() - there:
                self._run(f"CREATE INDEX {quote(name)} ON {self.table} ({', '.join(map(quote, wanted[name]))})")

    # -- rows ------------------------------------------------------------------------------------------------------

    @property
    def _has_places(self) -> bool:
        """Whether rows can be found by their place; a column that is called rowid hides it."""
        return all(column.lower() != "rowid" for column in self._catalog.columns(self.model))

    @cached_property
    def _types(self) -> dict[str, str]:
        """The columns of a row as it is stored, with their types."""
        return self._catalog.types(self.model, self.table)

    def _kept(self) -> list[str]:
        """The columns of a row: the read model's, and the states that are none of these."""
        return [*self._catalog.columns(self.model), *self._catalog.plan(self.model).hidden]

    def _has_nulls(self, table: str, columns: Iterable[str]) -> bool:
        """Whether a column of a table holds NULL."""
        is_null = " OR ".join(f"{quote(column)} IS NULL" for column in columns)
        return bool(self._run(f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {is_null} LIMIT 1)")[0][0])

    def _check_nulls(self, table: str) -> None:
        """Refuse two rows of one key that holds NULL, which a UNIQUE key lets in.

        Raises:
            ProjectionFailed: with the key.
        """
        check_keys(self._catalog.log.database, self.model, table, only_nulls=True)

    def _make(self, name: str, select: str) -> int:
        """Put rows into a temporary table, and return how many: what DuckDB has counted it joins in the right order.

        One new event merged into 1 M rows takes 42 ms as one statement, and 4 ms with a table in between.
        """
        return int(self._run(f"CREATE OR REPLACE TEMP TABLE {name} AS {select}")[0][0])

    def reader(self, start: Bound, end: Bound, changed: Mapping[str, str] | None = None) -> Callable[[Use], str]:
        """Return what reads a place of this projection: events between two positions, or the rows of a layer.

        Args:
            changed: name of a layer -> the SELECT of rows of it that changed, which are read beside those of now. Two
                places may have changed together, and the row that each was joined to is then in none of them.
        """
        plan, window = self._catalog.plan(self.model), self._catalog.window
        fold = plan.fold if isinstance(plan, Merge) else None

        def read(use: Use) -> str:
            if fold is not None and use == fold.use:
                return window(start, end, self.model, fold.model, columns=use.named)(use.name)
            if fold is not None and isinstance(plan, Merge) and plan.ways and use == plan.ways.shape.uses[0]:
                return plan.base_rows(self.table)
            if use.is_events:
                return window(start, end, self.model, columns=use.named)(use.name)
            layer = self._catalog.known[use.name]
            columns = ", ".join(map(quote, use.named or self._catalog.columns(layer)))
            rows = f"SELECT {columns} FROM projection.{quote(layer.name)}"
            more = (changed or {}).get(use.name)
            return f"{rows} UNION ALL BY NAME SELECT {columns} FROM ({more})" if more else rows

        return read
