"""The latency lab: the same questions to every serving of a read model, timed.

Owns the questions, their order and the clock. Reads through servings as anybody would; it may build a serving that is
missing, but never moves one that is there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import Any

import polars as pl
from tqdm.auto import tqdm

from cqrs_lab.app import Lab
from cqrs_lab.database import quote
from cqrs_lab.errors import QueryError, ReadOnlyStore
from cqrs_lab.read.models import ReadModel
from cqrs_lab.read.moving import WAYS, ServedAs
from cqrs_lab.read.serving import Served

QUESTIONS = ("point", "list", "aggregate")
# What people ask of the shop; any other read model is listed by its first column and counted by it.
LIST_BY = {"order_summary": "customer_id"}
AGGREGATES = {"order_summary": "SELECT status, count(*), sum(total) FROM order_summary GROUP BY status"}


@dataclass(frozen=True)
class Probe:
    """One question to one serving, with another value at every run.

    Attributes:
        ask: takes the number of the run; the answer is fetched whole before it returns.
    """

    served_as: ServedAs
    question: str
    ask: Callable[[int], object]


def compare_latency(
    lab: Lab,
    model: ReadModel | str,
    *,
    runs: int = 50,
    warmup: int = 3,
    seed: int = 7,
    list_by: str | None = None,
    aggregate: str | None = None,
) -> pl.DataFrame:
    """Time three questions against the read model as a view, a materialized table and a projection.

    A serving that is missing is built. One that is there is asked as it is, however far behind the log: its speed is
    worth nothing without `staleness_events`. Every question has a warm-up; then all runs are mixed, so that a busy
    second of the machine does not hit one serving alone.

    Args:
        runs: how often each question is timed, at least 1; below 100 the p99 is little more than the slowest run.
        warmup: how often it is asked before, untimed.
        seed: draws the keys and values asked for, each from a row that is there, and the order of the runs.
        list_by: the column that "list" asks for; customer_id of order_summary, else the first one outside the key.
        aggregate: a SELECT over the read model; else its rows counted by list_by, for order_summary by status.

    Returns:
        A frame with served_as, question (point, list, aggregate), events (in the log), runs, p50_ms, p95_ms, p99_ms
        (linear between runs) and staleness_events (events of the log that the serving did not know at the start).
        "list" is missing when the key is all that the read model has.

    Raises:
        QueryError: there is nothing to ask for, or no such column.
        ReadOnlyStore: a serving is missing and cannot be built.
        ReadModelRefused, ProjectionFailed, RebuildNeeded: as `lab.serve` raises them.
    """
    if runs < 1 or warmup < 0:
        raise QueryError(f"runs={runs}, warmup={warmup}: time at least 1 run, and warm up 0 times or more")
    if not lab.head:
        raise QueryError(
            f"the log of {lab.path} is empty, so there is nothing to ask; fill it with generate(lab, Workload())"
        )
    servings = [_serve(lab, model, way) for way in WAYS]
    events = lab.head
    staleness = {served.as_: events - served.position for served in servings}
    chance = random.Random(seed)
    probes = _probes(servings, list_by, aggregate, runs, chance)
    taken = _times(probes, runs, warmup, chance)
    by = ["served_as", "question"]
    millis = pl.col("nanoseconds") / 1e6
    return taken.group_by(by, maintain_order=True).agg(
        pl.lit(events, pl.Int64).alias("events"),
        pl.len().cast(pl.Int64).alias("runs"),
        *(millis.quantile(p / 100, interpolation="linear").alias(f"p{p}_ms") for p in (50, 95, 99)),
        pl.col("served_as").replace_strict(staleness, return_dtype=pl.Int64).first().alias("staleness_events"),
    )


def _serve(lab: Lab, model: ReadModel | str, way: ServedAs) -> Served:
    try:
        return lab.serve(model, as_=way)
    except ReadOnlyStore as error:
        name = model if isinstance(model, str) else model.name
        raise ReadOnlyStore(
            f"{name} is not served as {way} in {lab.path}, which is open read-only; open it for writing once and call "
            f"lab.serve({name!r}, as_={way!r})"
        ) from error


def _probes(
    servings: Sequence[Served], list_by: str | None, aggregate: str | None, runs: int, chance: random.Random
) -> list[Probe]:
    model = servings[0].model
    columns = servings[0].sql(f"SELECT * FROM {quote(model.name)} LIMIT 0").columns
    if list_by is None:
        others = [name for name in columns if name.lower() not in {key.lower() for key in model.keys}]
        list_by = LIST_BY.get(model.name, others[0] if others else None)
    elif list_by not in columns:
        raise QueryError(f"{model.name} has no column {list_by!r} to list by; it has {', '.join(columns)}")
    if aggregate is None:
        group = f" GROUP BY {quote(list_by)}" if list_by else ""
        aggregate = AGGREGATES.get(model.name, f"SELECT count(*) FROM {quote(model.name)}{group}")
    # The serving that is furthest behind: what it knows, the others know, too.
    rows = _draw_rows(min(servings, key=lambda served: served.position), list_by, runs, chance)

    def point(served: Served, run: int) -> object:
        return served.get(*rows[run][: len(model.keys)])

    def listed(served: Served, run: int) -> object:
        return served.where(**{str(list_by): rows[run][-1]}).fetchall()

    def aggregated(served: Served, run: int) -> object:
        return served.sql(str(aggregate)).fetchall()

    asks = dict(zip(QUESTIONS, (point, listed, aggregated), strict=True))
    if list_by is None:
        del asks["list"]
    return [Probe(served.as_, question, partial(ask, served)) for served in servings for question, ask in asks.items()]


def _draw_rows(served: Served, list_by: str | None, n: int, chance: random.Random) -> list[tuple[Any, ...]]:
    """Return the key, and the column to list by, of n rows drawn at random, the same row perhaps more than once.

    A value that many rows have is drawn as often, as it would be asked for.
    """
    name = quote(served.model.name)
    (count,) = served.sql(f"SELECT count(*) FROM {name}").fetchall()[0]
    if not count:
        raise QueryError(
            f"{served.model.name} as {served.as_} has no rows at position {served.position}, so there is nothing to ask"
        )
    wanted = [chance.randrange(count) for _ in range(n)]
    keys = ", ".join(map(quote, served.model.keys))
    columns = keys if list_by is None else f"{keys}, {quote(list_by)}"
    rows = served.sql(
        f"SELECT * FROM (SELECT {columns}, row_number() OVER (ORDER BY {keys}) - 1 AS _row FROM {name}) "
        f"WHERE _row IN ({', '.join(map(str, set(wanted)))})"
    ).fetchall()
    by_number = {row[-1]: row[:-1] for row in rows}
    return [by_number[number] for number in wanted]


def _times(probes: Sequence[Probe], runs: int, warmup: int, chance: random.Random) -> pl.DataFrame:
    """Return every single run: served_as, question, run and nanoseconds, in order of the probes."""
    plan = [(probe, run) for run in range(runs) for probe in range(len(probes))]
    chance.shuffle(plan)
    before = [(probe, run % runs) for run in range(warmup) for probe in range(len(probes))]
    taken = []
    # Quick comparisons stay without a bar.
    for number, (probe, run) in enumerate(tqdm([*before, *plan], unit=" questions", delay=2, leave=False)):
        start = perf_counter_ns()
        probes[probe].ask(run)
        end = perf_counter_ns()
        if number >= len(before):
            taken.append((probe, run, end - start))
    frame = pl.DataFrame(taken, schema={"probe": pl.Int64, "run": pl.Int64, "nanoseconds": pl.Int64}, orient="row")
    names = pl.DataFrame(
        [(number, probe.served_as, probe.question) for number, probe in enumerate(probes)],
        schema={"probe": pl.Int64, "served_as": pl.String, "question": pl.String},
        orient="row",
    )
    return names.join(frame, on="probe").sort("probe", "run").drop("probe")
