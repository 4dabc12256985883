"""The peer: the same fold of the same events in Pathway, replayed from a file, and moved by one batch after the other.

Owns the peer's dataflow, written as its documentation teaches: rows are grouped by order and reduced. It is an engine
that moves results incrementally, as our projections do, and nearest to them in kind.

What is fair, and what favours the peer:

- Five columns that both can fold, and that both are asserted to agree on; amounts are whole cents, times microseconds.
- It keeps its rows in memory and syncs nothing; ours checks and stores the events, moves its rows and its checkpoint,
  and every commit is on disk before it returns.
- The replay reads CSV, the fastest of its connectors here (Python hands over 0.08 million events a second), and sends
  its rows nowhere. Batches come from Python and are done when it says that the time of the batch is over.
- Two threads, as ours: with one, the replay takes 1.3 times as long, and a batch the same.

It is an extra of its own, as it brings 80 packages, wants pyarrow below 26, and is under the Business Source License.
"""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Median, Result, seconds, take_turns
from cqrs_lab import ReadModel, open_shop
from cqrs_lab.workbench import Workload, tables

THREADS = 2
os.environ.setdefault("PATHWAY_THREADS", str(THREADS))  # it is read at the import
import pathway as pw  # noqa: E402

SIZE, BATCHES = 1_000, 8
WAIT = 120  # seconds until a batch that did not come out is given up
Row = dict[str, Any]
EVENTS = """
SELECT order_id, version, CASE type WHEN 'OrderPaid' THEN 2 WHEN 'OrderShipped' THEN 3 WHEN 'OrderDelivered' THEN 4
                                    WHEN 'OrderCancelled' THEN 5 ELSE 1 END AS stage,
       (coalesce(CASE WHEN type = 'OrderRefunded' THEN -amount ELSE amount END, 0) * 100)::BIGINT AS cents,
       epoch_us(occurred_at) AS at
FROM order_events WHERE position > {after} ORDER BY position
"""
ends = ReadModel(
    "order_ends",
    key="order_id",
    sql="""
SELECT order_id, max(version) AS version,
       max(CASE type WHEN 'OrderPaid' THEN 2 WHEN 'OrderShipped' THEN 3 WHEN 'OrderDelivered' THEN 4
                     WHEN 'OrderCancelled' THEN 5 ELSE 1 END) AS stage,
       coalesce(sum(CASE WHEN type = 'OrderRefunded' THEN -amount ELSE amount END), 0) AS paid,
       max(occurred_at) AS updated_at
FROM order_events GROUP BY order_id
""",
)
COMPARED = "SELECT order_id, version, stage, (paid * 100)::BIGINT AS cents, epoch_us(updated_at) AS at FROM order_ends"


class Event(pw.Schema):  # type: ignore[misc]
    """An event of an order, as the peer reads it."""

    order_id: str
    version: int
    stage: int
    cents: int
    at: int


def fold(events: pw.Table) -> pw.Table:
    """Fold events into a row for each order."""
    return events.groupby(events.order_id).reduce(
        events.order_id,
        version=pw.reducers.max(events.version),
        stage=pw.reducers.max(events.stage),
        cents=pw.reducers.sum(events.cents),
        at=pw.reducers.max(events.at),
    )


def run(count: int) -> Iterator[Result]:
    """Measure ours against the peer on `count` orders."""
    logging.getLogger("pathway").setLevel(logging.ERROR)
    logging.getLogger("pathway_engine").setLevel(logging.ERROR)
    events = tables(Workload(orders=count, seed=7))["order"].drop_columns(["recorded_at"])
    held_back = SIZE * BATCHES
    first, batches = events.slice(0, events.num_rows - held_back), events.slice(events.num_rows - held_back)
    with tempfile.TemporaryDirectory() as name, open_shop(Path(name) / "shop.duckdb", threads=THREADS) as lab:
        lab.append_table("order", first)
        served = lab.serve(ends, as_="projection", mode="manual")
        file = Path(name) / "events.csv"
        lab._log.database.execute(f"COPY ({EVENTS.format(after=0)}) TO '{file}' (FORMAT csv, HEADER)")
        ours, theirs = take_turns(lambda run: served.rebuild(), lambda run: replay(file), runs=3)
        yield result("rebuild() / a static run from CSV", ours, theirs, first.num_rows)
        peer = Following()
        peer.follow(lab._log.database.arrow(EVENTS.format(after=0)).to_pylist())
        stored, moved, followed = [], [], []
        for start in range(0, batches.num_rows, SIZE):
            head, batch = lab.head, batches.slice(start, SIZE)
            stored.append(seconds(lambda batch=batch: lab.append_table("order", batch)))  # type: ignore[misc]
            moved.append(seconds(served.catch_up))
            rows = lab._log.database.arrow(EVENTS.format(after=head)).to_pylist()
            followed.append(seconds(lambda rows=rows: peer.follow(rows)))  # type: ignore[misc]
        peer.end()
        expected = {row[0]: row[1:] for row in served.sql(COMPARED).fetchall()}
        assert peer.rows == expected, "the peer's rows are not ours"
        both = Median(map(sum, zip(stored[1:], moved[1:], strict=True)))
        yield result("1,000 events: rows moved / folded", Median(moved[1:]), Median(followed[1:]), SIZE)
        yield result("1,000 events: stored, and rows moved / folded", both, Median(followed[1:]), SIZE)


def result(name: str, ours: Median, theirs: Median, count: int) -> Result:
    """Return a line of the table: milliseconds, and events a second."""
    note = f"{theirs / ours:.3g}x as fast: {count / ours:,.0f} events/s; Pathway {count / theirs:,.0f}"
    return Result(name, ours * 1e3, theirs * 1e3, note=note)


def replay(file: Path) -> None:
    """Fold a file of events once."""
    pw.internals.parse_graph.G.clear()
    pw.io.null.write(fold(pw.io.csv.read(str(file), schema=Event, mode="static")))
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


class Following:
    """The peer's dataflow, running in a thread of its own and fed with batches."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, ...]] = {}
        self._batches: queue.Queue[list[Row] | None] = queue.Queue()
        self._expected, self._seen, self._done = 0, 0, threading.Event()
        pw.internals.parse_graph.G.clear()
        rows = fold(pw.io.python.read(self._source(), schema=Event, autocommit_duration_ms=None))
        pw.io.subscribe(rows, on_change=self._change, on_time_end=lambda time: self._over())
        self._thread = threading.Thread(
            target=pw.run, kwargs={"monitoring_level": pw.MonitoringLevel.NONE}, daemon=True
        )
        self._thread.start()

    def follow(self, rows: list[Row]) -> None:
        """Hand over a batch and wait until its rows have come out."""
        self._done.clear()
        self._expected += len(rows)
        self._batches.put(rows)
        if not self._done.wait(WAIT):
            raise TimeoutError(f"the peer gave no rows within {WAIT} s")

    def end(self) -> None:
        """Stop it."""
        self._batches.put(None)
        self._thread.join(WAIT)

    def _source(self) -> pw.io.python.ConnectorSubject:
        batches = self._batches

        class Source(pw.io.python.ConnectorSubject):  # type: ignore[misc]
            deletions_enabled = False

            def run(self) -> None:
                while (rows := batches.get()) is not None:
                    for row in rows:
                        self.next(**row)
                    self.commit()

        return Source()

    def _change(self, key: Any, row: Row, time: int, is_addition: bool) -> None:
        if is_addition:  # versions have no holes, so what they grew by is the number of events that have come out
            self._seen += row["version"] - self.rows.get(row["order_id"], (0,))[0]
            self.rows[row["order_id"]] = (row["version"], row["stage"], row["cents"], row["at"])

    def _over(self) -> None:
        if self._seen == self._expected:
            self._done.set()
