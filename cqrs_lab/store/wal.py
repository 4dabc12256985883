"""DuckDB's write-ahead log, looked at before DuckDB opens it.

Owns one question: would DuckDB drop acknowledged transactions from this log without a word? It reads bytes, writes
none, and knows nothing of events or SQL.

DuckDB keeps what was committed since its last checkpoint in `<file>.wal`: a header, then entries of (size, checksum,
payload), where a transaction ends with a commit mark. A wrong checksum it reports. But a header that does not parse,
or an entry that is longer than the file, it takes for what a crash left of the last write: it drops the rest and says
nothing (measured on 2.0.0). After a crash no commit mark can stand behind such a place, because nothing follows the
last write; so a commit mark there means that the log is damaged.

What no reader of the bytes can know: a log that was cut off exactly between two transactions, emptied, or deleted looks
like one to which the later transactions were never written.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

_HEADER_SIZE = 4096  # the main header, then two copies of the database header; the higher iteration counts
_VERSION, _IDENTIFIER, _ITERATION = slice(12, 20), slice(124, 140), slice(8, 16)
_IDENTIFIED_SINCE = 67  # storage versions from here on name their database in the header of the log
_ENTRY_HEADER = 16
# How every transaction ends: the checksum and the payload of an entry that says no more than "commit".
_COMMIT = bytes.fromhex("e7fe7d722fed3d5e 640064ffff")


def logs_of(database: Path) -> tuple[Path, Path]:
    """Return the paths of a database's log and of the one that takes its place while DuckDB makes a checkpoint."""
    return database.with_name(f"{database.name}.wal"), database.with_name(f"{database.name}.wal.checkpoint")


def damage(database: Path) -> str | None:
    """Return why the logs of a database file cannot be trusted, None when nothing speaks against them.

    When another process is writing the files meanwhile, nothing is said: DuckDB will find them locked.
    """
    before = _fingerprint(database)
    found = _damage(database)
    return found if found is None or _fingerprint(database) == before else None


def _damage(database: Path) -> str | None:
    headers = _headers(database)
    main, beside = logs_of(database)
    if _size(beside) and not main.exists():
        return f"{main.name} is missing while {beside.name}, which continues it, is there"
    for log in (main, beside):
        if _size(log):
            with log.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                reason = _reason(data, headers)
            if reason is not None:
                return f"{log.name} {reason}"
    return None


def _reason(data: mmap.mmap, headers: list[bytes]) -> str | None:
    start = 0
    if headers:
        header = next((h for h in headers if data[: len(h)] == h[: len(data)]), None)
        if header is None:
            return "does not begin as a log of this database does: one of the two is damaged, or from another store"
        start = len(header)
    else:  # an older storage version, whose log names nothing
        start = data[:64].find(b"\xff\xff") + 2
        if start < 2:
            return None
    end = len(data)
    while start + _ENTRY_HEADER <= end:
        size = int.from_bytes(data[start : start + 8], "little")
        if not 0 < size <= end - start - _ENTRY_HEADER:
            if data.find(_COMMIT, start + 8) >= 0:
                return f"is damaged at byte {start}, and committed transactions stand behind that place"
            return None
        start += _ENTRY_HEADER + size
    return None


def _headers(database: Path) -> list[bytes]:
    """The bytes with which a log of this database begins; none when the file is too old, or too short, to tell."""
    with database.open("rb") as stream:
        blocks = [stream.read(_HEADER_SIZE) for _ in range(3)]
    version = int.from_bytes(blocks[0][_VERSION], "little")
    if len(blocks[2]) < _HEADER_SIZE or version < _IDENTIFIED_SINCE:
        return []
    iteration = max(int.from_bytes(block[_ITERATION], "little") for block in blocks[1:])
    identifier = b"".join(_varint(byte) for byte in blocks[0][_IDENTIFIER])
    # One behind: the checkpoint was written and the log not yet removed. One ahead: the log of a running checkpoint.
    return [
        bytes.fromhex("640062 650002 660010") + identifier + bytes.fromhex("6700") + _varint(i) + bytes.fromhex("ffff")
        for i in (iteration, iteration - 1, iteration + 1)
        if i >= 0
    ]


def _varint(number: int) -> bytes:
    """A whole number as DuckDB's serializer writes it: seven bits in a byte, the lowest first."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fingerprint(database: Path) -> list[object]:
    return list(_states(database))


def _states(database: Path) -> Iterator[object]:
    yield _headers(database)
    for log in logs_of(database):
        if log.exists():
            state = log.stat()
            yield (state.st_ino, state.st_size, state.st_mtime_ns)
