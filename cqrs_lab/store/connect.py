"""A connection: how DuckDB is opened, so that a SELECT means the same everywhere.

Owns the settings that are pinned, and what an error at the opening says of the files.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from cqrs_lab.errors import StoreCorrupt, StoreError, StoreFull, StoreInUse, StoreLocked
from cqrs_lab.sql.names import literal
from cqrs_lab.store.driver_errors import error_text, ours
from cqrs_lab.store.files import check_files, damaged

MEMORY = ":memory:"
# Settings that change what a SELECT means. They are set whenever a store is opened, whatever the machine or a program
# beside us says, so that days, orders and quotients do not depend on where the reader sits. 5 ms together.
PINNED = {
    "TimeZone": "UTC",
    "Calendar": "gregorian",
    "default_collation": "",
    "default_null_order": "NULLS_LAST",
    "default_order": "ASC",
    "disable_timestamptz_casts": "false",
    "dialect_compatibility_mode": "NONE",
    "ieee_floating_point_ops": "true",
    "integer_division": "false",
    "order_by_non_integer_literal": "false",
    "preserve_identifier_case": "preserve_case",
    "preserve_insertion_order": "true",
    "scalar_subquery_error_on_multiple_rows": "true",
}
# How far the write-ahead log grows before a commit folds it into the file, which holds up every other commit: with
# DuckDB's 16 MB each rebuild of 100,000 rows did so, and an append beside it waited 0.2 s. A log of 220 MB is read
# again in 0.9 s after a crash.
_LOG_MB = 256
# How many keys a join looks up in the index of its larger side, one by one, before it looks at all rows there: of a
# million, 960 are found in 5 ms, where keys are unpacked, and in 14 when all are looked at, as DuckDB does from 50 on.
# Joins without an index take as long, whatever this says.
SOUGHT = 1_024


def connect(path: str, read_only: bool, threads: int) -> duckdb.DuckDBPyConnection:
    """Open a file, once it was looked at, with every setting pinned that changes what a SELECT means."""
    if path != MEMORY:
        try:
            check_files(Path(path), read_only)
        except OSError as error:
            raise StoreError(f"{path} cannot be opened: {error.strerror or error}") from error
    root = None
    try:
        root = duckdb.connect(path, read_only=read_only, config={"threads": threads})
        for setting, value in PINNED.items():
            root.execute(f"SET GLOBAL {setting} = {literal(value)}").fetchall()
        root.execute(f"SET GLOBAL checkpoint_threshold = '{_LOG_MB}MB'").fetchall()
        root.execute(f"SET GLOBAL dynamic_or_filter_threshold = {SOUGHT}").fetchall()
        # Closing would change the bytes of a file that was only looked at, and that may be somebody else's.
        root.execute("PRAGMA disable_checkpoint_on_shutdown").fetchall()
        return root
    except BaseException as error:
        if root is not None:
            root.close()
        told, cause = ours(error, f"open {path}")
        # Whatever else goes wrong in here comes from the bytes of the files, in whatever class of error.
        if isinstance(told, (StoreLocked, StoreFull, StoreInUse)) or not isinstance(told, Exception):
            raise told from cause
        if "Permission denied" in str(told) or "Read-only file system" in str(told):
            raise StoreError(
                f"{path} cannot be opened: this user may not {'read' if read_only else 'write'} it"
            ) from told
        raise StoreCorrupt(damaged(path, error_text(cause or told))) from told
