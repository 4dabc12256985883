"""Servings that move by themselves amid races, kills and failures: rows and positions stay together."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from support import place, python, wait_until
from support.servings import assert_whole, fragile, lag, mended

from cqrs_lab import open_shop
from cqrs_lab.read import runner as running
from cqrs_lab.read.runner import Running
from cqrs_lab.read.stored import Stored
from cqrs_lab.shop import CancelOrder, OrderDetails, daily_orders, order_summary
from cqrs_lab.store.followers import pause_after


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


def test_a_failing_background_model_is_retried_ever_later_and_then_left_alone(monkeypatch):
    """A poison event is tried again after pauses that grow, then no more; other models go on all the time."""
    assert pause_after(1) < pause_after(3) < pause_after(5)  # random, within a factor of two
    assert pause_after(100) <= 30
    monkeypatch.setattr(running, "ATTEMPTS", 5)
    paused: list[int] = []
    monkeypatch.setattr(running, "pause_after", lambda attempts: paused.append(attempts) or 0.01 * 2**attempts)
    tried: list[int] = []
    real = Stored.forward

    def forward(stored: Stored, end: int) -> int:
        if stored.model == fragile and stored._catalog.log.head > 1:
            tried.append(len(paused))
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
        assert tried == [0, 1, 2, 3, 4]  # pauses before each attempt
        assert paused == [1, 2, 3, 4]
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
        assert other.ask(OrderDetails(order_id="o-500"), at_least=position, timeout=120) is not None
        one.close()
        other.send(place(501))
        wait_until(lambda: lag(other, order_summary)["events_behind"] == 0)


def test_waiting_ends_when_the_append_of_another_comes_through():
    """Many who wait for their own positions all get there, whatever order the thread moves in."""
    with open_shop() as lab:
        lab.serve(order_summary, mode="background")
        found: list[str] = []

        def work(number: int) -> None:
            receipt = lab.send(place(number))
            query = OrderDetails(order_id=f"o-{number}")
            found.append(lab.ask(query, at_least=receipt.position, timeout=120)["status"])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == ["PENDING"] * 8
