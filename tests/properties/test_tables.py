"""A table of events is accepted, and stored, as its rows are one by one."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import START, append, as_table, histories
from support.paintings import Painted, paintings

from cqrs_lab import open_shop
from cqrs_lab.errors import InvalidMessage, InvalidTable
from cqrs_lab.shop import OrderPlaced


@given(first=histories, second=histories)
@settings(max_examples=15, deadline=None)
def test_a_table_is_the_same_as_its_rows_one_by_one(first, second):
    """Appended as tables or singly, a history has the same positions, streams, versions and events."""
    with open_shop(threads=1) as as_set, open_shop(threads=1) as singly:
        for history in (first, second):
            as_set.append_table("order", as_table(history))
            append(singly, history)
        columns = ["position", "stream", "version", "type", "occurred_at", "data"]
        assert as_set.events().pl().select(columns).equals(singly.events().pl().select(columns))
        category = as_set._categories["order"]
        for id in {event.order_id for event, _ in first + second}:
            ours, theirs = ([r.event for r in lab._log.read(category, id)] for lab in (as_set, singly))
            assert ours == theirs
        last = OrderPlaced(order_id="o-1")
        one, other = (lab._store.append(category, "o-1", [last])[0] for lab in (as_set, singly))
        assert (one.position, one.version) == (other.position, other.version)


painted = st.fixed_dictionaries(
    {
        "colour": st.sampled_from(["red", "blue", "green"]),
        "finish": st.sampled_from(["matt", "gloss", "none", None]),
        "layers": st.integers(0, 10),
        "weight": st.none() | st.floats(allow_nan=True),
        "price": st.none() | st.decimals(-1000, 1000, places=5),
        "dry_at": st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
        "day": st.none() | st.dates(date(1900, 1, 1), date(2200, 1, 1)),
        "batch": st.none() | st.uuids().map(str),
        "sealed": st.booleans(),
        "sizes": st.lists(
            st.fixed_dictionaries({"width": st.integers(0, 3), "note": st.none() | st.text("ab", max_size=2)}),
            max_size=2,
        ),
        "codes": st.lists(st.text("abA", max_size=2), max_size=3),
    }
)
things = itertools.count()


@pytest.fixture(scope="module")
def gallery():
    """One lab for all examples."""
    with paintings() as lab:
        yield lab


@given(fields=painted)
@settings(max_examples=150, deadline=None)
def test_a_row_is_accepted_when_its_event_is(gallery, fields):
    """For fields of every type: a row is stored exactly when the event class accepts the same values."""
    thing, head = f"t-{next(things)}", gallery.head
    single = {name: value for name, value in fields.items() if name != "finish" or value is not None}
    try:
        expected = Painted(thing=thing, **single)
    except InvalidMessage:
        expected = None
    size = pa.struct([("width", pa.int64()), ("note", pa.string())])
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("type", pa.string()),
            ("occurred_at", pa.timestamp("us", "UTC")),
            ("colour", pa.string()),
            ("finish", pa.string()),
            ("layers", pa.int64()),
            ("weight", pa.float64()),
            ("price", pa.decimal128(20, 5)),
            ("dry_at", pa.timestamp("us", "UTC")),
            ("day", pa.date32()),
            ("batch", pa.string()),
            ("sealed", pa.bool_()),
            ("sizes", pa.list_(size)),
            ("codes", pa.list_(pa.string())),
        ]
    )
    row = {"id": thing, "type": "Painted", "occurred_at": START} | fields
    try:
        gallery.append_table("thing", pa.Table.from_pylist([row], schema=schema))
    except InvalidTable:
        assert expected is None
        assert gallery.head == head
    else:
        assert [r.event for r in gallery._log.read(gallery._categories["thing"], thing)] == [expected]
