"""The HTML of the workbench's pages: tables of words.

Uses no more of HTML than JupyterLab leaves in the output of a notebook that it does not trust.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape


def bar(share: float) -> str:
    """Return a share from 0 to 1 as a bar, with its number beside it."""
    style = f"display: inline-block; width: {share * 16:.2f}em; height: 0.8em; background-color: #0072B2"
    return f'<span style="{style}"></span> {share:.1%}'


# JupyterLab would set cells to the right and break an id at its hyphen.
_SHORT = 'style="text-align: left; white-space: nowrap"'
_LONG = 'style="text-align: left; min-width: 20em"'


def table(columns: Iterable[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """Return a table; its cells are HTML."""
    head = "".join(f'<th scope="col" {_SHORT}>{escape(name)}</th>' for name in columns)
    body = ["<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows]
    lines = "\n".join([f"<thead><tr>{head}</tr></thead>", "<tbody>", *body, "</tbody>"])
    style = "text-align: left; border-collapse: separate; border-spacing: 1em 0.2em"
    return f'<table style="{style}">\n<caption style="text-align: left">{escape(caption)}</caption>\n{lines}\n</table>'


def _cell(words: str) -> str:
    style = _LONG if len(words) > 60 and not words.startswith("<") else _SHORT
    return f"<td {style}>{words}</td>"


def html(value: object) -> str:
    """Return a value as words that are safe in a page."""
    return escape(text(value))


def text(value: object) -> str:
    """Return a value as words: a time to the second, nothing where there is none."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return "" if value is None else str(value)
