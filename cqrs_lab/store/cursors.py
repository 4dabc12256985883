"""A connection of one thread's own.

Owns who is using it now, how it is stopped, and how a result leaves it as Arrow.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import duckdb
import pyarrow as pa


class Cursor:
    """A connection of one thread's own, and who is using it now."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.busy = threading.Lock()
        self.owner = threading.get_ident()

    def interrupt(self) -> None:
        """Stop the statement that it runs."""
        with suppress(duckdb.ConnectionException):  # it may have been closed meanwhile
            self.connection.interrupt()

    def close(self) -> None:
        """Close it, which rolls back what is open."""
        self.connection.close()


def fetch_arrow(connection: duckdb.DuckDBPyConnection, sql: str, params: Sequence[Any]) -> pa.Table:
    """Run one SELECT and return its result."""
    # Not arrow(): an open reader would block the connection. Nor execute(): it plans once and not twice, 1 to 2 ms
    # less, but copies the result.
    relation = connection.sql(sql, params=list(params)) if params else connection.sql(sql)
    table: pa.Table = relation.to_arrow_table()
    return table
