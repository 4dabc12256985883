"""What may be declared as a read model, and what is refused with the reason."""

from __future__ import annotations

import pytest

from cqrs_lab import Decider, Domain, Event, Lab, ReadModel, open_shop
from cqrs_lab.errors import DeclarationError, ReadModelRefused


def declare(columns: str) -> ReadModel:
    """Return a read model with these columns."""
    return ReadModel("mine", "order_id", f"SELECT order_id, {columns} FROM order_events GROUP BY order_id")


def test_ordinary_functions_are_welcome():
    """Functions, operators and aggregates of exact values are accepted and served."""
    model = declare(
        """date_trunc('month', min(occurred_at)) AS month, upper(max(type)) AS loud, sum(total * 2 - 1) AS s,
           avg(total) AS mean, quantile_cont(total, 0.9) AS high, list(type ORDER BY position) AS types,
           max(json_object('a', version)->>'a') AS j, sum(length(type)) AS letters, bool_or(type LIKE 'Order%') AS o,
           max(extract(year FROM occurred_at)) AS year, last(type ORDER BY position DESC) AS first_type"""
    )
    with open_shop() as lab:
        assert lab.serve(model, as_="view").rows().columns[:2] == ["order_id", "month"]


def test_reserved_words_and_odd_columns_are_quoted():
    """A model called `select` with columns that need quotes works in every serving."""
    sql = 'SELECT order_id AS "group", count(*) AS "a ""b"" 🛒; --" FROM order_events GROUP BY ALL'
    model = ReadModel("select", "group", sql)
    with open_shop() as lab:
        for as_ in ("view", "materialized", "projection"):
            served = lab.serve(model, as_=as_)
            assert served.rows().columns == ["group", 'a "b" 🛒; --']
            assert served.sql('SELECT count(*) AS n FROM "select"').fetchall() == [(0,)]


def test_names_that_differ_in_case_only_are_one_name():
    """DuckDB folds case, so two categories of a domain may not differ in it alone."""

    class Noted(Event):
        order_id: str

    notes = Decider("order", "order_id", None, lambda c, s: [], lambda s, e: s, [], [Noted])
    other = Decider("Order", "order_id", None, lambda c, s: [], lambda s, e: s, [], [Noted])
    with pytest.raises(DeclarationError, match="differ only in case"):
        Lab(domain=Domain(deciders=[notes, other]))


def test_the_text_is_the_authors_own():
    """What runs is the declared text: only names of sources are replaced, whatever stands around them."""
    sql = "SELECT 'order_events' AS a, order_id FROM order_events -- order_events\nWHERE 'é' <> \"type\""
    model = ReadModel("mine", "order_id", sql)
    bound = model.bound(lambda name: "SELECT 1")
    assert bound == (
        "SELECT 'order_events' AS a, order_id FROM (SELECT 1\n) AS \"order_events\" -- order_events\n"
        "WHERE 'é' <> \"type\""
    )


@pytest.mark.parametrize("end", ["", ";", " ; \n", "; -- and that was it", " -- no; end", "\n/* ; */;;"])
def test_a_text_may_end_as_people_end_it(end):
    """A semicolon or a comment behind a SELECT, declared or asked, is no part of it."""
    model = ReadModel("mine", "order_id", f"SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id{end}")
    with open_shop() as lab:
        for as_ in ("view", "materialized", "projection"):
            served = lab.serve(model, as_=as_)
            assert served.get("o-1") is None
            assert served.sql(f"SELECT count(*) FROM mine{end}").fetchall() == [(0,)]
        assert lab.as_of(position=0).get(model, "o-1") is None


def test_a_refused_model_leaves_the_old_one_in_place():
    """A read model that a lab refuses does not take the name of one that works."""
    good = ReadModel("mine", "order_id", "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id")
    bad = ReadModel("mine", "order_id", "SELECT order_id, missing AS n FROM order_events")
    with open_shop() as lab:
        lab.serve(good)
        with pytest.raises(ReadModelRefused):
            lab.serve(bad)
        assert lab.serve("mine").rows().columns == ["order_id", "n"]
        assert lab.serve("mine").model == good
