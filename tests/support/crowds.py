"""Many customers, forgotten by a process that may be killed."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from cqrs_lab import doctor
from cqrs_lab.errors import RebuildNeeded
from support import START
from support.people import EMAIL, MODELS, WAYS, people

CHILD = """
import cqrs_lab
from cqrs_lab import ReadModel
people = {people!r}
lab = open_shop({path!r}, threads=1)
for name, key, sql in people:
    model = ReadModel(name, key, sql)
    for way in ("view", "materialized", "projection"):
        lab.serve(model, way)
"""
COUNT = 40


@cache
def made() -> bytes:
    """Return the file of a store of customers, served every way."""
    frame = pl.DataFrame(
        {
            "id": [f"c-{n}" for n in range(COUNT)],
            "type": ["CustomerRegistered"] * COUNT,
            "occurred_at": [START] * COUNT,
            "email": [f"{n}-{EMAIL}" for n in range(COUNT)],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.duckdb"
        with people(path) as lab:
            lab.append_table("customer", frame)
            for model in MODELS:
                for way in WAYS:
                    lab.serve(model, way)
        return path.read_bytes()


def crowd(path: Path) -> str:
    """Make a store of customers, and return what a child runs to open it with its servings."""
    path.write_bytes(made())
    return CHILD.format(path=str(path), people=[(m.name, m.key, m.sql) for m in MODELS])


def check_forgotten(path: Path) -> list[int]:
    """Assert that nothing shows what the log has no more; return the customers that were forgotten."""
    with people(path) as lab:
        data = [row["data"] for row in lab.events().dicts()]
        gone = [n for n in range(COUNT) if f"{n}-{EMAIL}" not in data[n]]
        assert len(data) == COUNT
        for model in MODELS[:2]:
            for way in WAYS:
                served = lab.serve(model, way)
                if served.state != "ok":
                    with pytest.raises(RebuildNeeded):
                        served.rows()
                    with pytest.raises(RebuildNeeded):
                        served.get(f"{gone[-1]}-{EMAIL}")
                    served.rebuild()
                rows = repr(served.rows().fetchall())
                assert [n for n in range(COUNT) if f"'{n}-{EMAIL}'" not in rows] == gone
    assert not [finding for finding in doctor.scan(path) if finding.status == "FAIL"]
    return gone
