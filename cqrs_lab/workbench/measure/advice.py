"""Advice: what a load would cost with each serving, and whether CQRS is needed for it at all.

Owns the arithmetic over what `compare_latency` measured. Between measured sizes a cost lies on a straight line of
logarithms; beyond them the line goes on, and the answer says so. The costs are those of one thread: milliseconds of
work in each second, of which a core has 1,000. An answer is in the cache when its rows were read since they were
written last: of reads and writes that come at random to the same rows, that is so for reads / (reads + writes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from math import exp, log

import polars as pl

from cqrs_lab.errors import InvalidTable, QueryError
from cqrs_lab.store.shown import html_of
from cqrs_lab.workbench.measure.costs import COSTS
from cqrs_lab.workbench.measure.latency import CACHED, SERVED_AS

EASE = 0.1  # of a core, up to which a plain view carries the reads with ease
SLOW_MS = 100.0  # a view that takes longer is too slow, says the article
_CLOSE = 1.2  # two costs within this ratio are as good as equal

Points = Sequence[tuple[float, float]]


_STEEPEST = 700.0  # the logarithm of the largest cost that is told


def interpolate(points: Points, x: float) -> tuple[float, bool]:
    """Return y at x on straight lines of logarithms through measured points, and whether x lies beyond them.

    Beyond them the last line goes on, but never falls: a cost that falls as things grow is noise. One point alone
    stands for every x.
    """
    known = sorted(points)
    if not known:
        raise QueryError("there is nothing to interpolate between")
    if len(known) == 1:
        return known[0][1], x != known[0][0]
    is_beyond = not known[0][0] <= x <= known[-1][0]
    at = next((n for n in range(1, len(known) - 1) if x <= known[n][0]), len(known) - 1)
    (x0, y0), (x1, y1) = known[at - 1], known[at]
    along = (log(x) - log(x0)) / (log(x1) - log(x0))
    if min(y0, y1) <= 0:
        return max(0.0, y0 + along * (y1 - y0)), is_beyond
    slope = log(y1 / y0)
    if is_beyond and slope < 0:
        return (y0 if x < x0 else y1), is_beyond
    # Two points close together and far apart in cost make a line that leaves what a float can hold.
    return exp(min(log(y0) + along * slope, _STEEPEST)), is_beyond


@dataclass(frozen=True)
class Advice:
    """Which serving to take for a load.

    Attributes:
        served_as: the recommendation.
        needs_cqrs: False when a plain view carries the load with ease.
        margin: what the runner-up costs, as a multiple of what the recommendation costs; below 1 when the
            recommendation is dearer and simpler.
        runner_up: the cheapest of the others that carry the load.
        sentence: all of this in words.
        costs: as `load_costs` returns them.
    """

    served_as: str
    needs_cqrs: bool
    margin: float
    runner_up: str | None
    sentence: str
    costs: pl.DataFrame = field(repr=False)

    def __repr__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.sentence)}</p>\n{html_of(self.costs.to_arrow(), title='Costs a second')}"


def load_costs(
    frame: pl.DataFrame, *, reads: float, writes: float, events: int, staleness: float = 0, question: str = "point"
) -> pl.DataFrame:
    """Return what each serving would cost under a load: milliseconds of work in each second.

    That is reads/s x read_ms + writes/s x write_ms + refreshes/s x refresh_ms. Rows are refreshed as seldom as the
    staleness allows and never more often than they change. Where none is allowed, or less than a refresh takes, every
    write moves them, a projection within its own transaction. Of the cached projection's reads those that miss the
    cache cost what they cost the projection.

    Args:
        frame: of `compare_latency` or `compare_sizes`, with costs.
        reads, writes: a second.
        events: the size of the history.
        staleness: how many seconds old an answer may be.
        question: what is asked.

    Returns:
        A frame with served_as, read_ms, write_ms, refresh_ms, refreshes (a second), ms (the cost), fits (within what
        one core can do) and extrapolated (this size is beyond those measured).

    Raises:
        QueryError: a number below 0.
        InvalidTable: the frame has no costs.
    """
    if min(reads, writes, staleness) < 0 or events < 1:
        raise QueryError("reads, writes and staleness are not below 0; the history has at least 1 event")
    of = measured(frame, question)
    rows = []
    ways = [way for way in SERVED_AS if way in set(of["served_as"])]
    alone = min(interpolate(series(of, way, "write_ms"), events)[0] for way in ways)
    for way in ways:
        read, beyond = interpolate(series(of, way, "p50_ms"), events)
        write, refresh, each = (interpolate(series(of, way, cost), events)[0] for cost in COSTS[:3])
        if way == CACHED and "projection" in ways and reads > 0:
            missed = interpolate(series(of, "projection", "p50_ms"), events)[0]
            read += (missed - read) * writes / (reads + writes)
        at_once = staleness * 1000 <= refresh
        refreshes = writes if at_once else min(writes, 1 / staleness)
        if way == "view" or (at_once and way in ("projection", CACHED)):
            refreshes = 0.0  # there is none, or it is in the price of the write
        else:
            write = alone + (0.0 if at_once else each)
        cost = reads * read + writes * write + refreshes * refresh
        rows.append((way, read, write, refresh, refreshes, cost, cost <= 1000, beyond))
    names = ["served_as", "read_ms", "write_ms", "refresh_ms", "refreshes", "ms", "fits", "extrapolated"]
    return pl.DataFrame(rows, schema=names, orient="row")


def advise(
    frame: pl.DataFrame, *, reads: float, writes: float, events: int, staleness: float = 0, question: str = "point"
) -> Advice:
    """Return which serving to take for a load, and by what margin (see `load_costs`).

    A plain view that carries the reads with a tenth of a core, none of them slower than 100 ms, is the answer even
    where something else is cheaper: then you do not need CQRS. Of two that cost nearly the same the simpler one is
    taken.
    """
    costs = load_costs(frame, reads=reads, writes=writes, events=events, staleness=staleness, question=question)
    ranked = costs.filter("fits").sort("ms", maintain_order=True).to_dicts() or costs.sort("ms").to_dicts()[:1]
    fits = bool(ranked[0]["fits"])
    close = [row for row in ranked if row["ms"] <= _CLOSE * ranked[0]["ms"]]
    best = min(close, key=lambda row: SERVED_AS.index(row["served_as"]))
    view = next((row for row in ranked if row["served_as"] == "view"), None)
    is_easy = view is not None and reads * view["read_ms"] <= 1000 * EASE and view["read_ms"] <= SLOW_MS
    if view is not None and is_easy:
        best = view
    runner = next((row for row in ranked if row is not best), None)
    margin = runner["ms"] / best["ms"] if runner and best["ms"] else 1.0
    said = f"{best['ms']:,.3g} ms of work a second"
    if runner:
        other = f"{_named(runner['served_as'])}, would take {runner['ms']:,.3g} ms, {margin:.2g} times as much"
        said += f"; the runner-up, {other}"
        if margin < _CLOSE:
            said += (
                ", which is no reason for a second model" if is_easy else ": as good as equal, so take the simpler one"
            )
    if is_easy:
        busy = f"{best['read_ms']:.2g} ms, and its reads keep {reads * best['read_ms'] / 1000:.1%} of a core busy"
        said = f"You do not need CQRS: a plain view answers in {busy} ({said})."
    elif fits:
        said = f"Take {_named(best['served_as'])}: {said}."
    else:
        said = f"None of them fits on one core; the cheapest is {_named(best['served_as'])}: {said}."
    if best["extrapolated"]:
        said += f" {events:,} events are beyond the sizes measured, so this is extrapolated."
    return Advice(best["served_as"], not is_easy, margin, runner["served_as"] if runner else None, said, costs)


def need(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Refuse a frame without the costs."""
    if column not in frame.columns or frame[column].null_count():
        raise InvalidTable(f"the frame has no {column}: measure it with compare_latency(…, costs=True)", column=column)
    return frame


def measured(frame: pl.DataFrame, question: str) -> pl.DataFrame:
    """Return the rows of one question."""
    of = need(frame, "refresh_ms").filter(question=question)
    if of.is_empty():
        known = ", ".join(frame["question"].unique(maintain_order=True))
        raise QueryError(f"nobody measured the question {question!r}; there are {known}")
    return of


def series(frame: pl.DataFrame, way: str, cost: str) -> list[tuple[float, float]]:
    """Return what one serving costs at each size of the history."""
    return list(frame.filter(served_as=way).select("events", cost).iter_rows())


def _named(way: str) -> str:
    return {"materialized": "a materialized table", "row by row": "a projection row by row"}.get(way, f"a {way}")
