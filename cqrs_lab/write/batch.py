"""A batch: one append in the making.

Owns the numbers that are given out for it, and the rows that will be stored with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cqrs_lab.messages import Recorded
from cqrs_lab.store.categories import Category, naive
from cqrs_lab.store.memory import Held


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where appended events come from.

    Attributes:
        occurred_at: when they happened, aware; the clock's time when None.
        correlation_id: the story they belong to.
        causation_id: what led to them.
        command_id: the command that led to them, remembered so that it is not carried out twice.
        command: name of the command's type.
        digest: what the command said, to tell a repetition from another command under the same id.
    """

    occurred_at: datetime | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    command_id: str | None = None
    command: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Remembered:
    """A command that was carried out.

    Attributes:
        digest: what it said.
        stream_no: of the stream that it was about, None when there is none.
        correlation_id: the story that it belongs to.
        first: position of its first event; behind `last` when it led to none.
        last: position of its last event, or the head when it led to none.
        recorded: its events, while they are part of a batch that is not stored yet.
        command: name of its type.
    """

    digest: str
    stream_no: int | None
    correlation_id: str | None
    first: int
    last: int
    recorded: tuple[Recorded, ...] | None = None
    command: str = ""


Seen = tuple[int | None, int]
"""A stream's number (None: there is no such stream) and version."""


@dataclass
class Batch:
    """One append in the making: the numbers given out so far, and the rows to store with it.

    Attributes:
        recorded_at: when the store learns of the events, aware.
        position: the last position given out.
        stream_no: the last stream number given out.
        streams: the streams written to, as they will be.
        before: the versions that they were at.
        rows: table -> its new rows, column -> value.
        versions: category -> the (type, schema_version) of the new events.
        latest: position -> what memory will know of the event.
        commands: what is known of command ids: None for one that is new.
        loaded: stream -> what its events so far fold to, for whoever decides on it.
    """

    recorded_at: datetime
    position: int
    stream_no: int
    streams: dict[str, Seen] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    versions: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    latest: dict[int, Held] = field(default_factory=dict)
    commands: dict[str, Remembered | None] = field(default_factory=dict)
    loaded: dict[str, Any] = field(default_factory=dict)

    def new_position(self) -> int:
        """Return the next position."""
        self.position += 1
        return self.position

    def new_stream(self) -> int:
        """Return the next stream number."""
        self.stream_no += 1
        return self.stream_no

    def add(self, table: str, row: dict[str, Any]) -> None:
        """Keep a row until the batch is stored."""
        self.rows.setdefault(table, []).append(row)


def add_event(batch: Batch, category: Category, number: int | None, recorded: Recorded) -> None:
    """Keep the rows of an event, its personal fields apart, until the batch is stored."""
    fields = category.encode(recorded.event)
    personal = {name: fields.pop(name) for name in category.personal & fields.keys()}
    envelope = {
        "position": recorded.position,
        "stream_no": number,
        "version": recorded.version,
        "type": recorded.type,
        "schema_version": recorded.event.schema_version,
        "event_id": str(recorded.event_id),
        "correlation_id": recorded.correlation_id,
        "causation_id": recorded.causation_id,
        "command_id": recorded.command_id,
        "occurred_at": naive(recorded.occurred_at),
        "recorded_at": naive(recorded.recorded_at),
    }
    batch.add(category.table, envelope | fields)
    if any(value is not None for value in personal.values()):
        batch.add(category.personal_table, {"position": recorded.position, **personal})
    there = frozenset(name for name, value in {**envelope, **fields, **personal}.items() if value is not None)
    id, kind, version = recorded.stream.partition("/")[2], recorded.type, recorded.event.schema_version
    batch.latest[recorded.position] = Held(category.name, kind, version, there, id, recorded.version)
    batch.versions.setdefault(category.name, set()).add((recorded.type, recorded.event.schema_version))


def add_command(batch: Batch, context: Context, done: Remembered) -> None:
    """Keep what is remembered of a command until the batch is stored."""
    assert context.command_id is not None
    batch.commands[context.command_id] = done
    row = {
        "command_id": context.command_id,
        "type": context.command,
        "digest": context.digest,
        "stream_no": done.stream_no,
        "correlation_id": context.correlation_id,
        "causation_id": context.causation_id,
        "first_position": done.first,
        "last_position": done.last,
    }
    batch.add("commands", row)
