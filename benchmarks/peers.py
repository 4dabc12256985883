"""The peer: the same orders in `eventsourcing` over SQLite, one command at a time, in bulk, and into a read model.

Owns the peer's order domain, written as its documentation teaches, and the settings that are best for it. Its SQLite
keeps a write-ahead log (the library sees to that) and runs with synchronous=FULL: the log is synced before a commit
returns, so what was acknowledged is on disk, as it is with us: one sync for each command on either side. Of several
ways that the library has, the aim is against the fastest; others are shown for information.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import pyarrow as pa
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import Tracking
from eventsourcing.projection import Projection
from eventsourcing.sqlite import SQLiteDatastore, SQLiteRecorder, SQLiteTrackingRecorder
from eventsourcing.system import NotificationLogReader
from eventsourcing.utils import get_topic

from benchmarks.harness import Result, take_turns
from benchmarks.writing import in_threads
from cqrs_lab import open_shop
from cqrs_lab.messages import Command
from cqrs_lab.shop import DeliverOrder, OrderLine, PayOrder, PlaceOrder, ShipOrder, order_facts, order_summary
from cqrs_lab.workbench import Workload, tables

THREADS = 2
# Orders: ours at most, and the peer's. Fewer favour the peer: an index on random ids grows slower with every row.
OURS, APPENDED, REPLAYED = 200_000, 20_000, 2_000
PAGE = 1_000  # events in each read of the peer's log; by default it asks for 10 at a time
Row = dict[str, Any]


class Order(Aggregate):
    """An order, with the rules of `cqrs_lab.shop.orders`; nobody cancels here."""

    @event("Placed")
    def __init__(self, order_id: str, customer_id: str, lines: list[Row], total: Decimal, freight: Decimal) -> None:
        self.due = total + freight
        self.status = "PENDING"

    @staticmethod
    def create_id(order_id: str) -> UUID:
        """Return the id by which the library knows an order."""
        return uuid5(NAMESPACE_URL, f"/order/{order_id}")

    @event("Paid")
    def pay(self, amount: Decimal, method: str) -> None:
        """Pay, whole and once. What raises here leaves no event."""
        if amount != self.due:
            raise ValueError(f"{self.due} due, {amount} offered")
        self._move("PENDING", "PAID")

    @event("Shipped")
    def ship(self, tracking_number: str) -> None:
        """Hand it to the carrier."""
        self._move("PAID", "SHIPPED")

    @event("Delivered")
    def deliver(self) -> None:
        """Hand it to the customer."""
        self._move("SHIPPED", "DELIVERED")

    def _move(self, before: str, after: str) -> None:
        if self.status != before:
            raise ValueError(f"the order is {self.status}, not {before}")
        self.status = after


# Each decorator above made an event class of that name with the arguments of its method.
TOPIC = get_topic(Order)
FIELDS = {
    "Placed": ("customer_id", "lines", "total", "freight"),
    "Paid": ("amount", "method"),
    "Shipped": ("tracking_number",),
    "Delivered": (),
}


class Orders(Application[UUID]):
    """The peer's application: a command loads its order, lets it decide, and saves in one transaction."""

    log_section_size = PAGE

    def place(self, order_id: str, customer_id: str, lines: list[Row]) -> None:
        """Place an order."""
        total = sum((line["quantity"] * line["unit_price"] for line in lines), Decimal(0))
        self.save(Order(order_id, customer_id, lines, total, Decimal(0)))

    def change(self, order_id: str, method: str, *arguments: Any) -> None:
        """Carry out one of the other commands."""
        order: Order = self.repository.get(Order.create_id(order_id))
        getattr(order, method)(*arguments)
        self.save(order)


class Summary(SQLiteTrackingRecorder):
    """The peer's order_summary: a row and the position of the event that it comes from are committed together."""

    def construct_create_table_statements(self) -> list[str]:
        """Return the library's statements, and that of the table."""
        columns = "order_id, customer_id, status, total, paid, item_count INT, version INT, created_at, updated_at"
        table = f"CREATE TABLE IF NOT EXISTS order_summary (id TEXT PRIMARY KEY, {columns}) WITHOUT ROWID"
        return [*super().construct_create_table_statements(), table]

    def write(self, tracking: Tracking, sql: str, values: Sequence[Any]) -> None:
        """Run an event's statement."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(sql, values)


class Summarize(Projection[Summary]):
    """The peer's projection: one statement for each event."""

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Fold an event into the row of its order."""
        e, kind, at = domain_event, type(domain_event).__name__, domain_event.timestamp.isoformat()
        id = e.originator_id.hex
        if kind == "Placed":
            units = sum(line["quantity"] for line in e.lines)
            row = [id, e.order_id, e.customer_id, "PENDING", str(e.total), "0.00", units, 1, at, at]
            return self.view.write(tracking, "INSERT INTO order_summary VALUES (?,?,?,?,?,?,?,?,?,?)", row)
        paid, amount = ("paid = ?, ", [str(e.amount)]) if kind == "Paid" else ("", [])
        sql = f"UPDATE order_summary SET {paid}status = ?, version = ?, updated_at = ? WHERE id = ?"
        return self.view.write(tracking, sql, [*amount, kind.upper(), e.originator_version, at, id])


def run(count: int) -> Iterator[Result]:
    """Measure ours, on at most `count` orders, against the peer."""
    with tempfile.TemporaryDirectory() as folder:
        yield from sending(Path(folder))
        yield from appending(min(count, OURS), Path(folder))
        yield from replaying(min(count, OURS), Path(folder))


def result(name: str, ours: float, theirs: float, aim: float | None, what: str) -> Result:
    """Return a line of the table: times for one, and how many a second."""
    note = f"{theirs / ours:.3g}x as fast: {1 / ours:,.0f} {what}/s; peer {1 / theirs:,.0f}"
    return Result(name, ours * 1e6, theirs * 1e6, "µs", aim, note)


def sending(folder: Path) -> Iterator[Result]:
    """Place, pay, ship and deliver order after order: each command is loaded, decided and on disk by itself."""
    line: Row = {"product_id": "p-1", "quantity": 2, "unit_price": Decimal("9.99")}
    lines, due = (OrderLine(**line),), Decimal("19.98")
    steps = (("pay", due, "card"), ("ship", "t-1"), ("deliver",))
    commands: tuple[Callable[[str], Command], ...] = (
        lambda id: PlaceOrder(order_id=id, customer_id="c-1", lines=lines),
        lambda id: PayOrder(order_id=id, amount=due),
        lambda id: ShipOrder(order_id=id, tracking_number="t-1"),
        lambda id: DeliverOrder(order_id=id),
    )
    # One process alone may write our file, so the peer, too, need not look for what another one wrote.
    cache = {"AGGREGATE_CACHE_MAXSIZE": "1000", "AGGREGATE_CACHE_FASTFORWARD": "n"}

    def theirs(app: Orders, run: int) -> None:
        if run % 4 == 0:
            app.place(f"o-{run // 4}", "c-1", [line])
        else:
            app.change(f"o-{run // 4}", *steps[run % 4 - 1])

    with (
        open_shop(folder / "send.duckdb", threads=THREADS) as lab,
        opened(folder / "cached.db", **cache) as cached,
        opened(folder / "loading.db") as loading,
    ):
        sent, fast, slow = take_turns(
            lambda run: lab.send(commands[run % 4](f"o-{run // 4}")),
            lambda run: theirs(cached, run),
            lambda run: theirs(loading, run),
            runs=400,
            warm_up=40,
        )
    # A bare DuckDB transaction takes longer than the peer's whole command (0.6 ms and more, two columns, no key): one
    # client alone cannot be served faster. Many can: what arrives together is stored together.
    yield result("send / peer's command, one client", sent, fast, None, "commands")
    yield result("send / peer's command, one client, orders loaded", sent, slow, None, "commands")
    for clients in (8, 32):
        yield together(clients, folder, line, commands, theirs, cache)


def together(
    clients: int,
    folder: Path,
    line: Row,
    commands: Sequence[Callable[[str], Command]],
    theirs: Callable[[Orders, int], None],
    cache: dict[str, str],
) -> Result:
    """The same commands from many threads at once, each waiting for its own to be on disk."""
    each = 3_200 // clients
    with (
        open_shop(folder / f"send{clients}.duckdb", threads=THREADS) as lab,
        opened(folder / f"cached{clients}.db", **cache) as app,
    ):

        def ours(client: int) -> None:
            for run in range(each):
                lab.send(commands[run % 4](f"o-{client}-{run // 4}"))

        def peers(client: int) -> None:
            for run in range(each):
                theirs(app, client * each + run)

        sent, fast = take_turns(
            lambda turn: in_threads(clients, lambda client: ours(turn * clients + client)),
            lambda turn: in_threads(clients, lambda client: peers(turn * clients + client)),
            runs=3,
        )
    count = clients * each
    return result(f"send / peer's command, {clients} clients", sent / count, fast / count, 1 / 2, "commands")


def appending(count: int, folder: Path) -> Iterator[Result]:
    """append_table against the same in one transaction of the peer's."""
    table, given = orders(count), orders(APPENDED)
    rows = given.to_pylist()  # beforehand: whoever uses the peer has objects, not Arrow
    with ExitStack() as stack:
        labs = [stack.enter_context(open_shop(folder / f"append{run}.duckdb", threads=THREADS)) for run in range(4)]
        apps = [stack.enter_context(opened(folder / f"append{run}.db")) for run in range(4)]
        ours, theirs = take_turns(
            lambda run: labs[run].append_table("order", table), lambda run: record(apps[run], rows), runs=3
        )
    yield result(
        "append_table / peer's insert_events", ours / table.num_rows, theirs / given.num_rows, 1 / 20, "events"
    )


def record(app: Orders, rows: list[Row]) -> None:
    """Append facts in the peer's fastest way: mapped and inserted at once; save() takes 1.7 times as long."""
    ids: dict[str, UUID] = {}
    versions: Counter[str] = Counter()
    events: list[Aggregate.Event] = []
    for row in rows:
        name = row["id"]
        kind = row["type"].removeprefix("Order")
        values = {field: row[field] for field in FIELDS[kind]}
        if name not in ids:
            ids[name] = Order.create_id(name)
            values |= {"order_id": name, "originator_topic": TOPIC}
        versions[name] += 1
        place = {"originator_id": ids[name], "originator_version": versions[name], "timestamp": row["occurred_at"]}
        events.append(vars(Order)[kind](**place, **values))
    app.recorder.insert_events([app.mapper.to_stored_event(each) for each in events])


def replaying(count: int, folder: Path) -> Iterator[Result]:
    """rebuild() of order_summary against the peer's projection into the same rows."""
    given = orders(REPLAYED)
    with open_shop(folder / "rebuild.duckdb", threads=THREADS) as lab, opened(folder / "replay.db") as app:
        events = lab.append_table("order", orders(count))
        served = lab.serve(order_summary, as_="projection")
        record(app, given.to_pylist())
        # A read model can be made again, so its user would choose NORMAL, which syncs no commit, for a replay.
        relaxed, synced = ([summary(folder / f"{how}{run}.db", how) for run in range(4)] for how in ("NORMAL", "FULL"))
        ours, *theirs = take_turns(
            lambda run: served.rebuild(), lambda run: replay(app, relaxed[run]), lambda run: replay(app, synced[run]),
            runs=3,
        )  # fmt: skip
    agree(given, relaxed[0])
    for view in relaxed + synced:
        view.datastore.close()
    for name, aim, taken in zip(("commits not synced", "commits synced"), (1 / 80, None), theirs, strict=True):
        yield result(f"rebuild() / peer's projection, {name}", ours / events, taken / given.num_rows, aim, "events")


def replay(app: Orders, view: Summary) -> None:
    """Project the peer's log. Its runner needs a database that notifies, so the log's reader drives the projection."""
    projection = Summarize(view)
    for page in NotificationLogReader(app.notification_log, section_size=PAGE).select(start=1):
        for each in page:
            projection.process_event(app.mapper.to_domain_event(each), Tracking(app.name, each.id))


def agree(table: pa.Table, view: Summary) -> None:
    """Assert that the peer's rows are ours, money and times as text."""
    with open_shop() as lab:
        lab.append_table("order", table)
        columns = "order_id, customer_id, status, total, paid, item_count, version, created_at, updated_at"
        rows = lab._log.database.execute(f"SELECT {columns} FROM ({order_facts.sql}) ORDER BY order_id")
    with view.datastore.transaction(commit=False) as cursor:
        cursor.execute("SELECT * FROM order_summary ORDER BY order_id")
        theirs = [tuple(row)[1:] for row in cursor.fetchall()]
    assert theirs == [
        (*row[:3], str(row[3]), str(row[4]), *row[5:7], *(f"{at.isoformat()}+00:00" for at in row[7:])) for row in rows
    ]


def orders(count: int) -> pa.Table:
    """Return the events of so many orders, none of them cancelled."""
    return tables(Workload(orders=count, seed=7, cancelled=0, refunded=0, late=0))["order"]


@contextmanager
def opened(path: Path, **settings: str) -> Iterator[Orders]:
    """Open the peer's application over a file, every commit synced."""
    with Orders({"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path), **settings}) as app:
        assert isinstance(app.recorder, SQLiteRecorder)
        synchronous(app.recorder.datastore, "FULL")
        yield app


def summary(path: Path, how: str) -> Summary:
    """Open the peer's read model over a file of its own."""
    view = Summary(SQLiteDatastore(str(path)))
    view.create_table()
    synchronous(view.datastore, how)
    return view


def synchronous(datastore: SQLiteDatastore, how: str) -> None:
    """Set when SQLite syncs; the pool hands one thread the same connection again and again."""
    with datastore.get_connection(commit=True) as connection:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA synchronous = {how}")
        cursor.execute("PRAGMA synchronous")
        assert cursor.fetchone()[0] == {"NORMAL": 1, "FULL": 2}[how]
        cursor.execute("PRAGMA journal_mode")
        assert cursor.fetchone()[0] == "wal"
