"""Names: how they reach SQL, and which ones are kept for a store.

Owns the one function that quotes a name.
"""

from __future__ import annotations

import re

from cqrs_lab.errors import DeclarationError, QueryFailed

TABLES = ("store", "categories", "streams", "commands", "servings", "snapshots", "dead_letters", "read_models")
"""The tables of a store beside those of events and personal fields."""
_EVENTS = "_events"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")


def quote(name: str) -> str:
    """Return `name` as a quoted SQL identifier; the one way a name reaches SQL."""
    if not name or "\0" in name:
        raise QueryFailed(f"{name!r} cannot name anything in DuckDB: it is empty or holds a NUL")
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return text as an SQL string, for statements that take no parameters."""
    if "\0" in text:
        raise QueryFailed(f"{text!r} holds a NUL")
    return "'" + text.replace("'", "''") + "'"


def check_name(kind: str, name: str) -> None:
    """Refuse a name that could collide in DuckDB, which folds case, or that nobody can type.

    Raises:
        DeclarationError: `name` is not letters, digits and underscores, starting with a letter.
    """
    if not _NAME.fullmatch(name):
        raise DeclarationError(
            f"{name!r} cannot name a {kind}: use letters, digits and underscores, starting with a letter, at most 63"
        )


def names_events(table: str) -> bool:
    """Return whether a name is that of a table of events; no read model may be called that way."""
    return table.lower().endswith(_EVENTS)
