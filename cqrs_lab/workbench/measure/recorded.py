"""Recorded measurements: what one machine measured once, for what the course claims about times.

Owns the reading of the files in `recordings/`; `recording.py` makes them.
Times differ from machine to machine and from run to run. So the notebooks show the reader's own and claim nothing about
them; each claim about times is a claim about these tables, which are the same for everybody.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import polars as pl

from cqrs_lab.errors import QueryError

Recording = Literal["sizes", "steps", "batches", "pairs", "calls", "driven"]

FOLDER = Path(__file__).parent / "recordings"


def recorded_measurements(of: Recording = "sizes") -> pl.DataFrame:
    """Return a table of times that one machine measured once (see `recorded_on`).

    Args:
        of: "sizes": the frame of `compare_sizes` for shops of 1,000, 5,000, 20,000 and 50,000 orders; "steps": events,
            model, ms, what moving a read model by a batch takes; "batches": batch_per_history, served_as, ms, as
            `crossover_over_batches` measures them; "pairs": what, ms, rebuilds and questions about the past; "calls":
            what, ms, single calls of the notebooks; "driven": served_as, question, p50_ms, p99_ms, service_p99_ms,
            staleness_max, under the load of notebook 04.

    Raises:
        QueryError: there is no such recording.
    """
    path = FOLDER / f"{of}.csv"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in FOLDER.glob("*.csv")))
        raise QueryError(f"there is no recording {of!r}; there are {known}")
    return pl.read_csv(path, infer_schema_length=None)


def recorded_on() -> str:
    """Return where and when the recorded measurements were made, and with what."""
    made = json.loads((FOLDER / "made.json").read_text("utf-8"))
    return (
        f"recorded on {made['day']} by {made['command']}: {made['machine']}, {made['cores']} cores at a load of "
        f"{made['load']} before, Python {made['python']}, DuckDB {made['duckdb']}"
    )
