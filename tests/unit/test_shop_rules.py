"""The rules of the shop: what each command leads to, what is refused, and what a gateway charges."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from support import line, place

from cqrs_lab import Command, Event
from cqrs_lab.errors import InvalidMessage, RuleViolated
from cqrs_lab.shop import (
    AddOrderLine,
    CancelOrder,
    ChangeCustomerEmail,
    ChangePrice,
    CustomerEmailChanged,
    CustomerRegistered,
    CustomerRenamed,
    DeliverOrder,
    OrderCancelled,
    OrderDelivered,
    OrderLineAdded,
    OrderLineRemoved,
    OrderPaid,
    OrderPlaced,
    OrderRefunded,
    OrderShipped,
    PayOrder,
    PriceChanged,
    ProductStocked,
    RefundOrder,
    RegisterCustomer,
    ReleaseStock,
    RemoveOrderLine,
    RenameCustomer,
    ReserveStock,
    ShipOrder,
    SimulatedGateway,
    StockProduct,
    StockReleased,
    StockReserved,
    orders,
    products,
)
from cqrs_lab.shop.payments import Declined, Movement, TimedOut
from cqrs_lab.testing import given

O1: dict[str, Any] = {"order_id": "o-1"}
C1: dict[str, Any] = {"customer_id": "c-1"}
P1: dict[str, Any] = {"product_id": "p-1"}
PEN, INK, PAD = line("pen", 2, "9.99"), line("ink", 1, "5"), line("pad", 3, "0.10")
PLACE = place("o-1", PEN, INK)
ADD, REMOVE = AddOrderLine(**O1, line=PAD), RemoveOrderLine(**O1, product_id="pen")
PAY, SHIP = PayOrder(**O1, amount=Decimal("24.98")), ShipOrder(**O1, tracking_number="T-1")
DELIVER, CANCEL, REFUND = DeliverOrder(**O1), CancelOrder(**O1, reason="late"), RefundOrder(**O1)
PLACED = OrderPlaced(**O1, **C1, lines=(PEN, INK), total=Decimal("24.98"), freight=Decimal(0))
ADDED = OrderLineAdded(**O1, lines=(PAD,), total=Decimal("25.28"))
REMOVED = OrderLineRemoved(**O1, removed=(PEN,), total=Decimal("5"))
SHIPPED, DELIVERED = OrderShipped(**O1, tracking_number="T-1"), OrderDelivered(**O1)
CANCELLED = OrderCancelled(**O1, reason="late")


def paid(amount: str, method: str = "card") -> OrderPaid:
    """Return the event of money that came in."""
    return OrderPaid(**O1, amount=Decimal(amount), method=method)


def refunded(amount: str, reason: str = "refund") -> OrderRefunded:
    """Return the event of money given back."""
    return OrderRefunded(**O1, amount=Decimal(amount), reason=reason)


PAID = paid("24.98")
REGISTERED = CustomerRegistered(**C1, name="Ada", email="ada@example.org")
RENAMED, MOVED = CustomerRenamed(**C1, name="Ada L."), CustomerEmailChanged(**C1, email="al@example.org")
STOCKED, RESERVED = ProductStocked(**P1, quantity=5), StockReserved(**P1, **O1, quantity=3)
PRICED = PriceChanged(**P1, unit_price=Decimal("9.99"))
DECISIONS: list[tuple[list[Event], Command, list[Event]]] = [
    ([], PLACE, [PLACED]),
    ([PLACED], ADD, [ADDED]),
    ([PLACED, ADDED], ADD, [OrderLineAdded(**O1, lines=(PAD,), total=Decimal("25.58"))]),
    ([PLACED], REMOVE, [REMOVED]),
    ([PLACED, ADDED], REMOVE, [OrderLineRemoved(**O1, removed=(PEN,), total=Decimal("5.30"))]),
    (  # every line of the product goes
        [PLACED, OrderLineAdded(**O1, lines=(PEN,), total=Decimal("44.96"))],
        REMOVE,
        [OrderLineRemoved(**O1, removed=(PEN, PEN), total=Decimal("5"))],
    ),
    ([PLACED], PAY, [PAID]),
    ([PLACED, ADDED], PayOrder(**O1, amount=Decimal("25.28")), [paid("25.28")]),
    ([PLACED, REMOVED], PayOrder(**O1, amount=Decimal(5)), [paid("5")]),
    (  # freight comes on top
        [PLACED.model_copy(update={"freight": Decimal(3)})],
        PayOrder(**O1, amount=Decimal("27.98"), method="cash"),
        [paid("27.98", "cash")],
    ),
    ([PLACED, PAID], SHIP, [SHIPPED]),
    ([PLACED, PAID, SHIPPED], DELIVER, [DELIVERED]),
    ([PLACED], CANCEL, [CANCELLED]),
    ([PLACED, PAID], CANCEL, [CANCELLED]),
    ([PLACED, PAID], REFUND, [refunded("24.98")]),
    ([PLACED, PAID], RefundOrder(**O1, amount=Decimal(4), reason="torn"), [refunded("4", "torn")]),
    ([PLACED, PAID, refunded("4")], REFUND, [refunded("20.98")]),
    ([PLACED, PAID, SHIPPED, DELIVERED], REFUND, [refunded("24.98")]),
    ([PLACED, PAID, CANCELLED], REFUND, [refunded("24.98")]),
    ([], RegisterCustomer(**C1, name="Ada", email="ada@example.org"), [REGISTERED]),
    ([REGISTERED], RenameCustomer(**C1, name="Ada L."), [RENAMED]),
    ([REGISTERED, RENAMED], RenameCustomer(**C1, name="Ada L."), []),
    ([REGISTERED, RENAMED], RenameCustomer(**C1, name="Ada"), [CustomerRenamed(**C1, name="Ada")]),
    ([REGISTERED], ChangeCustomerEmail(**C1, email="al@example.org"), [MOVED]),
    ([REGISTERED, MOVED], ChangeCustomerEmail(**C1, email="al@example.org"), []),
    ([], StockProduct(**P1, quantity=5), [STOCKED]),
    ([STOCKED], StockProduct(**P1, quantity=1), [ProductStocked(**P1, quantity=1)]),
    ([STOCKED], ReserveStock(**P1, **O1, quantity=3), [RESERVED]),
    ([STOCKED, RESERVED], ReserveStock(**P1, **O1, quantity=2), [StockReserved(**P1, **O1, quantity=2)]),
    ([STOCKED, RESERVED], ReleaseStock(**P1, **O1), [StockReleased(**P1, **O1, quantity=3)]),
    ([STOCKED, RESERVED], ReleaseStock(**P1, **O1, quantity=1), [StockReleased(**P1, **O1, quantity=1)]),
    (  # what is released can be reserved again
        [STOCKED, RESERVED, StockReleased(**P1, **O1, quantity=3)],
        ReserveStock(**P1, order_id="o-2", quantity=5),
        [StockReserved(**P1, order_id="o-2", quantity=5)],
    ),
    ([], ChangePrice(**P1, unit_price=Decimal("9.99")), [PRICED]),
    ([PRICED], ChangePrice(**P1, unit_price=Decimal("9.990")), []),
]
ONCE, GROWS = "an order is placed once", "only a pending order gets more lines"
SHRINKS, KEEPS = "only a pending order loses lines", "an order keeps a product; cancel it instead"
PAYS, WHOLE = "an order is paid once, while it is pending", "an order is paid whole"
SHIPS, HANDS = "only a paid order is shipped", "only a shipped order is delivered"
CANCELS, BACK = "only an order that has not been shipped is cancelled", "only what was paid is refunded"
KNOWN, THERE = "only a registered customer is changed", "only what is available is reserved"
HELD = "only what is reserved is released"
REFUSALS: list[tuple[list[Event], Command, str, str]] = [
    ([PLACED], PLACE, ONCE, "PENDING"),
    ([PLACED, CANCELLED], PLACE, ONCE, "CANCELLED"),
    ([], ADD, GROWS, "NEW"),
    ([PLACED, PAID], ADD, GROWS, "PAID"),
    ([], REMOVE, SHRINKS, "NEW"),
    ([PLACED, CANCELLED], REMOVE, SHRINKS, "CANCELLED"),
    ([PLACED, REMOVED], REMOVE, "only what was ordered is removed", "the order has ink"),
    ([PLACED, REMOVED], RemoveOrderLine(**O1, product_id="ink"), KEEPS, "the order has ink"),
    ([], PAY, PAYS, "NEW"),
    ([PLACED, PAID], PAY, PAYS, "PAID"),
    ([PLACED, PAID, refunded("24.98")], PAY, PAYS, "PAID"),
    ([PLACED], PayOrder(**O1, amount=Decimal("24.97")), WHOLE, "24.98 due, 24.97 offered"),
    ([PLACED, ADDED], PAY, WHOLE, "25.28 due, 24.98 offered"),
    ([PLACED.model_copy(update={"freight": Decimal(3)})], PAY, WHOLE, "27.98 due, 24.98 offered"),
    ([PLACED], SHIP, SHIPS, "PENDING"),
    ([PLACED, PAID, CANCELLED], SHIP, SHIPS, "CANCELLED"),
    ([PLACED, PAID], DELIVER, HANDS, "PAID"),
    ([PLACED, PAID, SHIPPED, DELIVERED], DELIVER, HANDS, "DELIVERED"),
    ([], CANCEL, CANCELS, "NEW"),
    ([PLACED, PAID, SHIPPED], CANCEL, CANCELS, "SHIPPED"),
    ([PLACED, CANCELLED], CANCEL, CANCELS, "CANCELLED"),
    ([PLACED], REFUND, BACK, "0 paid and not refunded yet"),
    ([PLACED, PAID], RefundOrder(**O1, amount=Decimal("24.99")), BACK, "24.98 paid and not refunded yet"),
    ([PLACED, PAID, refunded("24.98")], REFUND, BACK, "0.00 paid and not refunded yet"),
    ([REGISTERED], RegisterCustomer(**C1, name="Ada", email="ada@example.org"), "a customer is registered once", "reg"),
    ([], RenameCustomer(**C1, name="Ada"), KNOWN, "not registered"),
    ([], ChangeCustomerEmail(**C1, email="ada@example.org"), KNOWN, "not registered"),
    ([], ReserveStock(**P1, **O1, quantity=1), THERE, "0 available, 1 wanted"),
    ([STOCKED, RESERVED], ReserveStock(**P1, order_id="o-2", quantity=3), THERE, "2 available, 3 wanted"),
    ([STOCKED], ReleaseStock(**P1, **O1), HELD, "0 reserved for o-1"),
    ([STOCKED, RESERVED], ReleaseStock(**P1, **O1, quantity=4), HELD, "3 reserved for o-1"),
    ([STOCKED, RESERVED], ReleaseStock(**P1, order_id="o-2"), HELD, "0 reserved for o-2"),
]


def named(value: Any) -> str | None:
    """Return what a case is called: its command."""
    return type(value).__name__ if isinstance(value, Command) else "" if isinstance(value, (list, str)) else None


@pytest.mark.parametrize(("before", "command", "after"), DECISIONS, ids=named)
def test_what_a_command_leads_to(before, command, after):
    """Each command leads to its event with the right totals, or to nothing when it would change nothing."""
    given(before).when(command).then(after)


@pytest.mark.parametrize(("before", "command", "rule", "state"), REFUSALS, ids=named)
def test_what_a_rule_refuses(before, command, rule, state):
    """Each rule refuses what breaks it, and names itself and the state."""
    specification = given(before).when(command)
    specification.then(RuleViolated(rule, state))
    with pytest.raises(RuleViolated) as refused:
        specification.decider.decide(command, specification.decider.fold(before))
    assert state in refused.value.state


def test_stock_adds_up():
    """Units move between the shelf and the orders, and an order that holds none is not listed."""
    stock = products.fold([STOCKED, RESERVED, StockReserved(**P1, order_id="o-2", quantity=1), PRICED])
    assert (stock.available, dict(stock.reserved), stock.price) == (1, {"o-1": 3, "o-2": 1}, Decimal("9.99"))
    stock = products.fold([StockReleased(**P1, **O1, quantity=3)], stock)
    assert (stock.available, dict(stock.reserved)) == (4, {"o-2": 1})


@pytest.mark.parametrize("amount", ["0", "-1"])
def test_a_refund_is_of_something(amount):
    """A refund of nothing, or of less, is not even a command."""
    with pytest.raises(InvalidMessage, match="amount"):
        RefundOrder(**O1, amount=Decimal(amount))


TEN = Decimal(10)


def charge(gateway: SimulatedGateway, key: str | None, times: int = 2) -> list[str]:
    """Ask for the same charge again and again; return how each call ended."""
    ended = []
    for _ in range(times):
        try:
            gateway.charge("o-1", TEN, key=key)
            ended.append("answered")
        except (Declined, TimedOut) as error:
            ended.append(type(error).__name__)
    return ended


@pytest.mark.parametrize(
    ("answer", "key", "ended", "charged"),
    [
        ("approve", None, ["answered", "answered"], 20),
        ("approve", "k", ["answered", "answered"], 10),
        ("decline", "k", ["Declined", "Declined"], 0),
        ("time out", "k", ["TimedOut", "TimedOut"], 0),
        ("lose the answer", None, ["TimedOut", "answered"], 20),
        ("lose the answer", "k", ["TimedOut", "answered"], 10),
    ],
)
def test_a_key_makes_a_charge_safe_to_repeat(answer, key, ended, charged):
    """Without a key whoever asks twice pays twice; with one the second call acts no more; refusals move nothing."""
    gateway = SimulatedGateway({"o-1": answer})
    assert charge(gateway, key) == ended
    assert gateway.charged("o-1") == charged
    assert gateway.give_back("o-1", key="back") == gateway.give_back("o-1", key="back") == charged
    assert gateway.charged("o-1") == 0


def test_the_same_calls_give_the_same_statement():
    """The statement lists what moved, in order, and a gateway that hears the same calls writes the same one."""

    def heard() -> list[Movement]:
        gateway = SimulatedGateway({"o-2": "decline"}, otherwise="lose the answer")
        charge(gateway, "a")
        charge(gateway, "b", times=1)
        with suppress(Declined):
            gateway.charge("o-2", TEN)
        gateway.give_back("o-1")
        gateway.give_back("o-1")
        return gateway.statement

    assert heard() == heard() == [Movement("o-1", TEN), Movement("o-1", TEN), Movement("o-1", -2 * TEN)]


def test_a_stage_of_somebody_elses_is_kept() -> None:
    """An order at a stage that another decider added, such as RETURNED, stays there."""
    returned = replace(orders.initial, status="RETURNED", paid=Decimal(5))
    after = orders.fold([OrderRefunded(order_id="o-1", amount=5)], returned)
    assert (after.status, after.paid) == ("RETURNED", 0)
