"""A small store, served every way, for the command line and the doctor."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support import pay, place

from cqrs_lab import open_shop
from cqrs_lab.shop import RegisterCustomer, ShipOrder

ORDERS, EVENTS = 6, 1 + 6 * 3  # a customer, and six orders placed, paid and shipped


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a small store with every way of serving; the materialized tables are one event behind."""
    path = tmp_path_factory.mktemp("store") / "shop.duckdb"
    start = datetime(2025, 1, 1, tzinfo=UTC)
    ticks = iter(start + timedelta(minutes=n) for n in range(1_000))
    with open_shop(path, threads=1, clock=lambda: next(ticks)) as lab:
        lab.send(RegisterCustomer(customer_id="c-1", name="Ada", email="ada@example.org"))
        for number in range(ORDERS):
            lab.send(place(number))
            lab.send(pay(number))
            if number == ORDERS - 1:
                for way in ("view", "materialized", "projection"):
                    lab.serve("order_summary", way)
                    lab.serve("daily_orders", way)
            lab.send(ShipOrder(order_id=f"o-{number}", tracking_number="t-1"))
        lab.serve("order_summary").catch_up()
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """Copy that store, to be damaged."""
    return Path(shutil.copy(whole, tmp_path / "shop.duckdb"))
