"""Dead letters: events that a follower of the log set aside, because they failed there.

Owns the table of them, what is known of it in memory, and who sets events aside instead of stopping before them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import pyarrow as pa

from cqrs_lab.errors import NotServed
from cqrs_lab.store.categories import naive
from cqrs_lab.store.database import Database, Row
from cqrs_lab.store.log import Log
from cqrs_lab.store.rows import Rows

OnError = Literal["stop", "dead letter"]
_ATTEMPTS = 3  # by hand, before an event is set aside


class DeadLetters:
    """The events that were set aside, by whoever follows the log under a name.

    Args:
        log: the log.
    """

    # Known in memory because one process holds the file, and asked with every move: name -> its positions; and who
    # was told to set events aside.
    _KNOWN: WeakKeyDictionary[Database, tuple[dict[str, list[int]], set[str]]] = WeakKeyDictionary()

    def __init__(self, log: Log) -> None:
        self._log, self._run = log, log.database.execute
        if log.database not in self._KNOWN:
            self.load()

    def load(self) -> None:
        """Read what the tables say; called at open and after a transaction that did not end well."""
        letters: dict[str, list[int]] = {}
        for name, position in self._letters("model, position"):
            letters.setdefault(name.lower(), []).append(position)
        told = self._run("SELECT name FROM store WHERE starts_with(name, 'dead letters ')")
        self._KNOWN[self._log.database] = letters, {name.removeprefix("dead letters ").lower() for (name,) in told}

    def of(self, name: str) -> list[int]:
        """Return the positions that were set aside, in order."""
        return self._KNOWN[self._log.database][0].get(name.lower(), [])

    def without(self, name: str) -> str:
        """Return the condition, to go on after a WHERE, that leaves out what it has set aside."""
        dead = self.of(name)
        return f" AND position NOT IN ({', '.join(map(str, dead))})" if dead else ""

    @property
    def names(self) -> list[str]:
        """Whoever has set events aside."""
        return sorted(self._KNOWN[self._log.database][0])

    def is_told(self, name: str) -> bool:
        """Return whether it sets events aside, and does not stop before them."""
        return name.lower() in self._KNOWN[self._log.database][1]

    def attempts(self, name: str, given: int | None) -> int:
        """Return how often what fails is tried by hand: as given, else often only when it is then set aside."""
        return given or (_ATTEMPTS if self.is_told(name) else 1)

    def tell(self, name: str, on_error: OnError) -> None:
        """Store what is to be done with an event that fails.

        Raises:
            NotServed: it is neither "stop" nor "dead letter".
        """
        if on_error not in get_args(OnError):
            raise NotServed(f"on_error is {' or '.join(map(repr, get_args(OnError)))}, not {on_error!r}")
        if (on_error == "stop") == self.is_told(name):
            with self._log.database.transaction():
                self._run("DELETE FROM store WHERE lower(name) = ?", [f"dead letters {name.lower()}"])
                if on_error != "stop":
                    self._run("INSERT INTO store VALUES (?, ?)", [f"dead letters {name}", on_error])
            self.load()

    def put(self, name: str, position: int, error: BaseException, attempts: int) -> None:
        """Set an event aside, in the open transaction; one that is set aside already has failed again."""
        cause = error.__cause__ or error
        before = self._run(
            "SELECT attempts FROM dead_letters WHERE lower(model) = ? AND position = ?", [name.lower(), position]
        )
        kind = self._log.events(after=position - 1, positions=[position]).dicts()[0]["type"]
        said = f"{type(cause).__name__}: {cause}"[:500]
        attempts += before[0][0] if before else 0
        now = naive(datetime.now(UTC))
        row = [name, position, kind, said, attempts, now]
        other = "DELETE FROM dead_letters WHERE lower(model) = ? AND position = ? AND model <> ?"
        self._run(other, [name.lower(), position, name])
        self._run("INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?)", row)
        self.load()

    def drop(self, name: str, position: int) -> None:
        """Take an event back, in the open transaction."""
        self._run("DELETE FROM dead_letters WHERE lower(model) = ? AND position = ?", [name.lower(), position])
        self.load()

    def rows(self) -> Rows:
        """Return what was set aside, with the events (see `Lab.dead_letters`)."""
        letters = self._letters('model, position, error, attempts, "at"')
        positions = sorted({letter[1] for letter in letters})
        events = {row["position"]: row for row in self._log.events(positions=positions).dicts()} if positions else {}
        told = [
            {
                "model": model,
                **{name: events[position][name] for name in ("position", "stream", "type", "occurred_at", "data")},
                "error": error,
                "attempts": attempts,
                "at": at.replace(tzinfo=UTC),
            }
            for model, position, error, attempts, at in letters
        ]
        return Rows.of(self._log, pa.Table.from_pylist(told, schema=_LETTERS))

    def state(self, name: str) -> str:
        """Return "ok", with the number of events that were set aside."""
        count = len(self.of(name))
        return f"ok, {count} dead letter{'s' if count > 1 else ''}" if count else "ok"

    def _letters(self, columns: str) -> list[Row]:
        if self._log.database.read_only and not self._run(
            "SELECT 1 FROM duckdb_tables() WHERE table_name = 'dead_letters' AND database_name = current_database()"
        ):
            return []  # a store that an earlier version made
        return self._run(f"SELECT {columns} FROM dead_letters ORDER BY model, position")


_LETTERS = pa.schema(
    [  # type: ignore[arg-type, unused-ignore]
        ("model", pa.string()),
        ("position", pa.int64()),
        ("stream", pa.string()),
        ("type", pa.string()),
        ("occurred_at", pa.timestamp("us", "UTC")),
        ("data", pa.string()),
        ("error", pa.string()),
        ("attempts", pa.int64()),
        ("at", pa.timestamp("us", "UTC")),
    ]
)
