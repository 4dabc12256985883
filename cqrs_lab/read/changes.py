"""Changes: the answers of `diff`, `rehearse` and `history`, shown as what changed.

Owns how they look in a notebook; the rows are those of `differences` and `history`, and every other shape of them is
that of all Rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from cqrs_lab.store.rows import Rows
from cqrs_lab.store.shown import CHANGED, NULL, caption_of, cell, html_of, page, said, style_of, text_of, values_of


class Differences(Rows):
    """What is different, shown with the changed columns alone: each in a line, before and after."""

    def __repr__(self) -> str:
        table, total = self._shown()
        keys = _keys(table)
        names = ["change", *keys, "column", "before", "after"]
        lines = [
            [*(said(one) for one in (row["change"], *(row[key] for key in keys))), *map(said, line)]
            for row in _dicts(table)
            for line in _lines(row)
        ]
        told = pa.table({name: [line[n] for line in lines] for n, name in enumerate(names)})
        return f"{text_of(told).rpartition(chr(10))[0]}\n({caption_of(table, total).rstrip('.')})"

    def _repr_html_(self) -> str:
        return changes_page(*self._shown())


def changes_page(table: pa.Table, total: int | None = None) -> str:
    """Return differences as HTML: the changed columns alone, each in a line, before and after.

    Args:
        table: the rows that are shown, as `diff` gives them.
        total: how many there are in all; None: these.
    """
    keys, body = _keys(table), []
    for row in _dicts(table):
        lines = list(_lines(row))
        span = f'rowspan="{len(lines)}" scope="rowgroup"'  # one heading for all lines of a row
        first = "".join(
            f'<th {span} style="{style_of(said(one))}; font-weight: normal">{cell(one)}</th>'
            for one in (row["change"], *(row[key] for key in keys))
        )
        for name, was, now in lines:
            head = f'<th scope="row" style="{style_of(name)}; font-weight: normal">{cell(name)}</th>'
            old = f'<td style="{style_of(said(was))}">{cell(was, name)}</td>'
            new = f'<td style="{style_of(said(now))}; {CHANGED}"><strong>{cell(now, name)}</strong></td>'
            body.append(f"<tr>{first}{head}{old}{new}</tr>")
            first = ""
    heads = [(name, False) for name in ("change", *keys, "column", "before", "after")]
    return page(caption_of(table, total, "Differences"), heads, body)


def _keys(table: pa.Table) -> list[str]:
    """The columns of the key: those between the change and what follows it."""
    return [name for name in table.column_names[1:-2] if name != "columns"]


def _dicts(table: pa.Table) -> Iterator[dict[str, Any]]:
    for row in values_of(table):
        yield dict(zip(table.column_names, row, strict=True))


def _lines(row: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield (column, before, after) of what changed in a row, or the whole of a row that came or went."""
    before, after = row["before"], row["after"]
    if before is None or after is None:
        yield "whole row", before, after
        return
    both = dict.fromkeys([*before, *after])
    differing = [name for name in both if said(before.get(name)) != said(after.get(name))]
    for name in row.get("columns") or differing or both:
        # A rebuild may give the rows a column that they did not have, or take one away.
        yield name, *(side.get(name, "no such column") for side in (before, after))


class History(Rows):
    """How a row became what it is, shown with what changed in each version marked."""

    def _repr_html_(self) -> str:
        table, total = self._shown()
        *columns, changes = table.column_names  # the last one names what changed, and is shown as marks
        marked: list[list[str]] = []
        for *values, changed in values_of(table):
            there = {name for name, value in zip(columns, values, strict=True) if value is not None}
            own = columns[4:]
            # Where a row comes or goes, all of it changes, and marks would say nothing.
            is_whole = set(changed) >= {name for name in own if name in there}
            marked.append([] if is_whole else list(changed))
        shown = html_of(table.drop_columns([changes]), total, title="History", marked=marked)
        note = f'<p style="margin: 2px 10px">▸ marks what changed; {NULL} is NULL, and a row of them is gone.</p>'
        return shown + note
