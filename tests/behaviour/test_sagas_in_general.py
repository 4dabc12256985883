"""Sagas: where they begin, what they may not do, and the story that their steps tell."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from support import line, place
from support.fulfilment import ORDER, check, prepare, shop, state, types

from cqrs_lab import Command, Event, open_shop
from cqrs_lab.errors import DeclarationError
from cqrs_lab.shop import (
    CustomerRegistered,
    PlaceOrder,
    RegisterCustomer,
    SimulatedGateway,
    StockProduct,
    StockReleased,
    fulfilment,
    orders,
)
from cqrs_lab.write.sagas import Saga


@pytest.mark.parametrize(("after", "done"), [(None, ["o-2"]), (0, ["o-1", "o-2"])])
def test_where_a_saga_begins(after, done, tmp_path):
    """A saga leaves history alone when it comes to a store, or takes it all on with after=0; a restart goes on."""
    with shop(tmp_path / "shop.duckdb", follows=False) as lab:
        lab.send(place("o-1", *ORDER))
        lab.follow("fulfilment", after=after)
        lab.send(place("o-2", *ORDER))
    with shop(tmp_path / "shop.duckdb", stock={}) as lab:  # which follows with after=None
        lab.catch_up()
        assert [id for id in ("o-1", "o-2") if state(lab, orders, id).status == "SHIPPED"] == done
        assert lab.follow("fulfilment") is lab.follow(fulfilment)


def gift_of(state: list[str], event: Event) -> list[Command]:
    """Return the gift that a new customer is sent."""
    new = isinstance(event, CustomerRegistered)
    return [PlaceOrder(order_id="o-1", customer_id=event.customer_id, lines=[line("pen", 9, 0)])] if new else []


told: list[str] = []
welcome = Saga(
    name="welcome",
    key="customer_id",
    events=[CustomerRegistered],
    initial=(),
    evolve=lambda state, event: (*state, event),
    react=lambda state, event: (told.append(f"{type(event).__name__} {len(state)}"), gift_of(state, event))[1],
)


def test_two_sagas_work_beside_each_other():
    """One saga's commands set another to work, and neither sees what the other one was refused."""
    told.clear()
    gateway = SimulatedGateway()
    with shop(gateway=gateway, also=[welcome]) as lab:
        lab.follow(welcome)
        for id in ("c-1", "o-1"):  # a customer and an order of one id: the second gift is refused to o-1
            lab.send(RegisterCustomer(customer_id=id, name="Ada", email="ada@example.org"))
        lab.catch_up()
        lab.catch_up()
        refused = lab.events(types=["StepRefused"]).dicts()
        assert [row["stream"] for row in refused] == ["welcome/o-1", "fulfilment/o-1"]
        assert '"rule":"an order is placed once (PENDING)"' in refused[0]["data"]
        assert told == ["CustomerRegistered 1", "CustomerRegistered 1", "StepRefused 2"]
        check(lab, gateway, ["o-1"], {"pen": 5, "ink": 5})
        head = lab.head
        for saga in (welcome, fulfilment):  # from the log alone
            lab.follow(saga)._store(0)
        told.clear()
        with pytest.MonkeyPatch.context() as patch:
            for name in ("welcome", "fulfilment"):
                patch.setattr(lab._followers[name]._handle.__self__, "_states", {})
            lab.catch_up()
        assert told == ["CustomerRegistered 1", "CustomerRegistered 1", "StepRefused 2"]
        assert lab.head == head


def test_steps_tell_their_story_and_their_cause():
    """A saga's commands carry the correlation id of the story, the event's id as causation, and ids made from it."""
    with shop(stock={"pen": 5}) as lab:
        lab.send(place("o-1", *ORDER), correlation_id="story-1", command_id="first")
        lab.catch_up()
        rows = lab.events(after=1).dicts()
        ids = {str(row["event_id"]): row["type"] for row in rows}
        assert {row["correlation_id"] for row in rows} == {"story-1"}
        causes = [(ids.get(row["causation_id"], row["causation_id"]), row["type"]) for row in rows]
        assert causes == [
            ("first", "OrderPlaced"),
            ("OrderPlaced", "StockReserved"),
            ("OrderPlaced", "StepRefused"),
            ("StepRefused", "OrderCancelled"),
            ("OrderCancelled", "StockReleased"),
        ]
        commands = lab._log.database.execute(
            "SELECT command_id, causation_id FROM commands WHERE command_id LIKE 'fulfilment/%' ORDER BY first_position"
        )
        assert [id for id, _ in commands] == [
            f"fulfilment/{cause}/{n}" for (_, cause), n in zip(commands, [1, 2, 1, 1], strict=True)
        ]


def test_a_policy_may_refuse_a_saga():
    """The policy sees a saga under its name, and what it does not allow is a refused step."""
    policy = lambda command, actor: "no" if (type(command).__name__, actor) == ("ReserveStock", "fulfilment") else None  # noqa: E731
    with open_shop(policy=policy, threads=1) as lab:
        lab.follow(fulfilment)
        lab.send(StockProduct(product_id="p-1", quantity=5))
        lab.send(place("o-1"))
        lab.catch_up()
        (row,) = lab.events(types=["StepRefused"]).dicts()
        assert row["stream"] == "fulfilment/o-1"
        assert "fulfilment may not send ReserveStock: no" in row["data"]
        assert state(lab, orders, "o-1").status == "CANCELLED"


def test_a_saga_must_be_declared():
    """An unknown saga is refused with the names of the known ones; so is an event without the saga's key."""
    with shop() as lab:
        for unknown in ("loyalty", welcome):
            with pytest.raises(DeclarationError, match=r"declares no saga .*; there are fulfilment"):
                lab.follow(unknown)
    with pytest.raises(DeclarationError, match="StockReleased lacks 'customer_id', the key of saga 'loyalty'"):
        Saga("loyalty", "customer_id", [CustomerRegistered, StockReleased], (), gift_of, gift_of)
    with pytest.raises(DeclarationError, match="same category"), shop(also=[fulfilment]):
        pass


@pytest.mark.parametrize("answer", [None, StockProduct(product_id="pen", quantity=1)])
def test_what_react_answers_is_a_list(answer):
    """A react() that returns nothing, or one command, is told so with the event, which waits for a better one."""
    wrong = replace(welcome, react=lambda state, event: answer)
    with shop(follows=False, also=[wrong]) as lab:
        follower = lab.follow(wrong)
        before = lab.send(RegisterCustomer(customer_id="c-1", name="Ada", email="ada@example.org")).position - 1
        with pytest.raises(DeclarationError, match=r"saga 'welcome' answered CustomerRegistered with .*returns a list"):
            follower.catch_up()
        assert (follower.position, lab.head) == (before, before + 1)


def test_a_refused_step_is_not_asked_again(tmp_path, monkeypatch):
    """After a restart a step that was refused stays refused, though it would go through by now."""
    prepare(tmp_path / "shop.duckdb", ["o refused"])
    for life in range(2):
        with shop(tmp_path / "shop.duckdb", stock={"pad": 9} if life else {}, follows=False) as lab:
            follower, asked = lab.follow(fulfilment, after=0), []
            follower._store(0)  # as if its checkpoint were lost
            send = lab._commands.send
            monkeypatch.setattr(lab._commands, "send", lambda *a, **m: (asked.append(a[0]), send(*a, **m))[1])  # noqa: B023
            lab.catch_up()
            assert Counter(types(lab))["StepRefused"] == 1
            assert bool(asked) is (life == 0)
