"""Servings: one read model kept as a view, as a materialized table or as a projection.

Owns the schemas `view`, `materialized` and `projection`, the checkpoints in the table `servings`, and the SQL that each
way of serving needs. Rows and checkpoint always commit together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast, get_args
from weakref import WeakKeyDictionary

import pandas as pd
import polars
import pyarrow as pa

from cqrs_lab.categories import ENVELOPE, naive
from cqrs_lab.database import Database, Row, quote
from cqrs_lab.errors import (
    NotServed,
    QueryFailed,
    ReadModelRefused,
    RebuildNeeded,
    UnknownEventType,
    UnknownReadModel,
)
from cqrs_lab.log import Log
from cqrs_lab.read.explain import Explanation, explain
from cqrs_lab.read.merge import CannotMerge, Merge, merge_of
from cqrs_lab.read.models import ReadModel, sum_probes
from cqrs_lab.read.moving import Stored
from cqrs_lab.read.touched import CannotTouch, Touched, touched_of
from cqrs_lab.rows import Rows

ServedAs = Literal["view", "materialized", "projection"]
WAYS: tuple[ServedAs, ...] = get_args(ServedAs)
Way = Merge | Touched | str
STORED = ("materialized", "projection")
MODES = ("manual",)
SERVINGS = "servings"  # the lock under which rows of servings move


@dataclass(frozen=True)
class Checkpoint:
    """What a stored serving says of itself: its mode, the SELECT that made its rows, the position they tell."""

    mode: str
    fingerprint: str
    position: int


# Known in memory because one process holds the file; reading a row by key would cost twice as much with a look at the
# table before it.
_CHECKPOINTS: WeakKeyDictionary[Database, dict[tuple[str, str], Checkpoint]] = WeakKeyDictionary()


class Served:
    """One read model, served one way: what `lab.serve` returns."""

    def __init__(self, side: Servings, model: ReadModel, as_: ServedAs, mode: str = "manual") -> None:
        self.model, self.as_, self.mode = model, as_, mode
        self._side = side
        self._database = side.log.database
        self._table = f"{quote(as_)}.{quote(model.name)}"
        self._stored = Stored(side, model, as_, mode)
        self._columns = side.columns(model)

    def __repr__(self) -> str:
        return f"<{self.model.name} as {self.as_}, at position {self.position} of {self._side.log.head}>"

    @property
    def _fingerprint(self) -> str:
        return self._side.fingerprint(self.model)

    # -- questions -------------------------------------------------------------------------------------------------

    def get(self, *key: Any) -> dict[str, Any] | None:
        """Return the row with that key as a dict, None when there is none."""
        values = self._side.keyed(self.model, key).values()
        rows = self._database.execute(self._select_by_key(), [_stored(value) for value in values])
        return _as_dict(self._columns, rows[0]) if rows else None

    def where(self, **equals: Any) -> Rows:
        """Return the rows whose columns equal the given values (None: is empty), ordered by key."""
        condition, params = self._side.conditions(self.model, equals)
        return Rows(self._side.log, f"{self._select()} WHERE {condition} ORDER BY {self._order()}", params)

    def sql(self, question: str) -> Rows:
        """Return the answer to a SELECT that names this read model.

        Other read models that it names are read from their freshest serving.

        Raises:
            QueryFailed: DuckDB refused it, or it is not one SELECT.
        """
        views = {self.model.name: self._select()}
        for model in self._side.mentioned(question):
            if model.name != self.model.name:
                views[model.name] = self._side.freshest(model)._select()
        return Rows(self._side.log, question, views=views)

    def rows(self) -> Rows:
        """Return all rows, ordered by key."""
        return Rows(self._side.log, f"{self._select()} ORDER BY {self._order()}")

    def pl(self) -> polars.DataFrame:
        """Return all rows as a Polars frame, ordered by key."""
        return self.rows().pl()

    def df(self) -> pd.DataFrame:
        """Return all rows as a pandas frame, ordered by key."""
        return self.rows().df()

    def arrow(self) -> pa.Table:
        """Return all rows as an Arrow table, ordered by key."""
        return self.rows().arrow()

    # -- moving ----------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The position up to which the rows tell the log; a view's is the head."""
        if self.as_ == "view":
            return self._side.log.head
        found = self._side.checkpoint(self.model, self.as_)
        return found.position if found else 0

    @property
    def state(self) -> str:
        """Whether the rows are usable: "ok", or "rebuild needed" when another SELECT made them."""
        found = self._side.checkpoint(self.model, self.as_)
        return "ok" if found is None or found.fingerprint == self._fingerprint else "rebuild needed"

    def catch_up(self, *, to: int | None = None) -> int:
        """Move a projection forward to the head, or to a position before it, and return where it is.

        A view is always there. A materialized table moves by `refresh`.

        Raises:
            ProjectionFailed: its rows could not be written; rows and checkpoint stay as they were.
        """
        if self.as_ == "view":
            return self._side.log.head
        if self.as_ == "materialized":
            raise NotServed(f"{self.model.name} is materialized: it is refreshed whole; call refresh()")
        with self._database.lock(SERVINGS):
            self._check_fresh_text()
            end = self._side.log.head if to is None else min(to, self._side.log.head)
            return self._stored.forward(end)

    def refresh(self) -> int:
        """Build a materialized table anew and return the position it is fresh to; the old rows serve until then."""
        if self.as_ != "materialized":
            raise NotServed(f"{self.model.name} is served as {self.as_}; refresh() is for materialized tables")
        return self.rebuild()

    def rebuild(self) -> int:
        """Fold the whole log anew and return the position reached; the old rows serve until then.

        Raises:
            ProjectionFailed: the new rows could not be written; the old ones keep serving.
        """
        head = self._side.log.head
        with self._database.lock(SERVINGS):
            if self.as_ == "view":
                self._stored.create_view()
            else:
                self._stored.build(head)
        return head

    def lag(self) -> Rows:
        """Return one row as `lab.lag()` has it: how far this serving is behind the log."""
        return self._side.lag([self])

    def explain(self) -> Explanation:
        """Return how this serving works and the SQL it runs."""
        way = self._side.way(self.model)
        source = self._side.log.source

        def expanded(model: ReadModel, condition: str) -> str:
            def read(table: str) -> str | None:
                if not condition:
                    return source(table)
                return f"SELECT * FROM {f'({text})' if (text := source(table)) else quote(table)} WHERE {condition}"

            return model.expanded(self._side.models, read)

        return explain(self.model, self.as_, way, expanded, self._table, self._select_by_key())

    # -- making ----------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Build the serving when it is not there yet."""
        if self._side.checkpoint(self.model, self.as_) is None:
            if self.as_ == "view" and self._database.read_only:
                return  # a view needs nothing stored: its text is asked instead
            self.rebuild()

    def _check_fresh_text(self) -> None:
        if self.state != "ok":
            raise RebuildNeeded(
                f"{self.model.name} as {self.as_} was built from another SELECT than the one declared now; "
                "its rows were kept. Call rebuild() on it"
            )

    # -- text ------------------------------------------------------------------------------------------------------

    def _select(self) -> str:
        self._check_fresh_text()
        columns = ", ".join(map(quote, self._columns))
        source = self._table
        if self.as_ == "view":
            # What DuckDB keeps of it is for other programs: here its text is asked as it reads now, because a version
            # of an event may have come since that has to be lifted.
            source = f"({self.model.expanded(self._side.models, self._side.log.source)}\n)"
        return f"SELECT {columns} FROM {source}"

    def _select_by_key(self) -> str:
        return f"{self._select()} WHERE {' AND '.join(f'{quote(key)} = ?' for key in self.model.keys)}"

    def _order(self) -> str:
        return ", ".join(map(quote, self.model.keys))


class Servings:
    """All read models of one lab and the ways they are served.

    Args:
        log: the log they read.
        models: the read models that the domain declares.
    """

    def __init__(self, log: Log, models: Iterable[ReadModel]) -> None:
        self.log = log
        self.models: dict[str, ReadModel] = {}
        self._bound: dict[ReadModel, tuple[str, ...]] = {}
        self._ways: dict[ReadModel, Way] = {}
        self._fingerprints: dict[ReadModel, str] = {}
        if log.database not in _CHECKPOINTS:
            self.load_checkpoints()
        for model in models:
            if model.name.lower() in self.models:
                raise ReadModelRefused(f"two read models are called {model.name!r}; names differ in more than case")
            self.declare(model)

    def declare(self, model: ReadModel) -> ReadModel:
        """Take a read model in, replacing one of the same name.

        Raises:
            ReadModelRefused: it reads what is not there, or sums inexact numbers.
        """
        tables = self._tables()
        for source in model.sources():
            name = source.name.lower()
            if name == model.name.lower():
                raise ReadModelRefused(f"read model {model.name!r} reads itself")
            if name not in tables and name not in self.models:
                known = ", ".join([*tables, *(m.name for m in self.models.values())])
                raise ReadModelRefused(
                    f"read model {model.name!r} reads {source.name!r}, which is neither a table of events nor a read "
                    f"model declared before it; there are {known}"
                )
        with suppress(UnknownEventType):  # said when it is asked; the store must open for other questions
            self.columns(model)  # before it takes a name: what is refused must not stand in the way of what was there
        self.models[model.name.lower()] = model
        self._fingerprints.clear()  # a model built on this one is another one now
        self._ways.clear()
        return model

    def find(self, model: ReadModel | str) -> ReadModel:
        """Return the read model of that name."""
        if isinstance(model, ReadModel):
            return model if self.models.get(model.name.lower()) == model else self.declare(model)
        found = self.models.get(model.lower())
        if found is None:
            known = ", ".join(m.name for m in self.models.values()) or "none"
            raise UnknownReadModel(f"no read model is called {model!r}; there are {known}")
        return found

    def serve(self, model: ReadModel | str, as_: ServedAs, mode: str = "manual") -> Served:
        """Build a serving up to the head when it is new, attach to it when it is there."""
        if as_ not in WAYS:
            raise NotServed(f"a read model is served as {', '.join(WAYS)}, not as {as_!r}")
        if mode not in MODES:
            raise NotServed(f"a serving moves in the mode {', '.join(MODES)}, not {mode!r}")
        served = Served(self, self.find(model), as_, mode)
        served.make()
        return served

    def served(self) -> list[Served]:
        """Return every serving in the store whose read model is declared here."""
        return [
            Served(self, self.models[name.lower()], cast(ServedAs, as_), checkpoint.mode)
            for (name, as_), checkpoint in sorted(self.checkpoints.items())
            if name.lower() in self.models
        ]

    def freshest(self, model: ReadModel) -> Served:
        """Return the serving that tells most of the log; among equals the one that is cheapest to read.

        A read model that is not served at all is read through its SELECT, as a view would.
        """
        cheapest = {"projection": 2, "materialized": 1, "view": 0}
        ways = [way for way in WAYS if self.checkpoint(model, way) is not None]
        there = [served for way in ways if (served := Served(self, model, way)).state == "ok"]
        if not there:
            return Served(self, model, "view")
        return max(there, key=lambda served: (served.position, cheapest[served.as_]))

    @contextmanager
    def remaking(self, table: str) -> Iterator[tuple[Callable[[], None], list[tuple[str, str]]]]:
        """Hold all servings while something changes in the past of a table of events.

        Yields:
            What makes all rows anew that read it, to be called in the transaction of the change, and the servings
            (model, served_as) of which nobody here knows what they read.
        """
        with self.log.database.lock(SERVINGS):
            reading = [s for s in self.served() if s.as_ != "view" and self._reads(s.model, table)]
            # What is built on another one comes after it, so that nothing is noted for what is made anew anyhow.
            reading.sort(key=lambda s: list(self.models).index(s.model.name.lower()))
            strange = [key for key in self.checkpoints if key[0].lower() not in self.models and key[1] in STORED]

            def remake() -> None:
                for served in reading:
                    served.rebuild()

            try:
                yield remake, strange
            finally:
                self.load_checkpoints()
            self.log.database.checkpoint()

    def _reads(self, model: ReadModel, table: str) -> bool:
        names = {source.name.lower() for source in model.sources()}
        return table in names or any(self._reads(self.models[name], table) for name in names if name in self.models)

    def catch_up(self) -> int:
        """Move every projection to the head and return the head."""
        for served in self.served():
            if served.as_ == "projection":
                served.catch_up()
        return self.log.head

    @property
    def checkpoints(self) -> dict[tuple[str, str], Checkpoint]:
        """The stored servings, by name of the read model and way of serving."""
        return _CHECKPOINTS[self.log.database]

    def checkpoint(self, model: ReadModel, as_: str) -> Checkpoint | None:
        """Return what a stored serving says of itself, None when there is none."""
        self.log.database.check_open()
        return self.checkpoints.get((model.name, as_))

    def load_checkpoints(self) -> None:
        """Read the checkpoints from the table."""
        rows = self.log.database.execute("SELECT model, served_as, mode, fingerprint, position FROM servings")
        _CHECKPOINTS[self.log.database] = {(name, as_): Checkpoint(*rest) for name, as_, *rest in rows}

    def mentioned(self, sql: str) -> Iterator[ReadModel]:
        """Yield the read models whose names occur in a text."""
        folded = sql.lower()
        return (model for name, model in self.models.items() if name in folded)

    def columns(self, model: ReadModel) -> tuple[str, ...]:
        """Return the read model's columns, checking on the way that its SELECT fits the log."""
        if model not in self._bound:
            text = model.expanded(self.models, self.log.source)
            try:
                described = self.log.database.execute(f"DESCRIBE {text}")
                self._check_sums(model)
            except QueryFailed as error:
                raise ReadModelRefused(f"read model {model.name!r}: {error}") from error
            self._bound[model] = tuple(row[0] for row in described)
        return self._bound[model]

    def keyed(self, model: ReadModel, key: tuple[Any, ...]) -> dict[str, Any]:
        """Return the key's columns with their values, refusing too few or too many."""
        if len(key) != len(model.keys):
            raise QueryFailed(f"{model.name} has the key {', '.join(model.keys)}; {len(key)} values were given")
        return dict(zip(model.keys, key, strict=True))

    def conditions(self, model: ReadModel, equals: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """Return the SQL condition, and its values, that columns equal values (None: is empty)."""
        columns = {name.lower() for name in self.columns(model)}
        parts, params = [], []
        for name, value in equals.items():
            if name.lower() not in columns:
                raise QueryFailed(f"{model.name} has no column {name!r}; it has {', '.join(self.columns(model))}")
            if value is None:
                parts.append(f"{quote(name)} IS NULL")
            else:
                parts.append(f"{quote(name)} = ?")
                params.append(_stored(value))
        return " AND ".join(parts) or "true", params

    def fingerprint(self, model: ReadModel) -> str:
        """Return what tells the read model's SELECT, with its layers and the upcasts below them, from another one."""
        if model not in self._fingerprints:
            self._fingerprints[model] = model.fingerprint(self.models, self.log.meaning)
        return self._fingerprints[model]

    def window(self, start: int, end: int) -> Callable[[str], str]:
        """Return what reads, of a table of events, those after `start` up to `end`."""
        return lambda table: self.log.window(table, after=start, to=end)

    def way(self, model: ReadModel) -> Way:
        """Return how the read model moves forward; a text is the reason why all of it is made anew."""
        if model not in self._ways:
            self._ways[model] = self._find_way(model)
        return self._ways[model]

    def _find_way(self, model: ReadModel) -> Way:
        try:
            return merge_of(model, self._tables())
        except CannotMerge as reason:
            try:
                return touched_of(model, self._columns_of, str(reason))
            except CannotTouch as other:
                return f"{reason}; and {other}"

    def layers(self, way: Way) -> list[ReadModel]:
        """Return the read models whose stored rows a projection is made of."""
        names = dict.fromkeys(use.name for use in way.uses) if isinstance(way, Touched) else {}
        return [self.models[name] for name in names if name in self.models]

    def stored(self, model: ReadModel) -> Stored:
        """Return the table of a projection, whether it is there yet or not."""
        found = self.checkpoint(model, "projection")
        return Stored(self, model, "projection", found.mode if found else "manual")

    def built_on(self, model: ReadModel) -> list[tuple[Stored, Touched]]:
        """Return the projections that are made of this one's stored rows."""
        found = []
        for (name, as_), checkpoint in self.checkpoints.items():
            other = self.models.get(name.lower())
            if as_ != "projection" or other is None or checkpoint.fingerprint != self.fingerprint(other):
                continue
            way = self.way(other)
            if model in self.layers(way):
                assert isinstance(way, Touched)
                found.append((self.stored(other), way))
        return found

    def reader(self, position: int) -> Callable[[str], str]:
        """Return what reads a source of a projection: the events up to a position, or the rows of a layer."""

        def read(name: str) -> str:
            if self.is_events(name):
                return self.log.window(name, to=position)
            layer = self.models[name]
            columns = ", ".join(map(quote, self.columns(layer)))
            return f"SELECT {columns} FROM projection.{quote(layer.name)}"

        return read

    def is_events(self, name: str) -> bool:
        """Return whether a source is a table of events."""
        return name in self._tables()

    def _columns_of(self, name: str) -> Iterable[str]:
        if name not in self._tables():
            return self.columns(self.models[name])
        category = next(c for c in self.log.categories.values() if c.table == name)
        return [*ENVELOPE, *category.columns]

    def write_checkpoint(self, model: ReadModel, as_: str, mode: str, position: int) -> Checkpoint:
        """Store, in the open transaction, what a serving says of itself."""
        checkpoint = Checkpoint(mode, self.fingerprint(model), position)
        self.log.database.execute(
            "INSERT OR REPLACE INTO servings VALUES (?, ?, ?, ?, ?)",
            [model.name, as_, mode, checkpoint.fingerprint, position],
        )
        return checkpoint

    def lag(self, servings: Iterable[Served] | None = None) -> Rows:
        """Return how far servings are behind the log (see `Lab.lag`)."""
        head = self.log.head
        now = datetime.now(UTC)
        rows = []
        for served in self.served() if servings is None else servings:
            position = served.position
            oldest = self.log.recorded_after(position) if position < head else None
            rows.append(
                {
                    "model": served.model.name,
                    "served_as": served.as_,
                    "mode": served.mode,
                    "position": position,
                    "head": head,
                    "events_behind": head - position,
                    "seconds_behind": max((now - oldest).total_seconds(), 0.0) if oldest else 0.0,
                    "state": served.state,
                    "error": None,
                }
            )
        return Rows.of(self.log, pa.Table.from_pylist(rows, schema=_LAG))

    def _tables(self) -> list[str]:
        return [category.table for category in self.log.categories.values()]

    def _check_sums(self, model: ReadModel) -> None:
        """Refuse sums of DOUBLE: they differ from run to run with the order in which threads add."""
        for probe in sum_probes(model):
            text = probe.expanded(self.models, self.log.source)
            try:
                (name, kind, *_), *_ = self.log.database.execute(f"DESCRIBE {text}")
            except QueryFailed as error:
                raise ReadModelRefused(
                    f"read model {model.name!r} has a sum whose numbers could not be checked for exactness, such as "
                    f"one in a correlated subquery; write it as a join. {error}"
                ) from error
            if kind in ("DOUBLE", "FLOAT"):
                raise ReadModelRefused(
                    f"read model {model.name!r} adds up {kind} values in {name}, which gives another result with "
                    "every run; cast them to DECIMAL"
                )


_LAG = pa.schema(
    [  # type: ignore[arg-type, unused-ignore]
        ("model", pa.string()),
        ("served_as", pa.string()),
        ("mode", pa.string()),
        ("position", pa.int64()),
        ("head", pa.int64()),
        ("events_behind", pa.int64()),
        ("seconds_behind", pa.float64()),
        ("state", pa.string()),
        ("error", pa.string()),
    ]
)


def _stored(value: Any) -> Any:
    """A value as the store keeps it: times in UTC, without their zone."""
    return naive(value) if isinstance(value, datetime) else value


def _as_dict(columns: Iterable[str], row: Row) -> dict[str, Any]:
    return {
        name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
        for name, value in zip(columns, row, strict=True)
    }
