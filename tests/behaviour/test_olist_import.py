"""A folder of the shop's files becomes events: every fact of it, in order, with a report of what is odd."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from support.importing import (
    TINY,
    TINY_ANOMALIES,
    TINY_EVENTS,
    WAYS,
    edit,
    imported,
    kinds,
    log,
    one,
    path_of,
    serve_all,
    times,
    write_shop,
)

from cqrs_lab import open_shop
from cqrs_lab.shop import RegisterCustomer, daily_orders, order_summary
from cqrs_lab.workbench.data.importers import load_olist


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the made-up shop."""
    return write_shop(tmp_path / "shop")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A lab that has imported the folder as it is, and the report of that."""
    with imported(write_shop(tmp_path_factory.mktemp("olist") / "shop")) as found:
        yield found


def test_every_fact_of_the_folder_is_an_event_in_order_of_time_and_stage(shop):
    """Positions follow time, then stage; each order's last event alone has the shop's last word."""
    lab, _ = shop
    found = log(lab, "type, order_id, strftime(occurred_at, '%Y-%m %d %H:%M'), source_status")
    assert found == [(kind, order, f"2021-03 {time}", status) for kind, order, time, status in TINY_EVENTS]


def test_items_become_lines_and_sums(shop):
    """Items of one product and price are one line with their number as quantity, in order of the items."""
    lab, _ = shop
    (plain,) = log(lab, "lines, total, freight, customer_id", "type = 'OrderPlaced' AND order_id = 'plain'")
    assert plain[0] == [
        {"product_id": "mug", "quantity": 2, "unit_price": Decimal("12.50")},
        {"product_id": "bowl", "quantity": 1, "unit_price": Decimal("20.00")},
    ]
    assert plain[1:] == (Decimal("45.00"), Decimal("10.10"), "ana")
    (void,) = log(lab, "lines, total, freight", "type = 'OrderPlaced' AND order_id = 'void'")
    assert void == ([], Decimal("0.00"), Decimal("0.00"))


def test_one_product_at_two_prices_is_two_lines(folder):
    """A price is part of a line: units sold at another price are another line."""
    edit(folder, "order_items", "plain,2,mug,s,2021-03-09 00:00:00,12.50", "plain,2,mug,s,2021-03-09 00:00:00,11.50")
    with imported(folder) as (lab, _):
        ((lines,),) = log(lab, "lines", "type = 'OrderPlaced' AND order_id = 'plain'")
    assert [(line["product_id"], line["quantity"], str(line["unit_price"])) for line in lines] == [
        ("mug", 1, "12.50"),
        ("mug", 1, "11.50"),
        ("bowl", 1, "20.00"),
    ]


def test_each_payment_is_an_event_with_its_method_and_amount(shop):
    """Payments of one order stand in their own sequence, at the time of approval."""
    lab, _ = shop
    paid = log(lab, "order_id, method, amount::VARCHAR", "type = 'OrderPaid'")
    assert [row for row in paid if row[0] in ("plain", "gone")] == [
        ("plain", "voucher", "5.10"),
        ("plain", "credit_card", "50.00"),
        ("gone", "debit_card", "24.10"),
    ]
    cancelled = log(lab, "order_id, reason", "type = 'OrderCancelled'")
    assert cancelled == [("void", "unavailable"), ("gone", "canceled")]


def test_people_are_registered_once_at_their_first_order(shop):
    """A person with two customer ids is one customer, living where the first order went, before any order event."""
    lab, report = shop
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
    hers = lab.serve(order_summary).where(customer_id="ana").dicts()
    assert {row["order_id"] for row in hers} == {"plain", "nodate"}


def test_the_report_lists_all_that_is_odd(shop):
    """Each oddity of the made-up shop is found, and nothing else is."""
    _, report = shop
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


def test_the_report_counts_and_shows_itself(shop):
    """Counts are of what was stored; the text and the notebook form name each kind of anomaly with its count."""
    lab, report = shop
    assert report.position == lab.head == 30
    assert (report.customers, report.orders, report.units) == (6, 7, 8)
    orders = {"OrderPlaced": 7, "OrderPaid": 7, "OrderShipped": 5, "OrderDelivered": 3, "OrderCancelled": 2}
    assert report.events == {"CustomerRegistered": 6, **orders}
    assert "7 orders of 8 units and 6 new customers became 30 events" in repr(report)
    assert "       5  time_inferred" in repr(report)
    assert "7 orders of 8 units" in report._repr_html_()
    assert "time_inferred" in report._repr_html_()
    assert report.kinds.row(0) == ("time_inferred", 5)
    with pytest.raises(FrozenInstanceError):
        report.orders = 0


def test_other_oddities_are_found_too(folder):
    """Times in the wrong order and words that the shop never used are reported, and the events kept."""
    for old, new in [
        ("10:05:00,2021-03-02 08:00:00,2021-03-04", "09:00:00,2021-03-05 08:00:00,2021-03-04"),
        ("2021-03-05 00:30:00,,", "2021-03-05 00:30:00,2021-03-06 00:00:00,2021-03-04 00:00:00"),
        ("11:10:00,2021-03-05 10:00:00,,", "11:10:00,2021-03-05 10:00:00,2021-03-06 10:00:00,"),
        ("ship,c-7,shipped", "ship,c-7,teleported"),
    ]:
        edit(folder, "orders", old, new)
    with imported(folder) as (lab, report):
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
    with imported(folder) as (lab, report):
        plain = {"paid": Decimal("60.20"), "item_count": 4, "customer_id": "ana", "status": "DELIVERED"}
        assert lab.serve(order_summary).get("plain").items() >= plain.items()
    repeated = {"duplicate_order", "duplicate_customer", "duplicate_line", "duplicate_payment"}
    assert kinds(report, *repeated) == {(kind, None if kind == "duplicate_customer" else "plain") for kind in repeated}
    (detail,) = report.anomalies.filter(pl.col("kind") == "duplicate_order")["detail"]
    assert detail == "line 9 repeats order_id plain; it was left out"


def test_an_order_of_an_unknown_customer_keeps_its_own_customer_id(folder):
    """A customer id that the customers file lacks stays on the order, and nobody is registered for it."""
    edit(folder, "customers", "c-2,ben,1,innerville,II\n", "")
    with imported(folder) as (lab, report):
        assert log(lab, "customer_id", "type = 'OrderPlaced' AND order_id = 'early'") == [("c-2",)]
        assert one(lab, "SELECT count(*) FROM customer_events") == 5
    assert kinds(report, "customer_unknown") == {("customer_unknown", "early")}


def test_an_order_without_a_time_of_placing_takes_its_last_known_time(folder):
    """Placing is a fact like others: without its own time it takes the order's last one, and is reported."""
    edit(folder, "orders", "wait,c-6,processing,2021-03-05 00:00:00", "wait,c-6,processing,")
    with imported(folder) as (lab, report):
        assert log(lab, "strftime(occurred_at, '%d %H:%M')", "order_id = 'wait'") == [("05 00:30",)]
        registered = one(lab, "SELECT strftime(occurred_at, '%H:%M') FROM customer_events WHERE customer_id = 'eve'")
        assert registered == "00:30"
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
            statuses = dict(served.sql("SELECT order_id, status FROM order_summary").fetchall())
            assert statuses == dict.fromkeys(("plain", "early", "nodate"), "DELIVERED") | {
                "gone": "CANCELLED", "void": "CANCELLED", "wait": "PENDING", "ship": "SHIPPED",
            }  # fmt: skip


def test_the_store_learns_now_what_happened_then(folder):
    """occurred_at is the shop's time, recorded_at that of the import."""
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    with open_shop(clock=lambda: now) as lab:
        load_olist(lab, folder)
        assert {row["recorded_at"] for row in lab.events().dicts()} == {now}
        assert lab.as_of(occurred=date(2021, 3, 1)).sql("SELECT count(*) FROM order_events").fetchall() == [(3,)]


def test_bom_windows_line_ends_quotes_and_extra_columns_are_taken(folder, shop):
    """A file that a spreadsheet saved again says the same, and a quoted field may span lines."""
    orders_file = path_of(folder, "orders")
    text = orders_file.read_text(encoding="utf-8").replace("_date\n", "_date,note\n")
    text = text.replace("20 00:00:00\n", '20 00:00:00,"two\nlines, ""so"""\n').replace("\n", "\r\n")
    orders_file.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n\r\n")
    with imported(folder) as (lab, _):
        told, before = (log(of, "type, order_id, occurred_at, lines, total, amount") for of in (lab, shop[0]))
        assert told == before


def test_the_order_of_rows_in_the_files_does_not_matter(folder):
    """The same rows upside down are the same events at the same positions, those of one moment included."""
    edit(folder, "orders", "wait,c-6,processing,2021-03-05 00:00:00", "wait,c-6,processing,2021-03-05 01:00:00")
    found = []
    for _ in range(2):
        with imported(folder) as (lab, _):
            people = lab.as_of(position=lab.head).sql("SELECT * EXCLUDE (event_id, recorded_at) FROM customer_events")
            found.append((log(lab, "* EXCLUDE (event_id, recorded_at)"), people.fetchall()))
            placed = log(lab, "order_id", "type = 'OrderPlaced'")
            assert placed[-2:] == [("ship",), ("wait",)]
        for name in TINY:
            header, *rows = path_of(folder, name).read_text(encoding="utf-8").splitlines()
            path_of(folder, name).write_text("\n".join([header, *reversed(rows)]), encoding="utf-8")
    assert found[0] == found[1]


def test_the_orders_file_alone_is_enough(folder):
    """Without the other files amounts and lines are unknown, an approval is a payment, and that is no anomaly."""
    for name in TINY.keys() - {"orders"}:
        path_of(folder, name).unlink()
    with imported(folder) as (lab, report):
        placed = log(lab, "customer_id, lines, total, freight", "type = 'OrderPlaced'")
        assert placed[0] == ("c-1", [], None, None)
        assert {row[1:] == ([], None, None) for row in placed} == {True}
        paid = log(lab, "order_id, amount, method", "type = 'OrderPaid'")
        assert paid == [(name, None, None) for name in ("plain", "early", "nodate", "gone", "wait", "ship")]
        assert one(lab, "SELECT count(*) FROM customer_events") == 0
        assert {served.get("wait")["status"] for served in serve_all(lab)} == {"PAID"}
    assert (report.customers, report.orders, report.units) == (0, 7, 0)
    assert "CustomerRegistered" not in report.events
    shipped = {"cancelled_after_shipping", "shipped_before_paid", "shipped_before_placed"}
    assert {kind for kind, _ in kinds(report)} == shipped | {"delivered_without_date", "time_inferred"}


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
    with imported(folder) as (lab, report):
        if missing == "order_items":
            assert log(lab, "total", "total IS NOT NULL") == []
    assert kinds(report) == {row for row in TINY_ANOMALIES if row[0] not in gone}


@pytest.mark.parametrize(
    ("local", "utc", "odd"),
    [
        ("2021-03-01 10:00:00", "2021-03-01 13:00:00", None),
        ("2017-10-15 00:30:00", "2017-10-15 03:30:00", "time_did_not_exist"),  # clocks jumped from 00:00 to 01:00
        ("2018-02-17 23:30:00", "2018-02-18 01:30:00", "time_was_ambiguous"),  # clocks went back: the summer time
    ],
)
def test_times_are_local_to_the_zone_that_is_given(folder, local, utc, odd):
    """The same file in another zone is the same shop hours later; a time skipped or shown twice is reported."""
    edit(folder, "orders", "plain,c-1,delivered,2021-03-01 10:00:00", f"plain,c-1,delivered,{local}")
    with imported(folder, zone="America/Sao_Paulo") as (lab, report):
        assert log(lab, "occurred_at")[0] == tuple(times(f"{utc}+00:00"))
    assert kinds(report, "time_was_ambiguous", "time_did_not_exist") == ({(odd, "plain")} if odd else set())
    if odd == "time_did_not_exist":
        found = report.anomalies.filter(pl.col("kind") == odd)["detail"].to_list()
        assert found == [f"order_purchase_timestamp {local} in America/Sao_Paulo became {utc} UTC"]


def test_people_whom_the_store_knows_are_not_registered_again(folder):
    """An import that was killed after its customers, or a second folder with the same people, adds only new people."""
    with open_shop() as lab:
        lab.send(RegisterCustomer(customer_id="ben", name="Ben", email="ben@example.org"))
        report = load_olist(lab, folder)
        assert report.customers == 5
        assert one(lab, "SELECT count(*) FROM customer_events WHERE customer_id = 'ben'") == 1
        assert one(lab, "SELECT max(name) FROM customer_events WHERE customer_id = 'ben'") == "Ben"
