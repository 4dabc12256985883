"""Traces: the story behind one correlation id, as rows and as text."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID
from xml.etree import ElementTree

import pytest
from support import line, place

from cqrs_lab import Domain, Lab, ReadModel
from cqrs_lab.shop import (
    RegisterCustomer,
    RenameCustomer,
    SimulatedGateway,
    StockProduct,
    customers,
    fulfilment,
    order_summary,
    orders,
    payments,
    products,
)

lines_sold = ReadModel(  # DISTINCT: no halves that combine
    "lines_sold", key="kind", sql="SELECT type AS kind, count(DISTINCT order_id) AS orders FROM order_events GROUP BY 1"
)
open_orders = ReadModel(  # whose rows go
    "open_orders",
    key="order_id",
    sql="SELECT order_id, count(*) AS steps FROM order_events GROUP BY 1 HAVING NOT bool_or(type = 'OrderCancelled')",
)


def lab_with(*models: ReadModel) -> Lab:
    """Open a shop with read models whose clock goes on by a second at each look."""
    ticks, ids = count(), count(1)
    return Lab(
        domain=Domain(
            deciders=[orders, customers, products],
            read_models=models,
            services=[payments(SimulatedGateway())],
            sagas=[fulfilment],
        ),
        threads=1,
        clock=lambda: datetime(2025, 1, 1, 12, tzinfo=UTC) + timedelta(seconds=next(ticks)),
        new_id=lambda: UUID(int=next(ids)),
    )


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Make a shop in which one order was shipped, another refused, and a customer renamed to the same name."""
    with lab_with(order_summary) as lab:
        lab.follow(fulfilment)
        lab.send(StockProduct(product_id="pen", quantity=3))
        lab.send(place("o-1", line("pen", 2)), correlation_id="good")
        lab.send(place("o-2", line("pen"), line("ink")), correlation_id="bad")
        lab.catch_up()
        lab.send(RegisterCustomer(customer_id="c-1", name="Ada", email="ada@example.org"))
        lab.send(RenameCustomer(customer_id="c-1", name="Ada"), correlation_id="idle")
        yield lab


def test_a_story_is_told_in_order(lab):
    """Commands, events, saga steps and changed rows come in the order in which they happened, of this story alone."""
    told = lab.trace("good")
    assert told.columns == ["position", "kind", "name", "about", "by", "at", "detail"]
    assert [(row["kind"], row["name"], row["about"], row["by"]) for row in told.dicts()] == [
        ("command", "PlaceOrder", "order/o-1", ""),
        ("event", "OrderPlaced", "order/o-1", ""),
        ("row", "order_summary", "o-1", ""),
        ("saga", "ReserveStock", "product/pen", "fulfilment"),
        ("event", "StockReserved", "product/pen", ""),
        ("saga", "TakePayment", "payment/o-1", "fulfilment"),
        ("event", "PaymentTaken", "payment/o-1", ""),
        ("saga", "PayOrder", "order/o-1", "fulfilment"),
        ("event", "OrderPaid", "order/o-1", ""),
        ("row", "order_summary", "o-1", ""),
        ("saga", "ShipOrder", "order/o-1", "fulfilment"),
        ("event", "OrderShipped", "order/o-1", ""),
        ("row", "order_summary", "o-1", ""),
    ]
    positions = [row["position"] for row in told.dicts()]
    assert positions == sorted(positions)
    events = lab.events(correlation_id="good").dicts()
    assert [(r["position"], r["at"], r["detail"]) for r in told.dicts() if r["kind"] == "event"] == [
        (event["position"], event["recorded_at"], event["data"]) for event in events
    ]


def test_rows_tell_what_changed(lab):
    """A new row is told whole without its key, a changed one by the columns that changed, before and after."""
    told = [row["detail"] for row in lab.trace("good").dicts() if row["kind"] == "row"]
    assert told[0].startswith("customer_id c-1, status PENDING, total 20.00, paid 0.00, item_count 2, version 1, ")
    assert told[1].startswith("status PENDING → PAID, paid 0.00 → 20.00, version 1 → 2, updated_at 2025-01-01 12:")
    assert told[2].startswith("status PAID → SHIPPED, version 2 → 3, updated_at ")


def test_a_refused_step_is_told(lab):
    """A step that a rule refused is followed by what it was and why, and by what was done about it."""
    told = [(r["kind"], r["name"], r["about"]) for r in lab.trace("bad").dicts() if r["kind"] != "row"]
    assert told[4:8] == [
        ("saga", "ReserveStock", "fulfilment/o-2"),
        ("event", "StepRefused", "fulfilment/o-2"),
        ("saga", "CancelOrder", "order/o-2"),
        ("event", "OrderCancelled", "order/o-2"),
    ]
    assert '"about":"product/ink","rule":"only what is available is reserved (0 available, 1 wanted)"' in repr(
        lab.trace("bad")
    )


def test_a_story_reads_as_text(lab):
    """Printed, each line has its mark; events have position and time; a notebook shows the same, escaped."""
    lines = repr(lab.trace("good")).splitlines()
    assert [line.split()[0] for line in lines[:1] + lines[2:4]] == ["▶", "≈", "↳"]
    assert lines[0].strip() == "▶ PlaceOrder order/o-1"
    assert lines[1].startswith('     2 12:00:01     ● OrderPlaced order/o-1: {"order_id":"o-1",')
    assert lines[3].strip() == "↳ ReserveStock product/pen (by fulfilment)"
    assert len(lines) == len(lab.trace("good"))


def test_a_notebook_shows_a_story_as_a_tree(lab):
    """What a command led to stands in a list below it, in words: events with their fields, rows with what changed."""
    page = ElementTree.fromstring(lab.trace("good")._repr_html_().replace("<br>", "<br/>"))
    assert [child.tag for child in page] == ["li"]
    (command,) = page
    told = ["".join(line.itertext()) for line in command.find("ul")]
    assert "".join(command.itertext()).startswith("▶ command PlaceOrder to order/o-1")
    assert told[0].startswith("● event OrderPlaced in order/o-1 (position 2, 2025-01-01 12:00:01 UTC)order_id: o-1")
    assert "lines: [product_id: pen, quantity: 2, unit_price: " in told[0]
    assert "≈ read model order_summary, row o-1: " in told[0]
    assert told[1].startswith("↳ command ReserveStock to product/pen by the saga fulfilment● event StockReserved")
    assert all(mark.get("aria-hidden") for mark in page.iter("span") if (mark.text or "") in "▶↳●≈")
    assert lab.trace("nothing")._repr_html_() == "<p>nothing carries that correlation id</p>"


def test_a_command_may_lead_to_nothing(lab):
    """A command that changed nothing is told as such, without a position."""
    (row,) = lab.trace("idle").dicts()
    assert (row["kind"], row["name"], row["about"]) == ("command", "RenameCustomer", "customer/c-1")
    assert (row["position"], row["at"], row["detail"]) == (None, None, "led to nothing")
    assert repr(lab.trace("idle")).strip() == "▶ RenameCustomer customer/c-1: led to nothing"


def test_an_unknown_story_is_empty(lab):
    """Of an id that nothing carries there are no rows, in the same columns, and the text says so."""
    told = lab.trace(UUID(int=0))
    assert (len(told), told.columns) == (0, lab.trace("good").columns)
    assert repr(told) == "nothing carries that correlation id"


def test_read_models_of_any_kind_are_looked_at():
    """A model that does not merge is compared as a whole, and a row that is no longer there is told as gone."""
    with lab_with(lines_sold, open_orders) as lab:
        lab.follow(fulfilment)
        lab.send(place("o-0", line("pen")), correlation_id="other")
        lab.send(place("o-1", line("pen")), correlation_id="s")
        lab.catch_up()
        told = [(r["name"], r["about"], r["detail"]) for r in lab.trace("s").dicts() if r["kind"] == "row"]
        assert told == [
            ("lines_sold", "OrderPlaced", "orders 1 → 2"),
            ("open_orders", "o-1", "steps 1"),
            ("lines_sold", "OrderCancelled", "orders 1 → 2"),
            ("open_orders", "o-1", "gone"),
        ]
