"""What the charts show, in words, for people who do not see them: axes, series and the main values.

Owns the sentences. Pure functions: what is drawn in, text out; `plots` and `described` put it beside the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from cqrs_lab.store.shown import said

_MOST = 6  # values of a line; of more the first, some in between and the last are told


def number(value: Any, *, is_ms: bool = False) -> str:
    """Return a number as it is read aloud: thousands apart, few digits."""
    if value is None:
        return "none"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float) and abs(value) >= 1000:
        return f"{value:,.0f}"
    return said(value, is_ms=is_ms)


def counted(count: int, what: str) -> str:
    """Return a number with what it counts: 1 day, 2 days."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def listed(names: Iterable[Any], values: Iterable[Any]) -> str:
    """Return names with their values: view 12, table 1."""
    return ", ".join(f"{said(name)} {number(value)}" for name, value in zip(names, values, strict=True))


def latencies(shown: pl.DataFrame) -> str:
    """Return what the chart of latencies shows.

    Args:
        shown: question, serving, events, p50_ms and p95_ms, in the order of the chart.
    """
    parts = []
    for (question,), rows in shown.group_by("question", maintain_order=True):
        told = (
            f"{serving} {number(half, is_ms=True)} ({number(most, is_ms=True)})"
            for serving, half, most in rows.select("serving", "p50_ms", "p95_ms").iter_rows()
        )
        parts.append(f"{question}: {', '.join(told)}")
    events = number(shown["events"].max())
    return f"Milliseconds, the median and in brackets the 95th percentile, at {events} events. {'; '.join(parts)}."


def over_days(shown: pl.DataFrame, count: str) -> str:
    """Return what a line over days shows.

    Args:
        shown: day and orders, which are counts of any kind.
        count: what is counted.
    """
    rows = shown.drop_nulls().sort("day")
    if rows.is_empty():
        return f"{count} by day: no days."
    most, least = (rows.sort("orders", descending=down, maintain_order=True).row(0) for down in (True, False))
    ends = rows["day"][0], rows["day"][-1]
    return (
        f"{count} by day, {counted(len(rows), 'day')} from {said(ends[0])} to {said(ends[1])}: most on {said(most[0])} "
        f"({number(most[1])}), fewest on {said(least[0])} ({number(least[1])}), {number(rows['orders'].sum())} in all."
    )


def late(ms: pl.Series) -> str:
    """Return what the chart of lags shows.

    Args:
        ms: milliseconds of each append, in their order.
    """
    at = {name: ms.quantile(share) for name, share in (("half of them", 0.5), ("95 of 100", 0.95))}
    within = ", ".join(f"{name} within {number(value, is_ms=True)}" for name, value in at.items())
    ends = f"the fastest {number(ms.min(), is_ms=True)}, the slowest {number(ms.max(), is_ms=True)}"
    return f"Milliseconds until an append could be seen, by append, {number(len(ms))} of them: {within}; {ends}."


def distributions(shown: pl.DataFrame) -> str:
    """Return what the chart of every single latency shows.

    Args:
        shown: row (question and serving) and ms, of every call.
    """
    told = shown.group_by("row", maintain_order=True).agg(
        pl.len(), half=pl.col("ms").quantile(0.5), most=pl.col("ms").quantile(0.99)
    )
    parts = (
        f"{row}: {counted(n, 'call')}, median {number(half, is_ms=True)}, 99th percentile {number(most, is_ms=True)}"
        for row, n, half, most in told.iter_rows()
    )
    return f"Milliseconds from the intended moment, a point for each call. {'; '.join(parts)}."


def staleness(worst: pl.DataFrame, events: pl.Series) -> str:
    """Return what the chart of staleness shows.

    Args:
        worst: intended_at (seconds) and staleness_events, the most in each second.
        events: how many events each read did not see.
    """
    fresh = int((events == 0).sum())
    most = ", ".join(f"{seconds:g}: {number(count)}" for seconds, count in some(worst.rows()))
    return (
        f"Events not seen yet, by second, a point for each of {counted(len(events), 'read')}: {number(fresh)} of them "
        f"saw all events. The most in each second: {most}."
    )


def crossing(frame: pl.DataFrame, over: str, axis: str, sentence: str) -> str:
    """Return what a chart of crossings shows.

    Args:
        frame: served_as, ms, and what grows.
        over, axis: what grows: its column and its name.
        sentence: where each serving begins to win.
    """
    parts = []
    for (way,), rows in frame.group_by("served_as", maintain_order=True):
        points = some(rows.sort(over).select(over, "ms").rows())
        parts.append(f"{way} {', '.join(f'{number(ms, is_ms=True)} at {number(at)}' for at, ms in points)}")
    return f"Milliseconds by {axis}: {'; '.join(parts)}. {sentence}"


def cheapest(shown: pl.DataFrame) -> str:
    """Return what the map of the cheapest servings shows.

    Args:
        shown: events, reads_per_refresh and served_as.
    """
    parts = []
    for (events,), rows in shown.sort("events", "reads_per_refresh").group_by("events", maintain_order=True):
        runs: list[tuple[str, float]] = []
        for reads, way in rows.select("reads_per_refresh", "served_as").iter_rows():
            if not runs or runs[-1][0] != way:
                runs.append((way, reads))
        told = ", ".join(f"{way} from {number(float(f'{reads:.2g}'))}" for way, reads in runs)
        parts.append(f"{number(events)} events: {told}")
    return f"The cheapest serving by events in the log and by reads per refresh. {'; '.join(parts)}."


def shape(frames: dict[str, pl.DataFrame], titles: Iterable[str], n: str) -> str:
    """Return what the small charts of a log show, chart by chart.

    Args:
        frames: what each of them draws, in their order.
        titles: of each.
        n: the column with the counts.
    """
    parts = []
    for (name, frame), title in zip(frames.items(), titles, strict=True):
        if frame.is_empty():
            continue
        if name == "days":
            parts.append(over_days(frame.rename({n: "orders"}), title.removesuffix(" by day")).rstrip("."))
        elif name == "hours":
            most, least = (frame.sort(n, "hour", descending=[down, False]).row(0) for down in (True, False))
            parts.append(f"{title}: most at {most[0]} ({number(most[1])}), fewest at {least[0]} ({number(least[1])})")
        elif name == "customers":
            ranks = (f"{number(count)} for number {number(rank)}" for count, rank in some(frame.rows()))
            parts.append(f"{title}: {', '.join(ranks)}")
        elif name == "steps":
            told = (
                f"{step} {number(half, is_ms=True)} ({number(low, is_ms=True)} to {number(high, is_ms=True)})"
                for step, low, half, high in frame.select("step", "low", "median", "high").iter_rows()
            )
            parts.append(f"{title}, the median and where 90 of 100 are: {', '.join(told)}")
        else:
            parts.append(f"{title}: {listed(frame.to_series(0), frame[n])}")
    return ". ".join(parts) + "."


def some(points: Sequence[Any]) -> list[Any]:
    """Return the first and the last of many points, and a few in between."""
    if len(points) <= _MOST:
        return list(points)
    return [points[round(n * (len(points) - 1) / (_MOST - 1))] for n in range(_MOST)]
