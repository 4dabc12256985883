"""What tests of the importers share: a made-up shop in the format of the public Olist download, and its events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from cqrs_lab import Lab, open_shop
from cqrs_lab.shop import daily_orders, order_summary
from cqrs_lab.workbench.data.importers import OlistReport, load_olist
from support import assert_same

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


def write_shop(folder: Path) -> Path:
    """Write the made-up shop into a new folder, and return that."""
    folder.mkdir()
    for name, text in TINY.items():
        path_of(folder, name).write_text(text.lstrip(), encoding="utf-8")
    return folder


@contextmanager
def imported(folder: Path, **more: Any) -> Iterator[tuple[Lab, OlistReport]]:
    """Open a shop that has imported a folder."""
    with open_shop() as lab:
        yield lab, load_olist(lab, folder, **more)


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


def times(*values: str | None) -> list[datetime | None]:
    """Return datetimes from ISO text."""
    return [None if value is None else datetime.fromisoformat(value) for value in values]
