"""DuckDB, held in one place.

Owns opening and sharing a file, a cursor for each thread, transactions that commit or say that they did not,
interrupts, and the translation of the driver's errors into ours. Knows nothing of events.

Facts about DuckDB 2.0 that shape it. A connection serves one statement at a time, so every thread gets a cursor
of its own and every result is fetched whole. COMMIT of a transaction in which a statement failed reports success
and stores nothing, so a transaction here remembers the failure. An interrupted statement leaves its transaction
open, so the cursor is thrown away. Opening drops some damaged logs without a word, so they are looked at before (see
`cqrs_lab.store.wal`). Closing folds the log into the file, so that is left out for a file that nobody wrote to. Ctrl-C
can come late, so it is handed on (see `cqrs_lab.store.interrupts`). A forked process must not touch it (see
`cqrs_lab.processes`), and its lock of a file can be lost (see `cqrs_lab.store.file_lock`).
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
from cachetools import LRUCache

from cqrs_lab.errors import (
    QueryFailed,
    ReadOnlyStore,
    StoreClosed,
    StoreError,
    StoreForked,
    StoreInUse,
    StoreMissing,
    TransactionAborted,
)
from cqrs_lab.processes import Weak, tell_in_child
from cqrs_lab.sql.names import quote
from cqrs_lab.store.connect import MEMORY, connect
from cqrs_lab.store.cursors import Cursor, fetch_arrow
from cqrs_lab.store.driver_errors import ours
from cqrs_lab.store.file_lock import FileLock
from cqrs_lab.store.files import real_path
from cqrs_lab.store.interrupts import stoppable

_MOST_THREADS = 1024  # a number that the system does not have ends the process
_PATIENCE = 5.0  # seconds that close() gives an interrupted statement of another thread to end

Row = tuple[Any, ...]
T = TypeVar("T")


class Database:
    """One DuckDB file (or one in memory), shared by everybody in this process who opens the same path."""

    _open: dict[str, Database] = {}
    _registry_lock = threading.RLock()

    def __init__(self, path: str, *, read_only: bool, threads: int) -> None:
        self.path = path
        self.read_only = read_only
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._guard = threading.RLock()  # of _locks, _cursors and _statements
        self._statements: LRUCache[str, Any] = LRUCache(500)
        self._cursors: Weak[Cursor] = Weak()  # a thread that ends takes its cursor with it
        self._users = 0
        self._written = False
        self._local = threading.local()
        self._process = os.getpid()
        self._file_lock: FileLock | None = None
        self._root: duckdb.DuckDBPyConnection | None = None
        self.companions: dict[str, object] = {}  # what others keep as long as the file is open here
        try:
            if path != MEMORY:
                self._file_lock = FileLock(path, shared=read_only)
            self._root = connect(path, read_only, threads)
            tell_in_child(self)
            self.catalog: str = self.execute("SELECT current_database()")[0][0]
        except BaseException:
            self._close()
            raise

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
            StoreLocked, StoreInUse, StoreMissing, StoreCorrupt, NotAStore: the files are as they were.
            StoreError: the file cannot be opened by this user, or with so many threads.
        """
        threads = (os.cpu_count() or 1) if threads is None else threads
        if not 1 <= threads <= _MOST_THREADS:
            raise StoreError(f"threads={threads} is not from 1 to {_MOST_THREADS}")
        if str(path) == MEMORY:
            if read_only:
                raise StoreMissing("an in-memory store cannot be read-only: it would be empty for ever")
            database = cls(MEMORY, read_only=False, threads=threads)
            database._users = 1
            return database
        real = real_path(path)
        with cls._registry_lock:
            found = cls._find(real)
            if found is not None and not found._users and found._process == os.getpid():
                found._close()  # a Ctrl-C cut an opening or a closing short
                found = None
            database = found or cls(real, read_only=read_only, threads=threads)
            cls._open[database.path] = database  # first: a Ctrl-C must not leave one open that nobody finds
            database.check_open()
            if database.read_only != read_only:
                held, wanted = ("read-only", "for writing") if database.read_only else ("for writing", "read-only")
                raise StoreInUse(
                    f"{real} is open {held} in this process and cannot be opened {wanted} beside it; "
                    "use the lab that has it, or close that one first"
                )
            database._users += 1
        return database

    @classmethod
    def _find(cls, real: str) -> Database | None:
        """Return who has the file open, also under another name: a hard link, or other case where case is folded.

        Two instances over one file would destroy it, and the system's lock holds off other processes only.
        """
        for path, database in cls._open.items():
            with suppress(OSError):
                if path == real or os.path.samefile(path, real):
                    return database
        return None

    def release(self) -> None:
        """Give the database back; the last user closes the file. In a forked process nothing happens.

        What other threads are running then is interrupted, and raises StoreClosed there.
        """
        if self._process != os.getpid():
            return
        with self._registry_lock:
            self._users -= 1
            if self._users > 0 or self._root is None:
                return
            # The registry stays locked meanwhile: whoever opens the file next finds it closed. The entry goes last, so
            # that the next opening can finish a close that Ctrl-C cut short.
            self._close()
            self._open.pop(self.path, None)

    def _close(self) -> None:
        root, self._root = self._root, None
        try:
            cursors = self._living()
            for cursor in cursors:
                cursor.interrupt()
            for cursor in cursors:
                if cursor.owner != threading.get_ident() and cursor.busy.acquire(timeout=_PATIENCE):
                    cursor.busy.release()
        finally:
            if root is not None:
                root.close()  # and its cursors with it
            if self._file_lock is not None:
                self._file_lock.release()

    def parts(self) -> list[object]:
        """Return what a forked process must not destroy."""
        return [self._root, *(cursor.connection for cursor in self._living())]

    def in_child(self) -> None:
        """Be left alone: this is a forked process. Every lock is free there, so that who comes is refused at once."""
        Database._registry_lock = threading.RLock()
        self._guard = threading.RLock()
        for lock in self._locks.values():
            lock._at_fork_reinit()  # type: ignore[attr-defined]  # as Python does with its own locks
        if self._file_lock is not None:
            self._file_lock.leave()

    def check_open(self) -> None:
        """Refuse what is answered from memory once the database is closed, or in a forked process.

        Raises:
            StoreClosed, StoreForked: it is.
        """
        self._connection()

    def lock(self, name: str) -> threading.RLock:
        """Return the lock of that name, shared by everybody who shares this database."""
        with self._guard:
            return self._locks[name]

    # -- statements ------------------------------------------------------------------------------------------------

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run one statement on this thread's cursor and return all its rows."""
        if not params:
            return self._run(lambda cursor: cursor.execute(sql).fetchall(), sql)
        return self._run(lambda cursor: cursor.execute(self._parsed(cursor, sql), params).fetchall(), sql)

    def arrow(self, sql: str, params: Sequence[Any] = (), *, views: Mapping[str, str] | None = None) -> pa.Table:
        """Run one SELECT and return its result as an Arrow table.

        Args:
            views: temporary views, name to SELECT, that exist for this statement alone. It then runs on a cursor
                of its own in a read-only transaction, because its text may come from a user.
        """
        if views is None:
            return self._run(lambda cursor: fetch_arrow(cursor, sql, params), sql)
        self.check_select(sql)

        def ask(connection: duckdb.DuckDBPyConnection) -> pa.Table:
            for name, select in views.items():
                connection.execute(f"CREATE TEMP VIEW {quote(name)} AS {select}").fetchall()
            connection.execute("BEGIN TRANSACTION READ ONLY").fetchall()
            return fetch_arrow(connection, sql, params)

        cursor = self._new_cursor()
        try:
            return self._use(cursor, ask, sql)
        finally:
            cursor.close()

    def columns(self, select: str) -> dict[str, str]:
        """Return the columns of a SELECT with their types."""
        return {name: kind for name, kind, *_ in self.execute(f"DESCRIBE {select}")}

    def check_select(self, sql: str) -> None:
        """Refuse text that is not exactly one statement that only reads.

        Raises:
            QueryFailed: several statements, none, or one that writes.
        """
        kinds = self._run(lambda cursor: [s.type for s in cursor.extract_statements(sql)], sql)
        allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
        if len(kinds) != 1 or kinds[0] not in allowed:
            names = ", ".join(kind.name for kind in kinds) or "nothing"
            if names == "MULTI":  # what DuckDB calls a PIVOT whose columns it has to look up first
                names = "a PIVOT without its values, which are several; name them, as in ON kind IN ('a', 'b')"
            raise QueryFailed(f"a question is one SELECT; this text holds {names}: {sql.strip()[:200]}")

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file, so that it no longer holds what was deleted since."""
        if self.path != MEMORY:
            self.execute("FORCE CHECKPOINT")

    @contextmanager
    def registered(self, table: pa.Table, name: str) -> Iterator[str]:
        """Let SQL of this thread read an Arrow table under `name`; yields the quoted name."""
        self._run(lambda cursor: cursor.register(name, table), f"register {name}")
        try:
            yield quote(name)
        finally:
            # A transaction that failed refuses this, which would hide why it failed; its cursor goes away anyhow.
            failed = self.in_transaction and self._local.failure is not None
            if self._root is not None and not failed:
                self._run(lambda cursor: cursor.unregister(name), f"unregister {name}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block's statements on this thread as one transaction: all of it is stored, or nothing.

        Raises:
            TransactionAborted: a statement failed and its error was swallowed in the block.
            ReadOnlyStore: the store was opened read-only.
            KeyboardInterrupt: nothing was stored, unless it came while the transaction was being committed; then it
                was stored whole or not at all, and only a look at the store tells.
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
            self._commit()
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

    def _commit(self) -> None:
        if not self._written:
            # Before, not after: a KeyboardInterrupt just behind the commit must not leave it out.
            self.execute("PRAGMA enable_checkpoint_on_shutdown")
            self._written = True
        try:
            self.execute("COMMIT")
        except StoreError as error:
            # The transaction is on disk; what failed is folding the log into the file after it. DuckDB refuses
            # everything from here on, so the next call says that the store has to be opened again.
            if "COMMIT succeeded and is durable" not in str(error):
                raise

    def interrupt(self, owner: int | None = None) -> None:
        """Stop every statement that is running, or one thread's; each raises KeyboardInterrupt where it runs."""
        cursors = self._living()
        for cursor in cursors:
            if owner in (None, cursor.owner):
                cursor.interrupt()

    def progress(self) -> Callable[[], float]:
        """Return what tells, from any thread, how far this thread's statement is: from 0 to 1, below when unknown."""
        self.execute("SET enable_progress_bar = true")
        self.execute("SET enable_progress_bar_print = false")
        connection = self._local.cursor.connection
        return lambda: connection.query_progress() / 100

    # -- cursors ---------------------------------------------------------------------------------------------------

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._process != os.getpid():
            raise StoreForked(self.path, self._process)
        if self._root is None:
            raise StoreClosed(f"the lab over {self.path} is closed; open it again")
        return self._root

    def _living(self) -> list[Cursor]:
        return self._cursors.living()

    def _new_cursor(self) -> Cursor:
        root = self._connection()
        try:
            cursor = Cursor(root.cursor())
        except duckdb.ConnectionException as error:  # closed by another thread in between
            raise StoreClosed(f"the lab over {self.path} is closed; open it again") from error
        with self._guard:
            self._cursors.add(cursor)
        return cursor

    def _run(self, call: Callable[[duckdb.DuckDBPyConnection], T], sql: str) -> T:
        self._connection()
        cursor: Cursor | None = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._new_cursor()
        try:
            return self._use(cursor, call, sql)
        except BaseException as error:
            if self.in_transaction:
                self._local.failure = error
            elif not isinstance(error, Exception):
                self._discard_cursor()
            raise

    def _parsed(self, cursor: duckdb.DuckDBPyConnection, sql: str) -> Any:
        """The parse of a statement with parameters, which comes again and again: a lookup 0.27 ms, not 0.37 ms."""
        with self._guard:
            known = self._statements.get(sql)
        if known is None:
            found = cursor.extract_statements(sql)
            known = found[0] if len(found) == 1 else sql
            with self._guard:
                self._statements[sql] = known
        return known

    def _use(self, cursor: Cursor, call: Callable[[duckdb.DuckDBPyConnection], T], sql: str) -> T:
        with cursor.busy:
            try:
                self._connection()
                with stoppable(cursor.interrupt):
                    return call(cursor.connection)
            except BaseException as error:
                if self._root is None and not isinstance(error, StoreClosed):
                    self._connection()
                told, cause = ours(error, sql)
                if told is error:
                    raise
                raise told from cause

    def _discard_cursor(self) -> None:
        cursor, self._local.cursor = getattr(self._local, "cursor", None), None
        if cursor is not None:
            cursor.close()
