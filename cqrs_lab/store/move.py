"""Moves: one transaction over rows, checkpoints, dead letters and the log, and what it publishes.

Owns the order of things. Whatever changes a store does so inside `moving()`; a move inside another one is part of it.
Before the commit, answers that the change can reach are dropped, and checkpoints are written, each where it started: a
move that finds another position fails instead of counting twice. After the commit, and under one lock with it, memory
takes over what was changed: the heads, the checkpoints, the answers, and then those who wait. A move that ends in any
other way publishes nothing, and the tables are read again.

Locks are taken in this order: that of builds (`Memory.building`, `erasing`), the log's (`log.APPEND`), the servings'
(`SERVINGS`), memory's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple

from cqrs_lab.errors import StoreError
from cqrs_lab.store.answers import Key
from cqrs_lab.store.memory import Checkpoint, Letters, Memory, Text, letters

SERVINGS = "servings"
"""The lock under which rows of servings move."""


class Move:
    """A transaction that is open.

    Args:
        memory: of the store.

    Attributes:
        checkpoints: those that it writes; None for one that goes.
        noted: the projections of which keys are noted, or no longer are; see `Memory.noted`.
    """

    def __init__(self, memory: Memory) -> None:
        self.checkpoints: dict[Key, Checkpoint | None] = {}
        self.noted: dict[str, bool] = {}
        self._memory, self._run = memory, memory.database.execute
        self._names: dict[Key, str] = {}
        self._changing: list[Key | None] = []
        self._letters: Letters | None = None
        self._texts: dict[str, Text] = {}
        self._appended: list[Callable[[], None]] = []

    # -- what a move changes -----------------------------------------------------------------------------------------

    def checkpoint(self, name: str, kind: str, checkpoint: Checkpoint | None) -> None:
        """Say what a serving or a follower says of itself when this is committed; None when it is no more.

        Args:
            name: of the read model or of the follower.
            kind: how it is served, or what follows, such as "saga".
        """
        key = (name.lower(), kind)
        self.checkpoints[key], self._names[key] = checkpoint, name

    def text(self, text: Text) -> None:
        """Keep the text of a read model that is served from now on."""
        if self._memory.texts.get(text.name.lower()) != text:
            self._texts[text.name.lower()] = text

    def change(self, place: Key | None) -> None:
        """Keep no more answers of a serving, or of all, until this is over: its rows are about to change."""
        if place not in self._changing:
            self._changing.append(place)
            self._memory.answers.begin(place)

    @property
    def letters(self) -> Letters:
        """The events that are set aside, as this move leaves them."""
        return self._memory.letters if self._letters is None else self._letters

    def lettered(self) -> None:
        """Look again at the events that are set aside: this move has changed them."""
        self._letters = letters(self._memory.database)

    def append(self, publish: Callable[[], None]) -> None:
        """Say what memory has to know of the log once this is committed."""
        self._appended.append(publish)

    @property
    def appends(self) -> bool:
        """Whether it appends to the log."""
        return bool(self._appended)

    @property
    def publishes(self) -> bool:
        """Whether it changes what memory knows. The rows of a build, which nobody knows of yet, do not."""
        return bool(self.checkpoints or self.noted or self._texts or self._appended or self._letters is not None)

    # -- its end -------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Write checkpoints and texts, in the open transaction."""
        if self.checkpoints:
            self.write_checkpoints()
        for name, text in self._texts.items():
            self._run("DELETE FROM read_models WHERE lower(model) = ?", [name])
            self._run("INSERT INTO read_models VALUES (?, ?, ?)", [text.name, list(text.key), text.sql])

    def write_checkpoints(self) -> None:
        """Write each checkpoint where it started.

        Those that go the same way are written at once: a projection and its layers by one statement and not by several.

        Raises:
            StoreError: one stands elsewhere by now; nothing of this move is stored.
        """
        together: dict[tuple[str, int, int], list[Key]] = {}
        for key, end in self.checkpoints.items():
            start = self._memory.checkpoints.get(key)
            if start is None or end is None or (start.mode, start.fingerprint) != (end.mode, end.fingerprint):
                self._write_one(key, start, end)
            elif start != end:
                together.setdefault((key[1], start.position, end.position), []).append(key)
        for (kind, first, last), keys in together.items():
            marks = ", ".join("?" * len(keys))
            found = self._run(
                f"UPDATE servings SET position = ? WHERE served_as = ? AND position = ? AND lower(model) IN ({marks})",
                [last, kind, first, *(name for name, _ in keys)],
            )
            if found != [(len(keys),)]:
                raise self._elsewhere(keys, first)

    def _write_one(self, key: Key, start: Checkpoint | None, end: Checkpoint | None) -> None:
        """Write one checkpoint where it started."""
        name, kind = self._names[key], key[1]
        if start is None and end is not None:
            self._run("INSERT INTO servings VALUES (?, ?, ?, ?, ?)", [name, kind, *astuple(end)])
            return
        if start is None:
            return
        where, there = "lower(model) = ? AND served_as = ? AND position = ?", [key[0], kind, start.position]
        if end is None:
            found = self._run(f"DELETE FROM servings WHERE {where}", there)
        else:
            sets = "model = ?, mode = ?, fingerprint = ?, position = ?"
            found = self._run(f"UPDATE servings SET {sets} WHERE {where}", [name, *astuple(end), *there])
        if found != [(1,)]:
            raise self._elsewhere([key], start.position)

    def _elsewhere(self, keys: Iterable[Key], position: int) -> StoreError:
        told = ", ".join(f"{self._names[key]} as {key[1]}" for key in keys)
        return StoreError(
            f"{told} no longer stands at position {position:,}, from where it was moved; nothing was stored. Ask again"
        )

    def _publish(self) -> None:
        memory = self._memory
        for publish in self._appended:
            publish()
        # New ones in the place of the old: other threads may be going through them.
        changed = memory.checkpoints | self.checkpoints
        memory.checkpoints = {key: checkpoint for key, checkpoint in changed.items() if checkpoint is not None}
        memory.noted = memory.noted | self.noted
        if self._texts:
            memory.texts = memory.texts | self._texts
        if self._letters is not None:
            memory.letters = self._letters

    def _close(self) -> None:
        """Keep answers again."""
        while self._changing:
            self._memory.answers.end(self._changing.pop())


@contextmanager
def moving(memory: Memory) -> Iterator[Move]:
    """Change a store in one transaction, or as part of the one that this thread has open.

    Raises:
        ReadOnlyStore, TransactionAborted: as of `Database.transaction`.
        KeyboardInterrupt: memory says what the tables say, whether it came before the commit or behind it.
    """
    if memory.open is not None:
        assert isinstance(memory.open, Move)
        yield memory.open
        return
    memory.check()
    if memory.uncertain is not None:
        with memory.lock:  # after this another thread has published, or was kept from it
            if memory.uncertain is not None:
                memory.read()
    move = Move(memory)
    try:
        with ExitStack() as until_published:
            memory.open = move
            with memory.database.transaction():
                yield move
                move._write()
                if move.publishes:
                    until_published.enter_context(memory.lock)
                    memory.uncertain = threading.get_ident()  # from here on only the tables know
            if move.publishes:
                move._publish()
                memory.uncertain = None
    except BaseException:
        memory.open = None
        with suppress(StoreError):  # a store that is closed or full says so at the next call
            memory.read(heads=move.appends)
        raise
    finally:
        memory.open = None
        move._close()
    if move.appends:
        memory.heads.tell()
    with memory.moved:
        memory.moved.notify_all()
