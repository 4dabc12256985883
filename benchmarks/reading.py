"""The read side: moved forward, read, late and asked about the past, against the best that was written by hand.

What was written by hand is in `benchmarks/by_hand.py`.
"""

from __future__ import annotations

import itertools
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from benchmarks.by_hand import CONTACTS, SALES, TABLES, VALUE, ByHand, rows
from benchmarks.harness import Median, Result, seconds, take_turns
from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.read.served import Served, reach
from cqrs_lab.shop import (
    OrderLine,
    PlaceOrder,
    customer_contacts,
    customer_value,
    daily_orders,
    daily_sales,
    order_facts,
    order_summary,
)
from cqrs_lab.workbench import Workload, tables

THREADS = 2
BATCHES, ONES, SPREAD = 12, 100, 5  # batches of 1,000 events and of one, as drawn; of 1,000 spread over all orders
ROUNDS, EVERY = 96, 4  # of one batch of each size up to 10, and in each fourth one of larger ones, too
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)  # events of a batch
HELD_BACK = 100_000  # events at the end, appended while it is measured
ALONE = 8  # seconds of sends, with and without rebuilds beside
SENDS, RATE = 1_500, 150  # single commands, and how many a second


def run(count: int) -> Iterator[Result]:
    """Measure the read side on `count` orders."""
    made = tables(Workload(orders=count, seed=7))
    events = made["order"]
    if "recorded_at" in events.column_names:
        events = events.drop_columns(["recorded_at"])  # learnt now, so that other events can come in between
    with tempfile.TemporaryDirectory() as folder, open_shop(Path(folder) / "shop.duckdb", threads=THREADS) as lab:
        lab.append_table("customer", made["customer"])
        drawn = Drawn(lab, events.slice(max(0, events.num_rows - HELD_BACK)))
        lab.append_table("order", events.slice(0, max(0, events.num_rows - HELD_BACK)))
        by_hand = ByHand(lab)
        yield from rebuilding(lab, by_hand)
        yield from lagging(lab, "", 30.0)
        by_hand.build(lab.head)
        yield from moving(lab, by_hand, drawn)
        yield from lagging(lab, " that others are built on", 30.0)
        yield from looking_back(lab)
        yield from telling(lab)
        yield from waiting(lab)


class Drawn:
    """The events at the end of a workload, appended piece by piece."""

    def __init__(self, lab: Lab, events: pa.Table) -> None:
        self._lab, self._events, self._at = lab, events, 0

    def append(self, count: int) -> None:
        """Append the next ones."""
        assert self._at + count <= self._events.num_rows, "hold more events back: a batch of none costs nothing"
        self._lab.append_table("order", self._events.slice(self._at, count))
        self._at += count


def rebuilding(lab: Lab, by_hand: ByHand) -> Iterator[Result]:
    """rebuild() of order_summary, with names, against the same fold by hand into a table with the same key."""
    served, database = lab.serve(order_summary), by_hand.database
    by_hand.build(lab.head)

    def fold(run: int) -> None:
        with database.transaction():
            database.execute(TABLES[1])
            database.execute(f"INSERT INTO by_hand {rows(0, lab.head)}")

    ours, theirs = take_turns(lambda run: served.rebuild(), fold, runs=3)
    rate = f"{lab.head / ours / 1e6:.1f} M events/s; by hand {lab.head / theirs / 1e6:.1f}"
    yield Result("rebuild of order_summary, with names / by hand, same key", ours, theirs, "s", 1.3, rate)


def moving(lab: Lab, by_hand: ByHand, drawn: Drawn) -> Iterator[Result]:
    """catch_up() after a batch, against the best statement by hand that does the same."""
    served = lab.serve(order_summary)
    count = by_hand.run("SELECT count(*) FROM by_hand")[0][0]

    def batches(
        append: Callable[[], None], runs: int, model: Served, hand: Callable[[int], object], look: bool = False
    ) -> tuple[Median, Median]:
        ours, theirs = [], []
        for _ in range(runs + 1):
            append()
            if look:
                by_hand.look()
            end = lab.head
            ours.append(seconds(model.catch_up))
            theirs.append(seconds(lambda end=end: hand(end)))  # type: ignore[misc]
            by_hand.position = end
        return Median(ours[1:]) * 1e3, Median(theirs[1:]) * 1e3  # the first one warms up

    ours, theirs = batches(lambda: drawn.append(1), ONES, served, by_hand.one, look=True)
    yield Result(
        "one event / UPDATE by key and checkpoint", ours, theirs, "ms", 3.0, f"into {count:,} rows; it is in memory"
    )
    ways: dict[str, Callable[[int], None]] = {
        "upsert": by_hand.upsert,
        "DELETE + INSERT": by_hand.replace,
        "DELETE + INSERT by INTEGER": by_hand.by_number,
        "UPDATE of what changes": lambda end: by_hand.change(end, by_number=False),
        "UPDATE of what changes by INTEGER": lambda end: by_hand.change(end, by_number=True),
    }
    spread = Spread(lab)
    for what, append, runs in (
        ("as drawn", lambda: drawn.append(1_000), BATCHES // 2),
        ("spread evenly", spread.append, SPREAD),
    ):
        found = {}
        for name, way in ways.items():
            served.rebuild()  # both made now, for rows that have been moved for long take longer
            by_hand.build(lab.head)
            if "INTEGER" in name:
                by_hand.number()
            found[name] = batches(append, runs, served, way)
            by_hand.check("projection.order_summary", by_number="INTEGER" in name)
        best = min(found, key=lambda name: found[name][1])
        note = f"{best}; " + ", ".join(f"{name} {theirs:.0f}" for name, (_, theirs) in found.items() if name != best)
        yield Result(f"batch of 1,000 {what} / best by hand", *found[best], "ms", 1.5, note)
    by_hand.build(lab.head)
    by_hand.number()
    times, those = ({size: list[float]() for size in SIZES} for _ in range(2))
    for number in range(ROUNDS):  # in turns, or a slow minute of the machine would be a step
        for size in SIZES if number % EVERY == 0 else [size for size in SIZES if size <= 10]:
            drawn.append(size)
            times[size].append(seconds(served.catch_up))
            those[size].append(seconds(lambda: by_hand.change(lab.head, by_number=True)))
            by_hand.position = lab.head
    took, by_hand_took = ([middle(found[size]) for size in SIZES] for found in (times, those))
    steps, others = ([after / before for before, after in itertools.pairwise(ms)] for ms in (took, by_hand_took))
    told = ", ".join(f"{size:,}: {ms:.1f}" for size, ms in zip(SIZES, took, strict=True))
    note = f"ms {told}; by hand {max(others):.2f}, from {by_hand_took[0]:.1f} to {by_hand_took[-1]:.1f} ms"
    yield Result("steepest step from 1 to 1,000 events / none", max(steps), 1.0, "x", 1.5, note)
    # Both made now: rows that have been moved for long are scattered, and their batches take longer.
    plain = lab.serve(replace(order_summary, name="plain"))
    indexed = lab.serve(replace(order_summary, name="indexed", indexes=("customer_id", "status")))
    below = [lab.serve(model) for model in (order_facts, customer_contacts)]  # or the first to move would pay for both

    def settled() -> None:
        drawn.append(1_000)
        for layer in below:
            layer.catch_up()

    ours, theirs = batches(settled, 9, indexed, lambda end: plain.catch_up())
    yield Result("batch of 1,000 with two indexes / without", ours, theirs, "ms", None, "customer_id and status")
    sales = by_hand.built_on_it("sales_by_hand", SALES, "day", "created_at::DATE")
    value = by_hand.built_on_it("value_by_hand", VALUE, "customer_id", "customer_id")
    for model, hand in ((daily_sales, sales), (customer_value, value)):
        layered = lab.serve(model)
        served.catch_up()
        ours, theirs = batches(lambda: drawn.append(1_000), 3, layered, hand)
        yield Result(f"batch of 1,000 into {model.name} / by hand", ours, theirs, "ms", 3.0, "with what it is built on")


def middle(times: Sequence[float]) -> float:
    """Return the mean milliseconds of some times, a sixth at either end left out.

    Not the median: it jumps with the kind of event that is drawn most often, where the cost has no step.
    """
    ends = len(times) // 6
    return statistics.mean(sorted(times)[ends:-ends]) * 1e3


class Spread:
    """1,000 payments for orders from all over the table."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._random = lab, random.Random(7)
        self._orders = [row[0] for row in lab._log.database.execute("SELECT order_id FROM by_hand ORDER BY ALL")]

    def append(self) -> None:
        """Append them."""
        ids = self._random.sample(self._orders, min(1_000, len(self._orders)))
        table = {
            "id": pa.array(ids),
            "type": pa.array(["OrderPaid"] * len(ids)),
            "occurred_at": pa.array([0] * len(ids), pa.timestamp("us", "UTC")),
            "amount": pa.array([Decimal("1.00")] * len(ids), pa.decimal128(18, 2)),
        }
        self._lab.append_table("order", pa.table(table))


def lagging(lab: Lab, what: str, most: float) -> Iterator[Result]:
    """How late single commands become visible in a projection that moves in the background.

    Args:
        what: what else there is to say of it.
        most: milliseconds that are good enough.
    """
    served = lab.serve(order_summary, mode="background")
    line = OrderLine(product_id="p-1", quantity=1, unit_price="9.99")
    first, began = lab.head, time.perf_counter()

    def send(thread: int) -> None:
        for number in range(thread, SENDS, 4):
            time.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            customer = f"c-{number % 1_000 + 1:06d}"
            lab.send(PlaceOrder(order_id=f"late-{first}-{number}", customer_id=customer, lines=[line]))

    senders = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    rate = SENDS / (time.perf_counter() - began)
    reach(lab._servings.running, order_summary, lab.head, 30)
    late = sorted(row["seconds"] * 1e3 for row in lab.lag_history().dicts() if row["position"] > first)
    p50, p99 = statistics.median(late), late[int(0.99 * len(late))]
    name = f"background lag{what}, p99 / {most:.0f} ms"
    yield Result(name, p99, most, "ms", 1.0, f"p50 {p50:.0f} ms at {rate:.0f} sends/s")
    lab.serve(order_summary, mode="manual")
    assert served.position == lab.head


def looking_back(lab: Lab) -> Iterator[Result]:
    """A question about all orders as of any position: folded, and out of the kept history."""
    question = "SELECT status, count(*), sum(total) FROM {rows} GROUP BY status ORDER BY ALL"
    draw = random.Random(7)
    places = [draw.randrange(1, lab.head + 1) for _ in range(6)]
    run = lab._log.database.execute

    # Every run asks about all of these places, or the run would matter more than who is asked.
    def by_hand(_: int) -> list[object]:
        prefixes = [rows(0, end, f"({CONTACTS.format(end=end)})") for end in places]
        return [run(question.format(rows=f"({prefix})")) for prefix in prefixes]

    def ours(_: int) -> list[object]:
        pasts = [lab.as_of(position=place) for place in places]
        return [past.sql(question.format(rows="order_summary")).fetchall() for past in pasts]

    assert ours(0) == by_hand(0)
    folded, theirs = (each / len(places) for each in take_turns(ours, by_hand, runs=6))
    yield Result("as of any position, folded / the prefix by hand", folded * 1e3, theirs * 1e3, "ms", 1.2, "")
    kept = seconds(lambda: lab.serve(order_summary, keep_history=True))
    assert ours(0) == by_hand(0)
    looked = take_turns(ours, lambda run: None, runs=6)[0] / len(places)
    note = f"kept in {kept:.0f} s; folded {folded * 1e3:.0f} ms"
    yield Result("as of any position, kept history / 50 ms", looked * 1e3, 50.0, "ms", 1.0, note)


def telling(lab: Lab) -> Iterator[Result]:
    """The history of a row that does not merge, against that of one that does and changed as often."""
    counted, distinct = (
        ReadModel(name, "day", f"SELECT occurred_at::DATE AS day, {what} AS n FROM order_events GROUP BY day")
        for name, what in (("counted", "count(*)"), ("told_apart", "count(DISTINCT position)"))
    )
    (day,) = lab._log.database.execute("SELECT occurred_at::DATE FROM order_events ORDER BY position LIMIT 1")[0]
    customer = lab.serve(customer_value).sql("SELECT customer_id FROM customer_value ORDER BY orders DESC LIMIT 1")
    value = seconds(lambda: lab.history(customer_value, customer.fetchall()[0][0]))
    slow, fast = take_turns(lambda run: lab.history(distinct, day), lambda run: lab.history(counted, day), runs=3)
    assert len(lab.history(distinct, day)) == len(lab.history(counted, day))
    note = f"{len(lab.history(counted, day)):,} versions; the busiest customer's value: {value * 1e3:.0f} ms"
    yield Result("history of a row that does not merge / that does", slow * 1e3, fast * 1e3, "ms", 10.0, note)


def waiting(lab: Lab) -> Iterator[Result]:
    """What a send waits for, with a projection inside its transaction, while other read models are built again."""
    lab.serve(order_summary, keep_history=False)
    lab.serve(daily_orders, mode="inline")
    table = lab.serve(daily_sales, as_="materialized")
    line, numbers, stop = (
        OrderLine(product_id="p-1", quantity=1, unit_price="9.99"),
        itertools.count(),
        threading.Event(),
    )

    def sends(seconds_long: float) -> list[float]:
        until, times = time.perf_counter() + seconds_long, []
        while time.perf_counter() < until:
            command = PlaceOrder(order_id=f"beside-{next(numbers)}", customer_id="c-000001", lines=[line])
            times.append(seconds(lambda command=command: lab.send(command)))  # type: ignore[misc]
        return sorted(times)

    def build() -> None:
        while not stop.is_set():
            lab.serve(order_summary).rebuild()
            table.refresh()

    sends(1)
    alone = sends(ALONE)
    builder = threading.Thread(target=build)
    builder.start()
    beside = sends(ALONE)
    stop.set()
    builder.join()
    ours, theirs = (times[int(0.99 * len(times))] * 1e3 for times in (beside, alone))
    note = f"p50 {statistics.median(beside) * 1e3:.0f} and {statistics.median(alone) * 1e3:.0f} ms"
    yield Result("inline send beside rebuilds / alone, p99", ours, theirs, "ms", 3.0, note)
