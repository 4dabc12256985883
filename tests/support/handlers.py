"""What tests of projections in Python share: a slow twin of order_summary, one that counts, and one that sends."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from cqrs_lab import Event, Projection
from cqrs_lab.shop import OrderCancelled, OrderPaid, OrderPlaced, OrderShipped, orders

RANKS = ["PENDING", "PAID", "SHIPPED", "DELIVERED", "CANCELLED"]


RANK = {"OrderPaid": 1, "OrderShipped": 2, "OrderDelivered": 3, "OrderCancelled": 4}


EMPTY = {"status": "PENDING", "paid": Decimal(0), "item_count": 0}


def twin(chunk: int = 500) -> Projection:
    """Return order_summary as a projection in Python."""
    made = Projection(
        "orders_by_hand",
        key="order_id",
        columns={
            "order_id": str,
            "customer_id": str,
            "status": str,
            "total": Decimal,
            "paid": Decimal,
            "item_count": int,
            "version": int,
            "created_at": datetime,
            "updated_at": datetime,
        },
        chunk=chunk,
    )

    def handle(recorded: Any, rows: Any) -> None:
        event, kind, at = recorded.event, recorded.type, recorded.occurred_at
        row = rows.get(event.order_id) or EMPTY | {"order_id": event.order_id, "updated_at": at}
        rank = max(RANKS.index(row["status"]), RANK.get(kind, 0))
        row |= {"version": recorded.version, "status": RANKS[rank], "updated_at": max(row["updated_at"], at)}
        if kind == "OrderPlaced":
            row["customer_id"] = max(filter(None, (row.get("customer_id"), event.customer_id)), default=None)
            row["created_at"] = max(filter(None, (row.get("created_at"), at)))
        if kind in ("OrderPlaced", "OrderLineAdded", "OrderLineRemoved") and event.total is not None:
            row["total"] = event.total
        row["item_count"] += sum(line.quantity for line in getattr(event, "lines", None) or ())
        row["item_count"] -= sum(line.quantity for line in getattr(event, "removed", None) or ())
        amount = getattr(event, "amount", None) or 0
        row["paid"] += -amount if kind == "OrderRefunded" else amount
        rows.put(**row)

    for event in orders.events:
        made.on(event)(handle)
    return made


def counting(name: str = "counts", chunk: int = 500, **more: Any) -> Projection:
    """Return how many events each order has; one that is cancelled has no row, shipping with "poison" fails."""
    made = Projection(name, key="order_id", columns={"order_id": str, "n": int}, chunk=chunk, **more)

    @made.on(OrderPlaced)
    @made.on(OrderPaid)
    def _(recorded: Any, rows: Any) -> None:
        row = rows.get(recorded.event.order_id) or {"n": 0}
        rows.put(order_id=recorded.event.order_id, n=row["n"] + 1)

    @made.on(OrderCancelled)
    def _(recorded: Any, rows: Any) -> None:
        rows.delete(recorded.event.order_id)

    @made.on(OrderShipped)
    def _(recorded: Any, rows: Any) -> None:
        rows.put(order_id=recorded.event.order_id, n=-1)
        rows.delete("o-1")
        if recorded.event.tracking_number == "poison":
            raise ValueError("cannot ship")

    return made


def paid(id: str = "o-1") -> tuple[Event, int]:
    """Return one more event of an order."""
    return OrderPaid(order_id=id, amount=Decimal(1)), 0


def shipped(id: str, number: str) -> tuple[Event, int]:
    """Return that an order was shipped; "poison" makes `counting` fail."""
    return OrderShipped(order_id=id, tracking_number=number), 0


POISONED = [paid("o-1"), paid("o-2"), shipped("o-2", "poison"), paid("o-1")]


def sending(sent: list[int], **more: Any) -> Projection:
    """Return a projection that notes what it sends; a file in its place, and it is mail."""
    made = Projection("sent", side_effect=True, **more)
    made.on(OrderPaid)(lambda recorded, rows: sent.append(recorded.position))
    return made
