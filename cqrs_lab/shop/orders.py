"""Orders: what can be asked of an order, what can happen to it, and the rules between the two.

Declarations only: messages and two pure functions. An order goes PENDING, PAID, SHIPPED, DELIVERED; until it is
shipped it can be CANCELLED.

Events may know less than commands say, and may break their order: an imported shop knows that an order was paid, not
always how much, and some parcels left before the money came. So fields of events may be None, and the status is the
furthest stage that the order has reached, not the stage of its last event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from cqrs_lab.errors import RuleViolated
from cqrs_lab.messages import Command, Event, Id, Money, Value
from cqrs_lab.write.decider import Decider

Amount = Annotated[Money, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]


class OrderLine(Value):
    """Some units of one product at a price."""

    product_id: Id
    quantity: Annotated[int, Field(ge=1)]
    unit_price: Amount


# -- commands ----------------------------------------------------------------------------------------------------------


class PlaceOrder(Command):
    """Place an order of at least one line."""

    order_id: Id
    customer_id: Id
    lines: Annotated[tuple[OrderLine, ...], Field(min_length=1)]


class PayOrder(Command):
    """Pay an order, whole and once."""

    order_id: Id
    amount: Amount
    method: Text = "card"


class ShipOrder(Command):
    """Hand a paid order to the carrier."""

    order_id: Id
    tracking_number: Text


class DeliverOrder(Command):
    """Hand a shipped order to the customer."""

    order_id: Id


class CancelOrder(Command):
    """Cancel an order that has not been shipped."""

    order_id: Id
    reason: Text


# -- events ------------------------------------------------------------------------------------------------------------


class OrderEvent(Event):
    """Something that happened to an order.

    Attributes:
        source_status: the last word of an imported shop on the order, on the last of its events.
    """

    order_id: Id
    source_status: str | None = None


class OrderPlaced(OrderEvent):
    """An order was placed; `total` is the value of its lines, freight comes on top."""

    customer_id: Id | None = None
    lines: tuple[OrderLine, ...] = ()
    total: Amount | None = None
    freight: Amount | None = None


class OrderPaid(OrderEvent):
    """Money for an order came in."""

    amount: Amount | None = None
    method: str | None = None


class OrderShipped(OrderEvent):
    """An order was handed to the carrier."""

    tracking_number: str | None = None


class OrderDelivered(OrderEvent):
    """An order was handed to the customer."""


class OrderCancelled(OrderEvent):
    """An order was called off."""

    reason: str | None = None


# -- rules -------------------------------------------------------------------------------------------------------------

STAGES = ("NEW", "PENDING", "PAID", "SHIPPED", "DELIVERED", "CANCELLED")


@dataclass(frozen=True)
class Order:
    """What the rules need to know of an order.

    Attributes:
        status: one of STAGES.
        due: what is to be paid, freight included.
    """

    status: str = "NEW"
    due: Decimal = Decimal(0)

    def reached(self, stage: str) -> Order:
        """Return the order at `stage`, or where it is when it is further already."""
        return self if STAGES.index(stage) < STAGES.index(self.status) else replace(self, status=stage)


def decide(command: Command, order: Order) -> Sequence[Event]:
    """Return the events that a command leads to, or raise RuleViolated."""
    match command:
        case PlaceOrder():
            _require("an order is placed once", order, "NEW")
            total = sum((line.quantity * line.unit_price for line in command.lines), Decimal(0))
            return [
                OrderPlaced(
                    order_id=command.order_id,
                    customer_id=command.customer_id,
                    lines=command.lines,
                    total=total,
                    freight=Decimal(0),
                )
            ]
        case PayOrder():
            _require("an order is paid once, while it is pending", order, "PENDING")
            if command.amount != order.due:
                raise RuleViolated("an order is paid whole", f"{order.due} due, {command.amount} offered")
            return [OrderPaid(order_id=command.order_id, amount=command.amount, method=command.method)]
        case ShipOrder():
            _require("only a paid order is shipped", order, "PAID")
            return [OrderShipped(order_id=command.order_id, tracking_number=command.tracking_number)]
        case DeliverOrder():
            _require("only a shipped order is delivered", order, "SHIPPED")
            return [OrderDelivered(order_id=command.order_id)]
        case CancelOrder():
            _require("only an order that has not been shipped is cancelled", order, "PENDING", "PAID")
            return [OrderCancelled(order_id=command.order_id, reason=command.reason)]
    raise TypeError(f"orders do not handle {type(command).__name__}")


def evolve(order: Order, event: Event) -> Order:
    """Return the order after an event."""
    match event:
        case OrderPlaced():
            due = (event.total or Decimal(0)) + (event.freight or Decimal(0))
            return replace(order.reached("PENDING"), due=due)
        case OrderPaid():
            return order.reached("PAID")
        case OrderShipped():
            return order.reached("SHIPPED")
        case OrderDelivered():
            return order.reached("DELIVERED")
        case OrderCancelled():
            return order.reached("CANCELLED")
    raise TypeError(f"orders do not know {type(event).__name__}")


def _require(rule: str, order: Order, *allowed: str) -> None:
    if order.status not in allowed:
        raise RuleViolated(rule, order.status)


orders = Decider(
    category="order",
    key="order_id",
    initial=Order(),
    decide=decide,
    evolve=evolve,
    commands=[PlaceOrder, PayOrder, ShipOrder, DeliverOrder, CancelOrder],
    events=[OrderPlaced, OrderPaid, OrderShipped, OrderDelivered, OrderCancelled],
)
