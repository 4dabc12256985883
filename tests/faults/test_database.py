"""The database: opening and sharing, locks, transactions that tell the truth, interrupts, threads, errors."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from support import Child, python

from cqrs_lab import open_shop
from cqrs_lab.database import Database, quote
from cqrs_lab.errors import (
    ConstraintViolated,
    QueryFailed,
    ReadOnlyStore,
    StoreClosed,
    StoreError,
    StoreInUse,
    StoreLocked,
    StoreMissing,
    TransactionAborted,
)
from cqrs_lab.interrupts import stoppable

LONG = "SELECT count(*) FROM range(3000000) a, range(3000000) b WHERE (a.range * b.range) % 7 = 3"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a file may be."""
    return tmp_path / "some.duckdb"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """A database with a table `t` of one number, its key."""
    opened = Database.open(path, threads=2)
    with opened.transaction():
        opened.execute("CREATE TABLE t (i INTEGER PRIMARY KEY)")
    yield opened
    opened.release()


def rows(database: Database) -> list[Any]:
    """What is in `t`."""
    return [i for (i,) in database.execute("SELECT i FROM t ORDER BY i")]


def opens_elsewhere(path: Path, **options: Any) -> str:
    """Open a file in another process and return what came of it."""
    code = f"""
from cqrs_lab.database import Database
try:
    Database.open({str(path)!r}, **{options!r})
    print("opened")
except Exception as error:
    print(type(error).__name__, getattr(error, "pid", ""), error)
"""
    return python(code).stdout.strip()


# -- opening, sharing and closing --------------------------------------------------------------------------------------


def test_another_process_is_kept_out(path: Path) -> None:
    """While a process has the store, others get StoreLocked with its id, read-only too, until it is closed."""
    with open_shop(path) as lab:
        for read_only in (False, True):
            said = opens_elsewhere(path, read_only=read_only)
            assert said.startswith(f"StoreLocked {os.getpid()} ")
            assert "lab.close()" in said
        # A notebook's cell run twice must not let go of the lock.
        open_shop(path).close()
        assert opens_elsewhere(path).startswith("StoreLocked")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: len(lab.events())).result()
            lab.close()
            # A cursor of a thread that still lives would keep the file locked.
            assert opens_elsewhere(path) == "opened"


def test_several_processes_may_read(path: Path, child: Child) -> None:
    """Processes that open read-only share the file; one that wants to write is kept out by name."""
    open_shop(path).close()
    assert child.run(f"lab = open_shop({str(path)!r}, read_only=True)") == []
    with open_shop(path, read_only=True) as lab:
        assert lab.head == 0
    with pytest.raises(StoreLocked) as locked:
        open_shop(path)
    assert locked.value.pid in (child.pid, None)
    child.run("lab.close()")
    open_shop(path).close()


def test_one_path_is_one_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file through another path, a link or a hard link is the same database, open until its last user goes."""
    first = Database.open(path)
    monkeypatch.chdir(path.parent)
    link, hard = path.with_name("link.duckdb"), path.with_name("hard.duckdb")
    link.symlink_to(path)
    hard.hardlink_to(path)
    others = [Database.open(p) for p in (path.name, link, hard, f"{path.parent}/x/../{path.name}", str(path))]
    assert all(other is first for other in others)
    for other in others:
        other.release()
    assert first.execute("SELECT 1") == [(1,)]
    first.release()
    with pytest.raises(StoreClosed, match="is closed"):
        first.execute("SELECT 1")
    again = Database.open(hard)
    assert again is not first
    again.release()


def test_read_only_beside_writing(path: Path) -> None:
    """One process cannot have a store read-only and for writing at once; the refusal leaves the first as it was."""
    for first, second in ((False, True), (True, False)):
        held = Database.open(path, read_only=first)
        with pytest.raises(StoreInUse, match="in this process"):
            Database.open(path, read_only=second)
        assert held.execute("SELECT 1") == [(1,)]
        held.release()
    Database.open(path, read_only=True).release()


def test_a_file_that_plain_duckdb_has(path: Path) -> None:
    """A file that other code of this process has open is StoreInUse, not damage."""
    with duckdb.connect(str(path)), pytest.raises(StoreInUse, match="outside of cqrs_lab"):
        Database.open(path)
    Database.open(path).release()


def test_in_memory_stores_are_apart() -> None:
    """Every store in memory is one of its own, and cannot be read-only."""
    one, other = Database.open(), Database.open()
    with one.transaction():
        one.execute("CREATE TABLE t (i INTEGER)")
    with pytest.raises(QueryFailed):
        other.execute("SELECT * FROM t")
    one.release()
    other.release()
    with pytest.raises(StoreMissing):
        Database.open(read_only=True)


@pytest.mark.parametrize("threads", [0, -3, 10**6])
def test_a_number_of_threads_that_cannot_be(path: Path, threads: int) -> None:
    """No threads, fewer than none and a million are refused; DuckDB would end the process over the last."""
    with pytest.raises(StoreError, match="from 1 to 1024"):
        Database.open(path, threads=threads)
    assert not path.exists()


def test_a_closed_lab_says_so(path: Path) -> None:
    """Everything asked of a closed lab is StoreClosed; closing twice is harmless."""
    lab = open_shop(path)
    served = lab.serve("order_summary")
    lazy = lab.events()
    lab.close()
    lab.close()
    uses = (lambda: served.rows().pl(), lambda: served.get("o-1"), served.rebuild, lambda: len(lazy))
    for use in uses:
        with pytest.raises(StoreClosed, match="open it again"):
            use()


def test_closing_one_lab_keeps_the_other(path: Path) -> None:
    """Two labs over one file share it; closing one, or closing it twice, leaves the other at work."""
    first, second = open_shop(path), open_shop(path)
    first.close()
    first.close()
    assert len(second.events()) == 0
    second.close()


def test_closing_stops_other_threads(database: Database, path: Path) -> None:
    """Closing while another thread runs a statement stops it with StoreClosed, and the file is free."""
    other = Database.open(path)
    other.release()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(database.execute, LONG)
        time.sleep(0.3)
        started = time.monotonic()
        database.release()
        with pytest.raises(StoreClosed):
            running.result()
        assert time.monotonic() - started < 2
        assert opens_elsewhere(path) == "opened"


def test_a_thread_that_ends_takes_its_cursor(database: Database) -> None:
    """A thousand short threads leave no cursors behind."""
    for _ in range(20):
        with ThreadPoolExecutor(50) as pool:
            list(pool.map(lambda _: database.execute("SELECT 1"), range(50)))
    assert len(database._cursors) <= 2


# -- transactions ------------------------------------------------------------------------------------------------------


def test_a_swallowed_error_is_not_success(database: Database) -> None:
    """A transaction in which a failed statement was ignored raises TransactionAborted and stores nothing."""
    with pytest.raises(TransactionAborted, match="nothing of it was"), database.transaction():  # noqa: PT012
        database.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(ConstraintViolated):
            database.execute("INSERT INTO t VALUES (1)")
    assert rows(database) == []
    with database.transaction():
        database.execute("INSERT INTO t VALUES (1)")
    assert rows(database) == [1]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_any_exception_rolls_back(database: Database, error: type[BaseException]) -> None:
    """Whatever is raised in the block reaches the caller, nothing is stored, and the next transaction works."""
    with pytest.raises(error), database.transaction():  # noqa: PT012
        database.execute("INSERT INTO t VALUES (1)")
        raise error
    assert not database.in_transaction
    with database.transaction():
        database.execute("INSERT INTO t VALUES (2)")
    assert rows(database) == [2]


def test_the_reason_is_not_hidden(database: Database) -> None:
    """When a statement over a registered table fails in a transaction, its own error comes out; the name is free."""
    table = pa.table({"i": [1, 1]})
    with (
        pytest.raises(ConstraintViolated, match=r"[Dd]uplicate|PRIMARY KEY"),
        database.transaction(),
        database.registered(table, "_table") as name,
    ):
        database.execute(f"INSERT INTO t SELECT i FROM {name}")
    with pytest.raises(QueryFailed, match="_table"):
        database.execute("SELECT * FROM _table")
    with database.registered(table.slice(1), "_table") as name, database.transaction():
        database.execute(f"INSERT INTO t SELECT i FROM {name}")
    assert rows(database) == [1]


def test_transactions_do_not_nest(database: Database) -> None:
    """A transaction inside a transaction is refused, and the outer one stores nothing."""
    with pytest.raises(StoreError, match="do not nest"), database.transaction():  # noqa: PT012
        database.execute("INSERT INTO t VALUES (1)")
        with database.transaction():
            pass
    assert rows(database) == []


def test_a_read_only_database_has_no_transactions(database: Database, path: Path) -> None:
    """A read-only database refuses transactions and statements that write, by name."""
    database.release()
    reading = Database.open(path, read_only=True)
    with pytest.raises(ReadOnlyStore, match="read_only=True"), reading.transaction():
        pass
    with pytest.raises(ReadOnlyStore, match="read_only=True"):
        reading.execute("INSERT INTO t VALUES (1)")
    reading.release()
    database._users = 1  # the fixture releases it once more


@pytest.mark.parametrize("form", ["at INSERT", "at COMMIT", "at UPDATE"])
def test_a_lost_race_has_one_name(database: Database, form: str) -> None:
    """Whichever way DuckDB reports that another transaction was first is ConstraintViolated, and nothing is kept."""
    with database.transaction():
        database.execute("INSERT INTO t VALUES (0)")
    statement = "UPDATE t SET i = 7 WHERE i = 0" if form == "at UPDATE" else "INSERT INTO t VALUES (7)"
    with ThreadPoolExecutor(1) as pool:
        go_on, inside = threading.Event(), threading.Event()

        def winner() -> None:
            with database.transaction():
                database.execute(statement)
                inside.set()
                go_on.wait(10)

        won = pool.submit(winner)
        inside.wait(10)
        with pytest.raises(ConstraintViolated, match="nothing of"), database.transaction():  # noqa: PT012
            if form == "at INSERT":
                go_on.set()
                won.result()
            database.execute(statement)
            go_on.set()
            won.result()
        go_on.set()
        won.result()
        assert rows(database) == ([7] if form == "at UPDATE" else [0, 7])


# -- interrupts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["execute", "arrow", "views", "transaction"])
def test_interrupt(database: Database, how: str) -> None:
    """interrupt() from another thread stops a statement with KeyboardInterrupt within 2 s, and the next one works."""
    stopped: list[float] = []

    def stop() -> None:
        stopped.append(time.monotonic())
        database.interrupt()

    threading.Timer(0.3, stop).start()
    with pytest.raises(KeyboardInterrupt, match="nothing of it was stored"):  # noqa: PT012
        if how == "execute":
            database.execute(LONG)
        elif how == "arrow":
            database.arrow(LONG)
        elif how == "views":
            database.arrow(LONG, views={"x": "SELECT 1 AS a"})
        else:
            with database.transaction():
                database.execute("INSERT INTO t VALUES (1)")
                database.execute(LONG)
    assert time.monotonic() - stopped[0] < 2
    assert rows(database) == []


def test_an_interrupt_of_nothing_stops_nothing(database: Database) -> None:
    """An interrupt while nothing runs does not fall on the next statement."""
    database.execute("SELECT 1")
    database.interrupt()
    assert database.execute("SELECT 42") == [(42,)]


def test_ctrl_c_is_never_late(child: Child) -> None:
    """Ctrl-C at any moment of a statement stops it within 2 s, with one thread or several, and no later one with it."""
    child.tell(
        f"""
others = {{number: Database.open(threads=number) for number in (1, 2, 4)}}
woken = []
signal.signal(signal.SIGUSR1, lambda *_: woken.append(1))
while True:
    threads = int(input())
    try:
        say("go")
        others[threads].execute({LONG!r})
    except KeyboardInterrupt:
        say(others[threads].execute("SELECT 42"))
"""
    )
    assert child.process.stdin is not None
    for number in range(24):
        child.process.stdin.write(f"{(1, 2, 4)[number % 3]}\n")
        assert child.line() == "go"
        time.sleep(number / 200)
        os.kill(child.pid, signal.SIGUSR1)  # another signal stops nothing
        time.sleep(0.01)
        sent = time.monotonic()
        os.kill(child.pid, signal.SIGINT)
        assert child.line() == "[(42,)]"
        assert time.monotonic() - sent < 2


def test_ctrl_c_stops_what_it_came_in() -> None:
    """A Ctrl-C that its own statement has already answered does not stop the next one."""
    stopped: list[str] = []
    for _ in range(30):
        with pytest.raises(KeyboardInterrupt), stoppable(lambda: stopped.append("first")):  # noqa: PT012
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        with stoppable(lambda: stopped.append("second")):
            time.sleep(0.01)
    assert "second" not in stopped


def test_another_handler_keeps_its_signals() -> None:
    """Where somebody else handles Ctrl-C, or waits to be woken by signals, a statement is left to them."""
    stopped: list[int] = []
    woken, wake = socket.socketpair()
    with woken, wake:
        wake.setblocking(False)
        before = signal.set_wakeup_fd(wake.fileno())
        handler = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            with stoppable(lambda: stopped.append(1)):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            assert woken.recv(10) == bytes([signal.SIGINT])
            assert signal.set_wakeup_fd(before) == wake.fileno()
        finally:
            signal.signal(signal.SIGINT, handler)
    assert not stopped


# -- questions and their errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    ["", "SELECT 1; SELECT 2", "DROP TABLE t", "INSERT INTO t VALUES (1)", "SELECT 1; DROP TABLE t", "PRAGMA version"],
)
def test_a_question_is_one_select(database: Database, sql: str) -> None:
    """Text that is not one SELECT is refused before any of it runs."""
    with pytest.raises(QueryFailed):
        database.arrow(sql, views={})
    assert rows(database) == []


def test_a_question_does_not_write(database: Database) -> None:
    """A SELECT that would write through a function of DuckDB's is refused, and leaves no views behind."""
    with database.transaction():
        database.execute("CREATE SEQUENCE s")
    with pytest.raises((QueryFailed, ReadOnlyStore)):
        database.arrow("SELECT nextval('s')", views={"v": "SELECT 1 AS a"})
    with pytest.raises(QueryFailed, match="v does not exist"):
        database.execute("SELECT * FROM v")


def test_a_wrong_question_says_where(database: Database) -> None:
    """An error of DuckDB's is QueryFailed with its message and the statement, and the cursor goes on working."""
    with pytest.raises(QueryFailed, match=r"nothing_like_it[\s\S]*In: SELECT nothing_like_it"):
        database.execute("SELECT nothing_like_it\nFROM t")
    with pytest.raises(QueryFailed, match="No files found"):
        database.execute("SELECT * FROM read_csv('nowhere.csv')")
    assert rows(database) == []


@pytest.mark.parametrize("name", ['x"; DROP TABLE t; --', "select", "Ordér 🛒", " ", "a.b"])
def test_quoted_names(database: Database, name: str) -> None:
    """A name that was quoted is nothing but a name."""
    with database.transaction():
        database.execute(f"CREATE TABLE {quote(name)} ({quote(name)} INTEGER)")
        database.execute(f"INSERT INTO {quote(name)} VALUES (1)")
    assert database.execute(f"SELECT {quote(name)} FROM {quote(name)}") == [(1,)]
    assert rows(database) == []


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_names_that_cannot_be(name: str) -> None:
    """An empty name and one with a NUL cannot be quoted."""
    with pytest.raises(QueryFailed, match="cannot name"):
        quote(name)


def test_threads_do_not_see_unfinished_transactions(database: Database) -> None:
    """Each thread has a cursor of its own: what one has not committed, the others do not see."""
    with ThreadPoolExecutor(1) as pool, database.transaction():
        database.execute("INSERT INTO t VALUES (1)")
        assert not pool.submit(lambda: database.in_transaction).result()
        assert pool.submit(rows, database).result() == []
    assert rows(database) == [1]


def test_days_do_not_depend_on_where_the_reader_sits(path: Path) -> None:
    """The session's zone is UTC on every cursor, whatever the machine's is."""
    code = f"""
from cqrs_lab.database import Database
database = Database.open({str(path)!r})
print(database.execute("SELECT current_setting('TimeZone'), TIMESTAMPTZ '2024-03-01 00:30:00+00'::DATE::VARCHAR"))
"""
    said = python(code, TZ="America/Los_Angeles")
    assert said.stdout.strip() == "[('UTC', '2024-03-01')]"
