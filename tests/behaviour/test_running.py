"""Servings that move by themselves: with an append, in the background, every so often; and waiting for them."""

from __future__ import annotations

import gc
import itertools
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from support import as_table, assert_same, place, placed, python, wait_until
from support.layers import contacts, listed

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.errors import NotYet, ProjectionFailed, ReadOnlyStore, StoreInUse
from cqrs_lab.read import running
from cqrs_lab.read.moving import Stored
from cqrs_lab.read.running import Running
from cqrs_lab.shop import (
    CancelOrder,
    OrderDetails,
    PayOrder,
    RegisterCustomer,
    daily_orders,
    fulfilment,
    order_summary,
)
from cqrs_lab.subscriptions import pause_after

fragile = ReadModel(
    "fragile", "order_id", "SELECT order_id, max(CAST(reason AS INTEGER)) AS n FROM order_events GROUP BY order_id"
)
mended = ReadModel(
    "fragile", "order_id", "SELECT order_id, max(TRY_CAST(reason AS INTEGER)) AS n FROM order_events GROUP BY order_id"
)


def poison(lab: Lab, number: int = 1) -> int:
    """Place and cancel an order for a reason that is no number, and return the position of that."""
    lab.send(place(number))
    return lab.send(CancelOrder(order_id=f"o-{number}", reason="no number")).position


def lag(lab: Lab, model: ReadModel, served_as: str = "projection") -> dict[str, Any]:
    """Return what is said of how far one serving is behind."""
    return next(row for row in lab.lag().dicts() if (row["model"], row["served_as"]) == (model.name, served_as))


def assert_whole(lab: Lab, *models: ReadModel) -> None:
    """Assert that projections stand at the head and hold what the log says."""
    for model in models:
        served = lab.serve(model)
        assert served.position == lab.head
        text = f"SELECT * FROM ({model.expanded(lab._servings.models, lab._log.source)})"
        assert_same(lab, served._select(), text)


# -- inline ------------------------------------------------------------------------------------------------------------


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
            lambda: lab.send_many([place(2), place(3), PayOrder(order_id="o-2", amount="5.00")]),
            lambda: lab.append_table("order", as_table([placed(7), placed(8, "c-2")])),
            lab.catch_up,  # the saga sends commands of its own
        ]
        for append in appends:
            before = lab.head
            append()
            assert lab.head > before
            assert_whole(lab, *models)
        assert lab.ask(OrderDetails(order_id="o-7"), at_least=lab.head, timeout=0)["total"] == Decimal("10.00")


def test_nobody_reads_a_position_without_its_rows():
    """While a writer appends, an inline model's position never tells more than its rows, and no event is without."""
    with open_shop() as lab:
        served, problems, done = lab.serve(order_summary, mode="inline"), [], threading.Event()

        def read() -> None:
            while not done.is_set():
                position = served.position  # each order is one event
                events, rows = lab._log.database.execute(
                    f"SELECT (SELECT count(*) FROM order_events), (SELECT count(*) FROM {served.stored.table})"
                )[0]
                if events != rows or rows < position:
                    problems.append((position, events, rows))

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for number in range(40):
            lab.send(place(number))
        done.set()
        for reader in readers:
            reader.join()
        assert problems == []


def test_a_rebuild_never_takes_inline_rows_back():
    """However a rebuild falls together with appends, an inline model stands at the head when an append has returned."""
    with open_shop() as lab:
        served, done = lab.serve(order_summary, mode="inline"), threading.Event()

        def rebuild() -> None:
            while not done.is_set():
                served.rebuild()

        thread = threading.Thread(target=rebuild)
        thread.start()
        positions = [(lab.send(place(number)).position, served.position) for number in range(60)]
        done.set()
        thread.join()
        assert all(position <= reached for position, reached in positions)
        assert_whole(lab, order_summary)
        assert lag(lab, order_summary)["state"] == "ok"


@pytest.mark.parametrize(("when", "head"), [("before", 1), ("after", 2), ("at any time", None)])
def test_a_killed_process_leaves_events_and_inline_rows_together(child, tmp_path, when, head):
    """Killed just before the commit, just after it, or at any time, the store holds an append with its rows or not."""
    path = tmp_path / "shop.duckdb"
    child.run(f"lab = open_shop({str(path)!r}); lab.serve(order_summary, mode='inline'); lab.send(place(1))")
    if head is None:
        child.tell("for n in range(2, 10_000): lab.send(place(n))")
        time.sleep(0.15)
        child.process.kill()
    else:
        child.tell(f"die_at('COMMIT', {when!r}); lab.send(place(2))")
    assert child.wait() == -signal.SIGKILL
    with open_shop(path) as lab:
        assert lab.head == head or (head is None and lab.head > 0)
        assert_whole(lab, order_summary)
        lab.send(place(10_000))
        assert_whole(lab, order_summary)


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
        from cqrs_lab.shop import OrderCancelled

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


# -- in the background -------------------------------------------------------------------------------------------------


def test_a_background_model_follows_by_itself():
    """The thread wakes at every append and has the rows there within a second; lag_history() says how late."""
    with open_shop() as lab:
        for model in (order_summary, daily_orders):
            lab.serve(model, mode="background")
        for number in range(20):
            position = lab.send(place(number)).position
            start = time.monotonic()
            wait_until(lambda: lag(lab, order_summary)["events_behind"] == 0, timeout=1)
            assert time.monotonic() - start < 1
        assert lab.serve(order_summary).get("o-19")["status"] == "PENDING"
        wait_until(lambda: len(lab.lag_history()) == 40)
        history = lab.lag_history().pl()
        assert history.columns == ["model", "served_as", "position", "seconds"]
        assert sorted(set(history["position"])) == list(range(1, position + 1))
        p50, p99 = (history["seconds"].quantile(share) for share in (0.5, 0.99))
        assert 0 < p50 <= p99 < 5


def test_a_failing_background_model_is_retried_ever_later_and_then_left_alone(monkeypatch):
    """A poison event is tried again after pauses that grow, then no more; other models go on all the time."""
    assert pause_after(1) < pause_after(3) < pause_after(5)  # random, within a factor of two
    assert pause_after(100) <= 30
    monkeypatch.setattr(running, "ATTEMPTS", 5)
    monkeypatch.setattr(running, "pause_after", lambda attempts: 0.01 * 2**attempts)
    tried: list[float] = []
    real = Stored.forward

    def forward(stored: Stored, end: int) -> int:
        if stored.model == fragile and stored._side.log.head > 1:
            tried.append(time.monotonic())
        return real(stored, end)

    with open_shop() as lab:
        for model in (fragile, order_summary):
            lab.serve(model, mode="background")
        lab.send(place(1))
        wait_until(lambda: lag(lab, fragile)["position"] == 1)
        monkeypatch.setattr(Stored, "forward", forward)
        lab.send(CancelOrder(order_id="o-1", reason="no number"))
        wait_until(lambda: lag(lab, fragile)["state"] == "failing")
        wait_until(lambda: lag(lab, fragile)["state"] == "stopped")
        pauses = [late - early for early, late in itertools.pairwise(tried)]
        assert len(tried) == 5
        assert all(pause >= 0.01 * 2**n for n, pause in enumerate(pauses, start=1))
        lab.send(place(2))
        wait_until(lambda: lag(lab, order_summary)["events_behind"] == 0)
        assert lag(lab, order_summary)["state"] == "ok"
        assert len(tried) == 5
        said = lag(lab, fragile)
        assert (said["position"], "no number" in said["error"]) == (1, True)
        lab.serve(mended).rebuild()
        lab.send(place(3))
        wait_until(lambda: lag(lab, mended)["events_behind"] == 0)


def test_a_thread_that_died_is_seen_and_started_again(monkeypatch):
    """When the thread ends by an error, lag() says that it does not run; serving again starts another."""

    class Accident(BaseException):
        pass

    def work(self: Running) -> float | None:
        raise Accident

    with open_shop() as lab:
        monkeypatch.setattr(Running, "work", work)
        lab.serve(order_summary, mode="background")
        wait_until(lambda: not lab._servings.running.is_alive)
        assert isinstance(lab._servings.running.runner.error, Accident)
        assert "thread does not run" in lag(lab, order_summary)["state"]
        monkeypatch.undo()
        lab.serve(order_summary)
        lab.send(place())
        wait_until(lambda: lag(lab, order_summary)["events_behind"] == 0)
        assert lag(lab, order_summary)["state"] == "ok"


def test_closing_stops_the_thread_and_a_reopened_lab_goes_on(tmp_path):
    """close() ends the thread at once; what was appended meanwhile elsewhere is caught up when the lab is opened."""
    path = tmp_path / "shop.duckdb"
    lab = open_shop(path)
    lab.serve(order_summary, mode="background")
    runner = lab._servings.running.runner
    start = time.monotonic()
    lab.close()
    assert time.monotonic() - start < 2
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


EXITS = """
import sys
from cqrs_lab import open_shop
from cqrs_lab.shop import order_summary
from support import place

lab = open_shop(sys.argv[1])
lab.serve(order_summary, mode="background")
for n in range(5):
    lab.send(place(n))
"""


def test_a_program_that_ends_without_closing_does_not_hang(tmp_path):
    """At the end of the interpreter the thread stands in nobody's way, and the store is whole."""
    path = tmp_path / "shop.duckdb"
    done = python(EXITS, path)
    assert (done.returncode, done.stderr) == (0, "")
    with open_shop(path) as lab:
        lab.catch_up()
        assert_whole(lab, order_summary)


def test_a_table_is_refreshed_after_so_many_events():
    """refresh_every=3 leaves a table alone for two events and refreshes it with the third."""
    with open_shop() as lab:
        table = lab.serve(order_summary, as_="materialized", refresh_every=3)
        lab.send(place(1))
        lab.send(place(2))
        time.sleep(0.1)
        assert table.position == 0
        lab.send(place(3))
        wait_until(lambda: table.position == 3, timeout=2)
        assert len(table.rows()) == 3
        assert lag(lab, order_summary, "materialized")["mode"] == "every 3 events"


def test_a_table_is_refreshed_after_so_much_time():
    """refresh_every=timedelta(…) refreshes a table that is behind, and not more often than that."""
    with open_shop() as lab:
        table = lab.serve(order_summary, as_="materialized", refresh_every=timedelta(seconds=0.3))
        lab.send(place(1))
        wait_until(lambda: table.position == 1, timeout=2)
        lab.send(place(2))
        time.sleep(0.1)
        assert table.position == 1
        wait_until(lambda: table.position == 2, timeout=2)


def test_two_labs_over_one_file_move_the_same_servings(tmp_path):
    """Two labs with threads of their own follow each other's appends and never stand in each other's way."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path) as one, open_shop(path) as other:
        for lab in (one, other):
            lab.serve(order_summary, mode="background")
            lab.serve(daily_orders, as_="materialized", refresh_every=5)
        threads = [
            threading.Thread(target=lambda lab=lab, start=start: [lab.send(place(start + n)) for n in range(30)])
            for lab, start in ((one, 0), (other, 100))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for lab in (one, other):
            wait_until(lambda lab=lab: lag(lab, order_summary)["events_behind"] == 0)
            assert {row["error"] for row in lab.lag().dicts()} == {None}
            assert_whole(lab, order_summary)
        position = one.send(place(500)).position
        assert other.ask(OrderDetails(order_id="o-500"), at_least=position) is not None
        one.close()
        other.send(place(501))
        wait_until(lambda: lag(other, order_summary)["events_behind"] == 0)


# -- modes -------------------------------------------------------------------------------------------------------------


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


# -- waiting -----------------------------------------------------------------------------------------------------------


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
        for number in range(5):
            receipt = lab.send(place(number), wait_for="order_summary")
            assert served.position >= receipt.position
            assert served.get(f"o-{number}")["status"] == "PENDING"
            paid = lab.send(PayOrder(order_id=f"o-{number}", amount="5.00")).position
            assert lab.ask(OrderDetails(order_id=f"o-{number}"), at_least=paid, served_as=as_)["status"] == "PAID"


def test_not_yet_says_how_far_it_got():
    """What does not come in time is refused after about that time, and says where the serving stands."""
    with open_shop() as lab:
        lab.serve(order_summary, as_="materialized", refresh_every=1000)
        lab.send(place(1))
        lab.serve(order_summary, as_="materialized").refresh()
        start = time.monotonic()
        with pytest.raises(NotYet, match="at position 1 and not yet at 2") as refused:
            lab.send(place(2), wait_for=order_summary, timeout=0.4)
        assert 0.4 <= time.monotonic() - start < 0.8
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
        start = time.monotonic()
        with pytest.raises(NotYet, match="no number") as refused:
            lab._servings.running.reach(fragile, position, timeout=10)
        assert time.monotonic() - start < 1
        assert refused.value.position < position
        with pytest.raises(NotYet, match="no number"):
            lab.send(place(9), wait_for="fragile", timeout=10)
        assert time.monotonic() - start < 2


def test_waiting_ends_when_the_append_of_another_comes_through():
    """Many who wait for their own positions all get there, whatever order the thread moves in."""
    with open_shop() as lab:
        lab.serve(order_summary, mode="background")
        found: list[str] = []

        def work(number: int) -> None:
            receipt = lab.send(place(number))
            found.append(lab.ask(OrderDetails(order_id=f"o-{number}"), at_least=receipt.position)["status"])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == ["PENDING"] * 8


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
