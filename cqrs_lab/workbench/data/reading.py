"""The Olist folder, strictly.

Owns which files and columns of the public data set are read, and their rules. Touches no lab.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from cqrs_lab.write.sources import LINE, fail, need_columns, read_csv, refuse

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
        frame = read_csv(folder / csv_name(name))
        need_columns(frame, columns, csv_name(name))
        for column in columns:
            pattern, words, kind = _RULES.get(column, _TEXT)
            bad = ~frame[column].str.contains(pattern).fill_null(column in _OPTIONAL)
            refuse(frame, column, bad, words, csv_name(name))
            frame = frame.with_columns(pl.col(column).cast(kind))
        files[name] = frame.select(LINE, *columns)
    return files
