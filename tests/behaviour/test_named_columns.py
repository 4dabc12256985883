"""A projection reads only the columns that its SELECT may mean, and those are never too few."""

from __future__ import annotations

import pytest
from support import append, placed

from cqrs_lab import Command, Decider, Domain, Event, Lab, ReadModel, open_shop
from cqrs_lab.shop import OrderPaid
from cqrs_lab.sql.parse import named_in, syntax_tree

SELECTS = {
    "plain": "SELECT order_id, max(amount) AS a FROM order_events GROUP BY order_id",
    "another case": "SELECT ORDER_ID AS order_id, max(AMOUNT) AS a FROM ORDER_EVENTS GROUP BY Order_Id",
    "alias": "SELECT e.order_id, max(e.amount) AS a FROM order_events AS e GROUP BY e.order_id",
    "whole row": "SELECT order_id, count(order_events) AS a FROM order_events GROUP BY order_id",
    "field of a row": "SELECT order_id, max((order_events).amount) AS a FROM order_events GROUP BY order_id",
    "star": "SELECT order_id, max(amount) AS a FROM (SELECT * FROM order_events) GROUP BY order_id",
    "columns": "SELECT order_id, max(COLUMNS('^amou')) AS a FROM order_events GROUP BY order_id",
    "using": "SELECT order_id, count(*) AS a FROM order_events JOIN (SELECT position FROM order_events)"
    " USING (position) GROUP BY order_id",
    "natural": "SELECT order_id, count(*) AS a FROM order_events NATURAL JOIN (SELECT position FROM order_events)"
    " GROUP BY order_id",
    "with": "WITH paid AS (SELECT order_id, amount FROM order_events WHERE type <> 'OrderShipped')"
    " SELECT order_id, sum(amount) AS a FROM paid GROUP BY order_id",
    "lambda": "SELECT order_id, sum(list_sum([Line.quantity for line in lines])) AS a FROM order_events"
    " GROUP BY order_id",
    "list": "SELECT order_id, sum(line.quantity) AS a FROM order_events, unnest(lines) AS item(line) GROUP BY order_id",
    "twice": "SELECT a.order_id, count(b.amount) AS a FROM order_events AS a LEFT JOIN order_events AS b"
    " ON a.order_id = b.order_id GROUP BY a.order_id",
    "subquery": "SELECT order_id, (SELECT count(e.amount) FROM order_events AS e WHERE e.order_id = o.order_id) AS a"
    " FROM order_events AS o GROUP BY order_id",
    "by number": "SELECT order_id, max(amount) AS a FROM order_events GROUP BY 1",
    "nothing": "SELECT 'all' AS order_id, count(*) AS a FROM order_events GROUP BY ALL",
}


@pytest.mark.parametrize("sql", SELECTS.values(), ids=SELECTS)
def test_whatever_way_columns_are_named(sql: str) -> None:
    """However a SELECT names its columns, its projection says after each event what its view says."""
    model = ReadModel("named", "order_id", sql)
    with open_shop(threads=1) as lab:
        served, view = lab.serve(model), lab.serve(model, "view")
        for number in range(4):
            append(lab, [placed(1) if number == 0 else (OrderPaid(order_id="o-1", amount=number), number)])
            served.catch_up()
            assert sorted(map(repr, served.rows().fetchall())) == sorted(map(repr, view.rows().fetchall())) != []


class Weigh(Command):
    ParcelId: str
    Grams: int


class Weighed(Event):
    ParcelId: str
    Grams: int


HEAVIEST = ReadModel("heaviest", "parcelid", "SELECT parcelid, max(grams) AS most FROM parcel_events GROUP BY parcelid")
OTHERS = (
    ReadModel(
        "first", "PARCELID",
        """SELECT parcelid, grams, row_number() OVER (PARTITION BY parcelid ORDER BY position) AS number
           FROM parcel_events QUALIFY number = 1""",
    ),
    ReadModel("layer", "parcelId", "SELECT ParcelID, MOST, MOST + 1 AS more FROM heaviest", over=(HEAVIEST,)),
    ReadModel("counted", "parcelid", "SELECT parcelid, count(DISTINCT grams) AS n FROM parcel_events GROUP BY 1"),
)  # fmt: skip


@pytest.mark.parametrize("model", [HEAVIEST, *OTHERS], ids=lambda model: model.name)
def test_a_column_in_another_case_is_spelled_as_its_source_spells_it(model: ReadModel) -> None:
    """A SELECT may write a column in another case: each serving shows and moves it as the view does."""
    parcels = Decider(
        "parcel", "ParcelId", None, lambda c, s: [Weighed(ParcelId=c.ParcelId, Grams=c.Grams)], lambda s, e: s,
        [Weigh], [Weighed],
    )  # fmt: skip
    with Lab(domain=Domain([parcels], [HEAVIEST, *OTHERS])) as lab:
        served, view = lab.serve(model), lab.serve(model, "view")
        for number in range(3):
            lab.send_many([Weigh(ParcelId=id, Grams=number) for id in ("a", f"b{number}")])
            served.catch_up()
            expected = view.rows().arrow()
            assert "ParcelId" in expected.column_names
            others = (served.rows(), lab.as_of(position=lab.head).rows(model), lab.serve(model, "materialized").rows())
            assert [found.arrow().column_names for found in others] == [expected.column_names] * 3
            assert sorted(map(repr, served.rows().fetchall())) == sorted(map(repr, view.rows().fetchall()))


def test_what_may_be_meant() -> None:
    """Names are told where all columns have one, and not where a row, a star or a join may mean any."""
    assert named_in(syntax_tree(SELECTS["plain"])) == {"order_id", "amount"}
    assert named_in(syntax_tree(SELECTS["lambda"])) == {"order_id", "line", "quantity", "lines"}
    for name in ("whole row", "field of a row", "star", "columns", "using", "natural", "list"):
        assert named_in(syntax_tree(SELECTS[name])) is None, name
