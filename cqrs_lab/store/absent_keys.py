"""Absent keys: of most keys that are new, memory knows that no table has them.

Owns hashes of all values of a key. A command for a new stream asks whether it is there, and so does one with an id of
the sender's: of the 5.3 ms of a send these two questions took 0.9. The keys of the tables still decide; what a wrong
answer here could do is that they refuse an append.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cqrs_lab.sql.names import quote
from cqrs_lab.store.database import Database

_WORTH = 1_000  # keys that are learnt for each question that was in vain: a million in 0.3 s, after a thousand of them
_MOST = 2_000_000  # keys that are learnt at all, 16 MB
_LOOSE = 100_000  # keys that are kept one by one, before they go to the others


class AbsentKeys:
    """The keys that a table has, by which it is told what it lacks.

    Args:
        table: its name.
        column: the column of its key, a text.
    """

    def __init__(self, table: str, column: str) -> None:
        self._table, self.column = table, column
        self._learnt: np.ndarray | None = None
        self._added: set[int] = set()
        self._in_vain = 0

    def lacks(self, key: str) -> bool:
        """Return whether the table is sure to lack a key; from any thread."""
        added, learnt = self._added, self._learnt  # in this order: `add` moves keys from the first to the second
        if learnt is None:
            return False
        number = hash(key)
        at = int(learnt.searchsorted(number))
        return number not in added and (at == len(learnt) or int(learnt[at]) != number)

    def asked_in_vain(self, database: Database) -> None:
        """Say that the table was asked for a key that it lacks; by a thread that holds the log, so that nothing comes.

        All keys are learnt once that has happened often enough to be worth it.
        """
        self._in_vain += 1
        # They are counted after one such question, two, four and so on, for to count takes as long as to ask.
        if self._learnt is not None or self._in_vain & (self._in_vain - 1):
            return
        table = quote(self._table)
        count = database.execute(f"SELECT count(*) FROM {table}")[0][0]
        if count <= min(_MOST, _WORTH * self._in_vain):
            keys = database.arrow(f"SELECT {quote(self.column)} FROM {table}").column(0).to_pylist()
            self._learnt = np.sort(np.fromiter(map(hash, keys), np.int64, len(keys)))

    def add(self, keys: Iterable[str]) -> None:
        """Say that the table is about to get keys; by the thread that holds the log."""
        self._added.update(map(hash, keys))
        if self._learnt is not None and len(self._added) > _LOOSE:
            self._learnt = np.union1d(self._learnt, np.fromiter(self._added, np.int64, len(self._added)))
            self._added = set()

    def forget(self) -> None:
        """Know nothing any more: the table got keys that were not told, or its transaction was undone."""
        self._learnt, self._in_vain = None, 0
