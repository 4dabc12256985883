"""Stores of any domain, opened by what is in them.

Owns the way back from the tables of a store to event classes, so that a log from elsewhere that was stored, or a store
whose domain is not at hand, can be asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, create_model

from cqrs_lab.app import Lab
from cqrs_lab.domain import Domain
from cqrs_lab.errors import StoreFormatError, StoreMissing
from cqrs_lab.messages import PERSONAL, Event, Value
from cqrs_lab.sql.names import quote
from cqrs_lab.store.database import Database
from cqrs_lab.store.log import Log
from cqrs_lab.store.tables import Tables
from cqrs_lab.write.decider import Decider

_SCALARS: Mapping[str, Any] = {
    "VARCHAR": str,
    "BOOLEAN": bool,
    "BIGINT": int,
    "DOUBLE": float,
    "TIMESTAMP": datetime,
    "DATE": date,
    "UUID": UUID,
    "BLOB": bytes,
}


def open_store(path: str | os.PathLike[str], *, read_only: bool = False) -> Lab:
    """Open a store without its domain: its events are declared from its tables.

    What `open_log` stored is opened again so. Every field may be empty, as a table does not say which must be there;
    commands, rules, queries and sagas are none. Read models that were served are found by their names.

    Args:
        path: of a store.
        read_only: leave it as it is.

    Raises:
        StoreMissing, StoreLocked, NotAStore: there is no store at that path, or it cannot be opened now.
        StoreFormatError: it has events of several versions, which only its own domain can lift.
    """
    if not Path(path).is_file():
        raise StoreMissing(f"{path} does not exist; open_log or Lab make a store")
    database = Database.open(path, read_only=read_only)
    try:
        return Lab(path, domain=_declared(database), read_only=read_only)  # joins what is open: the file is read once
    finally:
        database.release()


def event_class(
    name: str, key: str, fields: Mapping[str, Any], personal: Mapping[str, Any] | None = None, version: int = 1
) -> type[Event]:
    """Return the class of an event type that only data declare.

    Args:
        name: of the type, any text.
        key: the field that names the thing.
        fields: field -> its type; each may be empty.
        personal: likewise, those that tell who somebody is.
        version: of the fields.
    """
    beside = {field: Annotated[kind | None, PERSONAL] for field, kind in (personal or {}).items()}
    kinds = {key: str, **{field: kind | None for field, kind in fields.items()}, **beside}
    doc = f"{name}, as the log has it."
    namespace = {"__annotations__": kinds, "__module__": __name__, "__doc__": doc, **dict.fromkeys([*fields, *beside])}
    upcasts: dict[int, dict[str, str]] = {before: {} for before in range(1, version)}
    return type(name, (Event,), {**namespace, "schema_version": version, "upcasts": upcasts})


def _declared(database: Database) -> Domain:
    Log(database, [])  # refuses what is no store
    tables = Tables(database, {})
    events, personal = tables.stored("events"), tables.stored("personal")
    deciders: list[Decider] = []
    for category, key in database.execute("SELECT category, key FROM categories ORDER BY category"):
        found = f"SELECT type, max(schema_version), min(schema_version) FROM {quote(f'{category}_events')}"
        types = database.execute(f"{found} GROUP BY type ORDER BY min(position)")
        mixed = [name for name, last, first in types if last != first]
        if mixed:
            raise StoreFormatError(
                f"{database.path} has events of several versions ({', '.join(mixed)}), and what lifts the earlier ones "
                "is declared in its domain; open it with Lab(path, domain=…)"
            )
        fields = {name: _python(kind, name) for name, kind in events.get(category, {}).items() if name != key}
        beside = {name: _python(kind, name) for name, kind in personal.get(category, {}).items()}
        classes = [event_class(name, key, fields, beside, version) for name, version, _ in types]
        deciders += Domain.of_events(category, key=key, events=classes).deciders
    return Domain(deciders)


def _python(kind: str, name: str) -> Any:
    """The type of a field whose column has that type."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind.endswith("[]"):
        item: Any = _python(kind[:-2], name)
        return list[item]
    if number := re.fullmatch(r"DECIMAL\((\d+),\s*(\d+)\)", kind):
        digits, places = map(int, number.groups())
        return Annotated[Decimal, Field(max_digits=digits, decimal_places=places)]
    if kind.startswith("STRUCT("):
        parts: dict[str, Any] = {part: (_python(of, part) | None, None) for part, of in _parts(kind[7:-1])}
        return create_model(name, __base__=Value, **parts)
    raise StoreFormatError(f"the field {name!r} is {kind}, which no event class declares; open it with its own domain")


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """The names and types in a STRUCT."""
    depth, start, is_quoted = 0, 0, False
    for at, letter in enumerate(text + ","):
        if letter == '"':
            is_quoted = not is_quoted
        elif is_quoted:
            continue
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == "," and depth == 0:
            name, kind = _named(text[start:at].strip())
            yield name, kind
            start = at + 1


def _named(part: str) -> tuple[str, str]:
    if part.startswith('"'):
        end = re.match(r'"(?:[^"]|"")*"', part)
        assert end is not None
        return end[0][1:-1].replace('""', '"'), part[end.end() :].strip()
    name, _, kind = part.partition(" ")
    return name, kind
