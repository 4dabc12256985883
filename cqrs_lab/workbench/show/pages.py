"""The HTML of the workbench's pages: tables of words, with the looks of all tables (`store/shown.py`).

Uses no more of HTML than JupyterLab leaves in the output of a notebook that it does not trust.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape, unescape

from cqrs_lab.store.shown import page, said, style_of

_TAG = re.compile(r"<[^>]+>")


def bar(share: float) -> str:
    """Return a share from 0 to 1 as a bar, with its number beside it."""
    style = f"display: inline-block; width: {share * 16:.2f}em; height: 0.8em; background-color: #0072B2"
    return f'<span style="{style}"></span> {share:.1%}'


def table(columns: Iterable[str], rows: Iterable[Sequence[str]], caption: str, numbers: Iterable[str] = ()) -> str:
    """Return a table; its cells are HTML.

    Args:
        columns: their names.
        rows: the cells of each row.
        caption: what stands above them.
        numbers: the columns that hold numbers.
    """
    heads = [(name, name in set(numbers)) for name in columns]
    body = (f"<tr>{''.join(map(_cell, row, (is_number for _, is_number in heads)))}</tr>" for row in rows)
    return page(caption, heads, body)


def _cell(words: str, is_number: bool) -> str:
    return f'<td style="{style_of(unescape(_TAG.sub("", words)), is_number=is_number)}">{words}</td>'


def html(value: object) -> str:
    """Return a value as words that are safe in a page, nothing where there is none."""
    return "" if value is None else escape(said(value))
