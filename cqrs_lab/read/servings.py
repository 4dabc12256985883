"""All servings of a lab: which read models there are, how they are served, how far they have come.

Owns the names of read models and the checkpoints in the table `servings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from weakref import WeakKeyDictionary

import pyarrow as pa

from cqrs_lab.categories import ENVELOPE
from cqrs_lab.database import Database, quote
from cqrs_lab.errors import (
    CqrsLabError,
    NotServed,
    QueryFailed,
    ReadModelRefused,
    StoreError,
    UnknownEventType,
    UnknownReadModel,
)
from cqrs_lab.log import Log
from cqrs_lab.read.merge import CannotMerge, merge_of
from cqrs_lab.read.models import ReadModel, sum_probes
from cqrs_lab.read.moving import SERVINGS, STORED, WAYS, Checkpoint, ServedAs, Stored, Way
from cqrs_lab.read.running import Failure, Running, mode_of
from cqrs_lab.read.serving import Served, as_stored
from cqrs_lab.read.touched import CannotTouch, Touched, touched_of
from cqrs_lab.rows import Rows

# Known in memory because one process holds the file; reading a row by key would cost twice as much with a look at the
# table before it.
_CHECKPOINTS: WeakKeyDictionary[Database, dict[tuple[str, str], Checkpoint]] = WeakKeyDictionary()


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
        self.pending: dict[tuple[str, str], Checkpoint] = {}  # of this thread's open transaction
        self.running = Running(self)
        if log.database not in _CHECKPOINTS:
            self.load_checkpoints()
        for model in models:
            if model.name.lower() in self.models:
                raise ReadModelRefused(f"two read models are called {model.name!r}; names differ in more than case")
            self.declare(model)
        if not log.database.read_only and any(
            c.mode.split(" ")[0] in ("background", "every") for c in self.checkpoints.values()
        ):
            self.running.start()

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

    def serve(
        self,
        model: ReadModel | str,
        as_: ServedAs,
        mode: str | None = None,
        refresh_every: int | timedelta | None = None,
    ) -> Served:
        """Build a serving up to the head when it is new, attach to it when it is there (see `Lab.serve`)."""
        if as_ not in WAYS:
            raise NotServed(f"a read model is served as {', '.join(WAYS)}, not as {as_!r}")
        wanted = mode_of(mode, as_, refresh_every)
        found = self.find(model)
        with self.log.database.lock(SERVINGS):
            there = self.checkpoint(found, as_)
            served = Served(self, found, as_, wanted or (there.mode if there else "manual"))
            if there is None:
                served.make()
            elif there.mode != served.mode:
                served.stored.write_mode()
        if served.mode not in ("manual", "inline"):
            self.running.start()
        return served

    def served(self) -> list[Served]:
        """Return every serving in the store whose read model is declared here."""
        return [
            Served(self, self.models[name.lower()], cast(ServedAs, as_), checkpoint.mode)
            for (name, as_), checkpoint in sorted(self.checkpoints.items())
            if name.lower() in self.models
        ]

    def chosen(self, model: ReadModel, served_as: ServedAs | None) -> Served:
        """Return the serving that is asked for, the freshest when None.

        Raises:
            NotServed: the read model is not served that way.
        """
        if served_as is None:
            return self.freshest(model)
        if served_as not in WAYS:
            raise NotServed(f"a read model is served as {', '.join(WAYS)}, not as {served_as!r}")
        found = self.checkpoint(model, served_as)
        if found is None:
            raise NotServed(
                f"{model.name} is not served as {served_as} here; call lab.serve({model.name}, as_={served_as!r}) first"
            )
        return Served(self, model, served_as, found.mode)

    def freshest(self, model: ReadModel) -> Served:
        """Return the serving that tells most of the log; among equals the one that is cheapest to read.

        A read model that is not served at all is read through its SELECT, as a view would.
        """
        cheapest = {"projection": 2, "materialized": 1, "view": 0}
        ways = [(way, found.mode) for way in WAYS if (found := self.checkpoint(model, way)) is not None]
        there = [served for way, mode in ways if (served := Served(self, model, way, mode)).state == "ok"]
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
                self.pending.clear()
                self.load_checkpoints()
            self.log.database.checkpoint()

    def _reads(self, model: ReadModel, table: str) -> bool:
        names = {source.name.lower() for source in model.sources()}
        return table in names or any(self._reads(self.models[name], table) for name in names if name in self.models)

    def catch_up(self) -> int:
        """Move every projection to the head and return the head; one that fails does not keep the others from moving.

        Raises:
            CqrsLabError: the first that failed, after all have been tried.
        """
        errors: list[CqrsLabError] = []
        for served in self.served():
            if served.as_ == "projection":
                try:
                    served.catch_up()
                except StoreError:
                    raise
                except CqrsLabError as error:
                    errors.append(error)
        if errors:
            raise errors[0]
        return self.log.head

    @property
    def checkpoints(self) -> dict[tuple[str, str], Checkpoint]:
        """The stored servings, by name of the read model and way of serving."""
        return _CHECKPOINTS[self.log.database]

    def checkpoint(self, model: ReadModel, as_: str) -> Checkpoint | None:
        """Return what a stored serving says of itself, None when there is none."""
        self.log.database.check_open()
        key = (model.name, as_)
        if self.pending and self.log.database.in_transaction and key in self.pending:
            return self.pending[key]
        return self.checkpoints.get(key)

    def commit_pending(self) -> None:
        """Take over what a transaction that was just committed said of the servings."""
        self.checkpoints.update(self.pending)
        self.pending.clear()

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
                params.append(as_stored(value))
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

    def below(self, model: ReadModel) -> set[str]:
        """Return the names of a read model and of all that it is built on."""
        names = {model.name}
        for source in model.sources():
            layer = self.models.get(source.name.lower())
            names |= self.below(layer) if layer else set()
        return names

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
            failure = self.running.failures.get((served.model.name, served.as_))
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
                    "state": self._state(served, failure),
                    "error": failure.error if failure else None,
                }
            )
        return Rows.of(self.log, pa.Table.from_pylist(rows, schema=_LAG))

    def _state(self, served: Served, failure: Failure | None) -> str:
        if served.state != "ok":
            return served.state
        if failure is not None:
            return "stopped" if failure.again_at is None or served.mode in ("manual", "inline") else "failing"
        by_thread = served.mode not in ("manual", "inline") and not self.log.database.read_only
        return "stopped: its thread does not run" if by_thread and not self.running.is_alive else "ok"

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
