"""Answers that are kept: which of them a change of rows can reach, and when they go.

Owns the bookkeeping that all caches over one file share. A move says that rows of a serving are about to change
(`begin`), which ones before others can see them (`drop`), and that it is over (`end`). In between no answer is kept,
and an answer that was on its way meanwhile is not kept either: it may be made of the old rows.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID
from weakref import WeakSet

from cqrs_lab.store.categories import naive
from cqrs_lab.store.database import Row

_PLAIN = (str, int, bool, bytes, Decimal, UUID, date, datetime)  # equal in Python exactly when they are equal in DuckDB

Key = tuple[str, str]
"""The name of a read model, in lower case, and how it is served."""
Need = tuple[tuple[str, Any], ...]
"""Columns with the values that a row must have to matter; all rows matter when it names none."""


class Entry(Protocol):
    """An answer that is kept."""

    @property
    def needs(self) -> Sequence[Need]:
        """The rows that it depended on."""


class Cache(Protocol):
    """The answers that one lab keeps."""

    @property
    def entries(self) -> Mapping[Key, Any]:
        """Serving -> query -> answer."""


@dataclass
class Answers:
    """All caches over one file, and which servings are being changed.

    Attributes:
        lock: of everything here, and of the entries.
        all: the caches.
        most_rows: changed at once that are looked at one by one; when there are more, all answers go.
    """

    lock: threading.RLock = field(default_factory=threading.RLock)
    all: WeakSet[Cache] = field(default_factory=WeakSet)
    most_rows: int = 10_000
    _changes: Counter[Key | None] = field(default_factory=Counter)  # begun so far; None stands for all servings
    _open: Counter[Key | None] = field(default_factory=Counter)

    def seen(self, place: Key) -> tuple[int, int] | None:
        """Return what tells whether a serving is changed from now on, None while it is being changed."""
        if self._open[place] or self._open[None]:
            return None
        return self._changes[place], self._changes[None]

    def begin(self, place: Key | None) -> None:
        """Keep no more answers of a serving, or of all: its rows are about to change."""
        with self.lock:
            self._changes[place] += 1
            self._open[place] += 1

    def end(self, place: Key | None) -> None:
        """Keep answers again: the change is committed, or was given up."""
        with self.lock:
            self._open[place] -= 1

    def needs(self, place: Key) -> list[Need]:
        """Return what the answers of a serving depended on."""
        with self.lock:
            kept = [entry for cache in self.all for entry in list(cache.entries.get(place, {}).values())]
        return [need for entry in kept for need in entry.needs]

    def drop(self, place: Key | None, columns: Sequence[str] = (), rows: Sequence[Row] | None = None) -> None:
        """Drop what depended on rows that are about to change, given as they were and as they will be; all when None.

        Called between `begin` and `end`.
        """
        changed = None if rows is None or len(rows) > self.most_rows else _Changed(columns, rows)
        with self.lock:
            for cache in self.all:
                for where, entries in cache.entries.items():
                    if place not in (None, where):
                        continue
                    for key, entry in list(entries.items()):
                        if changed is None or any(changed.reaches(need) for need in entry.needs):
                            entries.pop(key, None)


class _Changed:
    """Rows as they were and as they will be, asked whether an answer could have depended on one of them."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        self._columns = {name.lower(): number for number, name in enumerate(columns)}
        self._rows = rows
        self._found: dict[tuple[str, ...], tuple[list[set[type]], set[Row]]] = {}

    def reaches(self, need: Need) -> bool:
        """Return whether one of the rows has the values; also when it cannot be told."""
        names = tuple(name for name, _ in need)
        if names not in self._found:
            self._found[names] = self._look(names)
        kinds, found = self._found[names]
        for (_, value), kind in zip(need, kinds, strict=True):
            # DuckDB casts where kinds differ: to say what equals what is then its business.
            if value is not None and (type(value) not in _PLAIN or not kind <= {type(value)}):
                return True
        return tuple(value for _, value in need) in found

    def _look(self, names: Iterable[str]) -> tuple[list[set[type]], set[Row]]:
        numbers = [self._columns[name] for name in names]
        plain = [tuple(_plain(row[number]) for number in numbers) for row in self._rows]
        return [{type(row[n]) for row in plain if row[n] is not None} for n in range(len(numbers))], set(plain)


def _plain(value: Any) -> Any:
    """A value to compare with; what cannot be compared safely stands as a kind of its own."""
    if isinstance(value, datetime):
        return naive(value) if value.tzinfo else value
    return value if value is None or type(value) in _PLAIN else _OTHER


_OTHER = object()
