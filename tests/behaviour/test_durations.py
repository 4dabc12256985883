"""Durations: one value in every shape, and what has no length is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrs_lab import Domain, Event, Lab, ReadModel
from cqrs_lab.errors import InvalidMoment, ProjectionFailed, QueryFailed
from cqrs_lab.read.table import ServedAs

START = datetime(2024, 1, 1, 12, tzinfo=UTC)
TOOK = timedelta(days=40, hours=1, microseconds=5)
WAYS: tuple[ServedAs, ...] = ("view", "materialized", "projection")


class Done(Event):
    """Something was done in a case."""

    case_id: str


def cases(*times: datetime) -> Lab:
    """A lab with one event of case a at each time."""
    lab = Lab(domain=Domain.of_events("case", key="case_id", events=[Done]))
    lab.append_table("case", pl.DataFrame({"id": ["a"] * len(times), "type": "Done", "occurred_at": times}))
    return lab


def took(columns: str, key: str = "case_id") -> ReadModel:
    """A read model of those columns."""
    return ReadModel("took", key, f"SELECT case_id, {columns} FROM case_events GROUP BY 1")


@pytest.mark.parametrize("as_", WAYS)
def test_a_duration_is_one_value_in_every_shape(as_: ServedAs) -> None:
    """Polars, pandas, Arrow, tuples, dicts, get, history, diff and the past give the same length of time."""
    model = took("max(occurred_at) - min(occurred_at) AS took")
    with cases(START, START + TOOK) as lab:
        served = lab.serve(model, as_)
        assert served.get("a") == {"case_id": "a", "took": TOOK} == served.rows().dicts()[0]
        assert served.rows().fetchall() == [("a", TOOK)] == served.where(took=TOOK).fetchall()
        assert served.pl().schema["took"] == pl.Duration("us")
        assert served.pl()["took"].to_list() == [TOOK]
        assert served.df()["took"].tolist() == [pd.Timedelta(TOOK)]
        assert "40 d 1 h" in repr(served.rows())
        assert "40 d 1 h" in served.rows()._repr_html_()
        assert lab.as_of(position=1).get(model, "a") == {"case_id": "a", "took": timedelta(0)}
        assert lab.history(model, "a").pl()["took"].to_list() == [timedelta(0), TOOK]
        (changed,) = lab.diff(model, 1, 2).dicts()
        assert (changed["before"]["took"], changed["after"]["took"]) == (timedelta(0), TOOK)
        assert lab.sql("SELECT took FROM took WHERE took > ?", [timedelta(days=40)]).fetchall() == [(TOOK,)]


@pytest.mark.parametrize(
    ("columns", "value"),
    [
        ("{'x': max(occurred_at) - min(occurred_at), 'y': [INTERVAL 1 DAY, NULL]} AS took",
         {"x": TOOK, "y": [timedelta(days=1), None]}),
        ("CASE WHEN count(*) > 2 THEN INTERVAL 1 HOUR END AS took", None),
        ("CASE WHEN count(*) > 2 THEN {'x': INTERVAL 1 HOUR} END AS took", None),
        ("CASE WHEN count(*) > 2 THEN [INTERVAL 1 HOUR] END AS took", None),
        ("map {'x': max(occurred_at) - min(occurred_at)} AS took", [("x", TOOK)]),
        ("[INTERVAL '-1 day -2 hours'] AS took", [-timedelta(days=1, hours=2)]),
    ],
)  # fmt: skip
def test_durations_are_found_wherever_they_are(columns: str, value: object) -> None:
    """In structs, lists and maps, and where there is none, a duration is what it is."""
    with cases(START, START + TOOK) as lab:
        for as_ in WAYS:
            served = lab.serve(took(columns), as_)
            assert served.get("a") == {"case_id": "a", "took": value}
            assert served.rows().dicts() == [{"case_id": "a", "took": value}]
            assert served.pl().height == len(served.df()) == 1


def test_a_duration_can_be_the_key() -> None:
    """Rows are found by a duration, except in a projection, which says why not and what to write."""
    model = ReadModel("waits", "wait", "SELECT occurred_at - DATE '2024-01-01' AS wait FROM case_events GROUP BY 1")
    with cases(START) as lab:
        with pytest.raises(ProjectionFailed, match=r"none for the type INTERVAL.*epoch"):
            lab.serve(model, "projection")
        for as_ in WAYS[:2]:
            assert lab.serve(model, as_).get(timedelta(hours=12)) == {"wait": timedelta(hours=12)}
            assert lab.serve(model, as_).get(timedelta(hours=13)) is None


@pytest.mark.parametrize("columns", ["age(max(occurred_at), min(occurred_at)) AS took", "INTERVAL 3 YEAR AS took"])
def test_months_and_years_are_refused(columns: str) -> None:
    """A month has no length: whichever way it is looked at, the answer says what to write."""
    with cases(START, START + TOOK) as lab:
        served = lab.serve(took(columns))
        for look in (
            served.pl,
            served.df,
            lambda: served.get("a"),
            served.rows().fetchall,
            lambda: repr(served.rows()),
        ):
            with pytest.raises(QueryFailed, match="counts months or years, which have no fixed length"):
                look()
        assert lab.sql("SELECT occurred_at + INTERVAL 1 MONTH AS due FROM case_events LIMIT 1").dicts() == [
            {"due": datetime(2024, 2, 1, 12, tzinfo=UTC)}
        ]


@given(st.timedeltas(timedelta(days=-290_000), timedelta(days=290_000)))
def test_no_microsecond_is_lost(length: timedelta) -> None:
    """Whatever its length and sign, a duration comes out as it went in."""
    with cases(START) as lab:
        rows = lab.sql("SELECT ? AS took", [length])
        assert rows.fetchall() == [(length,)]
        assert rows.pl()["took"].to_list() == [length]


def test_what_is_too_long_is_refused() -> None:
    """Longer than 64 bits of microseconds is said, and not cut."""
    with cases(START) as lab, pytest.raises(QueryFailed, match="longer than a duration"):
        lab.sql("SELECT INTERVAL '200000000 days' AS took")


@pytest.mark.parametrize("as_", WAYS)
@pytest.mark.parametrize(("column", "select"), [("day", "CAST(occurred_at AS DATE)"), ("at_", "occurred_at")])
def test_a_date_and_a_naive_time_mean_the_same_everywhere(as_: ServedAs, column: str, select: str) -> None:
    """As key, parameter or condition a date is its day or the day's first moment; a time without a zone is refused."""
    model = ReadModel("days", column, f"SELECT {select} AS {column}, count(*) AS n FROM case_events GROUP BY 1")
    day, naive = date(2024, 1, 2), datetime(2024, 1, 2)
    with cases(START, datetime(2024, 1, 2, tzinfo=UTC)) as lab:
        served, past = lab.serve(model, as_), lab.as_of(position=2)
        question = f"SELECT n FROM days WHERE {column} = ?"
        ways: list[Callable[[date], Any]] = [
            lambda value: [(row["n"],) for row in [served.get(value)] if row],
            lambda value: [(row["n"],) for row in [past.get(model, value)] if row],
            lambda value: [(row["n"],) for row in served.where(**{column: value}).dicts()],
            lambda value: [(row["n"],) for row in past.where(model, **{column: value}).dicts()],
            lambda value: lab.sql(question, [value]).fetchall(),
            lambda value: past.sql(question, [value]).fetchall(),
            lambda value: served.sql(question, [value]).fetchall(),
            lambda value: [(row["n"],) for row in lab.history(model, value).dicts()],
        ]
        for ask in ways:
            assert ask(day) == [(1,)]
            with pytest.raises(InvalidMoment, match="has no time zone"):
                ask(naive)


def test_a_date_before_all_that_was_recorded_is_said() -> None:
    """Instead of an empty answer: nothing had been recorded by then, and what to ask for what had happened."""
    model = took("count(*) AS n")
    early, later = date(2024, 1, 1), date(2024, 2, 1)
    with cases(START, START + TOOK) as lab:
        for ask in (
            lambda: lab.as_of(recorded=later),
            lambda: lab.fork(recorded=later),
            lambda: lab.diff(model, early, later),
            lambda: lab.diff(model, early, later, by="recorded"),
        ):
            with pytest.raises(InvalidMoment, match=r"nothing had been recorded by 2024-02-01: the first event was"):
                ask()
        assert len(lab.diff(model, early, date(2100, 1, 1), by="recorded")) == 1
        assert lab.diff(model, early, later, by="occurred").fetchall() == []
        assert lab.as_of(position=0).get(model, "a") is None
        assert lab.as_of(occurred=early).get(model, "a") == {"case_id": "a", "n": 1}
        with Lab(domain=lab.domain) as empty:
            assert empty.as_of(recorded=later).get(model, "a") is None
