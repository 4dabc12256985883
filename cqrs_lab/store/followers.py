"""Followers of the log: event by event from a checkpoint, or in a thread that wakes when it grows.

Owns the checkpoints of followers, such as sagas, the events that were set aside (dead letters), the words for how far
somebody is behind, and the thread. An event is handed over at least once: the checkpoint is stored after it was
handled, so that a crash in between brings it again, and whoever follows must be able to see it twice. An event that
fails is tried again, after a pause that grows; then whoever follows stops before it or, when told so, sets it aside and
goes on.
"""

from __future__ import annotations

import atexit
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from weakref import WeakMethod, WeakSet

import pyarrow as pa

from cqrs_lab.errors import StoreClosed, StoreError
from cqrs_lab.messages import Event, Recorded
from cqrs_lab.store.dead_letters import DeadLetters, OnError
from cqrs_lab.store.log import Log
from cqrs_lab.store.memory import Checkpoint, Heads
from cqrs_lab.store.move import moving
from cqrs_lab.store.rows import Rows

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 30.0  # seconds

_LOOK = 1.0  # seconds after which a runner looks whether anybody still wants it
_PATIENCE = 5.0  # seconds to wait for a runner to end
_CHUNK = 500  # events read at once; also the most that come again after a crash


def pause_after(attempts: int) -> float:
    """Return the seconds to wait after so many attempts in a row."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**attempts) * random.uniform(0.5, 1)


Standing = tuple[str, str, str, int, str, str | None]
"""Of one that follows the log: model, served_as, mode, position, state, error."""


def lag(log: Log, standings: Iterable[Standing]) -> Rows:
    """Return how far behind the log some are that follow it (see `Lab.lag`)."""
    head, now, rows = log.head, datetime.now(UTC), []
    for model, served_as, mode, position, state, error in standings:
        oldest = log.recorded_after(position) if position < head else None
        seconds = max((now - oldest).total_seconds(), 0.0) if oldest else 0.0
        rows.append((model, served_as, mode, position, head, head - position, seconds, state, error))
    return Rows.of(log, pa.Table.from_pylist([dict(zip(_LAG.names, row, strict=True)) for row in rows], schema=_LAG))


_LAG = pa.schema(
    [  # type: ignore[arg-type, unused-ignore]
        ("model", pa.string()),
        ("served_as", pa.string()),
        ("mode", pa.string()),
        ("position", pa.int64()),
        ("head", pa.int64()),
        ("events_behind", pa.int64()),
        ("seconds_behind", pa.float64()),
        ("state", pa.string()),
        ("error", pa.string()),
    ]
)


class Follower:
    """Whoever follows the log.

    Args:
        log: what is followed.
        name: under which its checkpoint is kept.
        kind: what follows, such as "saga".
        events: the event classes to hand over.
        handle: takes one event.
        after: the position to begin behind when it follows for the first time; the head when None.
        on_error: "stop" before an event that fails, or set it aside as a "dead letter"; None: as it did, and "stop"
            when it is new.

    Attributes:
        error: why it stopped when it moved last, None when it did not.
    """

    def __init__(
        self,
        log: Log,
        name: str,
        kind: str,
        events: Sequence[type[Event]],
        handle: Callable[[Recorded], None],
        after: int | None = None,
        on_error: OnError | None = None,
    ) -> None:
        self.log, self.name, self.kind = log, name, kind
        self.error: str | None = None
        self.dead = DeadLetters(log)
        if on_error is not None:
            self.dead.tell(name, on_error)
        self._events, self._handle = list(events), handle
        self._lock = log.database.lock(f"{kind} {name}")
        with self._lock:
            if self._stored() is None and not log.database.read_only:
                self._store(log.head if after is None else after)

    @property
    def position(self) -> int:
        """The position up to which it has seen the log."""
        return self._stored() or 0

    def catch_up(self, *, to: int | None = None, attempts: int | None = None) -> int:
        """Hand over what is new, and what that leads to, until the head or a position before it is reached.

        What other writers append meanwhile is left to the next call, or this one would not end while they go on.

        Args:
            attempts: how often an event that fails is tried, with pauses that grow; None: 3 times when it is then set
                aside, once when it is not.

        Returns:
            The position reached.
        """
        told = self.dead.is_told(self.name)
        attempts = self.dead.attempts(self.name, attempts)
        stories: set[str] = set()
        end = self.log.head if to is None else min(to, self.log.head)
        with self._lock:
            while True:
                start = self.position
                if end <= start and to is None and stories:
                    end = self.log.last_of(stories, start)
                    stories.clear()
                if end <= start:
                    return start
                batch = self.log.read_events(self._events, start, end, _CHUNK)
                done = start
                try:
                    for recorded in batch:
                        self._try(recorded, attempts, told)
                        if recorded.correlation_id is not None:
                            stories.add(recorded.correlation_id)
                        done = recorded.position
                    done = batch[-1].position if len(batch) == _CHUNK else end
                finally:
                    if done > start:
                        self._store(done)

    def _try(self, recorded: Recorded, attempts: int, told: bool) -> None:
        """Hand one event over, as often as it takes, and set it aside when that is what it was told."""
        for attempt in range(1, attempts + 1):
            try:
                self._handle(recorded)
                self.error = None
                return
            except Exception as error:
                self.error = f"{type(error).__name__}: {error}"
                if isinstance(error, StoreError) or (attempt == attempts and not told):
                    raise  # a store that is full or closed is not the event's fault
                if attempt < attempts:
                    time.sleep(pause_after(attempt))
                    continue
                self._store(recorded.position, error, attempts)
                self.error = None

    def retry(self) -> int:
        """Hand over again what was set aside, in order; return how many events are done with now."""
        done = 0
        with self._lock:
            for position in list(self.dead.of(self.name)):
                try:
                    for recorded in self.log.read_events(self._events, position - 1, position, 1):
                        self._handle(recorded)
                except StoreError:
                    raise
                except Exception as error:
                    self._store(self.position, error, 1, letter=position)
                    continue
                with moving(self.log.memory) as move:
                    self.dead.drop(move, self.name, position)
                done += 1
        return done

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}, at position {self.position} of {self.log.head}>"

    def _stored(self) -> int | None:
        found = self.log.memory.checkpoint((self.name.lower(), self.kind))
        return found.position if found else None

    def _store(
        self, position: int, error: Exception | None = None, attempts: int = 0, letter: int | None = None
    ) -> None:
        """Store the position that it has reached and, together with it, an event that it sets aside."""
        with moving(self.log.memory) as move:
            move.checkpoint(self.name, self.kind, Checkpoint("manual", "", position))
            if error is not None:
                self.dead.put(move, self.name, letter or position, error, attempts)


_RUNNERS: WeakSet[Runner] = WeakSet()


def _stop_runners() -> None:
    """End all threads before the interpreter goes: one that is inside DuckDB then takes the whole process down."""
    for runner in list(_RUNNERS):
        runner.stop()


atexit.register(_stop_runners)


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
        _RUNNERS.add(self)

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
