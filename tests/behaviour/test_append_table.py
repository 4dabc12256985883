"""A table of events is checked as a set by the rules of single events: all of it is stored, or nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator
from support import START, append, as_table, histories

from cqrs_lab import Decider, Domain, Event, Lab, Value, open_shop
from cqrs_lab.errors import DeclarationError, InvalidMessage, InvalidTable
from cqrs_lab.shop import OrderPlaced


def table(**columns):
    """Return one valid row of OrderPaid as a table, with some columns changed (None: left out)."""
    row = {"id": ["o-1"], "type": ["OrderPaid"], "occurred_at": [START], "amount": [Decimal("1.00")]} | columns
    return pl.DataFrame({name: values for name, values in row.items() if values is not None})


@given(first=histories, second=histories)
@settings(max_examples=25, deadline=None)
def test_a_table_is_the_same_as_its_rows_one_by_one(first, second):
    """Appended as tables or singly, a history has the same positions, streams, versions and events."""
    with open_shop() as as_set, open_shop() as singly:
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


def test_every_kind_of_table_is_taken(tmp_path):
    """Polars, pandas, Arrow and a Parquet file of the same rows are stored alike."""
    frame = table(id=["o-1", "o-2"], type=["OrderPaid"] * 2, occurred_at=[START] * 2, amount=[Decimal("1.10"), None])
    pq.write_table(frame.to_arrow(), tmp_path / "events.parquet")
    kinds = [frame, frame.to_pandas(), frame.to_arrow(), tmp_path / "events.parquet", str(tmp_path / "events.parquet")]
    results = []
    for kind in kinds:
        with open_shop() as lab:
            assert lab.append_table("order", kind) == 2
            results.append(lab.events().pl().select("stream", "version", "type", "occurred_at", "data"))
    assert all(result.equals(results[0]) for result in results)


@pytest.mark.parametrize(
    ("columns", "column", "says"),
    [
        ({"id": None}, "id", "no column 'id'"),
        ({"occurred_at": None}, "occurred_at", "no column 'occurred_at'"),
        ({"colour": ["red"]}, "colour", "no field 'colour'"),
        ({"_row": [1]}, "_row", "taken"),
        ({"id": [1]}, "id", "cast it first"),
        ({"amount": ["1.00"]}, "amount", "cast it first"),
        ({"occurred_at": [datetime(2025, 1, 1)]}, "occurred_at", "no time zone"),
        ({"occurred_at": [date(2025, 1, 1)]}, "occurred_at", "cast it first"),
        ({"id": [None]}, "id", "row 1"),
        ({"id": [""]}, "id", "1 to 500 characters"),
        ({"id": ["x" * 501]}, "id", "1 to 500 characters"),
        ({"type": [None]}, "type", "row 1"),
        ({"type": ["OrderEaten"]}, "type", "is one of OrderPlaced"),
        ({"occurred_at": pl.Series([None], dtype=pl.Datetime("us", "UTC"))}, "occurred_at", "row 1"),
        ({"amount": [-0.01]}, "amount", ">= 0"),
        ({"amount": [float("nan")]}, "amount", "places"),
        ({"amount": [float("inf")]}, "amount", "places"),
        ({"amount": [1.005]}, "amount", "2 places"),
        ({"amount": [Decimal("1.005")]}, "amount", "2 places"),
        ({"amount": [1e17]}, "amount", "18 digits"),
        ({"reason": ["because"]}, "reason", "empty except for OrderCancelled"),
        ({"order_id": ["o-2"]}, "order_id", "equals the column id"),
    ],
)
def test_a_bad_column_or_row_is_named_and_nothing_is_stored(columns, column, says):
    """The error says which column, row and rule, and the log is as it was."""
    with open_shop() as lab:
        with pytest.raises(InvalidTable) as refused:
            lab.append_table("order", table(**columns))
        assert refused.value.column == column
        assert says in str(refused.value)
        assert lab.head == 0
        assert lab.append_table("order", table()) == 1


def lines(quantity=1, price=Decimal("1.00"), product="p"):
    """Return one row of OrderPlaced with two lines, the second as told."""
    parts = [
        {"product_id": "p", "quantity": 1, "unit_price": Decimal("1.00")},
        {"product_id": product, "quantity": quantity, "unit_price": price},
    ]
    return table(type=["OrderPlaced"], amount=None, lines=[parts])


@pytest.mark.parametrize("bad", [{"quantity": 0}, {"quantity": None}, {"price": Decimal("-1.00")}, {"product": ""}])
def test_rules_inside_lists_and_structs_hold(bad):
    """A line of an order in a table obeys the rules of OrderLine."""
    with open_shop() as lab:
        with pytest.raises(InvalidTable) as refused:
            lab.append_table("order", lines(**bad))
        assert (refused.value.column, refused.value.row) == ("lines", 1)
        assert lab.append_table("order", lines()) == 1


def test_one_bad_row_among_many_stores_nothing_and_is_named():
    """The first bad row of a long table is named by its number; no row before it is stored."""
    n = 200_000
    amounts = np.full(n, 1.25)
    amounts[123_456] = 1.255
    frame = pl.DataFrame({"id": [f"o-{i % 5000}" for i in range(n)], "amount": amounts}).with_columns(
        type=pl.lit("OrderPaid"), occurred_at=pl.lit(START)
    )
    with open_shop() as lab:
        with pytest.raises(InvalidTable) as refused:
            lab.append_table("order", frame)
        assert refused.value.row == 123_457
        assert "o-3456" in str(refused.value)
        assert lab.head == 0
        assert lab._log.database.execute("SELECT count(*) FROM streams") == [(0,)]


def test_recorded_at_never_goes_back():
    """A table may say when it was recorded, in one order that follows the log's."""
    hours = [START + timedelta(hours=h) for h in (1, 2, 2)]
    three = {"id": ["o"] * 3, "type": ["OrderPaid"] * 3, "occurred_at": hours, "amount": [Decimal("1.00")] * 3}
    with open_shop() as lab:
        lab.append_table("order", table(**three, recorded_at=hours))
        assert lab.events().pl()["recorded_at"].to_list() == hours
        for recorded, row in ((hours, 1), ([hours[2], hours[2], hours[0]], 3)):
            with pytest.raises(InvalidTable) as refused:
                lab.append_table("order", table(**three, recorded_at=recorded))
            assert (refused.value.row, refused.value.column) == (row, "recorded_at")
        assert lab.head == 3
        lab.append_table("order", table(correlation_id=["story"]))
        assert len(lab.events(correlation_id="story")) == 1


def test_an_empty_table_is_nothing():
    """A table without rows changes nothing; its columns are checked all the same."""
    with open_shop() as lab:
        assert lab.append_table("order", table().head(0)) == 0
        with pytest.raises(InvalidTable):
            lab.append_table("order", table(colour=["red"]).head(0))
        with pytest.raises(InvalidTable, match="is not a table"):
            lab.append_table("order", [1, 2])
        with pytest.raises(InvalidTable, match="Parquet"):
            lab.append_table("order", "nowhere.parquet")
        with pytest.raises(DeclarationError, match="customer"):
            lab.append_table("nothing", table())


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(Value):
    width: Annotated[int, Field(ge=1)]
    note: str | None = None


class Painted(Event):
    """An event with a field of every supported type."""

    thing: str
    colour: Colour
    finish: Literal["matt", "gloss"] = "matt"
    layers: Annotated[int, Field(ge=1, le=9)]
    weight: float | None = None
    price: Annotated[Decimal, Field(max_digits=10, decimal_places=4)] | None = None
    dry_at: datetime | None = None
    day: date | None = None
    batch: UUID | None = None
    sealed: bool = False
    sizes: list[Size] = []
    codes: Annotated[list[Annotated[str, Field(pattern="^[a-z]+$")]], Field(max_length=2)] = []


class Signed(Event):
    thing: str
    by: str

    @field_validator("by")
    @classmethod
    def _a_full_name(cls, value: str) -> str:
        if " " not in value:
            raise ValueError("is not a full name")
        return value.strip()


def paintings():
    """Return a lab whose events have fields of every supported type."""
    nothing = Decider("thing", "thing", None, lambda c, s: [], lambda s, e: s, [], [Painted, Signed])
    return Lab(domain=Domain(deciders=[nothing]))


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


@given(fields=painted)
@settings(max_examples=150, deadline=None)
def test_a_row_is_accepted_when_its_event_is(fields):
    """For fields of every type: a row is stored exactly when the event class accepts the same values."""
    single = {name: value for name, value in fields.items() if name != "finish" or value is not None}
    try:
        expected = Painted(thing="t", **single)
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
    row = {"id": "t", "type": "Painted", "occurred_at": START} | fields
    with paintings() as lab:
        try:
            lab.append_table("thing", pa.Table.from_pylist([row], schema=schema))
        except InvalidTable:
            assert expected is None
            assert lab.head == 0
        else:
            assert [r.event for r in lab._log.read(lab._categories["thing"], "t")] == [expected]


def test_rules_written_in_python_are_checked_by_hand():
    """A validator that SQL cannot express is run for every row; a value it would change is refused, too."""

    def signed(by):
        return pl.DataFrame({"id": ["t"], "type": ["Signed"], "occurred_at": [START], "by": [by]})

    with paintings() as lab:
        for by, says in (("Ann", "full name"), (" Ann Lee", "validator")):
            with pytest.raises(InvalidTable, match=says):
                lab.append_table("thing", signed(by))
        assert lab.append_table("thing", signed("Ann Lee")) == 1


def test_missing_required_fields_are_named():
    """A row whose event type needs a field that the table lacks, or that is empty, is refused."""
    base = {"id": ["t"], "type": ["Signed"], "occurred_at": [START]}
    with paintings() as lab:
        with pytest.raises(InvalidTable, match="by"):
            lab.append_table("thing", pl.DataFrame(base))
        with pytest.raises(InvalidTable, match="by"):
            lab.append_table("thing", pl.DataFrame(base | {"by": pl.Series([None], dtype=pl.String)}))
        assert lab.head == 0


def test_pandas_numbers_that_became_floats_are_whole_again():
    """An integer column that pandas turned into floats, because of a gap, is stored as integers."""
    frame = pd.DataFrame(
        {
            "id": ["t", "t"],
            "type": ["Painted", "Signed"],
            "occurred_at": [START, START],
            "colour": ["red", None],
            "layers": [3, None],
            "by": [None, "Ann Lee"],
        }
    )
    with paintings() as lab:
        assert lab.append_table("thing", frame) == 2
        frame["layers"] = [2.5, None]
        with pytest.raises(InvalidTable, match="whole number"):
            lab.append_table("thing", frame)


def test_a_stream_goes_on_after_a_table_moved_it():
    """A stream written singly, then by a table, then singly again has versions without holes."""
    event = OrderPlaced(order_id="o-1")
    with open_shop() as lab:
        category = lab._categories["order"]
        lab._store.append(category, "o-1", [event])
        lab.append_table("order", table())
        assert lab._store.append(category, "o-1", [event], expected_version=2)[0].version == 3


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_times_of_every_unit_are_taken(unit):
    """Times in milliseconds, microseconds and nanoseconds are stored alike; nothing finer is cut off in silence."""
    frame = table().with_columns(pl.col("occurred_at").dt.cast_time_unit(unit))
    with open_shop() as lab:
        lab.append_table("order", frame)
        assert lab.events().dicts()[0]["occurred_at"] == START
        finer = pa.array([1], pa.timestamp("ns", "UTC"))
        with pytest.raises(InvalidTable, match="Round it first"):
            lab.append_table("order", table().to_arrow().set_column(2, "occurred_at", finer))


def test_wide_decimals_are_taken_when_they_fit():
    """A column of 256-bit decimals is stored exactly, or refused by name."""
    for digits, value in ((40, "1.25"), (76, "1" * 40)):
        wide = pa.array([Decimal(value)], pa.decimal256(digits, 2))
        with open_shop() as lab:
            given = table().to_arrow().set_column(3, "amount", wide)
            if digits == 40:
                lab.append_table("order", given)
                assert '"amount":1.25' in lab.events().dicts()[0]["data"]
            else:
                with pytest.raises(InvalidTable) as refused:
                    lab.append_table("order", given)
                assert refused.value.column == "amount"


class Coded(Event):
    thing: str
    code: Annotated[str, Field(pattern="^[a-z]{2}$")]
    since: Annotated[date, Field(ge=date(2020, 1, 1))]


@pytest.mark.parametrize(
    ("code", "since", "column"),
    [("ab", date(2020, 1, 1), None), ("abc", date(2020, 1, 1), "code"), ("ab", date(2019, 12, 31), "type")],
)
def test_patterns_with_braces_and_bounds_that_are_dates_hold(code, since, column):
    """A pattern may count in braces, and a bound may be a date: both hold for tables as for single events."""
    given = pl.DataFrame({"id": ["t"], "type": ["Coded"], "occurred_at": [START], "code": [code], "since": [since]})
    coded = Decider("thing", "thing", None, lambda c, s: [], lambda s, e: s, [], [Coded])
    with Lab(domain=Domain(deciders=[coded])) as lab:
        if column is None:
            assert lab.append_table("thing", given) == 1
        else:
            with pytest.raises(InvalidTable) as refused:
                lab.append_table("thing", given)
            assert refused.value.column == column
