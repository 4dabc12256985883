"""The checks of the read models and of the saga that a learner declares; of deciders see `deciders.py`.

Owns what is tried and what would be right, in the order of the notebooks.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from cqrs_lab.app import Lab, open_shop
from cqrs_lab.domain import Domain
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.shop import (
    AddOrderLine,
    CancelOrder,
    DeliverOrder,
    OrderDelivered,
    OrderLine,
    OrderPlaced,
    PayOrder,
    PlaceOrder,
    RefundOrder,
    ShipOrder,
    orders,
)
from cqrs_lab.workbench.course.checked import Checked, Tries, called, checked
from cqrs_lab.workbench.course.stage import PowerCut, power_cut, repeatable
from cqrs_lab.workbench.data.generated import generate
from cqrs_lab.workbench.data.logs import open_log
from cqrs_lab.workbench.data.workload import Workload
from cqrs_lab.write.decider import Decider
from cqrs_lab.write.middleware import Middleware
from cqrs_lab.write.sagas import Saga


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
            columns = ", ".join(sorted(view.rows().columns, key=_CANCELLED.find))
            yield "its columns are reason, orders, value", None if columns == _CANCELLED else f"they are {columns}"
            if columns != _CANCELLED:
                return
            problem = _cancelled(lab, view.rows().dicts())
            yield "it says what plain Python says", problem
            if problem:
                return
            served = lab.serve(model)
            line = OrderLine(product_id="p-0001", quantity=1, unit_price="25.90")
            lab.send(AddOrderLine(order_id="o-00000011", line=line))
            lab.send(CancelOrder(order_id="o-00000011", reason="takes too long"))
            lab.send(CancelOrder(order_id="o-00000002", reason="moved house"))
            yield "more lines and more reasons are counted", _cancelled(lab, view.rows().dicts())
            lab.send(RefundOrder(order_id="o-00000002", reason="we are sorry"))
            yield "a refund is not a cancellation", _cancelled(lab, view.rows().dicts())
            served.catch_up()
            same = served.rows().fetchall() == view.rows().fetchall()
            yield "the projection follows", None if same else "its rows are not those of the view"

    return checked(tries())


_CANCELLED = "reason, orders, value"


def _cancelled(lab: Lab, rows: list[dict[str, Any]]) -> str | None:
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
    found = {row["reason"]: (row["orders"], _money(row["value"])) for row in rows}
    for reason in found.keys() - expected.keys():
        return f"there is a row for {reason!r}, for which no order was cancelled"
    for reason, (orders, worth) in sorted(expected.items()):
        if found.get(reason) != (orders, worth):
            said = "{} orders worth {}".format(*found[reason]) if reason in found else "not there"
            return f"{reason!r} is {said}; it should be {orders} orders worth {worth:.2f}"
    return None if len(rows) == len(found) else "a reason has more than one row"


def _money(value: Any) -> Any:
    """Return an amount as the log has it, also when a SELECT made a double of it."""
    return Decimal(str(round(value, 2))) if isinstance(value, float) else value


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
            (answer, line), what = called(saga.react, state, event), f"react() gives a list for {type(event).__name__}"
            if not isinstance(answer, (list, tuple)):
                yield what, f"it gave {answer!r}{line}; a list of commands, or an empty one"
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

    return checked(tries())


def _points(lab: Lab, *expected: str) -> str | None:
    """Say what is wrong with the points that were given so far."""
    given = [json.loads(event["data"]) for event in lab.events(category="loyalty").dicts()]
    found = [f"{e['points']} to {e['customer_id']} for {e['order_id']}" for e in given]
    said, wanted = ", then ".join(found), ", then ".join(expected)
    return None if said == wanted else f"the points given are {said or 'none'}; it should be {wanted or 'none'}"


def check_came_back(model: ReadModel) -> Checked:
    """Check the exercise of notebook 09: how many tickets did each agent solve, and how many of these came back?

    Args:
        model: the learner's read model over ticket_events: agent (the key), solved, came_back.
    """
    columns, start = "agent, solved, came_back", datetime(2025, 9, 1, tzinfo=UTC)
    steps = [  # ticket, what happened, in which hour, who did it; as they were entered
        ("T-1", "Ticket opened", 0, None),
        ("T-1", "Answered", 1, "Cem"),
        ("T-1", "Solved", 1, "Ann"),
        ("T-2", "Solved", 2, "Bea"),
        ("T-2", "Closed", 2, None),
        ("T-2", "Reopened", 3, None),
        ("T-2", "Solved", 4, "Ann"),
        ("T-1", "Reopened", 6, None),
        ("T-2", "Reopened", 7, None),
        ("T-1", "Solved", 9, "Bea"),
        ("T-2", "Solved", 8, "Ann"),
        ("T-1", "Reopened", 11, None),
        ("T-1", "Solved", 10, "Ann"),  # entered late
    ]
    schema = ["id", "type", "hours", "agent"]
    at = (pl.lit(start) + pl.duration(hours="hours")).alias("occurred_at")
    log = pl.DataFrame(steps, schema=schema, orient="row").select("id", "type", at, "agent")
    expected = {  # after so many steps
        7: {"Ann": (2, 0), "Bea": (1, 1)},
        9: {"Ann": (2, 2), "Bea": (1, 1)},
        11: {"Ann": (3, 2), "Bea": (2, 1)},
        13: {"Ann": (4, 3), "Bea": (2, 1)},
    }

    def tries() -> Tries:
        yield "its key is agent", None if model.keys == ("agent",) else f"it is {', '.join(model.keys)}"
        known = log.head(7).with_columns(recorded_at=start + timedelta(hours=12))
        with open_log(known, "id", "type", "occurred_at", category="ticket", recorded="recorded_at") as lab:
            view, served, done = lab.serve(model, "view"), lab.serve(model), 7
            found = ", ".join(sorted(view.rows().columns, key=columns.find))
            yield f"its columns are {columns}", None if found == columns else f"they are {found}"
            if found != columns:
                return
            for upto, what in {
                7: "what is solved again counts for the agent who solved it",
                9: "what comes back counts for the agent who solved it last",
                11: "a ticket may come back more than once",
                13: "what was entered late stands where it happened",
            }.items():
                if upto > done:
                    lab.append_table("ticket", log[done:upto])
                    done = upto
                yield what, _solved(view.rows().dicts(), expected[upto])
            served.catch_up()
            same = served.rows().fetchall() == view.rows().fetchall()
            yield "the projection follows", None if same else "its rows are not those of the view"

    return checked(tries())


def _solved(rows: list[dict[str, Any]], expected: dict[str, tuple[int, int]]) -> str | None:
    """Say which agent's row is wrong."""
    found = {row["agent"]: (row["solved"], row["came_back"]) for row in rows}
    for agent in sorted({*expected, *found}, key=str):
        if found.get(agent) != expected.get(agent):
            return f"{agent} has {found.get(agent)}; it should be {expected.get(agent)}"
    return None if len(rows) == len(found) else "an agent has more than one row"
