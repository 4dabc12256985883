"""No room on the disk, no right to write, and checkpoints that fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import environment, line, place
from support.stores import check_whole

from cqrs_lab import open_shop
from cqrs_lab.errors import StoreError, StoreFull
from cqrs_lab.shop import CancelOrder
from cqrs_lab.store.database import Database


def on_a_small_disk(scene: Callable[[Path], None], folder: Path) -> None:
    """Run a scene in a process that alone sees a disk of 3 MB, which is gone with the process however that ends."""
    unshare = shutil.which("unshare")
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if unshare is None or subprocess.run([unshare, "-rm", *mount], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    module = scene.__module__
    code = f"import pathlib, {module}; {module}.{scene.__name__}(pathlib.Path({str(folder)!r}))"
    inside = [unshare, "-rm", "sh", "-c", '"$@" && exec "$0" -c "$CODE"', sys.executable, *mount]
    env = environment(__file__, CODE=code)
    done = subprocess.run(inside, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def remount(folder: Path, options: str) -> None:
    """Mount the small disk anew with other options."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def disk_full(folder: Path) -> None:
    """An append without room raises StoreFull; with room again every acknowledged append is there, and more can be."""
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


def disk_full_in_a_checkpoint(folder: Path) -> None:
    """When the log cannot be folded into the file, the store says so until it is opened again, and loses nothing."""
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
    """A store on a read-only disk can be read, and opening it for writing is refused by name."""
    path = folder / "shop.duckdb"
    with open_shop(path, threads=1) as lab:
        lab.send(place("o-1"))
    remount(folder, "ro")
    with open_shop(path, threads=1, read_only=True) as lab:
        assert lab.head == 1
    with pytest.raises(StoreError, match="may not write it"):
        open_shop(path)


@pytest.mark.parametrize("scene", [disk_full, disk_full_in_a_checkpoint, disk_that_cannot_be_written])
def test_on_a_small_disk(scene: Callable[[Path], None], tmp_path: Path) -> None:
    """Each scene holds in a process of its own, which alone sees that disk."""
    on_a_small_disk(scene, tmp_path)
