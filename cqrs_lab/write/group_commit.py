"""Group commit: commands that arrive together are stored together.

Owns the queue of commands that wait for the log. A durable commit costs the same, however much is in it, so whoever
gets hold of the log carries out everything that waits, in the order of arrival, and commits once. Each command succeeds
or fails alone, and none is answered before its events are on disk. After D. J. DeWitt and others, "Implementation
Techniques for Main Memory Database Systems" (1984).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from cqrs_lab.errors import DeclarationError
from cqrs_lab.write.batch import Batch
from cqrs_lab.write.event_store import EventStore
from cqrs_lab.write.middleware import Envelope, Proceed, Receipt

_MOST = 1_000  # commands of one commit
_PATIENCE = 0.0002  # seconds to wait for each of those that came along last time


@dataclass(eq=False)
class _Waiting:
    """A command in the queue, and what became of it."""

    envelope: Envelope
    receipt: Receipt | None = None
    error: Exception | None = None
    leads: bool = False
    is_gone: bool = False
    woken: threading.Event = field(default_factory=threading.Event)

    @property
    def is_done(self) -> bool:
        return self.receipt is not None or self.error is not None


class GroupCommit:
    """Middleware that carries out a command in one transaction with those that arrived with it.

    Args:
        store: where events go.
        prepare: (batch, envelopes) -> loads what they need with few questions.
    """

    __name__ = "grouped"

    def __init__(self, store: EventStore, prepare: Callable[[Batch, Sequence[Envelope]], None]) -> None:
        self._store, self._prepare = store, prepare
        self._guard = threading.Lock()  # of what follows
        self._queue: deque[_Waiting] = deque()
        self._leader: int | None = None
        self._last = 1  # how many came along last time

    def __call__(self, envelope: Envelope, proceed: Proceed) -> Receipt:
        """Return once the command is on disk, whoever put it there.

        The first to come leads: it carries out what waits, and leaves the lead to the first that came meanwhile.
        """
        if envelope.batch is not None:
            return proceed(envelope)
        self._store.log.check_free()
        if self._store.log.is_appending:  # waiting for the lead would be waiting for itself
            raise DeclarationError(
                f"{type(envelope.command).__name__} was sent while another command was being decided; decide() is "
                "pure and sends nothing, nor does a service in a batch. Let a saga send what follows"
            )
        mine = _Waiting(envelope)
        try:
            with self._guard:
                self._queue.append(mine)
                if self._leader is None:
                    self._leader, mine.leads = threading.get_ident(), True
            if not mine.leads:
                mine.woken.wait()
            while mine.leads and not mine.is_done:
                self._leader = threading.get_ident()
                self._carry_out(proceed)
        finally:
            self._leave(mine)
        if mine.error is not None:
            raise mine.error
        assert mine.receipt is not None
        return mine.receipt

    def _leave(self, mine: _Waiting) -> None:
        """Leave the queue, and the lead to who waits longest."""
        with self._guard:
            mine.is_gone = True
            if mine in self._queue:  # interrupted before anybody took it
                self._queue.remove(mine)
            if not mine.leads:
                return
            self._leader = None
            if self._queue:
                heir = self._queue[0]
                self._leader, heir.leads = -1, True
                heir.woken.set()

    def _carry_out(self, proceed: Proceed) -> None:
        """Carry out what waits and commit it.

        Those who were just answered are about to send again: waiting a moment for them lets them come along, and keeps
        them from taking turns with this thread: 1,780 -> 2,500 commands/s from 32 threads.
        """
        patience = time.monotonic() + self._last * _PATIENCE
        while self._last > 1 and len(self._queue) < self._last and time.monotonic() < patience:
            time.sleep(_PATIENCE)
        group: list[_Waiting] = []
        receipts: dict[_Waiting, Receipt] = {}
        try:
            with self._guard:
                group.extend(islice(self._queue, _MOST))
                for _ in group:
                    self._queue.popleft()
            self._last = len(group)
            with self._store.together() as batch:
                if len(group) > 1:
                    self._prepare(batch, [waiting.envelope for waiting in group])
                for waiting in group:
                    try:
                        receipts[waiting] = proceed(replace(waiting.envelope, batch=batch))
                    except Exception as error:
                        waiting.error = error
            for waiting, receipt in receipts.items():
                waiting.receipt = receipt
        except Exception as error:  # nothing was stored
            for waiting in group:
                waiting.error = waiting.error or error
        except BaseException:
            # Ctrl-C is for this thread alone. The others wait again, and as it may have come just behind the commit,
            # their commands are looked up before they are carried out.
            again = [waiting for waiting in group if waiting.error is None]
            for waiting in again:
                waiting.envelope = replace(waiting.envelope, is_new=False)
            with self._guard:
                there = set(self._queue)
                self._queue.extendleft(w for w in reversed(again) if not w.is_gone and w not in there)
            raise
        finally:
            for waiting in group:
                if waiting.is_done:
                    waiting.woken.set()
