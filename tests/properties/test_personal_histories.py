"""Personal data under random histories: a table as its rows, a copy as its store."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from support import START, append
from support.people import MODELS, WAYS, people, told

from cqrs_lab import Event
from cqrs_lab.shop import CustomerEmailChanged, CustomerRegistered, CustomerRenamed, customers

names = st.sampled_from(["Ada", "Bob", "Ann; DROP", "Ö"]) | st.none()
who = st.sampled_from(["c-1", "c-2", "c-3"])
facts = st.one_of(
    st.builds(CustomerRegistered, customer_id=who, name=names, email=names, city=names),
    st.builds(CustomerRenamed, customer_id=who, name=names),
    st.builds(CustomerEmailChanged, customer_id=who, email=names),
)
FIELDS = ("customer_id", "name", "email", "city", "state")


@given(history=st.lists(facts, max_size=12), forgotten=who)
@settings(max_examples=8, deadline=None)
def test_a_table_is_the_same_as_its_rows_one_by_one(history: list[Event], forgotten: str) -> None:
    """Events with personal fields appended as a table or singly are equal, before and after one is forgotten."""
    rows = [
        {"id": event.customer_id, "type": type(event).__name__, "occurred_at": START + timedelta(minutes=n)}
        | {name: getattr(event, name, None) for name in FIELDS}
        for n, event in enumerate(history)
    ]
    kinds = dict.fromkeys(["id", "type", *FIELDS], pl.String) | {"occurred_at": pl.Datetime("us", "UTC")}
    with people() as single, people() as as_set:
        for n, event in enumerate(history):
            append(single, [(event, n)])
        as_set.append_table("customer", pl.DataFrame(rows, schema=kinds))
        for _ in range(2):
            said = [
                (
                    lab.events().pl().select("position", "stream", "version", "type", "occurred_at", "data").rows(),
                    [[r.event for r in lab._log.read(customers.log_category, f"c-{n}")] for n in (1, 2, 3)],
                    [lab.serve(model, way).rows().fetchall() for model in MODELS for way in WAYS],
                )
                for lab in (single, as_set)
            ]
            assert said[0] == said[1]
            assert single.forget(forgotten) == as_set.forget(forgotten)


@given(customers_=st.lists(st.tuples(who, names), min_size=1, max_size=8), forgotten=st.lists(who, max_size=2))
@settings(max_examples=8, deadline=None)
def test_a_copy_says_what_its_store_says(customers_: list[tuple[str, str | None]], forgotten: list[str]) -> None:
    """For random histories with some forgotten, a copy's events, streams, servings and past equal the store's."""
    with tempfile.TemporaryDirectory() as folder, people() as lab:
        for id, name in customers_:
            event = CustomerRenamed(customer_id=id, name=name)
            append(lab, [event])
        for model in MODELS:
            for way in WAYS:
                lab.serve(model, way)
        for id in forgotten:
            lab.forget(id)
        path = Path(folder) / "copy.duckdb"
        lab.backup(path)
        with people(path) as copy:
            assert told(copy) == told(lab)
        with duckdb.connect(str(path), read_only=True) as raw:
            kept = raw.execute("SELECT count(*) FROM customer_personal").fetchone()
        assert kept == (sum(1 for id, name in customers_ if name is not None and id not in forgotten),)
