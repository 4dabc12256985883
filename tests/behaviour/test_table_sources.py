"""A table of events comes from anywhere, its times in any words that name a moment, and all that is wrong is told."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from pydantic import Field

from cqrs_lab import Domain, Event, Lab, ReadModel
from cqrs_lab.errors import ImportFailed, InvalidTable
from cqrs_lab.workbench import events_from_milestones

START = datetime(2026, 1, 5, 9, tzinfo=UTC)


class Weighed(Event):
    """Something was weighed."""

    thing_id: str
    grams: int
    price: Annotated[Decimal, Field(max_digits=10, decimal_places=2, ge=0)] | None = None
    ratio: float | None = None
    is_new: bool | None = None
    made: date | None = None
    seen_at: datetime | None = None
    code: str | None = None


def scale() -> Lab:
    """A lab without events."""
    return Lab(domain=Domain.of_events("thing", key="thing_id", events=[Weighed]))


ROWS = {
    "id": ["a", "b"],
    "type": ["Weighed", "Weighed"],
    "occurred_at": ["2026-01-05T10:00:00+01:00", "2026-01-05 09:00:01.5Z"],
    "grams": ["12", "-3"],
    "price": ["1.50", ""],
    "ratio": ["0.25", "1e3"],
    "is_new": ["true", "False"],
    "made": ["2026-01-01", ""],
    "seen_at": ["", "2026-01-05T09:00:00Z"],
    "code": ["007", ""],
}
STORED = [
    ("a", START, 12, Decimal("1.50"), 0.25, True, date(2026, 1, 1), None, "007"),
    ("b", START + timedelta(seconds=1.5), -3, None, 1000.0, False, None, START, None),
]


def csv(path: Path, **changes: Any) -> Path:
    """Write the rows as CSV."""
    pl.DataFrame({**ROWS, **changes}).write_csv(path)
    return path


def typed(path: Path) -> pl.DataFrame:
    """The same rows, typed but for the times."""
    frame = pl.read_csv(csv(path), schema_overrides={"code": pl.String}, null_values="")
    return frame.with_columns(
        pl.col("price").cast(pl.Decimal(10, 2)),
        pl.col("is_new").cast(pl.String).str.to_lowercase() == "true",
    )


WAYS: dict[str, Callable[[Path], Any]] = {
    "csv": csv,
    "csv by its text": lambda path: str(csv(path)),
    "polars": typed,
    "lazy": lambda path: typed(path).lazy(),
    "pandas": lambda path: typed(path).select(pl.exclude("price"), pl.col("price")).to_pandas(),
    "arrow": lambda path: typed(path).to_arrow(),
    "duckdb": lambda path: duckdb.connect().from_arrow(typed(path).to_arrow()),
    "parquet": lambda path: (typed(path).write_parquet(path.with_suffix(".parquet")), path.with_suffix(".parquet"))[1],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_source_is_stored_alike(tmp_path: Path, way: str) -> None:
    """Files, frames, lazy ones and relations give the same events; times may be text, and in CSV everything is."""
    with scale() as lab:
        lab.append_table("thing", WAYS[way](tmp_path / "things.csv"))
        columns = "thing_id, occurred_at, grams, price, ratio, is_new, made, seen_at, code"
        assert lab.sql(f"SELECT {columns} FROM thing_events ORDER BY position").fetchall() == STORED


@pytest.mark.parametrize(
    ("given", "zone", "moment"),
    [
        ("2026-07-01 12:00", "Europe/Amsterdam", datetime(2026, 7, 1, 10, tzinfo=UTC)),
        ("2026-07-01", "Europe/Amsterdam", datetime(2026, 6, 30, 22, tzinfo=UTC)),
        (datetime(2026, 7, 1, 12), "UTC", datetime(2026, 7, 1, 12, tzinfo=UTC)),
        (date(2026, 7, 1), "UTC", datetime(2026, 7, 1, tzinfo=UTC)),
        ("2026-07-01T12:00+05:30", None, datetime(2026, 7, 1, 6, 30, tzinfo=UTC)),
        ("2026-07-01T12:00+05:30", "Europe/Amsterdam", datetime(2026, 7, 1, 6, 30, tzinfo=UTC)),
    ],
)
def test_times_mean_the_same_on_both_ways_in(given: Any, zone: str | None, moment: datetime) -> None:
    """A table of events and one of milestones read the same words for times as the same moments."""
    with scale() as lab:
        frame = pl.DataFrame({"id": "a", "type": "Weighed", "grams": 1, "occurred_at": [given]})
        lab.append_table("thing", frame, zone=zone)
        assert lab.sql("SELECT occurred_at FROM thing_events").fetchall() == [(moment,)]
    made = events_from_milestones(
        pl.DataFrame({"k": ["a"], "at": [given]}), "k", milestones={"Weighed": "at"}, **({"zone": zone} if zone else {})
    )
    assert made["occurred_at"].to_list() == [moment]


@pytest.mark.parametrize(
    ("changes", "column", "said"),
    [
        ({"occurred_at": ["2026-01-05 10:00", "2026-01-05"]}, "occurred_at", "row 1.*no time zone.*zone="),
        ({"occurred_at": ["2026-01-05T10:00Z", "yesterday"]}, "occurred_at", "row 2.*'yesterday'.*ISO 8601"),
        ({"seen_at": ["5 January", "6 January"]}, "seen_at", r"row 1.*ISO 8601.*in 2 rows"),
        ({"grams": ["12", "twelve"]}, "grams", "row 2.*'twelve'.*whole number"),
        ({"grams": ["1.5", "1"]}, "grams", "row 1.*whole number"),
        ({"price": ["1,50", "1"]}, "price", "row 1.*plain number"),
        ({"price": ["1.505", "1"]}, "price", "row 1.*at most 2 places"),
        ({"ratio": ["x", "1"]}, "ratio", "row 1.*number"),
        ({"is_new": ["yes", "true"]}, "is_new", "row 1.*true or false"),
        ({"made": ["2026-13-01", ""]}, "made", "row 1.*date"),
    ],
)
def test_text_that_is_none_is_refused(tmp_path: Path, changes: dict[str, Any], column: str, said: str) -> None:
    """What is not plainly of its field's type is refused with its row, and nothing is stored."""
    with scale() as lab:
        with pytest.raises(InvalidTable, match=said) as refused:
            lab.append_table("thing", csv(tmp_path / "things.csv", **changes))
        assert refused.value.column == column
        assert lab.head == 0


class Packed(Event):
    """Things were packed together."""

    thing_id: str
    parts: list[str]


def test_csv_holds_no_lists(tmp_path: Path) -> None:
    """A list in a CSV file is refused with what to give instead, and that is taken."""
    frame = pl.DataFrame({"id": "a", "type": "Packed", "occurred_at": [START], "parts": [["lid", "box"]]})
    frame.with_columns(parts=pl.lit("[lid, box]"), occurred_at=pl.lit("2026-01-05T09:00Z")).write_csv(
        tmp_path / "t.csv"
    )
    with Lab(domain=Domain.of_events("thing", key="thing_id", events=[Packed])) as lab:
        with pytest.raises(InvalidTable, match="CSV has no lists, and 'parts' is one; give Parquet, Arrow or Polars"):
            lab.append_table("thing", tmp_path / "t.csv")
        assert lab.append_table("thing", frame) == 1


def test_all_that_is_wrong_is_told_at_once() -> None:
    """Columns first, then the first bad row of each rule and how many there are; nothing is stored."""
    frame = pl.DataFrame(
        {
            "id": ["a", "", "", "d"],
            "type": ["Weighed", "Weighed", "Eaten", "Weighed"],
            "occurred_at": [START] * 4,
            "grams": [1, 2, 3, None],
            "price": [1.0, -1.0, -2.0, -3.0],
            "colour": "red",
            "made": ["2026-01-01", "x", "y", "2026-01-02"],
        }
    )
    with scale() as lab:
        with pytest.raises(InvalidTable) as refused:
            lab.append_table("thing", frame)
        lines = str(refused.value).splitlines()
        assert lines[0] == "6 things are wrong with the table, and nothing of it was stored:"
        for line, said in zip(
            lines[1:],
            ["made is 'x'", "no field 'colour'", "row 2.*id is ''.*in 2 rows", "row 2.*price is -1.0.*in 3 rows",
             "row 3.*type is 'Eaten'", "row 4.*grams is None"],
            strict=True,
        ):  # fmt: skip
            assert re.search(said, line), (said, line)
        assert refused.value.column == "made"
        assert lab.head == 0


def test_all_that_is_wrong_with_milestones_is_told_at_once(tmp_path: Path) -> None:
    """Missing columns, keys that are there twice and times that are none come in one message, with file and line."""
    file = tmp_path / "orders.csv"
    file.write_text("k,at,then\na,2026-01-01,soon\na,x,later\n,2026-01-01,2026-01-02\n")
    milestones = {"Placed": "at", "Paid": "then", "Sent": "sent"}
    with pytest.raises(ImportFailed) as refused:
        events_from_milestones(file, "k", milestones=milestones)
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("5 things are wrong; nothing was stored")
    assert "column 'sent'" in lines[1]
    assert "line 4, column 'k'" in lines[2]
    assert "line 3, column 'k'" in lines[3]
    assert "line 3, column 'at'" in lines[4]
    assert "line 2, column 'then'" in lines[5]
    assert "in 2 rows" in lines[5]


def test_a_table_in_order_of_its_streams_is_said() -> None:
    """A file that is sorted by case and not by time is stored as it is, with a warning that says what that means."""
    times = [START, START + timedelta(hours=2), START + timedelta(hours=1), START + timedelta(hours=3)]
    frame = pl.DataFrame({"id": ["a", "a", "b", "b"], "type": "Weighed", "grams": 1, "occurred_at": times})
    with scale() as lab:
        with pytest.warns(UserWarning, match=r"in order of id and not of time: 1 of its 4 events"):
            lab.append_table("thing", frame)
        assert lab.head == 4
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            lab.append_table("thing", frame.sort("occurred_at"))
            lab.append_table("thing", frame.with_columns(recorded_at=pl.lit(datetime.now(UTC))))
            lab.append_table("thing", frame.gather([0, 2, 1, 3]))


@pytest.mark.parametrize("name", ["code", "ids", "known", "events", "numbers", "streams", "n", "columns", "state"])
def test_a_field_may_have_the_name_of_anything_inside(name: str) -> None:
    """A field that is called as something in the library's own questions is appended again and again, and served."""
    kinds = {"__annotations__": {"thing_id": str, name: int}, "__module__": __name__, "__doc__": "Made up."}
    event = type("Noted", (Event,), kinds)
    select = f"SELECT thing_id, sum({name})::BIGINT AS {name} FROM thing_events GROUP BY thing_id"
    model = ReadModel("sums", "thing_id", select)
    with Lab(domain=Domain.of_events("thing", key="thing_id", events=[event])) as lab:
        served = [lab.serve(model, as_) for as_ in ("view", "projection")]
        for number in (1, 2):
            frame = pl.DataFrame({"id": ["a", "b"], "type": "Noted", "occurred_at": START, name: number})
            lab.append_table("thing", frame)
            lab.catch_up()
        assert [one.rows().fetchall() for one in served] == [[("a", 3), ("b", 3)]] * 2
        assert lab.history(model, "a").pl()[name].to_list() == [1, 3]


def test_two_columns_of_one_name_are_refused() -> None:
    """Which of the two is meant cannot be told, so nothing is stored."""
    names = ["id", "type", "occurred_at", "grams", "grams"]
    table = pa.table([["a"], ["Weighed"], ["2026-01-05T09:00Z"], [1], [2]], names=names)
    with scale() as lab:
        with pytest.raises(InvalidTable, match="two columns have the same name"):
            lab.append_table("thing", table)
        assert lab.head == 0
