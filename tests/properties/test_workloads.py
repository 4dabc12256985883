"""Random workloads: every one is a shop that could have been, within the shop's own rules."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cqrs_lab import open_shop
from cqrs_lab.shop import (
    AddOrderLine,
    CancelOrder,
    DeliverOrder,
    OrderCancelled,
    OrderDelivered,
    OrderLineAdded,
    OrderLineRemoved,
    OrderPaid,
    OrderPlaced,
    OrderRefunded,
    OrderShipped,
    PayOrder,
    PlaceOrder,
    RefundOrder,
    RegisterCustomer,
    RemoveOrderLine,
    ShipOrder,
    customers,
    orders,
)
from cqrs_lab.workbench.data.generated import generate, tables
from cqrs_lab.workbench.data.workload import STAGES, Workload

workloads = st.builds(
    Workload,
    orders=st.integers(1, 40),
    seed=st.integers(0, 2**63 - 1),
    customers=st.none() | st.integers(1, 50),
    products=st.integers(1, 30),
    days=st.integers(1, 3_660),
    start=st.dates(date(1900, 1, 1), date(2900, 1, 1)),
    unpaid=st.floats(0, 0.2),
    cancelled=st.floats(0, 0.2),
    waiting=st.floats(0, 0.2),
    lost=st.floats(0, 0.2),
    refunded=st.floats(0, 0.2),
    promotions=st.integers(0, 5),
    late=st.floats(0, 1),
    hot=st.integers(0, 5),
    prefix=st.sampled_from(["", "b-", "2025."]),
)


def stored(lab, category):
    """Return the events that a lab has of a category, oldest first."""
    declared = lab._categories[category]
    ids = lab.as_of(position=lab.head).sql(f"SELECT DISTINCT {declared.key} FROM {declared.table}").fetchall()
    found = lab._log.read_many(declared, [id for (id,) in ids])
    return {stream.partition("/")[2]: events for stream, events in found.items()}


def command_of(event):
    """Return the command that leads to an event of an order."""
    match event:
        case OrderPlaced():
            return PlaceOrder(order_id=event.order_id, customer_id=event.customer_id, lines=event.lines)
        case OrderPaid():
            return PayOrder(order_id=event.order_id, amount=event.amount, method=event.method)
        case OrderShipped():
            return ShipOrder(order_id=event.order_id, tracking_number=event.tracking_number)
        case OrderDelivered():
            return DeliverOrder(order_id=event.order_id)
        case OrderCancelled():
            return CancelOrder(order_id=event.order_id, reason=event.reason)
        case OrderRefunded():
            return RefundOrder(order_id=event.order_id, amount=event.amount, reason=event.reason)
        case OrderLineAdded():
            return AddOrderLine(order_id=event.order_id, line=event.lines[0])
        case OrderLineRemoved():
            return RemoveOrderLine(order_id=event.order_id, product_id=event.removed[0].product_id)


@given(workloads)
@settings(max_examples=15, deadline=None)
def test_every_event_could_have_come_from_a_command(workload):
    """Each event is what its decider decides in the state before it; customers come first, and every order has one."""
    with open_shop(threads=1) as lab:
        report = generate(lab, workload)
        placed, people = stored(lab, "order"), stored(lab, "customer")
    assert len(placed) == workload.orders
    for events in placed.values():
        state = orders.initial
        for recorded in events:
            [decided] = orders.decide(command_of(recorded.event), state)
            freight = {"freight": recorded.event.freight} if isinstance(decided, OrderPlaced) else {}
            assert decided.model_copy(update=freight) == recorded.event  # freight alone comes on top
            state = orders.evolve(state, recorded.event)
    assert len(people) == report.customers == (workload.customers or max(1, workload.orders // 4))
    for [recorded] in people.values():
        event = recorded.event
        command = RegisterCustomer(customer_id=event.customer_id, name=event.name, email=event.email)
        assert customers.decide(command, customers.initial) == [event]
        assert recorded.occurred_at == datetime.combine(workload.start, datetime.min.time(), UTC)
        assert recorded.position <= report.customers
    assert {order[0].event.customer_id for order in placed.values()} <= set(people)


@given(workloads)
@settings(max_examples=15, deadline=None)
def test_events_come_in_one_order(workload):
    """Rows are sorted by recorded time, stage and id without ties, and no order has two events in one second."""
    events = pl.from_arrow(tables(workload)["order"])
    keys = [(row["recorded_at"], STAGES.index(row["type"]), row["id"]) for row in events.iter_rows(named=True)]
    assert all(a < b for a, b in pairwise(keys))
    assert all(moment.microsecond == 0 for moment in events["occurred_at"])
    assert (events["occurred_at"] <= events["recorded_at"]).all()
    assert events.select("id", "occurred_at").is_unique().all()
    assert events.select(pl.col("occurred_at").is_sorted().over("id")).to_series().all()
    placed = events.filter(pl.col("type") == "OrderPlaced")
    assert placed["id"].is_sorted()
    first, last = placed["occurred_at"].min().date(), placed["occurred_at"].max().date()
    assert workload.start <= first <= last < workload.start + timedelta(days=workload.days)
