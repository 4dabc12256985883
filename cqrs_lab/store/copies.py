"""Copies of a store, made while it is open and in use.

Owns the way to a copy that is whole or not there.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from cqrs_lab.errors import StoreError, StoreMissing
from cqrs_lab.sql.names import literal, quote
from cqrs_lab.store.database import Database
from cqrs_lab.store.files import real_path, remove


def copy_to(database: Database, path: str | os.PathLike[str]) -> None:
    """Write a copy of the database, as it is at one moment, to a new file.

    Raises:
        StoreError: there is something at that path already, or it cannot be written; nothing is left behind.
    """
    target = Path(real_path(path))
    if target.exists():
        raise StoreError(f"{target} is there already; a copy goes to a new file")
    if not target.parent.is_dir():
        raise StoreMissing(f"the folder {target.parent} does not exist; make it first")
    with database.lock(f"copy to {target}"):
        # Under another name until it is whole, so that a copy under its own name can be relied on.
        part = target.with_name(f".{target.name}.unfinished-copy")
        try:
            _copy(database, part)
            part.replace(target)
        finally:
            remove(part)


def _copy(database: Database, part: Path) -> None:
    remove(part)  # what a copy left that was killed
    name = f"copy_{threading.get_ident()}"
    database.execute(f"ATTACH {literal(str(part))} AS {quote(name)} (READ_WRITE)")  # also where the store is read-only
    try:
        database.execute(f"COPY FROM DATABASE {quote(database.catalog)} TO {quote(name)}")
        database.execute(f"CHECKPOINT {quote(name)}")
    finally:
        database.execute(f"DETACH {quote(name)}")
