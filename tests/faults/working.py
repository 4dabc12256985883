"""A shop in which everything that changes a store is done at random, and a look at whether it is whole.

What memory says must be what the tables say, positions have no holes, and all servings agree at the position that they
tell.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
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


class Working:
    """A shop in which random things are done.

    Args:
        path: of its store.
        seed: of the choices.
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

    def do_one(self) -> str:
        """Do one thing; return its name."""
        name = self.rng.choice(self.CALLS)
        getattr(self, name)()
        return name

    def look(self) -> None:
        """Assert that memory says what the tables say, and that all servings agree."""
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
