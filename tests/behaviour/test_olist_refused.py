"""A folder that cannot be imported whole is not imported at all, and the error names file, line and column."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from support.importing import TINY, edit, imported, path_of, write_shop

from cqrs_lab import Domain, Lab, open_shop
from cqrs_lab.errors import CqrsLabError, DeclarationError, ImportFailed, ReadOnlyStore
from cqrs_lab.shop import RegisterCustomer, orders
from cqrs_lab.workbench.data.importers import load_olist


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the made-up shop."""
    return write_shop(tmp_path / "shop")


@pytest.fixture(scope="module")
def lab():
    """A shop with one customer; every import into it is refused."""
    with open_shop() as shop:
        shop.send(RegisterCustomer(customer_id="before", name="B", email="b@example.org"))
        yield shop


def refused(lab: Lab, folder: Path, match: str, **more: Any) -> ImportFailed:
    """Import a folder, see that it is refused and that nothing is stored, and return the error."""
    head = lab.head
    with pytest.raises(ImportFailed, match=match) as caught:
        load_olist(lab, folder, **more)
    assert lab.head == head
    return caught.value


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", 3])
def test_an_unknown_zone_is_refused(folder, lab, zone):
    """A zone that nobody knows is named, and nothing is stored."""
    refused(lab, folder, "is not a time zone", zone=zone)


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
def test_a_malformed_file_stores_nothing_and_is_named(folder, lab, name, old, new, line, column):
    """One bad field anywhere, and neither a customer nor an order is stored; file, line and column are named."""
    edit(folder, name, old, new)
    error = refused(lab, folder, "nothing was stored")
    assert (error.file, error.line, error.column) == (path_of(folder, name).name, line, column)
    for part in (error.file, f"line {line}", column or ""):
        assert part in str(error)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(
    ("content", "line"),
    [(b"", 1), (b"order_id\n", 1), ("order_id\nS\xe3o\n".encode("latin-1"), 2), ("order_id\nx\n".encode("utf-16"), 1)],
    ids=["empty", "header only", "Latin-1", "UTF-16"],
)
def test_an_empty_file_or_another_encoding_is_refused(folder, lab, name, content, line):
    """Each file, where it is there, has rows and is UTF-8; nothing is guessed."""
    path_of(folder, name).write_bytes(content)
    refused(lab, folder, rf"olist_{name}_dataset\.csv, line {line}: it (holds no rows|is not UTF-8)")


def test_a_folder_without_orders_is_refused(folder, lab, tmp_path):
    """Without the orders file there is nothing to import, whatever else is there."""
    path_of(folder, "orders").unlink()
    for place in (folder, tmp_path / "missing"):
        error = refused(lab, place, r"olist_orders_dataset\.csv: it is not in")
        assert error.file == "olist_orders_dataset.csv"
        assert isinstance(error, CqrsLabError)
        assert isinstance(error, ValueError)


def test_what_only_the_log_would_refuse_stores_no_customer_either(folder, lab):
    """Prices that fit one by one but not as a sum are refused before the customers are stored."""
    for row in ("plain,1,mug,s,2021-03-09 00:00:00,12.5,", "plain,3,bowl,s,2021-03-09 00:00:00,20.00,"):
        edit(folder, "order_items", row, f"{row[:-1].rpartition(',')[0]},9999999999999999.99,")
    refused(lab, folder, r"'order'.*'plain'.*total")


def test_a_lab_without_customers_or_read_only_stores_nothing(folder, tmp_path):
    """A lab that cannot take the whole folder takes none of it."""
    with Lab(domain=Domain(deciders=[orders])) as lab:
        with pytest.raises(DeclarationError, match="customer"):
            load_olist(lab, folder)
        assert lab.head == 0
    open_shop(tmp_path / "s.duckdb").close()
    with open_shop(tmp_path / "s.duckdb", read_only=True) as lab, pytest.raises(ReadOnlyStore):
        load_olist(lab, folder)


def test_the_same_folder_twice_is_refused(folder):
    """A second import would double every order, so it is refused and the store stays as it was."""
    with imported(folder) as (lab, _):
        refused(lab, folder, r"7 of the 7 orders in .* are in the store already, such as 'early'")


def test_one_order_in_common_is_enough_to_refuse(folder):
    """A folder that shares an order with the store is refused whole, customers too."""
    at = datetime(2021, 1, 1, tzinfo=UTC)
    with open_shop() as lab:
        lab.append_table("order", pl.DataFrame({"id": ["ship"], "type": ["OrderPlaced"], "occurred_at": [at]}))
        refused(lab, folder, r"1 of the 7 orders in .* such as 'ship'")
