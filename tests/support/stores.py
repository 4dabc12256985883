"""Stores to break: whether one is whole, whether its files stay as they are, and where its log can be cut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cqrs_lab import Lab
from cqrs_lab.shop import daily_orders, order_summary
from cqrs_lab.store.database import Database
from support import python

LONG = "SELECT count(*) FROM range(3000000) a, range(3000000) b WHERE (a.range * b.range) % 7 = 3"


def rows(database: Database) -> list[Any]:
    """Return what is in the table `t` of the fixture `database`."""
    return [i for (i,) in database.execute("SELECT i FROM t ORDER BY i")]


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
    """What every file in a folder holds; but for the lock, which is nobody's data and goes with who holds it."""
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and f.suffix != ".lock"]
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Assert that no byte of any file in the folder changes."""
    before = hashes(folder)
    yield
    assert hashes(folder) == before


def entries(log: bytes) -> list[int]:
    """Where the entries of a log begin, and where it ends."""
    starts = [log.index(b"\xff\xff") + 2]
    while starts[-1] < len(log):
        starts.append(starts[-1] + 16 + int.from_bytes(log[starts[-1] : starts[-1] + 8], "little"))
    assert starts[-1] == len(log)
    return starts


def opens_elsewhere(path: Path, **options: Any) -> str:
    """Open a file in another process and return what came of it."""
    code = f"""
from cqrs_lab.store.database import Database
try:
    Database.open({str(path)!r}, **{options!r})
    print("opened")
except Exception as error:
    print(type(error).__name__, getattr(error, "pid", ""), error)
"""
    return python(code).stdout.strip()
