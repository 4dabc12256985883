"""Working: what one task does, on whatever machine.

Owns the task: sealed files and files of rows in, files of rows out, by plain DuckDB within bounds of memory. Rows
travel in files of DuckDB, which have every type that a SELECT can give; Parquet has no HUGEINT, and no INTERVAL to the
microsecond. A task can run twice, and leaves a file under its own name only once that is whole.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from cqrs_lab.errors import CqrsLabError
from cqrs_lab.scale.folders import Folder, is_full
from cqrs_lab.scale.manifest import SealedCategory
from cqrs_lab.scale.reading import Files, show_events, stored_view
from cqrs_lab.sql.names import literal, quote
from cqrs_lab.store.database import Database
from cqrs_lab.store.digests import version


@dataclass(frozen=True)
class Pieces:
    """Rows in files, read as one relation, `piece."name"`.

    Attributes:
        name: of the relation.
        columns: those to read.
        files: names in the scratch folder.
        table: in each of them.
        where: a condition, "" for all rows.
    """

    name: str
    columns: tuple[str, ...]
    files: tuple[str, ...]
    table: str = "rows"
    where: str = ""


@dataclass(frozen=True)
class Task:
    """What one task reads and writes.

    Attributes:
        sealed: address of the sealed log.
        scratch: address of the folder of rows.
        events: category -> what it is, and the files of it to read.
        pieces: rows of other tasks.
        outs: table -> the SELECT of its rows.
        memory: DuckDB's limit, such as "1GB".
        keys: columns that tell the rows of the table `rows` apart; none when that is sure, or looked at later.
        threads: DuckDB's.
    """

    sealed: str
    scratch: str
    events: tuple[tuple[str, SealedCategory, Files], ...]
    pieces: tuple[Pieces, ...]
    outs: tuple[tuple[str, str], ...]
    memory: str
    keys: tuple[str, ...] = ()
    threads: int = 1


@dataclass(frozen=True)
class Done:
    """What a task has done.

    Attributes:
        file: its name in the scratch folder.
        rows: table -> how many rows it has.
        bytes: of the file.
        seconds: that it took.
        duckdb: the version of DuckDB.
        twice: a key that two rows have, None when there is none.
    """

    file: str
    rows: dict[str, int]
    bytes: int
    seconds: float
    duckdb: str
    twice: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Failed:
    """Why a task has failed, as a value: what is wrong with a file or a SELECT is not made right by another try."""

    kind: str
    reason: str


def work(task: Task) -> Done | Failed:
    """Do a task."""
    try:
        return _work(task)
    except CqrsLabError as error:
        return Failed(type(error).__name__, str(error))
    except OSError as error:
        if is_full(error):
            return Failed("StoreFull", f"there is no room left in {task.scratch}; make room and ask again")
        return Failed("ReplayFailed", f"{error}. Every worker has to reach {task.scratch}; name another scratch=")


def _work(task: Task) -> Done:
    began = time.perf_counter()
    sealed, scratch = Folder(task.sealed), Folder(task.scratch)
    with bounded(scratch, task.memory, task.threads) as (database, local):
        for name, category, files in task.events:
            show_events(database, name, category, stored_view(sealed, category, files, local))
        with shown(database, scratch, task.pieces, local):
            name = f"{uuid4().hex}.duckdb"
            part = local / name
            database.execute(f"ATTACH {literal(str(part))} AS _out")
            try:
                rows = {
                    table: int(database.execute(f"CREATE TABLE _out.{quote(table)} AS {select}")[0][0])
                    for table, select in task.outs
                }
                twice = twice_in(database, "_out.rows", task.keys) if task.keys else None
                database.execute("CHECKPOINT _out")
            finally:
                database.execute("DETACH _out")
        size, by = part.stat().st_size, version(database)
        scratch.put(part, name)
    return Done(name, rows, size, time.perf_counter() - began, by, twice)


def twice_in(database: Database, rows: str, keys: Iterable[str]) -> tuple[Any, ...] | None:
    """Return a key that two rows of a table have, None when there is none."""
    names = ", ".join(map(quote, keys))
    found = database.execute(f"SELECT {names} FROM {rows} GROUP BY {names} HAVING count(*) > 1 LIMIT 1")
    return found[0] if found else None


@contextmanager
def bounded(scratch: Folder, memory: str, threads: int) -> Iterator[tuple[Database, Path]]:
    """Have a database in memory that takes no more of it than told, and a local folder; both are gone afterwards."""
    local = Path(tempfile.mkdtemp(prefix=".work-", dir=scratch.place("") if scratch.is_local else None))
    database = Database.open(threads=threads)
    try:
        database.execute(f"SET GLOBAL memory_limit = {literal(memory)}")
        database.execute(f"SET GLOBAL temp_directory = {literal(str(local / 'spilled'))}")
        # In the order of the rows everything between them would have to be kept.
        database.execute("SET GLOBAL preserve_insertion_order = false")
        yield database, local
    finally:
        database.release()
        shutil.rmtree(local, ignore_errors=True)


@contextmanager
def shown(database: Database, scratch: Folder, pieces: Sequence[Pieces], local: Path) -> Iterator[None]:
    """Make the relations of rows in files, for the block."""
    database.execute("CREATE SCHEMA IF NOT EXISTS piece")
    names = list(dict.fromkeys(file for one in pieces for file in one.files))
    try:
        attach(database, (scratch.fetch(name, local) for name in names), "_in")
        for one in pieces:
            where = f" WHERE {one.where}" if one.where else ""
            columns = ", ".join(map(quote, one.columns))
            parts = (f"SELECT {columns} FROM _in{names.index(f)}.{quote(one.table)}{where}" for f in one.files)
            database.execute(f"CREATE VIEW piece.{quote(one.name)} AS {' UNION ALL '.join(parts)}")
        yield
    finally:
        for one in pieces:
            database.execute(f"DROP VIEW IF EXISTS piece.{quote(one.name)}")
        detach(database, len(names), "_in")


def attach(database: Database, paths: Iterable[str], prefix: str) -> None:
    """Attach files to read them, each under the prefix and its number."""
    for number, path in enumerate(paths):
        database.execute(f"ATTACH {literal(path)} AS {prefix}{number} (READ_ONLY)")


def detach(database: Database, count: int, prefix: str) -> None:
    """Detach files again."""
    for number in range(count):
        database.execute(f"DETACH DATABASE IF EXISTS {prefix}{number}")


Describe = Callable[[str], dict[str, str]]
"""A SELECT over `lifted` -> its columns with their types."""
