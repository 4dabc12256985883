"""The read side: moved forward, read, late and asked about the past, against the best that was written by hand.

Owns the hand-written read models: the tables, keys and statements that somebody would write for this shop alone.
"""

from __future__ import annotations

import itertools
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.harness import Median, Result, seconds, take_turns
from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.read.served import Served, reach
from cqrs_lab.shop import OrderLine, PlaceOrder, customer_value, daily_orders, daily_sales, order_summary
from cqrs_lab.workbench import Workload, tables

THREADS = 2
BATCHES, ONES, SPREAD = 12, 100, 5  # batches of 1,000 events and of one, as drawn; of 1,000 spread over all orders
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)  # events of a batch
HELD_BACK = 50_000  # events at the end, appended while it is measured
ALONE = 8  # seconds of sends, with and without rebuilds beside
SENDS, RATE = 1_500, 150  # single commands, and how many a second

STATUS = ("PENDING", "PAID", "SHIPPED", "DELIVERED", "CANCELLED")
STAGES = {"OrderPaid": 1, "OrderShipped": 2, "OrderDelivered": 3, "OrderCancelled": 4}
FOLD = """
SELECT order_id, max(customer_id) AS customer_id,
       max(CASE type WHEN 'OrderCancelled' THEN 4 WHEN 'OrderDelivered' THEN 3 WHEN 'OrderShipped' THEN 2
                     WHEN 'OrderPaid' THEN 1 ELSE 0 END) AS stage,
       arg_max(total, position) AS total,
       sum(CASE WHEN type = 'OrderRefunded' THEN -amount ELSE amount END) AS paid,
       coalesce(sum(list_sum([line.quantity for line in lines])), 0)
       - coalesce(sum(list_sum([line.quantity for line in removed])), 0) AS item_count,
       max(version) AS version, max(CASE WHEN type = 'OrderPlaced' THEN occurred_at END) AS created_at,
       max(occurred_at) AS updated_at
FROM order_events WHERE position > {start} AND position <= {end} GROUP BY order_id
"""
ROWS = """
SELECT f.order_id, f.customer_id, c.customer_name, c.customer_email,
       (['PENDING', 'PAID', 'SHIPPED', 'DELIVERED', 'CANCELLED'])[f.stage + 1] AS status, f.stage, f.total,
       coalesce(f.paid, 0)::DECIMAL(18, 2) AS paid, f.item_count::BIGINT AS item_count, f.version, f.created_at,
       f.updated_at
FROM ({fold}) AS f LEFT JOIN {contacts} AS c ON c.customer_id = f.customer_id
"""
CONTACTS = """SELECT customer_id, arg_max(name, position) AS customer_name, arg_max(email, position) AS customer_email
              FROM (SELECT * FROM customer_events LEFT JOIN customer_personal USING (position) WHERE position <= {end})
              GROUP BY customer_id"""
TABLES = (
    """CREATE OR REPLACE TABLE contacts_by_hand (customer_id VARCHAR PRIMARY KEY, customer_name VARCHAR,
       customer_email VARCHAR)""",
    """CREATE OR REPLACE TABLE by_hand (order_id VARCHAR PRIMARY KEY, customer_id VARCHAR, customer_name VARCHAR,
       customer_email VARCHAR, status VARCHAR, stage INTEGER, total DECIMAL(18, 2), paid DECIMAL(18, 2),
       item_count BIGINT, version INTEGER, created_at TIMESTAMP, updated_at TIMESTAMP)""",
    "CREATE OR REPLACE TABLE sales_by_hand (day DATE PRIMARY KEY, orders BIGINT, revenue DECIMAL(18, 2))",
    """CREATE OR REPLACE TABLE value_by_hand (customer_id VARCHAR PRIMARY KEY, customer_name VARCHAR,
       customer_email VARCHAR, orders BIGINT, revenue DECIMAL(18, 2), first_order_at TIMESTAMP,
       last_order_at TIMESTAMP)""",
    "CREATE OR REPLACE TABLE checkpoint_by_hand AS SELECT 0::BIGINT AS position",
)
SALES = """SELECT created_at::DATE AS day, count(*), sum(paid)::DECIMAL(18, 2) FROM by_hand
           WHERE paid > 0 AND stage < 4 AND created_at IS NOT NULL {only} GROUP BY 1"""
VALUE = """SELECT customer_id, max(customer_name), max(customer_email), count(*),
                  coalesce(sum(paid) FILTER (WHERE stage < 4), 0)::DECIMAL(18, 2), min(created_at), max(created_at)
           FROM by_hand WHERE customer_id IS NOT NULL {only} GROUP BY 1"""
# How the newer half goes into the older one: the merge, by hand.
MERGED = {
    "customer_id": "coalesce({new}.customer_id, {old}.customer_id)",
    "customer_name": "coalesce({new}.customer_name, {old}.customer_name)",
    "customer_email": "coalesce({new}.customer_email, {old}.customer_email)",
    "status": "CASE WHEN {new}.stage > {old}.stage THEN {new}.status ELSE {old}.status END",
    "stage": "greatest({new}.stage, {old}.stage)",
    "total": "coalesce({new}.total, {old}.total)",
    "paid": "{new}.paid + {old}.paid",
    "item_count": "{new}.item_count + {old}.item_count",
    "version": "greatest({new}.version, {old}.version)",
    "created_at": "coalesce({new}.created_at, {old}.created_at)",
    "updated_at": "greatest({new}.updated_at, {old}.updated_at)",
}


def rows(start: int, end: int, contacts: str = "contacts_by_hand") -> str:
    """Return the SELECT of the rows of the events between two positions, names looked up in `contacts`."""
    return ROWS.format(fold=FOLD.format(start=start, end=end), contacts=contacts)


class ByHand:
    """The same read models, written by hand, in the lab's own file."""

    def __init__(self, lab: Lab) -> None:
        self.database = lab._log.database
        self.run, self.position = self.database.execute, 0
        self.event: tuple[Any, ...] = ()

    def build(self, head: int) -> None:
        """Fold the whole log into the keyed tables."""
        with self.database.transaction():
            for table in TABLES:
                self.run(table)
            self.run(f"INSERT INTO contacts_by_hand {CONTACTS.format(end=head)}")
            self.run(f"INSERT INTO by_hand {rows(0, head)}")
            self.run(f"INSERT INTO sales_by_hand {SALES.format(only='')}")
            self.run(f"INSERT INTO value_by_hand {VALUE.format(only='')}")
        self.position = head

    @contextmanager
    def moving_to(self, head: int) -> Iterator[str]:
        """A transaction, with its checkpoint; yields the SELECT of the new events' rows."""
        with self.database.transaction():
            yield rows(self.position, head)
            self.run("UPDATE checkpoint_by_hand SET position = ?", [head])

    def look(self) -> None:
        """Read the next event into memory, where its writer has it already."""
        names = "order_id, type, version, occurred_at, amount"
        (self.event,) = self.run(f"SELECT {names} FROM order_events WHERE position > ?", [self.position])

    def one(self, head: int) -> None:
        """Move by one event that is in memory: the row's columns by its key, the checkpoint, one durable commit."""
        order, kind, version, at, amount = self.event
        sets, values = "version = ?, updated_at = ?", [version, at]
        if kind in STAGES:
            sets, values = f"status = ?, stage = ?, {sets}", [STATUS[STAGES[kind]], STAGES[kind], *values]
        if kind in ("OrderPaid", "OrderRefunded"):
            sets, values = f"paid = paid + ?, {sets}", [amount if kind == "OrderPaid" else -amount, *values]
        with self.moving_to(head) as fresh:
            if kind == "OrderPlaced":
                self.run(f"INSERT INTO by_hand {fresh}")
            else:
                self.run(f"UPDATE by_hand SET {sets} WHERE order_id = ?", [*values, order])

    def upsert(self, head: int) -> None:
        """Move by one upsert."""
        with self.moving_to(head) as fresh:
            sets = ", ".join(f"{c} = {text.format(new='excluded', old='by_hand')}" for c, text in MERGED.items())
            self.run(f"INSERT INTO by_hand {fresh} ON CONFLICT (order_id) DO UPDATE SET {sets}")

    def replace(self, head: int, *more: str) -> None:
        """Move by taking the old rows out and putting the new ones in."""
        with self.moving_to(head) as fresh:
            merged = ", ".join(
                f"CASE WHEN old.order_id IS NULL THEN new.{c} ELSE {text.format(new='new', old='old')} END AS {c}"
                for c, text in MERGED.items()
            )
            self.run(f"CREATE OR REPLACE TEMP TABLE fresh AS {fresh}")
            self.run(
                f"CREATE OR REPLACE TEMP TABLE merged AS SELECT order_id, {merged} "
                "FROM fresh AS new LEFT JOIN by_hand AS old USING (order_id)"
            )
            self.run("DELETE FROM by_hand USING merged WHERE by_hand.order_id = merged.order_id")
            self.run("INSERT INTO by_hand BY NAME SELECT * FROM merged")
            for sql in more:
                self.run(sql)

    def number(self) -> None:
        """Keep the same rows once more under an INTEGER key, the number of their stream, in its order."""
        with self.database.transaction():
            self.run(
                "CREATE OR REPLACE TABLE by_number AS SELECT stream_no, b.* FROM by_hand AS b "
                "JOIN streams ON stream = 'order/' || order_id ORDER BY stream_no"
            )
            self.run("ALTER TABLE by_number ADD PRIMARY KEY (stream_no)")

    def by_number(self, head: int, *, in_place: bool) -> None:
        """Move the rows under the INTEGER key: changed in their place, or taken out and put in."""
        fold = FOLD.format(start=self.position, end=head)
        fold = fold.replace("SELECT order_id,", "SELECT stream_no, any_value(order_id) AS order_id,")
        fold = fold.replace("GROUP BY order_id", "GROUP BY stream_no")
        fresh = ROWS.format(fold=fold, contacts="contacts_by_hand")
        fresh = fresh.replace("SELECT f.order_id,", "SELECT f.stream_no, f.order_id,")
        with self.moving_to(head):
            self.run(f"CREATE OR REPLACE TEMP TABLE fresh AS {fresh}")
            between = "BETWEEN (SELECT min(stream_no) FROM fresh) AND (SELECT max(stream_no) FROM fresh)"
            if in_place:
                sets = ", ".join(f"{c} = {text.format(new='new', old='old')}" for c, text in MERGED.items())
                self.run(f"UPDATE by_number AS old SET {sets} FROM fresh AS new WHERE old.stream_no = new.stream_no")
                self.run("INSERT INTO by_number SELECT * FROM fresh ANTI JOIN by_number USING (stream_no)")
            else:
                merged = ", ".join(
                    f"CASE WHEN old.stream_no IS NULL THEN new.{c} ELSE {text.format(new='new', old='old')} END AS {c}"
                    for c, text in MERGED.items()
                )
                old = f"(SELECT * FROM by_number WHERE stream_no {between}) AS old"
                self.run(
                    f"CREATE OR REPLACE TEMP TABLE merged AS SELECT new.stream_no, new.order_id, {merged} "
                    f"FROM fresh AS new LEFT JOIN {old} ON old.stream_no = new.stream_no"
                )
                self.run("DELETE FROM by_number WHERE stream_no IN (SELECT stream_no FROM merged)")
                self.run("INSERT INTO by_number BY NAME SELECT * FROM merged")

    def built_on_it(self, table: str, select: str, key: str, of: str) -> Callable[[int], None]:
        """Return what moves the orders, and makes those rows of a table anew that they belong to."""
        reached = f"(SELECT {of} FROM merged)"
        gone = f"DELETE FROM {table} WHERE {key} IN {reached}"
        return lambda head: self.replace(
            head, gone, f"INSERT INTO {table} {select.format(only=f'AND {of} IN {reached}')}"
        )


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
        yield from moving(lab, by_hand, drawn)
        yield from lagging(lab)
        yield from looking_back(lab)
        yield from telling(lab)
        yield from waiting(lab)


class Drawn:
    """The events at the end of a workload, appended piece by piece."""

    def __init__(self, lab: Lab, events: pa.Table) -> None:
        self._lab, self._events, self._at = lab, events, 0

    def append(self, count: int) -> None:
        """Append the next ones."""
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
        "UPDATE by INTEGER": lambda end: by_hand.by_number(end, in_place=True),
        "DELETE + INSERT by INTEGER": lambda end: by_hand.by_number(end, in_place=False),
    }
    spread = Spread(lab)
    for what, append, runs in (
        ("as drawn", lambda: drawn.append(1_000), BATCHES // 4),
        ("spread evenly", spread.append, SPREAD),
    ):
        found = {}
        for name, way in ways.items():
            if "INTEGER" in name:
                by_hand.number()
            found[name] = batches(append, runs, served, way)
        ours = Median([taken for mine, _ in found.values() for taken in mine.times])
        best = min(found, key=lambda name: found[name][1])
        note = f"{best}; " + ", ".join(f"{name} {theirs:.0f}" for name, (_, theirs) in found.items() if name != best)
        yield Result(f"batch of 1,000 {what} / best by hand", ours, found[best][1], "ms", 1.5, note)
        by_hand.build(lab.head)
    took = []
    for size in SIZES:
        times = []
        for _ in range(9):
            drawn.append(size)
            times.append(seconds(served.catch_up))
        took.append(statistics.median(times[1:]) * 1e3)
    steps = [after / before for before, after in itertools.pairwise(took)]
    told = ", ".join(f"{size:,}: {ms:.1f}" for size, ms in zip(SIZES, took, strict=True))
    yield Result("steepest step from 1 to 1,000 events / none", max(steps), 1.0, "x", 1.5, f"ms {told}")
    indexed = lab.serve(replace(order_summary, name="indexed", indexes=("customer_id", "status")))
    ours, theirs = batches(lambda: drawn.append(1_000), 5, indexed, lambda end: served.catch_up())
    yield Result("batch of 1,000 with two indexes / without", ours, theirs, "ms", None, "customer_id and status")
    sales = by_hand.built_on_it("sales_by_hand", SALES, "day", "created_at::DATE")
    value = by_hand.built_on_it("value_by_hand", VALUE, "customer_id", "customer_id")
    for model, hand in ((daily_sales, sales), (customer_value, value)):
        layered = lab.serve(model)
        served.catch_up()
        ours, theirs = batches(lambda: drawn.append(1_000), 3, layered, hand)
        yield Result(f"batch of 1,000 into {model.name} / by hand", ours, theirs, "ms", 3.0, "with what it is built on")


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


def lagging(lab: Lab) -> Iterator[Result]:
    """How late single commands become visible in a projection that moves in the background."""
    served = lab.serve(order_summary, mode="background")
    line = OrderLine(product_id="p-1", quantity=1, unit_price="9.99")
    began = time.perf_counter()

    def send(thread: int) -> None:
        for number in range(thread, SENDS, 4):
            time.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            lab.send(PlaceOrder(order_id=f"late-{number}", customer_id="c-000001", lines=[line]))

    senders = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
    first = lab.head
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    rate = SENDS / (time.perf_counter() - began)
    reach(lab._servings.running, order_summary, lab.head, 30)
    late = sorted(row["seconds"] * 1e3 for row in lab.lag_history().dicts() if row["position"] > first)
    p50, p99 = statistics.median(late), late[int(0.99 * len(late))]
    yield Result("background lag, p99 / 50 ms", p99, 50.0, "ms", 1.0, f"p50 {p50:.0f} ms at {rate:.0f} sends/s")
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
