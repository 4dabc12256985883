"""The latency lab asks every serving the same questions and reports the times as they were, staleness beside them."""

from __future__ import annotations

import polars as pl
import pytest

from cqrs_lab import Domain, Lab, ReadModel, open_shop
from cqrs_lab.errors import QueryError, QueryFailed, ReadOnlyStore, UnknownReadModel
from cqrs_lab.read.served import Served
from cqrs_lab.shop import (
    AddOrderLine,
    OrderLine,
    PayOrder,
    PlaceOrder,
    RefundOrder,
    RemoveOrderLine,
    customers,
    daily_orders,
    order_summary,
    orders,
)
from cqrs_lab.store.rows import Rows
from cqrs_lab.workbench.data.generated import generate
from cqrs_lab.workbench.data.workload import Workload
from cqrs_lab.workbench.measure import costs, timing
from cqrs_lab.workbench.measure import latency as module
from cqrs_lab.workbench.measure.costs import BY_HAND, order_summary_by_hand, time_steps
from cqrs_lab.workbench.measure.latency import CACHED, compare_latency

WAYS = ["view", "materialized", "projection"]
THREE = ["point", "list", "aggregate"]
SMALL = Workload(orders=60, seed=3)
order_ids = ReadModel("order_ids", key="order_id", sql="SELECT order_id FROM order_events GROUP BY order_id")


def compare(*what, **more):
    """Compare three servings by three questions."""
    return compare_latency(*what, **{"served_as": WAYS, "questions": THREE, "costs": False} | more)


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    """Let costs be taken from few writes; how many is no matter here."""
    monkeypatch.setattr(costs, "_WRITES", 2)
    monkeypatch.setattr(costs, "_BATCH", 5)


@pytest.fixture(scope="module")
def lab():
    """A shop with a small workload, whose log stays as it is."""
    with open_shop(threads=1) as shop:
        generate(shop, SMALL)
        yield shop


@pytest.fixture
def fresh():
    """A shop with a small workload, of which nothing is served, for one test."""
    with open_shop(threads=1) as shop:
        generate(shop, SMALL)
        yield shop


@pytest.fixture
def clock(monkeypatch):
    """A clock in nanoseconds that stands still until it is moved."""
    now = [0]
    monkeypatch.setattr(module, "perf_counter_ns", lambda: now[0])
    return now


@pytest.fixture
def asked(monkeypatch):
    """What is asked of servings while a test runs: (served_as, question, its value, the number of rows answered)."""
    seen = []
    get, where, sql = Served.get, Served.where, Served.sql

    def spy_get(self, *key):
        row = get(self, *key)
        seen.append((self.as_, "point", key, row is not None))
        return row

    def spy_where(self, **equals):
        rows = where(self, **equals)
        seen.append((self.as_, "list", equals, len(rows)))
        return rows

    def spy_sql(self, question):
        rows = sql(self, question)
        if "GROUP BY" in question:
            seen.append((self.as_, "aggregate", question, len(rows)))
        return rows

    monkeypatch.setattr(Served, "get", spy_get)
    monkeypatch.setattr(Served, "where", spy_where)
    monkeypatch.setattr(Served, "sql", spy_sql)
    return seen


def test_the_frame_has_a_row_for_each_serving_and_question(lab):
    """Three servings by three questions, with the size of the history, the runs and rising percentiles."""
    frame = compare(lab, order_summary, runs=4, warmup=1)
    assert frame.schema == {
        "served_as": pl.String, "question": pl.String, "events": pl.Int64, "runs": pl.Int64,
        "p50_ms": pl.Float64, "p50_low_ms": pl.Float64, "p50_high_ms": pl.Float64, "p95_ms": pl.Float64,
        "p99_ms": pl.Float64, "staleness_events": pl.Int64,
        "write_ms": pl.Float64, "refresh_ms": pl.Float64, "event_ms": pl.Float64, "bytes": pl.Int64,
    }  # fmt: skip
    questions = ["point", "list", "aggregate"]
    assert frame.select("served_as", "question").rows() == [(way, question) for way in WAYS for question in questions]
    assert set(frame["events"]) == {lab.head}
    assert set(frame["runs"]) == {4}
    assert frame.select((pl.col("p50_ms") > 0) & (pl.col("p50_ms") <= pl.col("p95_ms"))).to_series().all()
    assert (frame["p95_ms"] <= frame["p99_ms"]).all()


def test_every_serving_is_asked_the_same(lab, asked):
    """Each serving gets each question with the same values, all of things that are there, as often as was said."""
    compare(lab, order_summary, runs=10, warmup=2)
    by_way = {way: sorted(map(repr, (a[1:] for a in asked if a[0] == way))) for way in WAYS}
    assert by_way["view"] == by_way["materialized"] == by_way["projection"]
    assert len(by_way["view"]) == 3 * (10 + 2)
    assert all(found for *_, found in asked)


def test_the_runs_are_mixed(lab, asked):
    """After the warm-up no serving and no question has a stretch of time to itself."""
    compare(lab, order_summary, runs=20, warmup=1)
    measured = [what[:2] for what in asked[9:]]
    assert len({*measured[:45]}) == len({*measured[-45:]}) == 9
    # Nor do they take turns, because then each would always find the memory that the same one left.
    assert measured[:9] * 20 != measured


def test_a_seed_repeats_the_questions(lab, asked):
    """The same seed asks the same questions in the same order, another seed others."""
    plans = []
    for seed in (1, 1, 2):
        asked.clear()
        compare(lab, order_summary, runs=5, seed=seed)
        plans.append(list(asked))
    assert plans[0] == plans[1] != plans[2]


def test_the_times_are_those_of_the_clock(lab, clock, monkeypatch):
    """Percentiles are taken over all measured runs, and the warm-up is not among them."""
    runs = {way: iter([10**6, *range(11)]) for way in WAYS}

    def slow_get(self, *key):
        clock[0] += next(runs[self.as_]) * 1_000_000

    monkeypatch.setattr(Served, "get", slow_get)
    frame = compare(lab, order_summary, runs=11, warmup=1).filter(pl.col("question") == "point")
    assert frame.select("p50_ms", "p95_ms", "p99_ms").rows() == [(5.0, 9.5, 9.9)] * 3


def test_answers_are_fetched_within_the_time(lab, clock, monkeypatch):
    """A list and an aggregate count as answered once their rows are there as Python values."""
    fetchall = Rows.fetchall

    def slow_fetch(self):
        clock[0] += 7_000_000
        return fetchall(self)

    monkeypatch.setattr(Rows, "fetchall", slow_fetch)
    frame = compare(lab, order_summary, runs=2, warmup=0)
    assert dict(frame.group_by("question").agg(pl.col("p50_ms").max()).rows()) == {
        "point": 0.0, "list": 7.0, "aggregate": 7.0,
    }  # fmt: skip


def test_a_serving_that_is_there_is_left_where_it_is(fresh, asked):
    """What is behind the log stays behind and says by how much; it is asked only for what it knows."""
    projection = fresh.serve(order_summary)
    stood = projection.position
    more = generate(fresh, Workload(orders=200, prefix="b-")).events
    frame = compare(fresh, order_summary, runs=15)
    behind = dict(frame.select("served_as", "staleness_events").unique().rows())
    assert behind == {"view": 0, "materialized": 0, "projection": more}
    assert projection.position == stood
    assert all(found for *_, found in asked)


def test_every_serving_answers_all_questions_that_it_can(fresh):
    """Five servings, five questions: a cache keeps no aggregate; the past is folded, or looked up where it is kept."""
    frame = compare_latency(fresh, order_summary, runs=2, costs=False)
    asked = {way: of["question"].to_list() for (way,), of in frame.group_by("served_as")}
    four = [*THREE, "top ten"]
    assert asked == {
        "view": [*four, "as of"], "materialized": four, "projection": four, CACHED: ["point", "list"], BY_HAND: four,
    }  # fmt: skip
    assert "order_summary_by_hand" not in fresh.lag().pl()["model"]
    fresh.serve(order_summary, keep_history=True)
    past = compare_latency(fresh, order_summary, runs=2, costs=False, questions=["as of"])
    assert past["served_as"].to_list() == ["view", "projection"]
    big = compare_latency(fresh, daily_orders, runs=2, costs=False)
    assert BY_HAND not in big["served_as"]


def test_the_cache_has_seen_every_question(lab, asked, clock, monkeypatch):
    """The cached projection is asked once before its runs, for each value; its runs reach no serving."""
    get = Served.get

    def slow_get(self, *key):
        clock[0] += 7_000_000
        return get(self, *key)

    monkeypatch.setattr(Served, "get", slow_get)
    frame = compare(lab, order_summary, runs=6, warmup=0, served_as=[CACHED], questions=["point"])
    assert frame.select("served_as", "p50_ms", "p99_ms").rows() == [(CACHED, 0.0, 0.0)]
    assert 0 < len(asked) <= 6


def test_row_by_row_gives_the_same_rows(fresh):
    """The projection by hand has the rows of order_summary, but for the customer's name and email."""
    line = {"quantity": 3, "unit_price": "2.50"}
    lines = [OrderLine(product_id=product, **line) for product in "abc"]
    fresh.send(PlaceOrder(order_id="x", customer_id="c", lines=lines[:2]))
    fresh.send(AddOrderLine(order_id="x", line=lines[2]))
    fresh.send(RemoveOrderLine(order_id="x", product_id="a"))
    fresh.send(PayOrder(order_id="x", amount="15.00"))
    fresh.send(RefundOrder(order_id="x", amount="1.00"))
    by_hand, columns = fresh.serve(order_summary_by_hand()), ", ".join(order_summary_by_hand().columns)
    rows = fresh.serve(order_summary).sql(f"SELECT {columns} FROM order_summary ORDER BY order_id").fetchall()
    assert by_hand.rows().fetchall() == rows


def test_costs_are_measured_on_a_copy(fresh):
    """Each serving has the price of a write and a refresh, and its size; the fresh stays as it was."""
    head = fresh.head
    frame = compare_latency(fresh, order_summary, runs=2)
    assert fresh.head == head
    costs = frame.select("served_as", "write_ms", "refresh_ms", "event_ms", "bytes").unique(maintain_order=True)
    assert costs["served_as"].to_list() == [*WAYS, CACHED, BY_HAND]
    found = {row.pop("served_as"): row for row in costs.to_dicts()}
    assert found["view"]["refresh_ms"] == found["view"]["bytes"] == 0 < found["view"]["write_ms"]
    assert all(min(found[way]["write_ms"], found[way]["refresh_ms"]) > 0 for way in found if way != "view")
    assert all(found[way]["bytes"] % 4096 == 0 < found[way]["bytes"] for way in found if way != "view")
    assert found[CACHED] == found["projection"]
    assert all(found[way]["event_ms"] >= 0 for way in found)
    bare = compare(fresh, order_ids, runs=2)
    assert bare["bytes"].null_count() == len(bare)


def test_the_interval_holds_the_median(lab, clock, monkeypatch):
    """The interval of the median is that of the ranks: of 100 runs the 40th to the 61st, around the median."""
    times = iter(range(1, 101))

    def slow_get(self, *key):
        clock[0] += next(times) * 1_000_000

    monkeypatch.setattr(Served, "get", slow_get)
    frame = compare(lab, order_summary, runs=100, warmup=0, served_as=["view"], questions=["point"])
    assert frame.select("p50_low_ms", "p50_ms", "p50_high_ms").rows() == [(40.0, 50.5, 61.0)]


def test_any_read_model_can_be_compared(lab, asked):
    """Another read model is listed and counted by its first column outside the key, one of keys alone only counted."""
    assert compare(lab, daily_orders, runs=2)["question"].unique(maintain_order=True).to_list() == [
        "point", "list", "aggregate",
    ]  # fmt: skip
    assert {tuple(value) for _, question, value, _ in asked if question == "list"} == {("orders",)}
    assert {value for _, question, value, _ in asked if question == "aggregate"} == {
        'SELECT count(*) FROM "daily_orders" GROUP BY "orders"'
    }
    assert compare(lab, order_ids, runs=2)["question"].unique(maintain_order=True).to_list() == [
        "point", "aggregate",
    ]  # fmt: skip


def test_the_questions_can_be_chosen(lab, asked):
    """`list_by` and `aggregate` replace the usual questions; the key itself can be listed by."""
    mine = "SELECT customer_id, max(total) FROM order_summary GROUP BY customer_id"
    compare(lab, "order_summary", runs=3, list_by="order_id", aggregate=mine)
    assert {tuple(value) for _, question, value, _ in asked if question == "list"} == {("order_id",)}
    assert {found for _, question, _, found in asked if question == "list"} == {1}
    assert {value for _, question, value, _ in asked if question == "aggregate"} == {mine}


def test_a_key_of_several_columns_can_be_compared(asked):
    """A read model with two key columns and values that are empty is asked for both parts, and for the empty ones."""
    per_day = ReadModel(
        "per_day",
        key=("day", "type"),
        sql="SELECT occurred_at::DATE AS day, type, max(method) AS method FROM order_events GROUP BY day, type",
    )
    with Lab(domain=Domain(deciders=[orders, customers], read_models=[per_day]), threads=1) as lab:
        generate(lab, SMALL)
        compare(lab, per_day, runs=20)
    assert {len(value) for _, question, value, _ in asked if question == "point"} == {2}
    assert {value["method"] for _, question, value, _ in asked if question == "list"} > {None}
    assert all(found for *_, found in asked)


def test_a_read_only_store_is_asked_what_it_has(tmp_path):
    """A read-only store is measured when every serving is there, and names the first that is missing."""
    with open_shop(tmp_path / "shop.duckdb", threads=1) as lab:
        generate(lab, SMALL)
        lab.serve(order_summary)
    with (
        open_shop(tmp_path / "shop.duckdb", read_only=True, threads=1) as lab,
        pytest.raises(
            ReadOnlyStore, match=r"order_summary is not served as materialized in .*open it for writing once"
        ),
    ):
        compare(lab, order_summary)
    with open_shop(tmp_path / "shop.duckdb", threads=1) as lab:
        lab.serve(order_summary, as_="materialized")
    with open_shop(tmp_path / "shop.duckdb", read_only=True, threads=1) as lab:
        head = lab.head
        frame = compare_latency(lab, order_summary, runs=2)  # the costs are those of a copy
        assert set(frame["served_as"]) == {*WAYS, CACHED, BY_HAND}
        assert frame["write_ms"].min() > 0
        assert lab.head == head


def test_nothing_to_ask_is_said(lab):
    """An empty log builds nothing; a read model without rows, no runs and unknown columns are refused by name."""
    with open_shop(threads=1) as empty:
        with pytest.raises(QueryError, match="is empty, so there is nothing to ask"):
            compare(empty, order_summary)
        assert len(empty.lag()) == 0
    nothing = ReadModel(
        "nothing", key="order_id", sql="SELECT order_id FROM order_events WHERE type = 'Lost' GROUP BY order_id"
    )
    with pytest.raises(QueryError, match="nothing as view has no rows at position"):
        compare(lab, nothing)
    with pytest.raises(QueryError, match="runs=0, warmup=3"):
        compare(lab, order_summary, runs=0)
    with pytest.raises(QueryError, match="has no column 'colour' to list by; it has order_id, customer_id"):
        compare(lab, order_summary, list_by="colour")
    with pytest.raises(QueryFailed):
        compare(lab, order_summary, aggregate="SELECT colour FROM order_summary")
    with pytest.raises(UnknownReadModel):
        compare(lab, "orders")


def test_steps_are_timed(monkeypatch):
    """Every projection follows every batch of new orders; of several runs the fastest counts."""
    lab = open_shop(threads=1)
    generate(lab, Workload(orders=30, seed=3))
    head, now, catch_up = lab.head, [0], Served.catch_up
    spent = {order_ids.name: iter([9, 5, 3, 7]), daily_orders.name: iter([1, 2, 4, 1])}

    def slow(self):
        if self.position < lab.head:
            now[0] += next(spent[self.model.name]) * 1_000_000
        return catch_up(self)

    lab.serve(order_ids)
    monkeypatch.setattr(timing, "perf_counter_ns", lambda: now[0])
    monkeypatch.setattr(Served, "catch_up", slow)
    frame = time_steps(lab, [order_ids, daily_orders], sizes=(1, 3), runs=2)
    assert sorted(frame.rows()) == [
        (1, "daily_orders", 1.0), (1, "order_ids", 3.0), (3, "daily_orders", 1.0), (3, "order_ids", 5.0),
    ]  # fmt: skip
    assert lab.head == head + 8
    assert {lab.serve(model).position for model in (order_ids, daily_orders)} == {lab.head}
    lab.close()
