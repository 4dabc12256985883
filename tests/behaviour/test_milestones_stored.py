"""Tables of milestones in every form, and what the shop's log makes of them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pandas as pd
import polars as pl
import pytest
from support.importing import log, serve_all, times

from cqrs_lab import open_shop
from cqrs_lab.errors import ImportFailed, InvalidTable
from cqrs_lab.workbench.data.importers import events_from_milestones

MILESTONES = {"OrderPlaced": "ordered_at", "OrderPaid": "paid_at", "OrderDelivered": "arrived_at"}


def table() -> pl.DataFrame:
    """A table with one row for each order; times are naive."""
    return pl.DataFrame(
        {
            "order_id": ["b", "a", "c"],
            "ordered_at": times("2024-01-01 10:00", "2024-01-01 10:00", "2024-01-02 09:00"),
            "paid_at": times("2024-01-01 10:00", "2024-01-03 00:00", None),
            "arrived_at": times(None, "2024-01-02 09:00", None),
            "who": ["x", "y", None],
            "amount": [Decimal("10.50"), Decimal("7.00"), None],
        }
    )


EXPECTED = [
    ("a", "OrderPlaced", *times("2024-01-01 10:00+00:00")),
    ("b", "OrderPlaced", *times("2024-01-01 10:00+00:00")),
    ("b", "OrderPaid", *times("2024-01-01 10:00+00:00")),
    ("c", "OrderPlaced", *times("2024-01-02 09:00+00:00")),
    ("a", "OrderDelivered", *times("2024-01-02 09:00+00:00")),
    ("a", "OrderPaid", *times("2024-01-03 00:00+00:00")),
]


def test_a_table_of_milestones_becomes_events_that_the_shop_takes():
    """One row for each order and nothing but times is enough; all three servings agree on what becomes of it."""
    bare = table().select("order_id", *MILESTONES.values())
    events = events_from_milestones(bare, milestones=MILESTONES)
    assert events.schema == {"id": pl.String, "type": pl.String, "occurred_at": pl.Datetime("us", "UTC")}
    assert events.rows() == EXPECTED
    with open_shop() as lab:
        assert lab.append_table("order", events) == 6
        for served in serve_all(lab):
            assert served.sql("SELECT order_id, status FROM order_summary ORDER BY 1").fetchall() == [
                ("a", "DELIVERED"),
                ("b", "PAID"),
                ("c", "PENDING"),
            ]


@pytest.mark.parametrize("form", ["polars", "pandas", "arrow", "parquet", "csv"])
def test_every_form_of_table_gives_the_same_events(form, tmp_path):
    """Polars, pandas, Arrow, Parquet and CSV with the same content become the same events, money exact."""
    path = tmp_path / f"t.{form}"
    frame = table()
    forms: dict[str, Callable[[], object]] = {
        "polars": lambda: frame,
        "pandas": lambda: frame.to_pandas(),
        "arrow": lambda: frame.to_arrow(),
        "parquet": lambda: (frame.write_parquet(path), path)[1],
        "csv": lambda: (frame.write_csv(path), str(path))[1],
    }
    fields = {"OrderPlaced": {"customer_id": "who", "total": "amount"}, "OrderPaid": {"amount": "amount"}}
    events = events_from_milestones(forms[form](), milestones=MILESTONES, fields=fields)
    assert events.select("id", "type", "occurred_at").rows() == EXPECTED
    assert events.columns == ["id", "type", "occurred_at", "customer_id", "total", "amount"]
    with open_shop() as lab:
        lab.append_table("order", events)
        assert log(lab, "customer_id, total, amount") == [
            ("y", Decimal("7.00"), None),
            ("x", Decimal("10.50"), None),
            (None, None, Decimal("10.50")),
            (None, None, None),
            (None, None, None),
            (None, None, Decimal("7.00")),
        ]


def test_keys_of_numbers_become_text_and_names_of_digits_stay_whole(tmp_path):
    """A whole number is a key as text; in CSV 007 keeps its zeros, as a key and as a field."""
    frame = pl.DataFrame({"n": [10, 9], "at": times("2024-01-01", "2024-01-01")})
    assert events_from_milestones(frame, "n", milestones={"OrderPlaced": "at"})["id"].to_list() == ["10", "9"]
    path = tmp_path / "t.csv"
    path.write_text("n,who,units,price,at\n007,007,3,1.10,2024-01-01\n08,12,4,2.255,2024-01-01\n")
    fields = {"OrderPlaced": {"customer_id": "who", "units": "units", "total": "price"}}
    events = events_from_milestones(path, "n", milestones={"OrderPlaced": "at"}, fields=fields)
    assert events.drop("occurred_at", "type").rows() == [
        ("007", "007", 3, Decimal("1.100")),
        ("08", "12", 4, Decimal("2.255")),
    ]


def test_files_and_objects_that_are_no_tables_are_refused(tmp_path):
    """A file is named with its line when it is CSV; an object by its type."""
    path = tmp_path / "t.csv"
    path.write_text("order_id,at\na,2024-01-01\nb,soon\n")
    with pytest.raises(ImportFailed, match=r"t\.csv, line 3, column 'at': it is 'soon'"):
        events_from_milestones(path, milestones={"OrderPlaced": "at"})
    (tmp_path / "t.parquet").write_text("no parquet")
    for name in ("t.parquet", "missing.parquet", "missing.csv"):
        with pytest.raises(ImportFailed, match=r"cannot be read"):
            events_from_milestones(tmp_path / name, milestones={"OrderPlaced": "at"})
    with pytest.raises(ImportFailed, match="a dict is not a table"):
        events_from_milestones({}, milestones={"OrderPlaced": "at"})
    mixed = pd.DataFrame({"order_id": ["a", 1], "at": times("2024-01-01", None)})
    with pytest.raises(ImportFailed, match="the table cannot be read"):
        events_from_milestones(mixed, milestones={"OrderPlaced": "at"})


def test_the_log_still_checks_what_comes_from_milestones():
    """A field that breaks a rule of its event is refused by append_table, and nothing is stored."""
    frame = table().with_columns(pl.lit(Decimal("-1.00")).alias("amount"))
    events = events_from_milestones(frame, milestones=MILESTONES, fields={"OrderPlaced": {"total": "amount"}})
    with open_shop() as lab:
        with pytest.raises(InvalidTable, match="total"):
            lab.append_table("order", events)
        assert lab.head == 0
