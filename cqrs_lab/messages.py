"""Messages: what is asked (Command), what happened (Event), what somebody wants to know (Query).

Owns their validation: a message that exists is one that the log can store. Touches no database.
Messages are frozen, take keyword arguments only, and refuse fields they do not declare. A command is an
imperative (PlaceOrder), an event is past tense (OrderPlaced).
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, ClassVar, Self, TypeVar, Union
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from cqrs_lab.errors import InvalidMessage

MONEY_DIGITS, MONEY_PLACES = 18, 2
INT64_MAX = 2**63 - 1

Money = Annotated[Decimal, Field(max_digits=MONEY_DIGITS, decimal_places=MONEY_PLACES, allow_inf_nan=False)]
"""An amount of money: exact, finite, at most two places."""

Id = Annotated[str, Field(min_length=1, max_length=500)]
"""The name of one thing: a customer, an order, a product."""

_from_log = ContextVar("_from_log", default=False)  # no context of pydantic's: a class with an __init__ loses it

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
PERSONAL = type("PERSONAL", (), {"__repr__": lambda self: "PERSONAL"})()
Personal = Annotated[T | None, PERSONAL]
"""What tells who somebody is: `name: Personal[str] = None`. It is kept beside the log, where `Lab.forget` can erase it,
and is None once it was erased."""

Upcasts = Mapping[int, Mapping[str, str]]
"""{version: {field: SQL expression over the columns of that version}}."""


def utc(moment: datetime) -> datetime:
    """Return an aware datetime in UTC.

    Raises:
        ValueError: `moment` has no time zone, or is outside the years 1 to 9999 in UTC.
    """
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; give one, such as tzinfo=timezone.utc")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{moment.isoformat()} is outside the years 1 to 9999 in UTC") from None


def unwrap(annotation: Any) -> tuple[Any, list[Any], bool]:
    """Return (type, metadata, nullable) of an annotation such as `Annotated[int, Field(ge=1)] | None`."""
    metadata: list[Any] = []
    nullable = False
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation, *more = typing.get_args(annotation)
            for item in more:
                metadata += item.metadata if isinstance(item, FieldInfo) else [item]
        elif origin in (Union, types.UnionType):
            members = [a for a in typing.get_args(annotation) if a is not type(None)]
            if len(members) != 1:
                return annotation, metadata, nullable
            nullable, annotation = True, members[0]
        else:
            return annotation, metadata, nullable


def decimal_limits(metadata: Iterable[Any]) -> tuple[int, int]:
    """Return (digits, places) that an annotation allows a Decimal; money's where it says nothing."""
    digits, places = MONEY_DIGITS, MONEY_PLACES
    for item in metadata:
        digits = getattr(item, "max_digits", None) or digits
        given = getattr(item, "decimal_places", None)
        places = places if given is None else given
    return digits, places


@cache
def _limits(message: type[BaseModel]) -> dict[str, tuple[int, int]]:
    return {
        name: decimal_limits([*field.metadata, *unwrap(field.annotation)[1]])
        for name, field in message.model_fields.items()
    }


def _check_storable(path: str, value: object, limits: tuple[int, int]) -> None:
    """Refuse what pydantic lets through and a typed column cannot hold."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{path}: has a lone surrogate, which is not a character") from None
        if "\0" in value:
            raise ValueError(f"{path}: has a NUL character, which SQL texts cannot hold")
    elif isinstance(value, int):
        if not -INT64_MAX - 1 <= value <= INT64_MAX:
            raise ValueError(f"{path}: {value} does not fit in 64 bits")
    elif isinstance(value, datetime):
        try:
            utc(value)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _check_storable(f"{path}[{number}]", item, limits)
    elif isinstance(value, Decimal):
        digits, places = limits
        _, numbers, exponent = value.normalize().as_tuple()
        if not isinstance(exponent, int):
            raise ValueError(f"{path}: {value} is not a finite number")
        if -exponent > places or len(numbers) + exponent > digits - places:
            raise ValueError(f"{path}: {value} does not fit in {digits} digits with {places} places")


class Message(BaseModel):
    """Base of everything that has validated, frozen fields: commands, events, queries, values inside them."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64"
    )

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise refused(type(self).__name__, error) from None

    @model_validator(mode="after")
    def _storable(self) -> Self:
        if _from_log.get():
            return self
        limits = _limits(type(self))
        for name, value in self.__dict__.items():
            _check_storable(name, value, limits[name])
        return self


def from_log(event: type[M], fields: Mapping[str, Any]) -> M:
    """Return a message as the log holds it; an earlier version may have stored what this one would refuse.

    Raises:
        ValidationError: a field is missing, or has another type.
    """
    token = _from_log.set(True)
    try:
        return event.model_validate(fields)
    finally:
        _from_log.reset(token)


class Value(Message):
    """Part of a message without a life of its own, such as a line of an order; stored as a STRUCT."""


class Command(Message):
    """A request to change one stream; it may be refused."""


class Event(Message):
    """A fact about one stream; it happened and is never changed.

    Attributes:
        schema_version: counts the shapes that this event type has had, from 1.
        upcasts: how a field of version n + 1 follows from the columns of version n: {n: {field: SQL expression}}.
            A field that is not named stays as it is. Declared once, it serves streams and read models alike.
    """

    schema_version: ClassVar[int] = 1
    upcasts: ClassVar[Upcasts] = {}


class Query(Message):
    """A question to a read model.

    A subclass names its read model in `model` and says in `answer` how to read it, so the question stands
    beside the fields it needs.
    """

    model: ClassVar[Any]  # a ReadModel; named so here, messages would depend on the read side

    def answer(self, read: Any) -> Any:
        """Return the answer, read from a serving of `model` (an object with `get` and `where`)."""
        raise TypeError(f"{type(self).__name__} does not say how it is answered: define answer(self, read)")


def refused(name: str, error: ValidationError) -> InvalidMessage:
    """Return the error that says what is wrong with a message, naming each field at fault."""
    return InvalidMessage(name, tuple(_problems(error.errors())))


def _problems(errors: Iterable[Any]) -> Iterable[str]:
    for problem in errors:
        inner = problem.get("ctx", {}).get("error")
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in problem["loc"]).lstrip(".")
        if isinstance(inner, InvalidMessage):
            yield from (f"{where}.{said}" if where else said for said in inner.problems)
            continue
        said = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            said = "there is no such field"
        shown = repr(problem["input"])
        given = f" (got {shown[:80]})" if problem["type"] not in ("missing", "value_error") else ""
        yield f"{where}: {said}{given}" if where else said


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An event with its envelope, as the log holds it.

    Attributes:
        position: place in the whole store, 1, 2, 3…
        stream: `category/id`.
        version: place in its stream, 1, 2, 3…
        occurred_at: when it happened, UTC (valid time).
        recorded_at: when the store learnt of it, UTC (transaction time); never decreases with position.
        correlation_id: the story that it belongs to.
        causation_id: id of the command or event that led to it.
    """

    position: int
    stream: str
    version: int
    event: Event
    event_id: UUID
    correlation_id: str | None
    causation_id: str | None
    command_id: str | None
    occurred_at: datetime
    recorded_at: datetime

    @property
    def type(self) -> str:
        """Name of the event's type."""
        return type(self.event).__name__
