"""given(events) on a read model: rows compared with a view, a table and a projection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from support.specs import OTHER, PAID, PLACED, told

from cqrs_lab import ReadModel
from cqrs_lab.errors import DeclarationError, ReadModelRefused
from cqrs_lab.read.served import Served
from cqrs_lab.shop import (
    CustomerRegistered,
    customers,
    daily_orders,
    order_summary,
    orders,
)
from cqrs_lab.testing import START, Noted, given_events


def test_rows_are_compared_on_the_named_columns() -> None:
    """rows() compares the columns that the expected dicts name, in order of the key, and returns the rows whole."""
    projected = given_events(OTHER, PLACED, PAID).project(order_summary)
    rows = projected.rows(
        {"order_id": "o-1", "status": "PAID", "paid": Decimal("19.98"), "created_at": START + timedelta(minutes=1)},
        {"order_id": "o-2", "status": "PENDING", "customer_id": "c-1", "updated_at": START},
    )
    assert rows == projected.rows() == projected.rows([{}, {}])
    assert rows[0]["item_count"] == 2


def test_wrong_rows_are_told_line_by_line() -> None:
    """A wrong value, a missing row, one too many and an unknown column are each told, with all that was asked."""
    projected = given_events([PLACED]).project(daily_orders)
    (row,) = projected.rows()
    expected = {"orders": 2}
    assert told(lambda: projected.rows(expected))[0].splitlines() == [
        "row 1: orders should be 2 and is 1",
        f"given:    {PLACED!r}",
        "when:     project daily_orders",
        f"expected: {expected!r}",
        f"got:      {row!r}",
    ]
    assert told(lambda: projected.rows({}, {}))[0].startswith("row 2 is missing\n")
    assert told(lambda: projected.rows({"order": 1}))[0].startswith("row 1: order should be 1 and is not there\n")
    assert told(lambda: projected.rows([]))[0].startswith("row 1 is one too many\n")
    assert told(projected.is_empty)[0].startswith("row 1 is one too many\n")


def test_no_rows_are_asserted_by_is_empty() -> None:
    """is_empty() passes when nothing of the events concerns the read model, or when there are no events."""
    given_events(PAID).project(daily_orders).is_empty()
    given_events(deciders=[orders]).project(order_summary).is_empty()


def test_times_can_be_given() -> None:
    """An event given with an aware time occurred then; a naive time is refused."""
    zone = datetime.fromisoformat("2024-05-01T01:00:00+02:00")
    rows = given_events((PLACED, zone), PAID).project(order_summary).rows()
    assert rows[0]["created_at"] == datetime(2024, 4, 30, 23, tzinfo=UTC)
    assert rows[0]["updated_at"] == START + timedelta(minutes=1)
    with pytest.raises(ValueError, match="no time zone"):
        given_events((PLACED, datetime(2024, 5, 1)))


def test_recorded_times_and_ids_repeat() -> None:
    """Two runs give equal rows, also where a read model shows when an event was recorded and its id."""
    model = ReadModel("told", "event_id", "SELECT event_id, recorded_at FROM order_events")
    runs = [given_events(PLACED, PAID).project(model).rows() for _ in range(2)]
    assert runs[0] == runs[1]
    assert [row["recorded_at"] for row in runs[0]] == [START, START + timedelta(minutes=1)]


def test_categories_and_layers_can_be_several() -> None:
    """A read model may join the categories of the events, or those of deciders=, and read other read models."""
    joined = ReadModel(
        "named",
        "order_id",
        """SELECT order_id, max(c.name) AS name FROM order_summary JOIN customer_events AS c USING (customer_id)
           GROUP BY order_id""",
    )
    ann = CustomerRegistered(customer_id="c-1", name="Ann")
    given_events(PLACED, ann).project(joined, layers=[order_summary]).rows({"order_id": "o-1", "name": "Ann"})
    given_events(PLACED).project(joined, layers=[order_summary]).is_empty()
    other = ReadModel("other", "order_id", "SELECT order_id FROM parcel_events")
    with pytest.raises(ReadModelRefused, match="parcel_events"):
        given_events(PLACED).project(other)
    given_events(PLACED, deciders=[orders, customers]).project(joined, layers=[order_summary]).is_empty()


def test_events_without_a_decider_are_refused() -> None:
    """Without events, or with one that no decider, or none of those given, lists, the error says to pass deciders=."""
    with pytest.raises(DeclarationError, match=r"without events .* given_events\(deciders="):
        given_events().project(order_summary)
    with pytest.raises(DeclarationError, match=r"0 deciders among those given list Noted.*given_events\(…, deciders="):
        given_events(Noted(note_id="n"), deciders=[orders]).project(order_summary)


@pytest.mark.parametrize("way", ["materialized", "projection"])
def test_a_serving_that_says_something_else_is_told(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When one way of serving differs from the view, project() fails and shows both."""
    arrow = Served.arrow
    monkeypatch.setattr(Served, "arrow", lambda self: arrow(self).slice(0, 0) if self.as_ == way else arrow(self))
    text, _ = told(lambda: given_events(PLACED).project(order_summary))
    assert text.startswith(f"{way}: row 1 is missing\n")
    assert "view:" in text
    assert text.endswith("nothing")


def test_the_projection_is_moved_by_one_event_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The projection is caught up after every event, so that its merge is tried, and one that stands still is told."""
    moved: list[int] = []
    catch_up = Served.catch_up

    def counted(self: Served) -> int:
        moved.append(catch_up(self))
        return moved[-1]

    monkeypatch.setattr(Served, "catch_up", counted)
    given_events(PLACED, OTHER, PAID).project(order_summary).rows({"paid": Decimal("19.98")}, {"paid": 0})
    assert moved == [1, 2, 3]
    monkeypatch.setattr(Served, "catch_up", lambda self: 0)
    assert told(lambda: given_events(PLACED).project(order_summary))[0].startswith("projection: row 1 is missing\n")
