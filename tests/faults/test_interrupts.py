"""Ctrl-C and interrupt(): they arrive soon, leave nothing half done, and stop nothing else."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support import Child, batch, pay, place
from support.stores import LONG, check_whole, opens_elsewhere, rows

from cqrs_lab import ReadModel, open_shop
from cqrs_lab.errors import ProjectionFailed, StoreClosed
from cqrs_lab.shop import OrderPlaced, ShipOrder, order_facts, order_summary, orders
from cqrs_lab.store.database import Database
from cqrs_lab.store.interrupts import stoppable


def test_ctrl_c_stops_a_question_and_an_append(child: Child, store: Path) -> None:
    """Ctrl-C in a question without an end or an append raises KeyboardInterrupt; nothing is stored, the next works."""
    child.run(
        f"lab = open_shop({str(store)!r}, threads=2); served = lab.serve(order_summary); past = lab.as_of(position=9)"
    )
    child.run(f"table = batch('i', 400_000); long = {LONG!r}.replace('FROM ', 'FROM order_summary, ')")
    for act, wait in (
        ("past.sql(long).fetchall()", 0.3),
        ("served.sql(long).pl()", 0.3),
        ("lab.events().fetchall() and past.sql(long).df()", 0.4),
        ('lab.append_table("order", table)', 0.02),
        ('lab.append_table("order", table)', 0.2),
        ('lab.append_table("order", table)', 0.5),
    ):
        child.tell(
            f"""
try:
    say("go")
    {act}
    time.sleep(120)
except KeyboardInterrupt:
    say(f"{{lab.head}} {{lab.send(place('n-' + str(lab.head))).position}} {{lab.catch_up()}}")
"""
        )
        assert child.line() == "go"
        time.sleep(wait)
        os.kill(child.pid, signal.SIGINT)
        head, position, caught_up = child.line().split()
        assert int(position) == int(caught_up) == int(head) + 1
        assert child.line() == "done"
    child.run("lab.close()")
    with open_shop(store, threads=1) as lab:
        head = check_whole(lab)
        assert head in (306, *(306 + 400_000 * n for n in (1, 2, 3)))  # an append that was faster than the signal


@pytest.mark.parametrize("act", ["append", "append_table", "catch_up", "rebuild"])
def test_interrupt_between_statements(store: Path, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    """A KeyboardInterrupt between two statements of a transaction leaves nothing of it, and the next call works."""
    with open_shop(store, threads=1) as lab:
        served = lab.serve(order_summary)
        lab.send(place("before"))
        database, ran = lab._log.database, 0
        execute = type(database).execute

        def interrupted(self: Any, sql: str, params: Any = ()) -> Any:
            nonlocal ran
            ran += self.in_transaction
            if ran > 2:
                ran = -1000
                raise KeyboardInterrupt
            return execute(self, sql, params)

        acts = {
            "append": lambda: lab.send(place("i-1")),
            "append_table": lambda: lab.append_table("order", batch("i", 100)),
            "catch_up": served.catch_up,
            "rebuild": served.rebuild,
        }
        monkeypatch.setattr(type(database), "execute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            acts[act]()
        assert lab.head == 301
        assert served.position == 300
        acts[act]()
        assert lab.head == {"append": 302, "append_table": 401}.get(act, 301)
        check_whole(lab)


def test_interrupt_just_behind_a_commit(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KeyboardInterrupt right after a commit leaves the append stored and known, and the same stream goes on."""
    with open_shop(store, threads=1) as lab:
        served = lab.serve(order_facts)
        lab.send(place("i-1"))
        execute = Database.execute

        def interrupted(self: Database, sql: str, params: Any = ()) -> Any:
            rows = execute(self, sql, params)
            if sql == "COMMIT":
                raise KeyboardInterrupt
            return rows

        for act in (lambda: lab.send(pay("i-1")), served.catch_up):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
                patch.setattr(Database, "execute", interrupted)
                act()
        assert lab.head == served.position == 302
        assert lab.send(ShipOrder(order_id="i-1", tracking_number="t")).version == 3
        assert check_whole(lab) == 303


def test_a_poison_event_during_a_rebuild(store: Path) -> None:
    """A rebuild that meets an event which the read model cannot take fails, and the old rows keep serving."""
    small = ReadModel(
        "small",
        key="order_id",
        sql="SELECT order_id, max(total)::DECIMAL(4, 2) AS total FROM order_events GROUP BY order_id",
    )
    with open_shop(store, threads=1) as lab:
        ways = [lab.serve(small, "projection"), lab.serve(small, "materialized")]
        rows = ways[0].rows().fetchall()
        event = OrderPlaced(order_id="o-big", total=Decimal("100.00"))
        lab._store.append(orders.log_category, "o-big", [event])
        for move in (ways[0].catch_up, ways[0].rebuild, ways[1].refresh):
            with pytest.raises(ProjectionFailed, match="small"):
                move()
        for served in ways:
            assert served.position == 300
            assert served.rows().fetchall() == rows
        assert lab.serve(order_summary).catch_up() == 301


@pytest.mark.parametrize("how", ["execute", "arrow", "views", "transaction"])
def test_interrupt(database: Database, how: str) -> None:
    """interrupt() from another thread stops a statement with KeyboardInterrupt, and the next one works."""
    stopped = threading.Event()

    def stop() -> None:  # again and again, because an interrupt before the statement began stops nothing
        while not stopped.wait(0.1):
            database.interrupt()

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(KeyboardInterrupt, match="nothing of it was stored"):  # noqa: PT012
        if how == "execute":
            database.execute(LONG)
        elif how == "arrow":
            database.arrow(LONG)
        elif how == "views":
            database.arrow(LONG, views={"x": "SELECT 1 AS a"})
        else:
            with database.transaction():
                database.execute("INSERT INTO t VALUES (1)")
                database.execute(LONG)
    stopped.set()
    stopping.join()
    assert rows(database) == []


def test_an_interrupt_of_nothing_stops_nothing(database: Database) -> None:
    """An interrupt while nothing runs does not fall on the next statement."""
    database.execute("SELECT 1")
    database.interrupt()
    assert database.execute("SELECT 42") == [(42,)]


def test_ctrl_c_is_never_late(child: Child) -> None:
    """Ctrl-C at any moment of a statement stops it, with one thread or several, and no later one with it."""
    child.tell(
        f"""
others = {{number: Database.open(threads=number) for number in (1, 2, 4)}}
woken = []
signal.signal(signal.SIGUSR1, lambda *_: woken.append(1))
while True:
    threads = int(input())
    try:
        say("go")
        others[threads].execute({LONG!r})
    except KeyboardInterrupt:
        say(others[threads].execute("SELECT 42"))
"""
    )
    assert child.process.stdin is not None
    for number in range(24):
        child.process.stdin.write(f"{(1, 2, 4)[number % 3]}\n")
        assert child.line() == "go"
        time.sleep(number / 200)
        os.kill(child.pid, signal.SIGUSR1)  # another signal stops nothing
        time.sleep(0.01)
        os.kill(child.pid, signal.SIGINT)
        assert child.line() == "[(42,)]"


def test_ctrl_c_stops_what_it_came_in() -> None:
    """A Ctrl-C that its own statement has already answered does not stop the next one."""
    stopped: list[str] = []
    for _ in range(30):
        with pytest.raises(KeyboardInterrupt), stoppable(lambda: stopped.append("first")):  # noqa: PT012
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        with stoppable(lambda: stopped.append("second")):
            time.sleep(0.01)
    assert "second" not in stopped


def test_another_handler_keeps_its_signals() -> None:
    """Where somebody else handles Ctrl-C, or waits to be woken by signals, a statement is left to them."""
    stopped: list[int] = []
    woken, wake = socket.socketpair()
    with woken, wake:
        wake.setblocking(False)
        before = signal.set_wakeup_fd(wake.fileno())
        handler = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            with stoppable(lambda: stopped.append(1)):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            assert woken.recv(10) == bytes([signal.SIGINT])
            assert signal.set_wakeup_fd(before) == wake.fileno()
        finally:
            signal.signal(signal.SIGINT, handler)
    assert not stopped


def test_closing_stops_other_threads(database: Database, path: Path) -> None:
    """Closing while another thread runs a statement stops it with StoreClosed, and the file is free."""
    other = Database.open(path)
    other.release()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(database.execute, LONG)
        time.sleep(0.3)
        database.release()
        with pytest.raises(StoreClosed):
            running.result()
        assert opens_elsewhere(path) == "opened"
