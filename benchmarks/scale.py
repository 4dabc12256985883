"""A log that no machine holds: generated, sealed and replayed within a bound of memory; and what spreading costs.

Use: python -m benchmarks.scale --events 100_000_000 [--memory 8] [--partitions 32] [--workers 2] [--models NAME …]
                                   [--compare]
     python -m benchmarks.scale --shop 2_000_000      every read model of the shop: rebuild; replay by 1 and 2 workers

The large log is made by SQL and goes into the partitions some millions of events at a time, as a seal writes them: the
keys of a store of a hundred million events alone would take the memory that is allowed. Four events for each order, a
thousand orders open at once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from cqrs_lab import open_shop
from cqrs_lab.scale import Manifest, Replayed, replay, seal, verify
from cqrs_lab.scale.folders import Folder
from cqrs_lab.scale.manifest import SealedCategory, load
from cqrs_lab.scale.reading import show_events, stored_view
from cqrs_lab.scale.sealing import Sealing, described
from cqrs_lab.scale.spreading import Spreader
from cqrs_lab.shop import daily_orders, shop_domain
from cqrs_lab.sql.names import quote
from cqrs_lab.store.database import Database
from cqrs_lab.workbench import Workload, generate

CHUNK = 5_000_000
_OPEN = 1_000  # orders that are open at once
_CUSTOMERS = 200  # events for each customer


class Watched:
    """The memory of this process and all that it started, looked at five times a second."""

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._over.wait(0.2):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    info = process.memory_full_info()
                    total += info.pss if hasattr(info, "pss") else info.rss  # pages that are shared count once
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)

    def take(self) -> float:
        """Return the peak in GiB since the last look, and begin again."""
        peak, self.peak = self.peak, 0
        return peak / 2**30


@contextmanager
def timed(watched: Watched, what: str, events: int) -> Iterator[None]:
    """Print what the block took."""
    watched.take()
    began = time.perf_counter()
    yield
    took = time.perf_counter() - began
    load = os.getloadavg()[0]
    print(
        f"{what:34} {took:8.1f} s {events / took / 1e6:7.2f} M events/s   peak {watched.take():5.2f} GiB   "
        f"load {load:.1f}",
        flush=True,
    )


def _envelope(position: str, stream: str, version: str, kind: str, schema: int) -> str:
    return (
        f"{position} AS position, ({stream})::INTEGER AS stream_no, ({version})::INTEGER AS version, {kind} AS type, "
        f"{schema}::SMALLINT AS schema_version, CAST(printf('843affee-4439-4f86-8000-%012x', {position}) AS UUID) AS "
        "event_id, NULL::VARCHAR AS correlation_id, NULL::VARCHAR AS causation_id, NULL::VARCHAR AS command_id, "
        f"TIMESTAMP '2020-01-01' + to_milliseconds({position} * 300) AS occurred_at, "
        f"TIMESTAMP '2020-01-01' + to_milliseconds({position} * 300) AS recorded_at"
    )


def _filled(category: SealedCategory, known: dict[str, str]) -> str:
    """The columns of a category beside the envelope, those that are not known NULL."""
    plain = [*category.columns][11:]
    return ", ".join(f'CAST({known.get(name, "NULL")} AS {category.columns[name]}) AS "{name}"' for name in plain)


def _customers(category: SealedCategory, count: int, after: int, to: int) -> tuple[str, str]:
    first, last = min(after, count) + 1, min(to, count) + 1
    numbers = f"SELECT range::BIGINT AS p FROM range({first}, {last})"
    fields = _filled(category, {"customer_id": "'c-' || p"})
    events = f"SELECT {_envelope('p', 'p', '1', repr('CustomerRegistered'), 1)}, {fields} FROM ({numbers})"
    personal = (
        "SELECT p AS position, CAST('c-' || p || '@example.com' AS VARCHAR) AS email, "
        f"CAST('Customer ' || p AS VARCHAR) AS name, p::INTEGER AS stream_no FROM ({numbers})"
    )
    return events, personal


def _orders(category: SealedCategory, customers: int, after: int, to: int) -> tuple[str, str]:
    first, last = max(after, customers) - customers, max(to, customers) - customers
    stage, number = f"((n // {_OPEN}) % 4)", f"((n // {4 * _OPEN}) * {_OPEN} + n % {_OPEN})"
    kinds = "(['OrderPlaced', 'OrderPaid', 'OrderShipped', CASE WHEN h % 20 = 0 THEN 'OrderCancelled' ELSE 'OrderDelivered' END])[s + 1]"  # noqa: E501
    lines = "[{'product_id': 'p-' || (h % 500), 'quantity': 1 + h % 3, 'unit_price': (5 + h % 90)::DECIMAL(18, 2)}]"
    fields = _filled(
        category,
        {
            "order_id": "'o-' || o",
            "customer_id": f"CASE WHEN s = 0 THEN 'c-' || (1 + h % {customers}) END",
            "lines": f"CASE WHEN s = 0 THEN {lines} END",
            "total": "CASE WHEN s = 0 THEN (1 + h % 3) * (5 + h % 90) END",
            "freight": "CASE WHEN s = 0 THEN 5 END",
            "amount": "CASE WHEN s = 1 THEN (1 + h % 3) * (5 + h % 90) END",
            "method": "CASE WHEN s = 1 THEN 'card' END",
            "tracking_number": "CASE WHEN s = 2 THEN 't-' || o END",
            "reason": "CASE WHEN s = 3 AND h % 20 = 0 THEN 'late' END",
        },
    )
    numbers = f"SELECT range::BIGINT AS n, {stage} AS s, {number} AS o FROM range({first}, {last})"
    drawn = f"SELECT *, (o * 2654435761) % 1000003 AS h FROM ({numbers})"
    envelope = _envelope(f"(n + {customers + 1})", f"o + {customers + 1}", "s + 1", kinds, 3)
    return f"SELECT {envelope}, {fields} FROM ({drawn})", ""


def _kept(database: Database, name: str, selects: tuple[str, str]) -> tuple[str, str]:
    """Keep the events of a chunk in a table: a seal reads them twice."""
    database.execute(f"CREATE OR REPLACE TABLE {name}_chunk AS {selects[0]}")
    return f"SELECT * FROM {name}_chunk", selects[1]


def _selects(
    made: dict[str, Any], chunk: dict[str, tuple[str, str]], to: int, name: str, after: int
) -> tuple[str, str]:
    """The SELECTs of the events of a chunk, and of all that is personal up to its end."""
    return chunk[name][0], made[name](after, to)[1]


def sealed(folder: Path, events: int, partitions: int, memory: float) -> Manifest:
    """Generate and seal so many events, some at a time."""
    with open_shop() as lab:  # for what a shop's log looks like
        categories = {name: one for name, one in described(lab._log).items() if name in ("customer", "order")}
    customers = max(1, events // _CUSTOMERS)
    made = {
        "customer": partial(_customers, categories["customer"], customers),
        "order": partial(_orders, categories["order"], customers),
    }
    folder.mkdir(parents=True, exist_ok=True)
    database = Database.open(folder / "chunk.duckdb", threads=os.cpu_count())
    place, manifest = Folder(folder), None
    try:
        database.execute(f"SET GLOBAL memory_limit = '{int(memory * 0.6 * 1024)}MB'")
        database.execute(f"SET GLOBAL temp_directory = '{folder / 'spilled'}'")
        database.execute("SET GLOBAL preserve_insertion_order = false")
        for to in [*range(CHUNK, events, CHUNK), events]:
            chunk = {name: _kept(database, name, make(to - CHUNK if to % CHUNK == 0 else to - to % CHUNK, to))
                     for name, make in made.items()}  # fmt: skip
            sealing = Sealing(database, place, manifest, partitions)
            with sealing.writing():
                manifest = sealing.seal(categories, to, partial(_selects, made, chunk, to))
    finally:
        database.release()
        shutil.rmtree(folder / "spilled", ignore_errors=True)
        for file in folder.glob("chunk.duckdb*"):
            file.unlink()
    assert manifest is not None
    return manifest


def cluster(workers: int, memory: float) -> Any:
    """Return a cluster on this machine."""
    from dask.distributed import LocalCluster

    return LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=workers, threads_per_worker=1, dashboard_address=":0", memory_limit=f"{memory / workers:.2f}GiB"
    )


def large(
    events: int, partitions: int, workers: int, memory: float, folder: Path, models: list[str], is_compared: bool
) -> None:
    """Generate, seal and replay a large log within some memory; compare with one machine, which takes what it needs."""
    from dask.distributed import Client

    watched = Watched()
    if load_or_none(folder) is None:
        with timed(watched, f"generate and seal {events:,}", events):
            sealed(folder / "log", events, partitions, memory)
    _, manifest = load(folder / "log")
    print(f"{manifest.events:,} events in {len(manifest.files)} files, {manifest.bytes / 2**30:.2f} GiB", flush=True)
    with timed(watched, "verify", events):
        assert verify(folder / "log") == []
    with cluster(workers, memory - 1) as machines, Client(machines) as client:  # type: ignore[no-untyped-call]
        for model in (model for model in shop_domain().read_models if model.name in models):
            with timed(watched, f"replay {model.name}", events):
                rows = replay(folder / "log", model, client, scratch=folder / "scratch")
            size = sum(file.stat().st_size for file in (folder / "scratch").rglob("*.duckdb"))
            print(f"    {len(rows):,} rows, {rows.spread}, {rows.tasks} tasks, {size / 2**30:.2f} GiB", flush=True)
            if is_compared:
                print(f"    {compare(folder, rows)}", flush=True)
            del rows


def compare(folder: Path, rows: Replayed) -> str:
    """Hold replayed rows against those that one DuckDB gives of the text over all files: EXCEPT ALL both ways."""
    place, manifest = load(folder / "log")
    model, models = rows.model, {one.id: one for one in shop_domain().read_models}
    database = Database.open(threads=os.cpu_count())
    local = Path(tempfile.mkdtemp(dir=folder))
    try:
        database.execute(f"SET GLOBAL temp_directory = '{local}'")
        for name, category in manifest.categories.items():
            files = (category.files, category.personal_files)
            show_events(database, name, category, stored_view(place, category, files, local))
        spreader = Spreader(manifest, models, database.columns)
        shown = ", ".join(map(quote, spreader.types(model.id)))
        began = time.perf_counter()
        count = database.execute(f"CREATE TABLE one_machine AS {spreader.text(model)}")[0][0]
        took = time.perf_counter() - began
        with rows.attached(database) as select:
            replayed = f"SELECT {shown} FROM ({select})"
            one = f"SELECT {shown} FROM one_machine"
            sides = ((replayed, one), (one, replayed))
            differing = [database.execute(f"SELECT count(*) FROM (({a}) EXCEPT ALL ({b}))")[0][0] for a, b in sides]
        assert differing == [0, 0], f"{model.name}: {differing} rows differ"
        return f"{count:,} rows of one machine in {took:.1f} s, none differs"
    finally:
        database.release()
        shutil.rmtree(local, ignore_errors=True)


def load_or_none(folder: Path) -> Manifest | None:
    """Return what is sealed in a folder already."""
    return load(folder / "log")[1] if (folder / "log" / "manifest.json").exists() else None


def shop(events: int, partitions: int, memory: float, folder: Path) -> None:
    """Compare a rebuild with a replay by one and by two workers, for every read model of the shop."""
    from dask.distributed import Client

    with open_shop(folder / "shop.duckdb") as lab:
        generate(lab, Workload(orders=int(events / 3.6), seed=7))
        began = time.perf_counter()
        manifest = seal(lab, folder / "log", partitions)
        print(f"{lab.head:,} events sealed in {time.perf_counter() - began:.1f} s, {manifest.bytes / 2**20:.0f} MiB")
        times: dict[str, list[float]] = {}
        for model in shop_domain().read_models:
            served = lab.serve(model)
            began = time.perf_counter()
            served.rebuild()
            times[model.name] = [time.perf_counter() - began]
        for workers in (1, 2):
            with cluster(workers, memory - 1) as machines, Client(machines) as client:  # type: ignore[no-untyped-call]
                client.wait_for_workers(workers)
                replay(folder / "log", daily_orders, client, scratch=folder / "scratch")  # imports
                for model in shop_domain().read_models:
                    rows = replay(folder / "log", model, client, scratch=folder / "scratch")
                    times[model.name].append(rows.seconds)
                    assert rows.arrow().equals(lab.serve(model).arrow())
                    kind = rows.spread
                    del rows
                    if workers == 2:
                        told = "  ".join(f"{taken:7.2f} s" for taken in times[model.name])
                        print(f"{model.name:20} {kind:10} rebuild, 1 worker, 2 workers: {told}", flush=True)


def main() -> None:
    """Read what is asked and do it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int)
    parser.add_argument("--shop", type=int)
    parser.add_argument("--memory", type=float, default=8)
    parser.add_argument("--partitions", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    some = ["daily_orders", "order_facts", "customer_value", "product_demand"]
    parser.add_argument("--models", nargs="+", default=some)
    parser.add_argument("--compare", action="store_true", help="with the rows of one machine, up to some 10 M events")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="cqrs_lab-scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if given.shop:
            shop(given.shop, given.partitions, given.memory, folder)
        if given.events:
            large(given.events, given.partitions, given.workers, given.memory, folder, given.models, given.compare)
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
