"""A workload is a shop that could have been: reproducible to the last cent, and within the shop's own rules."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqrs_lab import Lab, open_shop
from cqrs_lab.errors import DeclarationError, InvalidMessage
from cqrs_lab.shop import (
    CancelOrder,
    DeliverOrder,
    OrderCancelled,
    OrderDelivered,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    PayOrder,
    PlaceOrder,
    RegisterCustomer,
    ShipOrder,
    customers,
    daily_orders,
    order_summary,
    orders,
)
from cqrs_lab.workbench import workload as module
from cqrs_lab.workbench.workload import STAGES, Workload, digest, generate, tables

TINY = Workload(orders=12, seed=1)

workloads = st.builds(
    Workload,
    orders=st.integers(1, 40),
    seed=st.integers(0, 2**63 - 1),
    customers=st.none() | st.integers(1, 50),
    products=st.integers(1, 30),
    days=st.integers(1, 3_660),
    start=st.dates(date(1900, 1, 1), date(2900, 1, 1)),
    unpaid=st.floats(0, 0.25),
    cancelled=st.floats(0, 0.25),
    waiting=st.floats(0, 0.25),
    lost=st.floats(0, 0.25),
    prefix=st.sampled_from(["", "b-", "2025."]),
)


def frames(workload):
    """Return a workload's two tables as Polars frames."""
    made = tables(workload)
    return pl.from_arrow(made["customer"]), pl.from_arrow(made["order"])


def stored(lab, category):
    """Return the events that a lab has of a category, oldest first."""
    declared = lab._categories[category]
    ids = lab.as_of(position=lab.head).sql(f"SELECT DISTINCT {declared.key} FROM {declared.table}").fetchall()
    return {id: lab._log.read(declared, id) for (id,) in ids}


def command_of(event):
    """Return the command that leads to an event of an order."""
    match event:
        case OrderPlaced():
            return PlaceOrder(order_id=event.order_id, customer_id=event.customer_id, lines=event.lines)
        case OrderPaid():
            return PayOrder(order_id=event.order_id, amount=event.amount, method=event.method)
        case OrderShipped():
            return ShipOrder(order_id=event.order_id, tracking_number=event.tracking_number)
        case OrderDelivered():
            return DeliverOrder(order_id=event.order_id)
        case OrderCancelled():
            return CancelOrder(order_id=event.order_id, reason=event.reason)


@given(workloads)
@settings(max_examples=30, deadline=None)
def test_every_order_could_have_come_from_commands(workload):
    """Each event is what the decider decides for its command in the state before it; freight alone comes on top."""
    with open_shop(threads=1) as lab:
        generate(lab, workload)
        made = stored(lab, "order")
        assert len(made) == workload.orders
        for events in made.values():
            state = orders.initial
            for recorded in events:
                [decided] = orders.decide(command_of(recorded.event), state)
                freight = {"freight": recorded.event.freight} if isinstance(decided, OrderPlaced) else {}
                assert decided.model_copy(update=freight) == recorded.event
                state = orders.evolve(state, recorded.event)


@given(workloads)
@settings(max_examples=30, deadline=None)
def test_customers_are_registered_before_anybody_orders(workload):
    """Customers are registered once, as the workload starts, as a command would; every order is from one of them."""
    with open_shop(threads=1) as lab:
        report = generate(lab, workload)
        people = stored(lab, "customer")
        assert len(people) == report.customers == (workload.customers or max(1, workload.orders // 4))
        for [recorded] in people.values():
            event = recorded.event
            command = RegisterCustomer(customer_id=event.customer_id, name=event.name, email=event.email)
            assert customers.decide(command, customers.initial) == [event]
            assert recorded.occurred_at == datetime.combine(workload.start, datetime.min.time(), UTC)
            assert recorded.position <= report.customers
        assert {order[0].event.customer_id for order in stored(lab, "order").values()} <= set(people)


@given(workloads)
@settings(max_examples=30, deadline=None)
def test_events_come_in_one_order(workload):
    """Rows are sorted by time, stage and id without ties, in whole seconds, and no order has two events in one."""
    _, events = frames(workload)
    keys = [(row["occurred_at"], STAGES.index(row["type"]), row["id"]) for row in events.iter_rows(named=True)]
    assert all(a < b for a, b in pairwise(keys))
    assert all(moment.microsecond == 0 for moment, _, _ in keys)
    assert len({(moment, id) for moment, _, id in keys}) == len(keys)
    placed = events.filter(pl.col("type") == "OrderPlaced")
    assert placed["id"].is_sorted()
    first, last = placed["occurred_at"].min().date(), placed["occurred_at"].max().date()
    assert workload.start <= first <= last < workload.start + timedelta(days=workload.days)


def test_a_seed_is_a_workload():
    """The same seed gives the same digest and another seed another one."""
    same, again, other = (digest(*tables(Workload(orders=500, seed=seed)).values()) for seed in (3, 3, 4))
    assert same == again != other


def test_a_workload_is_the_same_on_every_machine():
    """A tiny workload has the digest that is written down here, wherever this runs."""
    assert digest(*tables(TINY).values()) == "058f6fad1dd1a750957e126f92ea33f1"


def test_every_field_makes_another_workload():
    """No field is ignored: each one, changed alone, changes the digest."""
    changes = {
        "orders": 301, "seed": 8, "customers": 76, "products": 501, "days": 91, "start": date(2025, 1, 2),
        "unpaid": 0.3, "cancelled": 0.3, "waiting": 0.3, "lost": 0.3, "prefix": "b-",
    }  # fmt: skip
    assert set(changes) == set(Workload.model_fields)
    fields = [{}, *({name: value} for name, value in changes.items())]
    made = {digest(*tables(Workload(**{"orders": 300, **changed})).values()) for changed in fields}
    assert len(made) == len(fields)


def test_purposes_do_not_disturb_each_other():
    """With other fates, the same people place the same orders at the same time."""
    placed = [
        frames(Workload(orders=200, **shares))[1].filter(pl.col("type") == "OrderPlaced")
        for shares in ({}, {"unpaid": 0.5, "cancelled": 0.3, "waiting": 0.1, "lost": 0})
    ]
    assert placed[0].equals(placed[1])


def test_fates_are_shares_of_all_orders():
    """Each fate gets its share of a large workload, and what they leave is delivered: by default 3.35 events each."""
    workload = Workload(orders=20_000)
    _, events = frames(workload)
    count = Counter(events.group_by("id").agg(pl.col("type").sort_by("occurred_at"))["type"].map_elements("".join))
    shares = {tuple(fate.replace("Order", " ").split()): n / workload.orders for fate, n in count.items()}
    assert shares == {
        ("Placed",): pytest.approx(0.12, abs=0.01),
        ("Placed", "Cancelled"): pytest.approx(0.045, abs=0.01),
        ("Placed", "Paid", "Cancelled"): pytest.approx(0.045, abs=0.01),
        ("Placed", "Paid"): pytest.approx(0.05, abs=0.01),
        ("Placed", "Paid", "Shipped"): pytest.approx(0.05, abs=0.01),
        ("Placed", "Paid", "Shipped", "Delivered"): pytest.approx(0.69, abs=0.01),
    }
    assert len(events) / workload.orders == pytest.approx(3.355, abs=0.03)


def test_it_looks_like_a_shop():
    """Some customers and products are favourites, nights are quiet, and steps take their usual time."""
    _, events = frames(Workload(orders=20_000))
    placed = events.filter(pl.col("type") == "OrderPlaced")
    per_customer = placed["customer_id"].value_counts()["count"].sort(descending=True)
    lines = placed["lines"].explode().struct.unnest()
    per_product = lines["product_id"].value_counts()["count"].sort(descending=True)
    # Zipf's law: rank 1 against rank 100 is as 100 to 1 for products, and as its root for customers.
    assert per_product[0] / per_product[99] == pytest.approx(100, rel=0.3)
    assert per_customer[0] / per_customer[99] == pytest.approx(10, rel=0.5)
    assert placed["lines"].list.len().value_counts().sort("lines")["lines"].to_list() == [1, 2, 3, 4, 5]
    assert lines.group_by("product_id").agg(pl.col("unit_price").n_unique())["unit_price"].max() == 1
    hours = placed["occurred_at"].dt.hour().value_counts().sort("occurred_at")["count"]
    assert hours[20] > 10 * hours[3]
    times = events.pivot("type", index="id", values="occurred_at")
    medians = {
        step: (times[f"Order{after}"] - times[f"Order{before}"]).drop_nulls().median()
        for step, before, after in [("pay", "Placed", "Paid"), ("ship", "Paid", "Shipped"),
                                    ("arrive", "Shipped", "Delivered")]
    }  # fmt: skip
    assert medians["pay"] / timedelta(minutes=20) == pytest.approx(1, rel=0.1)
    assert medians["ship"] / timedelta(days=2) == pytest.approx(1, rel=0.1)
    assert medians["arrive"] / timedelta(days=7) == pytest.approx(1, rel=0.1)


def test_the_tables_are_typed_as_the_log_is():
    """Money is decimal(18, 2), times are UTC, and a field is empty where the event has none."""
    _, events = frames(TINY)
    schema = tables(TINY)["order"].schema
    assert {schema.field(name).type for name in ("total", "freight", "amount")} == {pa.decimal128(18, 2)}
    assert schema.field("occurred_at").type == pa.timestamp("us", "UTC")
    owners = {
        "OrderPlaced": ["customer_id", "lines", "total", "freight"],
        "OrderPaid": ["amount", "method"],
        "OrderShipped": ["tracking_number"],
        "OrderCancelled": ["reason"],
    }
    for owner, fields in owners.items():
        for name in fields:
            assert (events[name].is_not_null() == (events["type"] == owner)).all()


def test_the_digest_sees_content_and_nothing_else(tmp_path):
    """Chunks, encodings and a trip through Parquet leave the digest; another value, order or column changes it."""
    table = tables(TINY)["order"]
    pq.write_table(table, tmp_path / "orders.parquet")
    chunked = pa.concat_tables([table.slice(0, 5), table.slice(5, 20), table.slice(25)])
    types = table["type"].combine_chunks().dictionary_encode()
    encoded = table.set_column(1, "type", types)
    same = [chunked, encoded, table.slice(0), pq.read_table(tmp_path / "orders.parquet")]
    assert {digest(t) for t in same} == {digest(table)}
    prices = pa.chunked_array([[Decimal("1.00")] * len(table)], pa.decimal128(18, 2))
    others = [
        table.slice(1),
        table.take(np.arange(len(table))[::-1].copy()),
        table.rename_columns([*table.column_names[:-1], "why"]),
        table.set_column(table.column_names.index("amount"), "amount", prices),
        table.set_column(1, "type", pa.array([""] * len(table))),
        table.set_column(1, "type", pa.nulls(len(table), pa.string())),
    ]
    assert len({digest(t) for t in [table, *others]}) == len(others) + 1
    assert digest(table.slice(0, 0)) != digest(table)
    assert digest(pa.table({"x": ["ab", "c"]})) != digest(pa.table({"x": ["a", "bc"]}))
    assert digest(pa.table({"x": [None, "a"]})) != digest(pa.table({"x": ["a", None]}))
    assert digest(pa.table({"x": pa.array([5, None, 5]).dictionary_encode()})) == digest(pa.table({"x": [5, None, 5]}))
    large = pa.table({"x": pa.array(["a", "bb", "c"], pa.large_string())})
    assert digest(large.slice(1)) == digest(pa.table({"x": ["bb", "c"]}))


def test_an_empty_lab_gets_a_past():
    """The first workload was recorded as it happened, so that the shop can be asked what it knew at any time."""
    with open_shop(threads=1) as lab:
        report = generate(lab, Workload(orders=400, days=20))
        events = lab.events().pl()
        assert (events["recorded_at"] == events["occurred_at"]).all()
        assert (len(events), events["occurred_at"].min(), events["occurred_at"].max()) == (
            report.events, report.first_occurred_at, report.last_occurred_at,
        )  # fmt: skip
        placed = lab.as_of(recorded=date(2025, 1, 10)).rows(order_summary)
        assert 0 < len(placed) < len(lab.serve(order_summary).rows()) == 400


def test_a_second_workload_is_recorded_now():
    """With a prefix of its own, another workload joins the first; the store learns of it as it comes in."""
    with open_shop(threads=1) as lab:
        first = generate(lab, TINY)
        before = datetime.now(UTC)
        second = generate(lab, Workload(orders=12, seed=2, prefix="b-"))
        assert lab.head == first.events + second.events
        assert lab.events(after=first.events).pl()["recorded_at"].min() >= before - timedelta(milliseconds=1)
        assert len(lab.serve(order_summary).rows()) == 24
        assert first.digest != second.digest


@pytest.mark.parametrize("again", [TINY, Workload(orders=3, seed=2)])
def test_ids_that_are_there_are_refused(again):
    """A workload whose ids the lab has is refused with the way out, and nothing is stored."""
    with open_shop(threads=1) as lab:
        generate(lab, TINY)
        head = lab.head
        with pytest.raises(InvalidMessage, match=r"prefix: the lab has a customer 'c-000001'; .* such as 'b-'"):
            generate(lab, again)
        assert lab.head == head


def test_a_lab_without_orders_is_refused():
    """A domain of its own has nowhere to put orders, which is said before customers are stored."""
    with open_shop() as shop:
        domain = type(shop.domain)(deciders=[customers])
    with Lab(domain=domain) as lab:
        with pytest.raises(DeclarationError, match="no category 'order'"):
            generate(lab, TINY)
        assert lab.head == 0


def test_threads_do_not_matter():
    """Labs with one thread and with four hold the same events at the same positions."""
    held = []
    for threads in (1, 4):
        with open_shop(threads=threads) as lab:
            generate(lab, Workload(orders=3_000))
            held.append(lab.events().pl().drop("event_id"))
    assert held[0].equals(held[1])


def test_all_of_it_reaches_the_read_models():
    """What the read models add up is what the tables hold."""
    _, events = frames(Workload(orders=300))
    with open_shop(threads=1) as lab:
        generate(lab, Workload(orders=300))
        daily, summary = lab.serve(daily_orders).pl(), lab.serve(order_summary).pl()
        assert daily["value"].sum() == summary["total"].sum() == events["total"].sum()
        assert summary["paid"].sum() == events["amount"].sum()
        units = events["lines"].drop_nulls().explode().struct.field("quantity")
        assert summary["item_count"].sum() == units.sum()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("orders", 0), ("orders", 1.5), ("seed", -1), ("customers", 0), ("products", 0), ("days", 0), ("lost", 1.1),
        ("unpaid", float("nan")), ("prefix", "a b"), ("start", "soon"), ("sedd", 1),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(field, value):
    """A value out of range, or a field that does not exist, is refused by name."""
    with pytest.raises(InvalidMessage, match=f"Workload was refused: {field}"):
        Workload(**{field: value})


def test_shares_are_at_most_all():
    """Fates that together exceed all orders are refused; exactly all is fine, and nothing is delivered then."""
    with pytest.raises(InvalidMessage, match="together they exceed 1"):
        Workload(unpaid=0.6, lost=0.5)
    _, events = frames(Workload(orders=500, unpaid=0.25, cancelled=0.25, waiting=0.25, lost=0.25))
    assert "OrderDelivered" not in events["type"].to_list()


def test_only_large_workloads_show_a_bar(monkeypatch, capsys):
    """A small workload prints nothing; a large one says how far it is."""
    with open_shop(threads=1) as lab:
        generate(lab, TINY)
        assert capsys.readouterr() == ("", "")
        monkeypatch.setattr(module, "LARGE", 10)
        generate(lab, Workload(orders=10, prefix="b-"))
        assert "order events: 100%" in capsys.readouterr().err
