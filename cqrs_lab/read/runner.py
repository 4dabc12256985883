"""The runner: what moves servings, and when.

Owns the modes. A manual serving moves when it is told to. An inline one moves in the transaction of each append. One in
the background is moved by a thread that wakes at each append, and so is a materialized table that is refreshed every so
many events or seconds. One that fails never stops another, nor an append: it stays where it was, says why in `lag()`,
and is tried again, by the thread after a pause that grows, or by the next call of catch_up().
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import cast

from cqrs_lab.errors import CqrsLabError, ProjectionFailed, RebuildRefused, RowsRefused, StoreClosed
from cqrs_lab.read.adopting import Replayed, adopt
from cqrs_lab.read.catalog import Catalog
from cqrs_lab.read.handled import Handled, stored_of
from cqrs_lab.read.kept import follow, remake
from cqrs_lab.read.projection import Model, Projection
from cqrs_lab.read.stored import Check, Stored, Tell
from cqrs_lab.read.table import STORED
from cqrs_lab.store.followers import Runner, pause_after
from cqrs_lab.store.move import SERVINGS, Move, moving

ATTEMPTS = 8  # in a row, before the thread leaves a failing serving alone
_SOON = 0.05  # seconds

Key = tuple[str, str]
"""The name of a read model and how it is served."""


@dataclass
class Failure:
    """Why a serving does not move.

    Attributes:
        error: what it said.
        attempts: how often it was tried in a row.
        again_at: when the thread tries again (time.monotonic()), None when it does not.
        position: where it stands.
    """

    error: str
    attempts: int = 1
    again_at: float | None = None
    position: int = 0


@dataclass(frozen=True)
class Moved:
    """One append that became visible in a serving.

    Attributes:
        position: of the append's last event.
        seconds: from its commit to the commit of the rows.
    """

    model: str
    served_as: str
    position: int
    seconds: float


@dataclass
class Running:
    """The servings of one lab that move by themselves.

    Attributes:
        catalog: the read models of the lab.
        failures: what does not move, and why.
        noted: how late the latest moves were.
    """

    catalog: Catalog
    failures: dict[Key, Failure] = field(default_factory=dict)
    noted: deque[Moved] = field(default_factory=lambda: deque(maxlen=100_000))
    runner: Runner | None = None
    _refreshed: dict[Key, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._log, self._memory, self._lock = self.catalog.log, self.catalog.memory, self.catalog.log.database.lock

    # -- one step --------------------------------------------------------------------------------------------------

    def forward(self, stored: Stored, end: int | None = None, attempts: int = 0) -> int:
        """Move one serving to a position, the head when None, and note how that went.

        Args:
            attempts: how often in a row it has failed when the event is set aside, if that is what it was told; 0 to
                leave that to others.

        Raises:
            CqrsLabError: it stays where it was; see `failures`.
        """
        to = self._log.head if end is None else min(end, self._log.head)

        def mended(error: ProjectionFailed) -> bool:
            tried = self.attempts(stored) + 1
            return stored.as_ == "projection" and 0 < attempts <= tried and self._dead_letter(error, to, tried)

        def move() -> int:
            if self._memory.open is None and stored.is_built(to):
                return stored.build(to)
            with self._lock(SERVINGS):  # another thread may have moved it further meanwhile
                return stored.forward(to)

        return self._noting(stored, move, mended)

    def rebuild(
        self, stored: Stored, to: int | None = None, check: Check | None = None, tell: Tell | None = None
    ) -> int:
        """Make all rows of a serving again, and note how that went (see `Served.rebuild`)."""
        head = self._log.head
        to = head if to is None else to
        if not stored.position <= to <= head:
            raise RebuildRefused(
                f"{stored.model.name} as {stored.as_} tells the log up to position {stored.position:,} of {head:,}; "
                f"rows up to {to:,} would go back, or beyond the log. lab.as_of(position=…) asks about the past"
            )

        reached = self._noting(stored, lambda: stored.build(to, check, tell))
        if stored.as_ == "projection" and self._memory.open is None:
            remake(self.catalog, [stored.model])
        return reached

    def adopt(self, stored: Stored, rows: Replayed) -> int:
        """Take rows over that were made elsewhere, and note how that went (see `Served.adopt`)."""
        reached = self._noting(stored, lambda: adopt(self.catalog, stored, rows))
        if self._memory.open is None:
            remake(self.catalog, [stored.model])
        return reached

    def attempts(self, stored: Stored) -> int:
        """Return how often a serving has failed in a row where it stands."""
        failure = self.failures.get(stored.place)
        return failure.attempts if failure is not None and failure.position == stored.position else 0

    def _noting(
        self, stored: Stored, move: Callable[[], int], mended: Callable[[ProjectionFailed], bool] = lambda error: False
    ) -> int:
        start = stored.position
        try:
            while True:
                try:
                    reached = move()
                    break
                except ProjectionFailed as error:
                    if not mended(error) and not self._set_aside(error, stored.model):
                        raise
        except (RebuildRefused, RowsRefused):
            raise  # nothing is wrong with the rows that there are
        except CqrsLabError as error:
            self._failed(stored.place, error)
            raise
        if self._memory.open is None:
            self.went_well(stored, start, reached)
        return reached

    def went_well(self, stored: Stored, start: int, reached: int) -> None:
        """Note that rows have moved, for whoever waits for them."""
        self.failures.pop(stored.place, None)
        now, heads = time.perf_counter(), self._log.heads
        with heads.moved:
            for position, committed in reversed(heads.commits):
                if position <= start:
                    break
                if position <= reached:
                    self.noted.append(Moved(stored.model.name, stored.as_, position, now - committed))
        with self._memory.moved:
            self._memory.moved.notify_all()
        follow(self.catalog, stored.model, reached)

    def _set_aside(self, error: ProjectionFailed, moving: Model | None = None) -> bool:
        """Leave a projection out that is built on the one that moves and fails at that; return whether there is one."""
        if error.model is None or (moving is not None and error.model in self.catalog.below(moving)):
            return False
        found = self.catalog.known.get(error.model.lower())
        if found is None or self._memory.open is not None:
            return False
        other = stored_of(self.catalog, found, "projection")
        if not other.is_fit:
            return False
        with self._lock(SERVINGS):
            other.set_aside()
        self._failed(other.place, error)
        return True

    def _failed(self, key: Key, error: BaseException) -> None:
        there, before = self._memory.checkpoints.get(key), self.failures.get(key)
        position = there.position if there else 0
        attempts = before.attempts + 1 if before is not None and before.position == position else 1
        again = time.monotonic() + pause_after(attempts) if attempts < ATTEMPTS else None
        self.failures[key] = Failure(f"{type(error).__name__}: {error}", attempts, again, position)

    # -- dead letters ------------------------------------------------------------------------------------------------

    def _dead_letter(self, error: ProjectionFailed, end: int, attempts: int) -> bool:
        """Set the event aside at which a projection fails that was told so; return whether it can go on."""
        dead = self.catalog.dead
        if error.model is None or not dead.is_told(error.model) or self._memory.open is not None:
            return False
        stored = stored_of(self.catalog, self.catalog.find(error.model), "projection")
        with self._lock(SERVINGS):
            position = stored.first_failing(end) if stored.is_fit else 0
            if position is None:
                return True  # by halves it went well
            if not position:
                return False
            try:
                with moving(self._memory) as move:
                    dead.put(move, stored.model.name, position, error, attempts)
                    stored.forward(position)
            except ProjectionFailed:  # without that event, too: it is not what is wrong
                return False
        return True

    def retry(self, model: Model) -> int:
        """Take back what a projection has set aside, where it goes well now; return how many events that were.

        A projection in Python handles these events now, the others make their rows again with them.
        """
        dead, stored = self.catalog.dead, stored_of(self.catalog, model, "projection")
        with self._lock(SERVINGS):
            letters = list(dead.of(model.name)) if stored.position else []
            by_hand = isinstance(stored, Handled) and stored.is_fit

            def take_back(*positions: int) -> Callable[[Move], None]:
                def change(move: Move) -> None:
                    for position in positions:
                        if by_hand:
                            cast(Handled, stored).again(position)
                        dead.drop(move, model.name, position)
                    if not by_hand:
                        stored.build(stored.position)

                return change

            if by_hand or self._is_done(take_back(*letters)) is not None:
                for position in letters:
                    error = self._is_done(take_back(position))
                    if error is not None:
                        with moving(self._memory) as move:
                            dead.put(move, model.name, position, error, 1)
            taken = len(letters) - len(dead.of(model.name))
            if taken:
                self._follow(model)
            return taken

    def _follow(self, model: Model) -> None:
        """Move what is built on a projection whose rows have changed where it stands; who fails stops there."""
        for name, other in list(self.catalog.models.items()):  # each after those that it is built on
            if name == model.id or model.id not in {below.lower() for below in self.catalog.below(other)}:
                continue
            found = self.catalog.checkpoint(other, "projection")
            if found is None or isinstance(other, Projection):
                continue
            stored = stored_of(self.catalog, other, "projection")

            def follow_it(stored: Stored = stored, at: int = found.position) -> int:
                with moving(self._memory):  # the servings are held, so it is done as a part
                    return stored.build(at) if not self.catalog.plan(stored.model).layers else stored.forward(at)

            with suppress(CqrsLabError):
                self._noting(stored, follow_it)

    def _is_done(self, change: Callable[[Move], None]) -> ProjectionFailed | None:
        """Change dead letters and rows in one move; return why that did not go well."""
        try:
            with moving(self._memory) as move:
                change(move)
        except ProjectionFailed as error:
            return error
        return None

    # -- inline: part of an append (see `EventStore`) ----------------------------------------------------------------

    def held(self) -> AbstractContextManager[object]:
        """Keep others from moving what moves inline, from before an append until it is known where it went.

        A rebuild in between would take the rows back to where the log ended before.
        """
        return self._lock(SERVINGS) if self._of_mode("inline") else nullcontext()

    def move(self, position: int) -> None:
        """Move the inline servings, in the transaction of an append."""
        for stored in self._of_mode("inline"):
            if stored.place not in self.failures:
                with self._lock(SERVINGS):
                    stored.forward(position)

    def refused(self, error: Exception) -> bool:
        """Stop the inline serving that made an append fail; return whether it was one."""
        if not isinstance(error, ProjectionFailed) or error.model is None:
            return False
        inline = self._of_mode("inline")
        guilty = [stored for stored in inline if error.model in self.catalog.below(stored.model)]
        for stored in guilty:
            self._failed(stored.place, error)
        return bool(guilty) or self._set_aside(error)

    def committed(self, *, with_rows: bool) -> None:
        """Go on after an append.

        Args:
            with_rows: whether the inline servings moved with it; a table is appended first and followed then.
        """
        for stored in self._of_mode("inline"):
            failed = stored.place in self.failures
            if self.catalog.dead.is_told(stored.model.name) if failed else not with_rows:
                self._try(stored)

    # -- background ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """See that a thread moves what moves in the background."""
        if self.runner is None or not self.runner.is_alive:
            self.runner = Runner(self._log.heads, weakref.WeakMethod(self.work))
        self.runner.wake()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self.runner is not None and self.runner.is_alive

    def work(self) -> float | None:
        """Move what is due; return the seconds until something else is, None when only an append can bring it."""
        waits = []
        for stored in [*self._of_mode("background"), *self._of_mode("every")]:
            key = stored.place
            failure = self.failures.get(key)
            if failure is not None and (failure.again_at is None or failure.again_at > time.monotonic()):
                waits += [] if failure.again_at is None else [failure.again_at - time.monotonic()]
                continue
            wait = self._until_due(stored, key)
            if wait is None:
                continue
            if wait > 0:
                waits.append(wait)
                continue
            self._refreshed[key] = time.monotonic()
            self._try(stored)
            if key in self.failures:
                waits.append(_SOON)
        return max(min(waits), 0.001) if waits else None

    def _until_due(self, stored: Stored, key: Key) -> float | None:
        """Seconds until a serving is to be moved, 0 for now, None when an append has to come first."""
        behind = self._log.head - stored.position
        if behind <= 0:
            return None
        if stored.mode == "background":
            return 0.0
        _, number, unit = stored.mode.split(" ")
        if unit == "events":
            return 0.0 if behind >= int(number) else None
        return max(0.0, self._refreshed.get(key, 0.0) + float(number) - time.monotonic())

    def _try(self, stored: Stored) -> None:
        try:
            self.forward(stored, attempts=1 if stored.mode == "inline" else ATTEMPTS)
        except StoreClosed:
            raise
        except CqrsLabError:
            pass  # noted

    def _of_mode(self, mode: str) -> list[Stored]:
        # What another lab over this file serves inline moves with appends of this one, too.
        known = {**self.catalog.known, **self.catalog.models} if mode == "inline" else self.catalog.models
        found = [
            stored_of(self.catalog, known[name], as_, checkpoint.mode)
            for (name, as_), checkpoint in sorted(self._memory.checkpoints.items())
            if checkpoint.mode.split(" ")[0] == mode and name in known and as_ in STORED
        ]
        # New events do not go with rows that another SELECT made: these wait for a rebuild.
        return [stored for stored in found if stored.as_ != "projection" or stored.is_fit]

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        if self.runner is not None:
            self.runner.stop()
