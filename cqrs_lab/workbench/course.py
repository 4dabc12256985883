"""The course: what its notebooks need beside the package: what repeats, what fails on demand, checks of exercises.

Owns nothing of a lab. A check tries what a learner wrote and says in one line each what holds and what does not yet.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from statistics import median
from textwrap import dedent
from time import perf_counter
from typing import Any, Literal, TypedDict
from uuid import UUID

from cqrs_lab.app import Lab, open_shop
from cqrs_lab.database import MEMORY, Database, Row
from cqrs_lab.domain import Domain
from cqrs_lab.errors import RuleViolated
from cqrs_lab.messages import Command, Event, Money
from cqrs_lab.read.models import ReadModel
from cqrs_lab.read.time_travel import Past
from cqrs_lab.shop import (
    AddOrderLine,
    CancelOrder,
    DeliverOrder,
    OrderDelivered,
    OrderDetails,
    OrderLine,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    PaymentGateway,
    PayOrder,
    PlaceOrder,
    RefundOrder,
    ShipOrder,
    StockProduct,
    order_summary,
    orders,
)
from cqrs_lab.shop.orders import value
from cqrs_lab.workbench.workload import Workload, generate
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


def median_ms(action: Callable[[int], object], runs: int = 20) -> float:
    """Return how many milliseconds an action takes: the median of some runs, each of which is told its number."""
    taken = []
    for number in range(runs):
        start = perf_counter()
        action(number)
        taken.append(perf_counter() - start)
    return median(taken) * 1000


def run_apart(function: Callable[..., object], *arguments: object) -> int:
    """Run a function in a process of its own, which need not live to its end.

    Args:
        function: stands on its own: it imports what it uses.
        arguments: strings, numbers and the like.

    Returns:
        The exit code: 0 when the function came to its end, -9 when it was killed.

    Raises:
        RuntimeError: the function failed; with what it said.
    """
    code = f"{dedent(inspect.getsource(function))}\n{function.__name__}(*{arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 1:
        raise RuntimeError(done.stderr)
    return done.returncode


def die_before_checkpoint() -> None:
    """Have this process killed at the next move of a projection: its rows are written, its checkpoint is not."""
    execute = Database.execute

    def dying(self: Database, sql: str, params: Sequence[object] = ()) -> list[Row]:
        if sql.startswith(("UPDATE servings", "INSERT OR REPLACE INTO servings")):
            os.kill(os.getpid(), 9)
        return execute(self, sql, params)

    Database.execute = dying  # type: ignore[method-assign]


def early_shop(path: str | os.PathLike[str]) -> Lab:
    """Return the shop as it was in its first year; close it before the shop of today opens its store.

    Its `OrderPlaced` and `OrderPaid` are of version 1: the customer has another name, goods and freight are one sum,
    and nothing says how an order was paid.
    """

    class OrderPlaced(Event):
        """An order was placed."""

        order_id: str
        customer: str
        lines: tuple[OrderLine, ...]
        total: Money

    class OrderPaid(Event):
        """An order was paid."""

        order_id: str
        amount: Money

    def decide(command: Command, events: tuple[Event, ...]) -> list[Event]:
        if isinstance(command, PayOrder):
            return [OrderPaid(order_id=command.order_id, amount=command.amount)]
        assert isinstance(command, PlaceOrder)
        total = value(command.lines) + Decimal("4.90")  # the freight
        return [OrderPlaced(order_id=command.order_id, customer=command.customer_id, lines=command.lines, total=total)]

    commands: list[type[Command]] = [PlaceOrder, PayOrder]
    events: list[type[Event]] = [OrderPlaced, OrderPaid]
    decider = Decider("order", "order_id", (), decide, lambda state, event: (*state, event), commands, events)
    clock = repeatable(datetime(2023, 1, 2, 9, tzinfo=UTC))["clock"]
    return Lab(path, domain=Domain([decider]), clock=clock)


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


def check_cancellations(model: ReadModel) -> Checked:
    """Check the exercise of notebook 03: for each reason, how many orders were cancelled and what they were worth.

    Args:
        model: the learner's read model "cancellations": reason (the key), orders, value.
    """

    def tries() -> Iterator[tuple[str, str | None]]:
        yield "its key is reason", None if model.keys == ("reason",) else f"it is {', '.join(model.keys)}"
        with open_shop(**repeatable()) as lab:
            generate(lab, Workload(orders=300, seed=11))
            view = lab.serve(model, "view")
            columns = ", ".join(view.rows().columns)
            yield "its columns are reason, orders, value", None if columns == _CANCELLED else f"they are {columns}"
            if columns != _CANCELLED:
                return
            problem = _cancelled(lab, view.rows().fetchall())
            yield "it says what plain Python says", problem
            if problem:
                return
            served = lab.serve(model)
            line = OrderLine(product_id="p-0001", quantity=1, unit_price="25.90")
            lab.send(AddOrderLine(order_id="o-00000011", line=line))
            lab.send(CancelOrder(order_id="o-00000011", reason="takes too long"))
            lab.send(CancelOrder(order_id="o-00000002", reason="moved house"))
            yield "more lines and more reasons are counted", _cancelled(lab, view.rows().fetchall())
            lab.send(RefundOrder(order_id="o-00000002", reason="we are sorry"))
            yield "a refund is not a cancellation", _cancelled(lab, view.rows().fetchall())
            served.catch_up()
            same = served.rows().fetchall() == view.rows().fetchall()
            yield "the projection follows", None if same else "its rows are not those of the view"

    return _checked(tries())


_CANCELLED = "reason, orders, value"


def _cancelled(lab: Lab, rows: list[Row]) -> str | None:
    """Say what is wrong with rows of cancellations; what is right follows from the events, one by one."""
    totals: dict[str, Decimal] = {}
    expected: dict[str, tuple[int, Decimal]] = {}
    for event in lab.events(category="order").dicts():
        data = json.loads(event["data"], parse_float=Decimal, parse_int=Decimal)
        order = data["order_id"]
        totals[order] = data.get("total", totals.get(order))
        if event["type"] == "OrderCancelled":
            orders, worth = expected.get(data["reason"], (0, Decimal(0)))
            expected[data["reason"]] = (orders + 1, worth + totals[order])
    found = {reason: tuple(more) for reason, *more in rows}
    for reason in found.keys() - expected.keys():
        return f"there is a row for {reason!r}, for which no order was cancelled"
    for reason, (orders, worth) in sorted(expected.items()):
        if found.get(reason) != (orders, worth):
            said = "{} orders worth {}".format(*found[reason]) if reason in found else "not there"
            return f"{reason!r} is {said}; it should be {orders} orders worth {worth:.2f}"
    return None if len(rows) == len(found) else "a reason has more than one row"


def check_first_position(find: Callable[[Lab, Callable[[Past], bool]], int | None]) -> Checked:
    """Check the exercise of notebook 05: the first position at which something holds, found with few questions.

    Args:
        find: the learner's function of a lab and of what takes a past and says whether it holds.
    """
    asked: list[int] = []

    def found(first: int | None) -> str | None:
        def holds(past: Past) -> bool:
            asked.append(past.position)
            if len(asked) > 1_000:
                raise RuntimeError("a thousand questions, and no end; what is left has to become smaller with each")
            return first is not None and past.position >= first

        asked.clear()
        answer = find(lab, holds)
        return None if answer == first else f"the answer is {answer!r}; it should be {first!r}"

    def tries() -> Iterator[tuple[str, str | None]]:
        yield "what holds from position 60 on is found", found(60)
        many = f"{len(asked)} questions for {lab.head} positions; ask in the middle of what is left, and 10 are enough"
        yield "few questions are asked", many if len(asked) > 10 else None
        yield "what held before the first event holds from position 0 on", found(0)
        yield "what holds at the head alone is found", found(lab.head)
        yield "what never holds has no position: None", found(None)
        problems = (found(first) for first in range(lab.head + 1))
        yield "every other position is found", next((problem for problem in problems if problem), None)

    with open_shop(**repeatable()) as lab:
        lab.send_many([StockProduct(product_id=f"p-{n}", quantity=1) for n in range(1, 101)])
        return _checked(tries())


def check_own_write(function: Callable[..., Any]) -> Checked:
    """Check the exercise of notebook 06: a page that shows what was just written, or how far it is.

    Args:
        function: the learner's read_own_write(lab, command, query, patience). It returns {"state": "done", "row": …},
            or {"state": "working", "row": what is known so far, "position": …, "of": …}.
    """
    line = OrderLine(product_id="p-1", quantity=2, unit_price="9.99")
    pay, query = PayOrder(order_id="o-1", amount="19.98"), OrderDetails(order_id="o-1")

    def late(every: int | timedelta) -> Lab:
        lab = open_shop(**repeatable())
        lab.send(PlaceOrder(order_id="o-1", customer_id="c-1", lines=(line,)))
        lab.serve(order_summary, "materialized", refresh_every=every)
        return lab

    def tries() -> Iterator[tuple[str, str | None]]:
        with late(timedelta(seconds=1)) as lab:
            # The table is refreshed for this one, and then not for a second.
            other = PlaceOrder(order_id="o-2", customer_id="c-2", lines=(line,))
            lab.send(other, wait_for=order_summary)
            yield "what comes in time is waited for", _shown(function(lab, pay, query, 5), "done", "PAID")
            paid = lab.events(stream="order/o-1").fetchall()[1:]
            problem = None if len(paid) == 1 else f"the order has {len(paid)} events after the first, not 1"
            yield "the command is sent, once", problem
        with late(1_000) as lab:
            start = perf_counter()
            found = function(lab, pay, query, 0.1)
            took = perf_counter() - start
            yield "when patience ends, the page shows what it knows", _shown(found, "working", "PENDING")
            known = {name: dict(found or {}).get(name) for name in ("position", "of")}
            wanted = {"position": 1, "of": 2}
            yield "and says how far it is", None if known == wanted else f"it says {known}; it should be {wanted}"
            yield "patience is as long as it was told", None if took < 3 else f"0.1 s became {took:.1f} s"
        with late(1_000) as lab:
            cheap = PayOrder(order_id="o-1", amount="1.00")
            try:
                found = function(lab, cheap, query, 0.1)
                yield "a refusal is told, not shown as a delay", f"it returned {found!r}; let RuleViolated pass"
            except RuleViolated:
                yield "a refusal is told, not shown as a delay", None

    return _checked(tries())


def _shown(found: Any, state: str, status: str) -> str | None:
    """Say what is wrong with what a page shows of an order."""
    if not isinstance(found, dict) or not {"state", "row"} <= found.keys() or not isinstance(found["row"], dict):
        return f'it returned {found!r}; a dict with "state" and "row"'
    said, wanted = (found["state"], found["row"].get("status")), (state, status)
    return None if said == wanted else f"it says {said[0]!r} and shows {said[1]}; it should be {state!r} and {status}"


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
