"""Behind the lab: what a server needs of it that `Lab` does not offer.

Owns every look past `Lab`: the receipts that are remembered, the servings that answer, and how a statement is stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar
from uuid import uuid4

from cqrs_lab.app import Lab
from cqrs_lab.errors import NotYet, QueryTooLong
from cqrs_lab.messages import Command, Event, Query, Recorded
from cqrs_lab.read.projection import Model
from cqrs_lab.read.served import chosen, reach
from cqrs_lab.read.table import ServedAs
from cqrs_lab.store.log import Log
from cqrs_lab.store.memory import Heads
from cqrs_lab.write.event_store import EventStore

T = TypeVar("T")
_LOOK = 0.25  # seconds between two looks whether the server is about to stop


def commands(lab: Lab) -> dict[str, type[Command]]:
    """Return the commands of a lab by their names."""
    return {kind.__name__: kind for kind in lab._commands.handlers}


def queries(lab: Lab) -> dict[str, type[Query]]:
    """Return the queries of a lab by their names."""
    return {kind.__name__: kind for kind in lab._queries.queries}


def log(lab: Lab) -> Log:
    """Return the log of a lab."""
    return lab._log


def store(lab: Lab) -> EventStore:
    """Return where a lab appends."""
    return lab._store


def heads(lab: Lab) -> Heads:
    """Return where the log ends, and what wakes when it moves."""
    return lab._log.heads


def mark(lab: Lab, model: Model, served_as: ServedAs | None, start: str) -> tuple[int, str]:
    """Return the position that an answer about a read model tells now, and the tag of such answers.

    Rows can change at one position: an erasure, a retry of an event that was set aside, a rebuild. So the tag counts
    the changes, too. Nothing counts those of the time before this server began, in which the code may have changed as
    well: a tag holds for one server.

    Args:
        start: what tells this server from those before it.
    """
    served = chosen(lab._servings.running, model, served_as)
    position = served.position
    changes = lab._log.memory.answers.seen((served.model.id, served.as_))
    # While rows are being changed it cannot be told which ones are sent: that tag is used once.
    count = sum(changes) if changes is not None else f"x{uuid4().hex[:8]}"
    return position, f'"{position}.{start}.{count}"'


def wait(
    lab: Lab,
    model: Model,
    served_as: ServedAs | None,
    position: int,
    seconds: float,
    is_stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Return once a serving tells the log up to a position (see `Lab.ask`).

    Args:
        is_stopping: looked at now and then; a caller that waits is then told that it is not yet there.
    """
    until = time.monotonic() + seconds
    while True:
        left = until - time.monotonic()
        slice_ = max(0.0, min(left, _LOOK))
        began = time.monotonic()
        try:
            return reach(lab._servings.running, model, position, slice_, served_as)
        except NotYet as late:
            if time.monotonic() - began < slice_:  # it fails, and says why
                raise
            if left <= slice_ or is_stopping():
                raise NotYet(
                    f"{model.name} is at position {late.position or 0:,} and not yet at {position:,} after "
                    f"{seconds:g} s; ask again, or wait longer",
                    late.position,
                ) from None


def status(lab: Lab, command_id: str) -> dict[str, Any] | None:
    """Return what became of a command, None when none of that id was carried out.

    Returns:
        position (of its last event), correlation_id, state ("processing" until all read models tell it, then "done")
        and read_models: for each serving model, served_as, mode, position and state.
    """
    found = lab._store.remembered(command_id)
    if found is None:
        return None
    models = [
        {
            "model": served.model.name,
            "served_as": served.as_,
            "mode": served.mode,
            "position": served.position,
            "state": "done" if served.position >= found.last else "processing",
        }
        for served in lab._servings.served()
    ]
    return {
        "command_id": command_id,
        "correlation_id": found.correlation_id,
        "position": found.last,
        "state": "done" if all(model["state"] == "done" for model in models) else "processing",
        "read_models": models,
    }


def wait_for_all(lab: Lab, position: int, seconds: float, is_stopping: Callable[[], bool]) -> None:
    """Return once every read model that moves by itself tells a position, or the time is over."""
    until = time.monotonic() + seconds
    for served in lab._servings.served():
        if served.mode == "background" and served.position < position:
            with suppress(NotYet):
                wait(lab, served.model, served.as_, position, max(0.0, until - time.monotonic()), is_stopping)


def read_events(lab: Lab, after: int, up_to: int, limit: int, category: str | None = None) -> list[Recorded]:
    """Return events behind a position, in order."""
    return lab._log.read_events(types(lab, category), after, up_to, limit)


def types(lab: Lab, category: str | None = None) -> list[type[Event]]:
    """Return the event classes of a lab, or of one category.

    Raises:
        DeclarationError: there is no such category.
    """
    chosen = lab._categories.values() if category is None else [lab._category(category)]
    return [event for one in chosen for event in one.events]


class Stoppable(Generic[T]):
    """A call that can be stopped from another thread.

    Args:
        lab: whose statements are stopped.
        call: what is called; it changes nothing, or all of it in one transaction.
    """

    def __init__(self, lab: Lab, call: Callable[[], T]) -> None:
        self._database, self._memory, self._call = lab._log.database, lab._log.memory, call
        self._guard = threading.Lock()
        self._thread: int | None = None
        self.is_done = self.is_stopped = False

    def __call__(self) -> T:
        """Do it.

        Raises:
            QueryTooLong: it was stopped.
        """
        with self._guard:
            self._thread = threading.get_ident()
        try:
            if self.is_stopped:
                raise KeyboardInterrupt
            return self._call()
        except KeyboardInterrupt:  # must not reach the event loop, which it would end
            self._end()
            self._memory.check()  # a move that was stopped may have left it unread, and this thread may end
            raise QueryTooLong("the answer took longer than this server allows; ask for less") from None
        finally:
            self._end()

    def _end(self) -> None:
        with self._guard:
            self.is_done = True

    def stop(self) -> None:
        """Stop the statement that it runs; called again and again, for it may be between two of them."""
        with self._guard:
            self.is_stopped = True
            if self._thread is not None and not self.is_done:
                self._database.interrupt(self._thread)
