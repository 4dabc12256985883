"""Which functions a read model may call: judged by name at the declaration, by types when DuckDB binds it."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from cqrs_lab import ReadModel
from cqrs_lab.errors import QueryFailed, ReadModelRefused
from cqrs_lab.sql import functions
from cqrs_lab.sql.bound import Call, bound_calls, bound_reasons
from cqrs_lab.store.connect import MEMORY, PINNED
from cqrs_lab.store.database import Database

LOCK = Path(__file__).parents[2] / "requirements.lock"


def declare(columns: str) -> ReadModel:
    """Return a read model with these columns."""
    return ReadModel("mine", "order_id", f"SELECT order_id, {columns} FROM order_events GROUP BY order_id")


@pytest.fixture(scope="module")
def database():
    """A database in memory with one table of many types."""
    database = Database.open(MEMORY, threads=1)
    database.execute(
        "CREATE TABLE e (k VARCHAR, n INTEGER, m DECIMAL(18, 2), d DOUBLE, f FLOAT, t TIMESTAMP, l DOUBLE[])"
    )
    yield database
    database.release()


@pytest.fixture(scope="module")
def catalogue(database):
    """Every function of the installed DuckDB with the stabilities of its overloads."""
    rows = database.execute(
        """SELECT lower(function_name), list(DISTINCT coalesce(stability, 'macro')) FROM duckdb_functions()
           WHERE function_type IN ('scalar', 'macro', 'aggregate', 'window') GROUP BY ALL ORDER BY 1"""
    )
    assert len(rows) > 600
    return dict(rows)


def test_every_function_is_classified_or_refused_by_name(catalogue):
    """A function that nobody has judged is refused by its name; in the locked DuckDB there is none."""
    unknown = [name for name in catalogue if not functions.is_classified(name)]
    locked = re.search(r"^duckdb==(.*)$", LOCK.read_text(), re.MULTILINE)
    if locked and locked[1] == version("duckdb"):
        assert unknown == []
    for name in unknown:
        with pytest.raises(ReadModelRefused, match=re.escape(f"{name}() is not known to be a function of the events")):
            declare(f'"{name}"(total) AS x')


def test_a_function_without_a_judgement_is_refused(monkeypatch):
    """What a new DuckDB brings is refused with its name until somebody has looked at it."""
    assert declare("max(upper(type)) AS x")
    monkeypatch.setattr(functions, "PURE", functions.PURE - {"upper"})
    with pytest.raises(ReadModelRefused, match=r"upper\(\) is not known .* no judgement of it"):
        declare("max(upper(type)) AS x")


def test_nothing_is_both_welcome_and_refused():
    """A name stands in one list only, and no list calls something pure that DuckDB calls volatile."""
    welcome = functions.PURE | functions.OPERATORS
    assert [name for name in sorted(welcome) if functions.refusal(name)] == []
    assert not welcome & (functions.AGGREGATES | functions.WINDOWS)


def test_nothing_volatile_is_welcome(catalogue):
    """No function that answers differently within one query by DuckDB's own word is called pure."""
    volatile = {name for name, stabilities in catalogue.items() if "VOLATILE" in stabilities}
    assert {"random", "uuid", "nextval"} <= volatile
    assert volatile & (functions.PURE | functions.OPERATORS) == set()


def test_every_aggregate_is_either_known_to_be_safe_or_refused(database):
    """An aggregate whose answer may depend on the order of rows cannot stand in a read model."""
    rows = database.execute(
        "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type = 'aggregate' ORDER BY 1"
    )
    aggregates = {name for (name,) in rows}
    assert aggregates >= (functions.ORDERLESS | functions.BY_ORDER | functions.BY_ARGUMENT) - {"countif", "arbitrary"}
    for name in sorted(aggregates - functions.ORDERLESS):
        with pytest.raises(ReadModelRefused):
            declare(f"{name}(total, occurred_at) AS x")


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("age(min(occurred_at))", "age() is not a function of the events: it asks the clock"),
        ("now()", "now() is not a function of the events: it asks the clock"),
        ("today()", "it asks the clock"),
        ("ago(INTERVAL 1 DAY)", "it asks the clock"),
        ("current_localtimestamp()", "it asks the clock"),
        ("current_localtime()", "it asks the clock"),
        ("get_current_timestamp()", "it asks the clock"),
        ("random()", "it answers differently every time"),
        ("uuidv7()", "it answers differently every time"),
        ("version()", "it asks the session or the catalogue"),
        ("current_schema()", "it asks the session or the catalogue"),
        ("current_schemas(true)", "it asks the session or the catalogue"),
        ("current_database()", "it asks the session or the catalogue"),
        ("current_catalog()", "it asks the session or the catalogue"),
        ("current_query()", "it asks the session or the catalogue"),
        ("current_setting('threads')", "it asks the session or the catalogue"),
        ("getvariable('x')", "it asks the session or the catalogue"),
        ("txid_current()", "it asks the session or the catalogue"),
        ("pg_my_temp_schema()", "it asks the session or the catalogue"),
        ("has_schema_privilege('x', 'y')", "it asks the session or the catalogue"),
        ("nextval('s')", "it does something instead of giving an answer"),
        ("sleep_ms(1)", "it does something instead of giving an answer"),
        ("getenv('HOME')", "it reads something else than the events"),
        ("__internal_decompress_string(1)", "it is there for DuckDB's own use"),
        ("json_group_array(type)", "use list(… ORDER BY position)"),
        ("weighted_avg(total, 2)", "it hides a sum of inexact numbers"),
        ("regexp_split_to_table(max(type), 'x')", "it hides an unnest"),
        ("hash(max(type))", "use md5() or sha256()"),
        ("mode(type)", "mode() may depend on the order in which rows arrive"),
        ("list_aggregate(list(total ORDER BY position), 'reservoir_quantile', 0.5)", "draws no sample"),
        ("list_aggregate(list(total ORDER BY position), max(type))", "draws no sample"),
        ("nonsense(total)", "DuckDB has no function nonsense()"),
        ("max(current_date)", "current_date is not a function of the events: it asks the clock"),
        ("max(user)", "named with its table, as in order_events.user"),
        ("max(localtimestamp)", "it asks the clock"),
        ("max(current_schema)", "it asks the session or the catalogue"),
    ],
)
def test_what_is_no_function_of_the_events_is_refused_with_its_reason(call, reason):
    """Clocks, chance, the session, effects and hidden orders are refused when a read model is declared."""
    with pytest.raises(ReadModelRefused) as refused:
        declare(f"{call} AS x")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "call",
    [
        "age(max(occurred_at), min(occurred_at))",
        "max(occurred_at) - min(occurred_at)",
        "max(occurred_at::TIMESTAMPTZ)",
        "date_trunc('day', max(occurred_at)::TIMESTAMPTZ)",
        "min(type COLLATE NOCASE)",
        "list_aggregate(list(total ORDER BY position), 'sum')",
        "list_sum(list(total ORDER BY position))",
        "max(order_events.user)",
        "quantile_cont(total, 0.9)",
        "max(type) IS DISTINCT FROM 'x'",
        "max(type) LIKE 'a%' OR max(version) BETWEEN 1 AND 2",
    ],
)
def test_what_is_a_function_of_the_events_is_welcome(call):
    """Functions of their arguments are accepted, those of times with a zone included: the zone is pinned."""
    assert declare(f"{call} AS x")


@pytest.mark.parametrize(
    ("columns", "reasons"),
    [
        ("sum(d)", ["it adds up DOUBLE values in sum()"]),
        ("avg(f) + sum(f)", ["it adds up DOUBLE values in avg()", "it adds up DOUBLE values in sum()"]),
        ("sum(n / 2)", ["it adds up DOUBLE values in sum()"]),
        ("(SELECT sum(o.d) FROM e AS o WHERE o.k = e.k)", ["it adds up DOUBLE values in sum()"]),
        (
            "max(s) FROM (SELECT k, sum(d) OVER (PARTITION BY k) AS s FROM e) AS e",
            ["it adds up DOUBLE values in sum()"],
        ),
        ("max(age(t))", ["age() is not a function of the events: it asks the clock"]),
        ("sum(n), avg(m), avg(n), avg(t - TIMESTAMP '2020-01-01'), avg(t), sum(m * 3), max(d), median(d)", []),
        ("list_sum(list(d ORDER BY t)), max(list_aggregate(l, 'sum'))", []),
    ],
)
def test_sums_are_judged_by_the_types_that_they_are_bound_to(database, columns, reasons):
    """A sum of inexact numbers is refused wherever it stands; exact ones, times and lists are welcome."""
    source = "" if " FROM (" in columns else " FROM e"
    found = list(
        dict.fromkeys(bound_reasons(bound_calls(database.execute, f"SELECT k, {columns}{source} GROUP BY k, e.k")))
    )
    assert [text.split("; use")[0].split(", which")[0] for text in found] == reasons


def test_a_plan_tells_calls_with_the_types_after_casts(database):
    """The calls of a plan are those that DuckDB found, whatever they are called in the text."""
    calls = bound_calls(
        database.execute, "SELECT k, sum(n) FILTER (d > 1) AS s FROM e WHERE t < current_timestamp GROUP BY k"
    )
    assert Call("sum", ("INTEGER",)) in calls
    assert Call("get_current_timestamp", ()) in calls
    assert [text.split("(")[0] for text in bound_reasons(calls)] == ["get_current_timestamp"]


def test_what_does_not_bind_says_why(database):
    """A SELECT that DuckDB cannot plan fails with DuckDB's reason."""
    with pytest.raises(QueryFailed, match="nowhere"):
        bound_calls(database.execute, "SELECT 1 AS x FROM nowhere")


def test_settings_that_change_meanings_are_pinned(database):
    """Whatever the machine or another program says, a store is opened with the settings that answers depend on."""
    for setting, value in PINNED.items():
        found = database.execute("SELECT current_setting(?)", [setting])[0][0]
        assert str(found).lower() == value.lower()
