"""Corners in which a projection once said something else than its view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cqrs_lab import Decider, Domain, Event, Lab, ReadModel
from cqrs_lab.errors import ReadModelRefused
from cqrs_lab.write.event_store import EventStore


class Put(Event):
    """Something was put somewhere."""

    k: str
    to: str | None = None
    n: int | None = None
    tags: tuple[str, ...] = ()


def domain(*categories: str) -> Domain:
    """Return a domain with these categories, in each of which things are put."""
    return Domain(
        deciders=[
            Decider(name, "k", 0, lambda c, s: [], lambda s, e: s, [], [type(f"Put{name}", (Put,), {})])
            for name in categories
        ]
    )


def put(lab: Lab, category: str, k: str, **fields: Any) -> None:
    """Append one event, as a program that records facts would, and move all projections."""
    found = next(decider for decider in lab.domain.deciders if decider.category == category)
    store: EventStore = lab._store
    store.append(found.log_category, k, [found.events[0](k=k, **fields)])
    lab.catch_up()


def rows(lab: Lab, model: ReadModel, ways: Sequence[str] = ("view", "projection")) -> list[Any]:
    """Return the rows of a read model, having compared its servings."""
    lab.serve(model, as_="materialized").refresh()
    one, *others = (sorted(map(repr, lab.serve(model, as_=as_).rows().fetchall())) for as_ in (*ways, "materialized"))
    assert all(other == one for other in others)
    assert sorted(map(repr, lab.as_of(position=lab.head).rows(model).fetchall())) == one
    return lab.serve(model, as_="view").rows().fetchall()


LAST = ReadModel("last", "k", 'SELECT k, arg_max("to", position) AS "to", max("to") AS most FROM a_events GROUP BY k')


def test_a_read_model_that_reads_another_one_twice():
    """A row that looks up another row of the same layer finds it, whenever either of them came."""
    tree = ReadModel(
        "tree",
        "k",
        'SELECT b.k, p."to" AS above FROM last AS b LEFT JOIN last AS p ON p.k = b.most',
        over=(LAST,),
    )
    with Lab(domain=domain("a")) as lab:
        lab.serve(tree)
        put(lab, "a", "one", to="shelf")
        put(lab, "a", "two", to="one")
        assert rows(lab, tree) == [("one", None), ("two", "shelf")]
        put(lab, "a", "one", to="floor")
        assert rows(lab, tree) == [("one", None), ("two", "floor")]


def test_a_row_goes_with_what_its_inner_join_needs():
    """Behind an outer join an inner one may lose its partner, and the row goes."""
    last = [
        ReadModel(f"last_{n}", "k", f'SELECT k, arg_max("to", position) AS t FROM {n}_events GROUP BY k') for n in "abc"
    ]
    model = ReadModel(
        "m",
        "k",
        "SELECT a.k FROM last_a AS a LEFT JOIN last_b AS b ON b.k = a.k JOIN last_c AS c ON c.k = coalesce(b.t, a.k)",
        over=tuple(last),
    )
    with Lab(domain=domain("a", "b", "c")) as lab:
        lab.serve(model)
        put(lab, "a", "x")
        put(lab, "c", "x")
        assert rows(lab, model) == [("x",)]
        put(lab, "b", "x", to="elsewhere")
        assert rows(lab, model) == []


def test_layers_that_stand_apart_are_moved_together():
    """Rows are those of one position, also where one layer was moved on before."""
    other = ReadModel("other", "k", "SELECT k, count(*) AS n FROM b_events GROUP BY k")
    both = ReadModel("both", "k", "SELECT l.k, o.n FROM last AS l JOIN other AS o USING (k)", over=(LAST, other))
    with Lab(domain=domain("a", "b")) as lab:
        moved = lab.serve(both)
        lab._store.append(lab.domain.deciders[1].log_category, "x", [lab.domain.deciders[1].events[0](k="x")])
        lab._store.append(lab.domain.deciders[0].log_category, "x", [lab.domain.deciders[0].events[0](k="x")])
        lab.serve(LAST).catch_up()
        assert moved.catch_up(to=1) == moved.position == 2
        assert moved.rows().fetchall() == lab.as_of(position=2).rows(both).fetchall() == [("x", 1)]


def test_what_is_built_on_a_layer_follows_when_its_dead_letter_is_taken_back():
    """A dead letter that is taken back changes the layer where it stands, and what is built on it with it."""
    small = ReadModel("small", "k", "SELECT k, sum(n)::TINYINT AS n FROM a_events GROUP BY k")
    above = [
        ReadModel("upper", "k", "SELECT k, n FROM small WHERE n > 0", over=(small,)),
        ReadModel("z_ranked", "k", "SELECT k, rank() OVER (ORDER BY n) AS place, n FROM small", over=(small,)),
    ]
    with Lab(domain=domain("a")) as lab:
        lab.serve(small, on_error="dead letter")
        served = [lab.serve(model) for model in above]
        for n in (100, 100, -80):  # the second would not fit
            put(lab, "a", "x", n=n)
        assert [one.get("x")["n"] for one in served] == [20, 20]
        assert lab.retry_dead_letters("small") == 1
        assert [one.get("x")["n"] for one in served] == [120, 120]
        assert {state["state"] for state in lab.lag().dicts()} == {"ok"}


@pytest.mark.parametrize(
    "name", ["rowid", "position", "old", "new", "type", "changed", "before", "change", "a b", "WITH"]
)
def test_a_column_may_have_any_name(name):
    """Whatever a column or a key is called, servings, history, differences and rehearsals work."""
    quoted = f'"{name}"'
    for key, columns in (("k", f"k, count(*) AS {quoted}"), (name, f"k AS {quoted}, count(*) AS n")):
        model = ReadModel("m", key.upper(), f"SELECT {columns}, count(DISTINCT version) AS v FROM a_events GROUP BY k")
        with Lab(domain=domain("a")) as lab:
            served = lab.serve(model)
            for k in "aba":
                put(lab, "a", k)
            assert len(rows(lab, model)) == 2
            assert served.get("a") == lab.as_of(position=3).get(model, "a")
            history = lab.history(model, "a")
            assert len(history.dicts()) == len(history.pl()) == 2
            differences = lab.diff(model, 1, 3)
            assert [row[0] for row in differences.fetchall()] == ["changed", "added"]
            assert differences.pl().width == 4
            assert served.rehearse().dicts() == []


def test_names_are_one_when_they_differ_in_case_only(tmp_path):
    """A release that spells a read model otherwise goes on with its rows, and so does the way back."""
    path = tmp_path / "store.duckdb"
    for count, name in enumerate(("Totals", "totals", "Totals"), start=1):
        model = ReadModel(name, "K", "SELECT k, count(*) AS n FROM A_EVENTS GROUP BY k")
        with Lab(path, domain=domain("a")) as lab:
            served = lab.serve(model)
            put(lab, "a", "x")
            assert served.rows().fetchall() == [("x", count)] == lab.as_of(position=lab.head).rows(model).fetchall()
            assert [state["state"] for state in lab.lag().dicts()] == ["ok"]


def test_texts_under_a_collation_are_compared_as_they_say():
    """The least text under NOCASE is the same in every serving."""
    model = ReadModel("m", "k", 'SELECT k, min("to" COLLATE NOCASE) AS low FROM a_events GROUP BY k')
    with Lab(domain=domain("a")) as lab:
        lab.serve(model)
        for to in "aB":
            put(lab, "a", "x", to=to)
        assert rows(lab, model) == [("x", "a")]


def test_a_projection_follows_a_layer_that_another_domain_moves(tmp_path):
    """A store knows the text of what was served in it, so a lab that does not declare a projection moves it along."""
    path = tmp_path / "store.duckdb"
    upper = ReadModel("upper", "k", "SELECT k, most FROM last WHERE most > 'a'", over=(LAST,))
    with Lab(path, domain=domain("a")) as lab:
        lab.serve(upper)
        put(lab, "a", "x", to="b")
    with Lab(path, domain=domain("a")) as lab:
        lab.serve(LAST)
        put(lab, "a", "x", to="c")
    with Lab(path, domain=domain("a")) as lab:
        assert lab.serve(upper).state == "ok"
        lab.catch_up()
        assert rows(lab, upper) == [("x", "c")]
        put(lab, "a", "x", to="d")
        assert rows(lab, upper) == [("x", "d")]


def test_a_projection_whose_text_is_not_known_says_so(tmp_path):
    """Where a lab cannot tell which rows of a projection a change below reaches, it needs a rebuild."""
    path = tmp_path / "store.duckdb"
    upper = ReadModel("upper", "k", "SELECT k, most FROM last WHERE most > 'a'", over=(LAST,))
    with Lab(path, domain=domain("a")) as lab:
        lab.serve(upper)
        put(lab, "a", "x", to="b")
        lab._log.database.execute("DELETE FROM read_models")  # as a store of an earlier version has it
    with Lab(path, domain=domain("a")) as lab:
        lab.serve(LAST)
        put(lab, "a", "x", to="c")
    with Lab(path, domain=domain("a")) as lab:
        assert lab.serve(upper).state == "rebuild needed"
        lab.serve(upper).rebuild()
        assert rows(lab, upper) == [("x", "c")]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT day, sum(n) OVER (ORDER BY day) AS so_far FROM days",
        "SELECT day, sum(n) OVER (ORDER BY day ROWS 2 PRECEDING) AS three FROM days",
        "SELECT day, sum(n) OVER (ORDER BY day RANGE BETWEEN INTERVAL 6 DAYS PRECEDING AND CURRENT ROW) AS w FROM days",
        "SELECT day, ntile(10) OVER (ORDER BY n, day) AS tenth FROM days",
        "SELECT day, first(n ORDER BY n, day) AS least FROM days GROUP BY day",
    ],
)
def test_the_key_of_a_layer_is_a_total_order(sql):
    """Running and rolling totals over a read model are accepted: its key says which row is meant."""
    days = ReadModel("days", "day", "SELECT occurred_at::DATE AS day, count(*) AS n FROM a_events GROUP BY 1")
    with Lab(domain=domain("a")) as lab:
        lab.serve(ReadModel("more", "day", sql, over=(days,)))
        put(lab, "a", "x")
        assert len(rows(lab, lab._catalog.find("more"))) == 1


def test_a_column_that_is_called_position_proves_nothing():
    """What a layer calls position may have ties: refused where the layer is known, at once or by the lab."""
    last = ReadModel(
        "layer", ("k", "v"), "SELECT k, version AS v, max(position) AS position FROM a_events GROUP BY ALL"
    )
    sql = "SELECT k, arg_max(v, position) AS v FROM layer GROUP BY k"
    with pytest.raises(ReadModelRefused, match=r"say arg_max\(v, \(position, k, v\)\)"):
        ReadModel("m", "k", sql, over=(last,))
    with Lab(domain=domain("a")) as lab:
        lab.serve(last)
        with pytest.raises(ReadModelRefused, match=r"say arg_max\(v, \(position, k, v\)\)"):
            lab.serve(ReadModel("m", "k", sql))


def test_the_history_of_a_row_that_does_not_merge_costs_no_more_than_its_versions():
    """One row's history is asked of DuckDB in a handful of statements, however many versions it has."""
    model = ReadModel("m", "k", 'SELECT k, count(DISTINCT "to") AS n FROM a_events GROUP BY k')
    with Lab(domain=domain("a")) as lab:
        category = lab.domain.deciders[0]
        for number in range(200):
            lab._store.append(category.log_category, "x", [category.events[0](k="x", to=f"{number % 150}")])
        asked: list[str] = []
        execute = lab._log.database.execute
        lab._log.database.execute = lambda sql, params=(): (asked.append(sql), execute(sql, params))[1]
        history = lab.history(model, "x").dicts()
        assert [row["n"] for row in history] == list(range(1, 151))
        assert len(asked) < 20


NUMBERS = 'CAST("to" AS INTEGER)'


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT {NUMBERS} AS k, median(n) AS m FROM a_events WHERE n > 0 GROUP BY 1",
        f"SELECT s.k, median(s.n) AS m FROM (SELECT {NUMBERS} AS k, n FROM a_events WHERE n > 0) AS s GROUP BY s.k",
        'SELECT a.k, median(b.n) AS m FROM a_events AS a JOIN b_events AS b ON b.n = CAST(a."to" AS INTEGER) '
        "WHERE a.n > 0 GROUP BY a.k",
        "SELECT date_part('year', strptime(\"to\", '%Y'))::INTEGER AS k, median(n) AS m FROM a_events WHERE n > 1 "
        "GROUP BY 1",
    ],
)
def test_an_expression_meets_only_the_rows_that_the_author_lets_it_see(sql):
    """A cast that fails for rows that a WHERE leaves out does not fail when keys are looked for."""
    model = ReadModel("m", "k", sql)
    with Lab(domain=domain("a", "b")) as lab:
        lab.serve(model)
        for number, (to, n) in enumerate([("7", 1), ("many", 0), ("2025", 2), ("7", 3), ("none", None), ("2025", 1)]):
            put(lab, "a", str(number % 2), to=to, n=n)
            put(lab, "b", "b", n=7)
            rows(lab, model)
        assert lab.serve(model).explain().way == "touched keys"


def test_two_rows_of_a_layer_that_part_at_once():
    """A pair of rows of one layer, joined by what both of them lose in one batch, is gone after it."""
    pairs = ReadModel(
        "pairs",
        ("one", "other"),
        'SELECT x.k AS one, y.k AS other FROM last AS x JOIN last AS y ON y."to" = x."to"',
        over=(LAST,),
    )
    with Lab(domain=domain("a")) as lab:
        lab.serve(pairs)
        put(lab, "a", "y", to="here")
        put(lab, "a", "z", to="here")
        assert len(rows(lab, pairs)) == 4
        found = lab.domain.deciders[0]
        store: EventStore = lab._store
        with store.together() as batch:
            for k, to in (("y", "there"), ("z", "away")):
                store.append(found.log_category, k, [found.events[0](k=k, to=to)], batch=batch)
        lab.catch_up()
        assert rows(lab, pairs) == [("y", "y"), ("z", "z")]


_TAGS = "len(list_filter({}tags, lambda {}: {} = {})) > 0"


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT k, median(n) AS m FROM a_events WHERE {_TAGS.format('', 'K', 'k', repr('x'))} GROUP BY k",
        f"SELECT k, median(m) AS m FROM (SELECT k, n + 10 AS n, n AS m, tags FROM a_events) WHERE "
        f"{_TAGS.format('', 'n', 'n', repr('x'))} OR n > 11 GROUP BY k",
        "SELECT k, median(m) AS m FROM (SELECT k, n + 10 AS n, n AS m, tags FROM a_events) WHERE "
        "len([n FOR n IN tags IF n = 'x']) > 0 OR n > 11 GROUP BY k",
        "SELECT s.kk AS k, median(s.m) AS m FROM (SELECT k "
        " || coalesce(len(list_filter(tags, lambda k: k = 'x'))::VARCHAR, '') "
        'AS kk, n AS m FROM (SELECT "to" AS k, tags, n FROM a_events)) AS s WHERE s.kk IS NOT NULL GROUP BY s.kk',
        f"SELECT a.k, median(l.n) AS m FROM a_events AS a JOIN b_events AS l ON l.k = a.k AND "
        f"({_TAGS.format('a.', 'l', 'l', 'a.k')} OR l.n > 0) GROUP BY a.k",
        "SELECT a.k, count(*) AS c FROM a_events AS a JOIN b_events AS b ON list_contains([a || '' FOR a IN b.tags], "
        "a.k) GROUP BY a.k",
        'SELECT x.k, max(len(list_filter(tags, lambda x: x = "to"))) AS c FROM a_events AS x GROUP BY x.k',
        'SELECT a.k, count(*) AS c FROM a_events AS a WHERE a.k IN (SELECT lower("to") FROM b_events) GROUP BY a.k',
        "SELECT a.k, count(*) AS c FROM a_events AS a WHERE a.n IN (SELECT 1) GROUP BY a.k",
        "SELECT a.k, count(*) AS c FROM a_events AS a WHERE (a.k, a.n) IN (SELECT b.k, b.n FROM b_events AS b) "
        "GROUP BY a.k",
        "SELECT a.k, count(*) AS c FROM a_events AS a WHERE a.k IN (SELECT unnest(tags) FROM b_events) GROUP BY a.k",
    ],
)
def test_names_of_lambdas_and_of_nothing(sql):
    """What a lambda calls its argument is a name in its body alone, in any case; a column of IN needs no name."""
    model = ReadModel("m", "k", sql)
    with Lab(domain=domain("a", "b")) as lab:
        lab.serve(model)
        for number, tags in enumerate([("x",), (), ("y", "x"), ("a",), ("z",)]):
            put(lab, "a", "xyz"[number % 3], to="xz"[number % 2], n=number, tags=tags)
            rows(lab, model)
            put(lab, "b", "zyx"[number % 3], to="xy"[number % 2].upper(), n=number % 2, tags=tags)
            rows(lab, model)
