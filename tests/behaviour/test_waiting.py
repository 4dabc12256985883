"""Modes in which servings move, and waiting for what they tell."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from support import pay, place, wait_until
from support.servings import assert_whole, fragile, lag, poison

from cqrs_lab import open_shop
from cqrs_lab.errors import NotYet, ReadOnlyStore
from cqrs_lab.read import runner as running
from cqrs_lab.read.served import reach
from cqrs_lab.shop import OrderDetails, daily_orders, order_summary


def test_modes_are_kept_and_can_be_changed(tmp_path):
    """A mode stays when it is not named, also in a reopened store, and changes when it is."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path) as lab:
        assert lab.serve(order_summary).mode == "manual"
        lab.send(place(1))
        assert lab.serve(order_summary, mode="inline").position == 0
        lab.send(place(2))
        assert lab.serve(order_summary).position == 2
        lab.serve(daily_orders, as_="materialized", refresh_every=timedelta(hours=1))
    with open_shop(path) as lab:
        assert lab.serve(order_summary).mode == "inline"
        lab.send(place(3))
        assert lab.serve(order_summary).position == 3
        assert lab.serve(daily_orders, as_="materialized").mode == "every 3600 seconds"
        lab.serve(order_summary, mode="background")
        lab.send(place(4))
        wait_until(lambda: lab.serve(order_summary).position == 4)
        lab.serve(order_summary, mode="manual")
        lab.send(place(5))
        time.sleep(0.1)
        assert lab.serve(order_summary).position == 4
        lab.serve(order_summary, mode="inline")
        assert lab.catch_up() == 5
        assert_whole(lab, order_summary)


def test_a_read_only_lab_moves_nothing(tmp_path):
    """A store opened read-only has no thread; its servings answer as of their position, and waiting says so."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path) as lab:
        lab.serve(order_summary, mode="background")
        lab.serve(daily_orders)
        lab.send(place())
        wait_until(lambda: lag(lab, order_summary)["events_behind"] == 0)
    with open_shop(path, read_only=True) as lab:
        assert lab._servings.running.runner is None
        assert lag(lab, order_summary)["state"] == "ok"
        assert lab.ask(OrderDetails(order_id="o-1"), at_least=1)["order_id"] == "o-1"
        with pytest.raises(ReadOnlyStore):
            lab.serve(order_summary, mode="inline")
        with pytest.raises(ReadOnlyStore):
            lab.catch_up()


@pytest.mark.parametrize(
    ("as_", "given"),
    [("projection", {"mode": "manual"}), ("projection", {"mode": "inline"}), ("projection", {"mode": "background"}),
     ("materialized", {}), ("materialized", {"refresh_every": 1}), ("view", {})],
    ids=str,
)  # fmt: skip
def test_whoever_waits_reads_his_own_writes(as_, given):
    """wait_for and at_least return when the serving tells the events; what does not move by itself is moved."""
    with open_shop() as lab:
        served = lab.serve(order_summary, as_=as_, **given)
        for number in range(3):
            receipt = lab.send(place(number), wait_for="order_summary", timeout=120)
            assert served.position >= receipt.position
            assert served.get(f"o-{number}")["status"] == "PENDING"
            paid = lab.send(pay(number)).position
            query = OrderDetails(order_id=f"o-{number}")
            assert lab.ask(query, at_least=paid, served_as=as_, timeout=120)["status"] == "PAID"


def test_not_yet_says_how_far_it_got():
    """What does not come in time is refused, and says where the serving stands and how long it was waited for."""
    with open_shop() as lab:
        lab.serve(order_summary, as_="materialized", refresh_every=1000)
        lab.send(place(1))
        lab.serve(order_summary, as_="materialized").refresh()
        with pytest.raises(NotYet, match=r"at position 1 and not yet at 2 after 0\.1 s") as refused:
            lab.send(place(2), wait_for=order_summary, timeout=0.1)
        assert refused.value.position == 1
        assert lab.head == 2  # it is stored


@pytest.mark.parametrize("mode", ["inline", "background"])
def test_waiting_for_a_stopped_model_fails_at_once(mode, monkeypatch):
    """Who waits for a model that is stopped is told why, and does not wait for the timeout."""
    monkeypatch.setattr(running, "ATTEMPTS", 1)
    with open_shop() as lab:
        lab.serve(fragile, mode=mode)
        position = poison(lab)
        wait_until(lambda: lag(lab, fragile)["state"] == "stopped")
        real, waited = lab._catalog.memory.moved.wait, []
        monkeypatch.setattr(lab._catalog.memory.moved, "wait", lambda left: waited.append(left) or real(left))
        with pytest.raises(NotYet, match="no number") as refused:
            reach(lab._servings.running, fragile, position, timeout=1_000)
        assert waited == []
        assert refused.value.position < position
        with pytest.raises(NotYet, match="no number"):
            lab.send(place(9), wait_for="fragile", timeout=1_000)


def test_a_mode_is_not_taken_back_by_a_thread_that_moves():
    """A mode that changes while the thread moves the rows stays changed."""
    with open_shop() as lab:
        lab.serve(order_summary, mode="background")
        lab.send(place(1))
        stale = lab._servings.running._of_mode("background")[0]  # as the thread has it that is about to move
        lab.serve(order_summary, mode="inline")
        lab.send(place(2))
        stale.forward(lab.head)
        stale.build(lab.head)
        assert lab.serve(order_summary).mode == "inline"
        assert lag(lab, order_summary)["mode"] == "inline"
