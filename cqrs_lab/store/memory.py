"""Memory: what is known of a store without a look into its tables.

Owns the copies: where the log ends, the checkpoints, the events that were set aside, the texts of the read models that
were served. One process holds the file, so they can be kept, and all labs over one file share them. The tables are the
truth: only a move that was committed publishes what it changed (`cqrs_lab.store.move`), and after one that ended
otherwise the tables are read again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from cachetools import LRUCache

from cqrs_lab.sql.names import quote
from cqrs_lab.store.absent_keys import AbsentKeys
from cqrs_lab.store.answers import Answers, Key
from cqrs_lab.store.database import Database, Row

_KEYS = {"streams": "stream", "commands": "command_id"}  # of the tables of which it matters what they lack


LATEST = 1_024
"""Events of which memory knows at least what they hold, of the latest ones."""


class Held(NamedTuple):
    """What memory knows of one of the latest events.

    Attributes:
        category: that it is of.
        type: of the event.
        schema_version: of its type, as it is stored.
        columns: those that are not NULL.
        id: of its stream.
        version: that its stream has with it.
    """

    category: str
    type: str
    schema_version: int
    columns: frozenset[str]
    id: str
    version: int


@dataclass
class Heads:
    """Where the log ends.

    Attributes:
        position: the last committed position; readers go no further.
        recorded_at: the latest recorded_at, so that it never decreases.
        stream_no: the last number given to a stream.
        tables: the categories in the file, also those that a domain does not declare: field -> type of its column.
        personal: the personal fields among them, in the same shape.
        versions: category -> the (type, schema_version) that its table holds.
        latest: position -> what is known of the event, of the latest ones.
        ends: category -> a position behind which it has no events; as high as the last one, or higher.
        appender: the thread that is appending.
        handling: thread -> the projections whose handlers it runs.
        erasures: how often something was erased, which ends every state that is remembered.
        moved: notified after every append.
        commits: (position, time.perf_counter() of the commit) of the latest appends.
        streams: (stream_no, version) of streams written lately; only appends change it, under the append lock.
        absent: table -> what keys it lacks; only appends change it, under the append lock.
    """

    position: int = 0
    recorded_at: datetime = datetime.min
    stream_no: int = 0
    tables: dict[str, dict[str, str]] = field(default_factory=dict)
    personal: dict[str, dict[str, str]] = field(default_factory=dict)
    versions: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    latest: dict[int, Held] = field(default_factory=dict)
    appender: int | None = None
    handling: dict[int, list[str]] = field(default_factory=dict)
    erasures: int = 0
    streams: LRUCache[str, tuple[int, int]] = field(default_factory=lambda: LRUCache(100_000))
    absent: dict[str, AbsentKeys] = field(
        default_factory=lambda: {name: AbsentKeys(name, key) for name, key in _KEYS.items()}
    )
    moved: threading.Condition = field(default_factory=threading.Condition)
    commits: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=10_000))

    def tell(self) -> None:
        """Wake whatever follows the log: an append was committed."""
        with self.moved:
            self.commits.append((self.position, time.perf_counter()))
            self.moved.notify_all()

    def known(self, stream: str) -> tuple[int, int] | None:
        """Return (stream_no, version) of a stream, None when it is not known; from any thread."""
        try:
            return self.streams[stream]
        except KeyError:  # get() looks twice, and an append may be in between
            return None

    def read(self, database: Database) -> None:
        """Take over what the tables say."""
        run = database.execute
        ends = [
            run(f"SELECT max(position), max(recorded_at) FROM {quote(f'{name}_events')}")[0] for name in self.tables
        ]
        self.latest = {}
        self.ends = {name: position or 0 for name, (position, _) in zip(self.tables, ends, strict=True)}
        for name in self.tables:
            found = run(f"SELECT DISTINCT type, schema_version FROM {quote(f'{name}_events')}")
            self.versions[name] = {(kind, version) for kind, version in found}
        self.stream_no = run("SELECT coalesce(max(stream_no), 0) FROM streams")[0][0]
        self.streams.clear()
        for absent in self.absent.values():
            absent.forget()
        self.position = max((p for p, _ in ends if p is not None), default=0)
        self.recorded_at = max((t for _, t in ends if t is not None), default=datetime.min)


@dataclass(frozen=True)
class Checkpoint:
    """What a stored serving, or a follower of the log, says of itself.

    Attributes:
        mode: how it moves.
        fingerprint: what tells the SELECT that made its rows from another one; "" when they need a rebuild.
        position: the position that its rows tell.
    """

    mode: str
    fingerprint: str
    position: int


@dataclass(frozen=True)
class Letters:
    """The events that were set aside: by name, in lower case, their positions; and the names that set events aside."""

    positions: dict[str, list[int]] = field(default_factory=dict)
    told: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Text:
    """A read model as it was served: its name, key and SELECT."""

    name: str
    key: tuple[str, ...]
    sql: str


class Open(Protocol):
    """A move that is open, as far as memory has to know it."""

    checkpoints: dict[Key, Checkpoint | None]
    noted: dict[str, bool]

    @property
    def letters(self) -> Letters:
        """The events that are set aside, as it leaves them."""


class Memory:
    """What all labs over one file know of it.

    Args:
        database: the file.

    Attributes:
        heads: where the log ends.
        checkpoints: of servings and followers, by name in lower case and kind.
        letters: the events that were set aside.
        texts: name in lower case -> a read model that was served in this file, here or elsewhere.
        noted: name in lower case -> whether rows of a projection have to be made again; not there: ask its table.
        answers: which answers are kept, and what rows are being changed.
        moved: notified whenever rows have moved.
        beside: name of a layer -> the tables that collect its changes for rows that are being built on it.
        lock: held from a commit until what it changed is published, and while the tables are read again.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.heads = Heads(moved=threading.Condition(database.lock("heads")))
        self.checkpoints: dict[Key, Checkpoint] = {}
        self.letters = Letters()
        self.texts: dict[str, Text] = {}
        self.noted: dict[str, bool] = {}
        self.answers = Answers(database.lock("answers"))
        self.moved = threading.Condition(database.lock("moved"))
        self.beside: dict[str, list[str]] = {}
        self.lock = database.lock("memory")
        self._builders, self._builds = 0, threading.Condition(database.lock("builds"))
        self.uncertain: int | None = None  # the thread whose commit may be done and is not published
        self._local = threading.local()

    @property
    def open(self) -> Open | None:
        """The move that this thread has open."""
        found: Open | None = getattr(self._local, "move", None)
        return found

    @open.setter
    def open(self, move: Open | None) -> None:
        self._local.move = move

    @contextmanager
    def building(self) -> Iterator[None]:
        """Build rows beside those that there are; nothing is erased meanwhile, for it could be in them."""
        with self._builds:
            self._builders += 1
        try:
            yield
        finally:
            with self._builds:
                self._builders -= 1
                self._builds.notify_all()

    @contextmanager
    def erasing(self) -> Iterator[None]:
        """Wait until nothing is being built, and keep others from it. Comes before every other lock."""
        self.database.check_open()  # in a forked process those who build are not there
        with self._builds:
            self._builds.wait_for(lambda: self._builders == 0)
            yield

    def check(self) -> None:
        """Read the tables again when an interrupt kept this thread from doing so; refuse when the store is closed.

        Raises:
            StoreClosed: it is.
        """
        self.database.check_open()
        if self.uncertain == threading.get_ident() and self.open is None:
            self.read()

    def checkpoint(self, key: Key) -> Checkpoint | None:
        """Return a checkpoint as this thread sees it, in its open move included; None when there is none."""
        self.check()
        move = self.open
        return move.checkpoints[key] if move is not None and key in move.checkpoints else self.checkpoints.get(key)

    def is_noted(self, name: str) -> bool | None:
        """Return whether rows of a projection have to be made again, as this thread sees it; None: ask its table."""
        return self.noted.get(name) if self.open is None else self.open.noted.get(name, self.noted.get(name))

    @property
    def set_aside(self) -> Letters:
        """The events that were set aside, as this thread sees them."""
        return self.letters if self.open is None else self.open.letters

    def read(self, *, heads: bool = True) -> None:
        """Take over what the tables say.

        Args:
            heads: where the log ends, too; not needed when nothing was appended.
        """
        with self.lock:
            self.uncertain = threading.get_ident()  # until all of it is read
            if heads:
                self.heads.read(self.database)
            rows = self.database.execute("SELECT model, served_as, mode, fingerprint, position FROM servings")
            self.checkpoints = {(name.lower(), kind): Checkpoint(*rest) for name, kind, *rest in rows}
            self.letters = letters(self.database)
            self.texts, self.noted = _texts(self.database), {}
            self.uncertain = None


def memory_of(database: Database) -> Memory:
    """Return the memory of a file, which all labs over it share."""
    found = database.companions.setdefault("memory", Memory(database))
    assert isinstance(found, Memory)
    return found


def letters(database: Database) -> Letters:
    """Return the events that were set aside, as the tables say."""
    positions: dict[str, list[int]] = {}
    for name, position in letter_rows(database, "model, position"):
        positions.setdefault(name.lower(), []).append(position)
    told = database.execute("SELECT name FROM store WHERE starts_with(name, 'dead letters ')")
    return Letters(positions, frozenset(name.removeprefix("dead letters ").lower() for (name,) in told))


def letter_rows(database: Database, columns: str) -> list[Row]:
    """Return columns of the events that were set aside, in order; none where an earlier version made the store."""
    if database.read_only and not _is_there(database, "dead_letters"):
        return []
    return database.execute(f"SELECT {columns} FROM dead_letters ORDER BY model, position")


def _texts(database: Database) -> dict[str, Text]:
    if database.read_only and not _is_there(database, "read_models"):
        return {}
    found: list[Any] = database.execute("SELECT model, key, sql FROM read_models")
    return {name.lower(): Text(name, tuple(key), sql) for name, key, sql in found}


def _is_there(database: Database, table: str) -> bool:
    found = "SELECT 1 FROM duckdb_tables() WHERE table_name = ? AND database_name = current_database()"
    return bool(database.execute(found, [table]))
