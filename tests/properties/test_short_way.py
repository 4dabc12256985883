"""The short way of few events leaves the same rows as the long way."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import append, histories, pay, place, placed
from support.ages import First, Second, aged, shop_of

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.read.few import MOST, TOLD, Few
from cqrs_lab.read.mover import Mover
from cqrs_lab.read.values import are_exact
from cqrs_lab.shop import (
    OrderPaid,
    customer_value,
    daily_orders,
    daily_sales,
    delivery_times,
    open_orders,
    order_list,
    order_summary,
    product_demand,
)
from cqrs_lab.store.database import Database
from cqrs_lab.workbench import Workload, tables

QUOTED = """SELECT order_id, count(amount) AS c, concat('"_1"', max(version), '''_2') AS v, sum(amount) + 1 AS s,
                   max(version) FILTER (type = 'OrderPaid') AS p, max(CASE WHEN type IN ('OrderPaid', 'OrderShipped')
                   AND amount > 1 OR type = 'OrderPlaced' THEN occurred_at END) AS at
            FROM order_events GROUP BY order_id"""
# Every aggregate that merges, each asked of one event alone where it is the only one of its row.
SINGLES = """SELECT order_id, count(*) AS n, count(amount) AS a, count(*) FILTER (type = 'OrderPaid') AS p,
                    count(amount) FILTER (amount > 1) AS f, count_if(amount > 1) AS c, sum(version) AS sv,
                    sum(amount) FILTER (type = 'OrderPaid') AS s, sum(amount) + count(*) AS both, min(version) AS lo,
                    bool_and(amount > 1) AS every, bool_or(amount > 1) AS any, bit_and(version) AS ba,
                    bit_or(version) AS bo, arg_min(type, position) AS first, arg_max(amount, position) AS last,
                    max(amount) FILTER (amount > 2) AS most
             FROM order_events WHERE type <> 'OrderShipped' AND (customer_id IS NULL OR customer_id <> 'c-2')
             GROUP BY order_id"""
# A field that is called as the engine calls its first state: what follows from the states cannot be told in its text.
PACKED = """SELECT order_id, (struct_pack("_1" := sum(amount), n := count(*)))."_1" + 1 AS s, max(version) AS v
            FROM order_events GROUP BY order_id"""
MODELS = (
    order_summary,
    order_list,
    daily_orders,
    daily_sales,
    customer_value,
    product_demand,
    delivery_times,
    open_orders,
    ReadModel("kinds", "type", "SELECT type, count(*) AS n, max(occurred_at) AS at FROM order_events GROUP BY type"),
    ReadModel("whole", "one", "SELECT 1 AS one, count(*) AS n, sum(amount) AS paid FROM order_events GROUP BY ALL"),
    ReadModel("quoted", "order_id", QUOTED),
    ReadModel("singles", "order_id", SINGLES),
    ReadModel("packed", "order_id", PACKED),
)


def stored(lab: Lab) -> list[list[str]]:
    """The rows of all projections, hidden columns included."""
    tables = lab._log.database.execute(
        "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'projection' AND table_name NOT LIKE '%dirty%' "
        "ORDER BY ALL"
    )
    return [sorted(map(repr, lab._log.database.execute(f'FROM projection."{name}"'))) for (name,) in tables]


@given(history=histories, cuts=st.lists(st.integers(1, 4), min_size=1, max_size=12))
@settings(max_examples=12, deadline=None)
def test_both_ways_leave_the_same_rows(history: list[Any], cuts: list[int]) -> None:
    """After every batch of a few events the stored rows are the same, the states that nobody sees included."""
    short_moves: list[bool] = []
    move_few = Mover._move_few

    def counted(self: Mover, *args: Any, told: bool) -> bool:
        done = move_few(self, *args, told=told)
        short_moves.append(done)
        return done

    with open_shop(threads=1) as short, open_shop(threads=1) as long:
        for lab in (short, long):
            append(lab, [placed(0)])
            for model in MODELS:
                lab.serve(model)
        at = 0
        for cut in cuts:
            batch = history[at : at + cut]
            at += cut
            for lab, way in ((short, counted), (long, lambda *args, told: False)):
                with mock.patch.object(Mover, "_move_few", way):
                    append(lab, batch)
                    lab.catch_up()
            assert stored(short) == stored(long)
    assert not history or any(short_moves)


@pytest.mark.parametrize("is_known", [True, False], ids=["in memory", "reopened"])
def test_hundreds_of_events_leave_the_same_rows_both_ways(is_known: bool) -> None:
    """Up to a thousand events a batch, as they are drawn: the same rows, whether memory knows the events or not."""
    made = tables(Workload(orders=900, customers=150, seed=3))
    short_moves: dict[str, list[bool]] = {}
    move_few = Mover._move_few

    def counted(self: Mover, *args: Any, told: bool) -> bool:
        if not is_known:
            self._catalog.log.heads.latest = {}
        done = move_few(self, *args, told=told)
        short_moves.setdefault(self.model.name, []).append(done)
        return done

    with open_shop(threads=1) as short, open_shop(threads=1) as long:
        for lab in (short, long):
            lab.append_table("customer", made["customer"])
            lab.append_table("order", made["order"].slice(0, 900))
            for model in (order_summary, order_list, ReadModel("singles", "order_id", SINGLES)):
                lab.serve(model)
        at = 900
        for size in (1, 30, TOLD, 500, MOST):
            for lab, way in ((short, counted), (long, lambda *args, told: False)):
                with mock.patch.object(Mover, "_move_few", way):
                    lab.append_table("order", made["order"].slice(at, size))
                    lab.catch_up()
            at += size
            assert stored(short) == stored(long)
    assert short_moves["singles"] == [True] * 5
    assert short_moves["order_summary"] == [True] * 3  # order_list is built on it: more take less time the long way


def test_memory_knows_the_latest_events_and_no_more_than_twice_as_many() -> None:
    """Whatever is appended, one by one or as a table, memory knows what as many hold as go the short way."""
    made = tables(Workload(orders=2_000, customers=150, seed=3))["order"]
    with open_shop(threads=1) as lab:
        heads, at = lab._log.heads, 0
        for size in (3, MOST, 1, 2 * MOST, 40, MOST // 2):
            lab.append_table("order", made.slice(at, size))
            at += size
            assert set(range(max(0, at - MOST) + 1, at + 1)) <= heads.latest.keys()
            assert len(heads.latest) <= 2 * MOST


@given(
    values=st.lists(st.none() | st.sampled_from([datetime.min, datetime.max, datetime(2, 1, 1), datetime(9998, 1, 1)])),
    numbers=st.lists(st.none() | st.sampled_from([2**127 - 1, -(2**127) + 1, -(2**127), 2**127, 0])),
)
def test_values_at_the_ends_of_what_python_holds_are_not_exact(values: list[Any], numbers: list[Any]) -> None:
    """Times of the first and the last year, and whole numbers of 128 bits, are told from all others."""
    is_odd = any(value in (datetime.min, datetime.max) for value in values)
    assert are_exact([("text", value) for value in values], ["VARCHAR", "TIMESTAMP"]) is not is_odd
    is_huge = any(number is not None and abs(number) >= 2**127 for number in numbers)
    assert are_exact([(number, 2**200) for number in numbers], ["HUGEINT", "VARCHAR"]) is not is_huge


def test_a_few_events_go_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """One event makes no table, whether its row is there or comes; values that Python cannot hold do not."""
    made = ReadModel("made", "order_id", "SELECT order_id, count(*) AS n, max(TIMESTAMP '9999-12-31') AS at "
                                         "FROM order_events GROUP BY order_id")  # fmt: skip
    moves: list[tuple[str, object]] = []
    real = Few.move_few

    def told(self: Few, *given: Any, **named: Any) -> object:
        moves.append((self.model.name, found := real(self, *given, **named)))
        return found

    with open_shop(threads=1) as lab:
        for model in (order_summary, made):
            lab.serve(model)
        monkeypatch.setattr(Few, "move_few", told)
        with monkeypatch.context() as tables:
            tables.setattr(Mover, "_make", lambda self, *given: pytest.fail("a table was made"))
            for _ in range(2):
                append(lab, [placed(1)])
                lab.serve(order_summary).catch_up()
        found = [rows for name, rows in moves if name == "order_summary"]
        assert len(found) == 2
        assert None not in found
        lab.serve(made).catch_up()
        assert moves[-1] == ("made", None)
        assert [row["n"] for row in lab.serve(made).rows().dicts()] == [2]


def test_an_inline_send_is_five_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command and its row take one transaction of three statements, whether the row is there or comes."""
    asked: list[str] = []
    execute = Database.execute

    def counted(self: Database, sql: str, *given: Any) -> Any:
        asked.append(sql.split()[0])
        return execute(self, sql, *given)

    with open_shop(threads=1) as lab:
        served = lab.serve(order_summary, mode="inline")
        for number in range(3):  # until memory knows which streams there are
            lab.send(place(f"o-{number}"))
        monkeypatch.setattr(Database, "execute", counted)
        for command, change in ((place("o-9"), "INSERT"), (pay("o-9"), "UPDATE")):
            asked.clear()
            lab.send(command)
            assert asked == ["BEGIN", "WITH", change, "UPDATE", "COMMIT"]
        monkeypatch.undo()
        assert served.rows().fetchall() == lab.serve(order_summary, "view").rows().fetchall()


def test_events_of_an_earlier_version_go_the_short_way_lifted(tmp_path: Path) -> None:
    """What an event does not store, and has once it is lifted, counts, although another lab appended it just now."""
    path, freights = tmp_path / "shop.duckdb", "SELECT order_id, sum(freight) AS f, sum(total) AS t FROM order_events"
    model = ReadModel("freights", "order_id", f"{freights} GROUP BY order_id")
    with open_shop(path, threads=1) as lab:
        served = lab.serve(model)
        for version in (First, Second):
            with shop_of(path, version) as earlier:
                append(earlier, [(aged(placed(1)[0], version), 0)])
            served.catch_up()
            assert served.rows().fetchall() == lab.serve(model, "view").rows().fetchall() != []


def test_a_number_that_is_none_is_a_key() -> None:
    """A key of floating point, not a number among them, names one row however few events move it."""
    key = "CASE WHEN amount > 1 THEN 'nan'::DOUBLE WHEN amount = 1 THEN -0.0 ELSE 0.0 END"
    model = ReadModel("sizes", "size", f"SELECT {key} AS size, count(*) AS n FROM order_events GROUP BY ALL")
    with open_shop(threads=1) as lab:
        served = lab.serve(model)
        for amounts in ((2,), (2, 0), (1, 3), (0,)):
            append(lab, [(OrderPaid(order_id="o-1", amount=amount), 0) for amount in amounts])
            served.catch_up()
        assert sorted(map(repr, served.rows().fetchall())) == sorted(
            map(repr, lab.serve(model, "view").rows().fetchall())
        )
        assert len(served.rows()) == 2
