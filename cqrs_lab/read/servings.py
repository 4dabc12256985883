"""All servings of a lab: which read models there are, how they are served, how far they have come.

Owns the names of read models and the checkpoints in the table `servings`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

from cqrs_lab.errors import (
    CqrsLabError,
    NotServed,
    QueryFailed,
    ReadModelRefused,
    StoreError,
    UnknownEventType,
    UnknownReadModel,
)
from cqrs_lab.ivm.orders import order_reasons
from cqrs_lab.ivm.plan import AnyPlan, Recompute, plan_of
from cqrs_lab.ivm.read_model import ReadModel, written_out
from cqrs_lab.read.cache import caches_of
from cqrs_lab.read.kept import keep, remade
from cqrs_lab.read.moving import SERVINGS, STORED, WAYS, Checkpoint, ServedAs, Stored
from cqrs_lab.read.projection import Handled, Projection
from cqrs_lab.read.runner import Failure, Running, mode_of
from cqrs_lab.read.served import Served, as_stored
from cqrs_lab.sql.bound import bound_calls, bound_reasons
from cqrs_lab.sql.names import quote
from cqrs_lab.store.categories import ENVELOPE
from cqrs_lab.store.database import Database
from cqrs_lab.store.dead_letters import DeadLetters, OnError
from cqrs_lab.store.followers import Follower, Standing, lag
from cqrs_lab.store.log import Log
from cqrs_lab.store.rows import Rows

# Known in memory because one process holds the file; reading a row by key would cost twice as much with a look at the
# table before it.
_CHECKPOINTS: WeakKeyDictionary[Database, dict[tuple[str, str], Checkpoint]] = WeakKeyDictionary()
# Likewise: (layer, the projection that reads its rows).
_LAYERS: WeakKeyDictionary[Database, set[tuple[str, str]]] = WeakKeyDictionary()
# Columns of a SELECT over tables of a shape, once they were checked: ten read models bind in 60 ms.
_COLUMNS: dict[tuple[str, str], tuple[str, ...]] = {}


class _Open(threading.local):
    """What a thread's open transaction has done, which is so only once it is committed."""

    def __init__(self) -> None:
        self.pending: dict[tuple[str, str], Checkpoint] = {}
        self.changing: list[tuple[str, str]] = []


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
        self._plans: dict[ReadModel, AnyPlan] = {}
        self._fingerprints: dict[ReadModel, str] = {}
        self._open = _Open()
        self.caches = caches_of(log.database)
        self.dead = DeadLetters(log)
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
        for layer in model.over:
            if layer.name.lower() not in self.models:
                self.declare(layer)
        for source in model.sources():
            name = source.name.lower()
            if name == model.id:
                raise ReadModelRefused(f"read model {model.name!r} reads itself")
            if name in self.models and model.id in {other.lower() for other in self.below(self.models[name])}:
                raise ReadModelRefused(f"read model {model.name!r} reads {source.name!r}, which is built on it")
            if name not in map(str.lower, tables) and name not in self.models:
                known = ", ".join([*tables, *(m.name for m in self.models.values())])
                raise ReadModelRefused(
                    f"read model {model.name!r} reads {source.name!r}, which is neither a table of events nor a read "
                    f"model declared before it; there are {known}"
                )
            if isinstance(self.models.get(name), Projection):
                raise ReadModelRefused(f"read model {model.name!r} reads {name!r}, which handlers in Python make")
        if isinstance(model, Projection):
            model.check(self.log.categories.values())
        else:  # again, because now it is known what the layers are
            reasons = list(dict.fromkeys(order_reasons(model.tree, self.models)))
            if reasons:
                raise ReadModelRefused(f"read model {model.name!r} was refused: {'; '.join(reasons)}")
        with suppress(UnknownEventType):  # said when it is asked; the store must open for other questions
            self.columns(model)  # before it takes a name: what is refused must not stand in the way of what was there
        self.models[model.name.lower()] = model
        self._fingerprints.clear()  # a model built on this one is another one now
        self._plans.clear()
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
        on_error: OnError | None = None,
        keep_history: bool | None = None,
    ) -> Served:
        """Build a serving up to the head when it is new, attach to it when it is there (see `Lab.serve`)."""
        if as_ not in WAYS:
            raise NotServed(f"a read model is served as {', '.join(WAYS)}, not as {as_!r}")
        wanted = mode_of(mode, as_, refresh_every)
        found = self.find(model)
        if isinstance(found, Projection):
            found.check_served(as_, wanted)
        if keep_history and as_ != "projection":
            raise NotServed(f"the history of a projection is kept; {found.name} as {as_} has none that moves with it")
        if on_error is not None and as_ != "projection":
            raise NotServed(f"on_error is for projections; {found.name} as {as_} has no events to set aside")
        with self.log.database.lock(SERVINGS):
            if on_error is not None:
                self.dead.tell(found.name, on_error)
            there = self.checkpoint(found, as_)
            served = Served(self, found, as_, wanted or (there.mode if there else "manual"))
            if there is None:
                served.make()
            elif there.mode != served.mode:
                served.stored.write_mode()
            if keep_history is not None:
                keep(self, found, wanted=keep_history)
        if served.mode not in ("manual", "inline"):
            self.running.start()
        return served

    def served(self) -> list[Served]:
        """Return every serving in the store whose read model is declared here."""
        return [
            Served(self, self.models[name.lower()], as_, checkpoint.mode)
            for (name, as_), checkpoint in sorted(self.checkpoints.items())
            if name.lower() in self.models and as_ in WAYS
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
        with (
            self.log.database.lock(SERVINGS),
            remade(self, lambda model: self._reads(model, table)) as drop_histories,
        ):
            reading = [s for s in self.served() if s.as_ != "view" and self._reads(s.model, table)]
            # What is built on another one comes after it, so that nothing is noted for what is made anew anyhow.
            reading.sort(key=lambda s: list(self.models).index(s.model.name.lower()))
            kinds = (*STORED, "history")
            strange = [key for key in self.checkpoints if key[0].lower() not in self.models and key[1] in kinds]

            def remake() -> None:
                # What an error says may be what is to be erased; its kind is kept.
                self.log.database.execute(
                    "UPDATE dead_letters SET error = split_part(error, ':', 1) "
                    f"WHERE position IN (SELECT position FROM {quote(table)})"
                )
                drop_histories()
                for served in reading:
                    served.rebuild()

            self.caches.begin(None)
            self.caches.drop(None)  # what was erased must not live on in an answer
            try:
                yield remake, strange
            finally:
                self.drop_pending()
                self.load_checkpoints()
                self.caches.end(None)
            self.log.database.checkpoint()

    def _reads(self, model: ReadModel, table: str) -> bool:
        if isinstance(model, Projection):
            categories = (
                category for category in self.log.categories.values() if category.table.lower() == table.lower()
            )
            return not model.side_effect and any(model.handlers.keys() & set(c.types.values()) for c in categories)
        names = {source.name.lower() for source in model.sources()}
        return table.lower() in names or any(
            self._reads(self.models[name], table) for name in names if name in self.models
        )

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
        key = (model.id, as_)
        if self.pending and self.log.database.in_transaction and key in self.pending:
            return self.pending[key]
        return self.checkpoints.get(key)

    @property
    def pending(self) -> dict[tuple[str, str], Checkpoint]:
        """What this thread's open transaction says of the servings."""
        return self._open.pending

    @property
    def changing(self) -> list[tuple[str, str]]:
        """The servings whose rows this thread's open transaction changes."""
        return self._open.changing

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Change rows of several servings, and dead letters, in one transaction; part of the one that is open."""
        if self.log.database.in_transaction:
            yield
            return
        try:
            with self.log.database.transaction():
                yield
            self.commit_pending()
        except BaseException:
            self.drop_pending()
            self.load_checkpoints()
            self.dead.load()
            raise

    def commit_pending(self) -> None:
        """Take over what a transaction that was just committed said of the servings."""
        self.checkpoints.update(self.pending)
        self.drop_pending()

    def drop_pending(self) -> None:
        """Forget what a transaction said that is over."""
        self.pending.clear()
        while self.changing:
            self.caches.end(self.changing.pop())

    def load_checkpoints(self) -> None:
        """Read the checkpoints from the table."""
        with self.log.database.lock(SERVINGS):  # or a move that is committed meanwhile is missed
            rows = self.log.database.execute("SELECT model, served_as, mode, fingerprint, position FROM servings")
            found = self.log.database.execute("SELECT name FROM store WHERE starts_with(name, 'layer ')")
            pairs = [name.removeprefix("layer ").split(" of ") for (name,) in found]
            _LAYERS[self.log.database] = {(layer, dependent) for layer, dependent in pairs}
            _CHECKPOINTS[self.log.database] = {(name.lower(), as_): Checkpoint(*rest) for name, as_, *rest in rows}

    def dependents(self, model: ReadModel) -> set[str]:
        """Return the projections in the store that read the rows of one, whether they are declared here or not."""
        return {dependent for layer, dependent in _LAYERS[self.log.database] if layer == model.id}

    def write_layers(self, model: ReadModel, layers: Iterable[str]) -> None:
        """Store, in the open transaction, whose rows a projection reads."""
        known, run = _LAYERS[self.log.database], self.log.database.execute
        wanted, there = {(layer, model.id) for layer in layers}, {pair for pair in known if pair[1] == model.id}
        for layer, name in there - wanted:
            run("DELETE FROM store WHERE name = ?", [f"layer {layer} of {name}"])
        for layer, name in wanted - there:
            run("INSERT INTO store VALUES (?, '')", [f"layer {layer} of {name}"])
        _LAYERS[self.log.database] = known - there | wanted

    def mentioned(self, sql: str) -> Iterator[ReadModel]:
        """Yield the read models whose names occur in a text."""
        folded = sql.lower()
        return (model for name, model in self.models.items() if name in folded)

    def columns(self, model: ReadModel) -> tuple[str, ...]:
        """Return the read model's columns, checking on the way that its SELECT fits the log."""
        if isinstance(model, Projection):
            return tuple(model.columns)
        if model not in self._bound:
            text = model.expanded(self.models, self.log.source)
            known = (text, self.log.shape)
            if known not in _COLUMNS:
                try:
                    columns = tuple(self.log.database.columns(text))
                    self._check_calls(model, text)
                except QueryFailed as error:
                    raise ReadModelRefused(f"read model {model.name!r}: {error}") from error
                _COLUMNS[known] = columns
            self._bound[model] = _COLUMNS[known]
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
        if isinstance(model, Projection):  # its handlers may come later
            return model.fingerprint({}, self.log.meaning)
        if model not in self._fingerprints:
            self._fingerprints[model] = model.fingerprint(self.models, self.log.meaning)
        return self._fingerprints[model]

    def window(self, start: int, end: int, *models: ReadModel) -> Callable[[str], str]:
        """Return what reads, of a table of events, those after `start` up to `end`.

        Args:
            models: whose dead letters are left out.
        """
        without = "".join(self.dead.without(name) for name in dict.fromkeys(model.name for model in models))
        return lambda table: f"{self.log.window(table, after=start, to=end)}{without}"  # which ends with its WHERE

    def expanded(self, model: ReadModel, start: int, end: int) -> str:
        """Return a read model's text over a window of the log, for each of its layers without its dead letters."""
        return written_out(model, self.models, lambda layer, table: self.window(start, end, layer)(table))

    def plan(self, model: ReadModel) -> AnyPlan:
        """Return how the rows of a read model move."""
        if model not in self._plans:
            if isinstance(model, Projection):
                self._plans[model] = Recompute(model, "handlers in Python make its rows")
            else:
                self._plans[model] = plan_of(model, self._columns_of, self.models, self.plan)
        return self._plans[model]

    def layers(self, plan: AnyPlan) -> list[ReadModel]:
        """Return the read models whose stored rows a projection is made of."""
        return [self.models[name] for name in plan.layers]

    def stored(self, model: ReadModel) -> Stored:
        """Return the table of a projection, whether it is there yet or not."""
        found = self.checkpoint(model, "projection")
        return self.kept(model, "projection", found.mode if found else "manual")

    def kept(self, model: ReadModel, as_: str, mode: str) -> Stored:
        """Return the table of a serving."""
        return (Handled if isinstance(model, Projection) else Stored)(self, model, as_, mode)  # type: ignore[arg-type]

    def below(self, model: ReadModel) -> set[str]:
        """Return the names of a read model and of all that it is built on."""
        names = {model.name}
        for source in model.sources():
            layer = self.models.get(source.name.lower())
            names |= self.below(layer) if layer else set()
        return names

    def built_on(self, model: ReadModel) -> list[tuple[Stored, AnyPlan]]:
        """Return the projections that are made of this one's stored rows."""
        found = []
        for (name, as_), checkpoint in self.checkpoints.items():
            other = self.models.get(name.lower())
            if as_ != "projection" or other is None or checkpoint.fingerprint != self.fingerprint(other):
                continue
            plan = self.plan(other)
            if model.name.lower() in plan.layers:
                found.append((self.stored(other), plan))
        return found

    def _columns_of(self, name: str) -> Iterable[str]:
        category = next((c for c in self.log.categories.values() if c.table.lower() == name), None)
        return self.columns(self.models[name]) if category is None else [*ENVELOPE, *category.columns]

    def write_checkpoint(self, model: ReadModel, as_: str, mode: str, position: int) -> Checkpoint:
        """Store, in the open transaction, what a serving says of itself."""
        run, checkpoint = self.log.database.execute, Checkpoint(mode, self.fingerprint(model), position)
        moved = "UPDATE servings SET position = ? WHERE model = ? AND served_as = ? AND mode = ? AND fingerprint = ?"
        if run(moved, [position, model.name, as_, mode, checkpoint.fingerprint]) != [(1,)]:
            other = "DELETE FROM servings WHERE lower(model) = ? AND served_as = ? AND model <> ?"
            run(other, [model.id, as_, model.name])  # the same name, as another release spelled it
            new = [model.name, as_, mode, checkpoint.fingerprint, position]
            run("INSERT OR REPLACE INTO servings VALUES (?, ?, ?, ?, ?)", new)
        return checkpoint

    def lag(self, servings: Iterable[Served] | None = None, followers: Iterable[Follower] = ()) -> Rows:
        """Return how far servings are behind the log (see `Lab.lag`)."""
        told: list[Standing] = []
        for served in self.served() if servings is None else servings:
            failure = self.running.failures.get((served.model.id, served.as_))
            state, error = self._state(served, failure), failure.error if failure else None
            told.append((served.model.name, served.as_, served.mode, served.position, state, error))
        for one in followers:
            state = "stopped" if one.error else one.dead.state(one.name)
            told.append((one.name, one.kind, "manual", one.position, state, one.error))
        return lag(self.log, told)

    def _state(self, served: Served, failure: Failure | None) -> str:
        if served.state != "ok":
            return served.state
        if failure is not None:
            return "stopped" if failure.again_at is None or served.mode in ("manual", "inline") else "failing"
        letters = self.dead.state(served.model.name) if served.as_ == "projection" else "ok"
        by_thread = served.mode not in ("manual", "inline") and not self.log.database.read_only
        return "stopped: its thread does not run" if by_thread and not self.running.is_alive else letters

    def _tables(self) -> list[str]:
        return [category.table for category in self.log.categories.values()]

    def _check_calls(self, model: ReadModel, text: str) -> None:
        """Refuse calls that are no functions of the events once DuckDB has bound them, such as a sum of DOUBLE."""
        try:
            reasons = dict.fromkeys(bound_reasons(bound_calls(self.log.database.execute, text)))
        except QueryFailed as error:
            raise ReadModelRefused(
                f"read model {model.name!r} could not be judged: {error}\nWrite it without what DuckDB cannot show a "
                "plan of"
            ) from error
        if reasons:
            raise ReadModelRefused(f"read model {model.name!r} was refused: {'; '.join(reasons)}")
