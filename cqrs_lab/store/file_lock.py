"""A lock of our own beside a store: shop.duckdb.lock.

Owns that file. DuckDB locks its file, too, but the system (POSIX) drops that lock as soon as this process closes any
descriptor of the file: a `shutil.copy` of an open store is enough, and then a second process could write. This lock
(flock) belongs to the open file and is given up with it alone, also when the process is killed. Readers share it. Where
the folder or the system has no such thing, DuckDB's own is all there is.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from io import FileIO

from cqrs_lab.errors import StoreLocked

try:
    import fcntl
except ImportError:  # Windows, where nobody can open a file that DuckDB has
    fcntl = None  # type: ignore[assignment]

_TRIES, _PAUSE = 20, 0.01  # seconds; who closes a store holds the lock for a moment more


class FileLock:
    """The lock of one store, held until it is released.

    Args:
        path: of the store.
        shared: with others that only read.

    Raises:
        StoreLocked: another process has it.
    """

    def __init__(self, path: str, *, shared: bool) -> None:
        self._path, self._shared = f"{path}.lock", shared
        self._file: FileIO | None = None
        holder = b""
        for _ in range(_TRIES if fcntl is not None else 0):
            file = self._opened()
            if file is None:
                return
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                if self._is_there(file):
                    self._file = file
                    self._sign(file)
                    return
            except BlockingIOError:
                holder = self._read(file)
                time.sleep(_PAUSE)
            except OSError:  # a file system without such locks
                return
            finally:  # also when Ctrl-C comes: an error keeps what it passed
                if self._file is None:
                    file.close()
        if fcntl is not None:
            raise StoreLocked(path, int(holder) if holder.isdigit() else None)

    def release(self) -> None:
        """Give it up, and take the file away unless others read."""
        try:
            if self._file is not None and not self._file.closed:  # a Ctrl-C may have come just behind that
                with suppress(OSError):
                    if self._shared:
                        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if self._is_there(self._file):
                        os.unlink(self._path)
        finally:
            self.leave()

    def leave(self) -> None:
        """Have no part in it, in a forked process: the lock is given up when the parent alone closes it, or dies."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> FileIO | None:
        # No descriptors: between two steps Ctrl-C could leave one open, and the lock with it.
        for mode in ("a+", "r"):  # a lock can be had on a file that one only reads
            with suppress(OSError):
                return FileIO(self._path, mode)
        return None

    def _is_there(self, file: FileIO) -> bool:
        """Whether the path still leads to the file that is locked."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except OSError:
            return False

    def _sign(self, file: FileIO) -> None:
        """Say who holds it; nobody where it is shared."""
        with suppress(OSError):
            file.truncate(0)
            if not self._shared:
                file.write(str(os.getpid()).encode())

    def _read(self, file: FileIO) -> bytes:
        with suppress(OSError):
            file.seek(0)
            return file.read(20)
        return b""
