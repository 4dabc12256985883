"""The making of the recorded measurements: `python -m cqrs_lab.workbench.recording`, on a quiet machine.

Owns what is measured of sizes and crossovers, and writes the files that `recorded.py` reads. A new recording may change
what the notebooks print about it: run 00 to 06 and 08 again, and read the sentences that quote numbers.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime
from importlib.metadata import version

import polars as pl

from cqrs_lab.app import open_shop
from cqrs_lab.errors import QueryError
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.shop import daily_orders, daily_sales, order_summary
from cqrs_lab.workbench.data.generated import generate
from cqrs_lab.workbench.data.workload import Workload
from cqrs_lab.workbench.measure.costs import order_summary_by_hand, time_steps
from cqrs_lab.workbench.measure.crossovers import crossover_over_batches
from cqrs_lab.workbench.measure.latency import compare_sizes
from cqrs_lab.workbench.measure.recorded import FOLDER
from cqrs_lab.workbench.measure.timing import timed_ms

_BEST_SELLERS = ReadModel(
    "best_sellers",
    key="product_id",
    sql="SELECT product_id, units, rank() OVER (ORDER BY units DESC) AS place FROM product_demand",
)


def record(also: Mapping[str, Callable[[], pl.DataFrame]] | None = None, only: Collection[str] = ()) -> None:
    """Measure everything on this machine and replace the files; takes some minutes.

    Args:
        also: more recordings, by name: functions that measure.
        only: the recordings to make again; all of them when none is named. Where and when all were made is then not
            written again.

    Raises:
        QueryError: there is no such recording; nothing was measured.
    """
    FOLDER.mkdir(exist_ok=True)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    made: dict[str, Callable[[], pl.DataFrame]] = {
        "sizes": _sizes,
        "steps": _steps,
        "batches": lambda: crossover_over_batches(30_000, (0.001, 0.01, 0.1, 0.3, 1.0)).frame,
        "pairs": _pairs,
        **(also or {}),
    }
    if wrong := sorted({*only} - {*made}):
        raise QueryError(f"there is no recording {wrong[0]!r}; there are {', '.join(sorted(made))}")
    for name, measure in made.items():
        if only and name not in only:
            continue
        # Three digits are more than a second run would repeat.
        measure().with_columns(pl.selectors.float().round_sig_figs(4)).write_csv(FOLDER / f"{name}.csv")
        sys.stdout.write(f"{name}: recorded\n")
    if only:
        return
    about = {
        "command": "python -m cqrs_lab.workbench.recording",
        "day": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} on {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "duckdb": version("duckdb"),
        "load": round(load, 1),
    }
    (FOLDER / "made.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")


def _sizes(rounds: int = 5) -> pl.DataFrame:
    """Of several rounds the fastest counts, because what else the machine does only adds."""
    taken = [compare_sizes((1_000, 5_000, 20_000, 50_000), runs=20, seed=seed) for seed in range(rounds)]
    what = ["served_as", "question", "events", "runs", "staleness_events"]
    # What an event of a batch adds is a difference of two times, and noise may take from it as well as add.
    fastest = pl.all().exclude(*what, "event_ms").min()
    both = pl.concat(taken).group_by(what, maintain_order=True).agg(fastest, pl.col("event_ms").median())
    return both.select(taken[0].columns)


def _steps() -> pl.DataFrame:
    with open_shop() as lab:
        generate(lab, Workload(orders=20_000))
        return time_steps(lab, [daily_orders, order_summary, daily_sales, _BEST_SELLERS], runs=5)


def _pairs() -> pl.DataFrame:
    """What notebooks 03 and 05 compare; the fastest counts, because what else the machine does only adds."""
    found: dict[str, float] = {}
    with open_shop() as lab:
        generate(lab, Workload(orders=4_000))
        for what, model in (("row by row", order_summary_by_hand()), ("as a set", order_summary)):
            served = lab.serve(model)
            found[f"rebuilt {what}"] = min(timed_ms(served.rebuild) for _ in range(3))
    with open_shop() as lab:
        generate(lab, Workload(orders=50_000))
        by_status = "SELECT status, count(*) AS orders FROM order_summary GROUP BY ALL ORDER BY ALL"

        def past() -> object:
            return lab.as_of(recorded=date(2025, 4, 1)).sql(by_status).pl()

        found["a past, folded"] = min(timed_ms(past) for _ in range(15))
        lab.serve(order_summary, keep_history=True)
        found["a past, kept"] = min(timed_ms(past) for _ in range(15))
    return pl.DataFrame({"what": found.keys(), "ms": found.values()})
