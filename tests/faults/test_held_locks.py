"""What is shared is touched only by who holds its lock.

Races find a missing lock by chance. Here the shared thing itself asks, at every touch, whether its lock is held.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from cachetools import LRUCache
from support import append, batch
from support.tallies import Add, decide, open_lab

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.processes import Weak
from cqrs_lab.read import kept
from cqrs_lab.read.kept import Kept
from cqrs_lab.read.stored import Stored
from cqrs_lab.shop import OrderPaid, OrderPlaced
from cqrs_lab.store import copies
from cqrs_lab.store.answers import Answers, Cache
from cqrs_lab.store.cursors import Cursor
from cqrs_lab.store.database import Database
from cqrs_lab.store.followers import Follower
from cqrs_lab.store.log import APPEND
from cqrs_lab.store.memory import Heads, Memory
from cqrs_lab.store.move import SERVINGS
from cqrs_lab.store.tables import Tables
from cqrs_lab.write.group_commit import GroupCommit

FACTS = ReadModel("facts", "order_id", "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id")
PLACED, PAID = OrderPlaced(order_id="o-1", total=5), OrderPaid(order_id="o-1", amount=5)


def is_held(lock: Any) -> bool:
    """Whether this thread holds a re-entrant lock."""
    return bool(lock._is_owned())


class Watched(Counter[Any]):
    """Counts that are changed by the holder of a lock alone."""

    lock: Any = None

    def __setitem__(self, key: Any, value: Any) -> None:
        assert is_held(self.lock), key
        super().__setitem__(key, value)


class WatchedSet(WeakSet[Cache]):
    """A set that is walked through by the holder of a lock alone."""

    lock: Any = None

    def __iter__(self) -> Iterator[Cache]:
        assert is_held(self.lock)
        return super().__iter__()


def test_answers_are_counted_and_dropped_under_their_lock() -> None:
    """A change that begins or ends, and a look at all caches, holds the lock of the answers."""
    answers, place = Answers(), ("facts", "projection")
    answers.all = WatchedSet()
    answers._changes, answers._open = Watched(), Watched()
    for watched in (answers.all, answers._changes, answers._open):
        watched.lock = answers.lock
    answers.begin(place)
    answers.drop(place)
    assert answers.needs(place) == []
    answers.end(place)
    with pytest.raises(AssertionError):
        answers._changes[place] += 1


def test_the_register_of_open_files_changes_under_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening and closing a file hold the lock of the register, so that no two instances open one file."""

    class Register(dict[str, Database]):
        def __setitem__(self, path: str, database: Database) -> None:
            assert is_held(Database._registry_lock)
            super().__setitem__(path, database)

        def pop(self, path: str, *default: Any) -> Any:
            assert is_held(Database._registry_lock)
            return super().pop(path, *default)

    register = Register(Database._open)
    monkeypatch.setattr(Database, "_open", register)
    with open_shop(tmp_path / "shop.duckdb"), open_shop(tmp_path / "shop.duckdb"):
        assert len(register) > 0
    assert str(tmp_path / "shop.duckdb") not in register


def test_threads_share_a_database_under_its_guard(database: Database) -> None:
    """Locks, parses and cursors, which all threads share, are found and added by one thread at a time."""
    touched = list[tuple[str, bool]]()

    def note(what: str) -> None:
        touched.append((what, is_held(database._guard)))

    class Locks(defaultdict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            note("lock")
            return super().__getitem__(name)

    class Parses(LRUCache[str, Any]):
        def get(self, sql: str, default: Any = None) -> Any:
            note("find a parse")
            return super().get(sql, default)

        def __setitem__(self, sql: str, parse: Any) -> None:
            note("add a parse")
            super().__setitem__(sql, parse)

    class Cursors(Weak[Cursor]):
        def add(self, thing: Cursor) -> None:
            note("add a cursor")
            super().add(thing)

    database._locks, database._statements, database._cursors = Locks(threading.RLock), Parses(9), Cursors()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(database.execute, "SELECT ?", [1]).result(120) == [(1,)]
    assert database.lock("mine") is database.lock("mine")
    assert {what for what, _ in touched} == {"lock", "find a parse", "add a parse", "add a cursor"}
    assert [what for what, is_guarded in touched if not is_guarded] == []


def test_a_cursor_is_busy_while_it_is_used(database: Database) -> None:
    """Who closes a database can wait until a statement of another thread has ended."""
    assert database.execute("SELECT 1") == [(1,)]
    cursor: Cursor = database._local.cursor
    assert database._run(lambda _: cursor.busy.locked(), "")
    assert not cursor.busy.locked()


def test_a_store_is_opened_and_read_under_its_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are made while nobody appends, and what memory takes over from them is published by nobody else."""
    made = watch(monkeypatch, Tables, "prepare", lambda self: self._database.lock(APPEND))
    with open_shop(tmp_path / "shop.duckdb") as lab:
        assert made == [True]
        memory = lab._log.memory
        read = watch(monkeypatch, Heads, "read", lambda _: memory.lock)
        memory.read()
        assert read == [True]


def test_a_follower_moves_under_its_lock(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins, catches up, and hands over again what it had set aside, in one thread at a time."""
    stored = watch(monkeypatch, Follower, "_store", lambda self: self._lock)
    failing = [True]

    def handle(_: Any) -> None:
        if failing:
            raise ValueError("not today")

    follower = Follower(lab._log, "mine", "saga", [OrderPaid], handle, 0, "dead letter")
    assert len(stored) == 1
    assert follower.catch_up(attempts=1) == lab.head
    told = len(stored)
    assert told > 1
    assert follower.retry() == 0
    assert len(stored) > told
    assert all(stored)


def test_a_copy_is_made_under_the_lock_of_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two copies to one file, by two threads, do not write into each other: one is there, the other is refused."""
    real, seen = copies._copy, []

    def watched(database: Database, part: Path) -> None:
        seen.append(is_held(database.lock(f"copy to {(tmp_path / 'copy.duckdb').resolve()}")))
        real(database, part)

    monkeypatch.setattr(copies, "_copy", watched)
    with open_shop(tmp_path / "shop.duckdb") as lab:
        append(lab, [PLACED])
        lab.backup(tmp_path / "copy.duckdb")
    assert seen == [True]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A shop with some events."""
    with open_shop() as shop:
        append(shop, [PLACED, PAID, OrderPlaced(order_id="o-2", total=5)])
        yield shop


def watch(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, lock: Callable[[Any], Any]) -> list[bool]:
    """Note at every call of a method whether a lock is held, or the gate that keeps an erasure out."""
    real, seen = getattr(owner, name), list[bool]()

    def watched(self: Any, *given: Any, **more: Any) -> Any:
        found = lock(self)
        seen.append(found if isinstance(found, bool) else is_held(found))
        return real(self, *given, **more)

    monkeypatch.setattr(owner, name, watched)
    return seen


def test_rows_are_swapped_under_the_lock_of_the_servings(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build, in steps or at once, decides where it stands and swaps its rows while nobody else moves rows."""
    of_servings = lambda self: self._catalog.log.database.lock(SERVINGS)  # noqa: E731
    looked = watch(monkeypatch, Stored, "_layers_at", of_servings)
    swapped = watch(monkeypatch, Stored, "_swap", of_servings)
    served = lab.serve(FACTS)
    served.rebuild()
    lab.serve(FACTS, "materialized").refresh()
    alone = lambda self: self._catalog.log.database.lock(f"build {self.place}")  # noqa: E731
    with pytest.MonkeyPatch.context() as once:
        gates = watch(once, Stored, "_fold", lambda self: self._memory._builders > 0)
        builders = watch(once, Stored, "_fold", alone)
        served.rebuild()
    assert gates
    assert all([*gates, *builders])  # nothing is erased meanwhile, and nobody else builds the same rows
    served.stored._build_at_once(lab.head, None, None)
    filled = watch(monkeypatch, Stored, "_fill", of_servings)
    others = watch(monkeypatch, Stored, "_fill", alone)
    assert served.stored.take(served.stored.every(lab.head), lab.head) == lab.head
    assert filled == others == [True]
    assert len(swapped) >= 5
    assert all(looked)
    assert all(swapped)


def test_histories_are_kept_under_their_locks(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions are added, built and dropped by one thread at a time, while the rows that they follow stand still."""
    own = lambda self: self._lock  # noqa: E731
    of_servings = lambda self: self._log.database.lock(SERVINGS)  # noqa: E731
    gate = lambda self: self._memory._builders > 0  # noqa: E731
    monkeypatch.setattr(kept, "DUE", 1)
    added = watch(monkeypatch, Kept, "_add", own)
    moved = watch(monkeypatch, Kept, "_forward", own)
    dropped = list[bool]()
    real = kept.moving

    def moving(memory: Any) -> Any:
        dropped.append(is_held(lab._log.database.lock(f"history {FACTS.id}")))
        return real(memory)

    monkeypatch.setattr(kept, "moving", moving)
    forwarded = watch(monkeypatch, Kept, "forward", of_servings)
    with pytest.MonkeyPatch.context() as once:
        kept_out = watch(once, Kept, "_add", gate)
        served = lab.serve(FACTS, keep_history=True)
        assert kept_out
        assert all(kept_out)  # of an erasure, which would not find what is being built
    assert added
    append(lab, [PAID])
    lab.catch_up()
    assert moved
    assert forwarded
    built, first = watch(monkeypatch, Kept, "build", of_servings), watch(monkeypatch, Kept, "build", gate)
    kept.remake(served._catalog, [served.model])
    assert built == [True]
    assert first == [True]  # the gate comes before the lock, as everywhere
    gone = watch(monkeypatch, Kept, "drop", of_servings)
    lab.serve(FACTS, keep_history=False)
    assert gone == [True]
    assert len(dropped) > 3
    assert all([*added, *moved, *dropped, *forwarded])


def test_the_queue_of_commands_changes_under_its_guard() -> None:
    """A command comes, is taken, is put back after Ctrl-C and leaves while nobody else looks at the queue."""
    touched = list[tuple[str, bool]]()  # not asserted there: what is raised in a group is told its commands

    class Queue(deque[Any]):
        """A queue that notes who touches it; how long it is may be asked by all."""

        def __getattribute__(self, name: str) -> Any:
            if name in ("append", "popleft", "remove", "extendleft"):
                self.note(name)
            return super().__getattribute__(name)

        def __contains__(self, waiting: object) -> bool:
            self.note("in")
            return super().__contains__(waiting)

        def __iter__(self) -> Iterator[Any]:
            self.note("iter")
            return super().__iter__()

        def note(self, what: str) -> None:
            touched.append((what, group._guard.locked()))

    def deciding(command: Add, total: int) -> Any:
        if command.note == "stop":
            raise KeyboardInterrupt
        return decide(command, total)

    with open_lab(decide=deciding) as lab:
        (group,) = (step for step in lab._commands.middleware if isinstance(step, GroupCommit))
        group._queue = Queue()
        lab.send(Add(tally="a", n=1))
        assert {what for what, _ in touched} == {"append", "iter", "popleft", "in"}
        with pytest.raises(KeyboardInterrupt):
            lab.send(Add(tally="a", n=1, note="stop"))
        assert {what for what, _ in touched} == {"append", "iter", "popleft", "in", "extendleft", "remove"}
        assert lab.send(Add(tally="a", n=1)).position == 2
    assert [what for what, is_guarded in touched if not is_guarded] == []


def test_the_streams_that_are_remembered_change_under_the_lock_of_the_log(lab: Lab) -> None:
    """A command and a table change what is known of streams while nobody else can append."""
    changed = list[bool]()

    class Streams(LRUCache[str, tuple[int, int]]):
        def __setitem__(self, stream: str, known: tuple[int, int]) -> None:
            changed.append(is_held(lab._log.database.lock(APPEND)))
            super().__setitem__(stream, known)

        def clear(self) -> None:
            changed.append(is_held(lab._log.database.lock(APPEND)))
            super().clear()

    lab._log.heads.streams = Streams(100)
    append(lab, [PAID])
    assert len(changed) == 1
    lab.append_table("order", batch("b", 3))
    assert len(changed) == 2
    assert all(changed)


def test_a_move_waits_for_what_another_thread_commits(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A move that begins before another thread has published its commit waits for that, and reads no table again."""
    memory, comes = lab._log.memory, threading.Event()
    real = memory.lock

    class Lock:
        def __enter__(self) -> None:
            comes.set()
            real.acquire()

        def __exit__(self, *_: object) -> None:
            real.release()

    monkeypatch.setattr(memory, "lock", Lock())
    read = watch(monkeypatch, Memory, "read", lambda self: real)
    with ThreadPoolExecutor(1) as pool:
        with real:
            memory.uncertain = threading.get_ident()
            appended = pool.submit(append, lab, [PAID])
            assert comes.wait(120)
            memory.uncertain = None
        appended.result(120)
    assert read == []


def test_a_lock_that_is_not_held_is_noticed() -> None:
    """The check itself: of a lock that another thread holds, this one says no."""
    lock = threading.RLock()
    assert not is_held(lock)
    with lock:
        assert is_held(lock)
        other = list[bool]()
        thread = threading.Thread(target=lambda: other.append(is_held(lock)))
        thread.start()
        thread.join()
        assert other == [False]
