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


def test_by_position(lab):
    """As of a position is the log up to it, from nothing to the head."""
    assert [status(lab.as_of(position=p)) for p in range(5)] == [None, "PENDING", "PAID", "SHIPPED", "DELIVERED"]


def test_by_recorded_time(lab):
    """As of a recorded time is what was known then; the moment itself counts."""
    known = [status(lab.as_of(recorded=START + n * DAY)) for n in (-1, 0, 1, 2, 3, 4)]
    assert known == [None, "PENDING", "PENDING", "PENDING", "SHIPPED", "DELIVERED"]
    assert status(lab.as_of(recorded=START + 3 * DAY - timedelta(microseconds=1))) == "PENDING"


def test_by_occurred_time(lab):
    """As of an occurred time is what had happened by then, as it is known now."""
    true = [status(lab.as_of(occurred=START + n * DAY)) for n in (-1, 0, 1, 2, 3, 4)]
    assert true == [None, "PENDING", "PAID", "SHIPPED", "SHIPPED", "DELIVERED"]


def test_both_together_are_what_was_believed(lab):
    """Recorded and occurred together: what was believed on one day about another."""
    assert status(lab.as_of(recorded=START + 2 * DAY, occurred=START + 2 * DAY)) == "PENDING"
    assert status(lab.as_of(recorded=START + 3 * DAY, occurred=START + 1 * DAY)) == "PAID"
    assert status(lab.as_of(position=2, recorded=START + 9 * DAY, occurred=START + 9 * DAY)) == "PAID"


def test_a_date_means_the_end_of_that_day_in_utc(lab):
    """A date counts everything of that day in UTC, and any zone of a datetime is understood."""
    assert status(lab.as_of(recorded=date(2025, 1, 4))) == "SHIPPED"
    assert status(lab.as_of(recorded=date(2025, 1, 3))) == "PENDING"
    elsewhere = datetime(2025, 1, 4, 5, tzinfo=timezone(timedelta(hours=5)))
    assert status(lab.as_of(recorded=elsewhere)) == "SHIPPED"


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
