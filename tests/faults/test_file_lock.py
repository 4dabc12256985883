"""The lock beside a store: one process has it, whatever happens to the lock of the file itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support import place

from cqrs_lab import open_shop
from cqrs_lab.errors import StoreLocked
from cqrs_lab.store.file_lock import FileLock

fcntl: Any = pytest.importorskip("fcntl", reason="nobody opens a file on Windows that DuckDB has")
ROOT = str(Path(__file__).parents[1])
OPEN = """
from cqrs_lab import open_shop
from cqrs_lab.errors import CqrsLabError
import sys
try:
    with open_shop(sys.argv[1], read_only=sys.argv[2] == "read") as lab:
        print("open", lab.head)
except CqrsLabError as error:
    print(type(error).__name__, error.pid if hasattr(error, "pid") else error)
"""


def elsewhere(path: Path, how: str = "write") -> str:
    """What another process is told when it opens a store."""
    run = [sys.executable, "-c", OPEN, str(path), how]
    return subprocess.run(run, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.parametrize("how", ["write", "read"])
def test_a_copied_store_stays_locked(path: Path, how: str) -> None:
    """Copying an open file drops the system's lock of it, and a second process is refused all the same."""
    with open_shop(path) as lab:
        lab.send(place("o-1"))
        shutil.copy(path, path.with_name("copy"))
        assert elsewhere(path, how) == f"StoreLocked {os.getpid()}"
        lab.send(place("o-2"))
    assert elsewhere(path, how) == "open 2"


def test_readers_share_a_store_and_keep_writers_out(path: Path) -> None:
    """Several processes may read one file, and none may write it meanwhile, copied or not."""
    with open_shop(path) as lab:
        lab.send(place("o-1"))
    with open_shop(path, read_only=True):
        shutil.copy(path, path.with_name("copy"))
        assert elsewhere(path, "read") == "open 1"
        assert elsewhere(path).startswith("StoreLocked")


def test_no_lock_is_left_behind(path: Path) -> None:
    """A store that is closed, or could not be opened, leaves no lock beside it; one that was killed none that holds."""
    for read_only in (False, True):
        with open_shop(path, read_only=read_only):
            assert path.with_name(f"{path.name}.lock").exists()
        assert not path.with_name(f"{path.name}.lock").exists()
    bad = path.with_name("bad.duckdb")
    bad.write_bytes(b"not a store at all")
    assert elsewhere(bad).startswith("NotAStore")
    assert not bad.with_name("bad.duckdb.lock").exists()
    kill = f"import os; from cqrs_lab import open_shop; lab = open_shop({str(path)!r}); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", kill], timeout=60)
    assert path.with_name(f"{path.name}.lock").exists()
    assert elsewhere(path) == "open 0"
    assert not path.with_name(f"{path.name}.lock").exists()


def test_a_folder_that_cannot_be_written_is_read_without_a_lock(path: Path) -> None:
    """A read-only store opens where no file can be made beside it."""
    with open_shop(path) as lab:
        lab.send(place("o-1"))
    # Whoever is root may write everywhere, so the place of the lock is taken instead.
    path.with_name(f"{path.name}.lock").mkdir()
    assert elsewhere(path, "read") == "open 1"


def test_who_comes_while_another_closes_gets_in(path: Path) -> None:
    """Processes that open and close one store in turns never meet a lock that nobody holds."""
    program = OPEN.replace("try:", "import time\nfor _ in range(30):\n  try:", 1).replace("\n    ", "\n      ")
    program = program.replace("except Cqrs", "  except Cqrs").replace("print(type", "print('refused', type")
    told: list[str] = []
    with open_shop(path):
        pass

    def run() -> None:
        done = subprocess.run([sys.executable, "-c", program, str(path), "read"], capture_output=True, text=True)
        told.append(done.stdout + done.stderr)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert "".join(told) == "open 0\n" * 90
    assert not path.with_name(f"{path.name}.lock").exists()


def test_the_parent_gives_the_lock_up_though_a_child_lives(path: Path) -> None:
    """A child that was forked while a store was open keeps nobody out once the parent has closed it."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    lab = open_shop(path)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        assert elsewhere(path) == f"StoreLocked {os.getpid()}"
        lab.close()
        assert elsewhere(path) == "open 0"
    finally:
        os.close(reading), os.close(writing)
        os.waitpid(pid, 0)


def test_a_killed_parent_gives_the_lock_up_though_a_child_lives(path: Path) -> None:
    """A worker that outlives the process which had the store keeps nobody out."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    program = f"""if True:
        import os, sys
        from cqrs_lab import open_shop
        lab = open_shop({str(path)!r})
        lab.send(__import__("support").place("o-1"))
        if os.fork():
            os.kill(os.getpid(), 9)
        print("ready", flush=True)
        sys.stdin.read()
        os._exit(0)
    """
    parent = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ROOT},
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    parent.wait(20)
    assert elsewhere(path) == "open 1"
    assert parent.stdin is not None
    parent.stdin.close()
    parent.stdout.close()


def test_a_lock_on_a_file_that_was_taken_away_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who locks a file just as its holder takes it away locks the new one, and so keeps others out."""
    real, lock = fcntl.flock, path.with_name(f"{path.name}.lock")

    def taken_away(file: int, how: int) -> None:
        monkeypatch.undo()
        lock.unlink()
        real(file, how)

    monkeypatch.setattr("cqrs_lab.store.file_lock.fcntl.flock", taken_away)
    mine = FileLock(str(path), shared=False)
    with pytest.raises(StoreLocked):
        FileLock(str(path), shared=True)
    mine.release()
    FileLock(str(path), shared=True).release()
    assert not lock.exists()


def test_a_locked_store_says_who_has_it(path: Path) -> None:
    """The refusal names the process and what to do."""
    program = f"from cqrs_lab import open_shop; lab = open_shop({str(path)!r}); print(1, flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(StoreLocked, match=f"process {holder.pid}.*Close it there") as refused:
        open_shop(path)
    assert refused.value.pid == holder.pid
    holder.communicate("\n")
