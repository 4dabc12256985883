"""The faults of a store's life, each with real files, processes, threads and signals: kills, damage, interrupts."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from support import START, Child, batch, line, pay, place

from cqrs_lab import Command, Decider, Domain, Event, Lab, ReadModel, open_shop, wal
from cqrs_lab.database import Database
from cqrs_lab.errors import (
    ConcurrencyError,
    IdempotencyConflict,
    InvalidMessage,
    InvalidTable,
    NotAStore,
    ProjectionFailed,
    ReadOnlyStore,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreMissing,
    UnknownEventType,
)
from cqrs_lab.shop import (
    CancelOrder,
    OrderPaid,
    OrderPlaced,
    ShipOrder,
    customers,
    daily_orders,
    order_facts,
    order_summary,
    orders,
)
from cqrs_lab.write.event_store import EventStore


def check_whole(lab: Lab) -> int:
    """Assert that the log has no holes and that every serving ends in the view's rows; return the head."""
    log = lab.events().pl()
    assert log["position"].to_list() == list(range(1, lab.head + 1))
    for _, stream in log.group_by("stream"):
        assert stream.sort("position")["version"].to_list() == list(range(1, len(stream) + 1))
    lab.catch_up()
    for model in (order_summary, daily_orders):
        expected = lab.serve(model, "view").rows().fetchall()
        assert lab.serve(model, "projection").rows().fetchall() == expected
        materialized = lab.serve(model, "materialized")
        materialized.refresh()
        assert materialized.rows().fetchall() == expected
    return lab.head


def serve_all(lab: Lab) -> None:
    """Serve both read models every way."""
    for model in (order_summary, daily_orders):
        lab.serve(model, "view")
        lab.serve(model, "projection")
        lab.serve(model, "materialized")


def hashes(folder: Path) -> dict[str, str]:
    """What every file in a folder holds."""
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir()) if f.is_file()}


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Assert that no byte of any file in the folder changes."""
    before = hashes(folder)
    yield
    assert hashes(folder) == before


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 300 orders, served every way, closed."""
    path = tmp_path_factory.mktemp("built") / "shop.duckdb"
    with open_shop(path, threads=1) as lab:
        lab.append_table("order", batch("b", 300))
        serve_all(lab)
    return path


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    """A copy of that store to break."""
    folder = tmp_path / "store"
    folder.mkdir()
    return Path(shutil.copy(built, folder / "shop.duckdb"))


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A store whose process died: the bytes of its file and of its log, and how long the log was at each commit."""
    path = tmp_path_factory.mktemp("logged") / "shop.duckdb"
    log = wal.logs_of(path)[0]
    with open_shop(path, threads=1) as lab:
        commits = [(log.stat().st_size, 0)]
        for number in range(4):
            lab.send(place(f"o-{number}"))
            commits.append((log.stat().st_size, lab.head))
            lab.send(pay(f"o-{number}"))
            commits.append((log.stat().st_size, lab.head))
        # Copied while the store is open, which is what a kill leaves.
        return SimpleNamespace(main=path.read_bytes(), log=log.read_bytes(), commits=commits)


def entries(log: bytes) -> list[int]:
    """Where the entries of a log begin, and where it ends."""
    starts = [log.index(b"\xff\xff") + 2]
    while starts[-1] < len(log):
        starts.append(starts[-1] + 16 + int.from_bytes(log[starts[-1] : starts[-1] + 8], "little"))
    assert starts[-1] == len(log)
    return starts


# -- kill -9 -----------------------------------------------------------------------------------------------------------

APPEND = 'lab.append_table("order", batch("k", 500))'
CATCH_UP = 'lab.send(place("k-0")); lab.catch_up()'
REBUILD = 'lab.send(place("k-0")); lab.serve(order_summary, "projection").rebuild()'
REFRESH = 'lab.send(place("k-0")); lab.serve(order_summary, "materialized").refresh()'


@pytest.mark.parametrize(
    ("act", "part", "when", "new"),
    [
        (APPEND, "INSERT INTO streams", "after", 0),
        (APPEND, 'INSERT INTO "order_events"', "after", 0),
        (APPEND, "COMMIT", "before", 0),
        (APPEND, "COMMIT", "after", 500),
        ('lab.send(place("k-0"))', "COMMIT", "after", 1),
        (CATCH_UP, "UPDATE servings SET position", "before", 1),
        (CATCH_UP, "UPDATE servings SET position", "after", 1),
        (REBUILD, "DROP TABLE", "after", 1),
        (REFRESH, "RENAME TO", "after", 1),
    ],
)
def test_kill_at_a_named_point(child: Child, store: Path, act: str, part: str, when: str, new: int) -> None:
    """A process killed there leaves a whole append or none of it, and rows that moved with their checkpoint or not."""
    child.tell(f"lab = open_shop({str(store)!r}, threads=1); die_at({part!r}, {when!r}); {act}")
    assert child.wait() == -signal.SIGKILL
    with open_shop(store, threads=1) as lab:
        assert lab.head == 300 + new
        for served in (lab.serve(order_summary, "projection"), lab.serve(order_summary, "materialized")):
            assert served.position == 300
            assert len(served.rows()) == 300
        assert check_whole(lab) == 300 + new


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_at_any_moment(tmp_path: Path, seed: int) -> None:
    """Whenever a process is killed, every append that it acknowledged is there after reopening, and nothing partial."""
    path, moments = tmp_path / "shop.duckdb", random.Random(seed)
    loop = f"""
lab = open_shop({str(path)!r}, threads=1)
lab.serve(order_summary, "projection"); lab.serve(daily_orders, "projection")
# Small, so that some of the kills hit a checkpoint.
lab._log.database.execute("SET GLOBAL wal_autocheckpoint = '40KB'")
for number in range(lab.head, lab.head + 100_000):
    say(lab.send(place(f"o-{{number}}")).position)
    if number % 20 == 0:
        lab.catch_up()
"""
    for _ in range(2):
        child = Child()
        child.tell(loop)
        told = [child.line() for _ in range(3)]
        killer = threading.Timer(moments.uniform(0.05, 0.9), child.process.kill)
        killer.start()
        while line := child.line():
            told.append(line)
        killer.join()
        assert child.wait() == -signal.SIGKILL
        with open_shop(path, threads=1) as lab:
            # One more may have been stored whose acknowledgement was never printed; a cut line counts for less.
            acknowledged = [int(line) for line in told[:-1]]
            assert check_whole(lab) >= acknowledged[-1]
            assert lab.head <= acknowledged[-1] + 2


def test_kill_around_a_checkpoint(child: Child, tmp_path: Path) -> None:
    """A log that a crash left behind a checkpoint, done or half done, is no damage, and nothing is lost or doubled."""
    points = "before_truncate before_header after_free_list_write before_wal_finish".split()
    child.tell(
        f"""
for point in {points!r}:
    lab = open_shop(os.path.join({str(tmp_path)!r}, point + ".duckdb"), threads=1)
    for number in range(5):
        lab.send(place(f"o-{{number}}"))
    lab._log.database.execute(f"SET GLOBAL debug_checkpoint_abort = '{{point}}'")
    try:
        lab._log.database.execute("CHECKPOINT")
        say("went on")
    except StoreError:
        pass
die()
"""
    )
    assert child.line() == ""
    for point in points:
        path = tmp_path / f"{point}.duckdb"
        assert wal.logs_of(path)[0].exists()
        with open_shop(path, threads=1, read_only=True) as lab:
            assert lab.head == 5
        with open_shop(path, threads=1) as lab:
            assert check_whole(lab) == 5


def test_kill_while_a_checkpoint_runs_beside_a_commit(child: Child, tmp_path: Path) -> None:
    """A commit beside a running checkpoint survives a kill; its log is refused when damaged, or without the one before.

    DuckDB lets a transaction that was open before the checkpoint commit during it, into a log of its own.
    """
    path = tmp_path / "store" / "shop.duckdb"
    path.parent.mkdir()
    child.tell(
        f"""
lab = open_shop({str(path)!r}, threads=1)
for number in range(5):
    lab.send(place(f"o-{{number}}"))
database = lab._log.database
# Without a key: DuckDB makes an insert into an index wait for the checkpoint.
database.execute("CREATE TABLE aside (value VARCHAR)")
database.execute("SET GLOBAL wal_autocheckpoint = '1KB'")
database.execute("SET GLOBAL debug_checkpoint_sleep_ms = 30000")
begun, go_on = threading.Event(), threading.Event()

def beside():
    with database.transaction():
        database.execute("SELECT count(*) FROM aside")
        begun.set()
        go_on.wait()
        database.execute("INSERT INTO aside VALUES ('beside')")
    say("committed")

threading.Thread(target=beside, daemon=True).start()
begun.wait()
insert = "INSERT INTO aside SELECT range FROM range(300)"
threading.Thread(target=lambda: database.execute(insert), daemon=True).start()
time.sleep(0.5)
go_on.set()
time.sleep(30)
"""
    )
    assert child.line() == "committed"
    child.kill()
    main, beside = wal.logs_of(path)
    alone, broken = tmp_path / "alone", tmp_path / "broken"
    for folder in (alone, broken):
        shutil.copytree(path.parent, folder)
    (alone / main.name).unlink()
    with untouched(alone), pytest.raises(StoreCorrupt, match="is missing while"):
        open_shop(alone / path.name)
    log = bytearray(beside.read_bytes())
    log[entries(bytes(log))[0] + 6] ^= 1
    (broken / beside.name).write_bytes(log)
    with untouched(broken), pytest.raises(StoreCorrupt, match="stand behind that place"):
        open_shop(broken / path.name)
    with open_shop(path, threads=1) as lab:
        assert check_whole(lab) == 5
        assert ("beside",) in lab._log.database.execute("SELECT * FROM aside")


# -- damaged files -----------------------------------------------------------------------------------------------------


def test_a_log_cut_anywhere_holds_a_prefix(logged: SimpleNamespace, tmp_path: Path) -> None:
    """A log cut at any byte, as a kill leaves it, opens with the commits that were whole, and takes new ones."""
    borders = entries(logged.log)
    cuts = {border + step for border in borders for step in (0, 1, 16)} | set(range(0, len(logged.log), 97))
    cuts = {cut for cut in cuts if cut <= len(logged.log)}
    # Every commit and its neighbours; among the rest a sample, drawn anew for every length of the log.
    near = {size + step for size, _ in logged.commits for step in (-1, 0)}
    sample = random.Random(len(logged.log)).sample(sorted(cuts - near), 14)
    path = tmp_path / "shop.duckdb"
    for cut in sorted({*(n for n in near if n <= len(logged.log)), *sample}):
        path.write_bytes(logged.main)
        wal.logs_of(path)[0].write_bytes(logged.log[:cut])
        with open_shop(path, threads=1) as lab:
            whole = max((head for size, head in logged.commits if size <= cut), default=0)
            assert lab.head == whole, cut
            assert [e[0] for e in lab.events()] == list(range(1, whole + 1)), cut
            if cut % 5 == 0:
                assert lab.send(place("new")).position == whole + 1
        if cut % 5 == 0:
            with open_shop(path, threads=1) as lab:
                assert lab.head == whole + 1
        wal.logs_of(path)[0].unlink(missing_ok=True)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_flipped_byte_in_the_log_is_refused(logged: SimpleNamespace, tmp_path: Path, read_only: bool) -> None:
    """A byte that changed anywhere in the log is StoreCorrupt, and the files stay as they are."""
    path = tmp_path / "shop.duckdb"
    path.write_bytes(logged.main)
    log = wal.logs_of(path)[0]
    borders = entries(logged.log)
    places = {*range(borders[0]), *range(borders[0], len(logged.log), 577)}
    # The length of an entry is what DuckDB believes without a checksum: of the first, a middle and the last ones.
    places |= {border + i for border in (*borders[:2], *borders[30:32], *borders[-5:-1]) for i in (0, 3, 7, 8, 15)}
    for at in sorted(places)[read_only::2]:
        damaged = bytearray(logged.log)
        damaged[at] ^= 1 << (at % 8)
        log.write_bytes(damaged)
        with untouched(tmp_path), pytest.raises(StoreCorrupt) as refused:
            open_shop(path, threads=1, read_only=read_only)
        assert len(str(refused.value)) < 800, at
        assert "Stack Trace" not in str(refused.value)


def test_a_log_of_something_else_is_refused(logged: SimpleNamespace, store: Path, tmp_path: Path) -> None:
    """Garbage, or the log of another store, in the place of the log is StoreCorrupt, and the files stay."""
    log = wal.logs_of(store)[0]
    for content in (random.Random(5).randbytes(5000), b"\0" * 5000, b"hello", logged.log, logged.log[:60]):
        log.write_bytes(content)
        for read_only in (False, True):
            with untouched(store.parent), pytest.raises(StoreCorrupt, match="does not begin as a log of this"):
                open_shop(store, read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_log_without_its_beginning_is_refused(logged: SimpleNamespace, tmp_path: Path, read_only: bool) -> None:
    """A log whose first transactions are gone, the rest intact, does not fit its file and is StoreCorrupt."""
    path = tmp_path / "shop.duckdb"
    path.write_bytes(logged.main)
    wal.logs_of(path)[0].write_bytes(logged.log[: entries(logged.log)[0]] + logged.log[logged.commits[0][0] :])
    with untouched(tmp_path), pytest.raises(StoreCorrupt, match="cannot be opened"):
        open_shop(path, read_only=read_only)


def test_the_commit_mark_is_the_one_duckdb_writes(logged: SimpleNamespace) -> None:
    """The bytes by which damage is told from a torn end are those that this version of DuckDB ends a commit with."""
    for size, _ in logged.commits:
        assert logged.log[:size].endswith(b"\x05" + bytes(7) + wal._COMMIT)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_flipped_byte_in_the_file_is_never_a_wrong_answer(store: Path, read_only: bool) -> None:
    """A byte that changed in the file is StoreCorrupt at opening or at reading, or lies where nothing reads."""
    original = store.read_bytes()

    def answers(lab: Lab) -> list[Any]:
        ways = [
            lab.serve(m, a).rows().fetchall() for m in (order_summary, daily_orders) for a in ("projection", "view")
        ]
        return [lab.events().fetchall(), *ways]

    with open_shop(store, threads=1, read_only=True) as lab:
        expected = answers(lab)
    spots = random.Random(7 + read_only)
    places = [8, 130, 4100, 4110, 8200, *(spots.randrange(12_288, len(original)) for _ in range(14))]
    refused = 0
    for at in places:
        with store.open("r+b") as stream:
            stream.seek(at)
            stream.write(bytes([original[at] ^ 0x10]))
        with untouched(store.parent):
            try:
                with open_shop(store, threads=1, read_only=read_only) as lab:
                    assert answers(lab) == expected, at
            except StoreCorrupt:
                refused += 1
        store.write_bytes(original)
    assert refused > 6


@pytest.mark.parametrize("read_only", [False, True])
def test_a_cut_file_is_refused(store: Path, read_only: bool) -> None:
    """A file cut short anywhere is StoreCorrupt at opening, or when what is missing is asked for."""
    original = store.read_bytes()
    for size in (0, 1, 11, 12, 100, 4096, 12_287, 12_288, 20_000, len(original) // 2, len(original) - 300_000):
        store.write_bytes(original[:size])
        with untouched(store.parent), pytest.raises(StoreCorrupt):  # noqa: PT012, the damage may show late
            lab = open_shop(store, threads=1, read_only=read_only)
            try:
                lab.events().fetchall()
                lab.serve(order_summary, "projection").rows().fetchall()
                lab.serve(order_summary, "materialized").rows().fetchall()
            finally:
                lab.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_what_is_no_store_is_refused(logged: SimpleNamespace, tmp_path: Path, read_only: bool) -> None:
    """A foreign file, a folder, a foreign database, and a log without its file are named errors; nothing changes."""
    text, empty, folder, lone = (tmp_path / name for name in ("notes.txt", "empty.db", "folder", "lone.db"))
    text.write_text("dear diary, today I made a CSV; it was not DUCK but a goose " * 9)
    empty.touch()
    folder.mkdir()
    wal.logs_of(lone)[0].write_bytes(logged.log)
    foreign, used = tmp_path / "foreign.db", tmp_path / "used.db"
    with duckdb.connect(str(foreign)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    # A foreign database in use: part of what it holds is in its log.
    connection = duckdb.connect(str(foreign))
    connection.execute("INSERT INTO t VALUES (2)")
    for file in (foreign, wal.logs_of(foreign)[0]):
        shutil.copy(file, str(file).replace("foreign", "used"))
    connection.close()
    for path, error, said in (
        (text, NotAStore, "is not a DuckDB file"),
        (empty, StoreCorrupt, "has no bytes"),
        (folder, NotAStore, "is a folder"),
        (lone, StoreCorrupt, "is missing while its log"),
        (foreign, NotAStore, "other tables"),
        (used, NotAStore, "other tables"),
    ):
        with untouched(tmp_path), pytest.raises(error, match=said):
            open_shop(path, read_only=read_only)
    assert not list(folder.iterdir())


def test_a_path_that_cannot_be_a_store(tmp_path: Path) -> None:
    """A missing folder, a missing file asked for read-only, and impossible names are named errors."""
    with pytest.raises(StoreMissing, match="make it first"):
        open_shop(tmp_path / "nowhere" / "shop.duckdb")
    with pytest.raises(StoreMissing, match="does not exist"):
        open_shop(tmp_path / "shop.duckdb", read_only=True)
    with pytest.raises(StoreMissing, match="cannot be the path"):
        open_shop(f"{tmp_path}/a\0b")
    with pytest.raises(StoreError, match="cannot be opened"):
        open_shop(tmp_path / ("x" * 300))
    assert not list(tmp_path.iterdir())


# -- room on the disk --------------------------------------------------------------------------------------------------


def on_a_small_disk(scene: Callable[[Path], None], folder: Path) -> None:
    """Run a scene in a process that alone sees a disk of 3 MB, which is gone with the process however that ends."""
    unshare = shutil.which("unshare")
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if unshare is None or subprocess.run([unshare, "-rm", *mount], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    code = f"import test_faults, pathlib; test_faults.{scene.__name__}(pathlib.Path({str(folder)!r}))"
    inside = [unshare, "-rm", "sh", "-c", '"$@" && exec "$0" -c "$CODE"', sys.executable, *mount]
    env = {**os.environ, "CODE": code, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(inside, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def remount(folder: Path, options: str) -> None:
    """Mount the small disk anew with other options."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def disk_full(folder: Path) -> None:
    """The scene of test_disk_full."""
    path = folder / "shop.duckdb"
    acknowledged = 0
    text = "x" * 100_000
    lab = open_shop(path, threads=1)
    with pytest.raises(StoreFull, match="This was not acknowledged; make room"):  # noqa: PT012
        for number in range(100):
            lab.send(place(number, *[line()] * 10, customer="c-1" + text[:400]))
            lab.send(CancelOrder(order_id=f"o-{number}", reason=text))
            acknowledged = lab.head
    assert lab.head >= acknowledged > 10
    acknowledged = lab.head
    lab.close()
    remount(folder, "size=64m")
    with open_shop(path, threads=1) as lab:
        assert check_whole(lab) == acknowledged
        assert lab.send(place("new")).position == acknowledged + 1


def test_disk_full(tmp_path: Path) -> None:
    """An append without room raises StoreFull; with room again every acknowledged append is there, and more can be."""
    on_a_small_disk(disk_full, tmp_path)


def disk_full_in_a_checkpoint(folder: Path) -> None:
    """The scene of test_disk_full_in_a_checkpoint."""
    path = folder / "shop.duckdb"
    lab = open_shop(path, threads=1)
    lab._log.database.execute("SET GLOBAL wal_autocheckpoint = '1MB'")
    acknowledged = 0
    with pytest.raises(StoreFull, match="ake room, then"):  # noqa: PT012
        for number in range(3000):
            acknowledged = lab.send(place(f"o-{number}")).position
    with pytest.raises(StoreFull, match="acknowledged appends are kept"):
        lab.events().fetchall()
    lab.close()
    remount(folder, "size=64m")
    with open_shop(path, threads=1) as lab:
        assert check_whole(lab) == acknowledged


def test_disk_full_in_a_checkpoint(tmp_path: Path) -> None:
    """When the log cannot be folded into the file, the store says so until it is opened again, and loses nothing."""
    on_a_small_disk(disk_full_in_a_checkpoint, tmp_path)


@pytest.mark.parametrize(("point", "stored"), [("before_header", 0), ("before_wal_finish", 1)])
def test_a_checkpoint_that_fails(tmp_path: Path, point: str, stored: int) -> None:
    """A checkpoint that fails in a commit stops the store by an error; reopened it is whole, with the commit or not."""
    path = tmp_path / "shop.duckdb"
    lab = open_shop(path, threads=1)
    lab._log.database.execute(f"SET GLOBAL debug_checkpoint_abort = '{point}'")
    lab._log.database.execute("SET GLOBAL wal_autocheckpoint = '1KB'")
    for _ in range(2):
        with pytest.raises(StoreError, match="open it again"):
            lab.send(place("o-1"))
    lab.close()
    with open_shop(path, threads=1) as lab:
        assert check_whole(lab) == stored


def test_a_commit_that_is_on_disk_is_acknowledged(tmp_path: Path) -> None:
    """When only the checkpoint after a durable commit fails, the commit is no error; the next call says reopen."""
    path = tmp_path / "some.duckdb"
    database = Database.open(path)
    with database.transaction():
        database.execute("CREATE TABLE t (i INTEGER)")
    database.execute("SET GLOBAL debug_checkpoint_abort = 'before_header'")
    database.execute("SET GLOBAL wal_autocheckpoint = '1KB'")
    with database.transaction():
        database.execute("INSERT INTO t SELECT range FROM range(5000)")
    with pytest.raises(StoreError, match="open it again"):
        database.execute("SELECT count(*) FROM t")
    database.release()
    database = Database.open(path)
    assert database.execute("SELECT count(*) FROM t") == [(5000,)]
    database.release()


def disk_that_cannot_be_written(folder: Path) -> None:
    """The scene of test_a_disk_that_cannot_be_written."""
    path = folder / "shop.duckdb"
    with open_shop(path, threads=1) as lab:
        lab.send(place("o-1"))
    remount(folder, "ro")
    with open_shop(path, threads=1, read_only=True) as lab:
        assert lab.head == 1
    with pytest.raises(StoreError, match="may not write it"):
        open_shop(path)


def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    """A store on a read-only disk can be read, and opening it for writing is refused by name."""
    on_a_small_disk(disk_that_cannot_be_written, tmp_path)


# -- interrupts --------------------------------------------------------------------------------------------------------

LONG = "SELECT count(*) FROM order_summary, range(3000000) a, range(3000000) b WHERE (a.range * b.range) % 7 = 3"


def test_ctrl_c_arrives_within_two_seconds(child: Child, store: Path) -> None:
    """Ctrl-C in a question or an append raises KeyboardInterrupt within 2 s; nothing is stored, the next call works."""
    child.run(
        f"lab = open_shop({str(store)!r}, threads=2); served = lab.serve(order_summary); past = lab.as_of(position=9)"
    )
    child.run(f"table = batch('i', 400_000); long = {LONG!r}")
    for act, wait in (
        ("past.sql(long).fetchall()", 0.3),
        ("served.sql(long).pl()", 0.3),
        ("lab.events().fetchall() and past.sql(long).df()", 0.4),
        ('lab.append_table("order", table)', 0.02),
        ('lab.append_table("order", table)', 0.2),
        ('lab.append_table("order", table)', 0.5),
    ):
        child.tell(
            f"""
try:
    say("go")
    {act}
    time.sleep(5)
except KeyboardInterrupt:
    say(f"{{time.time()}} {{lab.head}} {{lab.send(place('n-' + str(lab.head))).position}} {{lab.catch_up()}}")
"""
        )
        assert child.line() == "go"
        time.sleep(wait)
        sent = time.time()
        os.kill(child.pid, signal.SIGINT)
        arrived, head, position, caught_up = child.line().split()
        assert float(arrived) - sent < 2
        assert int(position) == int(caught_up) == int(head) + 1
        assert child.line() == "done"
    child.run("lab.close()")
    with open_shop(store, threads=1) as lab:
        head = check_whole(lab)
        assert head in (306, *(306 + 400_000 * n for n in (1, 2, 3)))  # an append that was faster than the signal


@pytest.mark.parametrize("act", ["append", "append_table", "catch_up", "rebuild"])
def test_interrupt_between_statements(store: Path, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    """A KeyboardInterrupt between two statements of a transaction leaves nothing of it, and the next call works."""
    with open_shop(store, threads=1) as lab:
        served = lab.serve(order_summary)
        lab.send(place("before"))
        database, ran = lab._log.database, 0
        execute = type(database).execute

        def interrupted(self: Any, sql: str, params: Any = ()) -> Any:
            nonlocal ran
            ran += self.in_transaction
            if ran > 2:
                ran = -1000
                raise KeyboardInterrupt
            return execute(self, sql, params)

        acts = {
            "append": lambda: lab.send(place("i-1")),
            "append_table": lambda: lab.append_table("order", batch("i", 100)),
            "catch_up": served.catch_up,
            "rebuild": served.rebuild,
        }
        monkeypatch.setattr(type(database), "execute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            acts[act]()
        assert lab.head == 301
        assert served.position == 300
        acts[act]()
        assert lab.head == {"append": 302, "append_table": 401}.get(act, 301)
        check_whole(lab)


def test_interrupt_just_behind_a_commit(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KeyboardInterrupt right after a commit leaves the append stored and known, and the same stream goes on."""
    with open_shop(store, threads=1) as lab:
        served = lab.serve(order_facts)
        lab.send(place("i-1"))
        execute = Database.execute

        def interrupted(self: Database, sql: str, params: Any = ()) -> Any:
            rows = execute(self, sql, params)
            if sql == "COMMIT":
                raise KeyboardInterrupt
            return rows

        for act in (lambda: lab.send(pay("i-1")), served.catch_up):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
                patch.setattr(Database, "execute", interrupted)
                act()
        assert lab.head == served.position == 302
        assert lab.send(ShipOrder(order_id="i-1", tracking_number="t")).version == 3
        assert check_whole(lab) == 303


# -- order, conflicts and repetition -----------------------------------------------------------------------------------


class Deposit(Command):
    account_id: str
    amount: int


class Deposited(Event):
    account_id: str
    amount: int


accounts = Decider(
    category="account",
    key="account_id",
    initial=0,
    decide=lambda command, balance: [Deposited(account_id=command.account_id, amount=command.amount)],
    evolve=lambda balance, event: balance + event.amount,
    commands=[Deposit],
    events=[Deposited],
)
balances = ReadModel(
    "balances",
    key="account_id",
    sql="SELECT account_id, sum(amount)::BIGINT AS balance FROM account_events GROUP BY account_id",
)


def test_many_threads_on_hot_streams(tmp_path: Path) -> None:
    """Sixteen threads on four streams lose, double and miss nothing, and a reader of the head never sees a hole."""
    with Lab(tmp_path / "bank.duckdb", domain=Domain(deciders=[accounts], read_models=[balances]), threads=2) as lab:
        served = lab.serve(balances)
        done, seen = threading.Event(), 0
        holes: list[Any] = []
        receipts: list[Any] = []
        losers: list[Any] = []

        def follow() -> None:
            nonlocal seen
            while True:
                last = done.is_set()
                got = [row[0] for row in lab.events(after=seen)]
                if got != list(range(seen + 1, seen + 1 + len(got))):
                    holes.append((seen, got))
                seen += len(got)
                served.catch_up()
                if last:
                    return

        def work(worker: int) -> None:
            for number in range(20):
                while True:
                    try:
                        receipts.append(lab.send(Deposit(account_id=f"a-{(worker + number) % 4}", amount=1)))
                        break
                    except ConcurrencyError as error:
                        losers.append((error.expected, error.actual))

        reader = threading.Thread(target=follow)
        reader.start()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(16)))
        done.set()
        reader.join()
        assert not holes
        assert all(actual > expected for expected, actual in losers)
        assert seen == lab.head == 320
        assert sorted(r.position for r in receipts) == list(range(1, 321))
        assert {(r.stream, r.version) for r in receipts} == {
            (f"account/a-{i}", v) for i in range(4) for v in range(1, 81)
        }
        assert served.pl()["balance"].to_list() == [80] * 4


def test_a_slow_append_is_not_passed() -> None:
    """While an append holds lower positions, nothing above them is visible, and no projection moves past them."""
    with open_shop(threads=1) as lab:
        served = lab.serve(order_summary)
        lab.send(place("o-1"))
        inside, go_on = threading.Event(), threading.Event()

        def slow() -> None:
            with lab._store.appending() as append:
                assert append.new_position() == 2
                inside.set()
                go_on.wait(10)
                raise RuntimeError("given up")

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(slow)
            inside.wait(10)
            second = pool.submit(lab.send, place("o-2"))
            time.sleep(0.1)
            assert not second.done()
            assert lab.head == served.catch_up() == len(lab.events()) == 1
            go_on.set()
            with pytest.raises(RuntimeError, match="given up"):
                first.result()
            assert second.result().position == 2
        assert served.catch_up() == 2


def test_a_conflict_on_the_third_of_five_events() -> None:
    """An append that meets a taken key halfway stores none of its events and raises ConcurrencyError."""
    with open_shop(threads=1) as lab:
        lab.send(place("o-1"))
        lab._log.database.execute(
            """INSERT INTO order_events (position, stream_no, version, type, schema_version, event_id, order_id,
               occurred_at, recorded_at) SELECT 4, 99, 1, type, schema_version, event_id, order_id, occurred_at,
               recorded_at FROM order_events"""
        )
        paid = [OrderPaid(order_id="o-1", amount=Decimal(number)) for number in range(5)]
        with pytest.raises(ConcurrencyError) as conflict:
            lab._store.append(orders.log_category, "o-1", paid, expected_version=1)
        assert (conflict.value.expected, conflict.value.actual) == (1, 1)
        with pytest.raises(ConcurrencyError) as conflict:
            lab._store.append(orders.log_category, "o-1", paid, expected_version=0)
        assert (conflict.value.expected, conflict.value.actual) == (0, 1)
        assert lab._log.database.execute("SELECT position FROM order_events ORDER BY 1") == [(1,), (4,)]
        # The heads are those of the tables again: numbers go on where the taken key ends, and the stream where it was.
        assert lab.head == 4
        assert lab._store.append(orders.log_category, "o-1", paid[:1], expected_version=1)[0].position == 5
        assert [r.version for r in lab._log.read(orders.log_category, "o-1")] == [1, 2]


def test_the_same_command_again(tmp_path: Path) -> None:
    """The same command id and body gives the first receipt, also after reopening; another body is a conflict."""
    with open_shop(tmp_path / "shop.duckdb") as lab:
        first = lab.send(place("o-1"), command_id="k-1", correlation_id="story")
        assert lab.send(place("o-1"), command_id="k-1", correlation_id="story") == first
        with pytest.raises(IdempotencyConflict):
            lab.send(place("o-2"), command_id="k-1")
    with open_shop(tmp_path / "shop.duckdb") as lab:
        assert lab.send(place("o-1"), command_id="k-1", correlation_id="story") == first
        with pytest.raises(IdempotencyConflict):
            lab.send(pay("o-1"), command_id="k-1")
        assert lab.head == 1


def test_sixteen_threads_send_one_command() -> None:
    """One command id sent by many threads at once is carried out once, and all get its receipt."""
    with open_shop() as lab, ThreadPoolExecutor(16) as pool:
        sent = [pool.submit(lab.send, place("o-1"), command_id="k-1") for _ in range(16)]
        assert {one.result().position for one in sent} == {1}
        assert lab.head == 1


def test_the_clock_runs_backwards(tmp_path: Path) -> None:
    """When the clock goes back, recorded_at stands still, order stays by position, and occurred_at is as given."""
    hours = [5, 3, 9, 1]

    def clock() -> datetime:
        return START + timedelta(hours=hours.pop(0) if hours else -100)

    path = tmp_path / "shop.duckdb"
    with open_shop(path, clock=clock) as lab:
        for number in range(4):
            lab.send(place(f"o-{number}"), occurred_at=START - timedelta(days=number))
    with open_shop(path, clock=clock) as lab:
        lab.send(place("o-4"))
        log = lab.events().pl()
        assert log["recorded_at"].to_list() == [START + timedelta(hours=h) for h in (5, 5, 9, 9, 9)]
        assert log["occurred_at"].to_list()[:4] == [START - timedelta(days=n) for n in range(4)]
        assert log["position"].to_list() == [1, 2, 3, 4, 5]


def test_two_labs_over_one_file(store: Path) -> None:
    """A cell that runs twice gives two labs over one store: each sees what the other appended and moved, once."""
    with open_shop(store, threads=1) as first, open_shop(store, threads=1) as second:
        served = [lab.serve(order_summary) for lab in (first, second)]
        first.send(place("o-1"))
        second.send(pay("o-1"))
        assert first.head == second.head == len(first.events()) == 302
        for lab in (first, second):
            assert lab.catch_up() == 302
        for one in served:
            assert one.position == 302
            row = one.get("o-1")
            assert row is not None
            assert (row["paid"], row["item_count"], row["status"]) == (Decimal("5.00"), 1, "PAID")
        first.close()
        assert second.send(place("o-2")).position == 303
        assert check_whole(second) == 303


# -- what the log may not hold -----------------------------------------------------------------------------------------


def test_an_unknown_event_type(tmp_path: Path) -> None:
    """A stream with an event type, or a version of one, that the domain does not declare raises UnknownEventType."""
    path = tmp_path / "bank.duckdb"
    with Lab(path, domain=Domain(deciders=[accounts])) as lab:
        lab.send(Deposit(account_id="a-1", amount=5))

    class Withdrawn(Event):
        account_id: str

    def domain(event: type[Event]) -> Domain:
        return Domain(
            deciders=[
                Decider(
                    category="account",
                    key="account_id",
                    initial=0,
                    decide=lambda command, state: [],
                    evolve=lambda state, event: state,
                    commands=[Deposit],
                    events=[event],
                )
            ]
        )

    with Lab(path, domain=domain(Withdrawn)) as lab:
        with pytest.raises(UnknownEventType, match="Deposited"):
            lab.send(Deposit(account_id="a-1", amount=5))
        assert lab.head == len(lab.events()) == 1
    newer = type("Deposited", (Deposited,), {"schema_version": 2, "upcasts": {1: {}}, "__annotations__": {}})
    path.unlink()
    with Lab(path, domain=domain(newer)) as lab:
        store = EventStore(lab._log, clock=lambda: START, new_id=uuid4)
        category = lab._categories["account"]
        store.append(category, "a-1", [newer(account_id="a-1", amount=5)])
    with Lab(path, domain=Domain(deciders=[accounts])) as lab, pytest.raises(UnknownEventType, match="2"):
        lab.send(Deposit(account_id="a-1", amount=5))


def test_a_poison_event_during_a_rebuild(store: Path) -> None:
    """A rebuild that meets an event which the read model cannot take fails, and the old rows keep serving."""
    small = ReadModel(
        "small",
        key="order_id",
        sql="SELECT order_id, max(total)::DECIMAL(4, 2) AS total FROM order_events GROUP BY order_id",
    )
    with open_shop(store, threads=1) as lab:
        ways = [lab.serve(small, "projection"), lab.serve(small, "materialized")]
        rows = ways[0].rows().fetchall()
        event = OrderPlaced(order_id="o-big", total=Decimal("100.00"))
        lab._store.append(orders.log_category, "o-big", [event])
        for move in (ways[0].catch_up, ways[0].rebuild, ways[1].refresh):
            with pytest.raises(ProjectionFailed, match="small"):
                move()
        for served in ways:
            assert served.position == 300
            assert served.rows().fetchall() == rows
        assert lab.serve(order_summary).catch_up() == 301


def test_read_only(store: Path) -> None:
    """A read-only store answers every question, refuses every write by name, and its bytes stay."""
    with untouched(store.parent), open_shop(store, read_only=True, threads=1) as lab:
        assert len(lab.serve(order_summary, "projection").rows()) == 300
        assert len(lab.serve(order_summary, "view").rows()) == 300
        assert lab.as_of(position=10).sql("SELECT count(*) FROM order_summary").fetchall() == [(10,)]
        for write in (
            lambda: lab.send(place("o-1")),
            lambda: lab.append_table("order", batch("r", 3)),
            lambda: lab.serve(order_summary, "projection").rebuild(),
            lambda: lab.serve(order_summary, "materialized").refresh(),
        ):
            with pytest.raises(ReadOnlyStore):
                write()


def test_looking_changes_nothing(logged: SimpleNamespace, tmp_path: Path) -> None:
    """A store that is opened for writing and only read keeps its bytes, even when a killed process left a log."""
    path = tmp_path / "shop.duckdb"
    path.write_bytes(logged.main)
    wal.logs_of(path)[0].write_bytes(logged.log)
    with untouched(tmp_path), open_shop(path) as lab:
        assert len(lab.events()) == lab.head == 8
    with open_shop(path) as lab:
        lab.send(place("new"))
    assert not wal.logs_of(path)[0].exists()


def test_a_payload_of_64_mib(tmp_path: Path) -> None:
    """An event of 64 MiB is stored and read back as it was."""
    reason = "0123456789abcdé" * (64 * 2**20 // 16)
    with open_shop(tmp_path / "shop.duckdb", threads=1) as lab:
        lab.send(place("o-1"))
        lab.send(CancelOrder(order_id="o-1", reason=reason))
    with open_shop(tmp_path / "shop.duckdb", threads=1) as lab:
        last = lab._log.read(orders.log_category, "o-1")[-1]
        assert last.event.reason == reason


def test_one_bad_row_in_a_million() -> None:
    """A table with one bad row in a million stores nothing, and the error names the row, the column and the rule."""
    count, bad = 1_000_000, 765_432
    amounts = (
        pl.Series(range(count), dtype=pl.Int64)
        .to_frame("n")
        .with_columns(amount=pl.when(pl.col("n") == bad - 1).then(pl.lit(-1)).otherwise(1).cast(pl.Decimal(18, 2)))
    )
    table = pl.select(
        id=pl.format("o-{}", pl.int_range(count)),
        type=pl.lit("OrderPaid"),
        occurred_at=pl.lit(START).dt.convert_time_zone("UTC"),
    ).with_columns(amounts["amount"])
    with open_shop(threads=2) as lab:
        with pytest.raises(InvalidTable, match=r"row 765432 .*amount is .*-1.*>= 0") as refused:
            lab.append_table("order", table)
        assert (refused.value.row, refused.value.column) == (bad, "amount")
        assert lab.head == len(lab.events()) == 0


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("total", 1e30, "digits"),
        ("total", float("nan"), "places"),
        ("total", float("inf"), "places"),
        ("total", 1.005, "places"),
        ("freight", Decimal("-1.00"), ">= 0"),
        ("type", "OrderLost", "one of"),
        ("id", "", "characters"),
        ("id", None, "is there"),
        ("occurred_at", None, "is there"),
    ],
)
def test_a_bad_value_in_a_table(column: str, value: object, rule: str) -> None:
    """A value that a single event would not take is refused in a table too, naming row, column and rule."""
    rows: list[dict[str, Any]] = [
        {"id": f"o-{n}", "type": "OrderPlaced", "occurred_at": START, "total": None, "freight": None} for n in range(3)
    ]
    rows[1][column] = value
    table = pa.Table.from_pylist(rows)
    with open_shop(threads=1) as lab:
        with pytest.raises(InvalidTable, match=rule) as refused:
            lab.append_table("order", table)
        assert (refused.value.row, refused.value.column) == (2, column)
        assert lab.head == 0


def test_naive_times_are_refused() -> None:
    """A time without a zone is refused in a command's occurred_at and in a table, and nothing is stored."""
    with open_shop(threads=1) as lab:
        with pytest.raises(InvalidMessage, match="occurred_at"):
            lab.send(place("o-1"), occurred_at=datetime(2024, 1, 1))
        with pytest.raises(InvalidTable, match="time zone"):
            lab.append_table(
                "order", pa.table({"id": ["o"], "type": ["OrderPlaced"], "occurred_at": [datetime(2024, 1, 1)]})
            )
        assert lab.head == 0


def test_customers_have_streams_of_their_own() -> None:
    """An id that two categories share names two streams, each with its own versions."""
    with open_shop(threads=1) as lab:
        lab.send(place("x"))
        lab.append_table("customer", pa.table({"id": ["x"], "type": ["CustomerRegistered"], "occurred_at": [START]}))
        assert lab.events().pl().select("stream", "version", "position").rows() == [
            ("order/x", 1, 1),
            ("customer/x", 1, 2),
        ]
        assert lab._log.read(customers.log_category, "x")[0].version == 1
