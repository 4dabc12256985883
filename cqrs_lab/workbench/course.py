"""The course: what its notebooks need beside the package: a clock and ids that repeat, and checks of exercises.

Owns nothing of a lab. A check tries what a learner wrote and says in one line each what holds and what does not yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict
from uuid import UUID

from cqrs_lab.errors import RuleViolated
from cqrs_lab.messages import Command, Event
from cqrs_lab.shop import OrderDelivered, OrderPaid, OrderPlaced, OrderShipped
from cqrs_lab.write.decider import Decider


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

    lines = []
    passed = True
    for what, problem in _safely(tries()):
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
