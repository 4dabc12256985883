"""A story as a tree: what a trace tells, as nested lists that a notebook shows and a screen reader reads.

Owns the looks alone; the rows are those of `cqrs_lab/trace.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from cqrs_lab.store.shown import cell

_MARKS = {
    kind: f'<span aria-hidden="true" style="color: {color}">{mark}</span>'
    for kind, mark, color in (
        ("command", "▶", "#0072B2"),
        ("saga", "↳", "#B34700"),
        ("event", "●", "#007A5A"),
        ("row", "≈", "#767676"),
    )
}
"""What stands before a line, by kind; the words after it say the same."""
_TREE = "list-style: none; margin: 2px 0; padding-left: 1.3em; line-height: 1.5"


def tree(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows of a trace as HTML: what a command or a saga's step led to stands below it; "" without any."""
    lines, depth, base = [], 0, 0
    for row in rows:
        # A saga's step answers to an event of the command above it.
        base = {"command": 1, "saga": 2}.get(row["kind"], base)
        level = min(base + {"event": 1, "row": 2}.get(row["kind"], 0), depth + 1)
        lines.append(f'<ul style="{_TREE}">' if level > depth else "</li>" + "</ul></li>" * (depth - level))
        lines.append(f"<li>{_told(row)}")
        depth = level
    return "".join([*lines, "</li></ul>" * depth])


def _told(row: dict[str, Any]) -> str:
    """One line of the tree as HTML."""
    kind, name = row["kind"], f"<strong>{cell(row['name'])}</strong>"
    about = f"<span style='white-space: nowrap'>{cell(row['about'])}</span>"
    detail = row["detail"]
    if kind == "event":
        fields = json.loads(detail, parse_float=Decimal)
        at = f"position {row['position']:,}, {cell(row['at'])} UTC"
        return f"{_MARKS[kind]} event {name} in {about} <small>({at})</small><br><small>{cell(fields)}</small>"
    if kind == "row":
        return f"{_MARKS[kind]} read model {name}, row {about}: {cell(detail or 'no column')}"
    by = f" by the saga {cell(row['by'])}" if kind == "saga" else ""
    to = f" to {about}" if row["about"] else ""
    return f"{_MARKS[kind]} command {name}{to}{by}{f': {cell(detail)}' if detail else ''}"
