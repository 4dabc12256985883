"""Measuring: interleaved runs, medians, and one table of ratios.

A machine's speed comes and goes, so a contestant and its limit take turns on the same data, and only their ratio is
compared with the aim. Its interval says where the ratio would lie if the same were measured again: 95 % of the ratios
that times drawn anew from those that were measured give (a bootstrap of the medians).
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from cqrs_lab import Lab


class Median(float):
    """A median that knows what it is the median of, also when it is told in another unit."""

    times: Sequence[float]

    def __new__(cls, times: Iterable[float]) -> Self:
        """Return the median of these."""
        measured = list(times)
        median = super().__new__(cls, statistics.median(measured))
        median.times = measured
        return median

    def __mul__(self, factor: float, /) -> Median:
        return Median(taken * factor for taken in self.times)

    def __truediv__(self, divisor: float, /) -> Median:
        return Median(taken / divisor for taken in self.times)


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        name: what was measured.
        ours: median of ours, in `unit`.
        limit: median of the same by hand, or by a peer, in `unit`.
        aim: the largest ratio ours / limit that is good enough; None: shown for information.
        note: rates and circumstances.
        low: where the interval of the ratio begins; None: it was measured once.
        high: where it ends.
    """

    name: str
    ours: float
    limit: float
    unit: str = "ms"
    aim: float | None = None
    note: str = ""
    low: float | None = None
    high: float | None = None
    ratio: float = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.ours, Median):
            chance = np.random.default_rng(7)
            given = (getattr(side, "times", [side]) for side in (self.ours, self.limit))
            ours, limit = (np.median(chance.choice(times, (1_000, len(times))), axis=1) for times in given)
            for name, edge in zip(("low", "high"), np.quantile(ours / limit, [0.025, 0.975]), strict=True):
                object.__setattr__(self, name, float(edge))
        for name in ("ours", "limit"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "ratio", self.ours / self.limit)

    @property
    def verdict(self) -> str:
        """Whether the aim is met; without one, who is faster where the interval leaves no doubt."""
        if self.aim is not None:
            return "holds" if self.ratio <= self.aim else "MISSED"
        if self.low is None or self.high is None:
            return ""
        return "faster" if self.high < 1 else "slower" if self.low > 1 else "even"


def again(repeats: Sequence[Result]) -> Result:
    """Return the line in the middle of several for the same, with the interval that holds them all."""
    middle = sorted(repeats, key=lambda each: each.ratio)[len(repeats) // 2]
    if len(repeats) == 1:
        return middle
    edges = [edge for each in repeats for edge in (each.low, each.ratio, each.high) if edge is not None]
    return replace(middle, low=min(edges), high=max(edges))


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def take_turns(*calls: Callable[[int], Any], runs: int, warm_up: int = 1) -> list[Median]:
    """Return the median seconds of each call, the calls taking turns; each gets the number of the run."""
    times: list[list[float]] = [[] for _ in calls]
    for run in range(warm_up + runs):
        for number, call in enumerate(calls):
            taken = seconds(lambda call=call, run=run: call(run))  # type: ignore[misc]
            if run >= warm_up:
                times[number].append(taken)
    return [Median(taken) for taken in times]


def bare_copy(lab: Lab, path: Path) -> duckdb.DuckDBPyConnection:
    """Return a bare DuckDB file with the tables, keys and indexes of a lab's log, empty."""
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".wal").unlink(missing_ok=True)
    statements = lab._log.database.execute(
        "SELECT sql FROM duckdb_tables() WHERE schema_name = 'main' AND database_name = current_database() "
        "UNION ALL SELECT sql FROM duckdb_indexes() WHERE schema_name = 'main' AND sql IS NOT NULL"
    )
    threads = lab._log.database.execute("SELECT current_setting('threads')")[0][0]
    connection = duckdb.connect(str(path), config={"threads": threads})
    for (sql,) in sorted(statements, key=lambda row: "INDEX" in row[0][:20]):
        connection.execute(sql).fetchall()
    return connection


def show(title: str, parts: Mapping[str, Sequence[Result]], *, as_json: Path | None = None) -> bool:
    """Print the table of ratios, write it as JSON when asked, and return whether every aim was met.

    Args:
        title: what was run, and on what.
        parts: the lines, by what the limit is.
        as_json: the file.
    """
    table = Table(title=title, title_justify="left")
    for column in ("what", "ours", "limit", "unit", "ratio", "95 %", "aim", "", "note"):
        table.add_column(column, justify="right" if column in ("ours", "limit", "ratio", "95 %", "aim") else "left")
    for part, results in parts.items():
        table.add_section()
        table.add_row(f"[bold]limit: {part}")
        for r in results:
            aim = "" if r.aim is None else f"{r.aim:.3g}x"
            interval = "" if r.low is None else f"{r.low:.3g}..{r.high:.3g}"
            ours, limit = (f"{x:,.0f}" if x >= 1_000 else f"{x:.3g}" for x in (r.ours, r.limit))
            row = (ours, limit, r.unit, f"{r.ratio:.3g}x", interval, aim, r.verdict, r.note)
            table.add_row(r.name, *row)
    Console(width=180).print(table)
    if as_json is not None:
        lines = [{"limit_is": part, **asdict(r), "verdict": r.verdict} for part, rs in parts.items() for r in rs]
        as_json.write_text(json.dumps({"title": title, "results": lines}, indent=1))
    return all(r.verdict != "MISSED" for results in parts.values() for r in results)


def machine() -> str:
    """Return what it runs on."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
