"""The cache of answers: what was answered lately, kept until a row that it could have seen is about to change.

Owns the entries. An entry knows which rows its answer depended on: that with a key, those where a column has a value,
or all. When it goes is decided by `cqrs_lab.store.answers`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import TTLCache

from cqrs_lab.messages import Query
from cqrs_lab.read.served import Served
from cqrs_lab.store.answers import Answers, Key, Need
from cqrs_lab.store.categories import as_stored
from cqrs_lab.store.rows import Rows

_MOST = 10_000  # answers kept
_MOST_ROWS = 100_000  # of an answer that is kept


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
        answers: what all caches over the same store hear of changes.
    """

    def __init__(self, seconds: float, answers: Answers) -> None:
        self._answers = answers
        self.entries: dict[Key, TTLCache[Any, Entry]] = {}
        self._seconds = seconds
        answers.all.add(self)

    def answer(self, query: Query, served: Served) -> tuple[Any, bool]:
        """Return the answer of a serving to a query, and whether it was kept from before.

        Not kept is what a view answers, for it is always fresh; what a query that has no hash is answered; and an
        answer for which more was read than get(), where() and all rows, that has very many rows, or that cannot be
        copied.
        """
        key = (query, repr(query))  # 1 == True: equal queries may still ask for different things
        if served.as_ == "view" or served.state != "ok" or not _has_hash(query):
            return query.answer(served), False
        place = (served.model.id, served.as_)
        with self._answers.lock:
            kept = self.entries.setdefault(place, TTLCache(_MOST, self._seconds, time.monotonic)).get(key)
            seen = self._answers.seen(place)
        if kept is not None:
            return kept.taken(), True
        read = Recorder(served)
        answer = query.answer(read)
        if seen is not None and read.is_known:
            try:
                entry = Entry(_copied(answer, read.handed), read.handed, read.needs)
            except Exception:  # a generator, say: whoever looks at it uses it up
                return answer, False
            with self._answers.lock:
                if self._answers.seen(place) == seen:
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
        if rows.fetch(_MOST_ROWS):
            self.handed.append(rows)
        else:  # as without a cache: who asked may want a part of them
            self.is_known = False
        return rows


def _has_hash(query: Query) -> bool:
    try:
        hash(query)
    except TypeError:
        return False
    return True


def _copied(answer: Any, rows: Sequence[Rows]) -> Any:
    return copy.deepcopy(answer, {id(one): one for one in rows})
