"""The feed: the events of the log for any number of clients that follow it.

Owns one thread that waits for appends, one task that reads what is new, once for all, and the latest events as they
are sent. A stream that is behind reads the log by itself; one that is not takes what is there, or sleeps, which costs
neither a thread nor a question.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from cqrs_lab.app import Lab
from cqrs_lab.errors import CqrsLabError, StoreClosed
from cqrs_lab.http import inside, wire
from cqrs_lab.http.limits import Limits
from cqrs_lab.http.problems import busy
from cqrs_lab.http.work import Work
from cqrs_lab.messages import Recorded

_LOGGER = logging.getLogger("cqrs_lab.http")
_PAGE = 200  # events read at once
_KEPT, _BYTES = 1_000, 4 * 2**20  # latest events that are kept, and how large they may be together
_LOOK = 0.5  # seconds between two looks whether the server stops


@dataclass(frozen=True)
class _Frame:
    """An event as it is sent."""

    position: int
    category: str
    text: bytes


def frame(recorded: Recorded) -> bytes:
    """Return a server-sent event, whose id is the position."""
    data = wire.encoded(wire.event(recorded))
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (recorded.position, recorded.type.encode(), data)


class Feed:
    """What all streams of one server follow.

    Args:
        lab: whose log.
        work: the crews, for reading.
        limits: how many streams there may be.
    """

    def __init__(self, lab: Lab, work: Work, limits: Limits) -> None:
        self._lab, self._work, self._limits = lab, work, limits
        self._frames: list[_Frame] = []  # of the events in (begin, end]
        self._begin = self._end = 0
        self._news, self._moved = asyncio.Event(), asyncio.Event()
        self._open, self._wanted = 0, threading.Event()  # whether anybody follows
        self._is_stopped = True
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the log, in the event loop that runs."""
        loop = asyncio.get_running_loop()
        self._frames, self._begin = [], self._lab.head
        self._end = self._begin
        self._news, self._moved = asyncio.Event(), asyncio.Event()
        self._is_stopped = False
        self._task = loop.create_task(self._follow())
        threading.Thread(target=self._watch, args=(loop, self._moved), name="cqrs_lab feed", daemon=True).start()

    async def stop(self) -> None:
        """End every stream; clients come back with the id of the last event that they have."""
        self._is_stopped = True
        self._news.set()
        self._moved.set()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def enter(self) -> None:
        """Let one more stream in; `leave` has to follow.

        Raises:
            Refused: so many are open.
        """
        if self._open >= self._limits.streams or self._work.is_stopping:
            raise busy(f"{self._open:,} event streams are open here already")
        if self._is_stopped:  # nobody told when the server began
            self.start()
        if not self._open:
            self._frames, self._begin = [], self._lab.head
            self._end = self._begin
        self._open += 1
        self._wanted.set()

    def leave(self) -> None:
        """Count one stream less."""
        self._open -= 1
        if not self._open:
            self._wanted.clear()

    async def frames(self, after: int, category: str | None, timeout: float | None) -> AsyncIterator[bytes]:
        """Yield the events behind a position as they are sent, and comments while there are none.

        Args:
            timeout: seconds without an event after which it ends; None: never.
        """
        yield b"retry: 1000\n\n"
        position, quiet = after, 0.0
        while not self._is_stopped:
            news = self._news  # before the look: what comes after it sets this one
            texts, position = await self._read(position, category)
            if texts:
                quiet = 0.0
                yield b"".join(texts)
                continue
            if position < self._end:
                continue
            left = self._limits.heartbeat if timeout is None else min(self._limits.heartbeat, timeout - quiet)
            if left <= 0:
                return
            try:
                await asyncio.wait_for(news.wait(), left)
            except TimeoutError:
                quiet += left
                yield b": nothing new\n\n"

    async def _read(self, after: int, category: str | None) -> tuple[list[bytes], int]:
        """The events behind a position, as far as they are at hand, and the position up to which that is all."""
        if after >= self._end:
            return [], after
        if after >= self._begin:
            some = self._frames[bisect_right(self._frames, after, key=lambda one: one.position) :]
            return [one.text for one in some if category in (None, one.category)], self._end
        end = self._end
        found = await self._work.read(partial(inside.read_events, self._lab, after, end, _PAGE, category))
        return [frame(one) for one in found], found[-1].position if len(found) == _PAGE else end

    async def _follow(self) -> None:
        """Read what is new, and wake the streams."""
        while not self._is_stopped:
            await self._moved.wait()
            self._moved.clear()
            try:
                await self._catch_up()
            except CqrsLabError as error:
                _LOGGER.warning("the events behind position %d cannot be read: %s", self._end, error)
                await asyncio.sleep(_LOOK)
                self._moved.set()

    async def _catch_up(self) -> None:
        head = self._lab.head
        while self._open and self._end < head:
            end = self._end
            found = await self._work.read(partial(inside.read_events, self._lab, end, head, _PAGE))
            if self._end != end:  # all left and others came meanwhile, who begin behind it
                continue
            self._frames += [_Frame(one.position, one.stream.split("/")[0], frame(one)) for one in found]
            self._end = found[-1].position if len(found) == _PAGE else head
            self._trim()
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _trim(self) -> None:
        size = sum(len(one.text) for one in self._frames)
        while len(self._frames) > _KEPT or (size > _BYTES and len(self._frames) > 1):
            gone = self._frames[: max(1, len(self._frames) // 4)]
            size -= sum(len(one.text) for one in gone)
            del self._frames[: len(gone)]
            self._begin = gone[-1].position

    def _watch(self, loop: asyncio.AbstractEventLoop, moved: asyncio.Event) -> None:
        """Wait for appends, in a thread of its own, and tell the event loop; nobody is woken while nobody follows."""
        heads = inside.heads(self._lab)
        seen = -1
        with suppress(RuntimeError, StoreClosed):  # the event loop, or the store, is closed
            while not self._is_stopped and self._moved is moved:
                if not self._wanted.wait(_LOOK):
                    continue
                with heads.moved:
                    if heads.position == seen:
                        heads.moved.wait(_LOOK)
                if heads.position != seen:
                    seen = heads.position
                    loop.call_soon_threadsafe(moved.set)
