"""Insertion: rows of a batch into their tables.

Owns how values get there: in the statement while they are few, as an Arrow table when they are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from cqrs_lab.sql.names import quote
from cqrs_lab.store.database import Database

_FEW = 16  # rows up to which values in the statement cost less than a table registered for it


class Insertion:
    """Inserts rows into the tables of a log, in the transaction that is open."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known_types: dict[tuple[str, str], list[pa.DataType]] = {}

    def __call__(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows. Only the columns in use: the fields of other event types are neither planned nor bound."""
        there = {name for row in rows for name, value in row.items() if value is not None}
        # The envelope's first, in an order that does not change from call to call.
        columns = tuple(name for name in dict.fromkeys(name for row in rows for name in row) if name in there)
        if len(rows) <= _FEW:
            values = [row.get(column) for row in rows for column in columns]
            self._database.execute(_statement(table, columns, len(rows)), values)
            return
        names = ", ".join(map(quote, columns))
        # Values bound one by one cost 0.1 ms an event.
        types = self._types(table, names)
        arrays = [pa.array([row.get(c) for row in rows], kind) for c, kind in zip(columns, types, strict=True)]
        with self._database.registered(pa.table(arrays, names=columns), "_rows") as source:
            self._database.execute(f"{_verb(table)} INTO {quote(table)} ({names}) SELECT {names} FROM {source}")

    def _types(self, table: str, names: str) -> list[pa.DataType]:
        """The Arrow types of a table's columns."""
        if (table, names) not in self._known_types:
            kinds = self._database.arrow(f"SELECT {names} FROM {quote(table)} LIMIT 0").schema.types
            self._known_types[table, names] = [_writable(kind) for kind in kinds]
        return self._known_types[table, names]


def _verb(table: str) -> str:
    return "INSERT OR REPLACE" if table == "snapshots" else "INSERT"


@lru_cache(1_000)
def _statement(table: str, columns: tuple[str, ...], count: int) -> str:
    names, marks = ", ".join(map(quote, columns)), f"({', '.join('?' * len(columns))})"
    return f"{_verb(table)} INTO {quote(table)} ({names}) VALUES {', '.join([marks] * count)}"


def _writable(kind: pa.DataType) -> pa.DataType:
    """The type in which values are handed over: a UUID as text, which Arrow would take as bytes alone."""
    if kind == pa.uuid():
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_writable(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _writable(field.type)) for field in kind])
    return kind
