"""Dead letters: events that a follower of the log set aside, because they failed there.

Owns the table of them, and who sets events aside instead of stopping before them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, get_args

import pyarrow as pa

from cqrs_lab.errors import NotServed
from cqrs_lab.store.categories import naive
from cqrs_lab.store.listing import listed
from cqrs_lab.store.log import Log
from cqrs_lab.store.memory import letter_rows
from cqrs_lab.store.move import Move, moving
from cqrs_lab.store.rows import Rows

OnError = Literal["stop", "dead letter"]
_ATTEMPTS = 3  # by hand, before an event is set aside


class DeadLetters:
    """The events that followers of the log set aside, each follower under its name.

    Args:
        log: the log.
    """

    def __init__(self, log: Log) -> None:
        self._log, self._memory, self._run = log, log.memory, log.database.execute

    def of(self, name: str) -> list[int]:
        """Return the positions that were set aside, in order."""
        return self._memory.set_aside.positions.get(name.lower(), [])

    def without(self, name: str) -> str:
        """Return the condition, to go on after a WHERE, that leaves out what it has set aside."""
        dead = self.of(name)
        return f" AND position NOT IN ({', '.join(map(str, dead))})" if dead else ""

    @property
    def names(self) -> list[str]:
        """The followers that have set events aside."""
        return sorted(self._memory.set_aside.positions)

    def is_told(self, name: str) -> bool:
        """Return whether it sets events aside, and does not stop before them."""
        return name.lower() in self._memory.set_aside.told

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
            with moving(self._memory) as move:
                self._run("DELETE FROM store WHERE lower(name) = ?", [f"dead letters {name.lower()}"])
                if on_error != "stop":
                    self._run("INSERT INTO store VALUES (?, ?)", [f"dead letters {name}", on_error])
                move.lettered()

    def put(self, move: Move, name: str, position: int, error: BaseException, attempts: int) -> None:
        """Set an event aside as part of a move; one that is set aside already has failed again."""
        cause = error.__cause__ or error
        before = self._run(
            "SELECT attempts FROM dead_letters WHERE lower(model) = ? AND position = ?", [name.lower(), position]
        )
        kind = listed(self._log, after=position - 1, positions=[position]).dicts()[0]["type"]
        said = f"{type(cause).__name__}: {cause}"[:500]
        attempts += before[0][0] if before else 0
        now = naive(datetime.now(UTC))
        row = [name, position, kind, said, attempts, now]
        other = "DELETE FROM dead_letters WHERE lower(model) = ? AND position = ? AND model <> ?"
        self._run(other, [name.lower(), position, name])
        self._run("INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?)", row)
        move.lettered()

    def drop(self, move: Move, name: str, position: int) -> None:
        """Take an event back as part of a move."""
        self._run("DELETE FROM dead_letters WHERE lower(model) = ? AND position = ?", [name.lower(), position])
        move.lettered()

    def rows(self) -> Rows:
        """Return what was set aside, with the events (see `Lab.dead_letters`)."""
        letters = letter_rows(self._log.database, 'model, position, error, attempts, "at"')
        positions = sorted({letter[1] for letter in letters})
        events = {row["position"]: row for row in listed(self._log, positions=positions).dicts()} if positions else {}
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
