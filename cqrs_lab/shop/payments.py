"""Payments: the world outside, behind a small protocol.

Declarations only: messages, the protocol of a payment gateway, and a simulated one. A gateway is where the rules of a
store end: a call can act and its answer get lost. Whoever calls again must be recognised by a key, or pays twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

from cqrs_lab.messages import Command, Event, Id
from cqrs_lab.shop.orders import Amount, Text
from cqrs_lab.write.decider import Service


class TakePayment(Command):
    """Charge the customer of an order."""

    order_id: Id
    amount: Amount


class ReturnPayment(Command):
    """Give back all that was charged for an order."""

    order_id: Id


class PaymentTaken(Event):
    """The customer of an order was charged."""

    order_id: Id
    amount: Amount


class PaymentDeclined(Event):
    """The gateway refused to charge; no money moved."""

    order_id: Id
    reason: Text


class PaymentTimedOut(Event):
    """The gateway did not answer when it was asked to charge; whether money moved is not known."""

    order_id: Id


class PaymentReturned(Event):
    """All that was charged for an order was given back; it may have been nothing."""

    order_id: Id
    amount: Amount


class Declined(Exception):
    """The gateway refuses to charge."""


class TimedOut(Exception):
    """The gateway does not answer; it may have acted all the same."""


class PaymentGateway(Protocol):
    """What the shop needs of a payment gateway.

    A key makes a call safe to repeat: the second call with the same key acts no more and answers as the first did.
    """

    def charge(self, order_id: str, amount: Decimal, *, key: str | None = None) -> None:
        """Charge the customer of an order.

        Raises:
            Declined, TimedOut.
        """

    def give_back(self, order_id: str, *, key: str | None = None) -> Decimal:
        """Give back all that was charged for an order, and return how much that was.

        Raises:
            TimedOut.
        """


Answer = Literal["approve", "decline", "time out", "lose the answer"]


@dataclass(frozen=True)
class Movement:
    """Money that moved: what a customer would see on the statement; negative when it came back."""

    order_id: str
    amount: Decimal


class SimulatedGateway:
    """A gateway without a bank: it does what it is told, always the same, and keeps a statement.

    Args:
        answers: order -> how a call for it ends: "approve"; "decline"; "time out": it never acts and never answers;
            "lose the answer": it acts, but the first answer gets lost, so that whoever calls again without a key has
            the customer pay twice.
        otherwise: the same for orders that `answers` does not name.

    Attributes:
        statement: the money that moved, in order.
    """

    def __init__(self, answers: Mapping[str, Answer] | None = None, otherwise: Answer = "approve") -> None:
        self.answers, self.otherwise = dict(answers or {}), otherwise
        self.statement: list[Movement] = []
        self._done: dict[str, Decimal] = {}
        self._lost: set[str] = set()

    def charge(self, order_id: str, amount: Decimal, *, key: str | None = None) -> None:
        """Charge the customer of an order (see PaymentGateway)."""
        answer = self.answers.get(order_id, self.otherwise)
        if answer == "decline":
            raise Declined("the card was declined")
        if answer == "time out":
            raise TimedOut(f"no answer for {order_id}")
        self._once(key, lambda: self._move(order_id, amount))
        if answer == "lose the answer" and order_id not in self._lost:
            self._lost.add(order_id)
            raise TimedOut(f"no answer for {order_id}")

    def give_back(self, order_id: str, *, key: str | None = None) -> Decimal:
        """Give back all that was charged for an order (see PaymentGateway)."""
        return self._once(key, lambda: self._move(order_id, -self.charged(order_id)))

    def charged(self, order_id: str) -> Decimal:
        """Return what the customer of an order has paid so far."""
        return sum((moved.amount for moved in self.statement if moved.order_id == order_id), Decimal(0))

    def _once(self, key: str | None, act: Callable[[], Decimal]) -> Decimal:
        if key is None:
            return act()
        if key not in self._done:
            self._done[key] = act()
        return self._done[key]

    def _move(self, order_id: str, amount: Decimal) -> Decimal:
        if amount:
            self.statement.append(Movement(order_id, amount))
        return abs(amount)


def payments(gateway: PaymentGateway, attempts: int = 3) -> Service:
    """Return the service that takes and returns payments through a gateway.

    Args:
        attempts: how often to ask for a charge that gets no answer; always with the same key.
    """

    def handle(command: Command, key: str) -> Sequence[Event]:
        match command:
            case TakePayment():
                return [take(command, key)]
            case ReturnPayment():
                # No answer is no outcome here: what is owed stays owed, and whoever sent the command sends it again.
                amount = gateway.give_back(command.order_id, key=key)
                return [PaymentReturned(order_id=command.order_id, amount=amount)]
        raise TypeError(f"payments do not handle {type(command).__name__}")

    def take(command: TakePayment, key: str) -> Event:
        for _ in range(attempts):
            try:
                gateway.charge(command.order_id, command.amount, key=key)
                return PaymentTaken(order_id=command.order_id, amount=command.amount)
            except Declined as reason:
                return PaymentDeclined(order_id=command.order_id, reason=str(reason))
            except TimedOut:
                continue
        return PaymentTimedOut(order_id=command.order_id)

    return Service(
        category="payment",
        key="order_id",
        handle=handle,
        commands=[TakePayment, ReturnPayment],
        events=[PaymentTaken, PaymentDeclined, PaymentTimedOut, PaymentReturned],
    )
