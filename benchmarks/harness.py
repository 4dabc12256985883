"""Measuring: interleaved runs, medians, and one table of ratios.

A machine's speed comes and goes, so a contestant and its limit take turns on the same data, and only their ratio is
compared with the aim.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psutil
from rich.console import Console
from rich.table import Table

from cqrs_lab import Lab


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        name: what was measured.
        ours: median of ours, in `unit`.
        limit: median of the same by hand, in `unit`.
        aim: the largest ratio ours / limit that is good enough; None: shown for information.
        note: rates and circumstances.
    """

    name: str
    ours: float
    limit: float
    unit: str = "ms"
    aim: float | None = None
    note: str = ""
    ratio: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", self.ours / self.limit)

    @property
    def verdict(self) -> str:
        """Whether the aim is met."""
        if self.aim is None:
            return ""
        return "holds" if self.ratio <= self.aim else "MISSED"


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def take_turns(*calls: Callable[[int], Any], runs: int, warm_up: int = 1) -> list[float]:
    """Return the median seconds of each call, the calls taking turns; each gets the number of the run."""
    times: list[list[float]] = [[] for _ in calls]
    for run in range(warm_up + runs):
        for number, call in enumerate(calls):
            taken = seconds(lambda call=call, run=run: call(run))  # type: ignore[misc]
            if run >= warm_up:
                times[number].append(taken)
    return [statistics.median(taken) for taken in times]


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


def show(results: Sequence[Result], *, as_json: Path | None = None) -> bool:
    """Print the table of ratios, write it as JSON when asked, and return whether every aim was met."""
    table = Table(title="ours against the same by hand in bare DuckDB")
    for column in ("what", "ours", "limit", "unit", "ratio", "aim", "", "note"):
        table.add_column(column, justify="right" if column in ("ours", "limit", "ratio", "aim") else "left")
    for r in results:
        aim = "" if r.aim is None else f"{r.aim:g}x"
        table.add_row(r.name, f"{r.ours:.3g}", f"{r.limit:.3g}", r.unit, f"{r.ratio:.2f}x", aim, r.verdict, r.note)
    console = Console(width=160)
    console.print(table)
    memory = psutil.virtual_memory().total / 2**30
    console.print(f"{psutil.cpu_count()} cores, {memory:.0f} GiB, DuckDB {duckdb.__version__}")
    if as_json is not None:
        as_json.write_text(json.dumps([asdict(r) for r in results], indent=1))
    return all(r.verdict != "MISSED" for r in results)
