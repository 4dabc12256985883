"""Reading sealed files: the SELECTs by which DuckDB reads them.

Owns these SELECTs. `stored` is the schema of events as they were stored, `lifted` of events as they were declared when
they were sealed; a read model reads those.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cqrs_lab.scale.folders import Folder, fetched
from cqrs_lab.scale.manifest import Manifest, SealedCategory, SealedFile
from cqrs_lab.sql.names import literal, quote
from cqrs_lab.store.database import Database
from cqrs_lab.store.digests import Digest, digest_of, version

Files = tuple[Sequence[SealedFile], Sequence[SealedFile]]
"""Files of events, and of what is personal in them."""


def stored_view(folder: Folder, category: SealedCategory, files: Files, into: Path) -> tuple[str, str]:
    """Return the SELECT of the events in some files, and the one of what is personal in them, "" without any.

    Args:
        into: a local folder for copies of files that are elsewhere.

    Raises:
        SealDamaged: a file is missing, or not as it was written.
    """
    events, personal = ([fetched(folder, f.name, f.bytes, f.sha256, into) for f in some] for some in files)
    beside = {"position": "BIGINT", **category.personal}
    return _rows(category.columns, events), _rows(beside, personal) if category.personal else ""


def _rows(columns: Mapping[str, str], paths: Iterable[str]) -> str:
    listed = ", ".join(map(literal, paths))
    if not listed:
        nothing = ", ".join(f"CAST(NULL AS {kind}) AS {quote(name)}" for name, kind in columns.items())
        return f"SELECT {nothing} WHERE false"
    names = ", ".join(map(quote, columns))
    return f"SELECT {names} FROM read_parquet([{listed}], hive_partitioning = false)"


def show_events(database: Database, name: str, category: SealedCategory, stored: tuple[str, str]) -> None:
    """Make the views by which read models read the events of a category.

    Args:
        name: of the category.
        stored: as of `stored_view`.
    """
    events, personal = stored
    table = quote(f"{name}_events")
    whole = f"{events}" if not personal else f"SELECT * FROM ({events}) LEFT JOIN ({personal}) USING (position)"
    for schema, select in (("stored", whole), ("lifted", category.lifted)):
        database.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        database.execute(f"CREATE VIEW {schema}.{table} AS {select}")


@contextmanager
def described(manifest: Manifest) -> Iterator[Database]:
    """Have a database with the tables of a sealed log, and no events in them: it tells columns and types."""
    database = Database.open(threads=1)
    try:
        for name, category in manifest.categories.items():
            show_events(database, name, category, stored_view(Folder("."), category, ((), ()), Path()))
        yield database
    finally:
        database.release()


def read_events(table: str) -> str:
    """Return the SELECT of a table of events, by its name."""
    return f"SELECT * FROM lifted.{quote(table)}"


def refreshed(database: Database, folder: Folder, manifest: Manifest) -> Manifest:
    """Return a manifest with digests by the version of DuckDB that is used now, out of its files."""
    return manifest if manifest.duckdb == version(database) else _recounted(database, folder, manifest)


def _recounted(database: Database, folder: Folder, manifest: Manifest) -> Manifest:
    """Return a manifest with its digests made again, out of its files.

    Raises:
        SealDamaged: a file is not as it was written.
    """
    categories = {}
    with tempfile.TemporaryDirectory(prefix="cqrs_lab-") as into:
        for name, one in manifest.categories.items():
            events, personal = stored_view(folder, one, (one.files, one.personal_files), Path(into))
            categories[name] = replace(
                one,
                digest=digest_of(database, events, one.columns),
                personal_digest=digest_of(database, personal, ["position", *one.personal]) if personal else Digest(),
            )
    return replace(manifest, categories=categories, duckdb=version(database))
