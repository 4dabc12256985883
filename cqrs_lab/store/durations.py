"""Durations: DuckDB's intervals as what Arrow, Polars, pandas and Python call a duration.

Owns the rule that a duration is a number of microseconds. An interval counts months, days and microseconds apart; a day
here has 24 hours, as all times are kept in UTC, and a month has no length.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cqrs_lab.errors import QueryFailed

_INTERVAL = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanos", "<i8")])  # as Arrow lays one out
_DAY, _MOST = 86_400_000_000, 106_751_991  # microseconds; whole days that 64 bits hold of them


def lasting(array: pa.Array, column: str) -> pa.Array:
    """Return an array with its intervals, nested ones included, as durations in microseconds.

    Args:
        column: its name, for the error.

    Raises:
        QueryFailed: an interval counts months, or is too long.
    """
    kind = array.type
    if pa.types.is_interval(kind):
        return _durations(array, column)
    if pa.types.is_struct(kind):
        parts = [lasting(array.field(n), column) for n in range(kind.num_fields)]
        fields = [kind.field(n).with_type(part.type) for n, part in enumerate(parts)]
        mask = pa.array(~_there(array)) if array.null_count else None
        return pa.StructArray.from_arrays(parts, fields=fields, mask=mask)
    if pa.types.is_map(kind):
        keys, items = lasting(array.keys, column), lasting(array.items, column)
        return pa.MapArray.from_arrays(_offsets(array), keys, items)
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(_offsets(array), lasting(array.values, column))
    return array


def _durations(array: pa.Array, column: str) -> pa.Array:
    there = _there(array)
    buffer = array.buffers()[1]
    whole = np.frombuffer(buffer, _INTERVAL, len(array), array.offset * 16) if len(array) else np.empty(0, _INTERVAL)
    if (whole["months"][there] != 0).any():
        raise QueryFailed(
            f"{column} counts months or years, which have no fixed length, so it is no duration. Subtract two times, "
            "as in last - first, or ask date_diff('month', first, last), which is a number"
        )
    if (np.abs(whole["days"][there].astype(np.int64)) > _MOST - 1).any():
        raise QueryFailed(f"{column} is longer than a duration can be, some 292,000 years; ask for it as a number")
    micros = whole["days"].astype(np.int64) * _DAY + whole["nanos"] // 1_000
    return pa.array(micros, mask=~there).cast(pa.duration("us"))


def _there(array: pa.Array) -> np.ndarray:
    """Which values are not null."""
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=bool)


def _offsets(array: pa.Array) -> pa.Array:
    """Where each list begins; null where there is none, as `from_arrays` wants it."""
    ends = array.offsets.to_numpy()
    return pa.array(ends, mask=np.append(~_there(array), False)) if array.null_count else array.offsets
