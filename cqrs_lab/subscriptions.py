"""Subscriptions: following the log, event by event from a checkpoint, or in a thread that wakes when it grows.

Owns the checkpoints of followers, such as sagas, and the thread. An event is handed over at least once: the checkpoint
is stored after it was handled, so that a crash in between brings it again, and whoever follows must be able to see it
twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from weakref import WeakMethod

from cqrs_lab.errors import StoreClosed
from cqrs_lab.log import Heads, Log
from cqrs_lab.messages import Event, Recorded

_LOOK = 1.0  # seconds after which a runner looks whether anybody still wants it
_PATIENCE = 5.0  # seconds to wait for a runner to end
_CHUNK = 500  # events read at once; also the most that come again after a crash


class Follower:
    """Whoever follows the log.

    Args:
        log: what is followed.
        name: under which its checkpoint is kept.
        kind: what follows, such as "saga".
        events: the event classes to hand over.
        handle: takes one event.
        after: the position to begin behind when it follows for the first time; the head when None.
    """

    def __init__(
        self,
        log: Log,
        name: str,
        kind: str,
        events: Sequence[type[Event]],
        handle: Callable[[Recorded], None],
        after: int | None = None,
    ) -> None:
        self.log, self.name, self.kind = log, name, kind
        self._events, self._handle = list(events), handle
        self._lock = log.database.lock(f"{kind} {name}")
        with self._lock:
            if self._stored() is None and not log.database.read_only:
                self._store(log.head if after is None else after)

    @property
    def position(self) -> int:
        """The position up to which it has seen the log."""
        return self._stored() or 0

    def catch_up(self, *, to: int | None = None) -> int:
        """Hand over what is new, and what that leads to, until the head or a position before it is reached.

        Returns:
            The position reached.
        """
        with self._lock:
            while True:
                start = self.position
                end = self.log.head if to is None else min(to, self.log.head)
                if end <= start:
                    return start
                batch = self.log.read_events(self._events, start, end, _CHUNK)
                done = start
                try:
                    for recorded in batch:
                        self._handle(recorded)
                        done = recorded.position
                    done = batch[-1].position if len(batch) == _CHUNK else end
                finally:
                    if done > start:
                        self._store(done)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}, at position {self.position} of {self.log.head}>"

    def _stored(self) -> int | None:
        found = self.log.database.execute(
            "SELECT position FROM servings WHERE model = ? AND served_as = ?", [self.name, self.kind]
        )
        return found[0][0] if found else None

    def _store(self, position: int) -> None:
        with self.log.database.transaction():
            self.log.database.execute(
                "INSERT OR REPLACE INTO servings VALUES (?, ?, 'manual', '', ?)", [self.name, self.kind, position]
            )


class Runner:
    """A thread that works whenever the log has grown, or when its work says so.

    Args:
        heads: where the log ends; notified at every append.
        work: a weak reference to what is to be done. It returns the seconds until it wants to be called though nothing
            was appended, None when it does not. The thread ends when what it refers to is gone.

    Attributes:
        error: what ended the thread, None while it runs or when it was stopped.
    """

    def __init__(self, heads: Heads, work: WeakMethod[Callable[[], float | None]]) -> None:
        self.error: BaseException | None = None
        self._heads, self._work, self._stopped = heads, work, False
        # A daemon: a program that ends without closing its lab must not wait for it.
        self._thread = threading.Thread(target=self._run, name="cqrs_lab runner", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Have it look again."""
        with self._heads.moved:
            self._heads.moved.notify_all()

    def stop(self) -> None:
        """End the thread and wait for it, unless it is this one."""
        self._stopped = True
        self.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        heads = self._heads
        try:
            while not self._stopped:
                seen, work = heads.position, self._work()
                if work is None:
                    return
                wait = work()
                del work  # nobody else may hold the lab while this waits
                with heads.moved:
                    if heads.position == seen and not self._stopped:
                        heads.moved.wait(_LOOK if wait is None else min(wait, _LOOK))
        except StoreClosed:
            pass
        except BaseException as error:
            self.error = error
