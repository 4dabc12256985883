"""Tables: what a question in SQL can be asked of, and the answer to one.

Owns the names that such a question may use: the tables of events, and the read models of the lab.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from cqrs_lab.read.projection import Projection
from cqrs_lab.read.runner import Running
from cqrs_lab.read.served import freshest, views_of
from cqrs_lab.read.table import WAYS
from cqrs_lab.store.categories import as_stored
from cqrs_lab.store.rows import Rows
from cqrs_lab.store.shown import caption_of, cell, page, style_of

_SCHEMA = pa.schema([(name, pa.string()) for name in ("name", "holds", "served_as", "columns")])
_LIST = f"{style_of(' ')}; white-space: normal; min-width: 28em; line-height: 1.6"


class Tables(Rows):
    """What can be asked, shown whole in a notebook."""

    def _shown(self) -> tuple[pa.Table, int]:
        return self.arrow(), len(self)

    def _repr_html_(self) -> str:
        lines = []
        for name, holds, served_as, columns in self.fetchall():
            head = f'<th scope="row" style="{style_of(name)}">{cell(name)}</th>'
            cells = (holds, served_as or "not stored")
            told = "".join(f'<td style="{style_of(text)}">{cell(text)}</td>' for text in cells)
            # Each column with its type in one piece; types are the smaller matter.
            pieces = (one.partition(" ")[::2] for one in _split(columns))
            listed = ", ".join(
                f'<span style="white-space: nowrap"><code>{cell(column)}</code> <small>{cell(kind)}</small></span>'
                for column, kind in pieces
            )
            lines.append(f'<tr>{head}{told}<td style="{_LIST}">{listed}</td></tr>')
        caption = f"{caption_of(self.arrow(), None, 'What can be asked')} Columns stand with their types."
        return page(caption, [(name, False) for name in _SCHEMA.names], lines)


def _split(columns: str) -> list[str]:
    """Take a list of columns apart, at the commas that are not within a type."""
    pieces, depth, start = [], 0, 0
    for at, sign in enumerate(columns):
        depth += (sign == "(") - (sign == ")")
        if sign == "," and not depth:
            pieces.append(columns[start:at])
            start = at + 2
    return [*pieces, columns[start:]]


def answered(running: Running, question: str, params: Sequence[Any] = ()) -> Rows:
    """Return the answer to a SELECT (see `Lab.sql`)."""
    catalog, folded = running.catalog, question.lower()
    views = {table: text for table, text in _events(running) if table.lower() in folded}
    views |= views_of(running, question)
    return Rows(catalog.log, question, [as_stored(value) for value in params], views=views)


def listed_tables(running: Running) -> Tables:
    """Return what can be asked (see `Lab.tables`)."""
    catalog, found = running.catalog, []
    database = catalog.log.database
    for category, (table, text) in zip(catalog.log.categories.values(), _events(running), strict=True):
        holds = f"events: {', '.join(category.types)}"
        found.append(_line(table, holds, "", database.columns(text)))
    for model in catalog.models.values():
        ways = [way for way in WAYS if catalog.checkpoint(model, way) is not None]
        by = "handlers in Python" if isinstance(model, Projection) else "a SELECT"
        holds = f"a row for each {', '.join(model.keys)}, made by {by}" if model.keys else "nothing: side effects"
        columns = database.columns(freshest(running, model).select()) if catalog.columns(model) else {}
        found.append(_line(model.name, holds, ", ".join(ways), columns))
    return Tables.of(catalog.log, pa.Table.from_pylist(found, schema=_SCHEMA))


def _line(name: str, holds: str, served_as: str, columns: dict[str, str]) -> dict[str, str]:
    told = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    return {"name": name, "holds": holds, "served_as": served_as, "columns": told}


def _events(running: Running) -> Iterator[tuple[str, str]]:
    """The tables of events, with the SELECT of each as it reads now: older versions lifted, personal fields joined."""
    log = running.catalog.log
    for category in log.categories.values():
        yield category.table, log.window(category.table)
