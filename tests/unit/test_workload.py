"""A workload is a shop that could have been: reproducible to the last cent, and looking like one."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from decimal import Decimal
from io import BytesIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cqrs_lab.errors import InvalidMessage
from cqrs_lab.workbench.data.draws import digest
from cqrs_lab.workbench.data.generated import deliveries, tables
from cqrs_lab.workbench.data.workload import HOURS, WEEKDAYS, Workload

TINY = Workload(orders=12, seed=1)


HOT = Workload(orders=40, seed=1, hot=3)


def made(workload):
    """Return the events of a workload's orders as a Polars frame."""
    return pl.from_arrow(tables(workload)["order"])


def test_a_seed_is_a_workload():
    """The same seed gives the same digest and another seed another one."""
    same, again, other = (digest(*tables(Workload(orders=500, seed=seed)).values()) for seed in (3, 3, 4))
    assert same == again != other


def test_presets_have_the_size_that_their_names_say():
    """A preset is a workload by name; a wrong name is refused with those that there are."""
    for name, events in (("million", 1_000_000), ("ten_million", 10_000_000)):
        assert Workload.preset(name).orders * (3.43 + 0.25) == pytest.approx(events, rel=0.03)
    assert Workload.preset("tiny").orders < Workload.preset("workshop").orders < Workload.preset("million").orders
    with pytest.raises(InvalidMessage, match="there are tiny, workshop, million, ten_million, not 'huge'"):
        Workload.preset("huge")


def test_every_field_makes_another_workload():
    """No field is ignored: each one, changed alone, changes the digest of what is delivered."""
    changes = {
        "orders": 301, "seed": 8, "customers": 76, "products": 501, "days": 91, "start": date(2025, 1, 2),
        "unpaid": 0.3, "cancelled": 0.3, "waiting": 0.3, "lost": 0.3, "refunded": 0.3, "promotions": 3, "late": 0.1,
        "hot": 1, "duplicates": 0.1, "prefix": "b-",
    }  # fmt: skip
    assert set(changes) == set(Workload.model_fields)
    fields = [{}, *({name: value} for name, value in changes.items())]
    made = {digest(deliveries(Workload(**{"orders": 300, **changed}))) for changed in fields}
    assert len(made) == len(fields)


def test_purposes_do_not_disturb_each_other():
    """With other fates, the same people place the same orders at the same time."""
    placed = [
        made(Workload(orders=200, **shares)).filter(pl.col("type") == "OrderPlaced")
        for shares in ({}, {"unpaid": 0.5, "cancelled": 0.3, "waiting": 0.1, "lost": 0, "refunded": 0, "late": 0.5})
    ]
    assert placed[0].equals(placed[1])


def test_fates_are_shares_of_all_orders():
    """Each fate gets its share of a large workload, and what they leave is delivered: by default 3.43 events each."""
    workload = Workload(orders=20_000)
    events = made(workload)
    count = Counter(events.group_by("id").agg(pl.col("type").sort_by("occurred_at"))["type"].map_elements("".join))
    shares = {tuple(fate.replace("Order", " ").split()): n / workload.orders for fate, n in count.items()}
    assert shares == {
        ("Placed",): pytest.approx(0.12, abs=0.01),
        ("Placed", "Cancelled"): pytest.approx(0.045, abs=0.01),
        ("Placed", "Paid", "Cancelled", "Refunded"): pytest.approx(0.045, abs=0.01),
        ("Placed", "Paid"): pytest.approx(0.05, abs=0.01),
        ("Placed", "Paid", "Shipped"): pytest.approx(0.05, abs=0.01),
        ("Placed", "Paid", "Shipped", "Delivered"): pytest.approx(0.66, abs=0.01),
        ("Placed", "Paid", "Shipped", "Delivered", "Refunded"): pytest.approx(0.03, abs=0.005),
    }
    assert len(events) / workload.orders == pytest.approx(3.43, abs=0.03)


def test_it_looks_like_a_shop():
    """Some customers and products are favourites; hours, weekdays, baskets and steps are as Olist has them."""
    events = made(Workload(orders=20_000, days=91, promotions=0))
    placed = events.filter(pl.col("type") == "OrderPlaced")
    per_customer = placed["customer_id"].value_counts()["count"].sort(descending=True)
    lines = placed["lines"].explode().struct.unnest()
    per_product = lines["product_id"].value_counts()["count"].sort(descending=True)
    # Zipf's law: rank 1 against rank 100 is as 100 to 1 for products, and as its root for customers.
    assert per_product[0] / per_product[99] == pytest.approx(100, rel=0.3)
    assert per_customer[0] / per_customer[99] == pytest.approx(10, rel=0.5)
    assert lines.group_by("product_id").agg(pl.col("unit_price").n_unique())["unit_price"].max() == 1
    at = placed["occurred_at"].dt
    for seen, expected in ((at.hour(), HOURS), (at.weekday() - 1, WEEKDAYS)):
        shares = seen.value_counts(normalize=True).sort(seen.name)["proportion"].to_list()
        assert shares == pytest.approx([n / sum(expected) for n in expected], abs=0.01)
    assert (placed["lines"].list.len() == 1).mean() == pytest.approx(0.97, abs=0.01)
    assert (lines["quantity"] == 1).mean() == pytest.approx(0.94, abs=0.01)
    cards = events.filter(pl.col("method") == "card")["id"]
    times = events.pivot("type", index="id", values="occurred_at")
    medians = {
        "OrderPaid": (times.filter(pl.col("id").is_in(cards.implode())), "OrderPlaced", timedelta(minutes=17)),
        "OrderShipped": (times, "OrderPaid", timedelta(hours=45)),
        "OrderDelivered": (times, "OrderShipped", timedelta(hours=170)),
    }
    for after, (rows, before, median) in medians.items():
        assert (rows[after] - rows[before]).drop_nulls().median() / median == pytest.approx(1, rel=0.1), after


def test_promotions_are_bursts():
    """On as many days as were asked for, five times as many orders are placed."""
    for promotions in (0, 3):
        events = made(Workload(orders=40_000, days=91, promotions=promotions))
        placed = events.filter(pl.col("type") == "OrderPlaced")["occurred_at"].dt
        days = pl.DataFrame({"day": placed.date()}).group_by("day").len()
        days = days.with_columns(pl.col("day").dt.weekday().alias("of"))
        usual = pl.col("len") / pl.col("len").median().over("of")
        bursts = days.select(usual.alias("times")).filter(pl.col("times") > 2)["times"]
        assert len(bursts) == promotions
        assert promotions == 0 or bursts.mean() == pytest.approx(5, rel=0.1)


def test_some_events_come_late():
    """Late payments, parcels and refunds stand further down the log than their time; orders are never late."""
    events = made(Workload(orders=5_000, late=0.1))
    assert events["recorded_at"].is_sorted()
    assert not events["occurred_at"].is_sorted()
    late = events.filter(pl.col("recorded_at") > pl.col("occurred_at"))
    assert set(late["type"]) == {"OrderPaid", "OrderShipped", "OrderDelivered", "OrderCancelled", "OrderRefunded"}
    # An event that waits for a late one is late with it.
    assert 0.1 < len(late) / events.filter(pl.col("type") != "OrderPlaced").height < 0.13
    punctual = made(Workload(orders=5_000))
    assert punctual["recorded_at"].equals(punctual["occurred_at"], check_names=False)
    same = ["id", "type", "occurred_at"]
    assert events.select(same).sort(same).equals(punctual.select(same).sort(same))


def test_hot_orders_have_long_streams():
    """Every thousandth order is changed as often as was asked for, and costs in the end what it cost at first."""
    events = made(Workload(orders=2_500, hot=30))
    changes = events.filter(pl.col("type").is_in(["OrderLineAdded", "OrderLineRemoved"]))
    assert changes.group_by("id").len().sort("id").rows() == [(f"o-{n:08}", 60) for n in (1, 1001, 2001)]
    calm = made(Workload(orders=2_500))
    paid = ["id", "amount"]
    assert events.select(paid).drop_nulls().sort("id").equals(calm.select(paid).drop_nulls().sort("id"))


def test_a_queue_delivers_some_events_twice():
    """A queue hands a share of the events over again, soon after; without the copies they are the events."""
    workload = Workload(orders=2_000, duplicates=0.1)
    delivered, table = deliveries(workload), tables(workload)["order"]
    seen = pl.from_arrow(delivered).with_row_index()
    again = seen.filter(~pl.col("message_id").is_first_distinct())
    assert len(again) / table.num_rows == pytest.approx(0.1, abs=0.01)
    assert len(seen) == len(again) + table.num_rows
    assert again["message_id"].n_unique() == len(again)
    once = delivered.filter(pa.array(seen["message_id"].is_first_distinct())).drop_columns("message_id")
    assert digest(once) == digest(table)
    distance = seen.group_by("message_id").agg(pl.col("index").max() - pl.col("index").min())
    distance = distance.filter(pl.col("index") > 0)
    assert 0 < distance["index"].min() <= distance["index"].max() < 70
    assert digest(tables(Workload(orders=2_000))["order"]) == digest(table)


def test_the_tables_are_typed_as_the_log_is():
    """Money is decimal(18, 2), times are UTC, and a field is empty where the event has none."""
    events = made(HOT)
    schema = tables(HOT)["order"].schema
    assert {schema.field(name).type for name in ("total", "freight", "amount")} == {pa.decimal128(18, 2)}
    assert schema.field("occurred_at").type == pa.timestamp("us", "UTC")
    owners = {
        ("OrderPlaced",): ["customer_id", "freight"],
        ("OrderPlaced", "OrderLineAdded"): ["lines"],
        ("OrderPlaced", "OrderLineAdded", "OrderLineRemoved"): ["total"],
        ("OrderLineRemoved",): ["removed"],
        ("OrderPaid",): ["method"],
        ("OrderPaid", "OrderRefunded"): ["amount"],
        ("OrderShipped",): ["tracking_number"],
        ("OrderCancelled", "OrderRefunded"): ["reason"],
    }
    for types, fields in owners.items():
        for name in fields:
            assert (events[name].is_not_null() == events["type"].is_in(types)).all()


def test_the_digest_sees_content_and_nothing_else():
    """Chunks, encodings and a trip through Parquet leave the digest; another value, order or column changes it."""
    table = tables(TINY)["order"]
    pq.write_table(table, parquet := BytesIO())
    chunked = pa.concat_tables([table.slice(0, 5), table.slice(5, 20), table.slice(25)])
    types = table["type"].combine_chunks().dictionary_encode()
    encoded = table.set_column(1, "type", types)
    same = [chunked, encoded, table.slice(0), pq.read_table(parquet)]
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
    events = made(Workload(orders=500, unpaid=0.25, cancelled=0.25, waiting=0.25, lost=0.25, refunded=0))
    assert "OrderDelivered" not in events["type"].to_list()
