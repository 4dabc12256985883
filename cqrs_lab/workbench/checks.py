"""The checks of the exercises: each tries what a learner wrote and says in one line each what holds, what not yet.

Owns what is tried and what would be right, in the order of the notebooks.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isclose
from typing import Any

import polars as pl

from cqrs_lab.app import Lab, open_shop
from cqrs_lab.domain import Domain
from cqrs_lab.errors import RuleViolated
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.messages import Command, Event
from cqrs_lab.read.past import Past
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
    PayOrder,
    PlaceOrder,
    RefundOrder,
    ShipOrder,
    StockProduct,
    order_summary,
    orders,
)
from cqrs_lab.store.database import Row
from cqrs_lab.workbench.advice import advise
from cqrs_lab.workbench.course import PowerCut, power_cut, repeatable
from cqrs_lab.workbench.workload import Workload, generate
from cqrs_lab.write.decider import Decider
from cqrs_lab.write.middleware import Middleware
from cqrs_lab.write.sagas import Saga

Tries = Iterator[tuple[str, str | None]]
"""What was tried, and what is wrong with it: None when it holds."""


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


def _checked(tries: Tries) -> Checked:
    lines = []
    passed = True
    for what, problem in _safely(tries):
        passed = passed and problem is None
        lines.append(f"✓ {what}" if problem is None else f"✗ {what}: {problem}")
    return Checked(tuple(lines), passed)


def _safely(tries: Tries) -> Tries:
    try:
        yield from tries
    except Exception as error:
        yield "your functions run", f"{type(error).__name__}: {error}"


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

    def tries() -> Tries:
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


def sales() -> pl.DataFrame:
    """Return the table of a bookshop in Lisbon: one row for each order, local times, an order called off."""
    return pl.DataFrame(
        {
            "number": [1, 2, 3],
            "buyer": ["Ines", "Rui", "Ines"],
            "ordered": ["2025-03-29 23:50", "2025-03-30 00:40", "2025-03-30 02:30"],
            "sum": [Decimal("24.00"), Decimal("18.50"), Decimal("7.25")],
            "money_came": ["2025-03-30 00:10", "2025-03-30 09:00", None],
            "left_us": ["2025-03-31 16:00", None, None],
            "called_off": [None, None, "2025-03-30 12:00"],
            "because": [None, None, "ordered twice"],
        }
    )


def check_import(events: Any) -> Checked:
    """Check that `sales` became events.

    Args:
        events: the learner's table for append_table.
    """

    def tries() -> Tries:
        with open_shop() as lab:
            lab.append_table("order", events)
            yield "the log takes it", None
            rows = {row["order_id"]: row for row in lab.serve(order_summary, "view").rows().dicts()}
            yield "three orders came in", None if set(rows) == set("123") else f"the orders are {', '.join(rows)}"
            wanted: dict[str, tuple[Any, ...]] = {
                "status": ("SHIPPED", "PAID", "CANCELLED"),
                "customer_id": ("Ines", "Rui", "Ines"),
                "total": (Decimal("24.00"), Decimal("18.50"), Decimal("7.25")),
                "paid": (Decimal("24.00"), Decimal("18.50"), Decimal("0.00")),
                # The clocks of Lisbon went forward at one o'clock UTC.
                "created_at": tuple(
                    datetime(2025, 3, *at, tzinfo=UTC) for at in ((29, 23, 50), (30, 0, 40), (30, 1, 30))
                ),
            }
            for column, values in wanted.items():
                found = tuple(rows[order][column] for order in "123")
                wrong = next((n for n in range(3) if found[n] != values[n]), None)
                problem = (
                    f"of order {wrong + 1} it is {found[wrong]}, not {values[wrong]}" if wrong is not None else None
                )
                yield f"{column} is right", problem
            reasons = [
                r
                for (r,) in lab.as_of(position=lab.head)
                .sql("SELECT reason FROM order_events WHERE type = 'OrderCancelled'")
                .fetchall()
            ]
            yield "it is known why", None if reasons == ["ordered twice"] else f"the reasons are {reasons}"

    return _checked(tries())


def check_cancellations(model: ReadModel) -> Checked:
    """Check the exercise of notebook 03: for each reason, how many orders were cancelled and what they were worth.

    Args:
        model: the learner's read model "cancellations": reason (the key), orders, value.
    """

    def tries() -> Tries:
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


def check_break_even(function: Callable[[float, float, float], float | None]) -> Checked:
    """Check the exercise of notebook 04: from how many reads per refresh on a materialized table pays.

    Args:
        function: the learner's break_even(view_ms, table_ms, refresh_ms); None where it never pays.
    """
    cases: dict[str, tuple[tuple[float, float, float], float | None]] = {
        "40 ms of refresh that save 8 ms with each read pay from 5 reads on": ((10.0, 2.0, 40.0), 5.0),
        "a refresh that costs nothing pays at once": ((10.0, 2.0, 0.0), 0.0),
        "small numbers are as good": ((0.3, 0.25, 1.0), 20.0),
        "a table as slow as the view never pays: None": ((5.0, 5.0, 10.0), None),
        "a slower table never pays either": ((2.0, 5.0, 10.0), None),
    }

    def tries() -> Tries:
        for what, (numbers, right) in cases.items():
            found = function(*numbers)
            is_right = found is right if None in (found, right) else isclose(found, right)  # type: ignore[arg-type]
            yield what, None if is_right else f"break_even{numbers} is {found!r}; it should be {right!r}"

    return _checked(tries())


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

    def tries() -> Tries:
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

    def tries() -> Tries:
        with late(timedelta(seconds=1)) as lab:
            # The table is refreshed for this one, and then not for a second.
            other = PlaceOrder(order_id="o-2", customer_id="c-2", lines=(line,))
            lab.send(other, wait_for=order_summary, timeout=60)
            yield "what comes in time is waited for", _shown(function(lab, pay, query, 60), "done", "PAID")
            paid = lab.events(stream="order/o-1").fetchall()[1:]
            problem = None if len(paid) == 1 else f"the order has {len(paid)} events after the first, not 1"
            yield "the command is sent, once", problem
        with late(1_000) as lab:
            waits = _waits(lab)
            found = function(lab, pay, query, 0.1)
            yield "when patience ends, the page shows what it knows", _shown(found, "working", "PENDING")
            known = {name: dict(found or {}).get(name) for name in ("position", "of")}
            wanted = {"position": 1, "of": 2}
            yield "and says how far it is", None if known == wanted else f"it says {known}; it should be {wanted}"
            longest = max(waits, default=0.0)
            problem = None if longest <= 0.1 else f"0.1 s became {longest:g} s"
            yield "patience is as long as it was told", problem
        with late(1_000) as lab:
            cheap = PayOrder(order_id="o-1", amount="1.00")
            try:
                found = function(lab, cheap, query, 0.1)
                yield "a refusal is told, not shown as a delay", f"it returned {found!r}; let RuleViolated pass"
            except RuleViolated:
                yield "a refusal is told, not shown as a delay", None

    return _checked(tries())


def _waits(lab: Lab) -> list[float]:
    """Return a list that gets the seconds for which a lab is told to wait, from now on."""
    waits: list[float] = []

    def noting(call: Callable[..., Any]) -> Callable[..., Any]:
        default = inspect.signature(call).parameters["timeout"].default

        def noted(*given: Any, **more: Any) -> Any:
            if more.get("at_least") is not None or more.get("wait_for") is not None:
                waits.append(more.get("timeout", default))
            return call(*given, **more)

        return noted

    for name in ("send", "ask"):
        setattr(lab, name, noting(getattr(lab, name)))
    return waits


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

    def tries() -> Tries:
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


def check_decision(frame: pl.DataFrame, load: Mapping[str, Any], choice: str, tipping: float) -> Checked:
    """Check the exercise of notebook 08: a load of the learner's own, a serving for it, and where that would change.

    Args:
        frame: of `compare_sizes`, with costs.
        load: reads, writes, events, staleness and question, as for `advise`.
        choice: the serving.
        tipping: how many reads a second change the advice; it counts as found within half and twice of it.
    """

    def tries() -> Tries:
        yield "somebody reads", None if load["reads"] > 0 else "reads is 0; count them in a log, or guess"
        if load["reads"] <= 0:
            return
        most = max(load["reads"], load["writes"])
        day = f"{most:,.0f} a second are {most * 86_400:,.0f} a day; is it a day's number? Divide it by 86,400"
        yield "rates are those of a second", day if most > 5_000 else None
        advice = advise(frame, **load)
        costs = dict(advice.costs.select("served_as", "ms").iter_rows())
        yield "your choice was measured", None if choice in costs else f"{choice!r} is none of {', '.join(costs)}"
        times = costs[choice] / costs[advice.served_as]
        dear = f"it takes {times:.2g} times the work of {advice.served_as}; what do you get for that?"
        yield "your choice carries the load at a fair price", dear if times > 2 else None
        below, above = (advise(frame, **{**load, "reads": tipping * by}).served_as for by in (0.5, 2))
        same = f"with half as many reads and with twice as many the advice is {above}"
        yield "you know where the advice changes", same if below == above else None

    return _checked(tries())
