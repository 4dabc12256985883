"""A forked process: every call on an open store is refused there by name, and the parent does not notice it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from support import place

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.errors import StoreForked
from cqrs_lab.shop import OrderDetails, daily_orders, order_summary

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
PATIENCE = 20  # seconds until a child is taken to hang


def in_child(work: Callable[[], object]) -> Any:
    """Do something in a forked process; return what came of it, an error by its name."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            told: object = work()
        except BaseException as error:
            told = type(error).__name__
        os.write(writing, pickle.dumps(told))
        os._exit(0)
    os.close(writing)
    ready = select.select([reading], [], [], PATIENCE)[0]
    if not ready:
        os.kill(pid, signal.SIGKILL)
    said = os.read(reading, 10_000)
    os.close(reading)
    os.waitpid(pid, 0)
    return pickle.loads(said) if said else "hangs"


@pytest.fixture
def lab(path: Path) -> Iterator[Lab]:
    """A shop with an order, served in every way."""
    with open_shop(path, threads=1, cache_seconds=60) as lab:
        lab.serve(order_summary, mode="background")
        lab.serve(daily_orders, mode="inline")
        lab.serve(order_summary, as_="view")
        lab.send(place("o-1"), wait_for=order_summary)
        lab.ask(OrderDetails(order_id="o-1"))
        yield lab


def calls(lab: Lab) -> dict[str, Callable[[], object]]:
    """What somebody may do with a lab."""
    served = lab.serve(order_summary)
    past = lab.as_of(position=1)
    return {
        "send": lambda: lab.send(place("child")),
        "send_many": lambda: lab.send_many([place("child")]),
        "head": lambda: lab.head,
        "repr": lambda: repr(lab),
        "events": lambda: lab.events().fetchall(),
        "ask": lambda: lab.ask(OrderDetails(order_id="o-1")),
        "lag": lambda: lab.lag(),
        "catch_up": lambda: lab.catch_up(),
        "serve": lambda: lab.serve(ReadModel("n", "order_id", "SELECT order_id FROM order_events GROUP BY ALL")),
        "forget": lambda: lab.forget("c-1"),
        "backup": lambda: lab.backup(f"{lab.path}.copy"),
        "dead letters": lambda: lab.dead_letters(),
        "history": lambda: lab.history(order_summary, "o-1"),
        "fork": lambda: lab.fork(position=1),
        "served.get": lambda: served.get("o-1"),
        "served.rows": lambda: served.rows().fetchall(),
        "served.rebuild": lambda: served.rebuild(),
        "served.position": lambda: served.position,
        "served, at least": lambda: lab.serve(order_summary).catch_up(),
        "past.rows": lambda: past.rows(order_summary).fetchall(),
        "open the same file": lambda: open_shop(lab.path),
    }


def test_every_call_in_a_child_is_refused_by_name(lab: Lab) -> None:
    """Whatever a forked process does with an open store is refused, also what memory could answer."""
    told = {name: in_child(call) for name, call in calls(lab).items()}
    assert told == dict.fromkeys(told, "StoreForked")
    lab.send(place("o-2"))
    assert lab.events().pl()["stream"].to_list() == ["order/o-1", "order/o-2"]


def test_a_child_of_a_busy_parent_does_not_hang(lab: Lab) -> None:
    """Refusals come at once, also when a thread of the parent held a lock at the moment of the fork."""
    database, free, held = lab._log.database, threading.Event(), threading.Event()
    locks = [*database._locks.values(), database._registry_lock, database._guard]

    def hold() -> None:
        mine = [lock for lock in locks if lock.acquire(timeout=1)]  # one may be in use, and stays held as well
        held.set()
        free.wait(PATIENCE * 10)
        for lock in mine:
            lock.release()

    doing = calls(lab)
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(PATIENCE)
    try:
        told = {name: in_child(call) for name, call in doing.items()}
        assert in_child(lambda: lab.close()) is None
    finally:
        free.set()
        holder.join()
    assert told == dict.fromkeys(told, "StoreForked")


def test_a_child_of_a_parent_in_the_middle_of_statements_does_not_hang(lab: Lab) -> None:
    """What other threads of the parent run at the moment of the fork keeps the child from nothing."""
    served, over = lab.serve(order_summary), threading.Event()
    long = "SELECT count(*) FROM range(200_000) AS a, range(2_000) AS b WHERE (a.range * b.range) % 7 = 3"

    def ask() -> None:
        while not over.is_set():
            lab._log.database.execute(long)

    def write() -> None:
        for number in range(10_000):
            if over.is_set():
                return
            lab.send(place(f"beside-{number}"))

    threads = [threading.Thread(target=each) for each in (ask, write)]
    for each in threads:
        each.start()
    try:
        told = [in_child(lambda: served.get("o-1")) for _ in range(20)]
        opened = [in_child(lambda: open_shop().send(place("o-1")).position) for _ in range(5)]
    finally:
        over.set()
        for each in threads:
            each.join()
    assert told == ["StoreForked"] * 20
    assert opened == [1] * 5


def test_a_pool_that_forks_loses_nothing(path: Path) -> None:
    """Workers of a forked pool are refused; every append that was acknowledged is there when the store is opened."""
    with open_shop(path, threads=1) as lab:
        lab.send(place("o-1"))

        def work(number: int) -> str:
            try:
                return str(lab.send(place(f"w-{number}")).position)
            except Exception as error:
                return type(error).__name__

        global _work
        _work = work
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(_worked, range(6), 1) == ["StoreForked"] * 6
        assert lab.send(place("o-2")).position == 2
    with open_shop(path) as again:
        assert [each["stream"] for each in again.events().dicts()] == ["order/o-1", "order/o-2"]


_work: Callable[[int], str]


def _worked(number: int) -> str:
    return _work(number)


@pytest.mark.parametrize("way", ["sys.exit(0)", "os._exit(0)", "lab.close(); sys.exit(0)", "del lab; sys.exit(0)",
                                 "raise SystemExit", "os.kill(os.getpid(), 9)"])  # fmt: skip
@pytest.mark.parametrize("killed", [False, True])
def test_the_end_of_a_child_leaves_the_file_alone(path: Path, way: str, killed: bool) -> None:
    """However a child ends, the parent's file and log stay: also when the parent is killed later and not closed."""
    program = f"""
        import os, sys, threading
        from cqrs_lab import open_shop
        from support import place
        lab = open_shop({str(path)!r}, threads=2)
        lab.send(place("o-1"))
        threading.Thread(target=lambda: lab.head).start()
        pid = os.fork()
        if pid == 0:
            {way}
        status = os.waitpid(pid, 0)[1]
        lab.send(place("o-2"))
        print(status, flush=True)
        {"os.kill(os.getpid(), 9)" if killed else "lab.close()"}
    """
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", dedent(program)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert told.stdout.strip() == ("9" if "kill" in way else "0"), told.stderr
    with open_shop(path) as again:
        assert [each["stream"] for each in again.events().dicts()] == ["order/o-1", "order/o-2"]


def test_a_store_in_memory_is_refused_in_a_child() -> None:
    """A store in memory would have another future in a child, of which the parent never hears."""
    with open_shop() as lab:
        assert in_child(lambda: lab.send(place("o-1"))) == "StoreForked"
        assert lab.head == 0


def test_a_child_drops_a_store_and_nothing_is_destroyed() -> None:
    """A child that lets go of a store goes on: DuckDB's threads are not there to be ended."""
    program = """if True:
        import gc, os
        from cqrs_lab import open_shop
        lab = open_shop(threads=4)
        lab.send(__import__("support").place("o-1"))
        if os.fork() == 0:
            lab = None
            gc.collect()
            print("went on", flush=True)
            raise SystemExit(0)
        print(os.wait()[1], lab.head)
    """
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert told.stdout == "went on\n0 1\n", told.stderr


def test_a_child_may_open_stores_of_its_own(lab: Lab, path: Path) -> None:
    """A forked process opens other files, interrupts included."""

    def work() -> list[str]:
        with open_shop(path.with_name("other.duckdb")) as mine:
            mine.send(place("o-9"))
            return [each["stream"] for each in mine.events().dicts()]

    assert in_child(work) == ["order/o-9"]
    with pytest.raises(StoreForked, match="spawn"):
        raise StoreForked("shop.duckdb", 1)
