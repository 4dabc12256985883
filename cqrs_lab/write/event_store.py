"""The event store: appends events to streams.

Owns positions, versions and stream numbers, and the remembered command ids. Everything of an append is in one
transaction: all events, or none. Positions are given out inside the append's own lock, so a reader that follows the
head never passes a position that is still to come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from cqrs_lab.categories import ENVELOPE, Category, naive
from cqrs_lab.database import quote
from cqrs_lab.errors import ConcurrencyError, ConstraintViolated, InvalidTable, ReadOnlyStore
from cqrs_lab.log import APPEND, Log
from cqrs_lab.messages import Event, Recorded, utc
from cqrs_lab.write import bulk


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where appended events come from.

    Attributes:
        occurred_at: when they happened, aware; the clock's time when None.
        correlation_id: the story they belong to.
        causation_id: what led to them.
        command_id: the command that led to them, remembered so that it is not carried out twice.
        digest: what the command said, to tell a repetition from another command under the same id.
    """

    occurred_at: datetime | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    command_id: str | None = None
    digest: str = ""


Seen = tuple[int | None, int]
"""A stream's number (None: there is no such stream) and version."""


@dataclass
class Batch:
    """One append in the making: the numbers given out so far.

    Attributes:
        recorded_at: when the store learns of the events, aware.
        position: the last position given out.
        stream_no: the last stream number given out.
    """

    recorded_at: datetime
    position: int
    stream_no: int

    def new_position(self) -> int:
        """Return the next position."""
        self.position += 1
        return self.position

    def new_stream(self) -> int:
        """Return the next stream number."""
        self.stream_no += 1
        return self.stream_no


class EventStore:
    """Appends to a log.

    Args:
        log: the log to append to.
        clock: returns the time now, aware.
        new_id: returns a fresh id.
    """

    def __init__(self, log: Log, *, clock: Callable[[], datetime], new_id: Callable[[], UUID]) -> None:
        self.log, self.clock, self.new_id = log, clock, new_id
        self._database = log.database

    def append(
        self,
        category: Category,
        id: str,
        events: Sequence[Event],
        *,
        expected_version: int | None = None,
        seen: Seen | None = None,
        context: Context | None = None,
    ) -> list[Recorded]:
        """Append events to one stream: all of them, or none.

        Args:
            expected_version: the version that the writer has seen, 0 for a new stream; None appends anyway.
            seen: the stream as the writer just read it from this log, instead of expected_version. It is not read
                again: the keys of the tables refuse a version that somebody else took in the meantime.

        Returns:
            The events with their envelopes.

        Raises:
            ConcurrencyError: the stream is at another version.
            ReadOnlyStore, StoreFull.
        """
        context = context or Context()
        stream = category.stream(id)
        heads = self.log.heads
        with self._database.lock(APPEND):
            number, version = heads.streams.get(stream) or seen or self._stream(category, id)
            expected = expected_version if seen is None else seen[1]
            if expected is not None and version != expected:
                raise ConcurrencyError(stream, expected, version)
            # Remembered again once it is stored: an interrupt in between must not leave an old version behind.
            heads.streams.pop(stream, None)
            try:
                with self.appending() as batch:
                    if number is None and events:
                        number = batch.new_stream()
                        self._database.execute(
                            "INSERT INTO streams VALUES (?, ?, ?, ?)", [stream, number, category.name, id]
                        )
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
                    if recorded:
                        self._insert(category, number, recorded)
                    if context.command_id is not None:
                        self._remember(context, recorded)
            except ConstraintViolated as error:
                # Somebody took the version, the stream or the command id in the meantime: the keys decide.
                raise ConcurrencyError(stream, expected, self._stream(category, id)[1]) from error
            if number is not None:
                heads.streams[stream] = (number, version + len(recorded))
        return recorded

    @contextmanager
    def appending(self) -> Iterator[Batch]:
        """Hold the log for one append: the lock, a transaction, and the heads moved on after the commit."""
        if self._database.read_only:
            raise ReadOnlyStore(f"{self._database.path} is open read-only; open it without read_only=True to append")
        heads = self.log.heads
        with self._database.lock(APPEND):
            # The clock may run backwards; recorded_at may not.
            now = max(utc(self.clock()), heads.recorded_at.replace(tzinfo=UTC))
            batch = Batch(now, heads.position, heads.stream_no)
            try:
                with self._database.transaction():
                    yield batch
                heads.position, heads.stream_no = batch.position, batch.stream_no
                heads.recorded_at = naive(batch.recorded_at)
            except BaseException:
                self.log.reload()  # an interrupt may have come just after the commit
                raise

    def remembered(self, command_id: str) -> tuple[str, int | None, int | None] | None:
        """Return (digest, first position, last position) of a command carried out before, None when new."""
        found = self._database.execute(
            "SELECT digest, first_position, last_position FROM commands WHERE command_id = ?", [command_id]
        )
        return found[0] if found else None

    def _remember(self, context: Context, recorded: Sequence[Recorded]) -> None:
        first, last = (recorded[0].position, recorded[-1].position) if recorded else (None, None)
        self._database.execute(
            "INSERT INTO commands VALUES (?, ?, ?, ?)", [context.command_id, context.digest, first, last]
        )

    def _stream(self, category: Category, id: str) -> Seen:
        number = self.log.stream_no(category.stream(id))
        return number, 0 if number is None else self.log.stream_version(category, number)

    def _insert(self, category: Category, number: int | None, recorded: Sequence[Recorded]) -> None:
        rows: list[dict[str, Any]] = [
            {
                "position": r.position,
                "stream_no": number,
                "version": r.version,
                "type": r.type,
                "schema_version": r.event.schema_version,
                "event_id": r.event_id,
                "correlation_id": r.correlation_id,
                "causation_id": r.causation_id,
                "command_id": r.command_id,
                "occurred_at": naive(r.occurred_at),
                "recorded_at": naive(r.recorded_at),
                **category.encode(r.event),
            }
            for r in recorded
        ]
        # Only the columns in use: the fields of other event types stay NULL without being planned or bound.
        columns = [c for c in (*ENVELOPE, *category.columns) if any(row.get(c) is not None for row in rows)]
        marks = f"({', '.join('?' * len(columns))})"
        self._database.execute(
            f"INSERT INTO {quote(category.table)} ({', '.join(map(quote, columns))}) "
            f"VALUES {', '.join([marks] * len(rows))}",
            [row.get(column) for row in rows for column in columns],
        )

    def append_table(self, category: Category, table: bulk.Table) -> int:
        """Append a table of events, in its own order: all of them, or none.

        Args:
            table: Arrow, Polars, pandas or the path of a Parquet file. Columns: id (of the stream), type,
                occurred_at (with a time zone), a column for each field, and, where known, recorded_at (never
                decreasing) and correlation_id. Fields that an event type does not have are NULL in its rows.

        Returns:
            The position of the last event.

        Raises:
            InvalidTable: a column or a row breaks a rule; the first bad row is named.
        """
        arrow = bulk.to_arrow(table)
        plan = bulk.plan(category, arrow.schema)
        with self._database.lock(APPEND), self._database.registered(arrow, "_table") as source:
            bulk.check(self._database, source, category, arrow, plan)
            if not arrow.num_rows:
                return self.log.head
            with self.appending() as batch:
                if "recorded_at" in plan.columns:
                    batch.recorded_at = self._check_recorded(arrow)
                first = batch.position
                numbered = self._number(category, arrow, batch)
                with self._database.registered(numbered, "_numbered") as events:
                    self._insert_table(category, events, plan, batch, first)
                batch.position += arrow.num_rows
            self.log.heads.streams.clear()  # the table moved streams that were remembered
        return self.log.head

    def _check_recorded(self, arrow: pa.Table) -> datetime:
        """Return the last recorded_at of a table, refusing one that ever goes back."""
        times = arrow["recorded_at"].combine_chunks().cast(pa.timestamp("us", "UTC"))
        micros = np.concatenate(([_micros(self.log.heads.recorded_at)], times.cast(pa.int64()).to_numpy()))
        back = np.flatnonzero(micros[1:] < micros[:-1])
        if back.size:
            row = int(back[0]) + 1
            before = "the row before it" if row > 1 else f"the last event of the log, {self.log.heads.recorded_at}"
            raise InvalidTable(
                f"row {row}: recorded_at {times[row - 1].as_py()} is earlier than that of {before}; what the store "
                "learnt has one order. Sort the table by recorded_at; nothing of it was stored",
                row=row,
                column="recorded_at",
            )
        last: datetime = times[-1].as_py()
        return last

    def _number(self, category: Category, arrow: pa.Table, batch: Batch) -> pa.Table:
        """Give every row its stream's number and its version, and store the streams that are new.

        Dense codes and one stable sort instead of a window function and a join: 0.55 s instead of 0.92 s for
        3.35 M rows.
        """
        ids = arrow["id"].combine_chunks()
        if pa.types.is_dictionary(ids.type):
            ids = ids.cast(ids.type.value_type)
        encoded = ids.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        distinct = pa.table({"id": encoded.dictionary, "code": np.arange(len(encoded.dictionary))})
        with self._database.registered(distinct, "_distinct") as source:
            numbers, versions = self._known_streams(category, source, len(distinct))
            new = np.flatnonzero(numbers == 0)
            numbers[new] = batch.stream_no + 1 + np.arange(new.size)
            batch.stream_no += int(new.size)
            fresh = distinct.take(new).append_column("stream_no", pa.array(numbers[new]))
            with self._database.registered(fresh, "_fresh") as streams:
                # In the key's order: 1.2 s instead of 1.9 s for 1 M streams.
                self._database.execute(
                    f"INSERT INTO streams SELECT ? || id, stream_no, ?, id FROM {streams} ORDER BY id",
                    [category.stream(""), category.name],
                )
        counts = np.bincount(codes, minlength=len(numbers))
        order = np.argsort(codes, kind="stable")
        rank = np.empty(len(codes), dtype=np.int64)
        rank[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
        numbered = {"_stream_no": numbers[codes], "_version": versions[codes] + rank + 1}
        for name, column in numbered.items():
            arrow = arrow.append_column(name, pa.array(column.astype(np.int32)))
        return arrow

    def _known_streams(self, category: Category, ids: str, count: int) -> tuple[Any, Any]:
        """Return arrays (stream number, version) for the ids; zeros for a stream that is new."""
        numbers, versions = np.zeros(count, np.int64), np.zeros(count, np.int64)
        if self.log.heads.stream_no:
            known = self._database.arrow(
                f"""SELECT code, stream_no, version FROM {ids} AS ids
                    JOIN streams ON stream = ? || ids.id
                    JOIN (SELECT stream_no, max(version) AS version FROM {quote(category.table)} GROUP BY stream_no)
                         USING (stream_no)""",
                [category.stream("")],
            )
            code = known["code"].to_numpy()
            numbers[code], versions[code] = known["stream_no"].to_numpy(), known["version"].to_numpy()
        return numbers, versions

    def _insert_table(self, category: Category, source: str, plan: bulk.Plan, batch: Batch, first: int) -> None:
        versions = {event.schema_version for event in category.types.values()}
        schema_version = str(versions.pop())
        if versions:
            cases = (f"WHEN '{name}' THEN {event.schema_version}" for name, event in category.types.items())
            schema_version = f"CASE type {' '.join(cases)} END"
        # One random half for the batch, the position for the other: unique without a random number for every row.
        high = self.new_id().int >> 64 << 64 | 1 << 63
        values = {
            "position": f"{bulk.ROW} + {first}",
            "stream_no": "_stream_no",
            "version": "_version",
            "type": plan.columns["type"],
            "schema_version": schema_version,
            "event_id": f"CAST(CAST(? AS UHUGEINT) + CAST({bulk.ROW} + {first} AS UHUGEINT) AS UUID)",
            "correlation_id": plan.columns.get("correlation_id", "NULL"),
            "occurred_at": plan.columns["occurred_at"],
            "recorded_at": plan.columns.get("recorded_at", "CAST(? AS TIMESTAMP)"),
            **{name: plan.columns[name] for name in category.columns},
        }
        params: list[Any] = [str(high)]
        if "recorded_at" not in plan.columns:
            params.append(naive(batch.recorded_at))
        self._database.execute(
            f"INSERT INTO {quote(category.table)} ({', '.join(map(quote, values))}) "
            f"SELECT {', '.join(values.values())} FROM {source}",
            [*params, *plan.params],
        )


def _micros(moment: datetime) -> int:
    """Microseconds since 1970 of a naive UTC datetime."""
    return (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
