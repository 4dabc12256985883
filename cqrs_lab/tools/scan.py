"""The scan of a store: is it whole, and does everything in it fit together?

Owns the checks of a store, which is opened read-only and read to the last byte, by SQL over the tables that the store's
log, the event store and the servings describe. What a check found is the doctor's `Finding`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cqrs_lab.app import open_shop
from cqrs_lab.errors import DeclarationError, NotAStore, StoreCorrupt, StoreFormatError
from cqrs_lab.ivm.read_model import ReadModel, written_out
from cqrs_lab.sql.names import TABLES, quote
from cqrs_lab.store.categories import Category
from cqrs_lab.store.database import Database
from cqrs_lab.store.dead_letters import DeadLetters
from cqrs_lab.store.log import Log
from cqrs_lab.store.tables import FORMAT
from cqrs_lab.tools.doctor import RESTORE, VERSION, Failed, Finding, Findings, run, shop_models

_REBUILD = "Open the store and call rebuild() on what lab.serve() returns for it; the events are what counts"
_SHOWN = 3


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[Log]:
    """Open a store of any domain read-only and yield its log; what it shares with the shop is read as the shop does.

    Raises:
        StoreMissing, StoreLocked, StoreCorrupt, NotAStore, StoreFormatError.
    """
    database = Database.open(path, read_only=True)
    try:
        log = Log(database, [])
        with suppress(DeclarationError, StoreFormatError):  # a category of that name in another domain
            log = Log(database, [c for c in shop_categories() if c.name in log.heads.tables])
        yield log
    finally:
        database.release()


def scan(path: str | os.PathLike[str]) -> Findings:
    """Read a store whole and check that everything in it fits together.

    Raises:
        StoreMissing, StoreLocked, NotAStore: there is no store at that path, or it cannot be looked at now.
    """
    try:
        with reading(path) as log:
            return Findings([Finding("format", "OK", f"store format {FORMAT}"), *_Scan(log).findings()])
    except NotAStore:
        raise
    except (StoreCorrupt, StoreFormatError) as error:
        return Findings([Finding("format", "FAIL", str(error))])


def shop_categories() -> list[Category]:
    """Return the categories of events that the shop declares.

    Raises:
        DeclarationError: as `shop_models`.
    """
    shop_models()
    with open_shop() as lab:
        return list(lab._log.categories.values())


def damaged_blocks(file: Path) -> list[int] | None:
    """Return the numbers of the blocks that do not fit their checksum, None when the file's layout is another one.

    A DuckDB file is three headers of 4 KiB, then blocks; each begins with the checksum of what follows it.
    """
    bytes_ = np.memmap(file, dtype=np.uint8, mode="r")
    words = bytes_[: len(bytes_) // 8 * 8].view("<u8")
    headers = [np.array(words[at : at + 512]) for at in (0, 512, 1024)]
    intact = [header for header in headers[1:] if _checksum(header[1:]) == header[0]]
    if _checksum(headers[0][1:]) != headers[0][0] or not intact:
        return None
    current = max(intact, key=lambda header: int(header[1]))
    count, size = int(current[4]), int(current[5]) // 8
    there = min(count, (len(words) - 1536) // size)
    blocks = words[1536 : 1536 + there * size].reshape(there, size)
    damaged = [number for number, block in enumerate(blocks) if _checksum(block[1:]) != block[0]]
    return [*damaged, *range(there, count)]


def _checksum(words: npt.NDArray[np.uint64]) -> np.uint64:
    mixed: np.uint64 = np.bitwise_xor.reduce(words * np.uint64(0xBF58476D1CE4E5B9)) ^ np.uint64(5381)
    return mixed


class _Scan:
    """One look through one store."""

    def __init__(self, log: Log) -> None:
        self.log, self.database = log, log.database
        self.models: dict[str, ReadModel] = {}
        self.declared: dict[str, Category] = {}
        self.unjudged: Finding | None = None
        try:
            self.models = shop_models()
            self.declared = {category.name: category for category in shop_categories()}
        except DeclarationError as error:
            self.unjudged = Finding("shop", "FAIL", str(error), VERSION)

    def findings(self) -> Iterator[Finding]:
        """Yield what every check saw, what can be read first."""
        if self.unjudged:
            yield self.unjudged
        keys: dict[str, str] = dict(self.database.execute("SELECT category, key FROM categories ORDER BY category"))
        self.tables = {category: f"{category}_events" for category in keys}
        personal = [f"{category}_personal" for category in self.log.heads.personal]
        for table in [*TABLES, *self.tables.values(), *personal]:
            yield run(f"table {table}", lambda table=table: self._readable(table))  # type: ignore[misc]
        yield self._blocks()
        if not self.tables:
            yield Finding("events", "NOTE", "the store has no categories yet, so there is nothing more to check")
            return
        yield run("positions", self._positions)
        yield run("versions", self._versions)
        yield run("recorded_at", self._recorded)
        for category, key in keys.items():
            yield run(f"streams of {category}", lambda c=category, k=key: self._streams(c, k))  # type: ignore[misc]
            yield self._types(category)
        yield run("commands", self._commands)
        for row in self.database.execute("SELECT model, served_as, fingerprint, position FROM servings ORDER BY ALL"):
            yield self._serving(*row)

    def _readable(self, table: str) -> str:
        """Read every value of every column; DuckDB checks the checksum of each block on the way."""
        count, _ = self.database.execute(f"SELECT count(*), bit_xor(hash(whole)) FROM {quote(table)} AS whole")[0]
        return f"{count:,} rows, every column read"

    def _blocks(self) -> Finding:
        """Whether every block of the file fits its checksum; DuckDB looks at an index only when it uses it."""
        damaged = damaged_blocks(Path(self.database.path))
        if damaged is None:
            return Finding("file", "NOTE", "its layout is not known here, so its blocks were not checked")
        free = self.database.execute("SELECT free_blocks FROM pragma_database_size()")[0][0]
        if not damaged:
            return Finding("file", "OK", "every block fits its checksum")
        detail = f"damaged blocks: {_some(', '.join(map(str, damaged[:_SHOWN])), len(damaged))}"
        if len(damaged) > free:
            return Finding("file", "FAIL", detail, RESTORE)
        # A crash may leave half a block in room that is not in use.
        return Finding("file", "NOTE", f"{detail}; the file has {free:,} unused blocks, which may be these")

    def _positions(self) -> str:
        count, first, last = self.database.execute(f"SELECT count(*), min(position), max(position) {self._all()}")[0]
        if not count:
            return "the log is empty"
        jumps = self.database.execute(
            f"""SELECT before + 1, position - 1, position FROM
                    (SELECT position, lag(position, 1, 0) OVER (ORDER BY position) AS before {self._all()})
                WHERE position <> before + 1 ORDER BY position"""
        )
        missing = [f"{start} to {end}" if start < end else f"{start}" for start, end, _ in jumps if start <= end]
        twice = [f"{position}" for start, _, position in jumps if position < start]
        said = [f"positions are missing: {_some(', '.join(missing[:_SHOWN]), len(missing))}"] if missing else []
        said += [f"positions occur twice: {_some(', '.join(twice[:_SHOWN]), len(twice))}"] if twice else []
        if said:
            raise Failed(f"{count:,} events between {first:,} and {last:,}; {'; '.join(said)}")
        return f"1 to {last:,} without a hole"

    def _versions(self) -> str:
        wrong = self.database.execute(
            f"""SELECT coalesce(stream, 'number ' || stream_no), min(version) FROM
                    (SELECT stream_no, version,
                            row_number() OVER (PARTITION BY stream_no ORDER BY position) AS expected {self._all()})
                    LEFT JOIN streams USING (stream_no)
                WHERE version <> expected GROUP BY ALL ORDER BY 1"""
        )
        if wrong:
            shown = ", ".join(f"{stream} before version {version}" for stream, version in wrong[:_SHOWN])
            raise Failed(f"events are missing or out of order in {_some(shown, len(wrong), 'streams')}")
        return "every stream counts 1, 2, 3 in order of position"

    def _recorded(self) -> str:
        back = self.database.execute(
            f"""SELECT position FROM
                    (SELECT position, recorded_at, lag(recorded_at) OVER (ORDER BY position) AS before {self._all()})
                WHERE recorded_at < before ORDER BY position"""
        )
        if back:
            shown = ", ".join(str(position) for (position,) in back[:_SHOWN])
            raise Failed(f"recorded_at goes back at position {_some(shown, len(back))}")
        return "never decreases"

    def _streams(self, category: str, key: str) -> str:
        table = quote(self.tables[category])
        wrong = self.database.execute(
            f"""SELECT 'event ' || min(position) || ' has stream number ' || stream_no || ', which no stream has'
                FROM {table} ANTI JOIN streams USING (stream_no) GROUP BY stream_no
                UNION ALL
                SELECT 'event ' || min(position) || ' of ' || coalesce({quote(key)}, '(none)') || ' lies in ' || stream
                FROM {table} JOIN streams USING (stream_no)
                WHERE category <> ? OR id IS DISTINCT FROM {quote(key)} GROUP BY stream, {quote(key)}
                UNION ALL
                SELECT stream || ' has no events' FROM streams ANTI JOIN {table} USING (stream_no) WHERE category = ?
                UNION ALL
                SELECT 'stream number ' || stream_no || ' is given to ' || count(*) || ' streams'
                FROM streams GROUP BY stream_no HAVING count(*) > 1
                UNION ALL
                SELECT stream || ' is not called ' || category || '/' || id FROM streams
                WHERE stream <> category || '/' || id
                ORDER BY 1""",
            [category, category],
        )
        if wrong:
            raise Failed(_some("; ".join(text for (text,) in wrong[:_SHOWN]), len(wrong)))
        count = self.database.execute("SELECT count(*) FROM streams WHERE category = ?", [category])[0][0]
        return f"{count:,} streams, each with its events"

    def _types(self, category: str) -> Finding:
        """Whether this version of the package can read the events as objects."""
        name = f"events of {category}"
        declared = self.declared.get(category)
        if declared is None:
            return Finding(name, "NOTE", "not a category of the shop, so its types were not compared with classes")

        def check() -> str:
            table = quote(declared.table)
            types = self.database.execute(f"SELECT type, max(schema_version) FROM {table} GROUP BY type ORDER BY type")
            unknown = [
                f"{kind} v{version}"
                for kind, version in types
                if kind not in declared.types or version > declared.types[kind].schema_version
            ]
            if unknown:
                raise Failed(
                    f"{', '.join(unknown)} is not declared by this version",
                    "Open the store with the version of cqrs_lab, or the domain, that wrote it",
                )
            return ", ".join(kind for kind, _ in types) or "none yet"

        return run(name, check)

    def _commands(self) -> str:
        wrong = self.database.execute(
            f"""SELECT command_id FROM commands
                    LEFT JOIN (SELECT position, command_id AS first_id {self._all()}) ON position = first_position
                    LEFT JOIN (SELECT position AS p, command_id AS last_id {self._all()}) ON p = last_position
                WHERE first_position <= last_position
                  AND (first_id IS DISTINCT FROM command_id OR last_id IS DISTINCT FROM command_id) ORDER BY 1"""
        )
        if wrong:
            shown = ", ".join(command for (command,) in wrong[:_SHOWN])
            raise Failed(f"the events of these commands are not where they were stored: {_some(shown, len(wrong))}")
        count = self.database.execute("SELECT count(*) FROM commands")[0][0]
        return f"{count:,}, each with its events"

    def _serving(self, name: str, served_as: str, fingerprint: str, position: int) -> Finding:
        check = f"{name} as {served_as}"
        if served_as == "saga":
            return Finding(check, "OK", f"has seen the log up to position {position:,}")
        model = self.models.get(name.lower())
        if model is None:
            return Finding(check, "NOTE", "not a read model of the shop, so its rows were not compared")

        def compare() -> str:
            head = self.database.execute(f"SELECT coalesce(max(position), 0) {self._all()}")[0][0]
            if position > head:
                raise Failed(f"it claims position {position:,}, but the log ends at {head:,}", _REBUILD)
            if fingerprint != model.fingerprint(self.models, self.log.meaning):
                raise Failed("its rows come from another SELECT than the one declared now", _REBUILD)
            # A kept history tells every position; the last one and one on the way are looked at.
            places = {"view": (head,), "history": (position // 2, position)}.get(served_as, (position,))
            for upto in places:
                self._compare(model, served_as, upto)
            return f"equal to its SELECT at position {' and '.join(f'{upto:,}' for upto in places)} of {head:,}"

        return run(check, compare, _REBUILD)

    def _compare(self, model: ReadModel, served_as: str, upto: int) -> None:
        """Fail stored rows that are not those of the SELECT at a position."""
        dead = DeadLetters(self.log)

        def read(layer: ReadModel, table: str) -> str:
            aside = dead.without(layer.name) if served_as == "projection" else ""
            return f"{self.log.window(table, to=upto)}{aside}"

        text = written_out(model, self.models, read)
        columns = ", ".join(map(quote, self.database.columns(text)))
        then = f" WHERE _from <= {upto} AND _to > {upto}" if served_as == "history" else ""
        stored = f"SELECT {columns} FROM {quote(served_as)}.{quote(model.name)}{then}"
        wanted = f"SELECT {columns} FROM ({text}\n)"
        lacks, extra = (
            self.database.execute(f"SELECT count(*) FROM (({a}) EXCEPT ALL ({b}))")[0][0]
            for a, b in ((wanted, stored), (stored, wanted))
        )
        if lacks or extra:
            raise Failed(
                f"at position {upto:,} it lacks {lacks:,} rows that the events give, and has {extra:,} that they do "
                "not",
                _REBUILD,
            )

    def _all(self) -> str:
        """FROM clause over the envelopes of all categories."""
        envelope = "position, stream_no, version, command_id, recorded_at"
        parts = (f"SELECT {envelope} FROM {quote(table)}" for table in self.tables.values())
        return f"FROM ({' UNION ALL '.join(parts)})"


def _some(shown: str, count: int, what: str = "places") -> str:
    return shown if count <= _SHOWN else f"{shown}, ... ({count:,} {what})"
