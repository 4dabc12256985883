"""Earlier and later versions of events beside each other: lifted, found again, or named."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from support import append
from support.ages import BY_CUSTOMER, MODELS, First, Fourth, lab_of, placed, shop_of, state, stored

from cqrs_lab import Domain, Event, Lab, open_shop
from cqrs_lab.errors import UnknownEventType
from cqrs_lab.messages import Upcasts
from cqrs_lab.shop import OrderLine, PayOrder, customers, order_summary, orders
from cqrs_lab.store.categories import Category


def test_commands_are_decided_on_lifted_events(tmp_path: Path) -> None:
    """An order of the first version is paid by a command of today: what is due is its old total."""
    path = tmp_path / "shop.duckdb"
    line = OrderLine(product_id="p-1", quantity=2, unit_price=Decimal("1.50"))
    with shop_of(path, First) as lab:
        event = First.OrderPlaced(order_id="o-1", customer="c-1", lines=(line,), total=Decimal("5.00"))
        append(lab, [(event, 0)])
    with open_shop(path) as lab:
        assert state(lab, "o-1").freight == Decimal("2.00")
        assert lab.send(PayOrder(order_id="o-1", amount=Decimal("5.00"))).version == 2
        assert lab.serve(order_summary).get("o-1")["customer_id"] == "c-1"


def old_and_new(path: Path) -> Lab:
    """Return the shop over a store with every serving, to which the first shop then appended an order."""
    with open_shop(path, threads=1) as lab:
        append(lab, [(placed("o-1", "c-1", [], Decimal(1)), 0)])
        for model in (*MODELS, BY_CUSTOMER):
            for way in ("view", "materialized", "projection"):
                lab.serve(model, way)
    with shop_of(path, First) as lab:
        event = First.OrderPlaced(order_id="o-2", customer="c-2", total=Decimal(7))
        append(lab, [(event, 1)])
    return open_shop(path, threads=1)


def test_a_serving_from_before_an_older_version_appeared(tmp_path: Path) -> None:
    """Servings built while the store had one version go on when an older one came, and are right."""
    expected = [("c-1", 1, Decimal(0), Decimal(1)), ("c-2", 1, Decimal(0), Decimal(7))]
    with old_and_new(tmp_path / "shop.duckdb") as lab:
        for way in ("view", "materialized", "projection"):
            served = lab.serve(BY_CUSTOMER, way)
            if way == "materialized":
                served.refresh()
            if way == "projection":
                served.catch_up()
            assert served.rows().fetchall() == expected
        for way in ("view", "materialized", "projection"):
            served = lab.serve(order_summary, way)
            served.rebuild()
            assert served.get("o-2")["customer_id"] == "c-2"


def test_a_view_sees_an_older_version_that_comes_beside_it(tmp_path: Path) -> None:
    """A view that is open while another lab appends events of an older version lifts them, too."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path, threads=1) as lab:
        view = lab.serve(BY_CUSTOMER, "view")
        append(lab, [(placed("o-1", "c-1", [], Decimal(1)), 0)])
        with shop_of(path, First) as earlier:
            append(earlier, [(First.OrderPlaced(order_id="o-2", customer="c-2", total=Decimal(7)), 1)])
        expected = [("c-1", 1, Decimal(0), Decimal(1)), ("c-2", 1, Decimal(0), Decimal(7))]
        assert lab.as_of(position=2).rows(BY_CUSTOMER).fetchall() == expected
        assert view.rows().fetchall() == expected


def future(path: Path) -> None:
    """Make a store in which one order is of version 4."""
    with shop_of(path, Fourth) as lab:
        append(lab, [(Fourth.OrderPlaced(order_id="o-4"), 0)])


def test_a_version_from_the_future_is_named_by_whoever_reads_it(tmp_path: Path) -> None:
    """Streams, commands, servings and the past refuse a version that is too new, naming the type and the version."""
    path = tmp_path / "shop.duckdb"
    future(path)
    domain = Domain(deciders=[orders, customers])
    with Lab(path, domain=domain, threads=1) as lab:
        reads = [
            lambda: stored(lab, "order", "o-4"),
            lambda: lab.send(PayOrder(order_id="o-4", amount=Decimal(0))),
            *(lambda way=way: lab.serve(order_summary, way) for way in ("view", "materialized", "projection")),
            lambda: lab.as_of(position=1).rows(order_summary).fetchall(),
            lambda: lab.as_of(position=1).sql("SELECT count(*) FROM order_events").fetchall(),
        ]
        for read in reads:
            with pytest.raises(UnknownEventType, match="OrderPlaced v4"):
                read()
        assert lab.head == len(lab.events()) == 1


def test_the_shop_names_a_version_from_the_future(tmp_path: Path) -> None:
    """Opened with the shop of today, such a store tells its type and version: at once, or when it is read."""
    path = tmp_path / "shop.duckdb"
    future(path)
    with pytest.raises(UnknownEventType, match="OrderPlaced v4"), open_shop(path, threads=1) as lab:
        lab.serve(order_summary).rows().fetchall()


def test_a_projection_stops_before_a_version_from_the_future(tmp_path: Path) -> None:
    """When another lab appends a version that is too new, catch_up() names it; rows and checkpoint stay."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path, threads=1) as lab:
        append(lab, [(placed("o-1", "c-1", [], None), 0)])
        served = lab.serve(order_summary)
        before = served.rows().fetchall()
        future(path)
        for move in (lab.catch_up, served.catch_up, served.rebuild):
            with pytest.raises(UnknownEventType, match="OrderPlaced v4"):
                move()
        assert served.position == 1
        assert served.rows().fetchall() == before


def test_upcasts_run_only_while_an_old_version_is_there() -> None:
    """A store without old events is read as it is stored, at no cost."""
    with open_shop() as lab:
        append(lab, [(placed("o-1", "c-1", [], None), 0)])
        assert lab._log.source("order_events") is None
        assert isinstance(lab._categories["order"], Category)


START = datetime(2025, 1, 1, tzinfo=UTC)


def test_a_table_and_single_events_are_of_the_version_declared(tmp_path: Path) -> None:
    """append_table stores each row at the version of its class, also where the classes have different ones."""

    class Closed(Event):
        account: str

    new = versioned(2, {1: {}}, note=(str | None, None))
    with lab_of(":memory:", "account", "account", new, Closed) as lab:
        frame = pl.DataFrame({"id": ["x", "x"], "type": ["Opened", "Closed"], "occurred_at": [START, START]})
        lab.append_table("account", frame)
        found = lab._log.database.execute("SELECT type, schema_version FROM account_events ORDER BY position")
        assert found == [("Opened", 2), ("Closed", 1)]


def versioned(version: int, upcasts: Upcasts, **fields: Any) -> type[Event]:
    """Return an event class Opened of a version."""
    kinds = {"account": str, **{name: kind for name, (kind, _) in fields.items()}}
    defaults = {name: default for name, (_, default) in fields.items()}
    body = {"schema_version": version, "upcasts": upcasts, "__annotations__": kinds, "__module__": __name__, **defaults}
    return type("Opened", (Event,), body)


def test_a_domain_knows_the_versions_that_its_store_holds(tmp_path: Path) -> None:
    """An old domain goes on reading what is its own, and names a later version when it meets one."""
    path = tmp_path / "accounts.duckdb"
    old, new = versioned(1, {}, a=(int, 0)), versioned(2, {1: {"b": "a"}}, b=(int, 0))
    with lab_of(path, "account", "account", old) as lab:
        append(lab, [(old(account="x", a=1), 0)])
        assert stored(lab, "account", "x") == [old(account="x", a=1)]
        with lab_of(path, "account", "account", new) as later:
            append(later, [(new(account="y", b=1), 0)])
        with pytest.raises(UnknownEventType, match="Opened v2"):
            stored(lab, "account", "y")
