"""Categories: the columns that event classes become, and the way back to event objects.

Owns the mapping between the fields of a category's events and the typed columns of its table, and the SELECT that lifts
old versions of events to the present one. Touches no database.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cqrs_lab.errors import DeclarationError, InvalidMoment, UnknownEventType, UnsupportedField
from cqrs_lab.messages import PERSONAL, Event, decimal_limits, from_log, refused, unwrap, utc
from cqrs_lab.sql.names import check_name, literal, quote
from cqrs_lab.sql.parse import not_of_one_row

ENVELOPE = {
    "position": "BIGINT PRIMARY KEY",
    "stream_no": "INTEGER NOT NULL",
    "version": "INTEGER NOT NULL",
    "type": "VARCHAR NOT NULL",
    "schema_version": "SMALLINT NOT NULL",
    "event_id": "UUID NOT NULL",
    "correlation_id": "VARCHAR",
    "causation_id": "VARCHAR",
    "command_id": "VARCHAR",
    "occurred_at": "TIMESTAMP NOT NULL",
    "recorded_at": "TIMESTAMP NOT NULL",
}
RESERVED = {*ENVELOPE, "id", "stream", "category", "data"}

_SCALARS = {
    str: "VARCHAR",
    bool: "BOOLEAN",
    int: "BIGINT",
    float: "DOUBLE",
    datetime: "TIMESTAMP",
    date: "DATE",
    UUID: "UUID",
    bytes: "BLOB",
}


def column_type(annotation: Any, metadata: Iterable[Any] = (), *, where: str = "") -> str:
    """Return the DuckDB type in which a field's values are kept.

    Raises:
        UnsupportedField: the type has no column.
    """
    kind, more, _ = unwrap(annotation)
    origin = typing.get_origin(kind)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind is Decimal:
        digits, places = decimal_limits([*metadata, *more])
        return f"DECIMAL({digits}, {places})"
    if origin in (list, tuple):
        items = [a for a in typing.get_args(kind) if a is not Ellipsis]
        if len(items) == 1:
            return f"{column_type(items[0], where=where)}[]"
    if origin is typing.Literal and all(isinstance(a, str) for a in typing.get_args(kind)):
        return "VARCHAR"
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and all(isinstance(m.value, str) for m in kind):
        return "VARCHAR"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        inside = (
            f"{quote(name)} {column_type(f.annotation, f.metadata, where=f'{where}.{name}')}"
            for name, f in kind.model_fields.items()
        )
        return f"STRUCT({', '.join(inside)})"
    raise UnsupportedField(
        f"{where} is declared as {annotation!r}, which has no column type; use str, int, bool, float, Decimal, "
        "datetime, date, UUID, bytes, a Literal or Enum of strings, a Value, or a list of these"
    )


@dataclass(frozen=True)
class Category:
    """One kind of stream: its key field and its event types.

    Args:
        name: such as "order"; the table is `order_events`, a stream is `order/<id>`.
        key: the field, in every event, that names the thing the stream is about.
        events: the event classes, each a subclass of Event.

    Raises:
        DeclarationError: names collide, a field changes its type between events, the key is not in every event, an
            upcast is missing or not a function of the event.

    Attributes:
        types: name of an event type -> its class.
        columns: field -> type of its column.
        personal: the fields that are kept beside the log.
    """

    name: str
    key: str
    events: Sequence[type[Event]]
    types: Mapping[str, type[Event]] = field(init=False)
    columns: Mapping[str, str] = field(init=False)
    personal: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        check_name("category", self.name)
        personal: set[str] = set()
        types_: dict[str, type[Event]] = {}
        columns: dict[str, str] = {self.key: "VARCHAR"}
        folded = {self.key.lower(): self.key}
        for event in self.events:
            if event.__name__ in types_:
                raise DeclarationError(f"category {self.name!r} declares two events named {event.__name__}")
            types_[event.__name__] = event
            _check_upcasts(event)
            if column_type(_field(event, self.key, self.name).annotation, where=self.key) != "VARCHAR":
                raise DeclarationError(f"{event.__name__}.{self.key} names a stream, so it must be a str")
            for name, info in event.model_fields.items():
                where = f"{event.__name__}.{name}"
                check_name("field", name)
                if name.lower() in RESERVED:
                    raise UnsupportedField(f"{where}: the envelope has a column {name!r}; choose another name")
                sql_type = column_type(info.annotation, info.metadata, where=where)
                if folded.setdefault(name.lower(), name) != name or columns.setdefault(name, sql_type) != sql_type:
                    raise UnsupportedField(
                        f"{where} is {sql_type}, but another event of category {self.name!r} has "
                        f"{folded[name.lower()]} {columns[folded[name.lower()]]}; a field has one name and one type "
                        "in a category"
                    )
                kind, metadata, _ = unwrap(info.annotation)
                if PERSONAL in [*info.metadata, *metadata]:
                    personal.add(name)
                if _hides_personal(kind) or (name == self.key and name in personal):
                    raise UnsupportedField(
                        f"{where} holds something personal in its key, in a list or inside a value, where it could "
                        "not be erased; make it a field of its own"
                    )
        for name in personal:
            if any(PERSONAL not in e.model_fields[name].metadata for e in self.events if name in e.model_fields):
                raise DeclarationError(f"{self.name}.{name} is personal in one event and not in another")
        object.__setattr__(self, "types", types_)
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "personal", frozenset(personal))

    @property
    def table(self) -> str:
        """Name of the table that holds the category's events."""
        return f"{self.name}_events"

    @property
    def personal_table(self) -> str:
        """Name of the table that holds the personal fields of the category's events, by position."""
        return f"{self.name}_personal"

    def upcast(self, select: str, columns: Mapping[str, str], versions: Iterable[tuple[str, int]]) -> str:
        """Return a SELECT of events in which every version is lifted to the one declared now.

        Args:
            select: a SELECT of the stored events.
            columns: the columns that it has, with their types.
            versions: the (type, schema_version) that it may hold.
        """
        there = set(columns)
        oldest = {name: version for name, version in sorted(versions, reverse=True) if name in self.types}
        for name, first in sorted(oldest.items()):
            for version in range(first, self.types[name].schema_version):
                this = f"type = {literal(name)} AND schema_version = {version}"
                upcast = self.types[name].upcasts[version]
                cases = [f"CASE WHEN {this} THEN {version + 1}::SMALLINT ELSE schema_version END AS schema_version"]
                added = ""
                for field_, expression in upcast.items():
                    made, column = f"({expression}\n)", quote(field_)
                    if field_ in columns:
                        made = f"CAST({made} AS {columns[field_]})"
                    if field_ in there:
                        cases.append(f"CASE WHEN {this} THEN {made} ELSE {column} END AS {column}")
                    else:
                        added += f", CASE WHEN {this} THEN {made} END AS {column}"
                there |= set(upcast)
                select = f"SELECT * REPLACE ({', '.join(cases)}){added} FROM ({select})"
        return select

    def check_versions(self, versions: Iterable[tuple[str, int]]) -> None:
        """Refuse events of a version that the domain does not know.

        Raises:
            UnknownEventType: names the type and the version.
        """
        for name, version in versions:
            event = self.types.get(name)
            if event is not None and not 1 <= version <= event.schema_version:
                raise self._unknown(name, version)

    def _unknown(self, name: str, version: int) -> UnknownEventType:
        known = ", ".join(f"{t} v{c.schema_version}" for t, c in self.types.items())
        return UnknownEventType(
            f"the log holds {name} v{version} in category {self.name!r}, which declares {known}; "
            "open it with a domain that declares it, or with a newer version of the program"
        )

    def stream(self, id: str) -> str:
        """Return the name of the stream of one thing."""
        return f"{self.name}/{id}"

    def encode(self, event: Event) -> dict[str, Any]:
        """Return the event's fields as column values."""
        return {name: self.encode_value(value) for name, value in event.__dict__.items()}

    @staticmethod
    def encode_value(value: Any) -> Any:
        """Return one value as its column takes it."""
        return _plain(value)

    def decode(self, type_name: str, schema_version: int, fields: Mapping[str, Any]) -> Event:
        """Return the event that a row of the log holds.

        Raises:
            UnknownEventType: the domain declares no such type, or only older versions of it.
        """
        event = self.types.get(type_name)
        if event is None or schema_version != event.schema_version:
            raise self._unknown(type_name, schema_version)
        given = {
            name: aware_value(fields[name])
            for name, info in event.model_fields.items()
            if fields[name] is not None or unwrap(info.annotation)[2]
        }
        try:
            return from_log(event, given)
        except ValidationError as error:
            raise UnknownEventType(
                f"the log holds a {type_name} that its class does not accept: "
                f"{'; '.join(refused(type_name, error).problems)}"
            ) from error


def _field(event: type[Event], name: str, category: str) -> FieldInfo:
    if name not in event.model_fields:
        raise DeclarationError(f"{event.__name__} lacks {name!r}, the key of category {category!r}")
    return event.model_fields[name]


def _hides_personal(kind: Any) -> bool:
    """Whether something inside a field's type is personal."""
    inside = list(typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        inside += [typing.Annotated[f.annotation, f] for f in kind.model_fields.values()]
    parts = [unwrap(one) for one in inside if one is not Ellipsis]
    return any(PERSONAL in metadata or _hides_personal(part) for part, metadata, _ in parts)


def _check_upcasts(event: type[Event]) -> None:
    wanted = set(range(1, event.schema_version))
    if set(event.upcasts) != wanted:
        raise DeclarationError(
            f"{event.__name__} is at schema_version {event.schema_version} and has upcasts from "
            f"{sorted(event.upcasts) or 'none'}; declare one from each of {sorted(wanted) or 'none'}, empty when all "
            "fields stayed as they were"
        )
    for version, upcast in event.upcasts.items():
        for name, expression in upcast.items():
            reason = not_of_one_row(expression)
            if reason:
                raise DeclarationError(
                    f"the upcast of {event.__name__}.{name} from version {version}, {expression!r}, is not an SQL "
                    f"expression over the event's own columns: {reason}"
                )


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(inner) for name, inner in value.__dict__.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return naive(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, UUID):
        return str(value)
    return value


def aware_value(value: Any) -> Any:
    """Return a stored value with its times marked as UTC."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    if isinstance(value, dict):
        return {name: aware_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [aware_value(item) for item in value]
    return value


def as_stored(value: Any) -> Any:
    """Return a value that a question compares with as the store keeps it: times in UTC, without their zone.

    A date stays one; compared with times it is the first moment of that day in UTC, as SQL has it.

    Raises:
        InvalidMoment: a time without a zone.
    """
    try:
        return naive(value) if isinstance(value, datetime) else value
    except ValueError as error:
        raise InvalidMoment(str(error)) from None


def naive(moment: datetime) -> datetime:
    """Return an aware datetime as the store keeps it: UTC, without its zone."""
    return utc(moment).replace(tzinfo=None)
