"""An event with a field of every supported type, and its decider."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from pydantic import Field

from cqrs_lab import Command, Decider, Event, Value


class Part(Value):
    """Something inside a message."""

    name: str
    size: float = 1.0
    made_at: datetime | None = None


class Everything(Event):
    """An event with a field of every kind that the log takes."""

    thing_id: str
    text: str | None = None
    flag: bool | None = None
    number: int | None = None
    ratio: float | None = None
    weight: Annotated[Decimal, Field(max_digits=12, decimal_places=5)] | None = None
    at: datetime | None = None
    day: date | None = None
    reference: UUID | None = None
    parts: tuple[Part, ...] = ()
    counts: tuple[int, ...] = ()
    raw: bytes | None = None
    pieces: tuple[bytes, ...] = ()


class Touch(Command):
    """A command, so that there is one."""

    thing_id: str


things = Decider(
    category="thing",
    key="thing_id",
    initial=0,
    decide=lambda command, state: [],
    evolve=lambda state, event: state + 1,
    commands=[Touch],
    events=[Everything],
)
