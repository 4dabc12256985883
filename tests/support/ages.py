"""The shop as it declared its events in earlier and later ages."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, ClassVar

from hypothesis import strategies as st

from cqrs_lab import Command, Decider, Domain, Event, Lab, ReadModel
from cqrs_lab.messages import Id, Money, Upcasts
from cqrs_lab.shop import (
    OrderCancelled,
    OrderLine,
    OrderLineAdded,
    OrderLineRemoved,
    OrderPaid,
    OrderPlaced,
    OrderRefunded,
    OrderShipped,
    daily_orders,
    order_summary,
    orders,
)
from cqrs_lab.shop.orders import value
from support import lines, maybe, minutes, money
from support.histories import CHARACTERS


class First:
    """The shop as it began: the customer's column has another name, the freight is inside the total."""

    class OrderPlaced(Event):
        """An order was placed."""

        order_id: Id
        customer: Id | None = None
        lines: tuple[OrderLine, ...] = ()
        total: Money | None = None

    class OrderPaid(Event):
        """An order was paid."""

        order_id: Id
        amount: Money | None = None


class Second:
    """The shop a year later."""

    class OrderPlaced(Event):
        """An order was placed."""

        schema_version: ClassVar[int] = 2
        upcasts: ClassVar[Upcasts] = {1: {"customer_id": "customer"}}

        order_id: Id
        customer_id: Id | None = None
        lines: tuple[OrderLine, ...] = ()
        total: Money | None = None

    OrderPaid = First.OrderPaid


class Fourth:
    """The shop as it is to be: more than this version of the program knows."""

    class OrderPlaced(OrderPlaced):
        """An order was placed."""

        schema_version: ClassVar[int] = 4
        upcasts: ClassVar[Upcasts] = {**OrderPlaced.upcasts, 3: {}}


def decider(category: str, key: str, events: Sequence[type[Event]], commands: Sequence[type[Command]] = ()) -> Decider:
    """Return a decider whose state is the events themselves."""
    return Decider(category, key, (), lambda command, state: [], lambda state, e: (*state, e), commands, events)


def lab_of(path: Any, category: str, key: str, *events: type[Event], read_models: Sequence[ReadModel] = ()) -> Lab:
    """Open a store with a domain of these events."""
    return Lab(path, domain=Domain(deciders=[decider(category, key, events)], read_models=read_models), threads=1)


def shop_of(path: Any, age: type) -> Lab:
    """Open a store as the shop of an earlier or later age, without read models."""
    kinds = [kind for kind in vars(age).values() if isinstance(kind, type) and issubclass(kind, Event)]
    return lab_of(path, "order", "order_id", *kinds, OrderShipped, OrderCancelled)


def stored(lab: Lab, category: str, id: str) -> list[Event]:
    """Return the events of one stream."""
    return [recorded.event for recorded in lab._log.read(lab._categories[category], id)]


def state(lab: Lab, order_id: str) -> Any:
    """Return the state on which a command about an order is decided."""
    return orders.fold(recorded.event for recorded in lab._log.read(orders.log_category, order_id))


def aged(event: Event, age: type) -> Event:
    """Return how an earlier shop would have told an event of today."""
    match event:
        case OrderPlaced():
            total = None if event.freight is None else event.total + event.freight
            name = "customer" if age is First else "customer_id"
            fields = {"order_id": event.order_id, "lines": event.lines, "total": total, name: event.customer_id}
            return age.OrderPlaced(**fields)
        case OrderPaid():
            return age.OrderPaid(order_id=event.order_id, amount=event.amount)
    return event


def placed(order_id: str, customer_id: str | None, lines: list[OrderLine], freight: Decimal | None) -> OrderPlaced:
    """Return an order whose total is the value of its lines."""
    return OrderPlaced(order_id=order_id, customer_id=customer_id, lines=lines, total=value(lines), freight=freight)


few = st.sampled_from(["o-1", "o-2", "ö/4"])
customer = st.sampled_from(["c-1", "c-2", "C'3"]) | maybe
old_events = st.one_of(
    st.builds(placed, few, customer, lines, money | maybe),
    st.builds(OrderPaid, order_id=few, amount=money | maybe, method=st.just("card")),
    st.builds(OrderShipped, order_id=few, tracking_number=st.text(CHARACTERS, min_size=1, max_size=3)),
    st.builds(OrderCancelled, order_id=few, reason=st.just("changed my mind") | maybe),
)
new_events = st.one_of(
    old_events,
    st.builds(OrderPlaced, order_id=few, customer_id=customer, lines=lines, total=money | maybe, freight=money | maybe),
    st.builds(OrderPaid, order_id=few, amount=money, method=st.sampled_from(["voucher"]) | maybe),
    st.builds(OrderLineAdded, order_id=few, lines=lines, total=money),
    st.builds(OrderLineRemoved, order_id=few, removed=lines, total=money),
    st.builds(OrderRefunded, order_id=few, amount=money, reason=maybe),
)
part = st.lists(st.tuples(old_events, minutes), max_size=6)
last = st.lists(st.tuples(new_events, minutes), max_size=6)


def equal_stores(mixed: Lab, plain: Lab) -> None:
    """Assert that streams, states and read models of two stores are equal, as of the head and of every moment."""
    assert mixed.head == plain.head
    for order_id in ("o-1", "o-2", "ö/4"):
        assert state(mixed, order_id) == state(plain, order_id)
        assert stored(mixed, "order", order_id) == stored(plain, "order", order_id)
    for model in (*MODELS, BY_CUSTOMER):
        expected = plain.serve(model, "view").rows().fetchall()
        for way in ("view", "materialized", "projection"):
            assert mixed.serve(model, way).rows().fetchall() == expected
        for position in range(mixed.head + 1):
            then = plain.as_of(position=position).rows(model).fetchall()
            assert mixed.as_of(position=position).rows(model).fetchall() == then


MODELS = (order_summary, daily_orders)
BY_CUSTOMER = ReadModel(
    "by_customer",
    "customer_id",
    """SELECT customer_id, count(*) AS orders, sum(total) AS total, sum(freight) AS freight
       FROM order_events WHERE customer_id IS NOT NULL GROUP BY customer_id""",
)
