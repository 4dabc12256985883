"""Servings: built, attached to, asked, moved, explained."""

from __future__ import annotations

import gc
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from support import START, append, as_table, placed

from cqrs_lab import Decider, Domain, Lab, ReadModel, open_shop
from cqrs_lab.errors import (
    ProjectionFailed,
    QueryFailed,
    ReadModelRefused,
    ReadOnlyStore,
    RebuildNeeded,
    StoreClosed,
)
from cqrs_lab.read.served import freshest
from cqrs_lab.shop import OrderDetails, OrderPaid, OrderPlaced, OrdersOfCustomer, daily_orders, order_summary

WAYS = ("view", "materialized", "projection")


@pytest.fixture(scope="module")
def one_order():
    """A shop with one order, to which nothing is appended."""
    with open_shop() as lab:
        append(lab, [placed(1)])
        yield lab


def test_three_servings_stand_side_by_side_and_are_found_again(tmp_path):
    """View, table and projection of every model live in one store and are attached to when it is reopened."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path) as lab:
        append(lab, [placed(1), placed(2)])
        for model in (order_summary, daily_orders):
            for as_ in WAYS:
                assert lab.serve(model, as_=as_).position == 2
        append(lab, [placed(3)])
    with open_shop(path) as lab:
        found = [served.as_ for served in lab._servings.served() if served.model in (order_summary, daily_orders)]
        assert found == sorted(WAYS) * 2
        assert lab.serve(order_summary, as_="materialized").position == 2  # attached, not built anew
        assert lab.serve(order_summary, as_="projection").get("o-3") is None
        assert lab.serve(order_summary, as_="view").get("o-3")["total"] == Decimal("10.00")
        assert lab.catch_up() == 3
        assert lab.serve(order_summary, as_="projection").get("o-3")["item_count"] == 2


def test_a_row_by_key_is_a_dict_with_aware_times():
    """get() returns a dict of plain Python values, times aware in UTC, and None for an unknown key."""
    with open_shop() as lab:
        append(lab, [placed(1), (OrderPaid(order_id="o-1", amount="11.50", method="card"), 7)])
        for as_ in WAYS:
            assert lab.serve(order_summary, as_=as_).get("o-1") == {
                "order_id": "o-1", "customer_id": "c-1", "customer_name": None, "customer_email": None,
                "status": "PAID", "total": Decimal("10.00"), "paid": Decimal("11.50"), "item_count": 2, "version": 2,
                "created_at": START + timedelta(minutes=1), "updated_at": START + timedelta(minutes=7),
            }  # fmt: skip
            assert lab.serve(order_summary, as_=as_).get("o-2") is None
            assert lab.serve(daily_orders, as_=as_).get(date(2025, 1, 1))["orders"] == 1


def test_times_have_one_form():
    """However a row is asked for, its times print alike: with datetime.timezone.utc, also in lists and structs."""
    times = ReadModel(
        "times",
        key="order_id",
        sql="SELECT order_id, max(occurred_at) AS at, max([occurred_at]) AS list, "
        "max({'at': [occurred_at]}) AS struct, max(MAP {'at': occurred_at}) AS map FROM order_events GROUP BY ALL",
    )
    at = START
    with open_shop() as lab:
        append(lab, [(placed(1)[0], 0)])
        for as_ in WAYS:
            served = lab.serve(times, as_=as_)
            by_key = served.get("o-1")
            (row,), (fields,) = served.rows().fetchall(), served.rows().dicts()
            assert repr(by_key["at"]) == repr(row[1]) == repr(fields["at"]) == repr(at)
            assert repr(by_key["list"]) == repr(row[2]) == repr(fields["list"]) == repr([at])
            assert repr(by_key["struct"]) == repr(row[3]) == repr(fields["struct"]) == repr({"at": [at]})
            assert repr(row[4]) == repr([("at", at)])
        assert [repr(event[4]) for event in lab.events()] == [repr(at)]


def test_rows_come_in_every_shape_and_agree():
    """Polars, pandas, Arrow and tuples of one answer hold the same rows, money exact and times aware."""
    with open_shop() as lab:
        append(lab, [placed(1), placed(2, "c-2")])
        served = lab.serve(order_summary)
        rows = served.where(customer_id="c-2")
        assert rows.pl()["total"].to_list() == [Decimal("10.00")]
        assert rows.pl().schema["created_at"] == pl.Datetime("us", "UTC")
        assert list(rows.df()["total"]) == [Decimal("10.00")]
        assert str(rows.df()["created_at"].dt.tz) == "UTC"
        assert rows.arrow().num_rows == len(rows) == len(rows.fetchall()) == 1
        assert served.pl()["order_id"].to_list() == served.df()["order_id"].to_list() == ["o-1", "o-2"]
        assert "o-2" in repr(rows)
        assert "<table" in rows._repr_html_()
        moment = served.where(created_at=START.replace(minute=2))
        assert moment.fetchall()[0][0] == "o-2"
        assert served.where(total=None).fetchall() == []


def test_looking_at_many_rows_fetches_few():
    """The notebook's look at a long answer shows its first ten rows, and says how many there are."""
    with open_shop() as lab:
        append(lab, [placed(n) for n in range(30)])
        for rows in (lab.serve(order_summary).rows(), lab.events()):
            assert "The first 10 of 30 rows" in repr(rows)
            assert rows._repr_html_().count("<tr>") == 11
            assert "_table" not in vars(rows)
            assert len(rows) == 30
            assert "The first 10 of 30 rows" in repr(rows)


def test_sql_asks_the_serving_and_its_neighbours():
    """A question names read models; its own is read from this serving, others from their freshest."""
    with open_shop() as lab:
        append(lab, [placed(1)])
        served = lab.serve(order_summary, as_="materialized")
        append(lab, [placed(2)])
        question = "SELECT (SELECT count(*) FROM order_summary), (SELECT sum(orders) FROM daily_orders);"
        assert served.sql(question).fetchall() == [(1, 2)]


@pytest.mark.parametrize(
    "question",
    ["DROP TABLE order_events", "INSERT INTO streams VALUES ('x', 1, 'y', 'z')", "SELECT 1; SELECT 2",
     "COPY order_events TO 'x.csv'", "SET threads = 1", "CREATE TABLE t AS SELECT 1", "ATTACH 'x.duckdb'", "",
     "SELECT nonsense"],
)  # fmt: skip
def test_a_question_only_reads(one_order, question):
    """Text that is not one SELECT, or a wrong one, is refused where it is asked."""
    for ask in (one_order.serve(order_summary), one_order.as_of(position=1)):
        with pytest.raises(QueryFailed):
            ask.sql(question)
    assert one_order.serve(order_summary, as_="view").get("o-1") is not None


def test_a_hostile_key_is_a_value():
    """Keys and values reach SQL as parameters."""
    hostile = "x'; DROP TABLE order_events; --"
    with open_shop() as lab:
        append(lab, [placed(1, hostile)])
        served = lab.serve(order_summary)
        assert served.get(hostile) is None
        assert served.where(customer_id=hostile).fetchall()[0][0] == "o-1"
        assert lab.as_of(position=1).get(order_summary, hostile) is None
        with pytest.raises(QueryFailed, match="no column"):
            served.where(**{'total" = 0 OR "x': 1})


def test_lag_says_how_far_each_serving_is():
    """lab.lag() has a row for each serving: position, head, events and seconds behind, state."""
    clock = [START]
    with open_shop(clock=lambda: clock[0]) as lab:
        append(lab, [placed(1)])
        for as_ in WAYS:
            lab.serve(order_summary, as_=as_)
        append(lab, [placed(2), placed(3)])
        lag = {row["served_as"]: row for row in lab.lag().dicts()}
        assert lag["view"]["events_behind"] == 0
        assert lag["view"]["seconds_behind"] == 0
        for as_ in ("projection", "materialized"):
            assert (lag[as_]["position"], lag[as_]["head"], lag[as_]["events_behind"]) == (1, 3, 2)
            assert lag[as_]["seconds_behind"] > 0
            assert lag[as_]["state"] == "ok"
        served = lab.serve(order_summary)
        served.catch_up()
        assert served.lag().dicts()[0]["events_behind"] == 0


def test_a_materialized_table_says_what_it_is_fresh_to():
    """refresh() returns the position; until then the old rows and their position stay."""
    with open_shop() as lab:
        append(lab, [placed(1)])
        served = lab.serve(order_summary, as_="materialized")
        append(lab, [placed(2)])
        assert (served.position, len(served.rows())) == (1, 1)
        assert served.refresh() == 2
        assert (served.position, len(served.rows())) == (2, 2)


def test_a_changed_select_asks_for_a_rebuild():
    """Rows that another SELECT made are not passed off as the new one's; rebuild() makes them so."""
    old = ReadModel("mine", "order_id", "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id")
    new = ReadModel("mine", "order_id", "SELECT order_id, 10 * count(*) AS m FROM order_events GROUP BY order_id")
    with open_shop() as lab:
        append(lab, [placed(1)])
        for as_ in WAYS:
            lab.serve(old, as_=as_)
            served = lab.serve(new, as_=as_)
            if as_ == "view":  # which keeps nothing that could be another's
                assert served.get("o-1") == {"order_id": "o-1", "m": 10}
                continue
            assert served.state == "rebuild needed"
            for ask in (lambda s=served: s.get("o-1"), lambda s=served: s.rows(), lambda s=served: s.sql("FROM mine")):
                with pytest.raises(RebuildNeeded):
                    ask()
            served.rebuild()
            assert served.get("o-1") == {"order_id": "o-1", "m": 10}


@pytest.mark.parametrize("k", ["'a'", "nullif(order_id, order_id)"], ids=["a value", "NULL"])
@pytest.mark.parametrize("as_", ["projection", "materialized"])
def test_a_doubled_key_fails_and_keeps_the_old_rows(k, as_):
    """Two rows of one key, NULL or not, are an error with the key in it, and rows and position stay as they were."""
    model = ReadModel("mine", "k", f"SELECT {k} AS k, total FROM order_events")
    with open_shop() as lab:
        append(lab, [placed(1)])
        served = lab.serve(model, as_=as_)
        before = served.rows().fetchall()
        append(lab, [(OrderPlaced(order_id="o-2", total="1.00"), 2)])
        for move in (served.catch_up, served.rebuild) if as_ == "projection" else (served.refresh,):
            with pytest.raises(ProjectionFailed, match=r"two rows of mine have .*(None|\"a\"|'a')"):
                move()
            assert (served.position, served.rows().fetchall()) == (1, before)


@pytest.mark.parametrize("key", ["k", ("k", "type")])
def test_a_key_may_be_null(key):
    """Rows of a NULL group are rows like any other, in every serving, after every batch; get(None) finds them."""
    model = ReadModel(
        "mine",
        key,
        f"SELECT customer_id AS k, {'type, ' if key != 'k' else ''}count(*) AS n, count(DISTINCT order_id) AS orders "
        "FROM order_events GROUP BY ALL",
    )
    with open_shop() as lab:
        servings = [lab.serve(model, as_=as_) for as_ in WAYS]
        for number in (1, 2):
            batch = [(OrderPaid(order_id=f"o-{number}", amount="1.00", method="card"), 1)]
            append(lab, [placed(number), *batch, (OrderPlaced(order_id="x", total="1.00"), 2)])
            lab.catch_up()
            lab.serve(model, as_="materialized").refresh()
            one, *others = (sorted(map(str, served.rows().fetchall())) for served in servings)
            assert others == [one, one]
            assert sorted(map(str, lab.as_of(position=lab.head).rows(model).fetchall())) == one
        whole = (None,) if key == "k" else (None, "OrderPlaced")
        assert {served.get(*whole)["n"] for served in servings} == {4 if key == "k" else 2}


def test_an_event_that_breaks_a_select_stops_that_projection_only():
    """A projection whose SELECT fails on an event stays before it; the others go on."""
    model = ReadModel(
        "fragile", "order_id", "SELECT order_id, max(CAST(method AS INTEGER)) AS n FROM order_events GROUP BY order_id"
    )
    with open_shop() as lab:
        fragile, summary = lab.serve(model), lab.serve(order_summary)
        append(lab, [(OrderPaid(order_id="o-1", amount="1.00", method="card"), 1)])
        with pytest.raises(ProjectionFailed, match="fragile"):
            fragile.catch_up()
        assert fragile.position == 0
        assert summary.catch_up() == 1


def test_queries_are_answered_from_the_freshest_serving():
    """ask() reads the serving that tells most of the log, or the one it is told to read."""
    with open_shop() as lab:
        append(lab, [placed(1)])
        assert lab.ask(OrderDetails(order_id="o-1"))["status"] == "PENDING"  # not served at all: as a view
        served = lab.serve(order_summary)
        lab.serve(order_summary, as_="view")
        append(lab, [placed(2)])
        assert lab.ask(OrderDetails(order_id="o-2"))["total"] == Decimal("10.00")
        assert lab.ask(OrderDetails(order_id="o-2"), served_as="projection") is None
        served.catch_up()
        assert freshest(lab._servings.running, order_summary).as_ == "projection"
        assert len(lab.ask(OrdersOfCustomer(customer_id="c-1"))) == 2


def test_a_read_only_store_answers_and_does_not_move(tmp_path):
    """Reads work on a read-only store, a view without being stored; whatever writes is refused."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path) as lab:
        append(lab, [placed(1)])
        lab.serve(order_summary)
        append(lab, [placed(2)])
    with open_shop(path, read_only=True) as lab:
        projection, view = lab.serve(order_summary), lab.serve(order_summary, as_="view")
        assert projection.get("o-2") is None
        assert view.get("o-2") is not None
        assert lab.as_of(position=1).sql("SELECT count(*) FROM order_summary").fetchall() == [(1,)]
        assert len(view.sql("SELECT * FROM order_summary").pl()) == 2
        for write in (
            projection.catch_up,
            projection.rebuild,
            lambda: lab.serve(daily_orders),
            lambda: lab.append_table("order", as_table([placed(3)])),
        ):
            with pytest.raises(ReadOnlyStore):
                write()


def test_explain_shows_the_sql_of_each_serving():
    """explain() says how a serving works, why, and the statements it runs."""
    with open_shop() as lab:
        texts = {as_: str(lab.serve(order_summary, as_=as_).explain()) for as_ in WAYS}
        for as_ in ("view", "materialized"):
            assert "WHEN 'OrderCancelled' THEN 5 ELSE 1 END)] AS status" in texts[as_]
        assert "because its rows are those of order_facts" in texts["projection"]
        for part in ("rebuild", "keys that c reaches", "reached", "each batch", "a read by key"):
            assert f"\n-- {part}\n" in texts["projection"]
        assert 'FROM "new order_events"' in texts["projection"]
        assert "CREATE TABLE" in texts["materialized"]


def test_composite_keys_are_looked_up_whole():
    """A key of two columns is given as two values."""
    model = ReadModel(
        "pairs", ("customer_id", "type"), "SELECT customer_id, type, count(*) AS n FROM order_events GROUP BY ALL"
    )
    with open_shop() as lab:
        append(lab, [placed(1), placed(2)])
        for as_ in WAYS:
            assert lab.serve(model, as_=as_).get("c-1", "OrderPlaced")["n"] == 2
        assert lab.as_of(position=1).get(model, "c-1", "OrderPlaced")["n"] == 1
        for ask in (lambda: lab.serve(model).get("c-1"), lambda: lab.as_of(position=1).get(model, "c-1")):
            with pytest.raises(QueryFailed, match="has the key"):
                ask()


def test_a_model_that_nobody_planned_reads_the_whole_past():
    """A read model declared after the events is built from the first of them."""
    with open_shop() as lab:
        append(lab, [placed(1), placed(2, "c-2"), placed(3, "c-2")])
        best = ReadModel(
            "best_customers",
            "customer_id",
            "SELECT customer_id, sum(total) AS spent FROM order_events WHERE type = 'OrderPlaced' GROUP BY ALL",
        )
        assert lab.serve(best).get("c-2")["spent"] == Decimal("20.00")


def test_a_domain_without_read_models_works():
    """Everything of a lab is optional but its log."""
    with Lab(domain=Domain()) as lab:
        assert lab.lag().dicts() == []
        assert lab.catch_up() == 0
    with pytest.raises(Exception, match="category"):
        Lab(domain=Domain(deciders=[Decider("a b", "k", None, lambda c, s: [], lambda s, e: s, [], [])]))


def test_answers_outlive_the_lab_that_gave_them():
    """Rows, servings and the past can be asked when nobody keeps the lab any more; a closed lab refuses everything."""

    def forgotten():
        lab = open_shop()
        append(lab, [placed(1)])
        return lab.events(), lab.serve(order_summary), lab.as_of(position=1)

    rows, served, past = forgotten()
    gc.collect()
    assert len(rows) == 1
    assert served.get("o-1") == past.get(order_summary, "o-1")
    lab = open_shop()
    served = lab.serve(order_summary)
    lab.close()
    for ask in (lambda: lab.head, lab.catch_up, lab.lag, lambda: lab.serve(order_summary), lambda: served.get("o-1")):
        with pytest.raises(StoreClosed):
            ask()


def indexes(lab: Lab) -> list[tuple[str, str]]:
    """The indexes of servings, by schema and name."""
    where = "WHERE sql IS NOT NULL AND schema_name <> 'main' ORDER BY ALL"
    return lab._log.database.execute(f"SELECT schema_name, index_name FROM duckdb_indexes() {where}")


@pytest.mark.parametrize("as_", ["projection", "materialized"])
def test_rows_are_looked_up_through_the_indexes_that_are_declared(as_: str, tmp_path: Path) -> None:
    """Declared indexes are used, moved and rebuilt with their rows, told by explain(), and follow the declaration."""
    sql = "SELECT order_id, max(customer_id) AS customer_id, max(version) AS v FROM order_events GROUP BY order_id"
    mine = ReadModel("mine", "order_id", sql, indexes=("customer_id", ("Customer_ID", "v")))
    assert mine.indexes == (("customer_id",), ("Customer_ID", "v"))
    expected = [(as_, "mine by Customer_ID, v"), (as_, "mine by customer_id")]
    with open_shop(tmp_path / "shop.duckdb", threads=1) as lab:
        append(
            lab, [(OrderPlaced(order_id=f"o-{n}", customer_id=f"c-{n % 50}", total="1.00"), 0) for n in range(5_000)]
        )
        served = lab.serve(mine, as_=as_)
        assert indexes(lab) == expected
        asked = served._log.database.execute("EXPLAIN ANALYZE " + served.select() + " WHERE customer_id = 'c-7'")
        assert "Index Scan" in asked[0][1]
        assert len(served.where(customer_id="c-7")) == 100
        append(lab, [(OrderPlaced(order_id="o-8", customer_id="c-9", total="1.00"), 0), (OrderPaid(order_id="o-7"), 1)])
        append(lab, [(OrderPlaced(order_id=f"p-{n}", customer_id="c-7", total="1.00"), 0) for n in range(30)])
        served.catch_up() if as_ == "projection" else served.refresh()
        assert len(served.where(customer_id="c-7")) == 130
        assert served.get("o-8")["customer_id"] == "c-9"
        served.rebuild()
        assert indexes(lab) == expected
        assert "-- a read by Customer_ID, v, through an index" in str(served.explain())
    with open_shop(tmp_path / "shop.duckdb", threads=1) as lab:
        other = ReadModel("mine", "order_id", sql, indexes=("v",))
        assert len(lab.serve(other, as_=as_).where(customer_id="c-7")) == 130
        assert indexes(lab) == [(as_, "mine by v")]
        lab.serve(ReadModel("mine", "order_id", sql), as_=as_)
        assert indexes(lab) == []


@pytest.mark.parametrize("as_", ["projection", "materialized"])
def test_texts_that_an_index_is_over_are_not_packed(as_: str, tmp_path: Path) -> None:
    """Texts of keys and declared indexes stand in the file as they are, or each row would cost a block of them."""
    sql = (
        "SELECT order_id, max(customer_id) AS customer_id, max(total)::VARCHAR AS t FROM order_events GROUP BY order_id"
    )
    with open_shop(tmp_path / "shop.duckdb", threads=1) as lab:
        append(
            lab, [(OrderPlaced(order_id=f"o-{n}", customer_id=f"c-{n % 50}", total="1.00"), 0) for n in range(5_000)]
        )
        served = lab.serve(ReadModel("mine", "order_id", sql, indexes=("Customer_id",)), as_=as_)
        served.rebuild()
        run = lab._log.database.execute
        run("CHECKPOINT")
        told = f"FROM pragma_storage_info('{as_}.mine') WHERE segment_type = 'VARCHAR'"
        packed = dict(run(f"SELECT column_name, bool_and(compression <> 'Uncompressed') {told} GROUP BY ALL"))
    assert packed == {"order_id": False, "customer_id": False, "t": True}


@pytest.mark.parametrize("as_", ["projection", "materialized"])
def test_numbers_and_times_can_be_read_by_themselves(as_: str, tmp_path: Path) -> None:
    """None of them is kept in runs, of which all before a row would be gone through for it."""
    sql = """SELECT order_id, max(total) AS total, max(total)::DOUBLE AS about, count(amount) AS paid,
                    DATE '2026-01-01' + max(customer_id)::INTEGER AS day, max(occurred_at) AS at
             FROM order_events GROUP BY order_id"""
    with open_shop(tmp_path / "shop.duckdb", threads=1) as lab:
        runs = [(number, number // 700 * 99_991 % 31_337) for number in range(5_000)]
        orders = [OrderPlaced(order_id=f"o-{n:05}", customer_id=str(far), total=f"{far}.00") for n, far in runs]
        append(lab, [(order, 0) for order in orders])
        lab.serve(ReadModel("mine", "order_id", sql), as_=as_).rebuild()
        run = lab._log.database.execute
        run("CHECKPOINT")
        told = f"FROM pragma_storage_info('{as_}.mine') WHERE compression = 'RLE'"
        assert run(f"SELECT DISTINCT column_name {told} AND segment_type NOT IN ('DOUBLE', 'VALIDITY')") == []
        assert run(f"SELECT count(*) {told}") != [(0,)]  # what may be in runs is, so others could have been


@pytest.mark.parametrize("as_", ["view", "projection", "materialized"])
def test_a_column_keeps_the_collation_that_its_select_gives_it(as_: str, tmp_path: Path) -> None:
    """However it is served, and in what is built on it, a text is compared by the collation of its SELECT."""
    sql = """SELECT order_id, max(customer_id COLLATE NOCASE) AS name, {'c': max(customer_id COLLATE NOCASE)} AS s
             FROM order_events GROUP BY order_id"""
    loose = ReadModel("loose", "order_id", sql)
    over = ReadModel("over_it", "order_id", "SELECT order_id, name, s FROM loose", over=(loose,))
    with open_shop(tmp_path / "shop.duckdb", threads=1) as lab:
        append(lab, [(OrderPlaced(order_id="o-1", customer_id="C-1", total="1.00"), 0)])
        for model in (loose, over):
            served = lab.serve(model, as_=as_)
            for made in (served, lab.serve(model, as_=as_, rebuild=True)):
                assert len(made.where(name="c-1")) == 1
                question = f"SELECT * FROM ({made.select()}) WHERE s.c = 'c-1'"
                assert len(served._log.database.execute(question)) == 1
            if as_ != "view":
                served.rebuild()
                assert len(served.where(name="c-1")) == 1


def test_an_index_names_columns_of_the_read_model() -> None:
    """What is no tuple of columns of the SELECT is refused with what there is, and nothing is served."""
    sql = "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id"
    with open_shop() as lab:
        with pytest.raises(ReadModelRefused, match="'mine' has no column 'm' to index; it has order_id, n"):
            lab.serve(ReadModel("mine", "order_id", sql, indexes=("n", ("n", "m"))))
        with pytest.raises(ReadModelRefused, match="indexes='n' is not a tuple"):
            ReadModel("mine", "order_id", sql, indexes="n")
        assert indexes(lab) == []


def test_a_materialized_table_has_its_key() -> None:
    """A row of it is found through its key; a key that DuckDB cannot index is looked at instead."""
    listed = ReadModel("listed", "ids", "SELECT [order_id] AS ids, count(*) AS n FROM order_events GROUP BY ALL")
    with open_shop() as lab:
        append(lab, [(OrderPlaced(order_id="o-1", customer_id="c-1", total="1.00"), 0)])
        lab.serve(order_summary, as_="materialized").refresh()
        keys = "SELECT constraint_type FROM duckdb_constraints() WHERE schema_name = 'materialized'"
        assert ("UNIQUE",) in lab._log.database.execute(keys)
        assert lab.serve(listed, as_="materialized").rows().fetchall() == [(["o-1"], 1)]
