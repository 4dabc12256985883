"""A solution of the exercise in notebook 01: an order that was delivered can be sent back, once."""

from dataclasses import replace

from cqrs_lab import Command, Decider, Event
from cqrs_lab.errors import RuleViolated
from cqrs_lab.shop import orders
from cqrs_lab.workbench.checks import check_returns


class ReturnOrder(Command):
    """Send a delivered order back."""

    order_id: str
    reason: str


class OrderReturned(Event):
    """An order came back."""

    order_id: str
    reason: str


def decide(command, order):
    """Return the events that follow from a command."""
    if isinstance(command, ReturnOrder):
        if order.status != "DELIVERED":
            raise RuleViolated("only a delivered order is returned", order.status)
        return [OrderReturned(order_id=command.order_id, reason=command.reason)]
    return orders.decide(command, order)


def evolve(order, event):
    """Return the order after an event."""
    if isinstance(event, OrderReturned):
        return replace(order, status="RETURNED")
    return orders.evolve(order, event)


my_orders = Decider(
    category="order",
    key="order_id",
    initial=orders.initial,
    decide=decide,
    evolve=evolve,
    commands=[*orders.commands, ReturnOrder],
    events=[*orders.events, OrderReturned],
)
result = check_returns(my_orders, ReturnOrder, OrderReturned)
