"""Crossovers: from where on each serving begins to win, and what became of the article's numbers.

Owns the comparison of measured series over the size of the history, the size of a batch and the reads per refresh, the
sentences about it, and the claims of the article that the course answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from math import exp, log

import polars as pl

from cqrs_lab.app import open_shop
from cqrs_lab.errors import InvalidTable
from cqrs_lab.shop import OrderDetails, OrderLine, PlaceOrder, order_summary
from cqrs_lab.workbench.data.generated import generate
from cqrs_lab.workbench.data.workload import Workload
from cqrs_lab.workbench.measure.advice import SLOW_MS, Points, interpolate, measured, need, series
from cqrs_lab.workbench.measure.latency import CACHED, SERVED_AS, compare_sizes
from cqrs_lab.workbench.measure.polling import poll
from cqrs_lab.workbench.measure.timing import median_ms, timed_ms

_READS = tuple(10 ** (n / 4) for n in range(17))  # reads per refresh, 1 to 10,000


def wins(one: Points, other: Points) -> list[tuple[float, float | None]]:
    """Return where `other` is cheaper than `one`: from which x, and until which, None for the last x of both.

    Between two measured x the costs lie on straight lines of logarithms.
    """
    a, b = dict(one), dict(other)
    ratios = [(x, log(a[x] / b[x])) for x in sorted(a.keys() & b.keys())]
    found: list[tuple[float, float | None]] = [(ratios[0][0], None)] if ratios and ratios[0][1] > 0 else []
    for (x0, r0), (x1, r1) in pairwise(ratios):
        if (r0 > 0) != (r1 > 0):
            at = exp(log(x0) + (log(x1) - log(x0)) * r0 / (r0 - r1))
            if r1 > 0:
                found.append((at, None))
            else:
                found[-1] = (found[-1][0], at)
    return found


@dataclass(frozen=True)
class Crossover:
    """Where servings begin to win over another one.

    Attributes:
        over: what grows, such as "events": the first column of the frame.
        frame: over, served_as, ms.
        crossings: loses, wins, at, until: where the latter is the cheaper one, in the measured range: at is empty where
            it never is, until where it is to the end.
        sentence: the same in words.
    """

    over: str
    frame: pl.DataFrame = field(repr=False)
    crossings: pl.DataFrame = field(repr=False)
    sentence: str

    def __repr__(self) -> str:
        return self.sentence


def crossover(frame: pl.DataFrame, what: str, *, base: str = "view") -> Crossover:
    """Return where each serving becomes cheaper than one of them.

    Args:
        frame: what grows (the first column), served_as, ms.
        what: begins the sentence: what is counted in the milliseconds.
        base: the serving that the others are compared with.

    Raises:
        InvalidTable: the frame has no rows of that serving.
    """
    over = frame.columns[0]
    points = {way: list(of.select(over, "ms").iter_rows()) for (way,), of in frame.group_by("served_as")}
    if base not in points:
        raise InvalidTable(f"the frame has no rows of {base!r}; it has {', '.join(sorted(points)) or 'none'}")
    grown = sorted(frame[over])
    fewest, most = grown[0], grown[-1]
    found: list[tuple[str, str, float | None, float | None]] = []
    said = []
    for way in [way for way in SERVED_AS if way in points and way != base]:
        spans = wins(points[base], points[way])
        found += [(base, way, *span) for span in spans] or [(base, way, None, None)]
        told = [f"from {_number(at)} {'on' if until is None else f'to {_number(until)}'}" for at, until in spans]
        said.append(f"{way} {' and '.join(told) or 'never'}")
    schema = {"loses": pl.String, "wins": pl.String, "at": pl.Float64, "until": pl.Float64}
    first = min((at for *_, at, _ in found if at is not None), default=None)
    sentence = f"{what}: cheaper than the {base}, by {over.replace('_', ' ')} (measured from {_number(fewest)} to "
    sentence += f"{_number(most)}): {'; '.join(said)}."
    if first is None or first > fewest:
        sentence += f" The {base} wins {'throughout' if first is None else f'below {_number(first)}'}."
    return Crossover(over, frame, pl.DataFrame(found, schema=schema, orient="row"), sentence)


def crossover_over_history(frame: pl.DataFrame, question: str = "point", reads_per_refresh: float = 10) -> Crossover:
    """Return from which size of the history on each serving is cheaper to read than a view.

    Args:
        frame: of `compare_sizes`, with costs.
        question: what is asked.
        reads_per_refresh: how many reads share the cost of bringing a stored serving up to date.
    """
    of = measured(frame, question)
    each = pl.col("p50_ms") + pl.col("refresh_ms") / reads_per_refresh
    share = "a whole" if reads_per_refresh == 1 else f"1/{_number(reads_per_refresh)} of a"
    what = f"A read ({question}) and {share} refresh"
    return crossover(of.select("events", "served_as", ms=each), what)


def crossover_over_reads(frame: pl.DataFrame, question: str = "point", events: int | None = None) -> Crossover:
    """Return from how many reads per refresh on each serving is cheaper than a view.

    Args:
        frame: of `compare_latency` or `compare_sizes`, with costs.
        question: what is asked.
        events: the size of the history, interpolated when it was not measured; None for the largest.
    """
    of = measured(frame, question)
    size = int(of["events"].max()) if events is None else events  # type: ignore[arg-type]
    rows = []
    for way in of["served_as"].unique(maintain_order=True):
        read, refresh = (interpolate(series(of, way, cost), size)[0] for cost in ("p50_ms", "refresh_ms"))
        rows += [(reads, way, read + refresh / reads) for reads in _READS]
    grown = pl.DataFrame(rows, schema=["reads_per_refresh", "served_as", "ms"], orient="row")
    return crossover(grown, f"A read ({question}) with its share of a refresh, at {size:,} events")


def crossover_over_batches(
    orders: int = 30_000, shares: Sequence[float] = (0.001, 0.01, 0.1, 0.5, 1.0), runs: int = 3
) -> Crossover:
    """Measure from which share of the history on folding a batch into a projection costs more than a whole refresh.

    Args:
        orders: the history, with the customers 3.7 events an order; below some thousand a refresh is always the
            cheaper one.
        shares: how large the batches are, as a share of the history.
        runs: how often each is measured; the fastest counts, because what else the machine does only adds.
    """
    rows: list[tuple[float, str, float]] = []
    for share in shares:
        taken: dict[str, list[float]] = {"projection": [], "materialized": []}
        for run in range(runs):
            with open_shop() as lab:
                generate(lab, Workload(orders=orders))
                projection, table = lab.serve(order_summary), lab.serve(order_summary, "materialized")
                generate(lab, Workload(orders=max(1, round(orders * share)), prefix="b-", seed=run))
                taken["projection"].append(timed_ms(projection.catch_up))
                taken["materialized"].append(timed_ms(table.refresh))
        rows += [(share, way, min(times)) for way, times in taken.items()]
    frame = pl.DataFrame(rows, schema=["batch_per_history", "served_as", "ms"], orient="row")
    return crossover(frame, f"Bringing rows up to date after a batch, at {orders:,} orders", base="projection")


def cheapest(frame: pl.DataFrame, question: str = "point") -> pl.DataFrame:
    """Return the map of crossovers: for each measured size and number of reads per refresh the cheapest serving.

    Returns:
        A frame with events, reads_per_refresh, served_as and ms.
    """
    sizes = measured(frame, question)["events"].unique().sort()
    grown = [
        crossover_over_reads(frame.filter(events=size), question).frame.with_columns(events=size) for size in sizes
    ]
    first = pl.concat(grown).sort("ms", maintain_order=True).group_by("events", "reads_per_refresh").first()
    return first.select("events", "reads_per_refresh", "served_as", "ms").sort("events", "reads_per_refresh")


def check_claims(frame: pl.DataFrame | None = None) -> pl.DataFrame:
    """Hold the numbers of the Node.js article on CQRS against what this machine measures.

    Args:
        frame: of `compare_sizes`, with costs; measured here when None, at 3,000 and 30,000 orders (about 20 s).

    Returns:
        A frame with claim, article, here, agrees ("yes", "partly" or "no") and why.
    """
    frame = need(compare_sizes((3_000, 30_000), runs=20) if frame is None else frame, "write_ms")
    most = frame.filter(pl.col("events") == pl.col("events").max())
    events = f"{most['events'][0]:,} events"

    def ms(way: str, question: str = "point", column: str = "p50_ms") -> float:
        return float(most.filter(served_as=way, question=question)[column].item())

    asked = [q for q in ("point", "list", "aggregate", "top ten") if q in set(most["question"])]
    slow = max(asked, key=lambda q: ms("view", q))
    view, table, refresh = ms("view", slow), ms("materialized", slow), ms("materialized", slow, "refresh_ms")
    pays = f"from {refresh / (view - table):.2g} reads per refresh on" if view > table else "never"
    point, worst = ms("projection"), max(ms("projection", q) for q in asked)
    alone = ms("view", column="write_ms")
    more = ms("projection", column="write_ms") - alone
    best = max(asked[:2], key=lambda q: ms("view", q) / ms(CACHED, q))
    times, busy = ms("view", best) / ms(CACHED, best), 500_000 / 86_400 * alone / 1000
    polled, waited = _waits()

    def graded(is_so: bool, is_nearly: bool) -> str:
        return "yes" if is_so else "partly" if is_nearly else "no"

    rows = [
        ("when a view is too slow", "make a view that takes over 100 ms a materialized one",
         f"{slow}: {view:.3g} ms as a view, {table:.3g} ms materialized, {refresh:.3g} ms to refresh ({events})",
         graded(view > SLOW_MS and refresh < view - table, refresh > 0),
         f"what counts is how often it is asked: a refresh pays {pays}, and its answers are then old"),
        ("how fast a projection answers", "below 1 ms",
         f"by key p50 {point:.2g} ms, p95 {ms('projection', column='p95_ms'):.2g} ms; the slowest {worst:.2g} ms",
         graded(worst < 1, point < 1), "a lookup by key is one step into an index; an aggregate still reads all rows"),
        ("what a command costs more", "10 to 30 ms",
         f"{more:+.3g} ms with a projection in its transaction, on top of {alone:.2g} ms; none in the background",
         graded(10 <= more <= 30, more > 0), "who moves rows within the command pays; else readers do"),
        ("how much faster reads become", "200 ms become 5 ms: 40 times as fast",
         f"{best}: {ms('view', best):.3g} ms become {ms(CACHED, best):.2g}, {_number(times)} times as fast ({events})",
         graded(times >= 40, times >= 10), "the view slows down with the history, a kept answer does not"),
        ("500,000 commands a day", "a load that CQRS was needed for",
         f"5.8 a second keep {busy:.1%} of a thread busy; it can do {86_400_000 / alone:,.0f} a day",
         graded(busy > 1, busy > 0.5), "commands are cheap; what is asked, how often and how old it may be decides"),
        ("waiting for a read model", "ask again every 100 ms",
         f"own write seen after {polled:.3g} ms by asking again, {waited:.3g} ms by waiting for its position",
         graded(polled < waited, waited > 0.8 * polled), "who asks again finds out up to 100 ms late"),
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=["claim", "article", "here", "agrees", "why"], orient="row")


def _waits(runs: int = 7) -> tuple[float, float]:
    """Return the median milliseconds until a sender sees its own write: by polling, and by waiting for its position."""
    with open_shop() as lab:
        generate(lab, Workload(orders=1_000))
        lab.serve(order_summary, mode="background")
        line = OrderLine(product_id="p", quantity=1, unit_price=Decimal(1))

        def polled(run: int) -> None:
            lab.send(PlaceOrder(order_id=f"polled-{run}", customer_id="c", lines=(line,)))
            poll(lambda: lab.ask(OrderDetails(order_id=f"polled-{run}"), served_as="projection"), bool, timeout=60)

        def waited(run: int) -> None:
            order = PlaceOrder(order_id=f"waited-{run}", customer_id="c", lines=(line,))
            lab.send(order, wait_for=order_summary, timeout=60)

        return median_ms(polled, runs), median_ms(waited, runs)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
