"""A subscription: the events of the log one after the other, and those to come.

Owns the waiting. What is read is the log itself, in order of position, so that nothing is missed and nothing comes
twice; an append only wakes who waits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from cqrs_lab.errors import StoreClosed
from cqrs_lab.messages import Event, Recorded
from cqrs_lab.store.log import Log

_CHUNK = 500  # events read at once
_LOOK = 1.0  # seconds between two looks whether the lab was closed


class Subscription:
    """An iterator over events that waits for more; it ends when it is stopped, or the lab is closed.

    Args:
        log: what is followed.
        after: the position behind which it begins.
        events: the event classes to hand over.
        timeout: seconds without a new event after which it ends; None waits for ever.

    Attributes:
        position: up to which the log has been handed over.
    """

    def __init__(self, log: Log, after: int, events: Sequence[type[Event]], timeout: float | None) -> None:
        self.position = after
        self._log, self._events, self._timeout = log, list(events), timeout
        self._ahead: deque[Recorded] = deque()
        self._read = after
        self._is_stopped = False

    def stop(self) -> None:
        """End it, from any thread."""
        self._is_stopped = True
        with self._log.heads.moved:
            self._log.heads.moved.notify_all()

    def __iter__(self) -> Iterator[Recorded]:
        return self

    def __next__(self) -> Recorded:
        until = None if self._timeout is None else time.monotonic() + self._timeout
        try:
            while not self._ahead:
                if self._is_stopped or not self._more(until):
                    raise StopIteration
        except StoreClosed:
            raise StopIteration from None
        if self._is_stopped:
            raise StopIteration
        found = self._ahead.popleft()
        self.position = found.position
        return found

    def _more(self, until: float | None) -> bool:
        """Read on, or wait for an append; return whether there is still time."""
        head = self._log.head
        if head > self._read:
            found = self._log.read_events(self._events, self._read, head, _CHUNK)
            self._ahead.extend(found)
            self._read = found[-1].position if len(found) == _CHUNK else head
            return True
        left = _LOOK if until is None else min(_LOOK, until - time.monotonic())
        if left <= 0:
            return False
        heads = self._log.heads
        with heads.moved:
            if heads.position == head and not self._is_stopped:
                heads.moved.wait(left)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
