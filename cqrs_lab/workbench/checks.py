"""The checks of the exercises in notebooks 02, 04 and 08: a table becomes events, a refresh pays, a shop decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from math import isclose
from typing import Any

import polars as pl

from cqrs_lab.app import open_shop
from cqrs_lab.shop import order_summary
from cqrs_lab.workbench.advice import advise
from cqrs_lab.workbench.course import Checked, _checked


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

    def tries() -> Iterator[tuple[str, str | None]]:
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

    def tries() -> Iterator[tuple[str, str | None]]:
        for what, (numbers, right) in cases.items():
            found = function(*numbers)
            is_right = found is right if None in (found, right) else isclose(found, right)  # type: ignore[arg-type]
            yield what, None if is_right else f"break_even{numbers} is {found!r}; it should be {right!r}"

    return _checked(tries())


def check_decision(frame: pl.DataFrame, load: Mapping[str, Any], choice: str, tipping: float) -> Checked:
    """Check the exercise of notebook 08: a load of the learner's own, a serving for it, and where that would change.

    Args:
        frame: of `compare_sizes`, with costs.
        load: reads, writes, events, staleness and question, as for `advise`.
        choice: the serving.
        tipping: how many reads a second change the advice; it counts as found within half and twice of it.
    """

    def tries() -> Iterator[tuple[str, str | None]]:
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
