"""The event store: appends events to streams.

Owns positions, versions and stream numbers, and the remembered command ids. Everything of an append is in one
transaction: all events, or none. Positions are given out inside the append's own lock, so a reader that follows the
head never passes a position that is still to come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from cachetools import LRUCache

from cqrs_lab.errors import (
    ConcurrencyError,
    ConstraintViolated,
    DeclarationError,
    QueryError,
    ReadOnlyStore,
)
from cqrs_lab.messages import Event, Recorded, utc
from cqrs_lab.sql.names import quote
from cqrs_lab.store.categories import Category, naive
from cqrs_lab.store.log import Log
from cqrs_lab.store.memory import LATEST
from cqrs_lab.store.move import moving
from cqrs_lab.write.batch import Batch, Context, Remembered, Seen, add_command, add_event
from cqrs_lab.write.insertion import Insertion


class Beside(Protocol):
    """What moves with an append: the read models that are kept up to date in its transaction."""

    def held(self) -> AbstractContextManager[object]:
        """Keep others from moving it, from before the append until it has gone on after the commit."""

    def move(self, position: int) -> None:
        """Move to a position, in the append's transaction."""

    def refused(self, error: Exception) -> bool:
        """Give up what made an append fail; return whether there is anything to give up."""

    def committed(self, *, with_rows: bool) -> None:
        """Go on after the commit; `with_rows` says whether `move` was called."""


class EventStore:
    """Appends to a log.

    Args:
        log: the log to append to.
        clock: returns the time now, aware.
        new_id: returns a fresh id.

    Attributes:
        beside: what moves with every append, None for nothing.
        loaded: stream -> what its events fold to, of streams written lately; only under the append lock, and only
            while the heads tell the same version.
    """

    def __init__(self, log: Log, *, clock: Callable[[], datetime], new_id: Callable[[], UUID]) -> None:
        self.log, self.clock, self.new_id = log, clock, new_id
        self.loaded: LRUCache[str, Any] = LRUCache(10_000)
        self.beside: Beside | None = None
        self._insertion = Insertion(log.database)
        self._database = log.database
        self._erasures = log.heads.erasures

    def append(
        self,
        category: Category,
        id: str,
        events: Sequence[Event],
        *,
        expected_version: int | None = None,
        seen: Seen | None = None,
        context: Context | None = None,
        batch: Batch | None = None,
    ) -> list[Recorded]:
        """Append events to one stream: all of them, or none.

        Args:
            expected_version: the version that the writer has seen, 0 for a new stream; None appends anyway.
            seen: the stream as the writer just read it from this log, instead of expected_version. It is not read
                again: the keys of the tables refuse a version that somebody else took in the meantime.
            batch: a larger append to be part of (see `together`); one of its own when None.

        Returns:
            The events with their envelopes.

        Raises:
            ConcurrencyError: the stream is at another version.
            ReadOnlyStore, StoreFull.
        """
        if batch is None:
            with self.together() as own:
                return self.append(
                    category, id, events, expected_version=expected_version, seen=seen, context=context, batch=own
                )
        context = context or Context()
        stream = category.stream(id)
        expected = expected_version if seen is None else seen[1]
        number, version = batch.streams.get(stream) or self.log.heads.known(stream) or seen or self.seen(category, id)
        if expected is not None and version != expected:
            raise ConcurrencyError(stream, expected, version)
        if number is None and events:
            number = batch.new_stream()
            batch.add("streams", {"stream": stream, "stream_no": number, "category": category.name, "id": id})
        recorded = [
            Recorded(
                position=batch.new_position(),
                stream=stream,
                version=version + i,
                event=event,
                event_id=self.new_id(),
                correlation_id=context.correlation_id,
                causation_id=context.causation_id,
                command_id=context.command_id,
                occurred_at=context.occurred_at or batch.recorded_at,
                recorded_at=batch.recorded_at,
            )
            for i, event in enumerate(events, start=1)
        ]
        for one in recorded:
            add_event(batch, category, number, one)
        batch.streams[stream] = (number, version + len(recorded))
        batch.before.setdefault(stream, version)
        if context.command_id is not None:
            first, story = batch.position - len(recorded) + 1, context.correlation_id
            done = Remembered(context.digest, number, story, first, batch.position, tuple(recorded))
            add_command(batch, context, done)
        return recorded

    def seen(self, category: Category, id: str, batch: Batch | None = None) -> Seen:
        """Return a stream's number and version."""
        stream = category.stream(id)
        known = (batch and batch.streams.get(stream)) or self.log.heads.known(stream)
        if known is not None:
            return known
        number = self.log.stream_no(stream)
        return number, 0 if number is None else self.log.stream_version(stream, number)

    @contextmanager
    def together(self) -> Iterator[Batch]:
        """Hold the log, collect appends, and store them at the end as one transaction: all of them, or none.

        Raises:
            ConcurrencyError: somebody took a version, a stream or a command id in the meantime: the keys decide.
        """
        with self._alone():
            batch = self._new_batch()
            try:
                yield batch
                if batch.rows:
                    self._store_rows(batch)
            except BaseException:
                for stream in batch.loaded:  # an evolve() that changes its state in place must not leave it behind
                    self.loaded.pop(stream, None)
                raise

    def _store_rows(self, batch: Batch) -> None:
        try:
            while True:
                try:
                    held = nullcontext() if self.beside is None else self.beside.held()
                    with held, self._storing(batch, with_rows=True):
                        self._insert(batch.rows)
                        self._tell(batch)
                        if self.beside is not None:
                            self.beside.move(batch.position)
                    break
                except QueryError as error:  # facts are stored, whatever a read model makes of them
                    if self.beside is None or not self.beside.refused(error):
                        raise
        except ConstraintViolated as error:
            stream, version = next(iter(batch.before.items()))
            number = self.log.stream_no(stream)
            actual = 0 if number is None else self.log.stream_version(stream, number)
            raise ConcurrencyError(stream, version, actual) from error
        self.loaded.update(batch.loaded)

    @contextmanager
    def appending(self) -> Iterator[Batch]:
        """Hold the log, and store what the block inserts as one transaction."""
        with self._alone():
            batch = self._new_batch()
            with self._storing(batch):
                yield batch

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the log. An append inside another one would take the same positions.

        Raises:
            DeclarationError: this thread holds it already, or runs a handler of a projection.
        """
        lock = self.log.append_lock()
        if self.log.is_appending:
            raise DeclarationError(
                "something was appended while a command was being decided; decide() is pure and appends nothing, nor "
                "does a service in a batch. Let a saga send what follows"
            )
        with lock:
            try:
                self.log.heads.appender = threading.get_ident()
                yield
            finally:
                self.log.heads.appender = None

    def check_writable(self) -> None:
        """Refuse what would append before it does anything else: decides, or has a service act.

        Raises:
            ReadOnlyStore: the store was opened read-only.
        """
        if self._database.read_only:
            raise ReadOnlyStore(f"{self._database.path} is open read-only; open it without read_only=True to append")

    def _new_batch(self) -> Batch:
        self.check_writable()
        heads = self.log.heads
        if self._erasures != heads.erasures:  # perhaps by another lab over this file
            self.loaded.clear()
            self._erasures = heads.erasures
        # The clock may run backwards; recorded_at may not.
        now = max(utc(self.clock()), heads.recorded_at.replace(tzinfo=UTC))
        return Batch(now, heads.position, heads.stream_no)

    @contextmanager
    def _storing(self, batch: Batch, *, with_rows: bool = False) -> Iterator[None]:
        """A transaction after which the heads are where the batch ends, and those who follow them are told."""
        heads = self.log.heads

        def publish() -> None:
            heads.position, heads.stream_no = batch.position, batch.stream_no
            heads.recorded_at = naive(batch.recorded_at)
            known = ((stream, (number, version)) for stream, (number, version) in batch.streams.items())
            heads.streams.update((stream, (n, version)) for stream, (n, version) in known if n is not None)

        with moving(self.log.memory) as move:
            move.append(publish)
            yield
            # Before others can see the events: they have to know which versions to lift.
            for category, versions in batch.versions.items():
                heads.versions.setdefault(category, set()).update(versions)
            self._tell(batch)
        if self.beside is not None:
            self.beside.committed(with_rows=with_rows)

    def _tell(self, batch: Batch) -> None:
        """Say what is new, before others can see it: of which categories, and what the events hold.

        When it is not stored after all, memory is read again.
        """
        heads = self.log.heads
        for category in batch.versions:
            heads.ends[category] = max(heads.ends.get(category, 0), batch.position)
        heads.latest.update(batch.latest)
        if len(heads.latest) > 2 * LATEST:  # seldom, for each time all are copied
            heads.latest = dict(list(heads.latest.items())[-LATEST:])

    def forget(
        self, category: Category, id: str, remake: Callable[[], None], strange: Iterable[tuple[str, str]]
    ) -> int:
        """Erase the personal fields of a stream's events and what was made of them, all in one transaction.

        Args:
            remake: makes the rows of read models anew that may hold them.
            strange: servings that may hold them and cannot be rebuilt here; they go, and are made again when served.

        Returns:
            How many events had some.
        """
        stream = category.stream(id)
        number = self.log.stream_no(stream)
        positions = f"SELECT position FROM {quote(category.table)} WHERE stream_no = ?"
        with self.appending(), moving(self.log.memory) as move:
            self.log.heads.erasures += 1
            erased = self._database.execute(
                f"DELETE FROM {quote(category.personal_table)} WHERE position IN ({positions})", [number]
            )[0][0]
            self._database.execute("DELETE FROM snapshots WHERE stream_no = ?", [number])
            # What tells that a command comes again also tells something of what it said.
            self._database.execute("UPDATE commands SET digest = '' WHERE stream_no = ?", [number])
            for model, served_as in strange:
                move.checkpoint(model, served_as, None)
                self._database.execute(f"DROP TABLE IF EXISTS {quote(served_as)}.{quote(model)}")
            remake()
        return int(erased)

    def remembered(self, command_id: str, batch: Batch | None = None) -> Remembered | None:
        """Return what is known of a command carried out before, None when it is new."""
        if batch is not None and command_id in batch.commands:
            return batch.commands[command_id]
        absent = self.log.heads.absent["commands"]
        if absent.lacks(command_id):
            return None
        found = self._remembered("= ?", command_id).get(command_id)
        if found is None and self.log.is_appending:
            absent.asked_in_vain(self._database)
        return found

    def remember(self, command_ids: Sequence[str]) -> dict[str, Remembered | None]:
        """Return what is known of many commands: id -> None when it is new."""
        there = self._remembered("IN (SELECT unnest(CAST(? AS VARCHAR[])))", list(command_ids)) if command_ids else {}
        return {id: there.get(id) for id in command_ids}

    def _remembered(self, condition: str, value: Any) -> dict[str, Remembered]:
        # Without positions: a command that led to nothing, noted by an earlier version.
        ends = "coalesce(first_position, 1), coalesce(last_position, 0)"
        columns = f"command_id, digest, stream_no, correlation_id, {ends}, NULL, type"
        found = self._database.execute(f"SELECT {columns} FROM commands WHERE command_id {condition}", [value])
        return {id: Remembered(*rest) for id, *rest in found}

    def insert(self, batch: Batch) -> None:
        """Insert the rows that a batch has so far, in the transaction that `appending` began."""
        self._insert(batch.rows)
        batch.rows.clear()

    def _insert(self, tables: Mapping[str, Sequence[dict[str, Any]]]) -> None:
        """Insert rows, and note the keys that are then there."""
        for table, rows in tables.items():
            absent = self.log.heads.absent.get(table)
            if absent is not None:
                absent.add(row[absent.column] for row in rows)
        self._insertion(tables)
