"""A table with one row for each thing and a time for each milestone becomes events: no lab, no file."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pandas as pd
import polars as pl
import pytest
from support.importing import times

from cqrs_lab.errors import ImportFailed
from cqrs_lab.workbench.data.importers import events_from_milestones


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2024, 7, 1, 12), "2024-07-01 10:00"),
        (datetime(2024, 7, 1, 12, tzinfo=UTC), "2024-07-01 12:00"),
        (datetime(2024, 7, 1, 12, tzinfo=timezone(timedelta(hours=-3))), "2024-07-01 15:00"),
        (date(2024, 7, 1), "2024-06-30 22:00"),
        ("2024-07-01", "2024-06-30 22:00"),
        ("2024-07-01 12:00", "2024-07-01 10:00"),
        ("2024-07-01T12:00:05.25", "2024-07-01 10:00:05.25"),
        ("2024-07-01T12:00:05Z", "2024-07-01 12:00:05"),
        ("2024-07-01 12:00-03:00", "2024-07-01 15:00"),
        (datetime(2024, 3, 31, 2, 30), "2024-03-31 01:30"),  # skipped: what clocks called 03:30
        (datetime(2024, 10, 27, 2, 30), "2024-10-27 00:30"),  # twice: the first
    ],
)
def test_times_of_any_kind_become_utc(value, expected):
    """Naive times, dates and bare text are in the zone; what has an offset is converted."""
    frame = pl.DataFrame({"order_id": ["a", "b"], "at": [value, None]})
    events = events_from_milestones(frame, milestones={"OrderPlaced": "at"}, zone="Europe/Paris")
    assert events["occurred_at"].to_list() == times(f"{expected}+00:00")


def test_a_day_that_begins_at_one_o_clock_starts_there():
    """Where midnight was skipped, a date means the first moment of that day."""
    frame = pl.DataFrame({"order_id": ["a"], "at": [date(2017, 10, 15)]})
    events = events_from_milestones(frame, milestones={"OrderPlaced": "at"}, zone="America/Sao_Paulo")
    assert events["occurred_at"].to_list() == times("2017-10-15 03:00+00:00")


def test_pandas_times_in_nanoseconds_with_and_without_a_zone_are_taken():
    """In pandas a time has nanoseconds and NaT; the log gets microseconds, and NaT did not happen."""
    frame = pd.DataFrame(
        {
            "order_id": [1, 2],
            "at": pd.to_datetime(["2024-01-01 10:00:00.123456789", None]).astype("datetime64[ns]"),
            "then": pd.to_datetime([None, "2024-01-01 10:00"]).tz_localize("Asia/Tokyo"),
            "who": ["x", None],
        }
    )
    events = events_from_milestones(
        frame, milestones={"OrderPlaced": "at", "OrderPaid": "then"}, fields={"OrderPlaced": {"customer_id": "who"}}
    )
    assert events.rows() == [
        ("2", "OrderPaid", *times("2024-01-01 01:00+00:00"), None),
        ("1", "OrderPlaced", *times("2024-01-01 10:00:00.123456+00:00"), "x"),
    ]


@pytest.mark.parametrize(
    ("change", "arguments", "match"),
    [
        ({}, {"key": "no"}, "column 'no': there is no such column; there are order_id, at"),
        ({}, {"milestones": {"OrderPlaced": "nope"}}, "column 'nope'"),
        ({}, {"fields": {"OrderPlaced": {"total": "sum"}}}, "column 'sum'"),
        ({}, {"fields": {"OrderPaid": {"total": "at"}}}, "fields has 'OrderPaid'"),
        ({}, {"fields": {"OrderPlaced": {"x": "at", "type": "at"}}}, "fields has 'type'"),
        ({}, {"milestones": {}}, "no milestone"),
        ({}, {"zone": "Mars"}, "'Mars' is not a time zone"),
        ({"order_id": ["a", None]}, {}, "row 2, column 'order_id': it is empty"),
        (
            {"order_id": ["a", "a"]},
            {},
            "row 2, column 'order_id': it is 'a', but the rule is that it is in one row only",
        ),
        ({"order_id": [1.0, 2.0]}, {}, "column 'order_id': the key is Float64"),
        ({"at": [1, 2]}, {}, "column 'at': it is Int64, not a time"),
        ({"at": ["2024-01-01", "01/02/2024"]}, {}, "row 2, column 'at': it is '01/02/2024'"),
        ({"at": ["2024-01-01", "2024-13-01"]}, {}, "row 2, column 'at'"),
        ({"at": ["2024-01-01", "2024-01-01 10"]}, {}, "row 2, column 'at'"),
        ({"at": ["2024-01-01", ""]}, {}, "row 2, column 'at'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(change, arguments, match):
    """What is wrong with a table of milestones is said with its column, and its row where there is one."""
    frame = pl.DataFrame({"order_id": ["a", "b"], "at": times("2024-01-01", "2024-01-02"), **change})
    with pytest.raises(ImportFailed, match=match):
        events_from_milestones(frame, **{"milestones": {"OrderPlaced": "at"}, **arguments})


def test_one_field_from_columns_of_different_types_is_refused():
    """Text and times cannot stand in one column of the log."""
    frame = pl.DataFrame({"order_id": ["a"], "at": times("2024-01-01"), "n": [[1]]})
    fields = {"OrderPlaced": {"x": "n"}, "OrderPaid": {"x": "at"}}
    with pytest.raises(ImportFailed, match="different types"):
        events_from_milestones(frame, milestones={"OrderPlaced": "at", "OrderPaid": "at"}, fields=fields)
