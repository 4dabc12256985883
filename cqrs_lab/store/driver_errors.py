"""The driver's errors, told in ours.

Owns what each class and text of DuckDB's errors means for a store.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

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


@contextmanager
def translated(sql: str) -> Iterator[None]:
    """Turn the driver's errors into ours, once, where the driver is called."""
    try:
        yield
    except duckdb.Error as error:
        _raise_ours(error, sql)
    except RuntimeError as error:
        if "interrupted" in str(error).lower():
            raise _interrupted(sql) from None
        raise


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


def _raise_ours(error: duckdb.Error, sql: str) -> NoReturn:
    text = error_text(error)
    # Ctrl-C inside a call back into Python, such as for the schema of a registered table, comes as another error.
    in_python = isinstance(error, duckdb.InvalidInputException) and "failed: KeyboardInterrupt" in text
    if isinstance(error, duckdb.InterruptException) or in_python:
        raise _interrupted(sql) from None
    if "Could not set lock on file" in text:
        holder = re.search(r"PID (\d+)", text)
        path = re.search(r'on file "([^"]+)"', text)
        raise StoreLocked(path[1] if path else "the file", int(holder[1]) if holder else None) from error
    if isinstance(error, duckdb.ConnectionException) and "different configuration" in text:
        raise StoreInUse(f"{sql}: the file is open in this process outside of cqrs_lab; close it there") from error
    if "read-only mode" in text:
        raise ReadOnlyStore("the store is open read-only; open it without read_only=True to write") from error
    if isinstance(error, duckdb.ConstraintException) or "constraint violation" in text:
        raise ConstraintViolated(f"{text}; the transaction was rolled back and nothing of it was stored") from error
    if "onflict" in text and isinstance(error, duckdb.TransactionException):
        raise ConstraintViolated(f"{text}; another transaction was first, nothing of this one was stored") from error
    full = isinstance(error, duckdb.OutOfMemoryException) or "No space left" in text
    if "has been invalidated" in text:
        first = text.split("Original error:")[-1].strip(' "')
        kind = StoreFull if full else StoreError
        raise kind(
            f"an earlier failure stopped the store: {first}. {'Make room, then close' if full else 'Close'} it and "
            "open it again; acknowledged appends are kept"
        ) from error
    if full:
        raise StoreFull(
            f"{text}. This was not acknowledged; make room, then open the store again: what was acknowledged is kept"
        ) from error
    # Damage to a block comes as a bare duckdb.Error, all else that breaks a store as one of _BROKEN.
    if (type(error) is duckdb.Error or isinstance(error, _BROKEN)) and _DAMAGE.search(text):
        raise StoreCorrupt(
            f"the files of the store are damaged: {text}. Work on a copy of them, or restore a backup"
        ) from error
    if isinstance(error, _BROKEN) and "No files found" not in text:
        raise StoreError(f"{text}. Close the store and open it again; acknowledged appends are kept") from error
    raise QueryFailed(f"{text}\nIn: {' '.join(sql.split())[:500]}") from error


_BROKEN = (duckdb.FatalException, duckdb.InternalException, duckdb.IOException, duckdb.SerializationException)
