"""The past: by position, by what was recorded, by what had occurred, and by both."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest
from support import START, pay, place

from cqrs_lab import open_shop
from cqrs_lab.shop import DeliverOrder, ShipOrder, daily_orders, order_summary

DAY = timedelta(days=1)


@pytest.fixture
def lab():
    """A shop that learnt late: paid on day 1 but recorded on day 3, shipped on day 2, delivered on day 4."""
    clock = [START]
    story = [
        (0, 0, place()),
        (3, 1, pay()),
        (3, 2, ShipOrder(order_id="o-1", tracking_number="T")),
        (4, 4, DeliverOrder(order_id="o-1")),
    ]
    with open_shop(clock=lambda: clock[0]) as lab:
        for recorded, occurred, command in story:
            clock[0] = START + recorded * DAY
            lab.send(command, occurred_at=START + occurred * DAY)
        yield lab


def status(past):
    """Return the order's status, None when it was not there yet."""
    row = past.get(order_summary, "o-1")
    return row and row["status"]


P, X, S, D = "PENDING", "PAID", "SHIPPED", "DELIVERED"


@pytest.mark.parametrize(
    ("moments", "seen"),
    [
        ([{"position": p} for p in range(5)], [None, P, X, S, D]),
        ([{"recorded": START + n * DAY} for n in (-1, 0, 1, 2, 3, 4)], [None, P, P, P, S, D]),
        ([{"recorded": START + 3 * DAY - timedelta(microseconds=1)}], [P]),
        ([{"occurred": START + n * DAY} for n in (-1, 0, 1, 2, 3, 4)], [None, P, X, S, S, D]),
        ([{"recorded": START + r * DAY, "occurred": START + o * DAY} for r, o in ((2, 2), (3, 1))], [P, X]),
        ([{"position": 2, "recorded": START + 9 * DAY, "occurred": START + 9 * DAY}], [X]),
        ([{"recorded": date(2025, 1, 3)}, {"recorded": date(2025, 1, 4)}], [P, S]),  # the end of that day in UTC
        ([{"recorded": datetime(2025, 1, 4, 5, tzinfo=timezone(timedelta(hours=5)))}], [S]),  # any zone
    ],
    ids=["position", "recorded", "just before", "occurred", "believed", "all three", "a date", "another zone"],
)
def test_the_past_is_as_it_was(lab, moments, seen):
    """As of a position, of what was recorded or had occurred, the moment itself counts; together: what was believed."""
    assert [status(lab.as_of(**moment)) for moment in moments] == seen


def test_any_sql_over_the_past(lab):
    """A question about the past names read models and tables of events, and never sees what came later."""
    past = lab.as_of(position=2)
    assert past.sql("SELECT status, count(*) FROM order_summary GROUP BY 1").fetchall() == [("PAID", 1)]
    assert past.sql("SELECT max(position) FROM order_events").fetchall() == [(2,)]
    assert past.sql("SELECT count(*) FROM order_summary, daily_orders, order_events").fetchall() == [(2,)]
    assert past.rows(daily_orders).fetchall()[0][1] == 1
    assert lab.as_of(position=0).sql("SELECT count(*) FROM order_summary").fetchall() == [(0,)]
    assert lab.as_of(occurred=START + DAY).sql("SELECT count(*) FROM order_events").fetchall() == [(2,)]


def test_the_past_does_not_move(lab):
    """Rows as of a position stay the same when the log grows."""
    past = lab.as_of(recorded=START + 9 * DAY)
    before = past.rows(order_summary).fetchall()
    lab.send(place(2))
    assert past.rows(order_summary).fetchall() == before
    assert len(lab.as_of(recorded=START + 9 * DAY).rows(order_summary)) == 2
