"""Work: the bounded crews of threads in which a lab's calls run, so that the event loop never waits for one.

Owns them, how long a query may take, and who is sent away when too much is asked at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from cqrs_lab.app import Lab
from cqrs_lab.http.inside import Stoppable
from cqrs_lab.http.limits import Limits
from cqrs_lab.http.problems import busy

T = TypeVar("T")
_AGAIN = 0.02  # seconds between two attempts to stop a statement: it may be between two of them


class Work:
    """The crews of one server.

    Args:
        lab: whose calls they are.
        limits: how many threads and how long.

    Attributes:
        is_stopping: whether nothing more is taken on.
    """

    def __init__(self, lab: Lab, limits: Limits) -> None:
        self._lab, self._limits = lab, limits
        self._commands = CapacityLimiter(limits.commands)
        self._queries = CapacityLimiter(limits.queries)
        self._waits = CapacityLimiter(limits.waiting)
        self._reads = CapacityLimiter(4)
        self._running: dict[object, Callable[[], None]] = {}
        self.is_stopping = False

    async def command(self, call: Callable[[], T]) -> T:
        """Carry out what writes. It is never cut short: who goes away before the answer asks for it with its key.

        Raises:
            Refused: too many wait, or the server is about to stop.
        """
        self._admit(self._commands, "commands")
        return await to_thread.run_sync(call, limiter=self._commands)

    async def query(self, call: Callable[[], T], seconds: float | None = None) -> T:
        """Answer a question, for so long at most.

        Raises:
            QueryTooLong: it took longer.
            Refused: too many wait, or the server is about to stop.
        """
        self._admit(self._queries, "queries")
        return await self._stoppable(call, self._queries, seconds or self._limits.query_seconds)

    async def wait(self, call: Callable[[], T], seconds: float) -> T:
        """Wait for a position, in a thread that no query needs, for so long and the time of a query.

        Raises:
            QueryTooLong: it took longer.
            Refused: too many wait, or the server is about to stop.
        """
        self._admit(self._waits, "clients", queue=0)
        return await self._stoppable(call, self._waits, seconds + self._limits.query_seconds)

    async def read(self, call: Callable[[], T]) -> T:
        """Read some events."""
        return await to_thread.run_sync(call, limiter=self._reads)

    def stop(self) -> None:
        """Take nothing more on, and stop what only answers."""
        self.is_stopping = True
        for late in list(self._running.values()):
            late()

    def _admit(self, crew: CapacityLimiter, what: str, queue: int | None = None) -> None:
        if self.is_stopping:
            raise busy("this server is about to stop")
        most = self._limits.queue if queue is None else queue
        if crew.available_tokens <= 0 and crew.statistics().tasks_waiting >= most:
            raise busy(f"{int(crew.total_tokens) + most:,} {what} wait here already")

    async def _stoppable(self, call: Callable[[], T], crew: CapacityLimiter, seconds: float) -> T:
        loop, one = asyncio.get_running_loop(), Stoppable(self._lab, call)
        timer = loop.call_later(seconds, lambda: late())

        def late() -> None:
            nonlocal timer
            timer.cancel()
            one.stop()
            if not one.is_done:
                timer = loop.call_later(_AGAIN, late)

        self._running[one] = late
        try:
            return await to_thread.run_sync(one, limiter=crew)
        finally:
            timer.cancel()
            self._running.pop(one)
