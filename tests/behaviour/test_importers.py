"""Importers: a shop's files and anybody's milestones become events, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from support import assert_same

from cqrs_lab import Domain, Lab, open_shop
from cqrs_lab.errors import CqrsLabError, DeclarationError, ImportFailed, InvalidTable, ReadOnlyStore
from cqrs_lab.shop import RegisterCustomer, daily_orders, order_summary, orders
from cqrs_lab.workbench.importers import OlistReport, events_from_milestones, load_olist

WAYS = ("view", "materialized", "projection")

# Made up, in the format of the public download: one order for each thing that can be odd.
TINY = {
    "orders": """
order_id,customer_id,order_status,order_purchase_timestamp,order_approved_at,order_delivered_carrier_date,order_delivered_customer_date,order_estimated_delivery_date
plain,c-1,delivered,2021-03-01 10:00:00,2021-03-01 10:05:00,2021-03-02 08:00:00,2021-03-04 18:30:00,2021-03-20 00:00:00
early,c-2,delivered,2021-03-02 09:00:00,2021-03-02 12:00:00,2021-03-02 08:30:00,2021-03-05 10:00:00,2021-03-20 00:00:00
nodate,c-3,delivered,2021-03-03 07:00:00,2021-03-03 07:00:00,2021-03-04 07:00:00,,2021-03-20 00:00:00
gone,c-4,canceled,2021-03-03 11:00:00,2021-03-03 11:10:00,2021-03-05 10:00:00,,2021-03-20 00:00:00
void,c-5,unavailable,2021-03-04 00:00:00,,,,2021-03-20 00:00:00
wait,c-6,processing,2021-03-05 00:00:00,2021-03-05 00:30:00,,,2021-03-20 00:00:00
ship,c-7,shipped,2021-03-05 01:00:00,2021-03-05 02:00:00,,,2021-03-20 00:00:00
""",
    "customers": """
customer_id,customer_unique_id,customer_zip_code_prefix,customer_city,customer_state
c-9,ida,1,nowhere,NN
c-7,fox,1,"são tomé, do sul",SP
c-3,ana,1,outerville,OO
c-2,ben,1,innerville,II
c-1,ana,1,innerville,II
c-4,cid,1,,
c-5,dee,1,innerville,II
c-6,eve,1,innerville,II
""",
    "order_items": """
order_id,order_item_id,product_id,seller_id,shipping_limit_date,price,freight_value
plain,3,bowl,s,2021-03-09 00:00:00,20.00,4.1
plain,1,mug,s,2021-03-09 00:00:00,12.5,3.00
plain,2,mug,s,2021-03-09 00:00:00,12.50,3.00
early,1,lamp,s,2021-03-09 00:00:00,80,9.99
nodate,1,mug,s,2021-03-09 00:00:00,12.50,3.00
ghost,1,mug,s,2021-03-09 00:00:00,12.50,3.00
gone,1,bowl,s,2021-03-09 00:00:00,20.00,4.10
wait,1,lamp,s,2021-03-09 00:00:00,80.00,0.00
ship,1,vase,s,2021-03-09 00:00:00,12.50,3.00
""",
    "order_payments": """
order_id,payment_sequential,payment_type,payment_installments,payment_value
plain,2,credit_card,1,50.00
plain,1,voucher,1,5.10
early,1,boleto,1,89.90
nodate,1,credit_card,3,15.50
gone,1,debit_card,1,24.1
void,1,voucher,1,7.00
ship,1,credit_card,1,15.50
ghost,1,credit_card,1,15.50
""",
    "products": """
product_id,product_category_name
mug,kitchen
bowl,kitchen
lamp,light
""",
}

# (type, order, day and time in March 2021, source_status), by position
TINY_EVENTS = [
    ("OrderPlaced", "plain", "01 10:00", None),
    ("OrderPaid", "plain", "01 10:05", None),
    ("OrderPaid", "plain", "01 10:05", None),
    ("OrderShipped", "plain", "02 08:00", None),
    ("OrderShipped", "early", "02 08:30", None),
    ("OrderPlaced", "early", "02 09:00", None),
    ("OrderPaid", "early", "02 12:00", None),
    ("OrderPlaced", "nodate", "03 07:00", None),
    ("OrderPaid", "nodate", "03 07:00", None),
    ("OrderPlaced", "gone", "03 11:00", None),
    ("OrderPaid", "gone", "03 11:10", None),
    ("OrderPlaced", "void", "04 00:00", None),
    ("OrderPaid", "void", "04 00:00", None),
    ("OrderCancelled", "void", "04 00:00", "unavailable"),
    ("OrderShipped", "nodate", "04 07:00", None),
    ("OrderDelivered", "nodate", "04 07:00", "delivered"),
    ("OrderDelivered", "plain", "04 18:30", "delivered"),
    ("OrderPlaced", "wait", "05 00:00", "processing"),
    ("OrderPlaced", "ship", "05 01:00", None),
    ("OrderPaid", "ship", "05 02:00", None),
    ("OrderShipped", "ship", "05 02:00", "shipped"),
    ("OrderShipped", "gone", "05 10:00", None),
    ("OrderDelivered", "early", "05 10:00", "delivered"),
    ("OrderCancelled", "gone", "05 10:00", "canceled"),
]

TINY_ANOMALIES = {
    ("cancelled_after_shipping", "gone"),
    ("customer_moved", "nodate"),
    ("customer_without_order", None),
    ("delivered_without_date", "nodate"),
    ("line_without_order", "ghost"),
    ("order_without_lines", "void"),
    ("order_without_payment", "wait"),
    ("payment_differs", "early"),
    ("payment_without_order", "ghost"),
    ("product_unknown", "ship"),
    ("shipped_before_paid", "early"),
    ("shipped_before_placed", "early"),
    ("time_inferred", "gone"),
    ("time_inferred", "nodate"),
    ("time_inferred", "ship"),
    ("time_inferred", "void"),
}


def path_of(folder: Path, name: str) -> Path:
    """Return the path of one of the folder's files."""
    return folder / f"olist_{name}_dataset.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the made-up shop."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, text in TINY.items():
        path_of(folder, name).write_text(text.lstrip(), encoding="utf-8")
    return folder


def edit(folder: Path, name: str, old: str, new: str) -> None:
    """Replace one text in one of the folder's files."""
    text = path_of(folder, name).read_text(encoding="utf-8")
    assert text.count(old) == 1, (old, text.count(old))
    path_of(folder, name).write_text(text.replace(old, new), encoding="utf-8")


def log(lab: Lab, columns: str, where: str = "true") -> list[tuple]:
    """Return columns of the orders' events, by position."""
    past = lab.as_of(position=lab.head)
    return past.sql(f"SELECT {columns} FROM order_events WHERE {where} ORDER BY position").fetchall()


def one(lab: Lab, sql: str) -> object:
    """Return the one value that a question to the log has."""
    return lab.as_of(position=lab.head).sql(sql).fetchall()[0][0]


def kinds(report: OlistReport, *wanted: str) -> set[tuple[str, str | None]]:
    """Return (kind, order) of the anomalies, all or those of some kinds."""
    rows = report.anomalies.select("kind", "order_id").rows()
    return {row for row in rows if not wanted or row[0] in wanted}


def serve_all(lab: Lab) -> list:
    """Serve order_summary in all ways, having checked for both read models that these agree to the last row."""
    for model in (order_summary, daily_orders):
        view, *others = (lab.serve(model, as_=way) for way in WAYS)
        columns = ", ".join(view.rows().columns)  # a projection keeps more than it shows
        for other in others:
            assert_same(
                lab, f'SELECT {columns} FROM "view".{model.name}', f"SELECT {columns} FROM {other.as_}.{model.name}"
            )
    return [lab.serve(order_summary, as_=way) for way in WAYS]


# -- the folder as it should be ----------------------------------------------------------------------------------------


def test_every_fact_of_the_folder_is_an_event_in_order_of_time_and_stage(folder):
    """Positions follow time, then stage; each order's last event alone has the shop's last word."""
    with open_shop() as lab:
        load_olist(lab, folder)
        found = log(lab, "type, order_id, strftime(occurred_at, '%Y-%m %d %H:%M'), source_status")
    assert found == [(kind, order, f"2021-03 {time}", status) for kind, order, time, status in TINY_EVENTS]


def test_items_become_lines_and_sums(folder):
    """Items of one product and price are one line with their number as quantity, in order of the items."""
    with open_shop() as lab:
        load_olist(lab, folder)
        (plain,) = log(lab, "lines, total, freight, customer_id", "type = 'OrderPlaced' AND order_id = 'plain'")
        assert plain[0] == [
            {"product_id": "mug", "quantity": 2, "unit_price": Decimal("12.50")},
            {"product_id": "bowl", "quantity": 1, "unit_price": Decimal("20.00")},
        ]
        assert plain[1:] == (Decimal("45.00"), Decimal("10.10"), "ana")
        assert log(lab, "lines, total, freight", "type = 'OrderPlaced' AND order_id = 'void'") == [
            ([], Decimal("0.00"), Decimal("0.00"))
        ]


def test_one_product_at_two_prices_is_two_lines(folder):
    """A price is part of a line: units sold at another price are another line."""
    edit(folder, "order_items", "plain,2,mug,s,2021-03-09 00:00:00,12.50", "plain,2,mug,s,2021-03-09 00:00:00,11.50")
    with open_shop() as lab:
        load_olist(lab, folder)
        ((lines,),) = log(lab, "lines", "type = 'OrderPlaced' AND order_id = 'plain'")
    assert [(line["product_id"], line["quantity"], str(line["unit_price"])) for line in lines] == [
        ("mug", 1, "12.50"),
        ("mug", 1, "11.50"),
        ("bowl", 1, "20.00"),
    ]


def test_each_payment_is_an_event_with_its_method_and_amount(folder):
    """Payments of one order stand in their own sequence, at the time of approval."""
    with open_shop() as lab:
        load_olist(lab, folder)
        paid = log(lab, "order_id, method, amount::VARCHAR", "type = 'OrderPaid'")
        assert [row for row in paid if row[0] in ("plain", "gone")] == [
            ("plain", "voucher", "5.10"),
            ("plain", "credit_card", "50.00"),
            ("gone", "debit_card", "24.10"),
        ]
        assert log(lab, "order_id, reason", "type = 'OrderCancelled'") == [
            ("void", "unavailable"),
            ("gone", "canceled"),
        ]


def test_people_are_registered_once_at_their_first_order(folder):
    """A person with two customer ids is one customer, living where the first order went, before any order event."""
    with open_shop() as lab:
        report = load_olist(lab, folder)
        people = lab.as_of(position=lab.head).sql(
            "SELECT customer_id, city, state, strftime(occurred_at, '%d %H:%M'), position FROM customer_events "
            "ORDER BY position"
        )
        assert people.fetchall() == [
            ("ana", "innerville", "II", "01 10:00", 1),
            ("ben", "innerville", "II", "02 09:00", 2),
            ("cid", None, None, "03 11:00", 3),
            ("dee", "innerville", "II", "04 00:00", 4),
            ("eve", "innerville", "II", "05 00:00", 5),
            ("fox", "são tomé, do sul", "SP", "05 01:00", 6),
        ]
        assert report.customers == 6
        assert {row["order_id"] for row in lab.serve(order_summary).where(customer_id="ana").dicts()} == {
            "plain",
            "nodate",
        }


def test_the_report_lists_all_that_is_odd(folder):
    """Each oddity of the made-up shop is found, and nothing else is."""
    with open_shop() as lab:
        report = load_olist(lab, folder)
    assert report.anomalies.schema == {"kind": pl.String, "order_id": pl.String, "detail": pl.String}
    assert report.anomalies.null_count().row(0) == (0, 1, 0)
    assert kinds(report) == TINY_ANOMALIES
    inferred = report.anomalies.filter(pl.col("kind") == "time_inferred", pl.col("order_id") == "void")["detail"]
    assert inferred.to_list() == [
        "OrderCancelled took the last known time of the order, 2021-03-04 00:00:00 UTC",
        "OrderPaid took the last known time of the order, 2021-03-04 00:00:00 UTC",
    ]
    (detail,) = report.anomalies.filter(pl.col("kind") == "payment_differs")["detail"]
    assert detail == "89.90 paid, 89.99 due with freight"


def test_the_report_counts_and_shows_itself(folder):
    """Counts are of what was stored; the text and the notebook form name each kind of anomaly with its count."""
    with open_shop() as lab:
        report = load_olist(lab, folder)
        assert report.position == lab.head == 30
    assert (report.customers, report.orders, report.units) == (6, 7, 8)
    assert report.events == {
        "CustomerRegistered": 6,
        "OrderPlaced": 7,
        "OrderPaid": 7,
        "OrderShipped": 5,
        "OrderDelivered": 3,
        "OrderCancelled": 2,
    }
    assert "7 orders of 8 units and 6 new customers became 30 events" in repr(report)
    assert "       5  time_inferred" in repr(report)
    assert "7 orders of 8 units" in report._repr_html_()
    assert "time_inferred" in report._repr_html_()
    assert report.kinds.row(0) == ("time_inferred", 5)
    with pytest.raises(FrozenInstanceError):
        report.orders = 0


def test_other_oddities_are_found_too(folder):
    """Times in the wrong order and words that the shop never used are reported, and the events kept."""
    edit(
        folder,
        "orders",
        "2021-03-01 10:05:00,2021-03-02 08:00:00,2021-03-04",
        "2021-03-01 09:00:00,2021-03-05 08:00:00,2021-03-04",
    )
    edit(
        folder,
        "orders",
        "wait,c-6,processing,2021-03-05 00:00:00,2021-03-05 00:30:00,,",
        "wait,c-6,processing,2021-03-05 00:00:00,2021-03-05 00:30:00,2021-03-06 00:00:00,2021-03-04 00:00:00",
    )
    edit(
        folder,
        "orders",
        "gone,c-4,canceled,2021-03-03 11:00:00,2021-03-03 11:10:00,2021-03-05 10:00:00,,",
        "gone,c-4,canceled,2021-03-03 11:00:00,2021-03-03 11:10:00,2021-03-05 10:00:00,2021-03-06 10:00:00,",
    )
    edit(folder, "orders", "ship,c-7,shipped", "ship,c-7,teleported")
    with open_shop() as lab:
        report = load_olist(lab, folder)
        assert log(lab, "source_status", "order_id = 'ship' AND source_status IS NOT NULL") == [("teleported",)]
        assert log(lab, "type", "order_id = 'gone'")[-2:] == [("OrderDelivered",), ("OrderCancelled",)]
    assert kinds(report) - TINY_ANOMALIES == {
        ("paid_before_placed", "plain"),
        ("delivered_before_shipped", "plain"),
        ("delivered_before_shipped", "wait"),
        ("delivered_before_placed", "wait"),
        ("delivered_before_paid", "wait"),
        ("further_than_status", "wait"),
        ("cancelled_after_delivery", "gone"),
        ("status_unknown", "ship"),
    }


def test_repeated_rows_are_reported_and_money_is_kept(folder):
    """Of two orders or customers with one id the first counts; a repeated item or payment is counted again."""
    for name, row in {
        "orders": "plain,c-2,canceled,2020-01-01 10:00:00,,,,",
        "customers": "c-1,ben,1,x,Y",
        "order_items": "plain,1,mug,s,2021-03-09 00:00:00,12.50,3.00",
        "order_payments": "plain,1,voucher,1,5.10",
    }.items():
        with path_of(folder, name).open("a", encoding="utf-8") as file:
            file.write(row + "\n")
    with open_shop() as lab:
        report = load_olist(lab, folder)
        assert lab.serve(order_summary).get("plain")["paid"] == Decimal("60.20")
        assert lab.serve(order_summary).get("plain")["item_count"] == 4
        assert lab.serve(order_summary).get("plain")["customer_id"] == "ana"
        assert lab.serve(order_summary).get("plain")["status"] == "DELIVERED"
    repeated = {"duplicate_order", "duplicate_customer", "duplicate_line", "duplicate_payment"}
    assert kinds(report, *repeated) == {(kind, None if kind == "duplicate_customer" else "plain") for kind in repeated}
    (detail,) = report.anomalies.filter(pl.col("kind") == "duplicate_order")["detail"]
    assert detail == "line 9 repeats order_id plain; it was left out"


def test_an_order_of_an_unknown_customer_keeps_its_own_customer_id(folder):
    """A customer id that the customers file lacks stays on the order, and nobody is registered for it."""
    edit(folder, "customers", "c-2,ben,1,innerville,II\n", "")
    with open_shop() as lab:
        report = load_olist(lab, folder)
        assert log(lab, "customer_id", "type = 'OrderPlaced' AND order_id = 'early'") == [("c-2",)]
        assert one(lab, "SELECT count(*) FROM customer_events") == 5
    assert kinds(report, "customer_unknown") == {("customer_unknown", "early")}


def test_an_order_without_a_time_of_placing_takes_its_last_known_time(folder):
    """Placing is a fact like others: without its own time it takes the order's last one, and is reported."""
    edit(folder, "orders", "wait,c-6,processing,2021-03-05 00:00:00", "wait,c-6,processing,")
    with open_shop() as lab:
        report = load_olist(lab, folder)
        assert log(lab, "strftime(occurred_at, '%d %H:%M')", "order_id = 'wait'") == [("05 00:30",)]
        assert (
            one(lab, "SELECT strftime(occurred_at, '%H:%M') FROM customer_events WHERE customer_id = 'eve'") == "00:30"
        )
    assert ("time_inferred", "wait") in kinds(report)


def test_all_three_servings_agree_on_the_imported_shop(folder):
    """View, materialized table and projection have the same rows, also when the projection takes them as a batch."""
    with open_shop() as lab:
        for model in (order_summary, daily_orders):
            for way in WAYS:
                lab.serve(model, as_=way)
        load_olist(lab, folder)
        lab.catch_up()
        for model in (order_summary, daily_orders):
            lab.serve(model, as_="materialized").refresh()
        for served in serve_all(lab):
            assert served.position == lab.head
            statuses = served.sql("SELECT order_id, status FROM order_summary").fetchall()
            assert dict(statuses) == {
                "plain": "DELIVERED",
                "early": "DELIVERED",
                "nodate": "DELIVERED",
                "gone": "CANCELLED",
                "void": "CANCELLED",
                "wait": "PENDING",
                "ship": "SHIPPED",
            }


def test_the_store_learns_now_what_happened_then(folder):
    """occurred_at is the shop's time, recorded_at that of the import."""
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    with open_shop(clock=lambda: now) as lab:
        load_olist(lab, folder)
        assert {row["recorded_at"] for row in lab.events().dicts()} == {now}
        assert lab.as_of(occurred=date(2021, 3, 1)).sql("SELECT count(*) FROM order_events").fetchall() == [(3,)]


def test_bom_windows_line_ends_quotes_and_extra_columns_are_taken(folder):
    """A file that a spreadsheet saved again says the same, and a quoted field may span lines."""
    with open_shop() as lab:
        load_olist(lab, folder)
        before = log(lab, "type, order_id, occurred_at, lines, total, amount")
    orders_file = path_of(folder, "orders")
    text = (
        orders_file.read_text(encoding="utf-8")
        .replace("_date\n", "_date,note\n")
        .replace("20 00:00:00\n", '20 00:00:00,"two\nlines, ""so"""\n')
    )
    orders_file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    with open_shop() as lab:
        load_olist(lab, folder)
        assert log(lab, "type, order_id, occurred_at, lines, total, amount") == before


def test_the_order_of_rows_in_the_files_does_not_matter(folder):
    """The same rows upside down are the same events at the same positions, those of one moment included."""
    edit(folder, "orders", "wait,c-6,processing,2021-03-05 00:00:00", "wait,c-6,processing,2021-03-05 01:00:00")
    found = []
    for _ in range(2):
        with open_shop() as lab:
            load_olist(lab, folder)
            people = lab.as_of(position=lab.head).sql("SELECT * EXCLUDE (event_id, recorded_at) FROM customer_events")
            found.append((log(lab, "* EXCLUDE (event_id, recorded_at)"), people.fetchall()))
            placed = log(lab, "order_id", "type = 'OrderPlaced'")
            assert placed[-2:] == [("ship",), ("wait",)]
        for name in TINY:
            header, *rows = path_of(folder, name).read_text(encoding="utf-8").splitlines()
            path_of(folder, name).write_text("\n".join([header, *reversed(rows)]), encoding="utf-8")
    assert found[0] == found[1]


# -- parts of the folder -----------------------------------------------------------------------------------------------


def test_the_orders_file_alone_is_enough(folder):
    """Without the other files amounts and lines are unknown, an approval is a payment, and that is no anomaly."""
    for name in ("customers", "order_items", "order_payments", "products"):
        path_of(folder, name).unlink()
    with open_shop() as lab:
        report = load_olist(lab, folder)
        placed = log(lab, "customer_id, lines, total, freight", "type = 'OrderPlaced'")
        assert placed[0] == ("c-1", [], None, None)
        assert {row[1:] == ([], None, None) for row in placed} == {True}
        paid = log(lab, "order_id, amount, method", "type = 'OrderPaid'")
        assert paid == [(name, None, None) for name in ("plain", "early", "nodate", "gone", "wait", "ship")]
        assert one(lab, "SELECT count(*) FROM customer_events") == 0
        assert {served.get("wait")["status"] for served in serve_all(lab)} == {"PAID"}
    assert (report.customers, report.orders, report.units) == (0, 7, 0)
    assert "CustomerRegistered" not in report.events
    assert {kind for kind, _ in kinds(report)} == {
        "cancelled_after_shipping",
        "delivered_without_date",
        "shipped_before_paid",
        "shipped_before_placed",
        "time_inferred",
    }


@pytest.mark.parametrize(
    ("missing", "gone"),
    [
        ("customers", {"customer_moved", "customer_without_order"}),
        ("order_items", {"line_without_order", "order_without_lines", "payment_differs", "product_unknown"}),
        ("order_payments", {"order_without_payment", "payment_differs", "payment_without_order"}),
        ("products", {"product_unknown"}),
    ],
)
def test_what_a_missing_file_would_show_is_not_reported(folder, missing, gone):
    """A file that is not there leaves its facts unknown; it does not make every order odd."""
    path_of(folder, missing).unlink()
    with open_shop() as lab:
        found = kinds(load_olist(lab, folder))
        if missing == "order_items":
            assert log(lab, "total", "total IS NOT NULL") == []
    assert found == {row for row in TINY_ANOMALIES if row[0] not in gone}


# -- times -------------------------------------------------------------------------------------------------------------


def test_times_are_local_to_the_zone_that_is_given(folder):
    """The same file in another zone is the same shop some hours later."""
    with open_shop() as lab:
        load_olist(lab, folder, zone="America/Sao_Paulo")
        assert log(lab, "occurred_at")[0] == (datetime(2021, 3, 1, 13, tzinfo=UTC),)


def test_a_time_that_the_clock_skipped_is_moved_on_and_reported(folder):
    """00:30 on the day that São Paulo's clocks jumped from 00:00 to 01:00 is 03:30 UTC, which they called 01:30."""
    edit(folder, "orders", "plain,c-1,delivered,2021-03-01 10:00:00", "plain,c-1,delivered,2017-10-15 00:30:00")
    with open_shop() as lab:
        report = load_olist(lab, folder, zone="America/Sao_Paulo")
        assert log(lab, "occurred_at")[0] == (datetime(2017, 10, 15, 3, 30, tzinfo=UTC),)
    found = report.anomalies.filter(pl.col("kind") == "time_did_not_exist").rows()
    assert found == [
        (
            "time_did_not_exist",
            "plain",
            "order_purchase_timestamp 2017-10-15 00:30:00 in America/Sao_Paulo became 2017-10-15 03:30:00 UTC",
        )
    ]


def test_a_time_that_the_clock_showed_twice_is_the_first_and_reported(folder):
    """23:30 on the evening that São Paulo's clocks went back is taken as the summer time, 01:30 UTC."""
    edit(folder, "orders", "plain,c-1,delivered,2021-03-01 10:00:00", "plain,c-1,delivered,2018-02-17 23:30:00")
    with open_shop() as lab:
        report = load_olist(lab, folder, zone="America/Sao_Paulo")
        assert log(lab, "occurred_at")[0] == (datetime(2018, 2, 18, 1, 30, tzinfo=UTC),)
    assert kinds(report, "time_was_ambiguous", "time_did_not_exist") == {("time_was_ambiguous", "plain")}


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", 3])
def test_an_unknown_zone_is_refused(folder, zone):
    """A zone that nobody knows is named, and nothing is stored."""
    with open_shop() as lab:
        with pytest.raises(ImportFailed, match="is not a time zone"):
            load_olist(lab, folder, zone=zone)
        assert lab.head == 0


# -- bad folders store nothing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "old", "new", "line", "column"),
    [
        ("orders", "2021-03-02 09:00:00", "2021-02-30 09:00:00", 3, "order_purchase_timestamp"),
        ("orders", "2021-03-02 12:00:00", "02/03/2021 12:00", 3, "order_approved_at"),
        ("orders", "2021-03-02 12:00:00", "2021-03-02 12:00:61", 3, "order_approved_at"),
        ("orders", "2021-03-02 12:00:00", "2021-03-02 12:00:00+99:00", 3, "order_approved_at"),
        ("orders", "void,c-5,unavailable,2021-03-04 00:00:00", "void,c-5,unavailable,", 6, "order_purchase_timestamp"),
        ("orders", "void,c-5,unavailable", "void,c-5,", 6, "order_status"),
        ("orders", "void,c-5", ",c-5", 6, "order_id"),
        ("orders", "void,c-5", f"{'v' * 501},c-5", 6, "order_id"),
        ("orders", "void,c-5,", "void,c-5,x,", 6, None),
        ("orders", "void,c-5,", 'void,"c-5,', 6, None),
        ("orders", "void,c-5,", 'void,"c"-5,', 6, None),
        ("orders", ",order_status,", ",status,", 1, "order_status"),
        ("orders", "order_estimated_delivery_date", "order_id", 1, "order_id"),
        ("order_items", "9.99", "9.999", 5, "freight_value"),
        ("order_items", "9.99", "-9.99", 5, "freight_value"),
        ("order_items", "9.99", "9,99", 5, None),
        ("order_items", "9.99", "NaN", 5, "freight_value"),
        ("order_items", "9.99", "1e1", 5, "freight_value"),
        ("order_items", "80,9.99", ",9.99", 5, "price"),
        ("order_items", "early,1", "early,one", 5, "order_item_id"),
        ("order_items", "ghost,1,mug", "ghost,1,", 7, "product_id"),
        ("order_payments", "89.90", "eighty", 4, "payment_value"),
        ("order_payments", "89.90", "12345678901234567.00", 4, "payment_value"),
        ("order_payments", "early,1,boleto", "early,,boleto", 4, "payment_sequential"),
        ("customers", "c-4,cid", "c-4,", 7, "customer_unique_id"),
        ("products", "bowl,", ",", 3, "product_id"),
    ],
)
def test_a_malformed_file_stores_nothing_and_is_named(folder, name, old, new, line, column):
    """One bad field anywhere, and neither a customer nor an order is stored; file, line and column are named."""
    edit(folder, name, old, new)
    with open_shop() as lab:
        lab.send(RegisterCustomer(customer_id="before", name="B", email="b@example.org"))
        with pytest.raises(ImportFailed) as caught:
            load_olist(lab, folder)
        assert lab.head == 1
    error = caught.value
    assert (error.file, error.line, error.column) == (path_of(folder, name).name, line, column)
    for part in (error.file, f"line {line}", column or "", "nothing was stored"):
        assert part in str(error)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(
    ("content", "line"),
    [(b"", 1), (b"order_id\n", 1), ("order_id\nS\xe3o\n".encode("latin-1"), 2), ("order_id\nx\n".encode("utf-16"), 1)],
    ids=["empty", "header only", "Latin-1", "UTF-16"],
)
def test_an_empty_file_or_another_encoding_is_refused(folder, name, content, line):
    """Each file, where it is there, has rows and is UTF-8; nothing is guessed."""
    path_of(folder, name).write_bytes(content)
    with open_shop() as lab:
        with pytest.raises(
            ImportFailed, match=rf"olist_{name}_dataset\.csv, line {line}: it (holds no rows|is not UTF-8)"
        ):
            load_olist(lab, folder)
        assert lab.head == 0


def test_a_folder_without_orders_is_refused(folder, tmp_path):
    """Without the orders file there is nothing to import, whatever else is there."""
    path_of(folder, "orders").unlink()
    with open_shop() as lab:
        for place in (folder, tmp_path / "missing"):
            with pytest.raises(ImportFailed, match=r"olist_orders_dataset\.csv: it is not in") as caught:
                load_olist(lab, place)
            assert caught.value.file == "olist_orders_dataset.csv"
            assert isinstance(caught.value, CqrsLabError)
            assert isinstance(caught.value, ValueError)
        assert lab.head == 0


def test_what_only_the_log_would_refuse_stores_no_customer_either(folder):
    """Prices that fit one by one but not as a sum are refused before the customers are stored."""
    most = "9999999999999999.99"
    edit(folder, "order_items", "plain,1,mug,s,2021-03-09 00:00:00,12.5,", f"plain,1,mug,s,2021-03-09 00:00:00,{most},")
    edit(
        folder, "order_items", "plain,3,bowl,s,2021-03-09 00:00:00,20.00", f"plain,3,bowl,s,2021-03-09 00:00:00,{most}"
    )
    with open_shop() as lab:
        with pytest.raises(ImportFailed, match=r"'order'.*'plain'.*total"):
            load_olist(lab, folder)
        assert lab.head == 0


def test_a_lab_without_customers_or_read_only_stores_nothing(folder, tmp_path):
    """A lab that cannot take the whole folder takes none of it."""
    with Lab(domain=Domain(deciders=[orders])) as lab:
        with pytest.raises(DeclarationError, match="customer"):
            load_olist(lab, folder)
        assert lab.head == 0
    open_shop(tmp_path / "s.duckdb").close()
    with open_shop(tmp_path / "s.duckdb", read_only=True) as lab, pytest.raises(ReadOnlyStore):
        load_olist(lab, folder)


# -- a second import ---------------------------------------------------------------------------------------------------


def test_the_same_folder_twice_is_refused(folder):
    """A second import would double every order, so it is refused and the store stays as it was."""
    with open_shop() as lab:
        load_olist(lab, folder)
        head = lab.head
        with pytest.raises(ImportFailed, match=r"7 of the 7 orders in .* are in the store already, such as 'early'"):
            load_olist(lab, folder)
        assert lab.head == head


def test_one_order_in_common_is_enough_to_refuse(folder):
    """A folder that shares an order with the store is refused whole, customers too."""
    with open_shop() as lab:
        lab.append_table(
            "order",
            pl.DataFrame({"id": ["ship"], "type": ["OrderPlaced"], "occurred_at": [datetime(2021, 1, 1, tzinfo=UTC)]}),
        )
        with pytest.raises(ImportFailed, match=r"1 of the 7 orders in .* such as 'ship'"):
            load_olist(lab, folder)
        assert lab.head == 1


def test_people_whom_the_store_knows_are_not_registered_again(folder):
    """An import that was killed after its customers, or a second folder with the same people, adds only new people."""
    with open_shop() as lab:
        lab.send(RegisterCustomer(customer_id="ben", name="Ben", email="ben@example.org"))
        report = load_olist(lab, folder)
        assert report.customers == 5
        assert one(lab, "SELECT count(*) FROM customer_events WHERE customer_id = 'ben'") == 1
        assert one(lab, "SELECT max(name) FROM customer_events WHERE customer_id = 'ben'") == "Ben"


# -- milestones --------------------------------------------------------------------------------------------------------

MILESTONES = {"OrderPlaced": "ordered_at", "OrderPaid": "paid_at", "OrderDelivered": "arrived_at"}


def times(*values: str | None) -> list[datetime | None]:
    """Return datetimes from ISO text."""
    return [None if value is None else datetime.fromisoformat(value) for value in values]


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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2024, 7, 1, 12), "2024-07-01 10:00"),
        (datetime(2024, 7, 1, 12, tzinfo=UTC), "2024-07-01 12:00"),
        (datetime(2024, 7, 1, 12, tzinfo=timezone(timedelta(hours=-3))), "2024-07-01 15:00"),
        (date(2024, 7, 1), "2024-06-30 22:00"),
        ("2024-07-01", "2024-06-30 22:00"),
        ("2024-07-01 12:00", "2024-07-01 10:00"),
        ("2024-07-01T12:00:05.25", "2024-07-01 10:00:05.25"),
        ("2024-07-01T12:00:05Z", "2024-07-01 12:00:05"),
        ("2024-07-01 12:00-03:00", "2024-07-01 15:00"),
        (datetime(2024, 3, 31, 2, 30), "2024-03-31 01:30"),  # skipped: what clocks called 03:30
        (datetime(2024, 10, 27, 2, 30), "2024-10-27 00:30"),  # twice: the first
    ],
)
def test_times_of_any_kind_become_utc(value, expected):
    """Naive times, dates and bare text are in the zone; what has an offset is converted."""
    frame = pl.DataFrame({"order_id": ["a", "b"], "at": [value, None]})
    events = events_from_milestones(frame, milestones={"OrderPlaced": "at"}, zone="Europe/Paris")
    assert events["occurred_at"].to_list() == times(f"{expected}+00:00")


def test_a_day_that_begins_at_one_o_clock_starts_there():
    """Where midnight was skipped, a date means the first moment of that day."""
    frame = pl.DataFrame({"order_id": ["a"], "at": [date(2017, 10, 15)]})
    events = events_from_milestones(frame, milestones={"OrderPlaced": "at"}, zone="America/Sao_Paulo")
    assert events["occurred_at"].to_list() == times("2017-10-15 03:00+00:00")


def test_pandas_times_in_nanoseconds_with_and_without_a_zone_are_taken():
    """In pandas a time has nanoseconds and NaT; the log gets microseconds, and NaT did not happen."""
    frame = pd.DataFrame(
        {
            "order_id": [1, 2],
            "at": pd.to_datetime(["2024-01-01 10:00:00.123456789", None]).astype("datetime64[ns]"),
            "then": pd.to_datetime([None, "2024-01-01 10:00"]).tz_localize("Asia/Tokyo"),
            "who": ["x", None],
        }
    )
    events = events_from_milestones(
        frame, milestones={"OrderPlaced": "at", "OrderPaid": "then"}, fields={"OrderPlaced": {"customer_id": "who"}}
    )
    assert events.rows() == [
        ("2", "OrderPaid", *times("2024-01-01 01:00+00:00"), None),
        ("1", "OrderPlaced", *times("2024-01-01 10:00:00.123456+00:00"), "x"),
    ]


@pytest.mark.parametrize(
    ("change", "arguments", "match"),
    [
        ({}, {"key": "no"}, "column 'no': there is no such column; there are order_id, at"),
        ({}, {"milestones": {"OrderPlaced": "nope"}}, "column 'nope'"),
        ({}, {"fields": {"OrderPlaced": {"total": "sum"}}}, "column 'sum'"),
        ({}, {"fields": {"OrderPaid": {"total": "at"}}}, "fields has 'OrderPaid'"),
        ({}, {"fields": {"OrderPlaced": {"x": "at", "type": "at"}}}, "fields has 'type'"),
        ({}, {"milestones": {}}, "no milestone"),
        ({}, {"zone": "Mars"}, "'Mars' is not a time zone"),
        ({"order_id": ["a", None]}, {}, "row 2, column 'order_id': it is empty"),
        (
            {"order_id": ["a", "a"]},
            {},
            "row 2, column 'order_id': it is 'a', but the rule is that it is in one row only",
        ),
        ({"order_id": [1.0, 2.0]}, {}, "column 'order_id': the key is Float64"),
        ({"at": [1, 2]}, {}, "column 'at': it is Int64, not a time"),
        ({"at": ["2024-01-01", "01/02/2024"]}, {}, "row 2, column 'at': it is '01/02/2024'"),
        ({"at": ["2024-01-01", "2024-13-01"]}, {}, "row 2, column 'at'"),
        ({"at": ["2024-01-01", "2024-01-01 10"]}, {}, "row 2, column 'at'"),
        ({"at": ["2024-01-01", ""]}, {}, "row 2, column 'at'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(change, arguments, match):
    """What is wrong with a table of milestones is said with its column, and its row where there is one."""
    frame = pl.DataFrame({"order_id": ["a", "b"], "at": times("2024-01-01", "2024-01-02"), **change})
    with pytest.raises(ImportFailed, match=match):
        events_from_milestones(frame, **{"milestones": {"OrderPlaced": "at"}, **arguments})


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


def test_one_field_from_columns_of_different_types_is_refused():
    """Text and times cannot stand in one column of the log."""
    frame = pl.DataFrame({"order_id": ["a"], "at": times("2024-01-01"), "n": [[1]]})
    fields = {"OrderPlaced": {"x": "n"}, "OrderPaid": {"x": "at"}}
    with pytest.raises(ImportFailed, match="different types"):
        events_from_milestones(frame, milestones={"OrderPlaced": "at", "OrderPaid": "at"}, fields=fields)


def test_the_log_still_checks_what_comes_from_milestones():
    """A field that breaks a rule of its event is refused by append_table, and nothing is stored."""
    frame = table().with_columns(pl.lit(Decimal("-1.00")).alias("amount"))
    events = events_from_milestones(frame, milestones=MILESTONES, fields={"OrderPlaced": {"total": "amount"}})
    with open_shop() as lab:
        with pytest.raises(InvalidTable, match="total"):
            lab.append_table("order", events)
        assert lab.head == 0


# -- the real shop, where it is present --------------------------------------------------------------------------------

REAL = Path(os.environ.get("CQRS_LAB_OLIST") or Path(__file__).parents[3] / "shared" / "data" / "olist")


@pytest.fixture(scope="module")
def real():
    """The sample of the public data set, imported once."""
    if not path_of(REAL, "orders").is_file():
        pytest.skip("no Olist folder; set CQRS_LAB_OLIST to one")
    with open_shop() as lab:
        yield lab, load_olist(lab, REAL)


def test_the_log_has_every_count_and_sum_of_the_real_shop(real):
    """Orders, statuses, people, units, payments, prices and freight come out of the log as they went in."""
    lab, report = real
    statuses = lab.as_of(position=lab.head).sql(
        "SELECT source_status, count(*) FROM order_events WHERE source_status IS NOT NULL GROUP BY 1"
    )
    assert dict(statuses.fetchall()) == {
        "delivered": 2919,
        "shipped": 39,
        "canceled": 17,
        "processing": 13,
        "unavailable": 13,
        "invoiced": 7,
    }
    for question, answer in {
        "count(*) FROM order_events WHERE type = 'OrderPlaced'": 3008,
        "count(DISTINCT order_id) FROM order_events": 3008,
        "count(*) FROM order_events WHERE source_status IS NOT NULL": 3008,
        # The file has one customer_id for each order; five people ordered twice.
        "count(*) FROM order_events JOIN customer_events USING (customer_id)": 3008,
        "count(*) FROM customer_events": 3003,
        "sum(line.quantity) FROM (SELECT unnest(lines) AS line FROM order_events)": 3357,
        "count(DISTINCT line.product_id) FROM (SELECT unnest(lines) AS line FROM order_events)": 2488,
        "sum(line.quantity * line.unit_price) FROM (SELECT unnest(lines) AS line FROM order_events)": Decimal(
            "396714.97"
        ),
        "sum(total) FROM order_events": Decimal("396714.97"),
        "sum(freight) FROM order_events": Decimal("67083.91"),
        "count(*) FROM order_events WHERE type = 'OrderPaid'": 3090,
        "count(amount) FROM order_events": 3090,
        "count(method) FROM order_events": 3090,
        "sum(amount) FROM order_events": Decimal("463913.16"),
    }.items():
        assert one(lab, f"SELECT {question}") == answer, question
    assert (report.customers, report.orders, report.units, report.position) == (3003, 3008, 3357, lab.head)
    assert sum(report.events.values()) == lab.head == 15_012


def test_all_three_servings_have_every_count_and_sum_of_the_real_shop(real):
    """View, materialized table and projection agree row by row, and each adds up to the files."""
    lab, _ = real
    for served in serve_all(lab):
        sums = "count(*), count(DISTINCT customer_id), sum(item_count), sum(total), sum(paid)"
        assert served.sql(f"SELECT {sums} FROM order_summary").fetchall() == [
            (3008, 3003, 3357, Decimal("396714.97"), Decimal("463913.16"))
        ]
        # One of the 2,920 delivered was cancelled after all; processing and invoiced orders are paid.
        assert dict(served.sql("SELECT status, count(*) FROM order_summary GROUP BY 1").fetchall()) == {
            "DELIVERED": 2919,
            "SHIPPED": 39,
            "CANCELLED": 30,
            "PAID": 20,
        }
    for way in WAYS:
        days = lab.serve(daily_orders, as_=way).sql("SELECT sum(orders), sum(value) FROM daily_orders").fetchall()
        assert days == [(3008, Decimal("396714.97"))]


def test_the_real_shop_has_the_oddities_that_are_known_of_it(real):
    """What the data's README tells is found, with the orders, and so is what it does not tell."""
    lab, report = real
    assert dict(report.kinds.rows()) == {
        "shipped_before_paid": 37,
        "time_inferred": 31,
        "order_without_lines": 20,
        "order_without_payment": 20,
        "payment_differs": 14,
        "shipped_before_placed": 9,
        "cancelled_after_shipping": 3,
        "cancelled_after_delivery": 1,
        "delivered_without_date": 1,
    }
    delivered = {row[0] for row in log(lab, "order_id", "source_status = 'delivered'")}
    early = report.anomalies.filter(pl.col("kind") == "shipped_before_paid")["order_id"]
    assert early.n_unique() == 37
    assert set(early) <= delivered
    assert set(report.anomalies["order_id"]) <= {row[0] for row in log(lab, "DISTINCT ON (order_id) order_id")}


def test_versions_of_the_real_shop_follow_time(real):
    """Within each order versions have no holes and times never go back."""
    lab, _ = real
    rows = log(lab, "order_id, version, occurred_at")
    seen: dict[str, tuple[int, datetime]] = {}
    for order, version, at in rows:
        last_version, last_at = seen.get(order, (0, at))
        assert version == last_version + 1
        assert at >= last_at
        seen[order] = (version, at)


def test_the_real_shop_twice_is_refused(real):
    """The second import of the real folder names how many orders are there already."""
    lab, _ = real
    head = lab.head
    with pytest.raises(ImportFailed, match="3,008 of the 3,008 orders"):
        load_olist(lab, REAL)
    assert lab.head == head
