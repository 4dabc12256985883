"""The shop in a lab: its summary agrees with its rules, and payments are asked for with one key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from itertools import count
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from support import line, pay, place

from cqrs_lab import Domain, Lab, open_shop
from cqrs_lab.errors import RuleViolated
from cqrs_lab.shop import (
    AddOrderLine,
    CancelOrder,
    DeliverOrder,
    OrderDetails,
    PaymentDeclined,
    PaymentReturned,
    PaymentTaken,
    PaymentTimedOut,
    PayOrder,
    RefundOrder,
    RemoveOrderLine,
    ReturnPayment,
    ShipOrder,
    SimulatedGateway,
    TakePayment,
    orders,
    payments,
)
from cqrs_lab.shop.payments import Answer

O1: dict[str, Any] = {"order_id": "o-1"}
PAY, SHIP = PayOrder(**O1, amount=Decimal("24.98")), ShipOrder(**O1, tracking_number="T-1")
DELIVER, CANCEL, REFUND = DeliverOrder(**O1), CancelOrder(**O1, reason="late"), RefundOrder(**O1)


@pytest.fixture(scope="module")
def shop() -> Iterator[Lab]:
    """Open one shop for all examples, its summary served as a view."""
    with open_shop(threads=1) as lab:
        lab.serve("order_summary", as_="view")
        yield lab


names = iter(f"o-{number}" for number in count(1))
lines = st.builds(line, st.sampled_from(["pen", "ink"]), st.integers(1, 3), st.sampled_from(["0", "0.10", "9.99"]))
steps = st.one_of(
    st.builds(AddOrderLine, order_id=st.just("?"), line=lines),
    st.builds(RemoveOrderLine, order_id=st.just("?"), product_id=st.sampled_from(["pen", "ink"])),
    st.just("pay"),
    st.builds(RefundOrder, order_id=st.just("?"), amount=st.sampled_from([None, Decimal("0.10"), Decimal(10)])),
    st.sampled_from([SHIP, DELIVER, CANCEL]),
)


@hypothesis.given(first=st.lists(lines, min_size=1, max_size=2), asked=st.lists(steps, max_size=9))
@hypothesis.settings(max_examples=40)
def test_the_summary_is_what_the_rules_see(shop, first, asked):
    """After any commands nothing negative is paid, and the summary agrees with the order that the rules fold."""
    id = next(names)
    shop.send(place(id, *first))
    for step in asked:
        past = [r.event for r in shop._log.read(orders.log_category, id)]
        step = pay(id, orders.fold(past).due) if step == "pay" else step
        with suppress(RuleViolated):
            shop.send(step.model_copy(update={"order_id": id}))
        past = [r.event for r in shop._log.read(orders.log_category, id)]
        order, row = orders.fold(past), shop.ask(OrderDetails(order_id=id))
        assert order.paid >= 0
        assert order.total == sum(one.quantity * one.unit_price for one in order.lines)
        assert (row["status"], row["total"], row["paid"]) == (order.status, order.total, order.paid)
        assert (row["item_count"], row["version"]) == (sum(one.quantity for one in order.lines), len(past))


TEN = Decimal(10)


class Listening(SimulatedGateway):
    """A gateway that notes the keys that it was asked with."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(otherwise=answer)
        self.keys: list[str | None] = []

    def charge(self, order_id: str, amount: Decimal, *, key: str | None = None) -> None:
        """Note the key and charge."""
        self.keys.append(key)
        super().charge(order_id, amount, key=key)


@pytest.mark.parametrize(
    ("answer", "attempts", "event", "asked", "charged"),
    [
        ("approve", 3, PaymentTaken(**O1, amount=TEN), 1, 10),
        ("decline", 3, PaymentDeclined(**O1, reason="the card was declined"), 1, 0),
        ("time out", 3, PaymentTimedOut(**O1), 3, 0),
        ("lose the answer", 3, PaymentTaken(**O1, amount=TEN), 2, 10),
        ("lose the answer", 1, PaymentTimedOut(**O1), 1, 10),
    ],
)
def test_the_service_asks_with_one_key(answer, attempts, event, asked, charged):
    """A charge through lab.send is asked for with the command's id as its only key, and its outcome is an event."""
    gateway = Listening(answer)
    domain = Domain(deciders=[orders], services=[payments(gateway, attempts)])
    with Lab(domain=domain, threads=1) as lab:
        receipt = lab.send(TakePayment(**O1, amount=TEN), command_id="take-1")
        assert (receipt.events, receipt.stream, receipt.version) == ((event,), "payment/o-1", 1)
        assert gateway.keys == ["take-1"] * asked
        assert gateway.charged("o-1") == charged
        again = lab.send(TakePayment(**O1, amount=TEN), command_id="take-1")  # answered from the log
        assert (again.events, len(gateway.keys), lab.head) == ((event,), asked, 1)
        back = lab.send(ReturnPayment(**O1)).events
        assert back == (PaymentReturned(**O1, amount=Decimal(charged)),)
        assert gateway.charged("o-1") == 0
