"""Replayed rows: what a replay gives.

Owns the files of the rows, and the shapes in which they are handed out. The rows stay in files until somebody asks.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import polars
import pyarrow as pa

from cqrs_lab.errors import StoreError
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.scale.folders import Folder
from cqrs_lab.scale.manifest import Manifest
from cqrs_lab.scale.reading import refreshed
from cqrs_lab.scale.spreading import Kind
from cqrs_lab.scale.working import Pieces, attach, bounded, detach, shown, twice_in
from cqrs_lab.sql.names import literal, quote
from cqrs_lab.store.database import Database
from cqrs_lab.store.rows import Rows

_MEMORY = "2GB"


class Replayed:
    """The rows of a read model, replayed from a sealed log.

    Attributes:
        model: the read model.
        columns: its columns -> their types.
        spread: how the work was spread: "by stream", "merged", "shuffled" or "whole".
        reason: why.
        position: the last position that the rows tell.
        fingerprint: what tells the read model, with its layers and upcasts, from another one.
        manifest: of the sealed log.
        categories: those that the rows are made of.
        count: how many rows there are.
        seconds: what the replay took.
        tasks: how many tasks it had.
    """

    def __init__(
        self,
        model: ReadModel,
        columns: Mapping[str, str],
        stored: Mapping[str, str],
        spread: Kind,
        reason: str,
        fingerprint: str,
        sealed: Folder,
        manifest: Manifest,
        categories: frozenset[str],
        scratch: Folder,
        files: tuple[str, ...],
        count: int,
        seconds: float,
        tasks: int,
    ) -> None:
        self.model, self.columns, self.spread, self.reason = model, dict(columns), spread, reason
        self.position, self.fingerprint = manifest.position, fingerprint
        self.manifest, self.categories = manifest, categories
        self.count, self.seconds, self.tasks = count, seconds, tasks
        self.stored = dict(stored)
        self._sealed, self._scratch, self._files = sealed, scratch, files
        self._release = weakref.finalize(self, scratch.clear)

    def __repr__(self) -> str:
        return (
            f"<{self.count:,} rows of {self.model.name}, replayed up to position {self.position:,} in {self.tasks} "
            f"tasks, {self.spread}: {self.reason}>"
        )

    def __len__(self) -> int:
        return self.count

    def described(self, database: Database) -> Manifest:
        """Return the manifest, with digests by a database's version of DuckDB: out of the files, when it is another."""
        return refreshed(database, self._sealed, self.manifest)

    def arrow(self) -> pa.Table:
        """Return the rows as an Arrow table, ordered by key; times are timestamps in UTC."""
        order = ", ".join(map(quote, self.model.keys))
        with self._open() as database:
            rows = Rows(_Source(database), f"SELECT * FROM piece.rows ORDER BY {order}")
            return rows.arrow()

    def pl(self) -> polars.DataFrame:
        """Return the rows as a Polars frame, ordered by key; money stays Decimal."""
        frame = polars.from_arrow(self.arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    def df(self) -> pd.DataFrame:
        """Return the rows as a pandas frame, ordered by key; money stays Decimal, in object columns."""
        frame: pd.DataFrame = self.arrow().to_pandas()
        return frame

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write the rows as Parquet, a file for each task that made some, without holding them in memory.

        Times are in UTC. Whole numbers above 64 bits are written as DECIMAL(38, 0), and durations as text: Parquet has
        no such types.

        Args:
            folder: a local folder, made when it is missing; files of an earlier call are replaced.

        Returns:
            The paths.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        lossy = {"HUGEINT": "DECIMAL(38, 0)", "UHUGEINT": "DECIMAL(38, 0)", "INTERVAL": "VARCHAR"}
        items = [
            f"CAST({quote(name)} AS {lossy[kind]}) AS {quote(name)}" if kind in lossy else quote(name)
            for name, kind in self.columns.items()
        ]
        paths = []
        for number, file in enumerate(self._files):
            path = target / f"{self.model.name}-{number:04}.parquet"
            with self._open((file,)) as database:
                select = f"SELECT {', '.join(items)} FROM piece.rows"
                database.execute(f"COPY ({select}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
            paths.append(path)
        return paths

    def twice(self) -> tuple[Any, ...] | None:
        """Return a key that two rows have, None when there is none."""
        with self._open() as database:
            return twice_in(database, "piece.rows", self.model.keys)

    @contextmanager
    def attached(self, database: Database) -> Iterator[str]:
        """Give another database the rows, for the block; yields the SELECT of them as they are stored."""
        prefix = f"_replayed_{uuid4().hex[:12]}_"
        with tempfile.TemporaryDirectory(prefix="cqrs_lab-") as local:
            try:
                attach(database, (self._scratch.fetch(f, Path(local)) for f in self._files), prefix)
                columns = ", ".join(map(quote, self.stored))
                parts = (f"SELECT {columns} FROM {prefix}{number}.rows" for number in range(len(self._files)))
                yield " UNION ALL ".join(parts)
            finally:
                detach(database, len(self._files), prefix)

    @contextmanager
    def _open(self, files: tuple[str, ...] | None = None) -> Iterator[Database]:
        names = self._files if files is None else files
        pieces = [Pieces("rows", tuple(self.columns), names)]
        try:
            with (
                bounded(self._scratch, _MEMORY, os.cpu_count() or 1) as (database, local),
                shown(database, self._scratch, pieces, local),
            ):
                yield database
        except FileNotFoundError as error:
            raise StoreError(
                f"the files of the replayed rows are gone from {self._scratch}; replay {self.model.name} again"
            ) from error


class _Source:
    def __init__(self, database: Database) -> None:
        self.database = database
