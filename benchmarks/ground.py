"""The ground: appending, folding, reading by key, against the same by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks.harness import Result, bare_copy, seconds, take_turns
from cqrs_lab import Lab, open_shop
from cqrs_lab.errors import InvalidTable
from cqrs_lab.shop import order_summary
from cqrs_lab.workbench import Workload, tables

THREADS = 2


def run(count: int) -> Iterator[Result]:
    """Measure the ground on `count` orders."""
    table = tables(Workload(orders=count, seed=7))["order"]
    with tempfile.TemporaryDirectory() as folder:
        yield from appending(table, Path(folder))
        with open_shop(Path(folder) / "shop.duckdb", threads=THREADS) as lab:
            lab.append_table("order", table)
            yield from folding(lab, table.num_rows)
            yield from reading_by_key(lab)
            yield from reading_by_index(lab)


def appending(table: pa.Table, folder: Path) -> Iterator[Result]:
    """append_table against an INSERT of the very rows that it stores, into the same tables with the same keys."""
    n = table.num_rows
    ours: list[float] = []
    events_only: list[float] = []
    with_streams: list[float] = []
    for number in range(6):
        with open_shop(folder / f"append{number}.duckdb", threads=THREADS) as lab:
            ours.append(seconds(lambda lab=lab: lab.append_table("order", table)))  # type: ignore[misc]
            stored, streams = (
                lab._log.database.arrow(f"SELECT * FROM {name} ORDER BY {key}")
                for name, key in (("order_events", "position"), ("streams", "stream_no"))
            )
            for times, names in ((events_only, ["order_events"]), (with_streams, ["order_events", "streams"])):
                bare = bare_copy(lab, folder / "bare.duckdb")
                given = {"order_events": stored, "streams": streams}
                times.append(seconds(lambda bare=bare, names=names, given=given: _insert(bare, names, given)))  # type: ignore[misc]
                bare.close()
            if number == 0:
                yield from bad_row(lab, table)
        (folder / f"append{number}.duckdb").unlink()
    best, bare_best, both_best = min(ours), min(events_only), min(with_streams)
    rate = f"{n / best:,.0f} events/s (aim 400,000)"
    yield Result("append_table / INSERT of its events", best, bare_best, "s", 1.5, f"{rate}; bare {n / bare_best:,.0f}")
    yield Result("append_table / INSERT of events and streams", best, both_best, "s", None, "all that it stores")


def _insert(bare: duckdb.DuckDBPyConnection, names: list[str], given: dict[str, pa.Table]) -> None:
    bare.execute("BEGIN").fetchall()
    for name in names:
        bare.register("given", given[name])
        bare.execute(f"INSERT INTO {name} SELECT * FROM given").fetchall()
    bare.execute("COMMIT").fetchall()


def bad_row(lab: Lab, table: pa.Table) -> Iterator[Result]:
    """One bad row near the end of the table: named, and nothing stored."""
    head = lab.head
    amounts = table["amount"].combine_chunks()
    row = table.num_rows - 10
    negative = pa.array([Decimal("-1.00")], amounts.type)
    spoilt = pa.concat_arrays([amounts.slice(0, row), negative, amounts.slice(row + 1)])
    types = table["type"].combine_chunks()
    kinds = pa.concat_arrays([types.slice(0, row), pa.array(["OrderPaid"], types.type), types.slice(row + 1)])
    bad = table.set_column(table.column_names.index("amount"), "amount", spoilt)
    bad = bad.set_column(table.column_names.index("type"), "type", kinds).slice(max(0, table.num_rows - 1_000_000))
    said = ""

    def refused() -> None:
        nonlocal said
        try:
            lab.append_table("order", bad)
        except InvalidTable as error:
            said = str(error)

    taken = seconds(refused)
    assert lab.head == head
    assert "amount" in said or "row" in said, said
    yield Result("one bad row in a million: refused", taken, 1.0, "s", None, said[:70])


def folding(lab: Lab, events: int) -> Iterator[Result]:
    """refresh() against the same SELECT by hand."""
    kept, bare = lab.serve(order_summary, as_="materialized"), lab._log.database
    # Its key unpacked and in order, as ours: 0.30 s, and 0.37 as CREATE TABLE AS makes it.
    columns = ", ".join(
        f'"{name}" {kind} {"USING COMPRESSION uncompressed" if name == "order_id" else ""}'
        for name, kind in bare.columns(kept.text).items()
    )
    by_hand = (
        f"CREATE OR REPLACE TABLE by_hand ({columns})",
        f"INSERT INTO by_hand SELECT * FROM ({kept.text}) ORDER BY order_id",
        "ALTER TABLE by_hand ADD PRIMARY KEY (order_id)",
    )
    refresh, ctas = take_turns(
        lambda run: kept.refresh(),
        lambda run: [bare.execute(sql) for sql in by_hand],
        runs=5,
    )
    yield Result(
        "refresh() / by hand, same key", refresh, ctas, "s", 1.2,
        f"{events / refresh / 1e6:.1f} M events/s; bare {events / ctas / 1e6:.1f}",
    )  # fmt: skip


def reading_by_key(lab: Lab) -> Iterator[Result]:
    """served.get(key) against the bare lookup in the same table."""
    served = lab.serve(order_summary, as_="projection")
    view = lab.serve(order_summary, as_="view")
    keys = [row[0] for row in lab._log.database.execute("SELECT order_id FROM by_hand USING SAMPLE 500 (reservoir, 1)")]
    assert lab._log.database._root is not None
    cursor = lab._log.database._root.cursor()
    sql = "SELECT * FROM by_hand WHERE order_id = ?"
    get, bare = take_turns(
        lambda run: served.get(keys[run % 500]),
        lambda run: cursor.execute(sql, [keys[(run + 250) % 500]]).fetchall(),
        runs=400,
        warm_up=20,
    )
    asked, _ = take_turns(lambda run: view.get(keys[run]), lambda run: None, runs=10)
    rows = lab._log.database.execute("SELECT count(*) FROM by_hand")[0][0]
    yield Result(
        "get(key) / bare lookup", get * 1e3, bare * 1e3, "ms", 1.5, f"{rows:,} rows; a view: {asked * 1e3:.0f} ms"
    )


def reading_by_index(lab: Lab) -> Iterator[Result]:
    """served.where(column) through a declared index against the bare look-up in a table with the same index."""
    served = lab.serve(replace(order_summary, name="indexed", indexes=("customer_id",)))
    assert lab._log.database._root is not None
    cursor = lab._log.database._root.cursor()
    cursor.execute("CREATE INDEX by_customer ON by_hand (customer_id)").fetchall()
    some = "SELECT customer_id FROM by_hand GROUP BY 1 HAVING count(*) BETWEEN 5 AND 15 ORDER BY hash(customer_id)"
    customers = [row[0] for row in cursor.execute(f"{some} LIMIT 200").fetchall()]
    sql = "SELECT * FROM by_hand WHERE customer_id = ? ORDER BY order_id"
    where, bare = take_turns(
        lambda run: served.where(customer_id=customers[run % len(customers)]).fetchall(),
        lambda run: cursor.execute(sql, [customers[(run + 70) % len(customers)]]).fetchall(),
        runs=200,
        warm_up=20,
    )
    yield Result(
        "where(indexed column) / bare look-up", where * 1e3, bare * 1e3, "ms", 2.0, "a customer's 5 to 15 orders"
    )
