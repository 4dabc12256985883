"""What the notebooks measure beside sizes and crossovers, measured once for the recording.

Owns the same calls as their cells: commands one by one and together, lag, polling and waiting, a table against a log,
a load. `cqrs_lab.workbench.recording` writes what comes of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode, urlsplit

import polars as pl

from cqrs_lab.app import Lab, open_shop
from cqrs_lab.read.table import ServedAs
from cqrs_lab.shop import OrderDetails, OrderLine, PlaceOrder, order_summary
from cqrs_lab.store.database import Database
from cqrs_lab.workbench.course.served import served_shop
from cqrs_lab.workbench.course.stage import repeatable
from cqrs_lab.workbench.data.generated import generate
from cqrs_lab.workbench.data.workload import Workload
from cqrs_lab.workbench.measure.driver import drive
from cqrs_lab.workbench.measure.polling import poll, visible_ms
from cqrs_lab.workbench.measure.timing import median_ms, timed_ms

_LINES = (OrderLine(product_id="p-1", quantity=2, unit_price="9.99"),)
_SHOP = Workload(orders=5_000, seed=7)


def _orders() -> Iterator[PlaceOrder]:
    """Commands for orders that are not there yet."""
    return (PlaceOrder(order_id=f"new-{n}", customer_id="c-me", lines=_LINES) for n in count(1))


def calls() -> pl.DataFrame:
    """Measure what single calls of the notebooks take.

    Returns:
        what and ms, a row for each; what is the name that its notebook shows.
    """
    found = {**_commands(), **_lags(), **_over_http(), **_table_against_log()}
    return pl.DataFrame({"what": found.keys(), "ms": found.values()})


def _commands() -> dict[str, float]:
    """Notebooks 01 and 02: 200 orders, each durable by itself or all together; a workload."""
    new = _orders()
    with TemporaryDirectory() as folder, open_shop(Path(folder) / "shop.duckdb", **repeatable()) as lab:
        alone = timed_ms(lambda: [lab.send(next(new)) for _ in range(200)])
        together = timed_ms(lambda: lab.send_many([next(new) for _ in range(200)]))
    with open_shop() as lab:
        made = timed_ms(lambda: generate(lab, Workload.preset("workshop")))
    return {"200 orders, one by one": alone, "200 orders, together": together, "generate, workshop": made}


def _lags() -> dict[str, float]:
    """Notebook 06: how late appends can be seen, and what it takes to wait for one's own."""
    new = _orders()
    with open_shop() as lab:
        generate(lab, _SHOP)
        lab.serve(order_summary, mode="background")
        lab.catch_up()
        hurried = visible_ms(lab, [lab.send(next(new)).position for _ in range(200)])
        found = {f"hurried, p{percent}": hurried.quantile(percent / 100) or 0.0 for percent in (50, 95, 99)}
        quiet = [lab.send(next(new), wait_for=order_summary, timeout=60).position for _ in range(20)]
        busy = lab.send_many([next(new) for _ in range(3_000)])[-1].position
        late = visible_ms(lab, quiet), visible_ms(lab, [busy])
        found |= {"quiet, p50": late[0].median(), "import": late[1].max()}  # type: ignore[dict-item]
        ways = {"polling": _polling, "waiting": _waiting, "waiting_in_send": _waiting_in_send}
        found |= {name: _median(partial(way, lab), new) for name, way in ways.items()}
        found["send, background"] = median_ms(lambda n: lab.send(next(new)))
    return found


def _median(way: Callable[[PlaceOrder], None], new: Iterator[PlaceOrder]) -> float:
    return median_ms(lambda n: way(next(new)))


def _polling(lab: Lab, order: PlaceOrder) -> None:
    lab.send(order)
    query = OrderDetails(order_id=order.order_id)
    poll(lambda: lab.ask(query), until=lambda row: row is not None, every=0.1, timeout=60)


def _waiting(lab: Lab, order: PlaceOrder) -> None:
    receipt = lab.send(order)
    lab.ask(OrderDetails(order_id=order.order_id), at_least=receipt.position, timeout=60)


def _waiting_in_send(lab: Lab, order: PlaceOrder) -> None:
    lab.send(order, wait_for=order_summary, timeout=60)
    lab.ask(OrderDetails(order_id=order.order_id))


def _over_http() -> dict[str, float]:
    """Notebook 06: the same to a server, in bare HTTP, since this package may not import the client."""
    new = _orders()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "shop.duckdb"
        with open_shop(path) as shop:
            shop.serve(order_summary, mode="background")
        with served_shop(path) as served, closing(HTTPConnection(urlsplit(served.address).netloc, timeout=60)) as wire:

            def asked(method: str, path: str, body: str | None = None, **headers: str) -> Any:
                shown = {"Authorization": f"Bearer {served.token}", "Content-Type": "application/json", **headers}
                wire.request(method, path, body, shown)
                return json.loads(wire.getresponse().read())

            def send(order: PlaceOrder) -> int:
                key = {"Idempotency-Key": order.order_id}
                position: int = asked("POST", "/commands/PlaceOrder", order.model_dump_json(), **key)["position"]
                return position

            def polling_status(order: PlaceOrder) -> None:
                send(order)
                state: Callable[[], str] = lambda: asked("GET", f"/commands/{order.order_id}")["state"]  # noqa: E731
                poll(state, until=lambda found: found == "done", every=0.1, timeout=60)
                asked("GET", f"/queries/OrderDetails?order_id={order.order_id}")

            def waiting_for_position(order: PlaceOrder) -> None:
                least = {"order_id": order.order_id, "at_least": send(order), "timeout": 60}
                asked("GET", f"/queries/OrderDetails?{urlencode(least)}")

            ways = (polling_status, waiting_for_position)
            return {way.__name__: _median(way, new) for way in ways}


def _table_against_log() -> dict[str, float]:
    """Notebook 08: an order in a table that is changed in place, and in a log, both on disk."""
    new = _orders()
    with TemporaryDirectory() as folder, open_shop(Path(folder) / "log.duckdb") as lab:
        table = Database.open(Path(folder) / "table.duckdb")
        try:
            table.execute("CREATE TABLE orders (order_id VARCHAR PRIMARY KEY, status VARCHAR, total DECIMAL(18, 2))")
            insert = "INSERT INTO orders VALUES (?, 'PENDING', 19.98)"
            select = "SELECT * FROM orders WHERE order_id = ?"
            lab.serve(order_summary, as_="view")
            return {
                "place, table": median_ms(lambda n: table.execute(insert, [f"o-{n}"])),
                "place, log": median_ms(lambda n: lab.send(next(new))),
                "read, table": median_ms(lambda n: table.execute(select, [f"o-{n}"])),
                "read, view": median_ms(lambda n: lab.ask(OrderDetails(order_id=f"new-{n + 1}"))),
            }
        finally:
            table.release()


def driven() -> pl.DataFrame:
    """Measure notebook 04's load on each serving.

    Returns:
        served_as ("projection", "view" or "cached projection"), question, p50_ms, p99_ms, service_p99_ms (from the
        start of a call) and staleness_max: a row for each kind of call.
    """
    found = []
    for way, seconds, kept in (("projection", 4, None), ("view", 3, None), ("cached projection", 3, 60)):
        with open_shop(cache_seconds=kept) as lab:
            generate(lab, _SHOP)
            lab.serve(order_summary, mode="background")
            asked: ServedAs = "view" if way == "view" else "projection"
            run = drive(lab, seconds=seconds, reads=100, writes=10, served_as=asked, progress=False)
            late = pl.col("service_ms").quantile(0.99, interpolation="linear").alias("service_p99_ms")
            columns = ["question", "p50_ms", "p99_ms", "service_p99_ms", "staleness_max"]
            both = run.summary().join(run.frame.group_by("question").agg(late), on="question", maintain_order="left")
            found.append(both.select(pl.lit(way).alias("served_as"), *columns))
    return pl.concat(found)
