"""XES, the exchange format of process mining, read as a stream.

Owns the way from a file to columns. Nothing of the file is kept but its values; entities and document types are
refused, and so is what is larger than any event should be.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast
from xml.etree.ElementTree import ParseError

import polars as pl
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from cqrs_lab.errors import ImportFailed
from cqrs_lab.write.sources import LINE, fail

_CHUNK, _MOST = 1 << 16, 1 << 24  # bytes read at once, and between two ends of elements at most
_READ: Mapping[str, Callable[[str], Any]] = {
    "string": str,
    "id": str,
    "date": lambda text: datetime.fromisoformat(text.replace("Z", "+00:00")),
    "int": int,
    "float": float,
    "boolean": lambda text: text.strip().lower() in ("true", "1"),
}


class _Reader:
    """What the parser tells, put into rows: attributes of a trace under case:…, those of its events as they are."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.seen, self.nested = 0, 0  # elements ended; attributes inside of others, which are left out
        self._open: list[str] = []
        self._case: dict[str, Any] = {}
        self._event: dict[str, Any] | None = None

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Take an element in."""
        tag = tag.rpartition("}")[2]
        inside = self._open[-1] if self._open else ""
        self._open.append(tag)
        if tag == "trace":
            self._case = {}
        elif tag == "event" and inside == "trace":
            self._event = {}
        elif tag in _READ:
            if inside not in ("trace", "event"):
                self.nested += inside not in ("log", "global", "extension", "")
                return
            key, value = attributes.get("key"), attributes.get("value")
            if key is None or value is None:
                raise ValueError(f"a {tag} of a {inside} lacks its key or its value")
            target, name = (self._event, key) if inside == "event" else (self._case, f"case:{key}")
            if target is not None:
                target[name] = _READ[tag](value)

    def end(self, tag: str) -> None:
        """Take the end of an element in."""
        self._open.pop()
        self.seen += 1
        if tag.rpartition("}")[2] == "event" and self._event is not None:
            self.rows.append({**self._case, **self._event})
            self._event = None

    def data(self, text: str) -> None:
        """Leave text between elements out."""

    def close(self) -> None:
        """End."""


def read_xes(path: Path) -> pl.DataFrame:
    """Return the events of an XES file, .xes or .xes.gz, a column for each attribute.

    Raises:
        ImportFailed: it cannot be read, is cut, holds entities, or something in it is larger than 16 MB.
    """
    reader = _Reader()
    parser = DefusedXMLParser(target=reader, forbid_dtd=True)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            _feed(cast(BinaryIO, stream), parser, reader)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise ImportFailed(f"{path.name} is not XES that can be read: {error}; nothing was stored") from error
    except (OSError, EOFError) as error:
        raise ImportFailed(f"{path.name} cannot be read: {error}; nothing was stored") from error
    if not reader.rows:
        fail("it holds no events", path.name)
    names = dict.fromkeys(name for row in reader.rows for name in row)
    columns = {}
    for name in names:
        values = [row.get(name) for row in reader.rows]
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1:  # an attribute that is not always of one type
            values = [None if value is None else str(value) for value in values]
        elif kinds == {datetime}:
            values = [None if value is None else value.isoformat() for value in values]
        columns[name] = pl.Series(name, values)
    return pl.DataFrame(columns).with_row_index(LINE, 1)


def _feed(stream: BinaryIO, parser: Any, reader: _Reader) -> None:
    since, seen = 0, 0
    while chunk := stream.read(_CHUNK):
        parser.feed(chunk)
        since, seen = (since + len(chunk), seen) if reader.seen == seen else (0, reader.seen)
        if since > _MOST:
            raise ValueError("something in it is larger than 16 MB")
    parser.close()
