"""DuckDB as a parser: a database without tables, for questions about SQL itself.

Owns that database. Each thread has a connection of its own to it, as one serves one statement at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import duckdb

from cqrs_lab.errors import QueryFailed

_local = threading.local()


def ask(sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return all rows of one statement.

    Raises:
        QueryFailed: DuckDB refused it.
        KeyboardInterrupt: Ctrl-C came meanwhile.
    """
    if not hasattr(_local, "cursor"):
        _local.cursor = _database().cursor()
    try:
        return list(_local.cursor.execute(sql, params).fetchall())
    except (duckdb.Error, RuntimeError) as error:
        del _local.cursor  # whatever state it was left in
        if isinstance(error, duckdb.InterruptException) or "interrupted" in str(error).lower():
            raise KeyboardInterrupt("a question about SQL was interrupted") from None
        if not isinstance(error, duckdb.Error):
            raise
        raise QueryFailed(str(error).strip().split("\n\nStack Trace")[0]) from error


def operators(sql: str) -> list[int]:
    """Return the bytes of a text at which its operators begin, semicolons among them."""
    return [at for at, kind in duckdb.tokenize(sql) if kind == duckdb.token_type.operator]


@cache
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config={"threads": 1})
