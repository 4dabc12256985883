"""The columns of a table of events, whatever it comes from, as the log keeps them.

Owns the way from a source to Arrow, and from text to times and, of CSV, to numbers. Nothing is guessed: what is not
plainly of its field's type is refused.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from cqrs_lab.errors import ImportFailed, InvalidTable
from cqrs_lab.messages import unwrap
from cqrs_lab.store.categories import Category
from cqrs_lab.write.sources import LINE, UTC, Relation, Source, as_frame, in_rows, moments

ROW = "_row"  # number of the row, counted from 1; added to the table under this name
_TIMES: Mapping[str, Any] = {"occurred_at": datetime, "recorded_at": datetime}
_TYPES: Mapping[Any, Any] = {int: pl.Int64, float: pl.Float64}


def to_arrow(table: Source, category: Category, zone: str | None = None) -> tuple[pa.Table, list[InvalidTable]]:
    """Return a table as Arrow, times as moments, with its rows numbered from 1 in the column `_row`.

    Args:
        zone: of times that have none; None: such times are refused.

    Returns:
        The table, and what is wrong with columns of it, of which each value should be of its field's type.

    Raises:
        InvalidTable: not a table, or no such file.
    """
    problems = []
    arrow, is_csv = _read(table)
    if ROW in arrow.column_names:
        raise InvalidTable(f"the column name {ROW!r} is taken for the row's number; rename it", column=ROW)
    if len(set(arrow.column_names)) != arrow.num_columns:
        raise InvalidTable("two columns have the same name; rename one")
    for index, field_ in enumerate(arrow.schema):
        narrower = _narrower(field_.type)
        if narrower is not None:
            try:
                arrow = arrow.set_column(index, field_.name, arrow[field_.name].cast(narrower))
            except pa.ArrowInvalid as error:
                raise InvalidTable(
                    f"column {field_.name!r} is {field_.type}, and some of it does not fit what the log keeps, "
                    f"{narrower}: {error}. Round it first, or mend what is too far",
                    column=field_.name,
                ) from error
    for index, name in enumerate(arrow.column_names):
        try:
            typed = _typed(name, arrow[name], _kind(category, name), zone, is_csv)
        except InvalidTable as error:
            problems.append(error)
            continue
        if typed is not None:
            arrow = arrow.set_column(index, name, typed)
    return arrow.append_column(ROW, pa.array(np.arange(1, arrow.num_rows + 1))), problems


def _read(table: Source) -> tuple[pa.Table, bool]:
    """A source as Arrow, and whether it is CSV, which is text."""
    if isinstance(table, pl.LazyFrame):
        table = table.collect()
    if isinstance(table, pl.DataFrame):
        return table.to_arrow(), False
    if isinstance(table, pd.DataFrame):
        return pa.Table.from_pandas(table, preserve_index=False), False
    if isinstance(table, (str, os.PathLike)):
        if Path(table).suffix.lower() == ".csv":
            try:
                frame, _ = as_frame(table, set())
            except ImportFailed as error:
                raise InvalidTable(str(error), row=error.line, column=error.column) from error
            return frame.drop(LINE).to_arrow(), True
        try:
            return pq.read_table(Path(table)), False
        except (OSError, pa.ArrowInvalid) as error:
            raise InvalidTable(f"{table} cannot be read as Parquet: {error}. Nothing was stored") from error
    if isinstance(table, pa.Table):
        return table, False
    if hasattr(table, "to_arrow_table"):
        return cast(Relation, table).to_arrow_table(), False
    raise InvalidTable(
        f"a {type(table).__name__} is not a table; give Arrow, Polars, pandas, a DuckDB relation, or the path of a CSV "
        "or Parquet file"
    )


def _narrower(kind: pa.DataType) -> pa.DataType | None:
    """The type that DuckDB reads instead of one that it does not, or not in full; None for all others."""
    if pa.types.is_timestamp(kind) and kind.unit != "us":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_decimal256(kind):
        return pa.decimal128(38, kind.scale)
    return None


def _kind(category: Category, name: str) -> Any:
    """The Python type of a column's field, None when there is no such field."""
    if name in _TIMES:
        return _TIMES[name]
    owners = (event.model_fields[name] for event in category.types.values() if name in event.model_fields)
    info = next(owners, None)
    return None if info is None else unwrap(info.annotation)[0]


def _typed(name: str, column: pa.ChunkedArray, kind: Any, zone: str | None, is_csv: bool) -> pa.Array | None:
    """A column as its field has it, None where it stays as it is."""
    given = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_string_view(given)
    if kind is datetime:
        is_naive = pa.types.is_date(given) or (pa.types.is_timestamp(given) and given.tz is None)
        if not (is_text or (is_naive and zone is not None)):
            return None
        try:
            found, naive = moments(_series(name, column), zone)
        except ImportFailed as error:
            raise InvalidTable(str(error), column=name) from error
        _check(name, column, found, "is a time in ISO 8601, such as 2026-01-05T10:00:00+01:00")
        if naive.any():
            row = int(naive.arg_true()[0]) + 1
            raise InvalidTable(
                f"row {row}: {name} {column[row - 1].as_py()!r} has no time zone; say which, as zone='UTC' or "
                "zone='Europe/Amsterdam', or write it with its offset; nothing of the table was stored",
                row=row,
                column=name,
            )
        return found.cast(UTC).to_arrow()
    if kind is date and is_text:
        found = _series(name, column).str.to_date("%Y-%m-%d", strict=False)
        _check(name, column, found, "is a date such as 2026-01-05")
        return found.to_arrow()
    if not is_csv or not is_text:
        return None
    text = _series(name, column)
    if kind is bool:
        found = text.str.to_lowercase().replace_strict({"true": True, "false": False}, default=None)
        _check(name, column, found, "is true or false")
    elif kind in _TYPES:
        found = text.cast(_TYPES[kind], strict=False)
        _check(name, column, found, "is a whole number of 64 bits" if kind is int else "is a number")
    elif kind is Decimal:
        plain = text.str.contains(r"^[+-]?[0-9]{1,20}(\.[0-9]{1,18})?$")
        found = text.set(~plain.fill_null(True), None).cast(pl.Decimal(38, 18), strict=False)
        _check(name, column, found, "is a plain number, such as 12.50")
    else:
        if typing.get_origin(kind) in (list, tuple):
            raise InvalidTable(f"CSV has no lists, and {name!r} is one; give Parquet, Arrow or Polars", column=name)
        return None
    return found.to_arrow()


def _series(name: str, column: pa.ChunkedArray) -> pl.Series:
    found = cast(pl.Series, pl.from_arrow(column)).alias(name)
    return found.cast(pl.String) if found.dtype in (pl.Categorical, pl.Enum) else found


def _check(name: str, column: pa.ChunkedArray, found: pl.Series, rule: str) -> None:
    """Refuse a column of which some values could not be read."""
    bad = (found.is_null() & pl.Series(column.is_valid().to_numpy(zero_copy_only=False))).arg_true()
    if bad.len():
        row = int(bad[0]) + 1
        raise InvalidTable(
            f"row {row}: {name} is {column[row - 1].as_py()!r:.200}, but the rule is that it {rule}"
            f"{in_rows(bad.len())}; nothing of the table was stored. Mend the row, or leave it out, and append again",
            row=row,
            column=name,
        )
