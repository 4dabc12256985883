"""How values and tables are shown: as people read them, whatever is in them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from html.parser import HTMLParser

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cqrs_lab.errors import InvalidTable
from cqrs_lab.store.shown import html_of, said, text_of
from cqrs_lab.workbench import show_rows


class Cells(HTMLParser):
    """The cells of a page by their tag, with their attributes, and the tags that are open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.attrs: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "th", "caption"):
            self.found.append((tag, ""))
            self.attrs.append(dict(attrs))
        else:
            assert tag in ("div", "table", "thead", "tbody", "tr", "span", "strong", "wbr"), tag

    def handle_data(self, data: str) -> None:
        tag, text = self.found[-1]
        self.found[-1] = (tag, text + data)

    def of(self, tag: str) -> list[str]:
        return [text for one, text in self.found if one == tag]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "true"),
        (1_234_567, "1234567"),
        (Decimal("1234.50"), "1234.50"),
        (Decimal("0E-10"), "0.0000000000"),
        (Decimal("1E+3"), "1000"),
        (1160.0, "1160"),
        (1163.2801, "1163.28"),
        (17.969328, "17.97"),
        (0.00012345, "0.0001234"),
        (-0.5, "-0.5"),
        (0.0, "0"),
        (1.23e17, "1.23 × 10¹⁷"),
        (5e-324, "4.94 × 10⁻³²⁴"),
        (float("nan"), "NaN"),
        (float("-inf"), "-infinity"),
        (datetime(2026, 1, 5, 9, tzinfo=UTC), "2026-01-05 09:00:00"),
        (datetime(2026, 1, 5, 9, tzinfo=timezone(timedelta(hours=1))), "2026-01-05 08:00:00"),
        (datetime(2026, 1, 5, 9, 0, 0, 120_000), "2026-01-05 09:00:00.12"),
        (date(2026, 1, 5), "2026-01-05"),
        (timedelta(days=2, hours=3), "2 d 3 h"),
        (timedelta(hours=1, seconds=59.6), "1 h 1 min"),
        (-timedelta(minutes=5), "-5 min"),
        (timedelta(0), "0 s"),
        (timedelta(milliseconds=12), "12 ms"),
        (timedelta(seconds=1.5), "1.5 s"),
        (b"abc", "61 62 63"),
        ({"was": None, "is": {"now": Decimal("1.10")}}, "was: –, is: (now: 1.10)"),
        ([{"x": 1, "y": "a"}, {"x": 2, "y": "b"}], "x: 1, y: a; x: 2, y: b"),
        ({"of": [{"x": 1}]}, "of: [x: 1]"),
        ([("key", [1, 2])], "key: [1, 2]"),
        ([1, 2], "1, 2"),
        ([], "[]"),
        ({}, "{}"),
        ("a\u202eb\x00", "a\ufffdb\ufffd"),
    ],
)
def test_a_value_reads_as_people_say_it(value: object, text: str) -> None:
    """No exponents, times and durations as they are read aloud, structs with their names."""
    assert said(value) == text


@pytest.mark.parametrize(("ms", "text"), [(17.969328, "18"), (1163.28, "1163"), (0.04512, "0.0451"), (2.5, "2.5")])
def test_milliseconds_have_three_digits(ms: float, text: str) -> None:
    """A column of milliseconds is known by its name, whether its numbers are exact or not."""
    assert said(ms, is_ms=True) == said(Decimal(str(ms)), is_ms=True) == text
    assert Cells(html_of(pa.table({"p50_ms": [ms]}))).of("td") == [text]


def test_what_is_shown_is_escaped_and_can_be_read_aloud() -> None:
    """Names and values are text and no markup; heads have a scope, and a caption says how many rows there are."""
    table = pa.table({"<b>": ["<script>alert(1)</script>", None], "at": [datetime(2026, 1, 5, 9, tzinfo=UTC)] * 2})
    cells = Cells(html_of(table, 12_345, title="<i>Orders"))
    assert cells.of("caption") == ["<i>Orders: The first 2 of 12,345 rows. Times are UTC."]
    assert cells.of("th") == ["<b>", "at"]
    assert {attrs.get("scope") for (tag, _), attrs in zip(cells.found, cells.attrs, strict=True) if tag == "th"} == {
        "col"
    }
    assert cells.of("td") == ["<script>alert(1)</script>", "2026-01-05 09:00:00", "–", "2026-01-05 09:00:00"]
    assert 'title="NULL"' in html_of(table)


def test_ids_stay_in_one_line_and_json_breaks_between_fields() -> None:
    """An id, a time and a number are never broken; a long text may be, JSON only between its fields."""
    data = '{"order_id":"o-1","note":"' + "long " * 20 + '"}'
    page = html_of(pa.table({"id": ["00000000-0000-0000-8000-000000000001"], "note": ["word " * 30], "data": [data]}))
    cells = Cells(page)
    styles = [attrs["style"] for (tag, _), attrs in zip(cells.found, cells.attrs, strict=True) if tag == "td"]
    assert ["nowrap" in str(style) for style in styles] == [True, False, False]
    assert '&quot;o-1&quot;,</span><wbr><span style="white-space: nowrap">&quot;note' in page
    assert cells.of("td")[2] == data


def test_empty_columns_of_a_wide_table_are_left_out_and_named() -> None:
    """So is source_status in any table; a narrow table and one without rows keep what they have."""
    wide = pa.table({**{f"c{n}": [n] for n in range(8)}, "error": pa.array([None], pa.string())})
    assert "Empty in this row, so left out: error." in Cells(html_of(wide)).of("caption")[0]
    assert len(Cells(html_of(wide)).of("td")) == 8
    narrow = pa.table({"a": [None, None], "source_status": pa.array([None, None], pa.string()), "b": [1, 2]})
    assert Cells(html_of(narrow)).of("th") == ["a", "b"]
    assert Cells(html_of(narrow.select(["source_status"]))).of("th") == ["source_status"]
    assert len(Cells(html_of(narrow.slice(0, 0))).of("th")) == 3


def test_plain_text_has_columns_and_no_types() -> None:
    """Numbers stand at the right, long texts over several lines, and the last line says how many rows there are."""
    table = pa.table({"id": ["o-1", "o-12"], "total": [Decimal("5.00"), Decimal("1234.00")], "note": [None, "a " * 40]})
    assert text_of(table, 2).splitlines() == [
        "id      total  note",
        "────  ───────  " + "─" * 59,
        "o-1      5.00  –",
        "o-12  1234.00  " + ("a " * 30).strip(),
        "               " + ("a " * 10).strip(),
        "(2 rows)",
    ]


def test_frames_show_as_rows_do() -> None:
    """Polars, pandas and Arrow look alike; what is no table, and no number of rows, is refused."""
    table = pa.table({"n": list(range(12)), "ms": [0.5] * 12})
    shown = [show_rows(one, most=3, title="n") for one in (table, pl.DataFrame(table), table.to_pandas())]
    assert len({one._repr_html_() for one in shown}) == len({repr(one) for one in shown}) == 1
    assert Cells(shown[0]._repr_html_()).of("caption") == ["n: The first 3 of 12 rows."]
    assert isinstance(table.to_pandas(), pd.DataFrame)
    some = show_rows(table, "ms", "n", most=2)
    assert Cells(some._repr_html_()).of("th") == ["ms", "n"]
    with pytest.raises(InvalidTable, match="there is no column m; there are n, ms"):
        show_rows(table, "n", "m")
    for wrong in (0, True, 1.5):
        with pytest.raises(InvalidTable, match="most="):
            show_rows(table, most=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidTable, match="dict is no table"):
        show_rows({"a": 1})  # type: ignore[arg-type]
