"""What may be declared as a read model, and what is refused with the reason."""

from __future__ import annotations

import pytest

from cqrs_lab import Decider, Domain, Event, Lab, ReadModel, open_shop
from cqrs_lab.errors import DeclarationError, ReadModelRefused
from cqrs_lab.syntax import BY_ARGUMENT, BY_ORDER, ORDERLESS, function_catalogue


def declare(columns: str) -> ReadModel:
    """Return a read model with these columns."""
    return ReadModel("mine", "order_id", f"SELECT order_id, {columns} FROM order_events GROUP BY order_id")


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT order_id, now() AS n FROM order_events", "now() is not a function of the events"),
        ("SELECT order_id, random() AS n FROM order_events", "random() is not a function of the events"),
        ("SELECT order_id, current_date AS d FROM order_events", "current_date is not a function"),
        ("SELECT order_id, (occurred_at < CURRENT_TIMESTAMP) AS d FROM order_events", "current_timestamp"),
        ("SELECT order_id, ago(INTERVAL 1 DAY) AS d FROM order_events", "ago() is not a function of the events"),
        ("SELECT order_id, first(total) AS t FROM order_events GROUP BY 1", "first() picks among rows"),
        ("SELECT order_id, last(total ORDER BY occurred_at) AS t FROM order_events GROUP BY 1", "ORDER BY position"),
        ("SELECT order_id, any_value(total) AS t FROM order_events GROUP BY 1", "any_value() picks among rows"),
        ("SELECT order_id, list(total) AS t FROM order_events GROUP BY 1", "list() picks among rows"),
        ("SELECT order_id, string_agg(type, ',') AS t FROM order_events GROUP BY 1", "string_agg() picks"),
        ("SELECT order_id, arg_max(type, occurred_at) AS t FROM order_events GROUP BY 1", "arg_max(…, position)"),
        ("SELECT order_id, mode(type) AS t FROM order_events GROUP BY 1", "mode() may depend on the order"),
        ("SELECT order_id, stddev(total) AS t FROM order_events GROUP BY 1", "stddev() may depend on the order"),
        (
            "SELECT o.order_id, arg_max(l.q, o.position) AS t FROM order_events o JOIN order_events l USING (order_id) "
            "GROUP BY 1",
            "over a join",
        ),
        ("SELECT order_id, row_number() OVER (ORDER BY total) AS n FROM order_events", "order without ties"),
        ("SELECT order_id, 1 AS n FROM 'orders.parquet'", "neither a table of events"),
        ("SELECT order_id, 1 AS n FROM read_csv('orders.csv')", "it reads read_csv()"),
        ("SELECT order_id, 1 AS n FROM somewhere.order_events", "name tables of events and read models alone"),
        ("SELECT order_id, 1 AS n FROM streams", "neither a table of events"),
        ("SELECT order_id, 1 AS n FROM order_events LIMIT 5", "it has a LIMIT"),
        ("SELECT DISTINCT ON (order_id) order_id, type FROM order_events", "DISTINCT ON"),
        ("SELECT order_id, 1 AS n FROM order_events USING SAMPLE 10", "it samples rows"),
        ("SELECT * FROM order_events", "name its columns"),
        ("SELECT order_id, count(*) FROM order_events GROUP BY 1", "column 2 has no name"),
        ("SELECT order_id, total AS a, freight AS A FROM order_events", "two columns are called 'A'"),
        ("SELECT order_id, total AS _1 FROM order_events", "starts with an underscore"),
        ("SELECT type, count(*) AS n FROM order_events GROUP BY 1", "the key 'order_id' is not among its columns"),
        ("WITH order_events AS (SELECT 1 AS order_id) SELECT order_id FROM order_events", "hides a table of events"),
        ("SELECT order_id, nonsense(total) AS n FROM order_events", "no function nonsense()"),
        ("SELECT order_id, FROM WHERE", "mine"),
        ("DELETE FROM order_events", "SELECT"),
        ("SELECT order_id, 1 AS n FROM order_events; DROP TABLE streams", "Only SELECT"),
        ("SELECT order_id, 1 AS n FROM order_events; SELECT 1", "a SELECT was expected"),
        ("SELECT order_id, missing AS n FROM order_events", "missing"),
        ("SELECT order_id, sum(total::DOUBLE) AS n FROM order_events GROUP BY 1", "adds up DOUBLE"),
        ("SELECT order_id, avg(total / 3) AS n FROM order_events GROUP BY 1", "adds up DOUBLE"),
        (
            "SELECT order_id, n FROM (SELECT order_id, sum(ln(total)) AS n FROM order_events GROUP BY 1)",
            "adds up DOUBLE",
        ),
        ("SELECT order_id, 1 AS n FROM mine", "reads itself"),
    ],
)
def test_what_is_not_a_function_of_the_events_is_refused(sql, reason):
    """A SELECT that could answer differently for the same events is refused, and the message says why."""
    with open_shop() as lab, pytest.raises(ReadModelRefused) as refused:
        lab.serve(ReadModel("mine", "order_id", sql))
    assert reason in str(refused.value)


UNSTABLE = [
    name
    for name, (kind, stability, _) in sorted(function_catalogue().items())
    if kind == "scalar" and stability != "CONSISTENT"
]


def test_every_function_that_duckdb_calls_unstable_is_refused():
    """No scalar function that DuckDB's catalogue does not call consistent can stand in a read model."""
    assert {"now", "random", "uuid", "nextval", "getvariable", "current_setting"} <= set(UNSTABLE)
    for name in UNSTABLE:
        with pytest.raises(ReadModelRefused):
            declare(f'"{name}"() AS x')


def test_every_aggregate_is_either_known_to_be_safe_or_refused():
    """An aggregate that nobody has thought about cannot stand in a read model."""
    aggregates = {name for name, (kind, *_) in function_catalogue().items() if kind == "aggregate"}
    assert aggregates >= (ORDERLESS | BY_ORDER | BY_ARGUMENT) - {"countif", "arbitrary"}
    for name in sorted(aggregates - ORDERLESS):
        with pytest.raises(ReadModelRefused):
            declare(f"{name}(total, occurred_at) AS x")


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


@pytest.mark.parametrize(
    "name", ['x"; DROP TABLE order_events; --', "order summary", "🛒", "", "a" * 64, "order_events", "streams", "1st"]
)
def test_hostile_names_are_refused(name):
    """A read model's name is a plain word that no table of the log has."""
    with pytest.raises(DeclarationError):
        ReadModel(name, "order_id", "SELECT order_id FROM order_events")


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
    """DuckDB folds case, so two models of a domain may not differ in it alone."""
    models = [
        ReadModel("Sales", "order_id", "SELECT order_id FROM order_events GROUP BY 1"),
        ReadModel("sales", "order_id", "SELECT order_id FROM order_events GROUP BY 1"),
    ]

    class Noted(Event):
        order_id: str

    notes = Decider("order", "order_id", None, lambda c, s: [], lambda s, e: s, [], [Noted])
    with pytest.raises(ReadModelRefused, match="differ in more than case"):
        Lab(domain=Domain(deciders=[notes], read_models=models))
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
