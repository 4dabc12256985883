"""The sample of the real Olist shop: every count and sum, and every oddity, where the files are present."""

from __future__ import annotations

import os
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from support.importing import WAYS, log, one, path_of, serve_all

from cqrs_lab import open_shop
from cqrs_lab.errors import ImportFailed
from cqrs_lab.shop import daily_orders
from cqrs_lab.workbench.data.importers import load_olist

REAL = Path(os.environ.get("CQRS_LAB_OLIST") or Path(__file__).parents[3] / "shared" / "data" / "olist")

PRICES, PAYMENTS = Decimal("396714.97"), Decimal("463913.16")


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
        "delivered": 2919, "shipped": 39, "canceled": 17, "processing": 13, "unavailable": 13, "invoiced": 7,
    }  # fmt: skip
    for question, answer in {
        "count(*) FROM order_events WHERE type = 'OrderPlaced'": 3008,
        "count(DISTINCT order_id) FROM order_events": 3008,
        "count(*) FROM order_events WHERE source_status IS NOT NULL": 3008,
        # The file has one customer_id for each order; five people ordered twice.
        "count(*) FROM order_events JOIN customer_events USING (customer_id)": 3008,
        "count(*) FROM customer_events": 3003,
        "sum(line.quantity) FROM (SELECT unnest(lines) AS line FROM order_events)": 3357,
        "count(DISTINCT line.product_id) FROM (SELECT unnest(lines) AS line FROM order_events)": 2488,
        "sum(line.quantity * line.unit_price) FROM (SELECT unnest(lines) AS line FROM order_events)": PRICES,
        "sum(total) FROM order_events": PRICES,
        "sum(freight) FROM order_events": Decimal("67083.91"),
        "count(*) FROM order_events WHERE type = 'OrderPaid'": 3090,
        "count(amount) FROM order_events": 3090,
        "count(method) FROM order_events": 3090,
        "sum(amount) FROM order_events": PAYMENTS,
    }.items():
        assert one(lab, f"SELECT {question}") == answer, question
    assert (report.customers, report.orders, report.units, report.position) == (3003, 3008, 3357, lab.head)
    assert sum(report.events.values()) == lab.head == 15_012


def test_all_three_servings_have_every_count_and_sum_of_the_real_shop(real):
    """View, materialized table and projection agree row by row, and each adds up to the files."""
    lab, _ = real
    for served in serve_all(lab):
        sums = "count(*), count(DISTINCT customer_id), sum(item_count), sum(total), sum(paid)"
        assert served.sql(f"SELECT {sums} FROM order_summary").fetchall() == [(3008, 3003, 3357, PRICES, PAYMENTS)]
        # One of the 2,920 delivered was cancelled after all; processing and invoiced orders are paid.
        statuses = dict(served.sql("SELECT status, count(*) FROM order_summary GROUP BY 1").fetchall())
        assert statuses == {"DELIVERED": 2919, "SHIPPED": 39, "CANCELLED": 30, "PAID": 20}
    for way in WAYS:
        days = lab.serve(daily_orders, as_=way).sql("SELECT sum(orders), sum(value) FROM daily_orders").fetchall()
        assert days == [(3008, PRICES)]


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
