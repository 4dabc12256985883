"""What all tests start from: how properties are tried (the same examples at every run of CI), a child, a database."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

pytest.register_assert_rewrite("support")  # before it is imported
from support import Child  # noqa: E402

from cqrs_lab.store.database import Database  # noqa: E402

# A failure in CI is told as it was found; making it small takes minutes, and a desk is the place for it.
found_is_enough = (Phase.explicit, Phase.reuse, Phase.generate)
settings.register_profile("ci", derandomize=True, deadline=None, phases=found_is_enough)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.fixture
def child() -> Iterator[Child]:
    """Another process."""
    process = Child()
    yield process
    process.kill()


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
