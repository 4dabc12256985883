"""What tests of dead letters share: models and handlers that fail at a number, and events that carry one."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from cqrs_lab import Event, Lab, Projection, ReadModel
from cqrs_lab.shop import OrderPaid, OrderShipped

merged = ReadModel(
    "merged",
    "order_id",
    "SELECT order_id, count(*) AS n, sum(CAST(tracking_number AS BIGINT)) AS number "
    "FROM order_events GROUP BY order_id",
)


touched = ReadModel(
    "touched",
    "order_id",
    "SELECT order_id, count(*) AS n, median(CAST(tracking_number AS BIGINT)) AS number "
    "FROM order_events GROUP BY order_id",
)


filtered = ReadModel(
    "filtered",
    "order_id",
    "SELECT order_id, count(*) AS n FROM order_events WHERE coalesce(CAST(tracking_number AS BIGINT), 0) >= 0 "
    "GROUP BY order_id",
)


whole = ReadModel(
    "whole",
    "order_id",
    "SELECT order_id, count(*) AS n, sum(CAST(tracking_number AS BIGINT)) AS number, "
    "(SELECT count(*) FROM order_events) AS events FROM order_events GROUP BY order_id",
)


MODELS = [merged, touched, filtered, whole]


def by_hand(works: Callable[[str], bool] = str.isdigit, name: str = "by_hand", chunk: int = 3) -> Projection:
    """Return `merged` as a projection in Python; it fails at a number that does not work."""
    made = Projection(name, "order_id", {"order_id": str, "n": int, "number": int}, chunk=chunk)

    @made.on(OrderShipped)
    @made.on(OrderPaid)
    def _(recorded: Any, rows: Any) -> None:
        row = rows.get(recorded.event.order_id) or {"order_id": recorded.event.order_id, "n": 0, "number": None}
        number = getattr(recorded.event, "tracking_number", None)
        rows.put(**row | {"n": row["n"] + 1})
        if number is not None:
            if not works(number):
                raise ValueError(f"{number} is no number")
            value = int(number) if number.isdigit() else 0
            rows.put(**row | {"n": row["n"] + 1, "number": (row["number"] or 0) + value})

    return made


def steps(*numbers: str) -> list[tuple[Event, int]]:
    """Return events of two orders: "." is a payment, anything else a number to ship under; "x" is poison."""
    return [
        (
            OrderPaid(order_id=f"o-{place % 2}", amount=Decimal(1))
            if number == "."
            else OrderShipped(order_id=f"o-{place % 2}", tracking_number=number),
            0,
        )
        for place, number in enumerate(numbers)
    ]


def sound(model: ReadModel, dead: list[int], position: int) -> str:
    """Return the SELECT of a model over the events up to a position that are not dead."""
    where = f"position <= {position} AND position NOT IN ({', '.join(map(str, [0, *dead]))})"
    return model.bound(lambda place: f"SELECT * FROM {place.name} WHERE {where}")


def dead_of(lab: Lab, model: str) -> list[int]:
    """Return the positions that a model has set aside."""
    return [row["position"] for row in lab.dead_letters().dicts() if row["model"] == model]
