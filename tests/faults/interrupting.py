"""Ctrl-C at random moments, for as long as one likes, while everything that changes a store is done.

Use: python tests/faults/interrupting.py SECONDS [--seed N]

After each call, interrupted or not: KeyboardInterrupt came and no other error, what memory says is what the tables say,
and all servings agree at the position that they tell.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import pyarrow as pa  # noqa: E402
from support import place  # noqa: E402

from cqrs_lab import Lab, ReadModel, open_shop  # noqa: E402
from cqrs_lab.errors import StoreClosed  # noqa: E402
from cqrs_lab.shop import (  # noqa: E402
    PayOrder,
    RegisterCustomer,
    customer_contacts,
    daily_orders,
    daily_sales,
    order_facts,
    order_summary,
)

MEDIAN = ReadModel("medians", "customer_id", "SELECT customer_id, median(total) AS m FROM order_events GROUP BY ALL")
RANKED = ReadModel("ranked", "order_id", "SELECT order_id, rank() OVER (ORDER BY total DESC) AS place FROM order_facts",
                   over=(order_facts,))  # fmt: skip
PROJECTED = (order_summary, daily_sales, daily_orders, customer_contacts, MEDIAN, RANKED)


class Wrong(AssertionError):
    """A store that an interrupt left wrong, with what was done before."""


class Interrupting:
    """A shop in which random things are done, and stopped.

    Args:
        path: of its store.
        seed: of the choices; the moments of the interrupts are the machine's.
    """

    def __init__(self, path: str, seed: int) -> None:
        self.rng, self.path, self.number = random.Random(seed), path, 0
        self.told: Counter[str] = Counter()
        self.lab = self._open()
        self.lab.serve(daily_orders, mode="inline")

    def _open(self) -> Lab:
        return open_shop(self.path, threads=self.rng.choice([1, 2]))

    # -- what is done ----------------------------------------------------------------------------------------------

    def send(self) -> None:
        self.number += 1
        self.lab.send(place(f"o-{self.number}", customer=f"c-{self.number % 5}"))

    def pay(self) -> None:
        self.lab.send(PayOrder(order_id=f"o-{self.rng.randint(1, max(1, self.number))}", amount=1))

    def register(self) -> None:
        self.lab.send(RegisterCustomer(customer_id=f"c-{self.rng.randint(0, 4)}", name="Ann Secret", email="a@b.org"))

    def batch(self) -> None:
        first = self.number + 1
        self.number += 5
        self.lab.send_many([place(f"o-{n}", customer=f"c-{n % 5}") for n in range(first, first + 5)])

    def table(self) -> None:
        self.number += 3
        ids = [f"t-{self.number}-{n}" for n in range(3)]
        times = pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * 3, pa.timestamp("us", "UTC"))
        self.lab.append_table("order", pa.table({"id": ids, "type": ["OrderDelivered"] * 3, "occurred_at": times}))

    def serve(self) -> None:
        self.lab.serve(self.rng.choice(PROJECTED))

    def background(self) -> None:
        self.lab.serve(MEDIAN, mode=self.rng.choice(["background", "manual"]))

    def catch_up(self) -> None:
        self.lab.catch_up()

    def rebuild(self) -> None:
        self.lab.serve(self.rng.choice(PROJECTED)).rebuild()

    def refresh(self) -> None:
        self.lab.serve(order_summary, as_="materialized").refresh()

    def keep(self) -> None:
        self.lab.serve(order_summary, keep_history=self.rng.random() < 0.7)

    def forget(self) -> None:
        self.lab.forget(f"c-{self.rng.randint(0, 4)}")

    def ask(self) -> None:
        self.lab.as_of(position=self.rng.randint(0, self.lab.head)).rows(order_summary).fetchall()

    def again(self) -> None:
        self.lab.close()
        self.lab = self._open()

    CALLS = ("send", "send", "pay", "register", "batch", "table", "serve", "background", "catch_up", "catch_up",
             "rebuild", "refresh", "keep", "forget", "ask", "again")  # fmt: skip

    # -- one step --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Do one thing, interrupt it or not, and look at everything."""
        name = self.rng.choice(self.CALLS)
        outcome = self._interrupted(getattr(self, name), self.rng.choice([0.0005, 0.003, 0.01, 0.03, 0.1, 0.3]))
        self.told[f"{name}: {outcome}"] += 1
        try:
            self._look()
        except Exception as error:
            raise Wrong(f"after {name} ({outcome}): {type(error).__name__}: {error}") from error

    def _interrupted(self, call: Callable[[], None], longest: float) -> str:
        """Do something, with a Ctrl-C some time from now; say how it ended."""
        came, is_over = threading.Event(), threading.Event()

        def stop() -> None:
            if not is_over.wait(self.rng.random() * longest):
                came.set()
                os.kill(os.getpid(), signal.SIGINT)

        sender, dropped = threading.Thread(target=stop), []
        outcome = "done"
        # One that comes inside a callback of the garbage collector is printed and dropped by Python itself.
        sys.unraisablehook = lambda told: dropped.append(told.exc_type is KeyboardInterrupt)
        try:
            sender.start()
            call()
        except KeyboardInterrupt:
            outcome = "interrupted"
        except Exception as error:
            if type(error).__name__ != "RuleViolated":
                raise Wrong(f"{type(error).__name__} in the place of KeyboardInterrupt: {error}") from error
            outcome = "refused"
        while True:
            try:
                is_over.set()
                sender.join()
                # One that was sent comes, if only now.
                for _ in range(200):
                    if not came.is_set() or outcome == "interrupted":
                        break
                    if any(dropped):
                        return "dropped by Python"
                    time.sleep(0.005)
                else:
                    raise Wrong(f"an interrupt was swallowed ({outcome})")
                return outcome
            except KeyboardInterrupt:
                outcome = "interrupted"

    def _look(self) -> None:
        try:
            assert self.lab.head >= 0
        except StoreClosed:  # it was interrupted between close and open
            self.lab = self._open()
        lab, run = self.lab, self.lab._log.database.execute
        lab.catch_up()
        lab._servings.running.stop()  # until it is looked at, nothing moves
        tables = [name for (name,) in run("SELECT category || '_events' FROM categories")]
        ends = [run(f'SELECT coalesce(max(position), 0), count(*) FROM "{table}"')[0] for table in tables]
        assert lab.head == max(end for end, _ in ends) == sum(count for _, count in ends), (lab.head, ends)
        stored = {(m.lower(), a): p for m, a, p in run("SELECT model, served_as, position FROM servings")}
        assert stored == {key: c.position for key, c in lab._log.memory.checkpoints.items()}, stored
        left = run("SELECT table_name FROM duckdb_tables() WHERE starts_with(table_name, '_next_')")
        for served in lab._servings.served():
            if served.as_ != "view":
                view = sorted(map(repr, lab.as_of(position=served.position).rows(served.model).fetchall()))
                rows = sorted(map(repr, served.rows().fetchall()))
                assert rows == view, f"{served!r} has {rows}, as of there it is {view}; left over: {left}"
        states = {row["state"] for row in lab.lag().dicts()} - {"stopped: its thread does not run"}
        assert states <= {"ok"}, lab.lag().dicts()


def soak(seconds: float, seed: int) -> Counter[str]:
    """Go on for some time, with a new store every 400 steps; return how the calls ended."""
    told: Counter[str] = Counter()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what goes on behind it without one
    until, rng = time.monotonic() + seconds, random.Random(seed)
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory() as folder:
            one = Interrupting(str(Path(folder) / "shop.duckdb"), rng.randrange(10**9))
            try:
                for _ in range(400):
                    if time.monotonic() > until:
                        break
                    one.step()
            finally:
                told += one.told
                one.lab.close()
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    counted = sorted(soak(asked.seconds, asked.seed).items())
    sys.stdout.writelines(f"{times:6} {line}\n" for line, times in counted)
