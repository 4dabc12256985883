"""The driver's errors, told in ours.

Owns what each class and text of DuckDB's errors means for a store.
"""

from __future__ import annotations

import re

import duckdb

from cqrs_lab.errors import (
    ConstraintViolated,
    QueryFailed,
    ReadOnlyStore,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreLocked,
)

# What the driver says when bytes of a file are not what it wrote.
_DAMAGE = re.compile(r"corrupt|checksum|deserializ|could not read|not a valid duckdb|replaying wal", re.IGNORECASE)


def ours(error: BaseException, sql: str) -> tuple[BaseException, BaseException | None]:
    """Return one of the driver's errors as one of ours, and what caused it; any other error as it is.

    Args:
        sql: the statement in which it came.
    """
    if isinstance(error, duckdb.Error):
        told = _told(error, sql)
        return told, None if isinstance(told, KeyboardInterrupt) else error
    if isinstance(error, RuntimeError) and "interrupted" in str(error).lower():
        return _interrupted(sql), None
    return error, None


def _interrupted(sql: str) -> KeyboardInterrupt:
    if sql == "COMMIT":
        return KeyboardInterrupt("interrupted while committing: the transaction was stored whole, or not at all")
    return KeyboardInterrupt("the query was interrupted; nothing of it was stored")


def error_text(error: BaseException) -> str:
    """What the driver says, without the trace of its own code and its advice to its authors."""
    text = str(error).strip()
    for noise in ("\n\nStack Trace", "\nStack Trace", "\nThis error signals an assertion failure"):
        text = text.split(noise)[0]
    return " ".join(text.split())[:500].rstrip(".")


def _told(error: duckdb.Error, sql: str) -> BaseException:
    text = error_text(error)
    # Ctrl-C inside a call back into Python, such as for the schema of a registered table, comes as another error.
    in_python = isinstance(error, duckdb.InvalidInputException) and "failed: KeyboardInterrupt" in text
    if isinstance(error, duckdb.InterruptException) or in_python:
        return _interrupted(sql)
    if "Could not set lock on file" in text:
        holder = re.search(r"PID (\d+)", text)
        path = re.search(r'on file "([^"]+)"', text)
        return StoreLocked(path[1] if path else "the file", int(holder[1]) if holder else None)
    if isinstance(error, duckdb.ConnectionException) and "different configuration" in text:
        return StoreInUse(f"{sql}: the file is open in this process outside of cqrs_lab; close it there")
    if "read-only mode" in text:
        return ReadOnlyStore("the store is open read-only; open it without read_only=True to write")
    if isinstance(error, duckdb.ConstraintException) or "constraint violation" in text:
        return ConstraintViolated(f"{text}; the transaction was rolled back and nothing of it was stored")
    if "onflict" in text and isinstance(error, duckdb.TransactionException):
        return ConstraintViolated(f"{text}; another transaction was first, nothing of this one was stored")
    full = isinstance(error, duckdb.OutOfMemoryException) or "No space left" in text
    if "has been invalidated" in text:
        first = text.split("Original error:")[-1].strip(' "')
        kind = StoreFull if full else StoreError
        return kind(
            f"an earlier failure stopped the store: {first}. {'Make room, then close' if full else 'Close'} it and "
            "open it again; acknowledged appends are kept"
        )
    if full:
        return StoreFull(
            f"{text}. This was not acknowledged; make room, then open the store again: what was acknowledged is kept"
        )
    # Damage to a block comes as a bare duckdb.Error, all else that breaks a store as one of _BROKEN.
    if (type(error) is duckdb.Error or isinstance(error, _BROKEN)) and _DAMAGE.search(text):
        return StoreCorrupt(f"the files of the store are damaged: {text}. Work on a copy of them, or restore a backup")
    if isinstance(error, _BROKEN) and "No files found" not in text:
        return StoreError(f"{text}. Close the store and open it again; acknowledged appends are kept")
    return QueryFailed(f"{text}\nIn: {' '.join(sql.split())[:500]}")


_BROKEN = (duckdb.FatalException, duckdb.InternalException, duckdb.IOException, duckdb.SerializationException)
