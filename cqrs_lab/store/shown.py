"""How values and tables are shown to people: one way for all rows, as HTML for a notebook and as text.

Owns the words for a value (money with its places, numbers without exponents, times and durations as they are read
aloud, structs with their names) and the looks of a table. It knows no database: an Arrow table in, text out. The HTML
needs no script and no style sheet, and keeps its looks where a notebook that is not trusted loses both.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html import escape
from typing import Any

import pyarrow as pa

NULL = "–"  # noqa: RUF001 - a dash, so that it is no minus and no hyphen
_SIGNIFICANT, _FEWEST_PLACES = 4, 2  # of a number that is not exact
_MS_SIGNIFICANT = 3  # of milliseconds
_SMALL, _LARGE = 1e-9, 1e15  # beyond them a number is shown as a power of ten
_UNBROKEN = 60  # letters of a text without blanks that stays in one line
_WIDE = 60  # letters of a column in plain text
_MANY = 8  # columns from which on those that are empty are left out
_BYTES = 16
# What HTML and XML cannot hold, and what would turn the direction of the text after it.
_UNSHOWN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_BORDER = "border-bottom: 1px solid rgba(128, 128, 128, 0.35); padding: 3px 10px; vertical-align: top"
CHANGED = "background-color: rgba(255, 196, 0, 0.22)"
"""The ground of a cell that changed; never the only mark."""


def clean(text: str) -> str:
    """Return a text with what cannot be shown replaced by U+FFFD."""
    return _UNSHOWN.sub("\ufffd", text)


def said(value: Any, *, is_ms: bool = False) -> str:
    """Return a value as people read it.

    Args:
        value: a Python value as `Rows.fetchall` gives it.
        is_ms: milliseconds, of which three digits count.
    """
    if value is None:
        return NULL
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value, _MS_SIGNIFICANT if is_ms else _SIGNIFICANT, 0 if is_ms else _FEWEST_PLACES)
    if isinstance(value, Decimal):
        if is_ms:
            return said(float(value), is_ms=True)
        return f"{value:f}"
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _length(value)
    if isinstance(value, bytes):
        return f"{value[:_BYTES].hex(' ')}{f' … ({len(value):,} bytes)' if len(value) > _BYTES else ''}"
    if isinstance(value, Mapping):
        return ", ".join(f"{clean(str(name))}: {_inner(one)}" for name, one in value.items()) or "{}"
    if isinstance(value, list | tuple):
        is_map = bool(value) and all(isinstance(one, tuple) and len(one) == 2 for one in value)
        if is_map:  # Arrow gives a map as a list of pairs
            return ", ".join(f"{said(name)}: {_inner(one)}" for name, one in value)
        between = "; " if any(isinstance(one, Mapping | list | tuple) for one in value) else ", "
        return between.join(map(said, value)) or "[]"
    return clean(str(value))


def _inner(value: Any) -> str:
    """A value within a struct: what has commas of its own stands in brackets."""
    text = said(value)
    if isinstance(value, Mapping) and value:
        return f"({text})"
    return f"[{text}]" if isinstance(value, list | tuple) and value else text


def _number(value: float, significant: int, fewest: int) -> str:
    if not math.isfinite(value):
        return {"nan": "NaN", "inf": "infinity"}.get(str(value), "-infinity")
    size = abs(value)
    if size and not _SMALL <= size < _LARGE:
        power = math.floor(math.log10(size))
        digits = value / 10.0**power if power > -300 else value * 1e20 / 10.0 ** (power + 20)
        return f"{digits:.3g} × 10{str(power).translate(_SUPERSCRIPTS)}"  # noqa: RUF001
    places = significant - 1 - (math.floor(math.log10(size)) if size else 0)
    text = f"{value:.{max(places, fewest, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _moment(value: datetime) -> str:
    """A time in UTC, which the table says once; parts of a second only where there are any."""
    if value.tzinfo is not None:
        value = value.astimezone(UTC)
    parts = f".{value.microsecond:06}".rstrip("0") if value.microsecond else ""
    return f"{value:%Y-%m-%d %H:%M:%S}{parts}"


def _length(value: timedelta) -> str:
    """A duration in its units: 2 d 3 h; seconds have parts only where they are few."""
    sign, micros = ("-" if value < timedelta() else ""), abs(value) // timedelta(microseconds=1)
    if micros < 1_000_000:
        return f"{sign}{_number(micros / 1000, _MS_SIGNIFICANT, 0)} ms" if micros else "0 s"
    if micros < 60_000_000:
        return f"{sign}{f'{micros / 1e6:.3f}'.rstrip('0').rstrip('.')} s"
    rest, shown = round(micros / 1e6), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        shown += [f"{count} {unit}"] if count else []
    return sign + " ".join(shown)


def is_ms(name: str) -> bool:
    """Return whether a column holds milliseconds, by its name."""
    return name == "ms" or name.endswith("_ms")


def cell(value: Any, name: str = "") -> str:
    """Return the inside of a cell as HTML, escaped."""
    if value is None:
        return f'<span title="NULL">{NULL}</span>'
    text = said(value, is_ms=is_ms(name))
    if isinstance(value, str) and len(text) > _UNBROKEN and text.startswith("{"):
        # JSON breaks between its fields, and not at the hyphen of an id.
        pieces = (escape(piece) for piece in text.replace(',"', ',\0"').split("\0"))
        return "<wbr>".join(
            f'<span style="white-space: nowrap">{one}</span>' if len(one) < 200 else one for one in pieces
        )
    return escape(text)


def style_of(text: str, *, is_number: bool = False) -> str:
    """Return the style of a cell: ids, times and numbers stay in one line, a longer text may use several."""
    if is_number:
        return f"{_BORDER}; text-align: right; white-space: nowrap"
    is_short = len(text) <= 24 or (len(text) <= _UNBROKEN and not re.search(r"\s(?!\d)", text))
    lines = "nowrap" if is_short else "pre-wrap; overflow-wrap: anywhere; min-width: 16em"
    return f"{_BORDER}; text-align: left; white-space: {lines}"


def page(caption: str, heads: Iterable[tuple[str, bool]], body: Iterable[str]) -> str:
    """Return a table as HTML.

    Args:
        caption: what stands above it, as text.
        heads: names of the columns, and whether each holds numbers.
        body: its rows as HTML, each a <tr>.
    """
    shown = "".join(
        f'<th scope="col" style="{_BORDER}; text-align: {"right" if is_number else "left"}; white-space: nowrap">'
        f"{escape(clean(name))}</th>"
        for name, is_number in heads
    )
    looks = "border-collapse: collapse; font-variant-numeric: tabular-nums"
    above = f'<caption style="caption-side: top; text-align: left; padding: 3px 10px">{escape(caption)}</caption>'
    return (
        f'<div style="overflow-x: auto"><table style="{looks}">{above}<thead><tr>{shown}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def values_of(table: pa.Table) -> list[tuple[Any, ...]]:
    """Return the rows of a table as Python values."""
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def html_of(
    table: pa.Table,
    total: int | None = None,
    *,
    title: str = "",
    marked: Sequence[Iterable[str]] = (),
    empty: Iterable[str] = (),
) -> str:
    """Return rows as an HTML table that a screen reader can read.

    Args:
        table: the rows that are shown.
        total: how many there are in all; None: these.
        title: what they are, in front of their number.
        marked: for each row the columns that are marked as changed.
        empty: columns to leave out where no row has a value; of many columns all such are left out.
    """
    names, gone = table.column_names, _left_out(table, empty)
    kept = [n for n in range(len(names)) if n not in gone]
    numbers = [_is_number(field.type) for field in table.schema]
    body = []
    for at, row in enumerate(values_of(table)):
        changed = set(marked[at]) if at < len(marked) else set[str]()
        cells = []
        for n in kept:
            text, inside = said(row[n], is_ms=is_ms(names[n])), cell(row[n], names[n])
            style = style_of(text, is_number=numbers[n])
            if names[n] in changed:
                style, inside = f"{style}; {CHANGED}", f"▸ <strong>{inside}</strong>"
            cells.append(f'<td style="{style}">{inside}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    return page(caption_of(table, total, title, [names[n] for n in gone]), [(names[n], numbers[n]) for n in kept], body)


def text_of(table: pa.Table, total: int | None = None) -> str:
    """Return rows as plain text: columns side by side, long texts over several lines."""
    gone = _left_out(table, ())
    left_out = [table.column_names[n] for n in gone]
    kept = table.select([n for n in range(table.num_columns) if n not in gone])
    names = kept.column_names
    numbers = [_is_number(field.type) for field in kept.schema]
    grid = [[[clean(name)] for name in names]]
    for row in values_of(kept):
        grid.append([_wrapped(said(value, is_ms=is_ms(name))) for name, value in zip(names, row, strict=True)])
    widths = [max(len(line) for row in grid for line in row[n]) for n in range(len(names))]
    lines = []
    for at, cells_of in enumerate(grid):
        for line in range(max(map(len, cells_of), default=0)):
            parts = [one[line] if line < len(one) else "" for one in cells_of]
            cells = zip(parts, widths, numbers, strict=True)
            lines.append("  ".join(p.rjust(w) if number else p.ljust(w) for p, w, number in cells).rstrip())
        if at == 0:
            lines.append("  ".join("─" * width for width in widths))
    return "\n".join([*lines, f"({caption_of(table, total, gone=left_out).rstrip('.')})"])


def _wrapped(text: str) -> list[str]:
    lines = (textwrap.wrap(line, _WIDE, break_long_words=False, break_on_hyphens=False) for line in text.split("\n"))
    return [one for line in lines for one in line or [""]]


def caption_of(table: pa.Table, total: int | None, title: str = "", gone: Iterable[str] = ()) -> str:
    """Return what a table says of itself: how many rows there are, the zone of its times, what is left out."""
    shown = table.num_rows
    whole = shown if total is None else total
    counted = (
        f"{whole:,} row{'' if whole == 1 else 's'}" if whole <= shown else f"The first {shown:,} of {whole:,} rows"
    )
    parts = [f"{clean(title)}: {counted}" if title else counted]
    if any(_has_time(field.type) for field in table.schema):
        parts.append("Times are UTC")
    if missing := ", ".join(map(clean, gone)):
        parts.append(f"Empty in {'these rows' if shown > 1 else 'this row'}, so left out: {missing}")
    return ". ".join(parts) + "."


def _left_out(table: pa.Table, empty: Iterable[str]) -> list[int]:
    """The columns that are not shown, since no row has a value there; a table is never left without columns."""
    names = table.column_names
    asked = names if len(names) > _MANY else [*empty, "source_status"]
    gone = [n for n, c in enumerate(table.columns) if names[n] in asked and c.null_count == len(c) > 0]
    return gone if len(gone) < len(names) else []


def _is_number(kind: pa.DataType) -> bool:
    is_one = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_duration)
    return any(test(kind) for test in is_one)


def _has_time(kind: pa.DataType) -> bool:
    inner = (kind.field(n).type for n in range(kind.num_fields))
    return bool(pa.types.is_timestamp(kind)) or any(map(_has_time, inner))
