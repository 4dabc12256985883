"""Your measurement beside the recorded one: two tables of times, joined.

Owns the table that the notebooks show. It asserts nothing: times differ from machine to machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from cqrs_lab.errors import InvalidTable


def beside(
    yours: pl.DataFrame | Mapping[str, float],
    recorded: pl.DataFrame | Mapping[str, float],
    *,
    by: Sequence[str] = ("what",),
    of: Sequence[str] = ("ms",),
) -> pl.DataFrame:
    """Return your times with the recorded ones beside them.

    Args:
        yours: a measured frame, or names with milliseconds.
        recorded: of `recorded_measurements`, filtered to what is compared; or names with milliseconds.
        by: columns that name a row of both; rows are matched by them.
        of: columns of times, in milliseconds.

    Returns:
        A frame with a row for each distinct row of yours: the columns `by`, and for each column x of `of`, x and
        recorded_x, rounded to 2 decimals; recorded_x is null where nothing was recorded.

    Raises:
        InvalidTable: a column is missing, or several recorded rows have the same name.
    """
    mine, theirs = (_frame(times) for times in (yours, recorded))
    for name, frame in (("yours", mine), ("recorded", theirs)):
        missing = sorted({*by, *of} - set(frame.columns))
        if missing:
            raise InvalidTable(f"{name} has no column {', '.join(missing)}; it has {', '.join(frame.columns)}")
    kept = theirs.select(*by, *(pl.col(name).alias(f"recorded_{name}") for name in of)).unique()
    if kept.select(by).is_duplicated().any():
        raise InvalidTable(f"several recorded rows have the same {', '.join(by)}; filter them before you compare")
    shown = mine.select(*by, *of).unique(maintain_order=True).join(kept, on=list(by), how="left", maintain_order="left")
    columns = [*by, *(column for name in of for column in (name, f"recorded_{name}"))]
    return shown.select(columns).with_columns(pl.selectors.float().round(2))


def _frame(times: pl.DataFrame | Mapping[str, float]) -> pl.DataFrame:
    if isinstance(times, pl.DataFrame):
        return times
    return pl.DataFrame({"what": list(times), "ms": list(times.values())}, schema={"what": pl.String, "ms": pl.Float64})
