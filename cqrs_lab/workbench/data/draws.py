"""Draws: random numbers that are the same on any machine, columns made of them, and the digest that proves it.

Randomness is the raw output of PCG64, whose stream NumPy keeps for good (NEP 19; that of `Generator.normal` and the
like it may change), and what becomes of it is integers and the five operations that IEEE 754 rounds in one way only:
+ - * / and the square root. A log-normal needs an exponential, whose last bit does differ between machines: it is
tabulated once, in whole seconds or cents.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import exp
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BLOCK = 1 << 16  # rows; a table is digested in blocks, so that one that comes in parts has the same digest


def uniform(seed: int, what: str, n: int) -> Floats:
    """Return n numbers in [0, 1), a stream of its own for each purpose: a new one leaves the others as they were."""
    purpose = int.from_bytes(blake2b(what.encode(), digest_size=8).digest(), "big")
    raw = np.random.PCG64(np.random.SeedSequence([seed, purpose])).random_raw(n)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def whole(u: Floats, n: int) -> Ints:
    """Return whole numbers from 0 to n - 1, all as often."""
    return np.floor(u * n).astype(np.int64)


def draw(u: Floats, weights: Sequence[float] | Floats) -> Ints:
    """Return indices of weights, each as often as its weight says (by inverting the cumulated weights)."""
    cumulated = np.cumsum(np.rint(np.asarray(weights, dtype=np.float64) * 2**32).astype(np.int64))
    return np.asarray(np.searchsorted(cumulated, whole(u, int(cumulated[-1])), side="right"))


class Spread(NamedTuple):
    """A log-normal distribution: its median, and the standard deviation of its logarithm."""

    median: int
    sigma: float


def lognormal(u: Floats, spread: Spread) -> Ints:
    """Return log-normally distributed whole numbers: quantiles from a table, on a straight line between them."""
    points = 4_096
    quantiles = (NormalDist().inv_cdf((i + 0.5) / (points + 1)) for i in range(points + 1))
    table = np.array([round(spread.median * exp(spread.sigma * z)) for z in quantiles], dtype=np.int64)
    place = whole(u, points)
    step: Ints = np.floor((u * points - place) * (table[place + 1] - table[place])).astype(np.int64)
    return table[place] + step


def numbered(prefix: str, n: int, width: int) -> pa.Array:
    """Return ids from 1 to n, with zeros before them."""
    digits = pc.utf8_lpad(pa.array(np.arange(1, n + 1)).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def money(cents: Ints, there: Bools | None = None) -> pa.Array:
    """Return whole cents as decimal(18, 2), the same digits, so that nothing is rounded; NULL where it is not there."""
    return (
        pa.array(cents, pa.int64(), mask=None if there is None else ~there)
        .view(pa.decimal64(18, 2))
        .cast(pa.decimal128(18, 2))
    )


def times(seconds: Ints) -> pa.Array:
    """Return times in UTC of seconds since 1970."""
    return pa.array(seconds * 1_000_000, pa.timestamp("us", "UTC"))


def digest(*tables: pa.Table) -> str:
    """Return 32 hexadecimal digits that are equal for tables of equal content, whatever their chunks and encodings.

    Columns count by name and in order, values as they are: numbers and times of up to 64 bits, money, text, structs
    and lists.
    """
    state = blake2b(digest_size=16)
    for table in tables:
        feed(state, table)
    return state.hexdigest()


def feed(state: blake2b, table: pa.Table) -> None:
    """Add a table to a digest; parts of one may be added one by one when all but the last have whole blocks."""
    for start in range(0, max(table.num_rows, 1), BLOCK):
        block = table.slice(start, BLOCK)
        state.update(f"{block.num_rows} rows of {block.num_columns} columns\n".encode())
        for name in block.column_names:
            state.update(f"{len(name)} {name}\n".encode())
            _feed(state, block[name].combine_chunks())


def _feed(state: blake2b, values: pa.Array) -> None:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    state.update(np.packbits(values.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    values, kind = values.drop_null(), values.type
    if pa.types.is_struct(kind):
        for field in kind:
            state.update(f"{field.name}\n".encode())
            _feed(state, pc.struct_field(values, field.name))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        state.update(pc.list_value_length(values).to_numpy().astype("<i8").tobytes())
        _feed(state, values.flatten())
    elif pa.types.is_timestamp(kind):
        _feed(state, values.cast(pa.timestamp("us", kind.tz)).cast(pa.int64()))
    elif pa.types.is_integer(kind):
        state.update(values.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
    else:
        text = values.cast(pa.large_string())
        state.update(pc.binary_length(text).to_numpy().astype("<i8").tobytes())
        if len(text):
            _, ends, characters = text.buffers()
            first, last = np.frombuffer(ends, np.int64)[[text.offset, text.offset + len(text)]].tolist()
            state.update(characters.slice(first, last - first))
