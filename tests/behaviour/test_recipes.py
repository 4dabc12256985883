"""The page of SQL recipes: every block on it is accepted, agrees in every serving, and moves as the page says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from support import assert_same

from cqrs_lab import Lab, ReadModel
from cqrs_lab.errors import ReadModelRefused
from cqrs_lab.workbench import open_log

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "notebooks" / "RECIPES.md").read_text("utf-8")
BLOCK = re.compile(r"```sql\n-- (\w+), key: ([\w, ]+)\n(.+?)```\n+([^#`]*)", re.DOTALL)


@dataclass(frozen=True)
class Recipe:
    """A block of the page: the read model, and the paragraph below it, which says how it moves."""

    model: ReadModel
    said: str


RECIPES = [
    Recipe(ReadModel(name, tuple(key.split(", ")), sql), " ".join(said.split()))
    for name, key, sql, said in BLOCK.findall(PAGE)
]


def support_desk() -> Lab:
    """Open the log that the page asks."""
    return open_log(
        ROOT / "data" / "support_desk.csv",
        case="ticket",
        activity="activity",
        timestamp="at",
        recorded="entered_at",
        category="ticket",
    )


def test_the_page_has_a_block_for_every_recipe() -> None:
    """No block is overlooked, and every recipe has one."""
    assert len(RECIPES) == PAGE.count("```sql") > 15
    _, *parts = PAGE.split("\n## ")
    names = [part.splitlines()[0] for part in parts if "```sql" in part]
    assert len(names) == len(parts) == 10
    for word in ("Running", "Share", "Top n", "Mode", "deviation", "First and last", "Sessions", "Open", "Cohort"):
        assert any(word in name for name in names)


def test_every_recipe_moves_as_the_page_says() -> None:
    """What explain() says of a projection stands below its block, word for word."""
    with support_desk() as lab:
        for recipe in RECIPES:
            how = lab.serve(recipe.model).explain()
            assert recipe.said.startswith(f"Moves by **{how.way}**, because {how.reason}."), how


@pytest.mark.parametrize("cuts", [(0.5, 0.75, 1.0), (0.1, 0.11, 0.6, 0.999, 1.0)])
def test_every_recipe_agrees_in_every_serving(cuts: tuple[float, ...]) -> None:
    """View, table, projection and past say the same after every batch, late events included, and so do the layers."""
    with support_desk() as whole:
        columns = pl.col("ticket_id").alias("id"), pl.col("type", "occurred_at", "recorded_at", "^case_.*$")
        events = whole.events_table("ticket").pl().select(*columns, "priority", "agent", "minutes")
        assert (events["occurred_at"].diff().dt.total_minutes() < 0).any()
        ends = [int(cut * events.height) for cut in cuts]
        with Lab(domain=whole.domain) as lab:
            seen: dict[tuple[str, int], pl.DataFrame] = {}
            for start, end in zip([0, *ends], ends, strict=False):
                lab.append_table("ticket", events[start:end])
                lab.catch_up()
                for recipe in RECIPES:
                    projection, view = lab.serve(recipe.model), lab.serve(recipe.model, "view")
                    table = lab.serve(recipe.model, "materialized")
                    table.refresh()
                    assert projection.position == lab.head == end
                    assert_same(lab, projection.select(), view.select())
                    assert_same(lab, table.select(), view.select())
                    seen[recipe.model.name, end] = view.pl()
            for (name, position), rows in seen.items():
                assert not rows.is_empty()
                assert lab.as_of(position=position).rows(name).pl().equals(rows), (name, position)
            for recipe in RECIPES:
                last = whole.serve(recipe.model, "view").pl()
                assert last.equals(seen[recipe.model.name, lab.head])


def test_a_local_day_is_the_day_of_the_file() -> None:
    """The day of the page is the one that stands in the file, also for events after midnight and before two o'clock."""
    with support_desk() as lab:
        lab.serve(next(recipe.model for recipe in RECIPES if recipe.model.name == "opened_and_done"))
        days = dict(lab.sql("SELECT day::VARCHAR, opened FROM opened_and_done WHERE opened > 0").fetchall())
    file = pl.read_csv(ROOT / "data" / "support_desk.csv", infer_schema=False)
    opened = file.filter(pl.col("activity").is_in(["Ticket opened", "Reopened"]))["at"]
    assert days == dict(opened.str.head(10).value_counts().iter_rows())
    assert days != dict(opened.str.to_datetime(time_zone="UTC").dt.to_string("%Y-%m-%d").value_counts().iter_rows())


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT case_customer, mode(case_channel) AS channel FROM ticket_events GROUP BY case_customer",
        "SELECT case_customer, stddev_samp(minutes) AS spread FROM ticket_events GROUP BY case_customer",
    ],
)
def test_what_the_page_says_is_refused_is_refused(sql: str) -> None:
    """The page sends nobody a longer way than needed."""
    with pytest.raises(ReadModelRefused):
        ReadModel("short", "case_customer", sql)
