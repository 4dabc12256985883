"""The saga of an order: reserved, charged and shipped, or cancelled with nothing left over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

import hypothesis
import pytest
from hypothesis import strategies as st
from support import line, place
from support.fulfilment import ORDER, check, shop, state, types

from cqrs_lab import Command
from cqrs_lab.errors import RuleViolated
from cqrs_lab.shop import AddOrderLine, CancelOrder, PayOrder, RemoveOrderLine, SimulatedGateway, fulfilment, orders
from cqrs_lab.shop.orders import Order
from cqrs_lab.shop.payments import TimedOut

TEN = Decimal(10)


def test_an_order_is_reserved_charged_and_shipped():
    """Every line is reserved, the due is charged once, and the order is paid and shipped."""
    gateway = SimulatedGateway()
    with shop(gateway=gateway) as lab:
        lab.send(place("o-1", *ORDER))
        lab.catch_up()
        assert types(lab)[2:] == [
            *["OrderPlaced", "StockReserved", "StockReserved", "PaymentTaken", "OrderPaid", "OrderShipped"]
        ]
        assert lab.follow(fulfilment).position == lab.head
        check(lab, gateway, ["o-1"], {"pen": 5, "ink": 5})


def test_a_free_order_is_shipped_as_well():
    """An order whose lines cost nothing is paid with nothing and shipped."""
    gateway = SimulatedGateway()
    with shop(gateway=gateway) as lab:
        lab.send(place("o-1", line("pen", 1, 0)))
        lab.catch_up()
        assert state(lab, orders, "o-1").status == "SHIPPED"
        check(lab, gateway, ["o-1"], {"pen": 5, "ink": 5})


def test_one_missing_product_cancels_the_order():
    """When one line of three is refused the others are released, the order says why, and nobody is charged."""
    gateway = SimulatedGateway()
    stock = {"pen": 5, "ink": 1, "pad": 5}
    with shop(gateway=gateway, stock=stock) as lab:
        lab.send(place("o-1", line("pen"), line("ink", 2), line("pad", 3)))
        lab.catch_up()
        refused, cancelled = (lab.events(types=[kind]).dicts() for kind in ("StepRefused", "OrderCancelled"))
        rule = "only what is available is reserved (1 available, 2 wanted)"
        assert [row["stream"] for row in refused] == ["fulfilment/o-1"]
        assert all(said in refused[0]["data"] for said in (rule, '"command":"ReserveStock"', '"about":"product/ink"'))
        assert f"product/ink: {rule}" in cancelled[0]["data"]
        assert Counter(types(lab))["StockReleased"] == 2
        assert gateway.statement == []
        check(lab, gateway, ["o-1"], stock)


def test_an_order_is_cancelled_once():
    """When two lines are refused the first refusal cancels the order and the second asks for nothing."""
    with shop(stock={}) as lab:
        lab.send(place("o-1", *ORDER))
        lab.catch_up()
        assert types(lab) == ["OrderPlaced", "StepRefused", "StepRefused", "OrderCancelled"]


@pytest.mark.parametrize(
    ("answer", "attempts", "reason", "moved"),
    [
        ("decline", 3, "the card was declined", []),
        ("time out", 3, "the payment gateway did not answer", []),
        ("lose the answer", 1, "the payment gateway did not answer", [30, -30]),
    ],
)
def test_no_payment_cancels_the_order(answer, attempts, reason, moved):
    """An order that is declined or not answered is cancelled; money that moved all the same is given back."""
    gateway = SimulatedGateway(otherwise=answer)
    with shop(gateway=gateway, attempts=attempts) as lab:
        lab.send(place("o-1", *ORDER))
        lab.catch_up()
        assert reason in lab.events(types=["OrderCancelled"]).dicts()[0]["data"]
        assert [movement.amount for movement in gateway.statement] == moved
        check(lab, gateway, ["o-1"], {"pen": 5, "ink": 5})


def test_what_is_owed_stays_owed(monkeypatch):
    """When giving back gets no answer nothing is recorded of it, and the next catch_up asks again with the same key."""
    gateway, keys = SimulatedGateway(otherwise="lose the answer"), []
    give_back = gateway.give_back

    def giving(order_id: str, *, key: str) -> Decimal:
        keys.append(key)
        given = give_back(order_id, key=key)
        if len(keys) == 1:
            raise TimedOut
        return given

    monkeypatch.setattr(gateway, "give_back", giving)
    with shop(gateway=gateway, attempts=1) as lab:
        lab.send(place("o-1", *ORDER))
        with pytest.raises(TimedOut):
            lab.catch_up()
        assert "PaymentReturned" not in types(lab)
        lab.catch_up()
        assert types(lab)[-1] == "PaymentReturned"
        assert keys == [keys[0]] * 2
        check(lab, gateway, ["o-1"], {"pen": 5, "ink": 5})


# What somebody else does to an order while the saga is at work.
MEDDLING: dict[str, Callable[[str, Order], list[Command]]] = {
    "cancel": lambda id, order: [CancelOrder(order_id=id, reason="changed my mind")],
    "pay by hand": lambda id, order: [PayOrder(order_id=id, amount=order.due, method="cash")],
    "add": lambda id, order: [AddOrderLine(order_id=id, line=line("ink", 2))],
    "add too much": lambda id, order: [AddOrderLine(order_id=id, line=line("pen", 500))],
    "remove": lambda id, order: [RemoveOrderLine(order_id=id, product_id="ink")],
    "add and remove": lambda id, order: [
        AddOrderLine(order_id=id, line=line("pad")),
        RemoveOrderLine(order_id=id, product_id="pad"),
    ],
    "pay by hand and cancel": lambda id, order: [*MEDDLING["pay by hand"](id, order), *MEDDLING["cancel"](id, order)],
    "remove, pay by hand": lambda id, order: [
        *MEDDLING["remove"](id, order),
        PayOrder(order_id=id, amount=order.due - TEN, method="cash"),
    ],
}


@pytest.mark.parametrize(
    ("meddling", "answer"),
    [
        *[(name, "approve") for name in MEDDLING],
        *[(name, "lose the answer") for name in ("cancel", "pay by hand", "add and remove")],
        ("add", "decline"),
    ],
)
def test_somebody_meddles_before_any_step(meddling, answer, monkeypatch):
    """Whatever a customer does before any step, or while the gateway is asked, the order comes to one of its ends."""
    gateway = SimulatedGateway(otherwise=answer)
    placed, by_hand, stocked = [], [], {"pen": 500, "ink": 500, "pad": 500}
    with shop(gateway=gateway, attempts=1, stock=stocked) as lab:
        send, charge = lab._commands.send, gateway.charge
        count, at = 0, 0

        def meddle() -> None:
            nonlocal count
            count += 1
            if count == at:
                for command in MEDDLING[meddling](placed[-1], state(lab, orders, placed[-1])):
                    with suppress(RuleViolated):
                        send(command)
                        if isinstance(command, PayOrder):
                            by_hand.append(placed[-1])

        def meddled(command, **more):
            meddle()
            return send(command, **more)

        def charging(*args, **more):
            charge(*args, **more)
            meddle()

        monkeypatch.setattr(lab._commands, "send", meddled)
        monkeypatch.setattr(gateway, "charge", charging)
        while count >= at:
            count, at = 0, at + 1
            placed.append(f"o-{at}")
            send(place(placed[-1], *ORDER))
            lab.catch_up()
        assert at > 4
        check(lab, gateway, placed, stocked, by_hand)


which = st.integers(0, 2)
some = st.builds(line, st.sampled_from(["pen", "ink"]), st.integers(1, 3), st.sampled_from([0, 10]))
acts = st.one_of(
    st.tuples(st.just("place"), which, st.lists(some, min_size=1, max_size=3)),
    st.tuples(st.sampled_from(["cancel", "pay"]), which, st.none()),
    st.tuples(st.just("add"), which, some),
    st.tuples(st.just("remove"), which, st.sampled_from(["pen", "ink"])),
    st.tuples(st.just("catch up"), st.integers(1, 4), st.none()),
)
answers = st.sampled_from(["approve", "approve", "decline", "time out", "lose the answer"])


@hypothesis.given(
    stock=st.fixed_dictionaries({"pen": st.integers(1, 9), "ink": st.integers(1, 9)}),
    answers=st.lists(answers, min_size=3, max_size=3),
    attempts=st.sampled_from([1, 3]),
    first=st.lists(some, min_size=1, max_size=3),
    acts=st.lists(acts, max_size=20),
)
@hypothesis.settings(max_examples=15)
def test_every_order_comes_to_an_end(stock, answers, attempts, first, acts):
    """Whatever is ordered, answered and changed in between, orders come to an end, and seen again change nothing."""
    ids = ["o-0", "o-1", "o-2"]
    gateway = SimulatedGateway(dict(zip(ids, answers, strict=True)))
    by_hand: list[str] = []
    with shop(gateway=gateway, attempts=attempts, stock=stock) as lab:
        follower = lab.follow(fulfilment)
        for act, number, more in [("place", 0, first), *acts]:
            id = ids[number] if number < 3 else ""
            with suppress(RuleViolated):
                match act:
                    case "place":
                        lab.send(place(id, *more))
                    case "cancel":
                        lab.send(CancelOrder(order_id=id, reason="changed my mind"))
                    case "pay":
                        lab.send(PayOrder(order_id=id, amount=state(lab, orders, id).due, method="cash"))
                        by_hand.append(id)
                    case "add":
                        lab.send(AddOrderLine(order_id=id, line=more))
                    case "remove":
                        lab.send(RemoveOrderLine(order_id=id, product_id=more))
                    case "catch up":
                        follower.catch_up(to=follower.position + number)
        lab.catch_up()
        placed = [id for id in ids if state(lab, orders, id).status != "NEW"]
        check(lab, gateway, placed, stock, by_hand)
        head = lab.head
        follower._store(0)
        assert (lab.catch_up(), lab.head) == (head, head)
