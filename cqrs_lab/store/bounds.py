"""Bounds: between which positions events are read.

Owns the conditions. Positions are compared as DOUBLE, which holds them exactly: for a range of up to some thousand
whole numbers DuckDB goes through the key's index, row by row, in 11 ms for 1,000 events; a scan takes 1.6 ms.
"""

from __future__ import annotations

Bound = int | str
"""A position, or what stands for one in a statement: a parameter, or a column."""


def between(after: Bound, to: Bound | None) -> list[str]:
    """Return the conditions that a position is above one and up to another."""
    where = [f"position > {_bound(after)}"] if after else []
    return where if to is None else [*where, f"position <= {_bound(to)}"]


def _bound(position: Bound) -> str:
    return position if isinstance(position, str) else f"{int(position)}::DOUBLE"
