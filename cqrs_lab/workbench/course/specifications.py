"""The check of specifications that a learner writes in notebook 07, for a saga and for a read model.

Owns the right ones, which a specification has to accept, and the wrong ones, each of which it has to find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cqrs_lab.errors import CqrsLabError
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.messages import Command, Event
from cqrs_lab.shop import OrderCancelled, PaymentDeclined, ReleaseStock, ReturnPayment, fulfilment
from cqrs_lab.workbench.course.checked import Checked, Tries, checked, line_of
from cqrs_lab.write.sagas import Saga

_KEPT = """
SELECT order_id, sum(CASE type WHEN 'OrderPaid' THEN amount ELSE -amount END)::DECIMAL(18, 2) AS kept
FROM order_events WHERE type IN ('OrderPaid', 'OrderRefunded') GROUP BY order_id
"""


def kept_money(sql: str = _KEPT) -> ReadModel:
    """Return the read model "kept": for each order that was paid, the money that was not given back."""
    return ReadModel("kept", key="order_id", sql=sql)


def check_specifications(of_saga: Callable[[Saga], object], of_model: Callable[[ReadModel], object]) -> Checked:
    """Check the exercise of notebook 07: specifications accept what is right and find what is wrong.

    Args:
        of_saga: the learner's, of fulfilment: a declined card cancels the order, for the reason that the gateway gave;
            a cancelled order releases all that is reserved, and returns no payment when none was taken.
        of_model: the learner's, of `kept_money()`: what was paid less all refunds, for each order that was paid.
    """

    def tries() -> Tries:
        yield "the saga of the shop is accepted", _fails(of_saga, replace(fulfilment))
        for what, (saga, hint) in _wrong_sagas().items():
            yield f"a saga that {what} is found", _passes(of_saga, saga, hint)
        yield "the read model is accepted", _fails(of_model, kept_money())
        for what, (sql, hint) in _WRONG.items():
            yield f"a read model that {what} is found", _passes(of_model, kept_money(sql), hint)

    return checked(tries())


def _fails(specification: Callable[[Any], object], right: object) -> str | None:
    try:
        specification(right)
    except (AssertionError, CqrsLabError) as error:
        first = str(error).partition("\n")[0] or type(error).__name__
        return f"your specification says: {first}{line_of(error)}"
    return None


def _passes(specification: Callable[[Any], object], wrong: object, hint: str) -> str | None:
    try:
        specification(wrong)
    except AssertionError:
        return None
    return f"your specification accepts it; {hint}"


def _wrong_sagas() -> dict[str, tuple[Saga, str]]:
    """What is wrong -> the saga, and what would find it."""

    def saga(kind: type[Event], change: Callable[[Sequence[Any]], Sequence[Command]]) -> Saga:
        def react(state: Any, event: Event) -> Sequence[Command]:
            commands = fulfilment.react(state, event)
            return change(commands) if isinstance(event, kind) else commands

        return replace(fulfilment, react=react)

    def other(name: str) -> Callable[[Sequence[Any]], Sequence[Command]]:
        return lambda commands: [command.model_copy(update={name: "another"}) for command in commands]

    declined, cancelled = "say what follows PaymentDeclined", "say what follows OrderCancelled"
    return {
        "does nothing about a declined card": (saga(PaymentDeclined, lambda commands: []), declined),
        "cancels another order": (saga(PaymentDeclined, other("order_id")), declined),
        "loses the reason of the gateway": (saga(PaymentDeclined, other("reason")), f"{declined}, with its reason"),
        "releases one product only": (
            saga(OrderCancelled, lambda commands: commands[:1]),
            f"{cancelled}, for an order of two products that are reserved",
        ),
        "releases a part of a product": (
            saga(OrderCancelled, lambda commands: [_one(command) for command in commands]),
            f"{cancelled}; ReleaseStock without a quantity releases all",
        ),
        "returns money that was never taken": (
            saga(OrderCancelled, lambda commands: [*commands, ReturnPayment(order_id="o-1")]),
            f"{cancelled}, and nothing else",
        ),
    }


def _one(command: Command) -> Command:
    return command.model_copy(update={"quantity": 1}) if isinstance(command, ReleaseStock) else command


_WRONG = {
    "knows of no refunds": (_KEPT.replace("ELSE -amount", "ELSE 0"), "give an order that was refunded"),
    "adds refunds": (_KEPT.replace("-amount", "amount"), "give an order that was refunded"),
    "counts the largest refund only": (
        _KEPT.replace("sum(CASE type WHEN 'OrderPaid' THEN amount ELSE -amount END)", "{}").format(
            "max(CASE type WHEN 'OrderPaid' THEN amount END)"
            " - coalesce(max(CASE type WHEN 'OrderRefunded' THEN amount END), 0)"
        ),
        "give an order that was refunded twice, in parts",
    ),
    "has a row for what was never paid": (
        _KEPT.replace("('OrderPaid', 'OrderRefunded')", "('OrderPlaced', 'OrderPaid', 'OrderRefunded')").replace(
            "ELSE -amount", "WHEN 'OrderRefunded' THEN -amount ELSE 0"
        ),
        "give an order that was placed and not paid",
    ),
    "leaves out what was never refunded": (
        _KEPT + " HAVING bool_or(type = 'OrderRefunded')",
        "give an order that was paid and not refunded, beside another one",
    ),
}
