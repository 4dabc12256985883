"""Foreign tables: the Olist folder, CSV and Parquet files, frames of any make, strictly.

Owns how text becomes exact numbers and local times become moments, and says file, line and column where it does not.
Touches no lab.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import pandas as pd
import polars as pl
import pyarrow as pa

from cqrs_lab.errors import ImportFailed

AnyTable: TypeAlias = "pl.DataFrame | pd.DataFrame | pa.Table | str | os.PathLike[str]"
"""A Polars, pandas or Arrow table, or the path of a Parquet or CSV file."""

TIMES = (
    "order_purchase_timestamp",
    "order_approved_at",
    "order_delivered_carrier_date",
    "order_delivered_customer_date",
)
# The columns that are read of each file; only the orders must be there.
FILES = {
    "orders": ("order_id", "customer_id", "order_status", *TIMES),
    "customers": ("customer_id", "customer_unique_id", "customer_city", "customer_state"),
    "order_items": ("order_id", "order_item_id", "product_id", "price", "freight_value"),
    "order_payments": ("order_id", "payment_sequential", "payment_type", "payment_value"),
    "products": ("product_id",),
}
_OPTIONAL = {*TIMES, "customer_city", "customer_state"}
_TEXT = (r"(?s)^.{1,500}$", "has 1 to 500 characters", pl.String())
_NUMBER = (r"^[0-9]{1,18}$", "is a whole number", pl.Int64())
_MONEY = (r"^[0-9]{1,16}(\.[0-9]{1,2})?$", "is an amount with at most two decimal places", pl.Decimal(18, 2))
_RULES: Mapping[str, tuple[str, str, pl.DataType]] = {
    **dict.fromkeys(("price", "freight_value", "payment_value"), _MONEY),
    **dict.fromkeys(("order_item_id", "payment_sequential"), _NUMBER),
}
LINE = "(line)"  # the number of a row's line in its file; hardly the name of a real column
UTC = pl.Datetime("us", "UTC")
_ISO = (
    r"^(?<day>[12][0-9]{3}-[0-9]{2}-[0-9]{2})(?:[T ](?<minute>[0-9]{2}:[0-9]{2})"
    r"(?::(?<second>[0-5][0-9](?:\.[0-9]{1,6})?))?(?<zone>Z|[+-][0-9]{2}:[0-9]{2})?)?$"
)


def fail(said: str, file: str | None = None, line: int | None = None, column: str | None = None) -> NoReturn:
    """Raise ImportFailed, naming the place."""
    unit = "line" if file and file.lower().endswith(".csv") else "row"
    place = [file, line and f"{unit} {line}", column and f"column {column!r}"]
    said = ": ".join([", ".join(part for part in place if part), said]).removeprefix(": ")
    raise ImportFailed(f"{said}; nothing was stored", file=file, line=line, column=column)


def refuse(frame: pl.DataFrame, column: str, bad: pl.Expr | pl.Series, rule: str, file: str | None) -> None:
    """Refuse the frame when a row of it is bad, naming the first."""
    found = frame.filter(bad).head(1)
    if found.height:
        value = found[column].item()
        shown = "it is empty" if value is None else f"it is {str(value)[:200]!r}"
        fail(f"{shown}, but the rule is that it {rule}. Mend it and try again", file, found[LINE].item(), column)


def need_columns(frame: pl.DataFrame, columns: Sequence[str], file: str | None) -> None:
    """Refuse a frame that lacks a column."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        there = ", ".join(name for name in frame.columns if name != LINE)
        fail(f"there is no such column; there are {there}", file, 1 if file else None, ", ".join(missing))


def csv_name(name: str) -> str:
    """Return the name of a file of the public data set."""
    return f"olist_{name}_dataset.csv"


def read_folder(folder: Path) -> dict[str, pl.DataFrame]:
    """Return the files that are there, the columns in use, checked and cast; times stay text."""
    if not (folder / csv_name("orders")).is_file():
        fail(
            f"it is not in {folder}. Give the folder that the public Olist data set was unpacked to", csv_name("orders")
        )
    files = {}
    for name, columns in FILES.items():
        if not (folder / csv_name(name)).exists():
            continue
        frame = _read_csv(folder / csv_name(name))
        need_columns(frame, columns, csv_name(name))
        for column in columns:
            pattern, words, kind = _RULES.get(column, _TEXT)
            bad = ~frame[column].str.contains(pattern).fill_null(column in _OPTIONAL)
            refuse(frame, column, bad, words, csv_name(name))
            frame = frame.with_columns(pl.col(column).cast(kind))
        files[name] = frame.select(LINE, *columns)
    return files


def _read_csv(path: Path) -> pl.DataFrame:
    """Return a CSV file as text, null where it is empty, with the number of each row's first line."""
    name, rows, lines, end = path.name, [], [], 0
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        fail(f"it cannot be read: {error.strerror}", name)
    except UnicodeDecodeError as error:
        fail("it is not UTF-8; save it as UTF-8 and try again", name, error.object.count(b"\n", 0, error.start) + 1)
    header: list[str] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            header = header or row
            if row and len(row) != len(header):
                fail(f"it has {len(row)} fields where the header has {len(header)}; mend it", name, end + 1)
            if row:
                rows.append(row)
                lines.append(end + 1)
            end = reader.line_num
    except csv.Error as error:
        fail(f"it is not CSV: {error}; mend it", name, end + 1)
    if len(rows) < 2:
        fail("it holds no rows; get it again, or leave it out", name, end or 1)
    if len(set(header)) < len(header):
        fail("two columns have this name; rename one", name, 1, max(header, key=header.count))
    columns = {row[0]: pl.Series(row[1:], dtype=pl.String) for row in zip(*rows, strict=True)}
    frame = pl.DataFrame(columns).with_columns(pl.all().replace("", None))
    return frame.with_columns(pl.Series(LINE, lines[1:], pl.Int64))


def as_frame(table: AnyTable, numbers: set[str]) -> tuple[pl.DataFrame, str | None]:
    """Return a table as Polars with its rows numbered, and its file's name; in CSV, `numbers` may become numbers."""
    try:
        if isinstance(table, (str, os.PathLike)):
            path = Path(table)
            if path.suffix.lower() != ".csv":
                return pl.read_parquet(path).with_row_index(LINE, 1), path.name
            frame = _read_csv(path)
            return frame.with_columns(exact(frame[name]) for name in numbers.intersection(frame.columns)), path.name
        if isinstance(table, (pl.DataFrame, pd.DataFrame, pa.Table)):
            if isinstance(table, pd.DataFrame):
                table = pa.Table.from_pandas(table, preserve_index=False)
            return pl.DataFrame(table).with_row_index(LINE, 1), None
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise ImportFailed(f"the table cannot be read: {error}; mend it or convert it to Polars first") from error
    fail(f"a {type(table).__name__} is not a table; give Polars, pandas, Arrow, or the path of a CSV or Parquet file")


def exact(text: pl.Series) -> pl.Series:
    """Return a column of plain numbers as exact ones, any other as it is: 007 is a name."""
    given = text.drop_nulls()
    if given.is_empty() or not given.str.contains(r"^-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?$").all():
        return text
    places = given.str.extract(r"\.([0-9]+)$").fill_null("").str.len_chars().to_list()
    return text.cast(pl.Decimal(38, max(places)) if max(places) else pl.Int64)


def instants(times: pl.Series, zone: str, file: str | None = None) -> pl.DataFrame:
    """Return for each time `at`, its moment in UTC, null when it is no time, and `rule`, the DST rule it needed."""
    frame, kind, given = pl.DataFrame({"given": times}), times.dtype, pl.col("given")
    naive, aware = given, pl.lit(None, UTC)
    if kind == pl.String:
        frame = frame.with_columns(given.str.extract_groups(_ISO).struct.unnest())
        text = pl.format("{}T{}:{}", "day", pl.col("minute").fill_null("00:00"), pl.col("second").fill_null("00"))
        naive = pl.when(pl.col("zone").is_null()).then(text).str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False)
        text += pl.col("zone").replace("Z", "+00:00")
        aware = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", strict=False)
    elif isinstance(kind, pl.Datetime) and kind.time_zone:
        naive, aware = pl.lit(None, pl.Datetime), given.dt.convert_time_zone("UTC")
    elif not isinstance(kind, (pl.Datetime, pl.Date, pl.Null)):
        fail(f"it is {kind}, not a time; cast it to a datetime or a date first", file, None, times.name)
    frame = frame.select(naive=naive.cast(pl.Datetime("us")), aware=aware.cast(UTC))

    def local(time: pl.Expr, which: Any) -> pl.Expr:
        # Polars takes "" for no zone at all.
        there = time.dt.replace_time_zone(zone or "nowhere", ambiguous=which, non_existent="null")
        return there.dt.convert_time_zone("UTC")

    clock, day = pl.col("naive"), pl.duration(days=1)
    try:
        frame = frame.with_columns(
            first=local(clock, "earliest"), second=local(clock, "latest"), skipped=local(clock - day, "latest") + day
        )
    except (pl.exceptions.ComputeError, TypeError):
        fail(f"{zone!r} is not a time zone; give a name such as 'America/Sao_Paulo'")
    skipped = clock.is_not_null() & pl.col("first").is_null()
    twice = pl.when(pl.col("first") != pl.col("second")).then(pl.lit("time_was_ambiguous"))
    rule = pl.when(skipped).then(pl.lit("time_did_not_exist")).otherwise(twice)
    return frame.select(at=pl.coalesce("aware", "first", "skipped"), rule=rule)
