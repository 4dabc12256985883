"""The cache of answers: what was answered lately, kept until a row that it could have seen is about to change.

Owns the entries and when they go. An entry knows which rows its answer depended on: that with a key, those where a
column has a value, or all. Whoever changes rows of a stored serving says so before the change can be seen (`begin`,
`drop`) and once it is committed or given up (`end`). In between nothing is kept, and an answer that was on its way
meanwhile is not kept either: it may be made of the old rows.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary, WeakSet

from cachetools import TTLCache

from cqrs_lab.messages import Query
from cqrs_lab.read.served import Served, as_stored
from cqrs_lab.store.database import Database, Row
from cqrs_lab.store.rows import Rows

_MOST = 10_000  # answers kept
_PLAIN = (str, int, bool, bytes, Decimal, UUID, date, datetime)  # equal in Python exactly when they are equal in DuckDB

Key = tuple[str, str]
"""The name of a read model and how it is served."""
Need = tuple[tuple[str, Any], ...]
"""Columns with the values that a row must have to matter; all rows matter when it names none."""


@dataclass(frozen=True)
class Entry:
    """An answer, the Rows in it (which never change, so they are not copied), and the rows that it depended on."""

    answer: Any
    rows: list[Rows]
    needs: list[Need]

    def taken(self) -> Any:
        """Return an answer that its receiver may change."""
        return _copied(self.answer, self.rows)


class Cache:
    """The answers that one lab keeps.

    Args:
        seconds: how long, at most.
        caches: all caches over the same store, which hear of the same changes.
    """

    def __init__(self, seconds: float, caches: Caches) -> None:
        self.caches = caches
        self.entries: dict[Key, TTLCache[Any, Entry]] = {}
        self._seconds = seconds
        caches.all.add(self)

    def answer(self, query: Query, served: Served) -> tuple[Any, bool]:
        """Return the answer of a serving to a query, and whether it was kept from before.

        Not kept is what a view answers, for it is always fresh; what a query that has no hash is answered; and an
        answer for which more was read than get(), where() and all rows, or that cannot be copied.
        """
        key = (query, repr(query))  # 1 == True: equal queries may still ask for different things
        if served.as_ == "view" or served.state != "ok" or not _has_hash(query):
            return query.answer(served), False
        place = (served.model.id, served.as_)
        with self.caches.lock:
            kept = self.entries.setdefault(place, TTLCache(_MOST, self._seconds, time.monotonic)).get(key)
            seen = self.caches.seen(place)
        if kept is not None:
            return kept.taken(), True
        read = Recorder(served)
        answer = query.answer(read)
        if seen is not None and read.is_known:
            try:
                entry = Entry(_copied(answer, read.handed), read.handed, read.needs)
            except Exception:  # a generator, say: whoever looks at it uses it up
                return answer, False
            with self.caches.lock:
                if self.caches.seen(place) == seen:
                    self.entries[place][key] = entry
        return answer, False


class Recorder:
    """What a query reads when its answer is to be kept: a serving that remembers what it was asked for."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.needs: list[Need] = []
        self.handed: list[Rows] = []
        self.is_known = True
        # With a collation 'a' may equal 'A', and only DuckDB knows.
        self._is_exact = not served.model.sql or "collate" not in served.text.lower()

    def get(self, *key: Any) -> dict[str, Any] | None:
        """Return the row with that key (see `Served.get`)."""
        self._need(zip(self._served.model.keys, key, strict=False))
        return self._served.get(*key)

    def where(self, **equals: Any) -> Rows:
        """Return the rows whose columns equal the given values (see `Served.where`)."""
        self._need(equals.items())
        return self._fetched(self._served.where(**equals))

    def rows(self) -> Rows:
        """Return all rows."""
        self._need(())
        return self._fetched(self._served.rows())

    def __getattr__(self, name: str) -> Any:
        if name in ("pl", "df", "arrow"):
            self._need(())
        else:
            self.is_known = False  # sql() may even read the log
        return getattr(self._served, name)

    def _need(self, values: Iterable[tuple[str, Any]]) -> None:
        need = tuple((name.lower(), as_stored(value)) for name, value in values)
        self.needs.append(need if self._is_exact else ())

    def _fetched(self, rows: Rows) -> Rows:
        """Fetch now what is fetched at the first look otherwise: that could be after the rows have changed."""
        rows.arrow()
        self.handed.append(rows)
        return rows


class Caches:
    """All caches over one store, and which servings are being changed.

    Attributes:
        lock: of everything here, and of the entries.
        all: the caches.
        most_rows: changed at once that are looked at one by one; when there are more, all answers go.
    """

    most_rows = 10_000

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.all: WeakSet[Cache] = WeakSet()
        self._changes: Counter[Key | None] = Counter()  # begun so far; None stands for all servings
        self._open: Counter[Key | None] = Counter()

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
        changed = None if rows is None or len(rows) > self.most_rows else Changed(columns, rows)
        with self.lock:
            for cache in self.all:
                for where, entries in cache.entries.items():
                    if place not in (None, where):
                        continue
                    for key, entry in list(entries.items()):
                        if changed is None or any(changed.reaches(need) for need in entry.needs):
                            entries.pop(key, None)


class Changed:
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

    def _look(self, names: tuple[str, ...]) -> tuple[list[set[type]], set[Row]]:
        numbers = [self._columns[name] for name in names]
        plain = [tuple(_plain(row[number]) for number in numbers) for row in self._rows]
        return [{type(row[n]) for row in plain if row[n] is not None} for n in range(len(numbers))], set(plain)


_CACHES: WeakKeyDictionary[Database, Caches] = WeakKeyDictionary()


def caches_of(database: Database) -> Caches:
    """Return the caches over a store; all labs over it share them, as they share its rows."""
    return _CACHES.setdefault(database, Caches())


def _plain(value: Any) -> Any:
    """A value to compare with; what cannot be compared safely stands as a kind of its own."""
    if isinstance(value, datetime):
        return as_stored(value) if value.tzinfo else value
    return value if value is None or type(value) in _PLAIN else _OTHER


_OTHER = object()


def _has_hash(query: Query) -> bool:
    try:
        hash(query)
    except TypeError:
        return False
    return True


def _copied(answer: Any, rows: Sequence[Rows]) -> Any:
    return copy.deepcopy(answer, {id(one): one for one in rows})
