"""Opening, sharing and closing a store; what is asked of one that is closed or read-only."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest
from support import Child, python
from support.stores import opens_elsewhere

from cqrs_lab import open_shop
from cqrs_lab.errors import QueryFailed, ReadOnlyStore, StoreClosed, StoreError, StoreInUse, StoreLocked, StoreMissing
from cqrs_lab.store.database import Database


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


def test_days_do_not_depend_on_where_the_reader_sits(path: Path) -> None:
    """The session's zone is UTC on every cursor, whatever the machine's is."""
    code = f"""
from cqrs_lab.store.database import Database
database = Database.open({str(path)!r})
print(database.execute("SELECT current_setting('TimeZone'), TIMESTAMPTZ '2024-03-01 00:30:00+00'::DATE::VARCHAR"))
"""
    said = python(code, TZ="America/Los_Angeles")
    assert said.stdout.strip() == "[('UTC', '2024-03-01')]"
