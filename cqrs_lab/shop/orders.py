"""Orders: what can be asked of an order, what can happen to it, and the rules between the two.

Declarations only: messages and two pure functions. An order goes PENDING, PAID, SHIPPED, DELIVERED; until it is
shipped it can be CANCELLED. What was paid can be refunded at any stage, and changes no stage.

Events may know less than commands say, and may break their order: an imported shop knows that an order was paid, not
always how much, and some parcels left before the money came. So fields of events may be None, and the status is the
furthest stage that the order has reached, not the stage of its last event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, ClassVar

from pydantic import Field

from cqrs_lab.errors import RuleViolated
from cqrs_lab.messages import Command, Event, Id, Money, Upcasts, Value
from cqrs_lab.write.decider import Decider

Amount = Annotated[Money, Field(ge=0)]
Positive = Annotated[Money, Field(gt=0)]
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


class AddOrderLine(Command):
    """Order something more, while the order is pending."""

    order_id: Id
    line: OrderLine


class RemoveOrderLine(Command):
    """Take a product out of an order, while it is pending."""

    order_id: Id
    product_id: Id


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


class RefundOrder(Command):
    """Give money back: some of what was paid, or all when None."""

    order_id: Id
    amount: Positive | None = None
    reason: Text = "refund"


# -- events ------------------------------------------------------------------------------------------------------------


class OrderEvent(Event):
    """Something that happened to an order.

    Attributes:
        source_status: the last word of an imported shop on the order, on the last of its events.
    """

    order_id: Id
    source_status: str | None = None


_VALUE = "coalesce(list_sum([line.quantity * line.unit_price for line in lines]), 0)"


class OrderPlaced(OrderEvent):
    """An order was placed; `total` is the value of its lines, freight comes on top.

    Version 1 called the customer `customer`; version 2 had one sum for the lines and the freight.
    """

    schema_version: ClassVar[int] = 3
    upcasts: ClassVar[Upcasts] = {
        1: {"customer_id": "customer"},  # renamed
        2: {"total": _VALUE, "freight": f"total - {_VALUE}"},  # split
    }

    customer_id: Id | None = None
    lines: tuple[OrderLine, ...] = ()
    total: Amount | None = None
    freight: Amount | None = None


class OrderLineAdded(OrderEvent):
    """Something more was ordered; `total` is the value of all lines now."""

    lines: tuple[OrderLine, ...]
    total: Amount


class OrderLineRemoved(OrderEvent):
    """Something was taken out of an order; `total` is the value of the lines that are left."""

    removed: tuple[OrderLine, ...]
    total: Amount


class OrderPaid(OrderEvent):
    """Money for an order came in.

    Version 1 did not say how it was paid: there was nothing but cards.
    """

    schema_version: ClassVar[int] = 2
    upcasts: ClassVar[Upcasts] = {1: {"method": "'card'"}}  # added

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


class OrderRefunded(OrderEvent):
    """Money for an order was given back."""

    amount: Amount
    reason: str | None = None


# -- rules -------------------------------------------------------------------------------------------------------------

STAGES = ("NEW", "PENDING", "PAID", "SHIPPED", "DELIVERED", "CANCELLED")


@dataclass(frozen=True)
class Order:
    """What the rules need to know of an order.

    Attributes:
        status: one of STAGES.
        lines: what is ordered.
        total: the value of its lines, as the last event said.
        freight: what comes on top.
        paid: what came in, less what was given back.
    """

    status: str = "NEW"
    lines: tuple[OrderLine, ...] = ()
    total: Decimal = Decimal(0)
    freight: Decimal = Decimal(0)
    paid: Decimal = Decimal(0)

    @property
    def due(self) -> Decimal:
        """What is to be paid."""
        return self.total + self.freight

    def reached(self, stage: str) -> Order:
        """Return the order at `stage`, or where it is when it is further already, or at a stage of another decider."""
        before = STAGES[: STAGES.index(stage) + 1]
        return replace(self, status=stage) if self.status in before else self


def value(lines: Iterable[OrderLine]) -> Decimal:
    """Return what lines are worth."""
    return sum((line.quantity * line.unit_price for line in lines), Decimal(0))


def decide(command: Command, order: Order) -> Sequence[Event]:
    """Return the events that a command leads to, or raise RuleViolated."""
    match command:
        case PlaceOrder():
            _require("an order is placed once", order, "NEW")
            total = value(command.lines)
            return [OrderPlaced(**dict(command), total=total, freight=Decimal(0))]
        case AddOrderLine():
            _require("only a pending order gets more lines", order, "PENDING")
            total = order.total + value([command.line])
            return [OrderLineAdded(order_id=command.order_id, lines=(command.line,), total=total)]
        case RemoveOrderLine():
            _require("only a pending order loses lines", order, "PENDING")
            return [_removed(command, order)]
        case PayOrder():
            _require("an order is paid once, while it is pending", order, "PENDING")
            if command.amount != order.due:
                raise RuleViolated("an order is paid whole", f"{order.due} due, {command.amount} offered")
            return [OrderPaid(**dict(command))]
        case ShipOrder():
            _require("only a paid order is shipped", order, "PAID")
            return [OrderShipped(**dict(command))]
        case DeliverOrder():
            _require("only a shipped order is delivered", order, "SHIPPED")
            return [OrderDelivered(**dict(command))]
        case CancelOrder():
            _require("only an order that has not been shipped is cancelled", order, "PENDING", "PAID")
            return [OrderCancelled(**dict(command))]
        case RefundOrder():
            amount = order.paid if command.amount is None else command.amount
            if not 0 < amount <= order.paid:
                raise RuleViolated("only what was paid is refunded", f"{order.paid} paid and not refunded yet")
            return [OrderRefunded(order_id=command.order_id, amount=amount, reason=command.reason)]
    raise TypeError(f"orders do not handle {type(command).__name__}")


def evolve(order: Order, event: Event) -> Order:
    """Return the order after an event."""
    order = order.reached("PENDING")  # whatever happened to it, it is there
    match event:
        case OrderPlaced():
            total, freight = event.total or Decimal(0), event.freight or Decimal(0)
            return replace(order, lines=event.lines, total=total, freight=freight)
        case OrderLineAdded():
            return replace(order, lines=order.lines + event.lines, total=event.total)
        case OrderLineRemoved():
            left = tuple(line for line in order.lines if line not in event.removed)
            return replace(order, lines=left, total=event.total)
        case OrderPaid():
            return replace(order.reached("PAID"), paid=order.paid + (event.amount or 0))
        case OrderShipped():
            return order.reached("SHIPPED")
        case OrderDelivered():
            return order.reached("DELIVERED")
        case OrderCancelled():
            return order.reached("CANCELLED")
        case OrderRefunded():
            return replace(order, paid=order.paid - event.amount)
    raise TypeError(f"orders do not know {type(event).__name__}")


def _removed(command: RemoveOrderLine, order: Order) -> Event:
    """The event that takes a product out of an order; the last one stays."""
    removed = tuple(line for line in order.lines if line.product_id == command.product_id)
    products = ", ".join(line.product_id for line in order.lines)
    if not removed:
        raise RuleViolated("only what was ordered is removed", f"the order has {products}")
    if removed == order.lines:
        raise RuleViolated("an order keeps a product; cancel it instead", f"the order has {products}")
    return OrderLineRemoved(order_id=command.order_id, removed=removed, total=order.total - value(removed))


def _require(rule: str, order: Order, *allowed: str) -> None:
    if order.status not in allowed:
        raise RuleViolated(rule, order.status)


orders = Decider(
    category="order",
    key="order_id",
    initial=Order(),
    decide=decide,
    evolve=evolve,
    commands=[
        PlaceOrder, AddOrderLine, RemoveOrderLine, PayOrder, ShipOrder, DeliverOrder, CancelOrder, RefundOrder,
    ],
    events=[
        OrderPlaced, OrderLineAdded, OrderLineRemoved, OrderPaid, OrderShipped, OrderDelivered, OrderCancelled,
        OrderRefunded,
    ],
)  # fmt: skip
