"""The checks of what a learner computes: a table, a break-even, a position, a page, a decision.

Owns what is tried and what would be right, in the order of the notebooks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import ceil, isclose
from typing import Any

import polars as pl

from cqrs_lab.app import Lab, open_shop
from cqrs_lab.errors import RuleViolated
from cqrs_lab.read.past import Past
from cqrs_lab.shop import OrderDetails, OrderLine, PayOrder, PlaceOrder, StockProduct, order_summary
from cqrs_lab.workbench.course.checked import Checked, Tries, called, checked
from cqrs_lab.workbench.course.stage import repeatable
from cqrs_lab.workbench.measure.advice import advise


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
            if set(rows) != set("123"):
                return
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
            yield "each event has the moment of its milestone", _moments(lab)
            reasons = [
                r
                for (r,) in lab.as_of(position=lab.head)
                .sql("SELECT reason FROM order_events WHERE type = 'OrderCancelled'")
                .fetchall()
            ]
            yield "it is known why", None if reasons == ["ordered twice"] else f"the reasons are {reasons}"

    return checked(tries())


_WHEN = {  # in UTC; the clocks of Lisbon went forward at one o'clock UTC on the 30th
    ("1", "OrderPaid"): (30, 0, 10),
    ("1", "OrderShipped"): (31, 15, 0),
    ("2", "OrderPaid"): (30, 8, 0),
    ("3", "OrderCancelled"): (30, 11, 0),
}


def _moments(lab: Lab) -> str | None:
    """Say which event is missing, is one too many, or is at another moment."""
    read = "SELECT order_id, type, occurred_at FROM order_events WHERE type <> 'OrderPlaced'"
    found = {(order, kind): at for order, kind, at in lab.as_of(position=lab.head).sql(read).fetchall()}
    for (order, kind), at in _WHEN.items():
        moment = datetime(2025, 3, *at, tzinfo=UTC)
        if found.get((order, kind)) != moment:
            said = f"is at {found[order, kind]:%d %H:%M} UTC" if (order, kind) in found else "is not there"
            return f"{kind} of order {order} {said}; it should be at {moment:%d %H:%M} UTC"
    more = next((one for one in found if one not in _WHEN), None)
    return f"{more[1]} of order {more[0]} did not happen" if more else None


def check_break_even(function: Callable[[float, float, float], float | None]) -> Checked:
    """Check the exercise of notebook 04: from how many reads per refresh on a materialized table pays.

    Args:
        function: the learner's break_even(view_ms, table_ms, refresh_ms); None where it never pays.
    """
    cases: dict[str, tuple[tuple[float, float, float], float | None]] = {
        "40 ms of refresh that save 8 ms with each read pay from 5 reads on": ((10.0, 2.0, 40.0), 5.0),
        "a refresh that costs nothing pays at once": ((10.0, 2.0, 0.0), 0.0),
        "small numbers are as good": ((0.3, 0.25, 1.0), 20.0),
        "a number of reads between two whole ones": ((10.0, 3.0, 40.0), 40 / 7),
        "a table as slow as the view never pays: None": ((5.0, 5.0, 10.0), None),
        "a slower table never pays either": ((2.0, 5.0, 10.0), None),
    }

    def tries() -> Tries:
        for what, (numbers, right) in cases.items():
            found, line = called(function, *numbers)
            wanted = "None" if right is None else f"{right:g}" + (f", or {ceil(right)}" if right % 1 else "")
            problem = f"break_even{numbers} is {found!r}; it should be {wanted}{line}"
            yield what, None if _breaks_even(found, right) else problem

    return checked(tries())


def _breaks_even(found: Any, right: float | None) -> bool:
    """Whether it is the exact number, or the first whole number of reads at which the table is as cheap or cheaper."""
    if right is None or found is None:
        return found is right
    if isinstance(found, bool) or not isinstance(found, (int, float, Decimal)):
        return False
    number = float(found)
    return isclose(number, right) or (number.is_integer() and right - 1e-9 <= number <= right + 1 + 1e-9)


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
        answer, line = called(find, lab, holds)
        right = answer == first and (answer is None) == (first is None) and not isinstance(answer, bool)
        return None if right else f"the answer is {answer!r}; it should be {first!r}{line}"

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
        return checked(tries())


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
            yield "what comes in time is waited for", _shown(*called(function, lab, pay, query, 60), "done", "PAID")
            paid = [event["type"] for event in lab.events(stream="order/o-1").dicts()[1:]]
            problem = None if paid == ["OrderPaid"] else f"what it led to is {paid}, not ['OrderPaid']"
            yield "the command is sent, once", problem
        with late(1_000) as lab:
            waits = _waits(lab)
            found, said = called(function, lab, pay, query, 0.1)
            problem = _shown(found, said, "working", "PENDING")
            yield "when patience ends, the page shows what it knows", problem
            if problem:
                return
            known = {name: found.get(name) for name in ("position", "of")}
            wanted = {"position": 1, "of": 2}
            problem = None if known == wanted else f"it says {known}; it should be {wanted}{said}"
            yield "and says how far it is", problem
            longest = max(waits, default=0.0)
            problem = None if longest <= 0.1 else f"0.1 s became {longest:g} s"
            yield "patience is as long as it was told", problem
        with late(1_000) as lab:
            cheap = PayOrder(order_id="o-1", amount="1.00")
            try:
                found, said = called(function, lab, cheap, query, 0.1)
                yield "a refusal is told, not shown as a delay", f"it returned {found!r}{said}; let RuleViolated pass"
            except RuleViolated:
                yield "a refusal is told, not shown as a delay", None

    return checked(tries())


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


def _shown(found: Any, line: str, state: str, status: str) -> str | None:
    """Say what is wrong with what a page shows of an order, which a line of the learner's returned."""
    if not isinstance(found, dict) or not {"state", "row"} <= found.keys() or not isinstance(found["row"], dict):
        return f'it returned {found!r}{line}; it should be a dict with "state" and "row"'
    said, wanted = (found["state"], found["row"].get("status")), (state, status)
    right = f"it should be {state!r} and {status}{line}"
    return None if said == wanted else f"it says {said[0]!r} and shows {said[1]}; {right}"


_LOAD = ("reads", "writes", "events", "staleness", "question")


def check_decision(frame: pl.DataFrame, load: Mapping[str, Any], choice: str, tipping: float) -> Checked:
    """Check the exercise of notebook 08: a load of the learner's own, a serving for it, and where that would change.

    Args:
        frame: of `compare_sizes`, with costs.
        load: reads, writes, events, staleness and question, as for `advise`.
        choice: the serving.
        tipping: how many reads a second change the advice; it counts as found within half and twice of it.
    """

    def tries() -> Tries:
        missing = ", ".join(name for name in _LOAD if name not in load)
        yield "your load is complete", f"{missing} is missing" if missing else None
        if missing:
            return
        yield "somebody reads", None if load["reads"] > 0 else "reads is 0; count them in a log, or guess"
        if load["reads"] <= 0:
            return
        most = max(load["reads"], load["writes"])
        day = f"{most:,.0f} a second are {most * 86_400:,.0f} a day; is it a day's number? Divide it by 86,400"
        yield "rates are those of a second", day if most > 5_000 else None
        advice = advise(frame, **load)
        costs = dict(advice.costs.select("served_as", "ms").iter_rows())
        yield "your choice was measured", None if choice in costs else f"{choice!r} is none of {', '.join(costs)}"
        if choice not in costs:
            return
        times = costs[choice] / costs[advice.served_as]
        dear = f"it takes {times:.2g} times the work of {advice.served_as}; what do you get for that?"
        yield "your choice carries the load at a fair price", dear if times > 2 else None
        below, above = (advise(frame, **{**load, "reads": tipping * by}).served_as for by in (0.5, 2))
        same = f"with half as many reads and with twice as many the advice is {above}"
        yield "you know where the advice changes", same if below == above else None

    return checked(tries())
