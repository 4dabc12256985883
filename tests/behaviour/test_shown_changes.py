"""Differences, histories, tables and findings in a notebook: what changed, marked by more than a colour."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest
from support import pay, place

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.doctor import Finding, Findings
from cqrs_lab.shop import order_facts, order_summary


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A shop with one order, paid, and a second one."""
    with open_shop(threads=1) as lab:
        lab.send(place(1))
        lab.send(pay(1))
        lab.send(place(2))
        yield lab


def lines(page: str) -> list[list[str]]:
    """The texts of each row of a table."""
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    return [[unescape(re.sub("<[^>]+>", "", c)) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", r)] for r in rows]


def test_a_difference_shows_the_changed_columns_alone(lab: Lab) -> None:
    """Each changed column is a line with before and after, under one head; rows that came or went are whole."""
    found = lab.diff(order_summary, 1, 3)
    heads, *body = lines(found._repr_html_())
    assert heads == ["change", "order_id", "column", "before", "after"]
    assert body[0] == ["changed", "o-1", "status", "PENDING", "PAID"]
    assert {line[0] for line in body[1:-1]} <= {"paid", "version", "updated_at"}
    assert body[-1][:4] == ["added", "o-2", "whole row", "–"]
    assert body[-1][4].startswith("order_id: o-2, ")
    assert f'rowspan="{len(body) - 1}" scope="rowgroup"' in found._repr_html_()
    assert "<strong>PAID</strong>" in found._repr_html_()
    said = repr(found).splitlines()
    assert said[2].split() == ["changed", "o-1", "status", "PENDING", "PAID"]
    assert said[-1] == "(2 rows. Times are UTC)"
    assert repr(lab.diff(order_summary, 3, 3)).splitlines()[-1].startswith("(0 rows")
    (gone,) = lines(lab.diff(order_summary, 3, 2)._repr_html_())[1:]
    assert (gone[0], gone[2], gone[4]) == ("removed", "whole row", "–")


def test_a_rehearsal_shows_a_column_that_was_not_there(lab: Lab) -> None:
    """Where a rebuild gives rows another column, before says that there was none."""
    lab.serve(ReadModel("mine", key="order_id", sql="SELECT order_id, status FROM order_facts", over=(order_facts,)))
    other = ReadModel("mine", key="order_id", sql="SELECT order_id, total FROM order_facts", over=(order_facts,))
    body = lines(lab.serve(other).rehearse()._repr_html_())[1:]
    told = [line[-3:] for line in body]
    assert any(name == "total" and before == "no such column" for name, before, _ in told), told
    assert any(name == "status" and after == "no such column" for name, _, after in told), told


def test_a_history_marks_what_changed(lab: Lab) -> None:
    """A version marks its changed columns with a sign; the first one is new as a whole and marks none."""
    found = lab.history(order_summary, "o-1")
    heads, first, second = lines(found._repr_html_())
    assert "changed" not in heads
    assert not any("▸" in text for text in first)
    marked = {name for name, text in zip(heads, second, strict=True) if text.startswith("▸ ")}
    assert {"status", "paid"} <= marked == set(found.dicts()[1]["changed"])


def test_what_can_be_asked_is_listed_whole(lab: Lab) -> None:
    """Each column stands with its type in one piece, however the type is written; all tables are there."""
    nested = "SELECT order_id, {'a': {'b': 1, 'c': 2}, 'd': 3} AS s, 1 AS z FROM order_events GROUP BY ALL"
    lab.serve(ReadModel("nested", key="order_id", sql=nested))
    page = lab.tables()._repr_html_()
    assert len(lines(page)) == 1 + len(lab.tables())
    (columns,) = [line[3] for line in lines(page) if line[0] == "nested"]
    pieces = re.findall(r'nowrap"><code>(\w+)</code> <small>([^<]+)</small>', page)
    assert ("z", "INTEGER") in pieces
    assert ("s", "STRUCT(a STRUCT(b INTEGER, c INTEGER), d INTEGER)") in pieces
    assert columns.startswith("order_id VARCHAR, s STRUCT(")
    assert repr(lab.tables()).splitlines()[-1] == f"({len(lab.tables())} rows)"


def test_findings_are_a_list_with_words() -> None:
    """Each finding has a word, a sign and a colour, and says what to do; its text is escaped."""
    found = Findings([Finding("Python", "OK", "3"), Finding("<kernel>", "FAIL", "a & b", "Mend it")])
    page = found._repr_html_()
    assert page.count("<li>") == 2
    assert "✓ OK</strong> Python: 3" in page
    assert "✗ FAIL</strong> &lt;kernel&gt;: a &amp; b<br><strong>What to do:</strong> Mend it" in page
    assert repr(found) == "OK    Python: 3\nFAIL  <kernel>: a & b. Mend it"
