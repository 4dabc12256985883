"""The latency lab: the same questions to every serving of a read model, timed, and what each serving costs.

Owns the questions, their order and the clock; the costs are measured by `costs.py`. Reads through servings as anybody
would; it may build a serving that is missing, but never moves one that is there.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import ceil, floor, sqrt
from time import perf_counter_ns
from typing import Any, ClassVar

import polars as pl
from tqdm.auto import tqdm

from cqrs_lab.app import Lab, open_shop
from cqrs_lab.errors import QueryError, ReadOnlyStore
from cqrs_lab.messages import Query
from cqrs_lab.read.projection import Model
from cqrs_lab.read.queries import QueryBus
from cqrs_lab.read.served import Served
from cqrs_lab.read.table import WAYS, ServedAs
from cqrs_lab.shop import order_summary
from cqrs_lab.sql.names import quote
from cqrs_lab.store.rows import Rows
from cqrs_lab.workbench.data.generated import generate
from cqrs_lab.workbench.data.workload import Workload
from cqrs_lab.workbench.measure.costs import BY_HAND, COSTS, copied, costs_of, order_summary_by_hand, takes_orders

CACHED = "cached projection"
SERVED_AS = (*WAYS, CACHED, BY_HAND)
QUESTIONS = ("point", "list", "aggregate", "top ten", "as of")
# What people ask of the shop; any other read model is listed by its first column and counted by it.
LIST_BY = {"order_summary": "customer_id"}
AGGREGATES = {
    "order_summary": "SELECT created_at::DATE AS day, count(*), sum(total) FROM order_summary GROUP BY day ORDER BY day"
}
TOP_TEN = {"order_summary": "SELECT * FROM order_summary ORDER BY total DESC NULLS LAST, order_id LIMIT 10"}
MOST_BY_HAND = 20_000  # events that are handled row by row without being asked to: some 2 s of work
_EVER = datetime(9999, 1, 1, tzinfo=UTC)

Ask = Callable[[Any, int], object]


@dataclass(frozen=True)
class Probe:
    """One question to one serving, with another value at every run.

    Attributes:
        ask: takes the number of the run; the answer is fetched whole before it returns.
    """

    served_as: str
    question: str
    ask: Callable[[int], object]


def compare_latency(
    lab: Lab,
    model: Model | str,
    *,
    runs: int = 50,
    warmup: int = 3,
    seed: int = 7,
    list_by: str | None = None,
    aggregate: str | None = None,
    served_as: Sequence[str] | None = None,
    questions: Sequence[str] = QUESTIONS,
    costs: bool = True,
) -> pl.DataFrame:
    """Time the same questions against every serving of a read model, and what each serving costs.

    A serving that is missing is built. One that is there is asked as it is, however far behind the log: its speed is
    worth nothing without `staleness_events`. Every question has a warm-up; then all runs are mixed, so that a busy
    second of the machine does not hit one serving alone.

    The cached projection is asked through a query bus that has answered each question before; it keeps no answer to
    an aggregate or a top ten. The projection row by row is order_summary without names and addresses, by handlers in
    Python, in a copy of the store. "as of" folds the log for the view; for the projection it is there when the lab
    keeps a history.

    Args:
        runs: how often each question is timed, at least 1; below 100 the p99 is little more than the slowest run.
        warmup: how often it is asked before, untimed.
        seed: draws the keys and values asked for, each from a row that is there, and the order of the runs.
        list_by: the column that "list" asks for; customer_id of order_summary, else the first one outside the key.
        aggregate: a SELECT over the read model; else its rows counted by list_by, for order_summary by day.
        served_as: some of SERVED_AS; None: all that there are for this read model, row by row up to 20,000 events.
        questions: some of QUESTIONS.
        costs: measure also what writing and refreshing cost, in a copy of the store on disk (about 3 s).

    Returns:
        A frame with served_as, question, events (in the log), runs, p50_ms, p50_low_ms and p50_high_ms (the 95 %
        interval of the median, from the ranks of the runs), p95_ms, p99_ms (linear between runs) and staleness_events
        (events of the log that the serving did not know at the start). And, empty without costs and where nothing can
        be written: write_ms (placing an order, with a projection moved in the same transaction; in a lab that takes
        no orders, recording the latest event of the model once more, under a new id), refresh_ms (bringing it up
        by one event: all rows again when materialized), event_ms (each further event of a batch) and bytes (of the
        blocks of the file that hold its columns, without the index of its key).

    Raises:
        QueryError: there is nothing to ask for, or no such column.
        ReadOnlyStore: a serving is missing and cannot be built.
        ReadModelRefused, ProjectionFailed, RebuildNeeded: as `lab.serve` raises them.
    """
    if runs < 1 or warmup < 0:
        raise QueryError(f"runs={runs}, warmup={warmup}: time at least 1 run, and warm up 0 times or more")
    unknown = [*({*(served_as or ())} - {*SERVED_AS}), *({*questions} - {*QUESTIONS})]
    if unknown:
        raise QueryError(f"there is no {unknown[0]!r}; there are {', '.join((*SERVED_AS, *QUESTIONS))}")
    if not lab.head:
        raise QueryError(
            f"the log of {lab.path} is empty, so there is nothing to ask; fill it with generate(lab, Workload())"
        )
    wanted = _wanted(lab, model) if served_as is None else [way for way in SERVED_AS if way in served_as]
    stored: list[ServedAs] = [way for way in WAYS if way in wanted or (way == "projection" and CACHED in wanted)]
    servings: dict[str, Served] = {way: _serve(lab, model, way) for way in stored}
    declared = lab.model(model)
    chance, events = random.Random(seed), lab.head
    known: dict[str, dict[str, float]] = defaultdict(dict)
    with copied(lab, is_needed=costs or BY_HAND in wanted) as copy:
        if BY_HAND in wanted:
            servings[BY_HAND] = copy.serve(order_summary_by_hand())
        staleness = {way: events - served.position for way, served in servings.items()}
        probes = _probes(lab, declared, servings, wanted, questions, list_by, aggregate, runs, chance)
        taken = _times(probes, runs, warmup, chance)
        if costs:
            known |= costs_of(copy, declared, [way for way in servings if way in wanted], chance)
    staleness[CACHED], known[CACHED] = staleness.get("projection", 0), known["projection"]
    frame = taken.group_by("served_as", "question", maintain_order=True).agg(
        pl.lit(events, pl.Int64).alias("events"),
        pl.len().cast(pl.Int64).alias("runs"),
        *_percentiles(runs),
        pl.col("served_as").replace_strict(staleness, return_dtype=pl.Int64).first().alias("staleness_events"),
    )
    return frame.with_columns(
        pl.Series(cost, [known[way].get(cost) for way in frame["served_as"]], dtype=kind)
        for cost, kind in zip(COSTS, [pl.Float64] * 3 + [pl.Int64], strict=True)
    )


def compare_sizes(orders: Iterable[int] = (300, 3_000, 30_000), **more: Any) -> pl.DataFrame:
    """Time the shop's order_summary at several sizes of the history, each in a lab of its own in memory.

    The shops are made up. For another domain open labs of several sizes, such as by `open_log(frame.head(n))`, and
    join what `compare_latency` returns for each: `pl.concat(frames)`.

    Args:
        orders: how many orders each history has; with the customers 3.7 events an order.
        more: as for `compare_latency`.

    Returns:
        The frames of `compare_latency`, one below the other.
    """
    frames = []
    for number in [orders] if isinstance(orders, Lab) else orders:
        if not hasattr(number, "__index__"):
            raise QueryError(
                f"compare_sizes makes up shops of so many orders, and {number!r} is no number; for a lab of your own "
                "use compare_latency(lab, model), and pl.concat for several sizes"
            )
        with open_shop() as lab:
            generate(lab, Workload(orders=number))
            frames.append(compare_latency(lab, order_summary, **more))
    return pl.concat(frames)


# -- the questions -----------------------------------------------------------------------------------------------------


def _wanted(lab: Lab, model: Model | str) -> list[str]:
    """What can be compared without being asked to."""
    by_hand = model in (order_summary, order_summary.name) and takes_orders(lab) and lab.head <= MOST_BY_HAND
    return [way for way in SERVED_AS if way != BY_HAND or by_hand]


def _serve(lab: Lab, model: Model | str, way: ServedAs) -> Served:
    try:
        return lab.serve(model, as_=way)
    except ReadOnlyStore as error:
        name = model if isinstance(model, str) else model.name
        raise ReadOnlyStore(
            f"{name} is not served as {way} in {lab.path}, which is open read-only; open it for writing once and call "
            f"lab.serve({name!r}, as_={way!r})"
        ) from error


def _probes(
    lab: Lab,
    model: Model,
    servings: dict[str, Served],
    wanted: Sequence[str],
    questions: Sequence[str],
    list_by: str | None,
    aggregate: str | None,
    runs: int,
    chance: random.Random,
) -> list[Probe]:
    # The serving that is furthest behind: what it knows, the others know, too.
    oldest = min((served for way, served in servings.items() if way != BY_HAND), key=lambda served: served.position)
    columns = oldest.sql(f"SELECT * FROM {quote(model.name)} LIMIT 0").columns
    if list_by is None:
        others = [name for name in columns if name.lower() not in {key.lower() for key in model.keys}]
        list_by = LIST_BY.get(model.name, others[0] if others else None)
    elif list_by not in columns:
        raise QueryError(f"{model.name} has no column {list_by!r} to list by; it has {', '.join(columns)}")
    if aggregate is None:
        group = f" GROUP BY {quote(list_by)}" if list_by else ""
        aggregate = AGGREGATES.get(model.name, f"SELECT count(*) FROM {quote(model.name)}{group}")
    order = ", ".join([*([f"{quote(list_by)} DESC NULLS LAST"] if list_by else []), *map(quote, model.keys)])
    top_ten = TOP_TEN.get(model.name, f"SELECT * FROM {quote(model.name)} ORDER BY {order} LIMIT 10")
    rows = _draw_rows(oldest, list_by, runs, chance)
    moments = [chance.randint((lab.head + 1) // 2, lab.head) for _ in range(runs)]
    keys = [row[: len(model.keys)] for row in rows]
    keeps_history = any(kind == "history" for _, kind in lab.as_of(position=lab.head).catalog.memory.checkpoints)

    def sql(served: Any, question: str) -> Rows:
        rows: Rows = served.sql(question.replace(model.name, served.model.name))  # row by row has another name
        return rows

    def as_of(served: Any, run: int) -> object:
        # What had occurred by a moment, though that is all, is not looked up in a kept history.
        occurred = _EVER if served.as_ == "view" else None
        return lab.as_of(position=moments[run], occurred=occurred).get(model, *keys[run])

    asks: dict[str, Ask] = {
        "point": lambda served, run: served.get(*keys[run]),
        "list": lambda served, run: served.where(**{str(list_by): rows[run][-1]}),
        "aggregate": lambda served, run: sql(served, aggregate),
        "top ten": lambda served, run: sql(served, top_ten),
        "as of": as_of,
    }
    bus = _cached_bus(oldest, model, asks)

    def ask(way: str, question: str, run: int) -> object:
        answer = bus(question, run) if way == CACHED else asks[question](servings[way], run)
        return answer.fetchall() if isinstance(answer, Rows) else answer

    def can(way: str, question: str) -> bool:
        if question == "as of":
            return way == "view" or (way == "projection" and keeps_history)
        return (question != "list" or list_by is not None) and (way != CACHED or question in ("point", "list"))

    return [Probe(way, q, partial(ask, way, q)) for way in wanted for q in asks if q in questions and can(way, q)]


def _cached_bus(served: Served, declared: Model, asks: dict[str, Ask]) -> Callable[[str, int], object]:
    """Return what asks the projection through a cache of its own."""

    class Asked(Query):
        model: ClassVar[Any] = declared
        question: str
        run: int

        def answer(self, read: Any) -> Any:
            return asks[self.question](read, self.run)

    bus = QueryBus(served.running, [Asked], cache_seconds=86_400)
    return lambda question, run: bus.ask(Asked(question=question, run=run), served_as="projection")


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
    # A cache is to have seen every question.
    before += [(n, run) for n, probe in enumerate(probes) if probe.served_as == CACHED for run in range(runs)]
    taken = []
    # Quick comparisons stay without a bar.
    for number, (probe, run) in enumerate(tqdm([*before, *plan], unit=" questions", delay=2, leave=False)):
        start = perf_counter_ns()
        probes[probe].ask(run)
        end = perf_counter_ns()
        if number >= len(before):
            taken.append((probe, probes[probe].served_as, probes[probe].question, run, end - start))
    names = ["probe", "served_as", "question", "run", "nanoseconds"]
    return pl.DataFrame(taken, schema=names, orient="row").sort("probe", "run").drop("probe")


def _percentiles(runs: int) -> Iterator[pl.Expr]:
    millis = pl.col("nanoseconds").sort() / 1e6
    yield millis.quantile(0.5, interpolation="linear").alias("p50_ms")
    # How many of n runs are below the true median is binomial, whatever the latencies are like: n/2 ± 0.98 √n.
    low = max(0, floor((runs - 1.96 * sqrt(runs)) / 2) - 1)
    high = min(runs - 1, ceil((runs + 1.96 * sqrt(runs)) / 2))
    yield millis.get(low).alias("p50_low_ms")
    yield millis.get(high).alias("p50_high_ms")
    for p in (95, 99):
        yield millis.quantile(p / 100, interpolation="linear").alias(f"p{p}_ms")
