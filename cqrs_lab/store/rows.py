"""Rows: the answer to a question, fetched at the first look; to a question in a user's words at once.

Owns the shapes an answer can take (Polars, pandas, Arrow, tuples, a notebook's table) and gives every time as
aware UTC and every duration as microseconds. The question is asked once; every shape shows the same rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Protocol, Self

import pandas as pd
import polars
import pyarrow as pa

from cqrs_lab.errors import QueryFailed
from cqrs_lab.store.database import Database
from cqrs_lab.store.durations import lasting
from cqrs_lab.store.shown import html_of, text_of

_SHOWN = 10
_PATIENCE, _PAUSE = 4, 0.005  # failures of one text in a row; seconds between them, growing
_most: ContextVar[int | None] = ContextVar("_most", default=None)
Text = tuple[str, Mapping[str, str] | None]
"""A SELECT, and temporary views for it alone."""


@contextmanager
def unasked(most: int) -> Iterator[None]:
    """Fetch at most so many rows before somebody looks at them, for the block."""
    token = _most.set(most)
    try:
        yield
    finally:
        _most.reset(token)


class Source(Protocol):
    """Anything that has a database, such as a log."""

    @property
    def database(self) -> Database:
        """The database to ask."""


class Rows:
    """The rows of one SELECT, fetched at the first look and kept.

    Args:
        source: what has the database to ask; kept, so that its rows can still be fetched when nobody else keeps it.
        sql: one SELECT.
        params: its values.
        views: temporary views for this question alone, name to SELECT (see `Database.arrow`); text that comes
            from a user is always given some, at least an empty mapping.
        again: writes the SELECT and the views again, where what they read may be gone by now; None
            where it cannot.
    """

    def __init__(
        self,
        source: Source,
        sql: str,
        params: Sequence[Any] = (),
        views: Mapping[str, str] | None = None,
        again: Callable[[], Text] | None = None,
    ) -> None:
        self._source, self._sql, self._params, self._views = source, sql, tuple(params), views
        self._again = again
        if views is not None:
            # A wrong question fails where it is asked, not where it is first looked at; to have it planned alone, for
            # that, would take as long again (6 ms of 13 in a short log).
            most = _most.get()
            if most is None:
                self.arrow()
            else:
                self.fetch(most)

    def fetch(self, most: int) -> bool:
        """Fetch the rows now, unless there are more than so many; return whether there are not."""
        if "_table" not in self.__dict__:
            table = self._ask(f"SELECT * FROM ({{}}\n) LIMIT {most + 1}")
            if table.num_rows > most:
                return False
            self.__dict__["_table"] = aware(table)
        return len(self) <= most

    @classmethod
    def of(cls, source: Source, table: pa.Table) -> Self:
        """Return a table that is there already as Rows."""
        rows = cls(source, "")
        rows.__dict__["_table"] = aware(table)
        return rows

    def arrow(self) -> pa.Table:
        """Return the rows as an Arrow table; times are timestamps in UTC, intervals are durations in microseconds."""
        return self._table

    def pl(self) -> polars.DataFrame:
        """Return the rows as a Polars frame; money stays Decimal."""
        frame = polars.from_arrow(self._table)
        assert isinstance(frame, polars.DataFrame)
        return frame

    def df(self) -> pd.DataFrame:
        """Return the rows as a pandas frame; money stays Decimal, in object columns."""
        frame: pd.DataFrame = self._table.to_pandas()
        return frame

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows as tuples of Python values; times are aware, with datetime.timezone.utc."""
        return list(zip(*map(_python, self._table.columns), strict=True))

    def dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dicts, column name to Python value, as `fetchall` gives them."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.fetchall()]

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self._table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.fetchall())

    def __repr__(self) -> str:
        return text_of(*self._shown())

    def _repr_html_(self) -> str:
        return html_of(*self._shown())

    def _shown(self) -> tuple[pa.Table, int]:
        """The first rows only, and how many there are: to look at ten of three million must not fetch all of them."""
        if "_table" not in self.__dict__:
            table = aware(self._ask(f"SELECT * FROM ({{}}\n) LIMIT {_SHOWN + 1}"))
            if table.num_rows > _SHOWN:
                count = self._ask("SELECT count(*) FROM ({}\n)")
                return table.slice(0, _SHOWN), count.column(0)[0].as_py()
        return self._table.slice(0, _SHOWN), self._table.num_rows

    def _ask(self, whole: str) -> pa.Table:
        """Ask the question, put into another one; where it can be written again, a failure has to repeat itself."""
        failed = 0
        while True:
            try:
                sql = whole.replace("{}", self._sql, 1)
                return self._source.database.arrow(sql, self._params, views=self._views)
            except QueryFailed:
                before = (self._sql, self._views)
                if self._again is not None:
                    self._sql, self._views = self._again()
                # What went may be there again by now, so that the same text would be answered.
                failed = failed + 1 if (self._sql, self._views) == before else 0
                if self._again is None or failed > _PATIENCE:
                    raise
                time.sleep(failed * _PAUSE)

    @cached_property
    def _table(self) -> pa.Table:
        return aware(self._ask("{}"))


def aware(table: pa.Table) -> pa.Table:
    """Return the table with every naive timestamp marked as UTC, which is what the store keeps, intervals as durations.

    Raises:
        QueryFailed: an interval counts months, which have no length.
    """
    for number, field in enumerate(table.schema):
        if _has(pa.types.is_interval, field.type):
            chunks = [lasting(chunk, field.name) for chunk in table[number].chunks]
            column = pa.chunked_array(chunks, None if chunks else lasting(pa.array([], field.type), field.name).type)
            table = table.set_column(number, field.name, column)
    wanted = pa.schema([field.with_type(_aware_type(field.type)) for field in table.schema])
    return table if wanted == table.schema else table.cast(wanted)


def _aware_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return pa.timestamp(kind.unit, tz="UTC")
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_aware_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_aware_type(kind.value_type)))
    return kind


def _python(column: pa.ChunkedArray) -> list[Any]:
    """Return the Python values of a column; Arrow names their zone in another way than the rest of the library."""
    values: list[Any] = column.to_pylist()
    return [_in_utc(value) for value in values] if _has(pa.types.is_timestamp, column.type) else values


def _has(is_such: Callable[[pa.DataType], bool], kind: pa.DataType) -> bool:
    return is_such(kind) or any(_has(is_such, kind.field(n).type) for n in range(kind.num_fields))


def _in_utc(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    if isinstance(value, dict):
        return {name: _in_utc(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):  # a map is a list of pairs
        return type(value)(map(_in_utc, value))
    return value
