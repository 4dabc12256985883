"""The made-up support desk: the committed file is the one that is made, and it holds what the course asks of it."""

from __future__ import annotations

import runpy
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from support import python

from cqrs_lab import ReadModel
from cqrs_lab.workbench import open_log
from cqrs_lab.workbench.checks import check_came_back
from cqrs_lab.workbench.data.desk import COLUMNS, END, support_desk

ROOT = Path(__file__).parents[2]
FILE = ROOT / "data" / "support_desk.csv"


def test_the_committed_desk_is_the_one_that_is_made(tmp_path: Path) -> None:
    """The generator writes, wherever this runs, the file that lies in data/, whose README knows its columns."""
    kept = FILE.read_text("utf-8")
    assert support_desk().write_csv() == kept
    code = "import runpy; runpy.run_module('cqrs_lab.workbench.data.desk', run_name='__main__')"
    assert python(code, tmp_path / "desk.csv").stderr == ""
    assert (tmp_path / "desk.csv").read_text("utf-8") == kept
    assert FILE.stat().st_size < 400_000
    said = (FILE.parent / "README.md").read_text("utf-8")
    assert all(f"| `{name}` |" in said for name in COLUMNS)
    assert f"{kept.count(chr(10)) - 1:,}" in said


def test_the_desk_has_everything_that_logs_trouble_people_with() -> None:
    """Late entries, rework, tickets without an end, and an order that is not of time."""
    rows = [(*row, datetime.fromisoformat(row[2]), datetime.fromisoformat(row[3])) for row in support_desk().rows()]
    assert 0.03 < sum(known > at for *_, at, known in rows) / len(rows) < 0.15
    assert all(at <= known < END for *_, at, known in rows)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert [row[-2] for row in rows] != sorted(row[-2] for row in rows)
    tickets = {row[0] for row in rows}
    ended = {row[0] for row in rows if row[1] in ("Closed", "Withdrawn")}
    assert {row[1] for row in rows} >= {"Reopened", "Escalated", "Minutes bought"}
    assert 0 < len(tickets - ended) < 50


@pytest.mark.parametrize(("length", "before"), [(22, 0), (16, 1)], ids=["with offsets", "as local times"])
def test_without_its_offsets_a_ticket_would_be_solved_before_it_was_answered(
    tmp_path: Path, length: int, before: int
) -> None:
    """In the night of the change the clock goes back; offsets tell the two hours apart, local times do not."""
    desk = support_desk().with_columns(pl.col("at", "entered_at").str.head(length))
    desk.write_csv(tmp_path / "desk.csv")
    with open_log(tmp_path / "desk.csv", "ticket", "activity", "at", zone="Europe/Amsterdam") as lab:
        assert lab.sql("""
            SELECT count(*) FROM (
                SELECT case_id, min(occurred_at) FILTER (type = 'Answered') AS answered,
                       min(occurred_at) FILTER (type = 'Solved') AS solved
                FROM case_events GROUP BY case_id)
            WHERE solved < answered
        """).fetchall() == [(before,)]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("occurred_at, position", "position", "✗ what was entered late stands where it happened: Ann has (4, 2)"),
        ("    WHERE type = 'Solved'", "", "✗ what is solved again counts for the agent who solved it: None has"),
        ("type IN ('Solved', 'Reopened')", "true", "✗ what is solved again"),
        ("came_back\n", "back\n", "✗ its columns are agent, solved, came_back: they are agent, solved, back"),
        ("GROUP BY", "ORDER BY", "✗ your code runs"),
    ],
)
def test_the_check_of_what_came_back_says_what_is_missing(right: str, wrong: str, said: str) -> None:
    """It finds an order of entering, steps that are no solutions, and columns that are called otherwise."""
    model = runpy.run_path(str(ROOT / "notebooks" / "solutions" / "09_your_own_events.py"))["came_back"]
    assert right in model.sql
    found = check_came_back(ReadModel("came_back", "agent", model.sql.replace(right, wrong)))
    assert not found.passed
    assert said in repr(found)
