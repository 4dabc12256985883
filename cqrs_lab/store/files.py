"""The files of a store, before DuckDB opens them.

Owns the refusal of files that DuckDB would take for empty, or would overwrite.
"""

from __future__ import annotations

import os
from pathlib import Path

from cqrs_lab.errors import NotAStore, StoreCorrupt, StoreMissing
from cqrs_lab.store import wal

_MAGIC_AT, _MAGIC = 8, b"DUCK"  # every DuckDB file carries these bytes after the header's checksum


def remove(file: Path) -> None:
    """Remove a file and its logs, where they are there."""
    for left in (file, *wal.logs_of(file)):
        left.unlink(missing_ok=True)


def real_path(path: str | os.PathLike[str]) -> str:
    """Return the path of a file, links followed."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError) as error:
        raise StoreMissing(f"{str(path)!r} cannot be the path of a file: {error}") from error


def damaged(what: str, reason: str) -> str:
    """Return what is said of files that are damaged."""
    return (
        f"{what} cannot be opened: {reason}. The files were left as they are. Work on a copy of them, "
        "or restore a backup"
    )


def check_files(file: Path, read_only: bool) -> None:
    """Refuse files that DuckDB would take for empty, or would overwrite."""
    log = wal.logs_of(file)[0]
    if file.is_dir():
        raise NotAStore(f"{file} is a folder; give the path of a file, such as {file / 'shop.duckdb'}")
    if not file.exists():
        for log in wal.logs_of(file):
            if log.exists():
                raise StoreCorrupt(
                    f"{file} is missing while its log {log.name} is there; opening would throw away what the log "
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
    damage = wal.damage(file)
    if damage is not None:
        raise StoreCorrupt(damaged(str(file), damage))
