"""JupyterLab and a browser for all tests of a module; skipped with a reason where one is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.desk import Desk, desk_over, missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests where they cannot run; in CI they have to run."""
    reason = missing()
    if reason and not os.environ.get("CI"):
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A JupyterLab over an empty folder, and a browser with an empty profile, for all tests of a module."""
    with desk_over(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("desk")) as started:
        yield started
