"""The stage of the course: what repeats, what fails on demand, what the shop was once like.

Owns nothing of a lab.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from textwrap import dedent
from typing import Any, Literal, TypedDict
from uuid import UUID

from cqrs_lab.app import Lab
from cqrs_lab.domain import Domain
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.messages import Command, Event, Money
from cqrs_lab.shop import (
    OrderLine,
    PaymentGateway,
    PayOrder,
    PlaceOrder,
    SimulatedGateway,
    StockProduct,
    order_summary,
)
from cqrs_lab.shop.orders import value
from cqrs_lab.shop.whole import shop_domain
from cqrs_lab.store.connect import MEMORY
from cqrs_lab.store.move import Move
from cqrs_lab.write.decider import Decider
from cqrs_lab.write.middleware import Envelope, Middleware, Proceed, Receipt


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
    lab = Lab(path, domain=shop_domain(gateway=gateway, middleware=middleware), **repeatable())
    lab.send_many([StockProduct(product_id=product, quantity=quantity) for product, quantity in units.items()])
    lab.follow("fulfilment")
    return lab


_KILL = 9  # SIGKILL, which Windows does not have by name
_FREE = ReadModel(
    "free_stock",
    key="product_id",
    sql="""
    SELECT product_id, sum(CASE type WHEN 'StockReserved' THEN -quantity ELSE quantity END)::BIGINT AS free
    FROM product_events WHERE type <> 'PriceChanged' GROUP BY product_id
    """,
)


def outcome(lab: Lab, gateway: SimulatedGateway, order_id: str = "o-1") -> dict[str, Any]:
    """Return how the story of an order ended.

    Returns:
        status of the order, free (product -> units that are not reserved), and charged: what the customer is out of.
    """
    order = lab.serve(order_summary, as_="view").get(order_id)
    free = {row["product_id"]: row["free"] for row in lab.serve(_FREE, as_="view").rows().dicts()}
    return {"status": order and order["status"], "free": free, "charged": float(gateway.charged(order_id))}


def run_apart(function: Callable[..., object], *arguments: object) -> int:
    """Run a function in a process of its own, which need not live to its end.

    Args:
        function: stands on its own: it imports what it uses.
        arguments: strings, numbers and the like.

    Returns:
        The exit code: 0 when the function came to its end, -9 when it was killed, on every system.

    Raises:
        RuntimeError: the function failed; with what it said.
    """
    code = f"{dedent(inspect.getsource(function))}\n{function.__name__}(*{arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode == 1:
        raise RuntimeError(done.stderr)
    return exit_code(done.returncode)


def exit_code(code: int, system: str = os.name) -> int:
    """Return an exit code as it is told on every system: Windows says 9 of a process that was killed, others say -9."""
    return -code if system == "nt" and code == _KILL else code


def die_before_checkpoint() -> None:
    """Have this process killed at the next move of a projection: its rows are written, its checkpoint is not."""

    def dying(*move: object) -> None:
        os.kill(os.getpid(), _KILL)

    Move.write_checkpoints = dying  # type: ignore[method-assign, assignment]


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
