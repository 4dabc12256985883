"""kill -9: whole appends or none, rows with their checkpoint or not, and logs around a checkpoint."""

from __future__ import annotations

import random
import shutil
import signal
import threading
from pathlib import Path

import pytest
from support import Child
from support.stores import check_whole, entries, untouched

from cqrs_lab import open_shop
from cqrs_lab.errors import StoreCorrupt
from cqrs_lab.shop import order_summary
from cqrs_lab.store import wal

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
database.execute("SET GLOBAL debug_checkpoint_sleep_ms = 120000")
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
time.sleep(3)  # until the checkpoint of that insert has begun
go_on.set()
time.sleep(300)
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
