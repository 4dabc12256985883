"""Sealing: the log up to a position as files that never change, and the look whether they are as they were written.

Owns what is written, and when. Files come first and the manifest last, in one piece: whatever interrupts a seal, the
one before stays valid. Events never change, so that a seal adds files for what is new. Personal fields stand in files
of their own; where some were erased since, these files are written again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq

from cqrs_lab.errors import InvalidMoment, RowsRefused, SealDamaged, StoreError, StoreFull
from cqrs_lab.scale.folders import Folder, checksum, fetched
from cqrs_lab.scale.manifest import Manifest, SealedCategory, SealedFile, find, load, write
from cqrs_lab.scale.reading import refreshed
from cqrs_lab.sql.names import literal, quote
from cqrs_lab.store.categories import ENVELOPE
from cqrs_lab.store.database import Database
from cqrs_lab.store.digests import digest_of, digests, version
from cqrs_lab.store.log import Log

_MOST_PARTITIONS = 1024


class Logged(Protocol):
    """Who has a log, such as a lab."""

    _log: Log


def seal(lab: Logged, folder: str | os.PathLike[str], partitions: int = 32, to: int | None = None) -> Manifest:
    """Write the log up to a position as Parquet, or what is new since it was sealed into that folder before.

    There is one file for each category and partition of its streams, with all versions as they are stored; personal
    fields stand in files of their own. All events of a stream are in one partition.

    Args:
        lab: a lab with the log; it may go on appending.
        folder: a path, or an address that fsspec opens (extra `scale`).
        partitions: into how many the streams are divided, from 1 to 1024; as many tasks a replay has. A folder keeps
            the number of its first seal.
        to: the last position; the head when None.

    Returns:
        The manifest, which `replay` and `verify` take as well as the folder: `.position`, `.events`, `.bytes`,
        `.partitions`, `.files`, `.categories`.

    Raises:
        InvalidMoment: the position is not in the log, or before what is sealed.
        RowsRefused: the folder holds another log.
        SealDamaged, StoreFull, StoreError, ExtraMissing: what is sealed already stays as it is.
    """
    if not 1 <= partitions <= _MOST_PARTITIONS:
        raise StoreError(f"partitions={partitions} is not from 1 to {_MOST_PARTITIONS}")
    log = lab._log
    to = log.head if to is None else to
    place = Folder(folder)
    before = find(place)
    least = before.position if before else 0
    if not least <= to <= log.head:
        sealed = f"; {place} is sealed up to {least:,}" if least else ""
        raise InvalidMoment(f"position {to:,} cannot be sealed: the log has 1 to {log.head:,}{sealed}")
    with log.memory.building():  # nothing is erased meanwhile
        categories = described(log)
        if before is not None:
            before = refreshed(log.database, place, before)
            _check_same_log(log, place, before)
        sealing = Sealing(log.database, place, before, before.partitions if before else partitions)
        with sealing.writing():
            return sealing.seal(categories, to, lambda name, after: _selects(log, name, categories[name], after, to))


def _selects(log: Log, name: str, category: SealedCategory, after: int, to: int) -> tuple[str, str]:
    """The SELECTs of the events of a category between two positions, and of what is personal in them."""
    events, personal = quote(f"{name}_events"), quote(f"{name}_personal")
    where = f"position > {after} AND position <= {to}"
    columns = ", ".join(map(quote, category.columns))
    beside = ", ".join(["p.position", *(f"p.{quote(field)}" for field in category.personal)])
    whose = f"SELECT {beside}, e.stream_no FROM {personal} AS p JOIN {events} AS e USING (position)"
    return (
        f"SELECT {columns} FROM {events} WHERE {where}",
        f"SELECT * FROM ({whose}) WHERE {where}" if category.personal else "",
    )


def described(log: Log) -> dict[str, SealedCategory]:
    """Return what a manifest says of each category of a log, without its files."""
    keys: dict[str, str] = dict(log.database.execute("SELECT category, key FROM categories"))
    found = {}
    for name in log.heads.tables:
        table, declared = f"{name}_events", log.categories.get(name)
        columns = {one: kind.split()[0] for one, kind in ENVELOPE.items()} | log.heads.tables[name]
        stored = f"SELECT * FROM stored.{quote(table)}"
        upcasts = [event.upcasts for event in declared.types.values()] if declared else []
        lifts_key = any(keys[name] in fields for versions in upcasts for fields in versions.values())
        found[name] = SealedCategory(
            key=keys[name],
            columns=columns,
            personal=log.heads.personal.get(name, {}),
            versions=sorted([kind, number] for kind, number in log.heads.versions.get(name, ())),
            lifted=log.source(table, strict=False, stored=stored) or stored,
            shown=log.database.columns(log.source(table, strict=False) or f"FROM {quote(table)}"),
            is_key_stored=not lifts_key,
            meaning=log.meaning(table),
        )
    return found


def _check_same_log(log: Log, folder: Folder, before: Manifest) -> None:
    """Refuse to add to what another log holds.

    Raises:
        RowsRefused: the events that are sealed are not those of this log.
    """
    there = {name: one.columns for name, one in before.categories.items() if name in log.heads.tables}
    is_one = all(set(columns) <= {*ENVELOPE, *log.heads.tables[name]} for name, columns in there.items())
    if not is_one or digests(log, before.columns(), before.position) != before.digests:
        raise RowsRefused(
            f"{folder} holds another log: its events up to position {before.position:,} are not those of this one. "
            "Nothing was written; seal into a folder of its own"
        )


class Sealing:
    """One seal.

    Args:
        database: has the events.
        folder: where to.
        before: what is sealed there, None when nothing is.
        partitions: into how many streams are divided.
    """

    def __init__(self, database: Database, folder: Folder, before: Manifest | None, partitions: int) -> None:
        self._database, self._folder, self._before, self._partitions = database, folder, before, partitions
        self._number = before.seals + 1 if before else 1
        self._local = Path()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Have a place for files that are not finished; leave nothing of them behind."""
        beside = None
        if self._folder.is_local:
            beside = self._folder.place(".unfinished")
            shutil.rmtree(beside, ignore_errors=True)  # what a seal left that was killed
            try:
                os.makedirs(beside)
            except OSError as error:
                raise StoreError(f"{self._folder} cannot be written: {error.strerror or error}") from error
        self._local = Path(beside or tempfile.mkdtemp(prefix="cqrs_lab-seal-"))
        try:
            yield
        except StoreFull as error:
            raise StoreFull(
                f"there is no room left in {self._folder}, and nothing was sealed: {str(error).split('. This was')[0]}."
                " What was sealed before is as it was; make room and seal again"
            ) from error
        finally:
            shutil.rmtree(self._local, ignore_errors=True)

    def seal(
        self, categories: dict[str, SealedCategory], to: int, selects: Callable[[str, int], tuple[str, str]]
    ) -> Manifest:
        """Write what is new, and then the manifest.

        Args:
            categories: what there is, without files.
            to: the last position.
            selects: name of a category, a position -> the SELECT of its events behind that, and that of what is
                personal in them, with their stream_no.
        """
        sealed = {name: self._one(name, one, partial(selects, name)) for name, one in categories.items()}
        by, place = version(self._database), self._folder.address
        manifest = Manifest(to, self._partitions, by, self._number, sealed, folder=place)
        write(self._folder, manifest)
        for name, one in manifest.categories.items():  # files of a seal that was interrupted, or with erased values
            kept = {file.name for file in (*one.files, *one.personal_files)}
            for below in (f"{name}_events", f"{name}_personal"):
                for file in self._folder.names(below):
                    if file.endswith(".parquet") and file not in kept:
                        self._folder.remove(file)
        return manifest

    def _one(self, name: str, now: SealedCategory, selects: Callable[[int], tuple[str, str]]) -> SealedCategory:
        before = self._before.categories.get(name) if self._before else None
        start = self._before.position if self._before else 0
        if before is None or before.columns != now.columns:  # a new field: defaults may have been filled in
            before, start = SealedCategory(**{**vars(now), "files": [], "personal_files": []}), 0
        events, personal = selects(start)
        files = [*before.files, *self._files(f"{name}_events", events, now.columns)]
        made = replace(now, files=files, digest=before.digest + digest_of(self._database, events, now.columns))
        if not personal:
            return made
        beside = ["position", *now.personal]
        whole = digest_of(self._database, selects(0)[1], beside)
        new = digest_of(self._database, personal, beside)
        kept = before.personal_files
        if before.personal != now.personal or whole != before.personal_digest + new:
            kept, personal = [], selects(0)[1]  # something was erased since, or there is a new field
        files = [*kept, *self._files(f"{name}_personal", personal, beside)]
        return replace(made, personal_files=files, personal_digest=whole)

    def _files(self, below: str, select: str, columns: Iterable[str]) -> list[SealedFile]:
        """Write the rows of a SELECT, a file for each partition that has some."""
        names = ", ".join(map(quote, columns))
        part = f"((stream_no::BIGINT * 2654435761) % 4294967296 * {self._partitions}) >> 32"  # D. Knuth, TAOCP 6.4
        target = self._local / below
        self._database.execute(
            f"COPY (SELECT {names}, {part} AS _part FROM ({select}\n)) TO {literal(str(target))} "
            "(FORMAT parquet, PARTITION_BY (_part), COMPRESSION zstd, FILENAME_PATTERN 'f{i}')"
        )
        found = []
        for folder in sorted(target.glob("_part=*"), key=lambda one: int(one.name.split("=")[1])):
            number = int(folder.name.split("=")[1])
            for count, file in enumerate(sorted(folder.iterdir())):
                name = f"{below}/s{self._number:04}-p{number:04}{f'-{count}' if count else ''}.parquet"
                rows, size, digest = pq.read_metadata(file).num_rows, file.stat().st_size, checksum(file)
                self._folder.put(file, name)
                found.append(SealedFile(name, number, rows, size, digest))
        return found


def verify(folder: str | os.PathLike[str] | Manifest) -> list[str]:
    """Return what is damaged in a sealed log, a sentence for each file; nothing when all is as it was written.

    Every byte is read.

    Raises:
        StoreMissing: the folder holds no sealed log.
        SealDamaged, StoreFormatError: the manifest itself cannot be read.
    """
    place, manifest = load(folder)
    damage = []
    for file in manifest.files:
        with tempfile.TemporaryDirectory(prefix="cqrs_lab-") as into:
            try:
                fetched(place, file.name, file.bytes, file.sha256, Path(into))
            except SealDamaged as error:
                damage.append(str(error))
    return damage
