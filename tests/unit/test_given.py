"""given(events).when(command).then(events): what is compared, and how a difference is told."""

from __future__ import annotations

import sys
from dataclasses import replace
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
from support.specs import OTHER, PAID, PAY, PLACE, PLACED, told

from cqrs_lab.errors import CommandError, ConcurrencyError, DeclarationError, InvalidMessage, RuleViolated
from cqrs_lab.shop import (
    CancelOrder,
    CustomerRegistered,
    OrderCancelled,
    OrderPaid,
    PaymentDeclined,
    PayOrder,
    RegisterCustomer,
    StockReserved,
    customers,
    fulfilment,
    orders,
)
from cqrs_lab.testing import given


def test_a_decision_is_compared_and_returned() -> None:
    """Given events, one by one or as a list, and a command, then() accepts the events that follow and returns them."""
    assert given().when(PLACE).then(PLACED) == [PLACED]
    assert given(PLACED).when(PAY).then([PAID]) == [PAID]
    assert (
        given([PLACED, PAID])
        .when(CancelOrder(order_id="o-1", reason="late"))
        .then(OrderCancelled(order_id="o-1", reason="late"))
    )


def test_nothing_can_be_what_follows() -> None:
    """then() without arguments, or with an empty list, accepts a decision that led to nothing, and no other."""
    idle = replace(orders, decide=lambda command, order: [])
    assert given(PLACED).when(PAY, idle).then() == []
    assert given(PLACED).when(PAY, decider=idle).then([]) == []
    text, _ = told(lambda: given(PLACED).when(PAY).then())
    assert text.startswith("outcome 1 is one too many\n")
    text, _ = told(lambda: given(PLACED).when(PAY, idle).then(PAID))
    assert text.startswith("outcome 1 is missing\n")
    assert text.endswith("got:      nothing")


def test_an_exception_can_be_what_follows() -> None:
    """then() accepts a class of exceptions, and a RuleViolated with the same rule whatever its state."""
    specification = given(PLACED, PAID).when(PAY)
    assert specification.then(RuleViolated) == []
    assert specification.then(CommandError) == []
    assert specification.then(RuleViolated("an order is paid once, while it is pending", "any")) == []
    text, _ = told(lambda: specification.then(RuleViolated("an order is paid whole", "PAID")))
    assert "rule should be 'an order is paid whole' and is 'an order is paid once, while it is pending'" in text
    text, cause = told(lambda: specification.then(ConcurrencyError))
    assert "type should be 'ConcurrencyError' and is 'RuleViolated'" in text
    assert isinstance(cause, RuleViolated)
    text, cause = told(lambda: given(PLACED).when(PAY).then(RuleViolated))
    assert "type should be 'RuleViolated' and is 'OrderPaid'" in text
    assert cause is None


def test_a_wrong_decision_is_told_line_by_line() -> None:
    """The failure begins with the first difference and shows given, when, expected and got, a line for each."""
    text, cause = told(lambda: given(PLACED).when(PAY).then(PAID.model_copy(update={"method": "cash"}), PAID))
    assert text.splitlines() == [
        "outcome 1: method should be 'cash' and is 'card'",
        f"given:    {PLACED!r}",
        f"when:     {PAY!r}",
        f"expected: {PAID.model_copy(update={'method': 'cash'})!r}",
        f"          {PAID!r}",
        f"got:      {PAID!r}",
    ]
    assert cause is None


def test_an_unexpected_exception_is_shown_and_chained() -> None:
    """When the decider raises what nobody expected, the failure shows it and has it as its cause."""
    broken = replace(orders, decide=lambda command, order: [PAID][1 // 0 :])
    text, cause = told(lambda: given(PLACED).when(PAY, broken).then(PAID))
    assert "type should be 'OrderPaid' and is 'ZeroDivisionError'" in text
    assert "got:      ZeroDivisionError('" in text
    assert isinstance(cause, ZeroDivisionError)
    forgetful = replace(orders, evolve=lambda order, event: 1 // 0)
    assert isinstance(told(lambda: given(PLACED).when(PAY, forgetful).then(PAID))[1], ZeroDivisionError)


@pytest.mark.parametrize("stray", [[OrderPaid(order_id="o-2")], [CustomerRegistered(customer_id="o-1")], None])
def test_what_the_bus_would_refuse_fails_here_too(stray: Any) -> None:
    """A decision that is no list of declared events of the command's stream does not pass for one."""
    specification = given().when(PAY, replace(orders, decide=lambda command, order: stray))
    _, cause = told(lambda: specification.then(stray or []))
    assert isinstance(cause, (InvalidMessage, TypeError))


def test_an_event_class_does_not_pass_for_its_event() -> None:
    """then() takes a class for an exception only: an event's class is a mistake, and fails."""
    wrong: Any = OrderPaid
    assert "should be" in told(lambda: given(PLACED).when(PAY).then(wrong))[0]


def test_a_class_that_was_declared_again_is_another_one() -> None:
    """An event of a class of the same name, as when a notebook's cell ran twice, is told by its class."""
    again = type("OrderPaid", (OrderPaid,), {})(**PAID.model_dump())
    assert told(lambda: given(PLACED).when(PAY).then(again))[0].startswith("outcome 1: class should be <class ")


def test_the_decider_is_found_beside_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one decider that lists the command, in the module of its class, decides; a notebook's module is __main__."""
    assert given().when(PAY).decider is orders
    assert given().when(RegisterCustomer(customer_id="c-1", name="Ann", email="a@example.com")).decider is customers
    notebook = ModuleType("__main__")
    vars(notebook).update(customers=customers, mine=orders, _1=orders)
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    monkeypatch.setattr(PayOrder, "__module__", "__main__")
    assert given().when(PAY).decider is orders
    vars(notebook).update(second=replace(orders))
    with pytest.raises(DeclarationError, match=r"2 deciders among the variables of __main__ list PayOrder.*decider=…"):
        given().when(PAY)
    assert given().when(PAY, orders).decider is orders


def test_a_missing_decider_is_named_with_what_to_pass() -> None:
    """Without a decider for the command, or with one that does not list it, the error says what to pass."""

    class Refund(PayOrder):
        """A command that nobody handles."""

    with pytest.raises(
        DeclarationError, match=r"0 deciders .* list Refund, .* pass the right one: when\(command, deci"
    ):
        given().when(Refund(order_id="o-1", amount=Decimal(1)))
    with pytest.raises(DeclarationError, match="0 deciders among those given list PayOrder"):
        given().when(PAY, customers)


@pytest.mark.parametrize("stray", [OTHER, CustomerRegistered(customer_id="o-1"), PAY], ids=lambda e: type(e).__name__)
def test_given_events_are_of_the_commands_stream(stray: Any) -> None:
    """An event of another order or category, or a command, is refused: a test would pass for nothing."""
    with pytest.raises(DeclarationError, match="cannot be in the stream"):
        given(PLACED, stray).when(PAY)


RESERVED = StockReserved(product_id="p-1", order_id="o-1", quantity=2)
DECLINED = PaymentDeclined(order_id="o-1", reason="no cover")


def test_what_a_saga_sends_is_compared_and_returned() -> None:
    """Given events and the one that a saga meets, then() accepts the commands that follow, in order, and no others."""
    cancel = CancelOrder(order_id="o-1", reason="no cover")
    assert given(PLACED, RESERVED).when(DECLINED, saga=fulfilment).then(cancel) == [cancel]
    assert given([PLACED]).when(PAID, saga=fulfilment).then() == []
    text, _ = told(
        lambda: given(PLACED).when(DECLINED, saga=fulfilment).then(cancel.model_copy(update={"reason": "x"}))
    )
    assert text.startswith("command 1: reason should be 'x' and is 'no cover'\ngiven:    OrderPlaced(")
    text, _ = told(lambda: given(PLACED).when(DECLINED, saga=fulfilment).then())
    assert text.startswith("command 1 is one too many\n")


def test_an_event_that_a_saga_cannot_meet_is_refused() -> None:
    """An event without a saga, one that it does not follow, and events of another process are a DeclarationError."""
    with pytest.raises(DeclarationError, match=r"PaymentDeclined is an event.*saga=…"):
        given(PLACED).when(DECLINED)  # type: ignore[call-overload]
    with pytest.raises(DeclarationError, match="is not followed by it; it follows OrderPlaced"):
        given(PLACED).when(CustomerRegistered(customer_id="c-1", name="Ann"), saga=fulfilment)
    with pytest.raises(DeclarationError, match="not in the process of 'fulfilment'"):
        given(OTHER).when(DECLINED, saga=fulfilment)
