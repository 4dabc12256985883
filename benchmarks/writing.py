"""The write side: single commands, many at once, many threads, long logs and long streams, against the same by hand."""

from __future__ import annotations

import logging
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.harness import Result, bare_copy, seconds, take_turns
from cqrs_lab import Command, Lab, open_shop
from cqrs_lab.shop import OrderLine, PayOrder, PlaceOrder, StockProduct, daily_orders, order_summary, orders, products
from cqrs_lab.write import streams

THREADS = 2
LINE = OrderLine(product_id="p-1", quantity=2, unit_price=Decimal("9.99"))


def run(count: int) -> Iterator[Result]:
    """Measure the write side; streams are loaded from a log of ten events for each of `count`."""
    with tempfile.TemporaryDirectory() as folder:
        yield from sending(Path(folder))
        yield from inline(Path(folder))
        yield from sending_many(Path(folder))
        yield from from_threads(Path(folder))
        yield from loading(2 * count, Path(folder))
        yield from snapshots(Path(folder))


def place(number: int) -> Command:
    """Return a command that places an order."""
    return PlaceOrder(order_id=f"o-{number}", customer_id="c-1", lines=(LINE,))


def pay(number: int) -> Command:
    """Return a command that pays it."""
    return PayOrder(order_id=f"o-{number}", amount=2 * LINE.unit_price)


class ByHand:
    """What a bare transaction does for one command: the writes of ours, in the same tables, by one statement.

    It asks nothing, for its keys are new: a look whether they are there would take 0.9 ms.

    Args:
        lab: whose tables to copy.
        path: of the bare file.
    """

    COLUMNS = (
        "position, stream_no, version, type, schema_version, event_id, correlation_id, causation_id, command_id, "
        "occurred_at, recorded_at, order_id, customer_id, lines, total, freight"
    )
    EVENT = f"INSERT INTO order_events ({COLUMNS}) VALUES ({', '.join('?' * 16)})"
    STREAM = "WITH stream AS MATERIALIZED (INSERT INTO streams VALUES (?, ?, ?, ?) RETURNING 1)"
    COMMAND = "command AS MATERIALIZED (INSERT INTO commands VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING 1)"

    def __init__(self, lab: Lab, path: Path) -> None:
        self.bare: duckdb.DuckDBPyConnection = bare_copy(lab, path)
        self._parsed: dict[str, Any] = {}

    def whole(self, run: int) -> None:
        """Insert the stream, the event and the command."""
        row = self.row(run)
        stream = [f"order/o-{run}", run, "order", f"o-{run}"]
        command = [row[8], "PlaceOrder", "0" * 32, run, row[6], row[7], run + 1, run + 1]
        self.run(f"{self.STREAM}, {self.COMMAND} {self.EVENT}", [*stream, *command, *row])

    def alone(self, run: int) -> None:
        """Insert the event and nothing else."""
        self.run(self.EVENT, self.row(run))

    def run(self, sql: str, values: list[Any]) -> None:
        """Run one statement in a transaction; its text is parsed once."""
        if sql not in self._parsed:
            (self._parsed[sql],) = self.bare.extract_statements(sql)
        self.bare.execute("BEGIN").fetchall()
        self.bare.execute(self._parsed[sql], values).fetchall()
        self.bare.execute("COMMIT").fetchall()

    def row(self, run: int) -> list[Any]:
        """Return an event as a row."""
        now = datetime.now(UTC).replace(tzinfo=None)
        ids = [str(uuid4()), str(uuid4()), str(uuid4())]
        lines = [{"product_id": "p-1", "quantity": 2, "unit_price": Decimal("9.99")}]
        envelope = [run + 1, run + 1, 1, "OrderPlaced", 3, uuid4(), *ids, now, now]
        return [*envelope, f"o-{run}", "c-1", lines, Decimal("19.98"), Decimal("0.00")]


def sending(folder: Path) -> Iterator[Result]:
    """One durable send, everything around it switched on, against bare transactions."""
    logger, handler = logging.getLogger("cqrs_lab.commands"), logging.FileHandler(folder / "commands.log")
    with open_shop(folder / "send.duckdb", threads=THREADS, policy=lambda command, actor: None) as lab:
        whole, alone = ByHand(lab, folder / "whole.duckdb"), ByHand(lab, folder / "alone.duckdb")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        ours, same, only = take_turns(
            lambda run: lab.send(place(run), command_id=f"command-{run}", actor="Ann"),
            whole.whole,
            alone.alone,
            runs=300,
            warm_up=20,
        )
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)
        rate, around = f"{1 / ours:,.0f} commands/s", ", ".join(lab.middleware)
    yield Result("send / bare transaction, same writes", ours * 1e3, same * 1e3, "ms", 1.4, f"{rate}; {around}")
    yield Result("send / its insert alone", ours * 1e3, only * 1e3, "ms", 2.0, "three ids, receipt and stream included")


def inline(folder: Path) -> Iterator[Result]:
    """A send that moves a projection in its transaction, against one without projections."""
    with ExitStack() as labs:
        plain, daily, summary = (
            labs.enter_context(open_shop(folder / f"{name}.duckdb", threads=THREADS))
            for name in ("no", "daily", "summary")
        )
        daily.serve(daily_orders, mode="inline")
        summary.serve(order_summary, mode="inline")
        for what, command in (("placed", place), ("paid", pay)):
            sends = [lambda run, lab=lab, of=command: lab.send(of(run)) for lab in (plain, daily, summary)]
            alone, *inside = (taken * 1e3 for taken in take_turns(*sends, runs=150, warm_up=20))
            for name, taken in zip(("daily_orders", "order_summary"), inside, strict=True):
                yield Result(f"an order {what} with {name} inline / with none", taken, alone, "ms", 2.0, "")


def sending_many(folder: Path) -> Iterator[Result]:
    """send_many against as many single sends."""
    with open_shop(folder / "many.duckdb", threads=THREADS) as lab, open_shop(folder / "one.duckdb") as single:
        many, one = take_turns(
            lambda run: lab.send_many([place(1_000 * run + i) for i in range(1_000)]),
            lambda run: [single.send(place(100 * run + i)) for i in range(100)],
            runs=5,
        )
    per_many, per_one = many / 1_000, one / 100
    note = f"{1 / per_many:,.0f} commands/s, {per_one / per_many:.0f}x as many as {1 / per_one:,.0f}"
    yield Result("send_many of 1,000 / single sends", per_many * 1e3, per_one * 1e3, "ms", 1 / 15, note)


def from_threads(folder: Path) -> Iterator[Result]:
    """200 threads, 50 commands each, on 20 hot streams: everything is stored once, in one order."""
    with open_shop(folder / "threads.duckdb", threads=THREADS) as lab:

        def restock(thread: int, times: int) -> None:
            for i in range(times):
                lab.send(StockProduct(product_id=f"p-{(thread + i) % 20}", quantity=1))

        single = seconds(lambda: restock(0, 200)) / 200
        taken = seconds(lambda: in_threads(200, lambda thread: restock(thread, 50))) / 10_000
        positions, last, held = lab._log.database.execute(
            """SELECT count(DISTINCT position), max(position), bool_and(whole) FROM product_events JOIN
               (SELECT stream_no, count(*) = max(version) AND count(DISTINCT version) = max(version) AS whole
                FROM product_events GROUP BY stream_no) USING (stream_no)"""
        )[0]
        assert positions == last == 10_200
        assert held
    note = f"{1 / taken:,.0f} commands/s; 10,200 events, positions and versions without a hole"
    yield Result("a command from 200 threads / from one", taken * 1e3, single * 1e3, "ms", 1.0, note)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run work(number) in so many threads, and raise what went wrong in one."""
    failures: list[BaseException] = []

    def one(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def loading(count: int, folder: Path) -> Iterator[Result]:
    """Loading a stream of 5 events, scattered over a long log, against the same over a short one."""
    labs = {}
    for size in (count, 20_000):
        labs[size] = open_shop(folder / f"load{size}.duckdb", threads=THREADS)
        labs[size].append_table("order", scattered(size))
        assert streams.load(labs[size]._log, orders, "o-1").version == 5
    chance = random.Random(1)
    long, short = take_turns(
        lambda run: streams.load(labs[count]._log, orders, f"o-{chance.randrange(count)}"),
        lambda run: streams.load(labs[20_000]._log, orders, f"o-{chance.randrange(20_000)}"),
        runs=500,
        warm_up=50,
    )
    for lab in labs.values():
        lab.close()
    note = f"{5 * count:,} events against {5 * 20_000:,}"
    yield Result("loading 5 scattered events / in a short log", long * 1e3, short * 1e3, "ms", 1.5, note)


def scattered(count: int) -> pa.Table:
    """Return 5 events for each stream, in random order over the whole table."""
    order = np.random.Generator(np.random.PCG64(1)).permutation(np.repeat(np.arange(count), 5))
    return pa.table(
        {
            "id": pa.array(np.char.add("o-", order.astype(str))),
            "type": pa.array(["OrderPaid"] * len(order)),
            "occurred_at": pa.array(np.full(len(order), 1_735_689_600_000_000), pa.timestamp("us", "UTC")),
            "amount": pa.array([Decimal("1.00")] * len(order), pa.decimal128(18, 2)),
        }
    )


def snapshots(folder: Path) -> Iterator[Result]:
    """Loading a stream of 10,000 events from its snapshot, against a stream of 10, both among 500,000 others."""
    short, long = "p-short", "p-long"
    ids = [long] * 10_000 + [short] * 10 + [f"p-{i % 50_000}" for i in range(500_000)]
    random.Random(1).shuffle(ids)
    table = pa.table(
        {
            "id": ids,
            "type": ["ProductStocked"] * len(ids),
            "occurred_at": pa.array([datetime(2025, 1, 1, tzinfo=UTC)] * len(ids), pa.timestamp("us", "UTC")),
            "quantity": pa.array([1] * len(ids)),
        }
    )
    with open_shop(folder / "snapshots.duckdb", threads=THREADS) as lab:
        lab.append_table("product", table)
        folded = seconds(lambda: streams.load(lab._log, products, long))
        for _ in range(99):  # the first keeps the snapshot; then as many events stand behind it as ever do
            lab.send(StockProduct(product_id=long, quantity=1))
        loaded = streams.load(lab._log, products, long)
        assert (loaded.version, loaded.state.available, loaded.folded) == (10_099, 10_099, 99)
        many, few = take_turns(
            lambda run: streams.load(lab._log, products, long),
            lambda run: streams.load(lab._log, products, short),
            runs=200,
            warm_up=20,
        )
    note = f"the stream has {loaded.version:,} events; without a snapshot {folded * 1e3:.0f} ms"
    yield Result("loading 10,000 events from a snapshot / 10", many * 1e3, few * 1e3, "ms", 2.0, note)
