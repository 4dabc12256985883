"""Frames shown as Rows are: money with its places, no exponents, unbroken ids, the number of rows.

Owns the way from a frame to such a table; how it looks is in `store/shown.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import polars as pl
import pyarrow as pa

from cqrs_lab.errors import InvalidTable
from cqrs_lab.store.rows import Rows, aware
from cqrs_lab.store.shown import html_of, text_of


@dataclass(frozen=True)
class ShownRows:
    """The first rows of a frame; a notebook shows them.

    Attributes:
        table: the rows that are shown.
        total: how many there are.
        title: what they are.
    """

    table: pa.Table = field(repr=False)
    total: int
    title: str = ""

    def __repr__(self) -> str:
        return text_of(self.table, self.total)

    def _repr_html_(self) -> str:
        return html_of(self.table, self.total, title=self.title)


def show_rows(
    rows: Rows | pl.DataFrame | pd.DataFrame | pa.Table, *columns: str, most: int = 10, title: str = ""
) -> ShownRows:
    """Return a frame as something that a notebook shows the way it shows Rows.

    Args:
        rows: a frame of Polars or pandas, or an Arrow table; Rows show so by themselves, and some columns or `most` of
            them here.
        columns: the columns to show, in this order; all of them when none is named.
        most: how many rows to show.
        title: what they are, in front of their number.

    Raises:
        InvalidTable: `most` is no positive number, there is no such column, or it is none of these.
    """
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InvalidTable(f"most={most!r} is no number of rows; give 1 or more", column="most")
    if isinstance(rows, Rows):
        table = rows.arrow()
    elif isinstance(rows, pl.DataFrame):
        table = rows.to_arrow()
    elif isinstance(rows, pd.DataFrame):
        table = pa.Table.from_pandas(rows, preserve_index=False)
    elif isinstance(rows, pa.Table):
        table = rows
    else:
        raise InvalidTable(f"{type(rows).__name__} is no table; give Rows, a frame of Polars or pandas, or Arrow")
    if missing := [name for name in columns if name not in table.column_names]:
        raise InvalidTable(
            f"there is no column {missing[0]}; there are {', '.join(table.column_names)}", column=missing[0]
        )
    table = table.select(list(columns)) if columns else table
    return ShownRows(aware(table.slice(0, most)), table.num_rows, title)
