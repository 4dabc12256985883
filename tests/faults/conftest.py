"""Stores that the tests of this folder break."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import batch, pay, place
from support.stores import serve_all

from cqrs_lab import open_shop
from cqrs_lab.store import wal


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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
