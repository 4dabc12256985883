"""Defaults: what an event says of a field that its class got later.

Owns the filling of columns. An event class may get a field with a default without getting a new version. The write side
then reads the default out of every event that was stored before; a SELECT would read NULL. So when a store is opened,
the default is written into the events that lack the field, once, and from then on it is what they say: also when the
class gets another default. What an upcast makes of an older version is left to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticUndefined

from cqrs_lab.errors import StoreFormatError
from cqrs_lab.messages import Event, unwrap
from cqrs_lab.sql.names import literal, quote
from cqrs_lab.store.categories import Category
from cqrs_lab.store.database import Database


@dataclass(frozen=True)
class _Default:
    """A field of an event type that is never empty, what it holds unless told, and which events lack it."""

    column: str
    value: Any
    lacking: str


def fill_defaults(database: Database, category: Category, *, new: frozenset[str]) -> None:
    """Write defaults into the events that were stored before their class had the field.

    Args:
        new: the columns that have just been added: nothing was made of them yet.

    Raises:
        StoreFormatError: there are such events, and the store is read-only.
    """
    wanted = [default for event in category.events for default in _defaults(event)]
    if not wanted:
        return
    table = quote(category.table)
    counts = ", ".join(f"count(*) FILTER ({one.lacking})" for one in wanted)
    found = database.execute(f"SELECT {counts} FROM {table}")[0]
    filled = [one for one, count in zip(wanted, found, strict=True) if count]
    if not filled:
        return
    if database.read_only:
        names = ", ".join(one.column for one in filled)
        raise StoreFormatError(
            f"{database.path} has events of category {category.name!r} that lack fields with a default ({names}); open "
            "it for writing once to fill them in"
        )
    with database.transaction():
        for one in filled:
            kind, value = category.columns[one.column], category.encode_value(one.value)
            database.execute(f"UPDATE {table} SET {quote(one.column)} = CAST(? AS {kind}) WHERE {one.lacking}", [value])
        if any(one.column not in new for one in filled):
            # Rows may be made of them, as another type has the field: nobody here knows of which.
            database.execute("UPDATE servings SET fingerprint = '' WHERE served_as <> 'view' AND served_as <> 'saga'")


def _defaults(event: type[Event]) -> Iterator[_Default]:
    for name, info in event.model_fields.items():
        if info.is_required() or unwrap(info.annotation)[2]:
            continue
        value = info.get_default(call_default_factory=True)
        if value is None or value is PydanticUndefined:
            continue
        made = [version for version, upcast in event.upcasts.items() if name in upcast]
        older = f" AND schema_version > {max(made)}" if made else ""
        yield _Default(name, value, f"type = {literal(event.__name__)} AND {quote(name)} IS NULL{older}")
