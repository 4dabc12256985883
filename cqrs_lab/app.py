"""The lab: one store with its write side and its read side; the only module that sees both.

Owns the wiring and nothing else: a log, an event store, a command bus, servings, a query bus.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

from cqrs_lab.database import MEMORY, Database
from cqrs_lab.errors import DeclarationError
from cqrs_lab.log import Log
from cqrs_lab.messages import Command, Event, Query
from cqrs_lab.read.models import ReadModel
from cqrs_lab.read.query_bus import QueryBus
from cqrs_lab.read.serving import Served, ServedAs, Servings
from cqrs_lab.read.time_travel import Moment, Past, as_of
from cqrs_lab.rows import Rows
from cqrs_lab.write.bulk import Table
from cqrs_lab.write.command_bus import CommandBus, Receipt
from cqrs_lab.write.decider import Decider
from cqrs_lab.write.event_store import EventStore


@dataclass(frozen=True)
class Domain:
    """What a lab is about.

    Args:
        deciders: the write side, one for each category of streams.
        read_models: the read side; a model that reads another one comes after it.
        queries: the questions that can be asked.
    """

    deciders: Sequence[Decider] = ()
    read_models: Sequence[ReadModel] = ()
    queries: Sequence[type[Query]] = ()


class Lab:
    """A store of events with everything around it. A context manager; closed by `close()`.

    Args:
        path: the store's file, made when it is missing; ":memory:" keeps it in memory.
        domain: the deciders, read models and queries.
        read_only: refuse writes; the file must be there.
        threads: DuckDB's worker threads; all cores when None.
        clock: returns the time now, aware; for reproducible notebooks and tests.
        new_id: returns a fresh UUID; likewise.

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
    ) -> None:
        database = Database.open(path, read_only=read_only, threads=threads)
        try:
            self.domain = domain
            self._deciders = {decider.category: decider for decider in domain.deciders}
            if len(self._deciders) != len(domain.deciders):
                raise DeclarationError("two deciders have the same category; a category has one owner")
            self._log = Log(database, [decider.log_category for decider in domain.deciders])
        except BaseException:
            database.release()
            raise
        # A notebook's cell that runs again drops its lab without closing it; answers of the lab keep its log.
        self._release = weakref.finalize(self._log, database.release)
        try:
            self._store = EventStore(self._log, clock=clock, new_id=new_id)
            self._commands = CommandBus(self._store, domain.deciders)
            self._servings = Servings(self._log, domain.read_models)
            self._queries = QueryBus(self._servings, domain.queries)
        except BaseException:
            self._release()
            raise

    # -- the write side --------------------------------------------------------------------------------------------

    def send(
        self,
        command: Command,
        *,
        command_id: UUID | str | None = None,
        correlation_id: UUID | str | None = None,
        occurred_at: datetime | None = None,
        expected_version: int | None = None,
    ) -> Receipt:
        """Carry out a command and return once its events are on disk.

        Args:
            command_id: an id that makes it safe to send the same command again; a fresh one when None.
            correlation_id: the story that it belongs to; a fresh one when None.
            occurred_at: when it happened, aware; now when None.
            expected_version: the version of the stream that the sender has seen; the command is refused when the
                stream has moved on since. None: whatever it is.

        Returns:
            A receipt: position (of the last event), stream, version, events, command_id, correlation_id.

        Raises:
            RuleViolated: the domain says no.
            UnknownCommand, ConcurrencyError, IdempotencyConflict, InvalidMessage, ReadOnlyStore, StoreFull.
        """
        return self._commands.send(
            command,
            command_id=command_id,
            correlation_id=correlation_id,
            occurred_at=occurred_at,
            expected_version=expected_version,
        )

    def append_table(self, category: str, table: Table) -> int:
        """Append a table of events, in its own order: all of them, or none.

        They are checked as a set by the rules of their event classes, not by those of the deciders: they are facts.

        Args:
            category: such as "order".
            table: Arrow, Polars, pandas or the path of a Parquet file. Columns: id (of the stream), type,
                occurred_at (with a time zone), a column for each field of the events and, where known, recorded_at
                (never decreasing) and correlation_id.

        Returns:
            The position of the last event.

        Raises:
            InvalidTable: a column or a row breaks a rule; the first bad row is named.
        """
        decider = self._deciders.get(category)
        if decider is None:
            raise DeclarationError(f"there is no category {category!r}; there are {', '.join(self._deciders)}")
        return self._store.append_table(decider.log_category, table)

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
        correlation_id: UUID | str | None = None,
    ) -> Rows:
        """Return events of all categories in one shape, in order of position.

        Args:
            stream: only this stream, such as "order/o-1".
            category: only this category, such as "order".
            types: only these event types, names or classes.
            after: only positions above this one.
            correlation_id: only this story.

        Returns:
            Rows with position, stream, version, type, occurred_at, recorded_at, event_id, correlation_id,
            causation_id and data (the fields as JSON).
        """
        return self._log.events(
            stream=stream, category=category, types=types, after=after, correlation_id=correlation_id
        )

    # -- the read side ---------------------------------------------------------------------------------------------

    def serve(self, model: ReadModel | str, as_: ServedAs = "projection", mode: str = "manual") -> Served:
        """Serve a read model: built up to the head when it is new, attached to when the store has it.

        Args:
            model: a read model, declared in the domain or made now, or the name of one.
            as_: "view" runs the SELECT at every read; "materialized" keeps its rows until refresh(); "projection"
                keeps its rows and moves them forward by the new events at catch_up().
            mode: "manual".

        Raises:
            ReadModelRefused: the SELECT does not fit the log.
            ProjectionFailed: its rows do not fit its key.
        """
        return self._servings.serve(model, as_, mode)

    def catch_up(self) -> int:
        """Move every projection to the head and return the head."""
        return self._servings.catch_up()

    def lag(self) -> Rows:
        """Return how far each serving is behind the log.

        Returns:
            Rows with model, served_as, mode, position, head, events_behind, seconds_behind (age of the oldest event
            not yet applied), state and error.
        """
        return self._servings.lag()

    def ask(self, query: Query, *, served_as: ServedAs | None = None) -> Any:
        """Answer a query.

        Args:
            served_as: which serving to read; the freshest there is when None.

        Raises:
            UnknownQuery, NotServed.
        """
        return self._queries.ask(query, served_as=served_as)

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
        return as_of(self._servings, position=position, recorded=recorded, occurred=occurred)

    # -- life ------------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The store's file, ":memory:" when it has none."""
        return self._log.database.path

    def close(self) -> None:
        """Close the lab; the last one over a file closes the file."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        categories = ", ".join(self._deciders)
        return f"<Lab {self.path}: {self.head:,} events in {categories}>"


def open_shop(
    path: str | os.PathLike[str] = MEMORY,
    *,
    read_only: bool = False,
    threads: int | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    new_id: Callable[[], UUID] = uuid4,
) -> Lab:
    """Open a lab over the example shop: orders and customers (see `cqrs_lab.shop`); arguments as for Lab."""
    from cqrs_lab import shop

    domain = Domain(
        deciders=[shop.orders, shop.customers],
        read_models=[shop.order_summary, shop.daily_orders],
        queries=[shop.OrderDetails, shop.OrdersOfCustomer],
    )
    return Lab(path, domain=domain, read_only=read_only, threads=threads, clock=clock, new_id=new_id)
