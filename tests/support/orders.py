"""The one way to place an order, to append facts, and to compare what two SELECTs give."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from cqrs_lab import Event, Lab
from cqrs_lab.messages import Recorded
from cqrs_lab.shop import OrderLine, OrderPlaced, PayOrder, PlaceOrder
from cqrs_lab.write.batch import Context

START = datetime(2025, 1, 1, tzinfo=UTC)


def line(product: str = "p-1", quantity: int = 1, price: Decimal | str | int = 10) -> OrderLine:
    """Return a line of an order."""
    return OrderLine(product_id=product, quantity=quantity, unit_price=price)


def place(order: str | int = "o-1", *lines: OrderLine, customer: str = "c-1") -> PlaceOrder:
    """Return the command that places an order, of 5.00 unless told; a number n stands for "o-n"."""
    return PlaceOrder(order_id=_id(order), customer_id=customer, lines=lines or (line(price=5),))


def pay(order: str | int = "o-1", amount: Decimal | str | int = 5) -> PayOrder:
    """Return the command that pays an order, of 5.00 unless told."""
    return PayOrder(order_id=_id(order), amount=amount)


def placed(order: str | int, customer: str = "c-1", total: str = "10.00") -> tuple[OrderPlaced, int]:
    """Return the fact that an order of two pieces was placed, as many minutes after START as its number."""
    lines = [line(quantity=2, price=5)]
    event = OrderPlaced(order_id=_id(order), customer_id=customer, lines=lines, total=total, freight="1.50")
    return event, order if isinstance(order, int) else 0


def _id(order: str | int) -> str:
    return f"o-{order}" if isinstance(order, int) else order


def batch(prefix: str, count: int) -> pa.Table:
    """Return a table of orders placed, one event a stream, a minute apart."""
    times = [START + timedelta(minutes=number) for number in range(count)]
    return pa.table(
        {
            "id": [f"{prefix}-{number}" for number in range(count)],
            "type": ["OrderPlaced"] * count,
            "occurred_at": pa.array(times, pa.timestamp("us", "UTC")),
            "customer_id": [f"c-{number % 7}" for number in range(count)],
            "total": pa.array([Decimal(number) / 100 for number in range(count)], pa.decimal128(18, 2)),
        }
    )


def append(lab: Lab, history: Iterable[tuple[Event, int] | Event], *, category: str | None = None) -> list[Recorded]:
    """Append facts one by one, as a program that records what happened elsewhere would.

    Args:
        lab: any.
        history: events, each alone or with the minutes after START at which it occurred.
        category: where they go; by default each goes to the first category that declares its type.
    """
    stored = []
    for fact in history:
        event, minute = fact if isinstance(fact, tuple) else (fact, 0)
        known = lab._categories.values()
        to = lab._categories[category] if category else next(one for one in known if type(event) in one.events)
        context = Context(occurred_at=START + timedelta(minutes=minute))
        stored += lab._store.append(to, getattr(event, to.key), [event], context=context)
    return stored


def assert_same(lab: Lab, one: str, other: str) -> None:
    """Assert that two SELECTs give the same columns, of the same types, and the same rows as often."""
    database = lab._log.database
    types_of_one, types_of_other = (
        [row[:2] for row in database.execute(f"DESCRIBE {select}")] for select in (one, other)
    )
    assert types_of_one == types_of_other
    difference = database.execute(f"(({one}\n) EXCEPT ALL ({other}\n)) UNION ALL (({other}\n) EXCEPT ALL ({one}\n))")
    assert difference == []


def tamper(lab: Lab, sql: str, *params: str) -> None:
    """Change stored rows behind the lab's back."""
    lab._log.database.execute(sql, params)
