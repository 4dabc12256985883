"""The lab: one store with its write side and its read side; the only module that sees both.

Owns the wiring and nothing else: a log, an event store, a command bus, sagas, servings, a query bus.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

import pyarrow as pa

from cqrs_lab.domain import Domain
from cqrs_lab.errors import DeclarationError
from cqrs_lab.fork import Drop, Edit, Injected, change_log, copy_log
from cqrs_lab.messages import Command, Event, Query, Recorded
from cqrs_lab.read.adopting import Replayed
from cqrs_lab.read.catalog import Catalog
from cqrs_lab.read.history import history
from cqrs_lab.read.past import Past, as_of, diff
from cqrs_lab.read.projection import Model
from cqrs_lab.read.queries import QueryBus, QueryMiddleware
from cqrs_lab.read.served import Served, reach
from cqrs_lab.read.servings import Servings
from cqrs_lab.read.table import ServedAs
from cqrs_lab.read.tables import answered, listed_tables
from cqrs_lab.store.categories import Category
from cqrs_lab.store.connect import MEMORY
from cqrs_lab.store.copies import copy_to
from cqrs_lab.store.database import Database
from cqrs_lab.store.dead_letters import DeadLetters, OnError
from cqrs_lab.store.followers import Follower
from cqrs_lab.store.listing import listed
from cqrs_lab.store.log import Log
from cqrs_lab.store.moments import Moment
from cqrs_lab.store.rows import Rows
from cqrs_lab.store.subscription import Subscription
from cqrs_lab.trace import Trace, trace
from cqrs_lab.write.append_table import append_table
from cqrs_lab.write.command_bus import CommandBus
from cqrs_lab.write.decider import Decider, Service
from cqrs_lab.write.event_store import EventStore
from cqrs_lab.write.facts import record
from cqrs_lab.write.middleware import Middleware, Policy, Receipt
from cqrs_lab.write.sagas import Process, Saga
from cqrs_lab.write.sources import Source


class Lab:
    """A store of events with everything around it. A context manager; closed by `close()`.

    Args:
        path: the store's file, made when it is missing; ":memory:" keeps it in memory.
        domain: the deciders, read models and queries.
        read_only: refuse writes; the file must be there.
        threads: DuckDB's worker threads; all cores when None.
        clock: returns the time now, aware; for reproducible notebooks and tests.
        new_id: returns a fresh UUID; likewise.
        cache_seconds: how long an answer of a query is kept at most, until rows change that it depended on; None keeps
            none.

    Raises:
        StoreError: the file cannot be opened (see `cqrs_lab.errors`).
        DeclarationError: the domain does not fit together, or does not fit the store.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = MEMORY,
        *,
        domain: Domain,
        read_only: bool = False,
        threads: int | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], UUID] = uuid4,
        cache_seconds: float | None = None,
    ) -> None:
        database = Database.open(path, read_only=read_only, threads=threads)
        try:
            self.domain = domain
            owners: list[Decider | Service | Saga] = [*domain.deciders, *domain.services, *domain.sagas]
            self._categories = {owner.log_category.name: owner.log_category for owner in owners}
            if len(self._categories) != len(owners):
                raise DeclarationError("two deciders, services or sagas have the same category; it has one owner")
            self._log = Log(database, self._categories.values())
        except BaseException:
            database.release()
            raise
        # A notebook's cell that runs again drops its lab without closing it; answers of the lab keep its log.
        self._release = weakref.finalize(self._log, database.release)
        try:
            self._store = EventStore(self._log, clock=clock, new_id=new_id)
            handlers = [*domain.deciders, *domain.services]
            self._commands = CommandBus(self._store, handlers, policy=domain.policy, middleware=domain.middleware)
            self._followers: dict[str, Follower] = {}
            self._catalog = Catalog(self._log, [*domain.read_models, *domain.projections])
            self._servings = Servings(self._catalog)
            self._store.beside = self._servings.running
            self._queries = QueryBus(
                self._servings.running, domain.queries, middleware=domain.query_middleware, cache_seconds=cache_seconds
            )
        except BaseException:
            self._release()
            raise

    report: Any = None
    """What an import said of the data, where one made this lab."""

    # -- the write side --------------------------------------------------------------------------------------------

    def send(
        self,
        command: Command,
        *,
        command_id: UUID | str | None = None,
        correlation_id: UUID | str | None = None,
        occurred_at: datetime | None = None,
        expected_version: int | None = None,
        actor: str | None = None,
        wait_for: Model | str | None = None,
        timeout: float = 5,
    ) -> Receipt:
        """Carry out a command and return once its events are on disk. Safe from many threads.

        Args:
            command_id: an id that makes it safe to send the same command again; a fresh one when None.
            correlation_id: the story that it belongs to; a fresh one when None.
            occurred_at: when it happened, aware; now when None.
            expected_version: the version of the stream that the sender has seen; the command is refused when the
                stream has moved on since. None: whatever it is.
            actor: who sends it, for the domain's policy.
            wait_for: a read model; return once its freshest serving tells the command's events.
            timeout: seconds to wait for it.

        Returns:
            A receipt: position (of the last event), stream, version, events, command_id, correlation_id.

        Raises:
            RuleViolated: the domain says no.
            NotAllowed: the policy says no.
            NotYet: the events are stored, but the read model to wait for does not tell them in time.
            UnknownCommand, ConcurrencyError, IdempotencyConflict, InvalidMessage, ReadOnlyStore, StoreFull.
        """
        receipt = self._commands.send(
            command,
            command_id=command_id,
            correlation_id=correlation_id,
            occurred_at=occurred_at,
            expected_version=expected_version,
            actor=actor,
        )
        if wait_for is not None:
            reach(self._servings.running, self._catalog.find(wait_for), receipt.position, timeout)
        return receipt

    def send_many(
        self,
        commands: Iterable[Command],
        *,
        command_ids: Sequence[UUID | str] | None = None,
        correlation_id: UUID | str | None = None,
        occurred_at: datetime | None = None,
        actor: str | None = None,
    ) -> list[Receipt]:
        """Carry out commands in their order, in one durable transaction: all of them, or none.

        Each is decided on what those before it led to.

        Args:
            command_ids: an id for each command, to make them safe to send again; fresh ones when None.
            correlation_id: the story that they belong to; a fresh one for each when None.
            occurred_at: when they happened, aware; now when None.
            actor: who sends them, for the domain's policy.

        Returns:
            A receipt for each command.

        Raises:
            As `send` does; a note on the error says which command it was.
        """
        return self._commands.send_many(
            list(commands),
            command_ids=command_ids,
            correlation_id=correlation_id,
            occurred_at=occurred_at,
            actor=actor,
        )

    @property
    def middleware(self) -> list[str]:
        """What happens around every command, outermost first."""
        return _names(self._commands.middleware)

    def command_times(self) -> Rows:
        """Return how long the latest commands of this lab took.

        Returns:
            Rows with command, outcome ("done" or the name of an error) and ms.
        """
        return self._times("command", self._commands.times.noted)

    def _times(self, kind: str, noted: Iterable[tuple[str, str, float]]) -> Rows:
        schema = pa.schema([(kind, pa.string()), ("outcome", pa.string()), ("ms", pa.float64())])
        rows = [{kind: name, "outcome": outcome, "ms": seconds * 1000} for name, outcome, seconds in list(noted)]
        return Rows.of(self._log, pa.Table.from_pylist(rows, schema=schema))

    def follow(self, saga: Saga | str, *, after: int | None = None, on_error: OnError | None = None) -> Follower:
        """Set a saga to work; it reacts to new events at every `catch_up`, its own or the lab's.

        Args:
            saga: one of the domain's sagas, or its name.
            after: the position to begin behind when it works on this store for the first time: None for the head, so
                that it leaves history alone, 0 for all of the log.
            on_error: "stop" before an event that fails, or set it aside as a "dead letter" and go on. None: as it
                does, and "stop" when it is new.

        Returns:
            The follower: `.catch_up()`, `.position`.

        Raises:
            DeclarationError: the domain declares no such saga, or a read model has its name.
        """
        name = saga if isinstance(saga, str) else saga.name
        found = next((s for s in self.domain.sagas if s.name == name), None)
        if found is None:
            known = ", ".join(s.name for s in self.domain.sagas) or "none"
            raise DeclarationError(f"the domain declares no saga {name!r}; there are {known}")
        if name in (model.name for model in self._catalog.models.values()):
            raise DeclarationError(f"a saga and a read model are both called {name!r}; give one another name")
        if name not in self._followers:
            process = Process(found, self._commands)
            self._followers[name] = Follower(self._log, name, "saga", found.followed, process.handle, after, on_error)
        elif on_error is not None:
            self._followers[name].dead.tell(name, on_error)
        return self._followers[name]

    def forget(self, id: str, category: str | None = None) -> int:
        """Erase the personal data of one thing, such as a customer: from the log's side tables and all read models.

        The events stay, without what told who it was; so does every answer about the past. Copies of the store made
        before keep what they have, and unused blocks of the file may until they are used again: `backup` makes a
        copy without. A read model that cannot be made again is left without rows until a rebuild; `lag` says why.

        Args:
            id: the id of the stream, such as a customer's.
            category: its category; not needed while only one has personal fields.

        Returns:
            How many events were changed by it.

        Raises:
            DeclarationError: no category, or several, have personal fields.
        """
        personal = [c for c in self._categories.values() if c.personal and category in (None, c.name)]
        if len(personal) != 1:
            known = ", ".join(c.name for c in self._categories.values() if c.personal) or "none"
            raise DeclarationError(f"say which category with personal fields to forget {id!r} in; there are {known}")
        self._log.check_free()
        forget = partial(self._store.forget, personal[0], id)
        return self._servings.erase(personal[0].table, forget)

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Write a consistent copy of the store, while it is open and in use; another notebook can then open it.

        Raises:
            StoreError: there is something at that path already, or it cannot be written.
        """
        copy_to(self._log.database, path)

    def append_table(self, category: str, table: Source, *, zone: str | None = None) -> int:
        """Append a table of events, in its own order: all of them, or none.

        They are checked as a set by the rules of their event classes, not by those of the deciders: they are facts.

        Args:
            category: such as "order".
            table: Arrow, Polars (also lazy), pandas, a DuckDB relation, or the path of a CSV or Parquet file. Columns:
                id (of the stream), type, occurred_at, a column for each field of the events and, where known,
                recorded_at (never decreasing) and correlation_id. Times may be text in ISO 8601.
            zone: the time zone of times that have none, such as "Europe/Amsterdam"; None refuses them.

        Returns:
            The position of the last event.

        Raises:
            InvalidTable: columns or rows break rules: all columns are named, and the first bad row of each rule.
        """
        return append_table(self._store, self._category(category), table, zone)

    def record(
        self,
        stream: str,
        events: Event | Iterable[Event],
        *,
        expected_version: int | None = None,
        occurred_at: datetime | None = None,
        correlation_id: UUID | str | None = None,
        causation_id: UUID | str | None = None,
    ) -> list[Recorded]:
        """Append facts to one stream, without a command: all of them, or none. No decider is asked.

        Args:
            stream: such as "order/o-1", or the id alone.
            events: what happened; one event, or several of one category.
            expected_version: the version of the stream that the writer has seen, 0 for a new one; None: whatever it is.
            occurred_at: when it happened, aware; now when None.
            correlation_id: the story that it belongs to; none when None.
            causation_id: id of what led to it.

        Returns:
            The events as they are recorded: position, stream, version, event and more.

        Raises:
            InvalidMessage: there is no event, or one does not belong to that stream.
            ConcurrencyError: the stream is at another version.
        """
        given = [events] if isinstance(events, Event) else list(events)
        return record(self._store, stream, given, expected_version, occurred_at, correlation_id, causation_id)

    def _category(self, name: str) -> Category:
        found = self._categories.get(name)
        if found is None:
            raise DeclarationError(f"there is no category {name!r}; there are {', '.join(self._categories)}")
        return found

    # -- the log ---------------------------------------------------------------------------------------------------

    @property
    def head(self) -> int:
        """The last position in the log, 0 when it is empty."""
        return self._log.head

    def events(
        self,
        *,
        stream: str | None = None,
        category: str | None = None,
        types: Iterable[str | type[Event]] | None = None,
        after: int = 0,
        up_to: int | None = None,
        from_version: int | None = None,
        to_version: int | None = None,
        correlation_id: UUID | str | None = None,
        limit: int | None = None,
        descending: bool = False,
    ) -> Rows:
        """Return events of all categories in one shape, in order of position.

        Args:
            stream: only this stream, such as "order/o-1".
            category: only this category, such as "order".
            types: only these event types, names or classes.
            after: only positions above this one.
            up_to: only positions up to this one.
            from_version: only versions from this one on.
            to_version: only versions up to this one.
            correlation_id: only this story.
            limit: so many at most.
            descending: the last one first.

        Returns:
            Rows with position, stream, version, type, occurred_at, recorded_at, event_id, correlation_id, causation_id,
            command_id and data (the fields as JSON; bytes in base64).
        """
        return listed(
            self._log,
            stream=stream,
            category=category,
            types=types,
            after=after,
            up_to=up_to,
            from_version=from_version,
            to_version=to_version,
            correlation_id=correlation_id,
            limit=limit,
            descending=descending,
        )

    def events_table(self, category: str) -> Rows:
        """Return the events of a category as they are stored, in order: the envelope, and a column for each field.

        Raises:
            DeclarationError: there is no such category.
        """
        return Rows(self._log, f"{self._log.window(self._category(category).table)} ORDER BY position")

    def subscribe(
        self,
        after: int = 0,
        *,
        category: str | None = None,
        types: Iterable[type[Event]] | None = None,
        timeout: float | None = None,
    ) -> Subscription:
        """Return an iterator over the events behind a position that waits for those to come.

        No event is missed, and none comes twice. To go on later, keep the position of the last event and give it as
        `after`. A subscription is for one thread. Any thread can end it with `stop()`; closing the lab ends it, too.

        Args:
            after: the position to begin behind.
            category: only this category, such as "order".
            types: only these event classes.
            timeout: seconds without a new event after which the iterator ends; None waits for ever.

        Returns:
            An iterator of recorded events: position, stream, version, event, occurred_at, recorded_at and more. A
            context manager; left, it is stopped.

        Raises:
            DeclarationError: there is no such category.
        """
        declared = self._categories if category is None else {category: self._category(category)}
        every = [event for one in declared.values() for event in one.events]
        return Subscription(self._log, after, every if types is None else list(types), timeout)

    def trace(self, correlation_id: UUID | str) -> Trace:
        """Tell the story behind a correlation id: what was asked, what happened, what followed, what changed.

        What changed is told of the read models that the domain's queries answer from; of all without a query.

        Returns:
            Rows, in order, that print as a story: position, kind (command, saga, event or row), name (of the command's
            or event's type, or of the read model), about (the stream, or the key of the row), by (the saga), at (when
            it was recorded) and detail (the event's fields as JSON, or what changed in the row).
        """
        sagas = [saga.name for saga in self.domain.sagas]
        models = list(dict.fromkeys(query.model for query in self.domain.queries)) or self.domain.read_models
        return trace(self._log, self._catalog, models, sagas, correlation_id)

    # -- the read side ---------------------------------------------------------------------------------------------

    def model(self, model: Model | str) -> Model:
        """Return a read model by its name, in any case; one that is given as such is taken in first.

        Raises:
            UnknownReadModel: there is none of that name; with those that there are.
            ReadModelRefused: it does not fit this store.
        """
        return self._catalog.find(model)

    def serve(
        self,
        model: Model | str,
        as_: ServedAs = "projection",
        mode: str | None = None,
        *,
        refresh_every: int | timedelta | None = None,
        on_error: OnError | None = None,
        keep_history: bool | None = None,
        rebuild: bool = False,
        from_rows: Replayed | None = None,
    ) -> Served:
        """Serve a read model: built up to the head when it is new, attached to when the store has it.

        Args:
            model: a read model, declared in the domain or made now, or the name of one, also of one that was served in
                this store before. A projection of one that is built on others keeps these as projections, too.
            as_: "view" runs the SELECT at every read; "materialized" keeps its rows until refresh(); "projection"
                keeps its rows and moves them forward by the new events.
            mode: how a projection moves: "manual" at catch_up(), "inline" in the transaction of every append,
                "background" by a thread that wakes at every append. None: as it does, and "manual" when it is new.
            refresh_every: refreshes a materialized table by a thread, after so many events or so much time.
            on_error: what a projection does with an event that fails, after some attempts: "stop" before it, or set it
                aside as a "dead letter" and go on as if it was not in the log. None: as it does, and "stop" when it is
                new.
            keep_history: keep the past of a projection's rows, so that `as_of` a position or a time of recording looks
                it up and folds some thousand events at most; False ends that, None leaves it. One that does not merge
                keeps the past of those that it is built on. An inline projection's is moved on by catch_up().
            rebuild: make the rows again when another SELECT made those that there are: for one that is being written,
                in a cell that is run again.
            from_rows: rows of a projection that were made elsewhere, such as by `cqrs_lab.scale.replay`. A new one is
                made of them and not built; one that is there adopts them (see `Served.adopt`).

        Raises:
            ReadModelRefused: the SELECT does not fit the log.
            ProjectionFailed: its rows do not fit its key.
            NotServed: there is no such mode.
            RowsRefused: `from_rows` are not those of this read model over this log; nothing is served then that was
                not before.
        """
        return self._servings.serve(
            model, as_, mode, refresh_every, on_error, keep_history, rebuild=rebuild, from_rows=from_rows
        )

    def sql(self, question: str, params: Sequence[Any] = ()) -> Rows:
        """Return the answer to a SELECT over tables of events and read models, all of one moment.

        A read model is read from its freshest serving, and through its SELECT where it has none.

        Args:
            params: a value for each ? in it.

        Raises:
            QueryFailed: DuckDB refused it, or it is not one SELECT.
        """
        return answered(self._servings.running, question, params)

    def tables(self) -> Rows:
        """Return what `sql` can ask: the tables of events and the read models.

        Returns:
            Rows with name, holds (what it holds, in a few words), served_as (how a read model is served) and columns
            (with their types).
        """
        return listed_tables(self._servings.running)

    def catch_up(self) -> int:
        """Let every saga react to what is new, move every projection to the head, and return the head."""
        try:
            for follower in self._followers.values():
                follower.catch_up()
        finally:
            head = self._servings.catch_up()
        return head

    def lag(self) -> Rows:
        """Return how far each serving, and each saga at work, is behind the log.

        Returns:
            Rows with model, served_as, mode, position, head, events_behind, seconds_behind (age of the oldest event
            not yet applied), state ("ok, 2 dead letters" when some were set aside) and error.
        """
        return self._servings.lag(self._followers.values())

    def dead_letters(self) -> Rows:
        """Return the events that projections and sagas have set aside because they failed at them.

        Returns:
            Rows with model, position, stream, type, occurred_at, data (the event's fields as JSON), error, attempts and
            at (when it failed last).
        """
        return DeadLetters(self._log).rows()

    def retry_dead_letters(self, model: Model | str | None = None) -> int:
        """Try again what was set aside, after what was wrong is mended; what fails again stays.

        A saga, or a projection in Python, gets these events now, in order of position, though later ones went before; a
        projection from a SELECT, or one with other handlers than before, is rebuilt with them.

        Args:
            model: a read model or saga, or its name; all of them when None.

        Returns:
            How many events are no dead letters any more.

        Raises:
            UnknownReadModel: there is none of that name here.
        """
        names = DeadLetters(self._log).names if model is None else [model if isinstance(model, str) else model.name]
        done = 0
        for name in names:
            if name in self._followers:
                done += self._followers[name].retry()
            elif model is not None or name.lower() in self._catalog.models:
                done += self._servings.running.retry(self._catalog.find(name))
        return done

    def lag_history(self) -> Rows:
        """Return how late the latest appends became visible in servings that move by themselves or were moved.

        Returns:
            Rows with model, served_as, position (of an append's last event) and seconds (from its commit until the
            rows that tell it were committed).
        """
        noted = [vars(moved) for moved in self._servings.running.noted.copy()]
        kinds = [
            ("model", pa.string()),
            ("served_as", pa.string()),
            ("position", pa.int64()),
            ("seconds", pa.float64()),
        ]
        return Rows.of(self._log, pa.Table.from_pylist(noted, schema=pa.schema(kinds)))

    def ask(
        self,
        query: Query,
        *,
        served_as: ServedAs | None = None,
        at_least: int | None = None,
        timeout: float = 5,
    ) -> Any:
        """Answer a query.

        Args:
            served_as: which serving to read; the freshest there is when None.
            at_least: wait until it tells the log up to this position, such as that of a receipt: read your own writes.
            timeout: seconds to wait for that.

        Raises:
            UnknownQuery, NotServed.
            NotYet: it did not get there in time; says how far it got.
        """
        return self._queries.ask(query, served_as=served_as, at_least=at_least, timeout=timeout)

    @property
    def query_middleware(self) -> list[str]:
        """What happens around every query, outermost first."""
        return _names(self._queries.middleware)

    def query_times(self) -> Rows:
        """Return how long the latest queries of this lab took.

        Returns:
            Rows with query, outcome ("done", "cached" or the name of an error) and ms.
        """
        return self._times("query", self._queries.times.noted)

    def as_of(
        self, *, position: int | None = None, recorded: Moment | None = None, occurred: Moment | None = None
    ) -> Past:
        """Return the store as it was.

        Args:
            position: the log up to this position.
            recorded: the log up to the last position recorded at or before then: what was known then.
            occurred: the events, as known now, that had occurred by then: what was true then.
                Times are aware datetimes; a date means the end of that day in UTC. Given together, all must hold.

        Returns:
            The past: `.get(model, key)`, `.where(model, …)`, `.rows(model)` and `.sql(question)`.

        Raises:
            InvalidMoment: naive, or outside the log.
        """
        return as_of(self._catalog, position=position, recorded=recorded, occurred=occurred)

    def history(
        self, model: Model | str, *key: Any, limit: int | None = None, since: int | Moment | None = None
    ) -> Rows:
        """Return how one row became what it is: a row for each event that changed it.

        Args:
            key: the values of the key, in its order.
            limit: only so many changes, the latest.
            since: only changes from a position, or from a time of recording, on; a date means its begin in UTC.

        Returns:
            Rows with position, type, occurred_at and recorded_at of the event, the row after it (empty where the event
            made it vanish) and changed (the names of the columns that the event changed), in order of position.
        """
        return history(self._catalog, model, key, limit, since)

    def diff(
        self, model: Model | str, a: int | Moment | Past | Lab, b: int | Moment | Past | Lab, *, by: str | None = None
    ) -> Rows:
        """Return what is different in a read model between two moments, or between two worlds.

        Args:
            a: a position, a time (a date means its end in UTC), a past that `as_of` gave, also of another lab, or a
                lab, such as a fork, which stands for all that it holds.
            b: likewise.
            by: what a time is a time of: "recorded", when the store learnt of it, or "occurred", when it happened.
                None: "recorded", and refused where that hides what happened in between.

        Returns:
            Rows with change ("added", "removed" or "changed"), the key, before and after (the whole row, empty where
            there is none), of the rows that differ, ordered by key.

        Raises:
            InvalidMoment: a time that cannot be placed; or nothing was recorded between two times, and something
                happened: an import is recorded when it is made.
        """
        one, other = (m.as_of(position=m.head) if isinstance(m, Lab) else m for m in (a, b))
        return diff(model, one, other, self._catalog, by)

    def fork(
        self,
        position: int | None = None,
        *,
        recorded: Moment | None = None,
        occurred: Moment | None = None,
        drop: Drop | None = None,
        edit: Edit | None = None,
        inject: Sequence[Injected] = (),
    ) -> Lab:
        """Return another world: a lab of its own, in memory, over the log up to a moment, with or without changes.

        Without changes it has the same positions, versions and ids; with some, positions and versions are given out
        again and no command is remembered. What is sent to it stays in it, but for what the domain's services do
        outside of the store: a gateway that takes money takes it here, too.

        Args:
            position: the log up to this position; recorded, occurred: as for `as_of`. None: all of it.
            drop: events to leave out: a set of positions, streams and types, or a predicate of one as `events` gives
                it, with its data as a dict.
            edit: position -> the fields that are to be others, or a function of a recorded event that returns another
                one, None to leave it. Its times and ids stay.
            inject: (event, occurred_at), to come at the end, or (event, occurred_at, position that it comes after).

        Raises:
            InvalidMoment, InvalidMessage, DeclarationError: nothing was made.
        """
        last = self.head if position is None else position
        at = self.as_of(position=last, recorded=recorded, occurred=occurred)
        threads = self._log.database.execute("SELECT current_setting('threads')")[0][0]
        domain, clock, new_id = self.domain, self._store.clock, self._store.new_id
        fork = Lab(domain=domain, threads=threads, clock=clock, new_id=new_id)
        try:
            copy_log(self._log, fork._log, at.position)
            change_log(fork._store, occurred=at.occurred, drop=drop, edit=edit, inject=inject)
            for model in self._catalog.models.values():
                fork._catalog.find(model)
        except BaseException:
            fork.close()
            raise
        return fork

    # -- life ------------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The store's file, ":memory:" when it has none."""
        return self._log.database.path

    def close(self) -> None:
        """Close the lab; the last one over a file closes the file."""
        self._servings.running.stop()
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        categories = ", ".join(self._categories)
        return f"<Lab {self.path}: {self.head:,} events in {categories}>"


def _names(steps: Iterable[Any]) -> list[str]:
    return [getattr(step, "__name__", type(step).__name__.lower()).lstrip("_") for step in steps]


def open_shop(
    path: str | os.PathLike[str] = MEMORY,
    *,
    read_only: bool = False,
    threads: int | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    new_id: Callable[[], UUID] = uuid4,
    gateway: Any = None,
    policy: Policy | None = None,
    middleware: Sequence[Middleware] = (),
    query_middleware: Sequence[QueryMiddleware] = (),
    cache_seconds: float | None = None,
) -> Lab:
    """Open a lab over the example shop (see `cqrs_lab.shop`); other arguments as for Lab.

    Args:
        gateway: what takes payments, a `cqrs_lab.shop.PaymentGateway`; a simulated one that approves when None.
        policy: who may send which command; everybody all when None.
        middleware, query_middleware: what else happens around every command and every query.
    """
    from cqrs_lab.shop.whole import shop_domain  # here, so that a lab of another domain does not declare the shop

    domain = shop_domain(gateway=gateway, policy=policy, middleware=middleware, query_middleware=query_middleware)
    return Lab(
        path,
        domain=domain,
        read_only=read_only,
        threads=threads,
        clock=clock,
        new_id=new_id,
        cache_seconds=cache_seconds,
    )
