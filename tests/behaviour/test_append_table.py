"""A table of events is checked as a set by the rules of single events: all of it is stored, or nothing."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import Field
from support import START
from support.paintings import paintings

from cqrs_lab import Decider, Domain, Event, Lab, open_shop
from cqrs_lab.errors import DeclarationError, InvalidTable
from cqrs_lab.shop import OrderPlaced


def table(**columns):
    """Return one valid row of OrderPaid as a table, with some columns changed (None: left out)."""
    row = {"id": ["o-1"], "type": ["OrderPaid"], "occurred_at": [START], "amount": [Decimal("1.00")]} | columns
    return pl.DataFrame({name: values for name, values in row.items() if values is not None})


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


class Weighed(Event):
    parcel: str
    grams: int


class Lost(Event):
    parcel: str


@pytest.mark.parametrize(
    ("grams", "column", "says"),
    [(None, "type", "has a column 'grams', which Weighed need"), ([None, None], "grams", "is there for Weighed")],
)
def test_a_field_that_an_event_needs_is_there(grams, column, says):
    """An event without a field that it needs is refused, whether a column is empty or left out; others go without."""
    made = {"amount": None, "grams": grams and pl.Series(grams, dtype=pl.Int64)}
    with Lab(domain=Domain.of_events("parcel", key="parcel", events=[Weighed, Lost])) as lab:
        two = table(id=["a", "b"], type=["Lost", "Weighed"], occurred_at=[START] * 2, **made)
        with pytest.raises(InvalidTable, match=says) as refused:
            lab.append_table("parcel", two)
        assert (refused.value.column, refused.value.row, lab.head) == (column, 2, 0)
        assert lab.append_table("parcel", two.filter(pl.col("type") == "Lost")) == 1


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


@pytest.mark.parametrize(("bad", "rule"), [(Decimal("1.255"), "2 places"), (Decimal(-1), r"-1.*>= 0")])
def test_one_bad_row_among_many_stores_nothing_and_is_named(bad, rule):
    """The first bad row of a million is named by its number, column and rule; no row before it is stored."""
    rows, at = 1_000_000, 623_456
    amount = pl.when(pl.int_range(rows) == at).then(pl.lit(bad)).otherwise(pl.lit(Decimal("1.250")))
    frame = pl.select(id=pl.format("o-{}", pl.int_range(rows) % 5000), amount=amount).with_columns(
        type=pl.lit("OrderPaid"), occurred_at=pl.lit(START)
    )
    with open_shop() as lab:
        with pytest.raises(InvalidTable, match=rf"row {at + 1} .*amount is .*{rule}") as refused:
            lab.append_table("order", frame)
        assert (refused.value.row, refused.value.column) == (at + 1, "amount")
        assert "o-3456" in str(refused.value)
        assert lab.head == len(lab.events()) == 0
        assert lab._log.database.execute("SELECT count(*) FROM streams") == [(0,)]


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("total", 1e30, "digits"),
        ("total", float("nan"), "places"),
        ("total", float("inf"), "places"),
        ("total", 1.005, "places"),
        ("freight", Decimal("-1.00"), ">= 0"),
        ("type", "OrderLost", "one of"),
        ("id", "", "characters"),
        ("id", None, "is there"),
        ("occurred_at", None, "is there"),
    ],
)
def test_the_bad_row_of_three_is_named(column, value, rule):
    """A value that a single event would not take is refused between good ones, naming row, column and rule."""
    rows = [
        {"id": f"o-{n}", "type": "OrderPlaced", "occurred_at": START, "total": None, "freight": None} for n in range(3)
    ]
    rows[1][column] = value
    with open_shop(threads=1) as lab:
        with pytest.raises(InvalidTable, match=rule) as refused:
            lab.append_table("order", pa.Table.from_pylist(rows))
        assert (refused.value.row, refused.value.column) == (2, column)
        assert lab.head == 0


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


class Counted(Event):
    thing: str
    size: Annotated[int, Field(ge=1)]
    marks: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=2)] = ()


class Corrected(Event):
    thing: str
    size: int
    marks: tuple[int, ...] = ()


@pytest.mark.parametrize(("size", "marks"), [(0, []), (1, [1, 0]), (1, [1, 1, 1])])
def test_a_rule_of_one_type_is_none_of_another(size, marks):
    """A field of two types keeps the rules of each: what one refuses, of a list and its items too, the other has."""
    counting = Decider("thing", "thing", None, lambda c, s: [], lambda s, e: s, [], [Counted, Corrected])
    with Lab(domain=Domain(deciders=[counting])) as lab:
        for kind in ("Corrected", "Counted"):
            row = {"id": ["t"], "type": [kind], "occurred_at": [START], "size": [size], "marks": [marks]}
            given = pl.DataFrame(row, schema_overrides={"marks": pl.List(pl.Int64)})
            if kind == "Corrected":
                assert lab.append_table("thing", given) == 1
            else:
                with pytest.raises(InvalidTable, match="size" if size == 0 else "marks"):
                    lab.append_table("thing", given)
