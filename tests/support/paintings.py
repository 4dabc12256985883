"""A domain whose events have fields of every supported type, and rules written in Python."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, field_validator

from cqrs_lab import Decider, Domain, Event, Lab, Value


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(Value):
    width: Annotated[int, Field(ge=1)]
    note: str | None = None


class Painted(Event):
    """An event with a field of every supported type."""

    thing: str
    colour: Colour
    finish: Literal["matt", "gloss"] = "matt"
    layers: Annotated[int, Field(ge=1, le=9)]
    weight: float | None = None
    price: Annotated[Decimal, Field(max_digits=10, decimal_places=4)] | None = None
    dry_at: datetime | None = None
    day: date | None = None
    batch: UUID | None = None
    sealed: bool = False
    sizes: list[Size] = []
    codes: Annotated[list[Annotated[str, Field(pattern="^[a-z]+$")]], Field(max_length=2)] = []


class Signed(Event):
    thing: str
    by: str

    @field_validator("by")
    @classmethod
    def _a_full_name(cls, value: str) -> str:
        if " " not in value:
            raise ValueError("is not a full name")
        return value.strip()


def paintings():
    """Return a lab whose events have fields of every supported type."""
    nothing = Decider("thing", "thing", None, lambda c, s: [], lambda s, e: s, [], [Painted, Signed])
    return Lab(domain=Domain(deciders=[nothing]))
