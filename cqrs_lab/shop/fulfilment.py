"""Fulfilment: from a placed order to a parcel, over three kinds of streams.

Declarations only: the state of a process and two pure functions. Reserve every line, charge, ship. Whatever goes wrong
ends in a cancelled order, and a cancelled order is put right in one place, whoever cancelled it: what was reserved is
released, what was charged is given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from cqrs_lab.messages import Command, Event
from cqrs_lab.shop.orders import (
    CancelOrder,
    OrderCancelled,
    OrderLine,
    OrderLineAdded,
    OrderLineRemoved,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    PayOrder,
    RefundOrder,
    ShipOrder,
    value,
)
from cqrs_lab.shop.payments import (
    PaymentDeclined,
    PaymentReturned,
    PaymentTaken,
    PaymentTimedOut,
    ReturnPayment,
    TakePayment,
)
from cqrs_lab.shop.stock import ReleaseStock, ReserveStock, StockReleased, StockReserved
from cqrs_lab.write.sagas import Saga, StepRefused


@dataclass(frozen=True)
class Fulfilment:
    """How far one order has come.

    Attributes:
        order_id: the order.
        due: what the customer owes.
        wanted: reservations that have not been answered yet.
        refused: reservations that were refused, so that the order cannot go on.
        reserved: product -> units kept.
        charged: whether the gateway was asked for money, and may have taken it.
        paid: what the order says was paid, None before; whoever paid.
        over: "shipped" or "cancelled" once it is.
    """

    order_id: str = ""
    due: Decimal = Decimal(0)
    wanted: int = 0
    refused: int = 0
    reserved: Mapping[str, int] = field(default_factory=dict)
    charged: bool = False
    paid: Decimal | None = None
    over: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether all that was ordered is reserved, and the order goes on."""
        return not (self.wanted or self.refused or self.over)


def evolve(state: Fulfilment, event: Event) -> Fulfilment:
    """Return the state after an event."""
    match event:
        case OrderPlaced():
            due = (event.total or Decimal(0)) + (event.freight or Decimal(0))
            return replace(state, order_id=event.order_id, due=due, wanted=len(_units(event.lines)))
        case OrderLineAdded():
            return replace(state, due=state.due + value(event.lines), wanted=state.wanted + len(_units(event.lines)))
        case OrderLineRemoved():
            return replace(state, due=state.due - value(event.removed))
        case StockReserved():
            held = state.reserved.get(event.product_id, 0) + event.quantity
            return replace(state, wanted=state.wanted - 1, reserved={**state.reserved, event.product_id: held})
        case StockReleased():
            held = state.reserved.get(event.product_id, 0) - event.quantity
            return replace(state, reserved={**state.reserved, event.product_id: held})
        case StepRefused(command="ReserveStock"):
            return replace(state, wanted=state.wanted - 1, refused=state.refused + 1)
        case PaymentTaken() | PaymentTimedOut():
            return replace(state, charged=True)
        case OrderPaid():
            return replace(state, paid=event.amount or Decimal(0))
        case OrderShipped():
            return replace(state, over="shipped")
        case OrderCancelled():
            return replace(state, over="cancelled")
    return state


def react(state: Fulfilment, event: Event) -> Sequence[Command]:
    """Return the next steps, given the state after an event."""
    order = state.order_id
    match event:
        case OrderPlaced() | OrderLineAdded():
            return [ReserveStock(product_id=p, order_id=order, quantity=n) for p, n in _units(event.lines).items()]
        case OrderLineRemoved():
            return [ReleaseStock(product_id=p, order_id=order, quantity=n) for p, n in _units(event.removed).items()]
        case StepRefused(command="PayOrder" | "CancelOrder") if _is_paid_twice(state):
            return [ReturnPayment(order_id=order)]
        case StepRefused(command="ReserveStock") if state.refused > 1:  # the first has cancelled the order
            return []
        case StepRefused(command="ReserveStock" | "TakePayment" | "PayOrder"):
            return [] if state.over else [CancelOrder(order_id=order, reason=f"{event.about}: {event.rule}")]
        case StockReserved() if state.over == "cancelled":  # the answer came too late
            return [ReleaseStock(product_id=event.product_id, order_id=order, quantity=event.quantity)]
        case StockReserved() if state.is_complete:
            if state.paid is not None:
                return [_ship(order)]
            # Once charged, what became of that is still to come: another line that was reserved is no second charge.
            return [] if state.charged else [TakePayment(order_id=order, amount=state.due)]
        case PaymentTaken() | PaymentTimedOut() if state.over == "cancelled":
            return [ReturnPayment(order_id=order)]
        case PaymentTaken():
            return [PayOrder(order_id=order, amount=event.amount)]
        case PaymentDeclined():
            return [] if state.over else [CancelOrder(order_id=order, reason=event.reason)]
        case PaymentTimedOut():
            return [CancelOrder(order_id=order, reason="the payment gateway did not answer")]
        case OrderPaid() if state.is_complete:
            return [_ship(order)]
        case OrderCancelled():
            released = [ReleaseStock(product_id=p, order_id=order) for p, n in state.reserved.items() if n]
            return [*released, *([ReturnPayment(order_id=order)] if state.charged else [])]
        case PaymentReturned() if state.paid and state.over == "cancelled":
            return [RefundOrder(order_id=order, reason="the order was cancelled")]
    return []


def _is_paid_twice(state: Fulfilment) -> bool:
    """Whether an order that goes on was paid by other means, while the gateway was asked for money."""
    return state.charged and state.paid is not None and state.over != "cancelled"


def _units(lines: Iterable[OrderLine]) -> dict[str, int]:
    """Product -> units ordered."""
    units: dict[str, int] = {}
    for line in lines:
        units[line.product_id] = units.get(line.product_id, 0) + line.quantity
    return units


def _ship(order: str) -> Command:
    return ShipOrder(order_id=order, tracking_number=f"parcel-{order}")


fulfilment = Saga(
    name="fulfilment",
    key="order_id",
    events=[
        OrderPlaced, OrderLineAdded, OrderLineRemoved, OrderPaid, OrderShipped, OrderCancelled,
        StockReserved, StockReleased,
        PaymentTaken, PaymentDeclined, PaymentTimedOut, PaymentReturned,
    ],
    initial=Fulfilment(),
    evolve=evolve,
    react=react,
)  # fmt: skip
