"""Adopting: rows that were made elsewhere, from a copy of this log, taken over as those of a projection.

Owns what has to be true of them: the same read model, over the same events, of which none was erased or set aside
since. How they were made is none of its business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from cqrs_lab.errors import NotServed, RowsRefused
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.read.catalog import Catalog
from cqrs_lab.read.differences import columns_of
from cqrs_lab.read.stored import Stored
from cqrs_lab.sql.names import quote
from cqrs_lab.store.database import Database
from cqrs_lab.store.digests import Digest, digests, version
from cqrs_lab.store.log import Log


class Described(Protocol):
    """What is said of the log that rows were made from."""

    @property
    def duckdb(self) -> str:
        """The version of DuckDB that made the digests."""

    @property
    def digests(self) -> Mapping[str, Digest]:
        """Category -> the digest of its events."""

    @property
    def personal_digests(self) -> Mapping[str, Digest]:
        """Category -> the digest of what is personal in its events."""

    def columns(self, *, personal: bool = False) -> dict[str, list[str]]:
        """Return, for each category, the columns that its digest counts."""


class Replayed(Protocol):
    """Rows that were made elsewhere, such as by `cqrs_lab.scale.replay`."""

    @property
    def model(self) -> Any:
        """The read model."""

    @property
    def fingerprint(self) -> str:
        """What tells it, with its layers and upcasts, from another one."""

    @property
    def position(self) -> int:
        """The last position that the rows tell."""

    @property
    def categories(self) -> Collection[str]:
        """The categories whose events they are made of."""

    def described(self, database: Database) -> Described:
        """Return what is said of the log, with digests by a database's version of DuckDB."""

    def attached(self, database: Database) -> AbstractContextManager[str]:
        """Give a database the rows, for a block; yields the SELECT of them as they are stored."""


def adopt(catalog: Catalog, stored: Stored, rows: Replayed) -> int:
    """Take rows over as those of a projection, and return the position that it is at.

    Raises:
        NotServed: what is served is no projection of a SELECT.
        RowsRefused: they are not the rows of this read model over this log; the old ones stay.
    """
    model, log, database = stored.model, catalog.log, catalog.log.database
    if stored.as_ != "projection" or not isinstance(model, ReadModel):
        raise NotServed(
            f"{model.name} as {stored.as_} cannot adopt rows; only the projection of a SELECT does: "
            f"lab.serve({model.name}).adopt(rows)"
        )
    _check_model(catalog, model, rows)
    with log.memory.building():  # nothing is erased meanwhile
        _check_log(log, rows)
        with rows.attached(database) as select:
            there, wanted = columns_of(database, select), columns_of(database, stored.every(rows.position))
            if list(there.items()) != list(wanted.items()):
                raise RowsRefused(
                    f"the rows have other columns than {model.name} keeps here: {_told(there)} and not "
                    f"{_told(wanted)}. Replay it with this version of cqrs_lab and DuckDB"
                )
            return stored.take(select, rows.position)


def _check_model(catalog: Catalog, model: ReadModel, rows: Replayed) -> None:
    if rows.fingerprint != catalog.fingerprint(model):
        raise RowsRefused(
            f"the rows are those of another {model.name}: its SELECT, key, layers or upcasts have changed, or they "
            f"are those of {rows.model.name}. Replay {model.name} as it is declared now"
        )
    for name in sorted(catalog.below(model)):
        if any(position <= rows.position for position in catalog.dead.of(name)):
            raise RowsRefused(
                f"{name} has set events aside, and the rows are made of all events: retry or drop its dead letters, or "
                "call rebuild()"
            )


def _check_log(log: Log, rows: Replayed) -> None:
    """Refuse rows of another log, or with what was erased since."""
    if rows.position > log.head:
        raise RowsRefused(
            f"the rows tell a log up to position {rows.position:,}, and this one ends at {log.head:,}: they are those "
            "of another log"
        )
    said = rows.described(log.database)
    assert said.duckdb == version(log.database)
    columns = said.columns()
    strange = [name for name, digest in said.digests.items() if digest.rows and name not in log.heads.tables]
    new = [name for name in log.heads.tables if name not in columns and _has_events(log, name, rows.position)]
    known = {name: some for name, some in columns.items() if name in log.heads.tables}
    is_one = not strange and not new and all(
        {*some} <= {*log.database.columns(f"FROM {quote(f'{name}_events')}")} for name, some in known.items()
    )  # fmt: skip
    if not is_one or any(said.digests[name] != now for name, now in digests(log, known, rows.position).items()):
        raise RowsRefused(
            f"the rows were made from another log: its events up to position {rows.position:,} are not those of this "
            "one. Seal this log and replay it"
        )
    beside = {n: some for n, some in said.columns(personal=True).items() if n in rows.categories}
    now = digests(log, beside, rows.position, personal=True)
    if any(said.personal_digests[name] != now.get(name) for name in beside):
        raise RowsRefused(
            f"personal data were erased since the log was sealed, and {rows.model.name} may hold them. Seal the log "
            "again, which erases them there as well, and replay it"
        )


def _has_events(log: Log, name: str, to: int) -> bool:
    return log.has_events([f"{name}_events"], 0, to)


def _told(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())
