"""DuckDB, held in one place: the only module that imports it.

Owns opening and sharing a file, a cursor for each thread, transactions that commit or say that they did not,
interrupts, and the translation of the driver's errors into ours. Knows nothing of events.

Three facts about DuckDB 2.0 shape it. A connection serves one statement at a time, so every thread gets a cursor
of its own and every result is fetched whole. COMMIT of a transaction in which a statement failed reports success
and stores nothing, so a transaction here remembers the failure. An interrupted statement leaves its transaction
open, so the cursor is thrown away.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import duckdb
import pyarrow as pa

from cqrs_lab.errors import (
    ConstraintViolated,
    CqrsLabError,
    NotAStore,
    QueryFailed,
    ReadOnlyStore,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreLocked,
    StoreMissing,
    TransactionAborted,
)

MEMORY = ":memory:"
_MAGIC_AT, _MAGIC = 8, b"DUCK"  # every DuckDB file carries these bytes after the header's checksum

Row = tuple[Any, ...]
T = TypeVar("T")


def quote(name: str) -> str:
    """Return `name` as a quoted SQL identifier; the one way a name reaches SQL."""
    if not name or "\0" in name:
        raise QueryFailed(f"{name!r} cannot name anything in DuckDB: it is empty or holds a NUL")
    return '"' + name.replace('"', '""') + '"'


class Database:
    """One DuckDB file (or one in memory), shared by everybody in this process who opens the same path."""

    _open: dict[str, Database] = {}
    _registry_lock = threading.RLock()

    def __init__(self, path: str, *, read_only: bool, threads: int) -> None:
        self.path = path
        self.read_only = read_only
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._users = 0
        self._local = threading.local()
        self._root: duckdb.DuckDBPyConnection | None = _connect(path, read_only, threads)
        self.catalog: str = self.execute("SELECT current_database()")[0][0]

    @classmethod
    def open(
        cls, path: str | os.PathLike[str] = MEMORY, *, read_only: bool = False, threads: int | None = None
    ) -> Database:
        """Open a file, or join whoever in this process has it open already.

        Args:
            path: the file; ":memory:" for a database of its own that nothing else sees.
            read_only: refuse writes; several processes may then read one file.
            threads: DuckDB's worker threads, all cores unless told. Always set: with DuckDB's own default an
                interrupt took 10 to 78 s to arrive.

        Raises:
            StoreLocked, StoreInUse, StoreMissing, StoreCorrupt, NotAStore.
        """
        threads = threads or os.cpu_count() or 1
        if str(path) == MEMORY:
            if read_only:
                raise StoreMissing("an in-memory store cannot be read-only: it would be empty for ever")
            database = cls(MEMORY, read_only=False, threads=threads)
            database._users = 1
            return database
        real = os.path.realpath(path)
        with cls._registry_lock:
            database = cls._open.get(real) or cls(real, read_only=read_only, threads=threads)
            if database.read_only != read_only:
                held, wanted = ("read-only", "for writing") if database.read_only else ("for writing", "read-only")
                raise StoreInUse(
                    f"{real} is open {held} in this process and cannot be opened {wanted} beside it; "
                    "use the lab that has it, or close that one first"
                )
            cls._open[real] = database
            database._users += 1
        return database

    def release(self) -> None:
        """Give the database back; the last user closes the file."""
        with self._registry_lock:
            self._users -= 1
            if self._users > 0 or self._root is None:
                return
            if self._open.get(self.path) is self:
                del self._open[self.path]
            root, self._root = self._root, None
        root.close()

    def lock(self, name: str) -> threading.RLock:
        """Return the lock of that name, shared by everybody who shares this database."""
        with self._registry_lock:
            return self._locks[name]

    # -- statements ------------------------------------------------------------------------------------------------

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run one statement on this thread's cursor and return all its rows."""
        return self._run(lambda cursor: cursor.execute(sql, params).fetchall(), sql)

    def arrow(self, sql: str, params: Sequence[Any] = (), *, views: Mapping[str, str] | None = None) -> pa.Table:
        """Run one SELECT and return its result as an Arrow table.

        Args:
            views: temporary views, name to SELECT, that exist for this statement alone. It then runs on a cursor
                of its own in a read-only transaction, because its text may come from a user.
        """
        if views is None:
            return self._run(lambda cursor: _fetch_arrow(cursor, sql, params), sql)
        self.check_select(sql)
        cursor = self._connection().cursor()
        try:
            with _translated(sql):
                for name, select in views.items():
                    cursor.execute(f"CREATE TEMP VIEW {quote(name)} AS {select}").fetchall()
                cursor.execute("BEGIN TRANSACTION READ ONLY").fetchall()
                return _fetch_arrow(cursor, sql, params)
        finally:
            cursor.close()

    def check_select(self, sql: str) -> None:
        """Refuse text that is not exactly one statement that only reads.

        Raises:
            QueryFailed: several statements, none, or one that writes.
        """
        kinds = self._run(lambda cursor: [s.type for s in cursor.extract_statements(sql)], sql)
        allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
        if len(kinds) != 1 or kinds[0] not in allowed:
            names = ", ".join(kind.name for kind in kinds) or "nothing"
            raise QueryFailed(f"a question is one SELECT; this text holds {names}: {sql.strip()[:200]}")

    @contextmanager
    def registered(self, table: pa.Table, name: str) -> Iterator[str]:
        """Let SQL of this thread read an Arrow table under `name`; yields the quoted name."""
        self._run(lambda cursor: cursor.register(name, table), f"register {name}")
        try:
            yield quote(name)
        finally:
            if self._root is not None:
                self._run(lambda cursor: cursor.unregister(name), f"unregister {name}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block's statements on this thread as one transaction: all of it is stored, or nothing.

        Raises:
            TransactionAborted: a statement failed and its error was swallowed in the block.
            ReadOnlyStore: the store was opened read-only.
        """
        if self.read_only:
            raise ReadOnlyStore(f"{self.path} is open read-only; open it without read_only=True to write")
        if self.in_transaction:
            raise StoreError("a transaction is already open in this thread; they do not nest")
        self._local.failure = None
        try:
            self._local.in_transaction = True
            self.execute("BEGIN TRANSACTION")
            yield
            failure = self._local.failure
            if failure is not None:
                raise TransactionAborted(
                    f"a statement of this transaction had failed ({failure}), so nothing of it was stored"
                ) from failure
            self.execute("COMMIT")
        except BaseException:
            self._discard_cursor()  # closing it rolls back, whatever state it was left in
            raise
        finally:
            self._local.in_transaction = False
            self._local.failure = None

    @property
    def in_transaction(self) -> bool:
        """Whether this thread has a transaction open."""
        return getattr(self._local, "in_transaction", False)

    def interrupt(self) -> None:
        """Stop what this thread's cursor is running, from another thread."""
        self._connection().interrupt()

    # -- cursors ---------------------------------------------------------------------------------------------------

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._root is None:
            raise StoreClosed(f"the lab over {self.path} is closed; open it again")
        return self._root

    def _run(self, call: Callable[[duckdb.DuckDBPyConnection], T], sql: str) -> T:
        root = self._connection()
        cursor: duckdb.DuckDBPyConnection | None = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = root.cursor()
        try:
            with _translated(sql):
                return call(cursor)
        except BaseException as error:
            if self.in_transaction:
                self._local.failure = error
            elif not isinstance(error, Exception):
                self._discard_cursor()
            raise

    def _discard_cursor(self) -> None:
        cursor, self._local.cursor = getattr(self._local, "cursor", None), None
        if cursor is not None:
            cursor.close()


def _fetch_arrow(cursor: duckdb.DuckDBPyConnection, sql: str, params: Sequence[Any]) -> pa.Table:
    # to_arrow_table() and not arrow(): an open reader would block the cursor.
    relation = cursor.sql(sql, params=list(params)) if params else cursor.sql(sql)
    table: pa.Table = relation.to_arrow_table()
    return table


def _connect(path: str, read_only: bool, threads: int) -> duckdb.DuckDBPyConnection:
    if path != MEMORY:
        _check_files(Path(path), read_only)
    try:
        with _translated(f"open {path}"):
            root = duckdb.connect(path, read_only=read_only, config={"threads": threads})
            # Days and months must not depend on where the reader sits.
            root.execute("SET GLOBAL TimeZone = 'UTC'").fetchall()
            return root
    except (StoreLocked, StoreFull, StoreInUse):
        raise
    except (CqrsLabError, duckdb.Error) as error:
        raise StoreCorrupt(
            f"{path} cannot be opened: {error}. The files were left as they are. Work on a copy of them, "
            "or restore a backup"
        ) from error


def _check_files(file: Path, read_only: bool) -> None:
    """Refuse files that DuckDB would take for empty, or would overwrite."""
    wal = file.with_name(file.name + ".wal")
    if file.is_dir():
        raise NotAStore(f"{file} is a folder; give the path of a file, such as {file / 'shop.duckdb'}")
    if not file.exists():
        if wal.exists():
            raise StoreCorrupt(
                f"{file} is missing while its log {wal.name} is there; opening would throw away what the log "
                "holds. Put the database file back, or move the log away to start a new store"
            )
        if read_only:
            raise StoreMissing(f"{file} does not exist; a read-only store must be there already")
        if not file.parent.is_dir():
            raise StoreMissing(f"the folder {file.parent} does not exist; make it first")
        return
    with file.open("rb") as stream:
        head = stream.read(_MAGIC_AT + len(_MAGIC))
    if not head:
        raise StoreCorrupt(f"{file} has no bytes; delete it to start a new store, or restore a backup")
    if head[_MAGIC_AT:] != _MAGIC:
        raise NotAStore(f"{file} is not a DuckDB file; it was left as it is. Choose another path")


@contextmanager
def _translated(sql: str) -> Iterator[None]:
    """Turn the driver's errors into ours, once, where the driver is called."""
    try:
        yield
    except duckdb.Error as error:
        _raise_ours(error, sql)
    except RuntimeError as error:
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt("the query was interrupted; nothing of it was stored") from None
        raise


def _raise_ours(error: duckdb.Error, sql: str) -> NoReturn:
    said = str(error).strip()
    if isinstance(error, duckdb.InterruptException):
        raise KeyboardInterrupt("the query was interrupted; nothing of it was stored") from None
    if "Could not set lock on file" in said:
        holder = re.search(r"PID (\d+)", said)
        path = re.search(r'on file "([^"]+)"', said)
        raise StoreLocked(path[1] if path else "the file", int(holder[1]) if holder else None) from error
    if "read-only mode" in said:
        raise ReadOnlyStore("the store is open read-only; open it without read_only=True to write") from error
    if isinstance(error, duckdb.ConstraintException) or "constraint violation" in said:
        raise ConstraintViolated(f"{said}; the transaction was rolled back and nothing of it was stored") from error
    if "onflict" in said and isinstance(error, duckdb.TransactionException):
        raise ConstraintViolated(f"{said}; another transaction was first, nothing of this one was stored") from error
    if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in said:
        raise StoreFull(
            f"{said}. Nothing of this transaction was stored; make room, then open the store again"
        ) from error
    if isinstance(error, (duckdb.FatalException, duckdb.InternalException, duckdb.IOException)):
        raise StoreError(f"{said}. Close the store and open it again; acknowledged appends are kept") from error
    raise QueryFailed(f"{said}\nIn: {' '.join(sql.split())[:500]}") from error


# -- what DuckDB itself says about a statement ---------------------------------------------------------------------


@cache
def _scratch() -> Database:
    """A database without tables, for questions about SQL itself."""
    return Database.open(MEMORY, threads=1)


@cache
def syntax_tree(sql: str) -> Any:
    """Return DuckDB's own parse of one SELECT, as nested dicts and lists.

    Raises:
        QueryFailed: it does not parse, or is not one SELECT.
    """
    answer = json.loads(_scratch().execute("SELECT json_serialize_sql(?::VARCHAR)", [sql])[0][0])
    if answer["error"]:
        raise QueryFailed(f"{answer['error_message']}\nIn: {' '.join(sql.split())[:500]}")
    if len(answer["statements"]) != 1:
        raise QueryFailed(f"a SELECT was expected, and nothing beside it: {sql.strip()[:200]}")
    return answer["statements"][0]["node"]


def syntax_text(node: Any) -> str:
    """Return SQL for a parse as `syntax_tree` gives it."""
    statement = json.dumps({"error": False, "statements": [{"node": node}]})
    text: str = _scratch().execute("SELECT json_deserialize_sql(?::JSON)", [statement])[0][0]
    return text


@cache
def function_catalogue() -> dict[str, tuple[str, str | None, str | None]]:
    """Return DuckDB's functions: name to (kind, stability, definition of a macro).

    Where a name has several overloads, the least stable one counts.
    """
    rows = _scratch().execute(
        """SELECT lower(function_name), function_type, stability, macro_definition FROM duckdb_functions()
           ORDER BY function_type = 'scalar', stability = 'VOLATILE', stability = 'CONSISTENT_WITHIN_QUERY'"""
    )
    return {name: (kind, stability, definition) for name, kind, stability, definition in rows}
