"""Random histories of the shop, and what they should come to, folded in plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from cqrs_lab import Event
from cqrs_lab.shop import (
    CustomerEmailChanged,
    CustomerRegistered,
    CustomerRenamed,
    OrderCancelled,
    OrderDelivered,
    OrderLine,
    OrderLineAdded,
    OrderLineRemoved,
    OrderPaid,
    OrderPlaced,
    OrderRefunded,
    OrderShipped,
    orders,
)
from support.orders import START

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")  # that a text may hold
ids = st.sampled_from(["o-1", "o-2", "o-3", "ö/4", "x'; DROP TABLE streams; --"])
money = st.decimals(0, 10_000, places=2)
lines = st.lists(
    st.builds(OrderLine, product_id=st.sampled_from(["p-1", "p-2"]), quantity=st.integers(1, 9), unit_price=money),
    max_size=3,
)
maybe = st.none()
events = st.one_of(
    st.builds(
        OrderPlaced,
        order_id=ids,
        customer_id=st.sampled_from(["c-1", "c-2"]) | maybe,
        lines=lines,
        total=money | maybe,
        freight=money | maybe,
    ),
    st.builds(OrderLineAdded, order_id=ids, lines=lines, total=money),
    st.builds(OrderLineRemoved, order_id=ids, removed=lines, total=money),
    st.builds(OrderPaid, order_id=ids, amount=money | maybe, method=st.just("card")),
    st.builds(OrderShipped, order_id=ids, tracking_number=st.text(CHARACTERS, min_size=1, max_size=3)),
    st.builds(OrderDelivered, order_id=ids),
    st.builds(OrderCancelled, order_id=ids, reason=st.just("changed my mind")),
    st.builds(OrderRefunded, order_id=ids, amount=money, reason=st.just("refund") | maybe),
)
minutes = st.integers(0, 60 * 24 * 5)
histories = st.lists(st.tuples(events, minutes), max_size=25)
"""Any facts about orders in any order, each with the minutes after START at which it occurred."""

names = st.sampled_from(["Ann", "Ben", None])
who = st.sampled_from(["c-1", "c-2", "c-3"])
people = st.one_of(
    st.builds(CustomerRegistered, customer_id=who, name=names, email=names),
    st.builds(CustomerRenamed, customer_id=who, name=names),
    st.builds(CustomerEmailChanged, customer_id=who, email=names),
)
facts = st.lists(st.tuples(st.one_of(events, people), st.integers(0, 60 * 24 * 3)), min_size=1, max_size=6)
"""A few facts about orders and customers, each with its minutes after START."""


def as_table(history: Sequence[tuple[Event, int]]) -> pa.Table:
    """Return a history as a table for append_table."""
    line = pa.struct([("product_id", pa.string()), ("quantity", pa.int64()), ("unit_price", pa.decimal128(18, 2))])
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("type", pa.string()),
            ("occurred_at", pa.timestamp("us", "UTC")),
            ("source_status", pa.string()),
            ("customer_id", pa.string()),
            ("lines", pa.list_(line)),
            ("removed", pa.list_(line)),
            ("total", pa.decimal128(18, 2)),
            ("freight", pa.decimal128(18, 2)),
            ("amount", pa.decimal128(18, 2)),
            ("method", pa.string()),
            ("tracking_number", pa.string()),
            ("reason", pa.string()),
        ]
    )
    rows = [
        {
            "id": event.order_id,
            "type": type(event).__name__,
            "occurred_at": START + timedelta(minutes=minute),
            **{k: v for k, v in orders.log_category.encode(event).items() if k != "order_id"},
        }
        for event, minute in history
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def fold_summary(history: Iterable[tuple[Event, int]]) -> dict[str, dict[str, Any]]:
    """Return what order_summary should hold, folded in plain Python."""
    rank = ["OrderPlaced", "OrderPaid", "OrderShipped", "OrderDelivered", "OrderCancelled"]
    names = ["PENDING", "PAID", "SHIPPED", "DELIVERED", "CANCELLED"]
    rows: dict[str, dict[str, Any]] = {}
    stages: dict[str, int] = {}
    for event, minute in history:
        at = START + timedelta(minutes=minute)
        new = {
            "order_id": event.order_id,
            "customer_id": None,
            "customer_name": None,
            "customer_email": None,
            "status": "PENDING",
            "total": None,
            "paid": Decimal(0),
            "item_count": 0,
            "version": 0,
            "created_at": None,
            "updated_at": at,
        }
        row = rows.setdefault(event.order_id, new)
        row["version"] += 1
        row["updated_at"] = max(row["updated_at"], at)
        name = type(event).__name__
        stages[event.order_id] = max(stages.get(event.order_id, 0), rank.index(name) if name in rank else 0)
        row["status"] = names[stages[event.order_id]]
        if isinstance(event, OrderPlaced):
            row["customer_id"] = _largest(row["customer_id"], event.customer_id)
            row["created_at"] = _largest(row["created_at"], at)
        if isinstance(event, (OrderPlaced, OrderLineAdded, OrderLineRemoved)) and event.total is not None:
            row["total"] = event.total
        if isinstance(event, (OrderPlaced, OrderLineAdded)):
            row["item_count"] += sum(line.quantity for line in event.lines)
        elif isinstance(event, OrderLineRemoved):
            row["item_count"] -= sum(line.quantity for line in event.removed)
        elif isinstance(event, OrderPaid):
            row["paid"] += event.amount or 0
        elif isinstance(event, OrderRefunded):
            row["paid"] -= event.amount
    return rows


def _largest(one: Any, other: Any) -> Any:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)
