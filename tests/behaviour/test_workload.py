"""A workload is a shop that could have been: reproducible to the last cent, and within the shop's own rules."""

from __future__ import annotations

import zlib
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqrs_lab import Lab, open_shop
from cqrs_lab.errors import DeclarationError, InvalidMessage, InvalidTable
from cqrs_lab.shop import (
    AddOrderLine,
    CancelOrder,
    DeliverOrder,
    OrderCancelled,
    OrderDelivered,
    OrderLineAdded,
    OrderLineRemoved,
    OrderPaid,
    OrderPlaced,
    OrderRefunded,
    OrderShipped,
    PayOrder,
    PlaceOrder,
    RefundOrder,
    RegisterCustomer,
    RemoveOrderLine,
    ShipOrder,
    customers,
    daily_orders,
    order_summary,
    orders,
)
from cqrs_lab.workbench import events_from_milestones
from cqrs_lab.workbench import workload as module
from cqrs_lab.workbench.checks import check_import, sales
from cqrs_lab.workbench.draws import BLOCK, digest
from cqrs_lab.workbench.plots import describe, show
from cqrs_lab.workbench.workload import HOURS, STAGES, WEEKDAYS, Workload, deliveries, generate, tables

TINY = Workload(orders=12, seed=1)
DATA = Path(__file__).parents[2] / "data"
HOT = Workload(orders=40, seed=1, hot=3)

workloads = st.builds(
    Workload,
    orders=st.integers(1, 40),
    seed=st.integers(0, 2**63 - 1),
    customers=st.none() | st.integers(1, 50),
    products=st.integers(1, 30),
    days=st.integers(1, 3_660),
    start=st.dates(date(1900, 1, 1), date(2900, 1, 1)),
    unpaid=st.floats(0, 0.2),
    cancelled=st.floats(0, 0.2),
    waiting=st.floats(0, 0.2),
    lost=st.floats(0, 0.2),
    refunded=st.floats(0, 0.2),
    promotions=st.integers(0, 5),
    late=st.floats(0, 1),
    hot=st.integers(0, 5),
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
        case OrderRefunded():
            return RefundOrder(order_id=event.order_id, amount=event.amount, reason=event.reason)
        case OrderLineAdded():
            return AddOrderLine(order_id=event.order_id, line=event.lines[0])
        case OrderLineRemoved():
            return RemoveOrderLine(order_id=event.order_id, product_id=event.removed[0].product_id)


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
    """Rows are sorted by recorded time, stage and id without ties, and no order has two events in one second."""
    _, events = frames(workload)
    keys = [(row["recorded_at"], STAGES.index(row["type"]), row["id"]) for row in events.iter_rows(named=True)]
    assert all(a < b for a, b in pairwise(keys))
    assert all(moment.microsecond == 0 for moment in events["occurred_at"])
    assert (events["occurred_at"] <= events["recorded_at"]).all()
    assert events.select("id", "occurred_at").is_unique().all()
    assert events.select(pl.col("occurred_at").is_sorted().over("id")).to_series().all()
    placed = events.filter(pl.col("type") == "OrderPlaced")
    assert placed["id"].is_sorted()
    first, last = placed["occurred_at"].min().date(), placed["occurred_at"].max().date()
    assert workload.start <= first <= last < workload.start + timedelta(days=workload.days)


def test_a_seed_is_a_workload():
    """The same seed gives the same digest and another seed another one."""
    same, again, other = (digest(*tables(Workload(orders=500, seed=seed)).values()) for seed in (3, 3, 4))
    assert same == again != other


def test_the_committed_workload_is_the_one_that_is_made():
    """The preset tiny has, wherever this runs, the content that lies in data/, whose README knows its columns."""
    made = tables(Workload.preset("tiny"))
    files = {name: DATA / f"tiny_{name}s.parquet" for name in made}
    kept = {name: pq.read_table(file) for name, file in files.items()}
    assert digest(*kept.values()) == digest(*made.values())
    said = (DATA / "README.md").read_text("utf-8")
    assert digest(*made.values()) in said
    for table in kept.values():
        assert all(f"| `{name}` |" in said for name in table.column_names)
    assert sum(file.stat().st_size for file in files.values()) < 200_000
    with open_shop(threads=1) as lab, open_shop(threads=1) as generated:
        for name, file in files.items():
            lab.append_table(name, file)
        generate(generated, Workload.preset("tiny"))
        envelope = pl.exclude("event_id")
        assert lab.events().pl().select(envelope).equals(generated.events().pl().select(envelope))


def test_presets_have_the_size_that_their_names_say():
    """A preset is a workload by name; a wrong name is refused with those that there are."""
    for name, events in (("million", 1_000_000), ("ten_million", 10_000_000)):
        assert Workload.preset(name).orders * (3.43 + 0.25) == pytest.approx(events, rel=0.03)
    assert Workload.preset("tiny").orders < Workload.preset("workshop").orders < Workload.preset("million").orders
    with pytest.raises(InvalidMessage, match="there are tiny, workshop, million, ten_million, not 'huge'"):
        Workload.preset("huge")


def test_parts_do_not_matter(monkeypatch):
    """A workload that is stored in parts holds the events, and has the digest, of the whole."""
    assert module.SLICE % BLOCK == 0
    monkeypatch.setattr(module, "SLICE", BLOCK)
    workload = Workload(orders=40_000, late=0.1, hot=10)
    with open_shop(threads=1) as parts, open_shop(threads=1) as whole:
        report = generate(parts, workload)
        made = tables(workload)
        for name, table in made.items():
            whole.append_table(name, table)
        assert report.digest == digest(*made.values())
        assert report.events == sum(table.num_rows for table in made.values()) > 2 * BLOCK
        assert report.last_occurred_at == max(made["order"]["occurred_at"].to_pylist())
        assert parts.events().pl().drop("event_id").equals(whole.events().pl().drop("event_id"))


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
        frames(Workload(orders=200, **shares))[1].filter(pl.col("type") == "OrderPlaced")
        for shares in ({}, {"unpaid": 0.5, "cancelled": 0.3, "waiting": 0.1, "lost": 0, "refunded": 0, "late": 0.5})
    ]
    assert placed[0].equals(placed[1])


def test_fates_are_shares_of_all_orders():
    """Each fate gets its share of a large workload, and what they leave is delivered: by default 3.43 events each."""
    workload = Workload(orders=20_000)
    _, events = frames(workload)
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
    _, events = frames(Workload(orders=20_000, days=91, promotions=0))
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
        _, events = frames(Workload(orders=40_000, days=91, promotions=promotions))
        placed = events.filter(pl.col("type") == "OrderPlaced")["occurred_at"].dt
        days = (
            pl.DataFrame({"day": placed.date()})
            .group_by("day")
            .len()
            .with_columns(pl.col("day").dt.weekday().alias("of"))
        )
        usual = pl.col("len") / pl.col("len").median().over("of")
        bursts = days.select(usual.alias("times")).filter(pl.col("times") > 2)["times"]
        assert len(bursts) == promotions
        assert promotions == 0 or bursts.mean() == pytest.approx(5, rel=0.1)


def test_some_events_come_late():
    """Late payments, parcels and refunds stand further down the log than their time; orders are never late."""
    _, events = frames(Workload(orders=5_000, late=0.1))
    assert events["recorded_at"].is_sorted()
    assert not events["occurred_at"].is_sorted()
    late = events.filter(pl.col("recorded_at") > pl.col("occurred_at"))
    assert set(late["type"]) == {"OrderPaid", "OrderShipped", "OrderDelivered", "OrderCancelled", "OrderRefunded"}
    # An event that waits for a late one is late with it.
    assert 0.1 < len(late) / events.filter(pl.col("type") != "OrderPlaced").height < 0.13
    _, punctual = frames(Workload(orders=5_000))
    assert punctual["recorded_at"].equals(punctual["occurred_at"], check_names=False)
    same = ["id", "type", "occurred_at"]
    assert events.select(same).sort(same).equals(punctual.select(same).sort(same))


def test_hot_orders_have_long_streams():
    """Every thousandth order is changed as often as was asked for, and costs in the end what it cost at first."""
    _, events = frames(Workload(orders=2_500, hot=30))
    changes = events.filter(pl.col("type").is_in(["OrderLineAdded", "OrderLineRemoved"]))
    assert changes.group_by("id").len().sort("id").rows() == [(f"o-{n:08}", 60) for n in (1, 1001, 2001)]
    _, calm = frames(Workload(orders=2_500))
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
    distance = (
        seen.group_by("message_id").agg(pl.col("index").max() - pl.col("index").min()).filter(pl.col("index") > 0)
    )
    assert 0 < distance["index"].min() <= distance["index"].max() < 70
    assert digest(tables(Workload(orders=2_000))["order"]) == digest(table)


def test_copies_that_are_appended_count_twice():
    """The log takes facts as they come: with the copies, the shop has earned what it never got."""
    delivered = deliveries(Workload(orders=300, duplicates=0.1))
    events = pl.from_arrow(delivered)
    earned = []
    for rows in (events, events.unique("message_id", keep="first", maintain_order=True)):
        with open_shop(threads=1) as lab:
            lab.append_table("order", rows.drop("message_id").with_columns(recorded_at=rows["recorded_at"].cum_max()))
            earned.append(lab.serve(order_summary).pl()["paid"].sum())
    copies = events.filter(~pl.col("message_id").is_first_distinct())
    signed = pl.when(pl.col("type") == "OrderRefunded").then(-pl.col("amount")).otherwise("amount")
    assert earned[0] - earned[1] == copies.select(signed).sum().item() > 0


def test_the_tables_are_typed_as_the_log_is():
    """Money is decimal(18, 2), times are UTC, and a field is empty where the event has none."""
    _, events = frames(HOT)
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
        signed = pl.when(pl.col("type") == "OrderRefunded").then(-pl.col("amount")).otherwise("amount")
        assert summary["paid"].sum() == events.select(signed).sum().item()
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
    _, events = frames(Workload(orders=500, unpaid=0.25, cancelled=0.25, waiting=0.25, lost=0.25, refunded=0))
    assert "OrderDelivered" not in events["type"].to_list()


def test_only_large_workloads_show_a_bar(monkeypatch, capsys):
    """A small workload prints nothing; a large one says how far it is."""
    with open_shop(threads=1) as lab:
        generate(lab, TINY)
        assert capsys.readouterr() == ("", "")
        monkeypatch.setattr(module, "LARGE", 10)
        generate(lab, Workload(orders=10, prefix="b-"))
        assert "order events: 100%" in capsys.readouterr().err


def test_a_shop_is_described_by_what_its_log_holds():
    """The charts count every order once, name each last event and give the delays; without orders there are none."""
    with open_shop(threads=1) as lab:
        with pytest.raises(InvalidTable, match="no rows"):
            describe(lab)
        generate(lab, Workload(orders=2_000))
        chart = describe(lab)
        said = chart.to_dict()
    frames = [pl.DataFrame(rows) for rows in said["datasets"].values()]
    hours, weekdays, days, customers, last, steps = (
        next(f for f in frames if name in f.columns) for name in ("hour", "weekday", "day", "rank", "event", "step")
    )
    for frame in (hours, weekdays, days, last):
        assert frame["orders"].sum() == 2_000
    assert weekdays["weekday"].to_list() == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    assert customers["rank"].is_sorted()
    assert customers["orders"].is_sorted(descending=True)
    assert set(last["event"]) == {"Placed", "Paid", "Shipped", "Delivered", "Cancelled", "Refunded"}
    assert steps["step"].to_list() == ["Paid", "Shipped", "Delivered"]
    assert steps["median"].to_list() == pytest.approx([0.35, 45, 170], rel=0.2)
    assert (steps["low"] < steps["median"]).all()
    assert (steps["median"] < steps["high"]).all()
    picture = show(chart)
    assert picture.alt == "2,000 orders"
    # A notebook keeps the picture, so its pixels are packed; none is lost.
    start = picture.png.index(b"IDAT")
    size, width, height = (int.from_bytes(picture.png[at : at + 4]) for at in (start - 4, 16, 20))
    body = picture.png[start : start + 4 + size]
    assert len(zlib.decompress(body[4:])) == height * (4 * width + 1) > 30 * len(picture.png)
    assert picture.png[start + 4 + size :][:4] == zlib.crc32(body).to_bytes(4)


def test_the_check_of_an_import_says_what_is_missing():
    """Each thing that an import of the bookshop lacks is named, and a table that the log refuses ends the check."""
    milestones = {"OrderPlaced": "ordered"}
    seen = check_import(events_from_milestones(sales(), key="number", milestones=milestones))
    assert not seen.passed
    assert "✓ three orders came in" in str(seen)
    assert "✗ status is right: of order 1 it is PENDING, not SHIPPED" in str(seen)
    assert "✗ created_at is right: of order 3 it is 2025-03-30 02:30" in str(seen)
    assert "✗ your functions run: InvalidTable" in str(check_import(sales()))
