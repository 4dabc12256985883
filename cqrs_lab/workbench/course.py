"""The course: what its notebooks need beside the package: what repeats, what fails on demand, checks of exercises.

Owns nothing of a lab. A check tries what a learner wrote and says in one line each what holds and what does not yet.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal, TypedDict
from uuid import UUID

from cqrs_lab.app import Domain, Lab, open_shop
from cqrs_lab.database import MEMORY
from cqrs_lab.errors import RuleViolated
from cqrs_lab.messages import Command, Event
from cqrs_lab.shop import (
    DeliverOrder,
    OrderDelivered,
    OrderLine,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    PaymentGateway,
    PayOrder,
    PlaceOrder,
    ShipOrder,
    StockProduct,
    orders,
)
from cqrs_lab.write.decider import Decider
from cqrs_lab.write.middleware import Envelope, Middleware, Proceed, Receipt
from cqrs_lab.write.sagas import Saga


class Repeatable(TypedDict):
    """A clock and ids for `open_shop`."""

    clock: Callable[[], datetime]
    new_id: Callable[[], UUID]


def repeatable(start: datetime = datetime(2026, 1, 5, 9, tzinfo=UTC)) -> Repeatable:
    """Return a clock that moves a minute at each look, and ids that count: `open_shop(**repeatable())`.

    Args:
        start: what the clock shows first, aware.
    """
    minutes, numbers = iter(range(10**9)), iter(range(1, 10**9))
    return {
        "clock": lambda: start + timedelta(minutes=next(minutes)),
        "new_id": lambda: UUID(int=next(numbers)),
    }


class PowerCut(Exception):
    """The power went; nothing that was under way is finished."""


def power_cut(step: int, moment: Literal["before", "after"] = "before") -> Middleware:
    """Return middleware that cuts the power once, at the n-th command that a saga sends.

    Args:
        step: which command of a saga, counted from 1.
        moment: before the command is carried out, or after its events are stored and before the saga learns of it.
    """
    numbers = count(1)

    def power_cut(envelope: Envelope, proceed: Proceed) -> Receipt:
        # Nobody but a saga names the event that led to a command.
        cut = envelope.causation_id is not None and next(numbers) == step
        what = f"the power went {moment} step {step}, {type(envelope.command).__name__} on {envelope.stream}"
        if cut and moment == "before":
            raise PowerCut(what)
        receipt = proceed(envelope)
        if cut:
            raise PowerCut(what)
        return receipt

    return power_cut


def stocked_shop(
    units: Mapping[str, int],
    gateway: PaymentGateway | None = None,
    *middleware: Middleware,
    path: str | os.PathLike[str] = MEMORY,
) -> Lab:
    """Return a repeatable shop with goods on its shelves and fulfilment at work.

    Args:
        units: product -> units on the shelf.
        gateway: what takes payments; a simulated one that approves when None.
        middleware: what else happens around every command.
        path: of a new store; in memory when not given.
    """
    with open_shop(gateway=gateway) as plain:
        domain = replace(plain.domain, middleware=middleware)
    lab = Lab(path, domain=domain, **repeatable())
    lab.send_many([StockProduct(product_id=product, quantity=quantity) for product, quantity in units.items()])
    lab.follow("fulfilment")
    return lab


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        lines: one for each thing that was tried.
        passed: whether all of it holds.
    """

    lines: tuple[str, ...]
    passed: bool

    def __repr__(self) -> str:
        return "\n".join([*self.lines, "All done." if self.passed else "Not there yet: mend the first line with ✗."])


def check_returns(decider: Decider, command: Callable[..., Command], event: Callable[..., Event]) -> Checked:
    """Check the exercise of notebook 01: an order that was delivered can be sent back, once.

    Args:
        decider: the learner's decider of orders.
        command: the command ReturnOrder(order_id, reason).
        event: the event OrderReturned(order_id, reason).
    """
    before = [
        OrderPlaced(order_id="o-1"),
        OrderPaid(order_id="o-1"),
        OrderShipped(order_id="o-1"),
        OrderDelivered(order_id="o-1"),
    ]
    ask = command(order_id="o-1", reason="too small")

    def tries() -> Iterator[tuple[str, str | None]]:
        delivered = decider.fold(before)
        yield "a delivered order can be returned", _leads_to(decider, ask, delivered)
        yield "a shipped order cannot be returned yet", _refused(decider, ask, decider.fold(before[:3]))
        yield "an order that was never placed cannot be returned", _refused(decider, ask, decider.initial)
        returned = decider.fold([event(order_id="o-1", reason="too small")], delivered)
        yield (
            "evolve() remembers the return",
            "the state is the same before and after OrderReturned" if returned == delivered else None,
        )
        yield "an order is returned once", _refused(decider, ask, returned)

    return _checked(tries())


def check_thanks(saga: Saga, loyalty: Decider) -> Checked:
    """Check the exercise of notebook 07: a delivered order brings its customer a point for each whole euro, once.

    Args:
        saga: the learner's saga over OrderPlaced and OrderDelivered.
        loyalty: the decider that carries out GivePoints(customer_id, order_id, points), in category "loyalty".
    """

    def shop(*middleware: Middleware) -> Lab:
        lab = Lab(domain=Domain([orders, loyalty], sagas=[saga], middleware=middleware), **repeatable())
        lab.follow(saga)
        for id, price in (("1", "19.98"), ("2", "5.00")):
            line = OrderLine(product_id="p-1", quantity=1, unit_price=price)
            lab.send(PlaceOrder(order_id=f"o-{id}", customer_id=f"c-{id}", lines=(line,)))
            lab.send(PayOrder(order_id=f"o-{id}", amount=price))
            lab.send(ShipOrder(order_id=f"o-{id}", tracking_number=f"T-{id}"))
        return lab

    def tries() -> Iterator[tuple[str, str | None]]:
        state = saga.initial
        for event in (OrderPlaced(order_id="o-1", customer_id="c-1", total="19.98"), OrderDelivered(order_id="o-1")):
            state = saga.evolve(state, event)
            answer, what = saga.react(state, event), f"react() gives a list for {type(event).__name__}"
            if not isinstance(answer, (list, tuple)):
                yield what, f"it gave {answer!r}; a list of commands, or an empty one"
                return
            yield what, None
        with shop() as lab:
            lab.catch_up()
            yield "nobody is thanked before the parcel is there", _points(lab)
            lab.send(DeliverOrder(order_id="o-2"))
            lab.catch_up()
            yield "the customer of a delivered order is thanked", _points(lab, "5 to c-2 for o-2")
            lab.send(DeliverOrder(order_id="o-1"))
            lab.catch_up()
            problem = _points(lab, "5 to c-2 for o-2", "19 to c-1 for o-1")
            yield "every customer gets the points of the own order", problem
        with shop(power_cut(1, "after")) as lab:
            lab.send(DeliverOrder(order_id="o-1"))
            with suppress(PowerCut):
                lab.catch_up()
            lab.catch_up()
            yield "after a power cut nobody is thanked twice", _points(lab, "19 to c-1 for o-1")

    return _checked(tries())


def _points(lab: Lab, *expected: str) -> str | None:
    """Say what is wrong with the points that were given so far."""
    given = [json.loads(event["data"]) for event in lab.events(category="loyalty").dicts()]
    found = [f"{e['points']} to {e['customer_id']} for {e['order_id']}" for e in given]
    said, wanted = ", then ".join(found), ", then ".join(expected)
    return None if said == wanted else f"the points given are {said or 'none'}; it should be {wanted or 'none'}"


def _checked(tries: Iterator[tuple[str, str | None]]) -> Checked:
    lines = []
    passed = True
    for what, problem in _safely(tries):
        passed = passed and problem is None
        lines.append(f"✓ {what}" if problem is None else f"✗ {what}: {problem}")
    return Checked(tuple(lines), passed)


def _safely(tries: Iterator[tuple[str, str | None]]) -> Iterator[tuple[str, str | None]]:
    try:
        yield from tries
    except Exception as error:
        yield "your functions run", f"{type(error).__name__}: {error}"


def _leads_to(decider: Decider, command: Command, state: Any) -> str | None:
    try:
        events = decider.decide(command, state)
    except RuleViolated as error:
        return f"decide() refused it: {error.rule!r}"
    if not isinstance(events, (list, tuple)):
        return f"decide() gave {events!r}; it gives a list of events"
    kinds = [type(e).__name__ for e in events]
    return None if kinds == ["OrderReturned"] else f"decide() gave {kinds}, not ['OrderReturned']"


def _refused(decider: Decider, command: Command, state: Any) -> str | None:
    try:
        events = decider.decide(command, state)
    except RuleViolated:
        return None
    kinds = [type(e).__name__ for e in events] if isinstance(events, (list, tuple)) else events
    return f"decide() gave {kinds}; raise RuleViolated(rule, state)"
