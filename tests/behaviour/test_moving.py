"""Servings that move by themselves: with an append, in the background, every so often."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from support import as_table, pay, place, placed, wait_until
from support.layers import contacts, listed
from support.servings import assert_whole, fragile, lag, mended, poison

from cqrs_lab import ReadModel, open_shop
from cqrs_lab.errors import ProjectionFailed, StoreInUse
from cqrs_lab.shop import (
    OrderCancelled,
    OrderDetails,
    RegisterCustomer,
    daily_orders,
    fulfilment,
    order_summary,
)


def test_inline_rows_are_there_when_an_append_returns():
    """However events come, when they are stored every inline model tells them, layers too; nobody has to wait."""
    with open_shop() as lab:
        lab.follow(fulfilment)
        models = (order_summary, daily_orders, contacts, listed)
        for model in models:
            lab.serve(model, mode="inline")
        appends: list[Callable[[], Any]] = [
            lambda: lab.send(RegisterCustomer(customer_id="c-1", name="Ann", email="a@b.c")),
            lambda: lab.send(place(1)),
            lambda: lab.send_many([place(2), place(3), pay(2)]),
            lambda: lab.append_table("order", as_table([placed(7), placed(8, "c-2")])),
            lab.catch_up,  # the saga sends commands of its own
        ]
        for append in appends:
            before = lab.head
            append()
            assert lab.head > before
            assert_whole(lab, *models)
        assert lab.ask(OrderDetails(order_id="o-7"), at_least=lab.head, timeout=0)["total"] == Decimal("10.00")


def test_an_append_goes_on_without_an_inline_model_that_fails():
    """A model whose SELECT fails on an event stops before it and says why; the append and other models do not care."""
    with open_shop() as lab:
        for model in (order_summary, fragile, daily_orders):
            lab.serve(model, mode="inline")
        lab.send(place(1))
        position = poison(lab, 2)
        assert lab.head == position
        assert_whole(lab, order_summary, daily_orders)
        said = lag(lab, fragile)
        assert (said["position"], said["events_behind"], said["state"]) == (position - 1, 1, "stopped")
        assert "no number" in said["error"]
        lab.send(place(3))
        assert lag(lab, fragile)["position"] == position - 1  # not tried again with every append
        assert lab.serve(fragile).get("o-1") == {"order_id": "o-1", "n": None}
        with pytest.raises(ProjectionFailed, match="no number"):
            lab.catch_up()
        lab.serve(mended).rebuild()
        assert lab.catch_up() == lab.head
        assert lag(lab, mended)["state"] == "ok"
        lab.send(place(4))
        assert_whole(lab, order_summary, mended)


def test_a_table_of_events_is_stored_whatever_an_inline_model_makes_of_it():
    """append_table stores facts that break an inline model; that one stops, and the others follow."""
    with open_shop() as lab:
        for model in (fragile, order_summary):
            lab.serve(model, mode="inline")
        lab.append_table("order", as_table([placed(1), (OrderCancelled(order_id="o-1", reason="bad"), 2)]))
        assert_whole(lab, order_summary)
        assert (lag(lab, fragile)["state"], lag(lab, fragile)["position"]) == ("stopped", 0)


def test_a_layer_that_fails_inline_stops_alone():
    """When only the model on top fails, what it is built on goes on; when the one below fails, both stop."""
    top = ReadModel("top", "order_id", "SELECT order_id, CAST(status AS INTEGER) AS n FROM order_summary")
    above = ReadModel("above", "order_id", "SELECT order_id, n + 1 AS m FROM fragile")
    with open_shop() as lab:
        lab.serve(order_summary, mode="inline")
        for model in (top, fragile, above):
            lab.serve(model, mode="inline")
        poison(lab)
        assert_whole(lab, order_summary)
        assert {lag(lab, model)["state"] for model in (top, fragile, above)} == {"stopped"}
        assert lag(lab, order_summary)["state"] == "ok"


def test_catch_up_moves_all_others_before_it_says_what_failed():
    """One projection that fails does not keep lab.catch_up() from moving the rest."""
    with open_shop() as lab:
        for model in (daily_orders, fragile, order_summary):
            lab.serve(model)
        poison(lab)
        with pytest.raises(ProjectionFailed, match="fragile"):
            lab.catch_up()
        assert_whole(lab, order_summary, daily_orders)
        assert (lag(lab, fragile)["state"], lag(lab, fragile)["position"]) == ("stopped", 0)


def test_a_background_model_follows_by_itself():
    """The thread wakes at every append and has the rows there; lag_history() says how late."""
    with open_shop() as lab:
        for model in (order_summary, daily_orders):
            lab.serve(model, mode="background")
        for number in range(20):
            position = lab.send(place(number)).position
            wait_until(lambda: lag(lab, order_summary)["events_behind"] == 0)
        assert lab.serve(order_summary).get("o-19")["status"] == "PENDING"
        wait_until(lambda: len(lab.lag_history()) == 40)
        history = lab.lag_history().pl()
        assert history.columns == ["model", "served_as", "position", "seconds"]
        assert sorted(set(history["position"])) == list(range(1, position + 1))
        assert history["seconds"].min() >= 0


def test_closing_stops_the_thread_and_a_reopened_lab_goes_on(tmp_path):
    """close() ends the thread; what was appended meanwhile elsewhere is caught up when the lab is opened."""
    path = tmp_path / "shop.duckdb"
    lab = open_shop(path)
    lab.serve(order_summary, mode="background")
    runner = lab._servings.running.runner
    lab.close()
    assert not runner.is_alive
    assert runner.error is None
    with open_shop(path) as lab:
        lab.send(place())
        wait_until(lambda: lag(lab, order_summary)["events_behind"] == 0)
        assert lag(lab, order_summary)["mode"] == "background"


def test_a_forgotten_lab_ends_its_thread_and_closes_its_file(tmp_path):
    """A lab that nobody holds is collected though its thread waits; the file can then be opened in another way."""
    path = tmp_path / "shop.duckdb"
    lab = open_shop(path)
    lab.serve(order_summary, mode="background")
    lab.send(place())
    runner = lab._servings.running.runner
    del lab

    def is_closed() -> bool:
        gc.collect()
        try:
            open_shop(path, read_only=True).close()
        except StoreInUse:
            return False
        return True

    wait_until(lambda: is_closed() and not runner.is_alive)


def test_a_table_is_refreshed_after_so_many_events():
    """refresh_every=3 leaves a table alone for two events and refreshes it with the third."""
    with open_shop() as lab:
        table = lab.serve(order_summary, as_="materialized", refresh_every=3)
        lab.send(place(1))
        lab.send(place(2))
        time.sleep(0.1)
        assert table.position == 0
        lab.send(place(3))
        wait_until(lambda: table.position == 3)
        assert len(table.rows()) == 3
        assert lag(lab, order_summary, "materialized")["mode"] == "every 3 events"


def test_a_table_is_refreshed_after_so_much_time():
    """refresh_every=timedelta(…) refreshes a table that is behind, and not more often than that."""
    with open_shop() as lab:
        table = lab.serve(order_summary, as_="materialized", refresh_every=timedelta(seconds=0.1))
        for number in (1, 2):
            lab.send(place(number))
            wait_until(lambda number=number: table.position == number)
        lab.serve(order_summary, as_="materialized", refresh_every=timedelta(hours=1))
        lab.send(place(3))
        time.sleep(0.3)
        assert table.position == 2
