"""DuckDB as a parser: a database without tables, for questions about SQL itself.

Owns that database. Each thread has a connection of its own to it, as one serves one statement at a time; a forked
process begins with one of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import duckdb

from cqrs_lab.errors import QueryFailed
from cqrs_lab.processes import Weak, tell_in_child


class _Cursor:
    """A connection of one thread's own."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection


class _Parser:
    """The database, opened when it is first asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._root: duckdb.DuckDBPyConnection | None = None
        self._local = threading.local()
        self._cursors: Weak[_Cursor] = Weak()

    def connection(self) -> duckdb.DuckDBPyConnection:
        """Return this thread's connection."""
        cursor: _Cursor | None = getattr(self._local, "cursor", None)
        if cursor is None:
            with self._lock:
                if self._root is None:
                    self._root = duckdb.connect(":memory:", config={"threads": 1})
                cursor = self._local.cursor = _Cursor(self._root.cursor())
                self._cursors.add(cursor)
        return cursor.connection

    def discard(self) -> None:
        """Leave this thread's connection, whatever state it is in."""
        self._local.cursor = None

    def parts(self) -> list[object]:
        """Return what a forked process must not destroy."""
        return [self._root, *(cursor.connection for cursor in self._cursors.living())]

    def in_child(self) -> None:
        """Start over in a forked process."""
        self.__init__()  # type: ignore[misc]


_parser = _Parser()
tell_in_child(_parser)


def ask(sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return all rows of one statement.

    Raises:
        QueryFailed: DuckDB refused it.
        KeyboardInterrupt: Ctrl-C came meanwhile.
    """
    try:
        return list(_parser.connection().execute(sql, params).fetchall())
    except (duckdb.Error, RuntimeError) as error:
        _parser.discard()
        if isinstance(error, duckdb.InterruptException) or "interrupted" in str(error).lower():
            raise KeyboardInterrupt("a question about SQL was interrupted") from None
        if not isinstance(error, duckdb.Error):
            raise
        raise QueryFailed(str(error).strip().split("\n\nStack Trace")[0]) from error


def operators(sql: str) -> list[int]:
    """Return the bytes of a text at which its operators begin, semicolons among them."""
    return [at for at, kind in duckdb.tokenize(sql) if kind == duckdb.token_type.operator]
