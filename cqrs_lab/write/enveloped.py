"""Events that come with their envelope, from another store or another program.

Owns what is kept of it. A whole log that enters an empty store stays what it was: positions, versions, ids, times.
Into a log that has events already they come as facts: what they say, when it happened, their ids and their story are
kept; positions, versions and `recorded_at` are this log's own, for here they were learnt now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, islice
from uuid import UUID

from cqrs_lab.errors import InvalidMessage
from cqrs_lab.messages import Event, Recorded
from cqrs_lab.sql.names import quote
from cqrs_lab.store.categories import Category
from cqrs_lab.store.memory import LATEST
from cqrs_lab.write.batch import Batch, Context, Remembered, Seen, add_command, add_event
from cqrs_lab.write.event_store import EventStore

_CHUNK = 5_000  # events that are inserted at once
_AHEAD = timedelta(days=3 * 366)  # as for tables: what is recorded later than all else dates all that follows


@dataclass(frozen=True, kw_only=True)
class Enveloped:
    """An event, and what is known of it; `None` is not known.

    Attributes:
        where: what to call it in an error, such as "line 7".
        command: name of the type of the command that led to it, where its key is remembered.
        digest: what that command said; none is left after an erasure.
    """

    where: str
    category: Category
    event: Event
    event_id: UUID
    position: int | None
    version: int | None
    occurred_at: datetime | None
    recorded_at: datetime | None
    correlation_id: str | None
    causation_id: str | None
    command_id: str | None
    command: str | None = None
    digest: str | None = None

    @property
    def stream(self) -> str:
        """The stream that it belongs to."""
        return self.category.stream(getattr(self.event, self.category.key))


@dataclass(frozen=True)
class TakenIn:
    """What entered.

    Attributes:
        appended: how many events were appended.
        known: how many had come before, and were left out.
        position: the last position of the log.
        kept: whether positions, versions and times of recording are those that they came with.
    """

    appended: int
    known: int
    position: int
    kept: bool


def take_in(store: EventStore, events: Iterable[Enveloped], *, as_facts: bool = False) -> TakenIn:
    """Append events with their envelopes: all of them, or none.

    Args:
        as_facts: give out positions and versions again, also in an empty store.

    Raises:
        InvalidMessage: a log with a hole, or an id that stands for another event; says which event.
    """
    given = iter(events)
    first = next(given, None)
    store.log.database.check_open()
    if first is None:
        return TakenIn(0, 0, store.log.head, False)
    with store.appending() as batch:
        is_whole = first.position == 1 and first.version == 1 and first.recorded_at is not None
        kept = batch.position == 0 and is_whole and not as_facts
        had_events = batch.position > 0
        appended = known = 0
        seen: set[UUID] = set()
        commands = _Commands()
        latest = batch.recorded_at + _AHEAD
        for chunk in _chunks(chain([first], given)):
            new = [one for one in chunk if _is_new(one, seen, refuse=kept)]
            if had_events:
                there = _there(store, new)
                new = [one for one in new if not _came_before(one, there)]
            _find_streams(store, batch, new)
            for one in new:
                _add(store, batch, one, kept, latest)
            if kept:
                commands.add(batch, new)
            store.insert(batch)
            batch.latest = dict(list(batch.latest.items())[-LATEST:])
            appended, known = appended + len(new), known + len(chunk) - len(new)
        if kept:
            commands.finish(batch)
            store.insert(batch)
        position = batch.position
    return TakenIn(appended, known, position, kept)


class _Commands:
    """The commands that led to events of a whole log: their keys stay used, so that none is carried out twice."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._last: Enveloped | None = None  # the latest event of one, whose others may follow
        self._first = 0  # position of its first one

    def add(self, batch: Batch, events: list[Enveloped]) -> None:
        """Look at more events, in order."""
        for one in events:
            assert one.position is not None
            if self._last is not None and (one.command_id, one.stream) == (self._last.command_id, self._last.stream):
                self._last = one
                continue
            self.finish(batch)
            if one.command_id is not None and one.command is not None:
                self._last, self._first = one, one.position

    def finish(self, batch: Batch) -> None:
        """Keep what is to be remembered of the latest command; the first one of an id counts."""
        one, self._last = self._last, None
        if one is None or one.command_id is None or one.position is None or one.command_id in self._seen:
            return
        self._seen.add(one.command_id)
        context = Context(
            correlation_id=one.correlation_id,
            causation_id=one.causation_id,
            command_id=one.command_id,
            command=one.command or "",
            digest=one.digest or "",
        )
        number, _ = batch.streams[one.stream]
        add_command(batch, context, Remembered(context.digest, number, one.correlation_id, self._first, one.position))


def _chunks(events: Iterator[Enveloped]) -> Iterator[list[Enveloped]]:
    while chunk := list(islice(events, _CHUNK)):
        yield chunk


def _is_new(one: Enveloped, seen: set[UUID], *, refuse: bool) -> bool:
    if one.event_id not in seen:
        seen.add(one.event_id)
        return True
    if refuse:
        raise _refused(one, f"the id {one.event_id} came before; in one log an event has an id of its own")
    return False


def _there(store: EventStore, events: list[Enveloped]) -> dict[UUID, tuple[str, str]]:
    """The ids among these that the log has, with the stream and the type of their events."""
    ids = [str(one.event_id) for one in events]
    found: dict[UUID, tuple[str, str]] = {}
    for name in store.log.heads.tables:
        sql = f"""SELECT event_id, stream, type FROM {quote(f"{name}_events")} JOIN streams USING (stream_no)
            WHERE event_id IN (SELECT CAST(unnest(CAST(? AS VARCHAR[])) AS UUID))"""
        found |= {id: (stream, kind) for id, stream, kind in store.log.database.execute(sql, [ids])}
    return found


def _came_before(one: Enveloped, there: dict[UUID, tuple[str, str]]) -> bool:
    found = there.get(one.event_id)
    if found is not None and found != (one.stream, type(one.event).__name__):
        raise _refused(one, f"the id {one.event_id} stands for another event of this log, {found[1]} of {found[0]}")
    return found is not None


def _find_streams(store: EventStore, batch: Batch, events: list[Enveloped]) -> None:
    """Look up the streams that the batch does not know yet, with one question for each category."""
    by_category: dict[str, dict[str, None]] = {}
    for one in events:
        if one.stream not in batch.streams:
            by_category.setdefault(one.category.name, {})[one.stream] = None
    for name, streams in by_category.items():
        sql = f"""SELECT stream, stream_no, max(version) FROM streams
            LEFT JOIN {quote(f"{name}_events")} USING (stream_no)
            WHERE stream IN (SELECT unnest(CAST(? AS VARCHAR[]))) GROUP BY ALL"""
        found: dict[str, Seen] = {
            stream: (number, version or 0)
            for stream, number, version in store.log.database.execute(sql, [list(streams)])
        }
        batch.streams.update(found)


def _add(store: EventStore, batch: Batch, one: Enveloped, kept: bool, latest: datetime) -> None:
    stream, category = one.stream, one.category
    number, version = batch.streams.get(stream, (None, 0))
    if number is None:
        number = batch.new_stream()
        id = getattr(one.event, category.key)
        batch.add("streams", {"stream": stream, "stream_no": number, "category": category.name, "id": id})
    position, recorded_at = batch.new_position(), batch.recorded_at
    if kept:
        if one.position != position or one.version != version + 1 or one.recorded_at is None:
            raise _refused(
                one,
                f"it is at position {one.position}, version {one.version} of {stream}, where position {position}, "
                f"version {version + 1} follows: part of a log. Let it enter as facts, which are "
                "numbered again: as_facts=True, or --as-facts",
            )
        recorded_at = one.recorded_at
        if recorded_at > latest or (position > 1 and recorded_at < batch.recorded_at):
            raise _refused(one, f"it was recorded at {recorded_at}, before the one above it or far in the future")
        batch.recorded_at = recorded_at
    recorded = Recorded(
        position=position,
        stream=stream,
        version=version + 1,
        event=one.event,
        event_id=one.event_id,
        correlation_id=one.correlation_id,
        causation_id=one.causation_id,
        command_id=one.command_id,
        occurred_at=one.occurred_at or recorded_at,
        recorded_at=recorded_at,
    )
    add_event(batch, category, number, recorded)
    batch.streams[stream] = (number, version + 1)


def _refused(one: Enveloped, why: str) -> InvalidMessage:
    return InvalidMessage(f"{one.where} ({type(one.event).__name__} of {one.stream})", (why,))
