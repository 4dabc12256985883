"""Read models over read models: however they move, together or apart, their rows are those of their position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import append, assert_same, facts
from support.layers import (
    MODELS,
    by_customer,
    by_day,
    by_state,
    contacts,
    declared,
    demand,
    late,
    listed,
    unnamed,
    waiting,
    wanted,
)

from cqrs_lab import Event, Lab, ReadModel, open_shop
from cqrs_lab.shop import CustomerRegistered, CustomerRenamed, OrderPlaced, order_facts, order_summary

moves = st.tuples(st.sampled_from([order_summary, *MODELS]), st.sampled_from(["catch up", "part", "rebuild"]))


@given(steps=st.lists(st.tuples(facts, st.lists(moves, max_size=4)), min_size=1, max_size=5), data=st.data())
@settings(max_examples=10, deadline=None)
def test_layers_tell_their_position(steps: list[Any], data: st.DataObject) -> None:
    """Moved alone, together, in part or anew, in any order, every projection's rows are those as of its position."""
    with open_shop(threads=1) as lab:
        declared(lab)
        for history, movements in steps:
            append(lab, history)
            for model, how in movements:
                served = lab.serve(model)
                if how == "rebuild":
                    served.rebuild()
                else:
                    served.catch_up(to=None if how == "catch up" else data.draw(st.integers(0, lab.head)))
            for served in lab._servings.served():
                then = lab.as_of(position=served.position)
                assert_same(lab, served.select(), then._text(served.model))
        for model in MODELS:
            lab.serve(model)
        lab.catch_up()
        for model in MODELS:
            assert_same(lab, lab.serve(model).select(), lab.serve(model, "view").select())


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A shop without events that knows the read models."""
    with open_shop() as shop:
        declared(shop)
        yield shop


@pytest.mark.parametrize(
    ("model", "way"),
    [(contacts, "merge"), (listed, "merge"), (unnamed, "touched keys"), (waiting, "touched keys"),
     (by_day, "touched keys"), (by_state, "touched keys"), (by_customer, "touched keys"), (demand, "touched keys"),
     (wanted, "touched keys"), (late, "touched keys")],
    ids=lambda value: getattr(value, "name", value),
)  # fmt: skip
def test_the_way_is_named(lab: Lab, model: ReadModel, way: str) -> None:
    """explain() names the way in which a projection moves, and why."""
    explained = lab.serve(model).explain()
    assert explained.way == way
    assert explained.reason


def test_only_what_is_reached_is_made_anew() -> None:
    """A batch of one order notes one key in each read model built on it, not all of them."""
    with open_shop(threads=1) as lab:
        declared(lab)
        append(lab, [CustomerRegistered(customer_id=f"c-{n}", name="x", email="y") for n in range(20)])
        append(lab, _placed(20))
        for model in MODELS:
            lab.serve(model)
        append(lab, _placed(1))
        lab.serve(order_facts).catch_up()
        lab.serve(order_summary).catch_up()
        noted = {
            model.name: lab._log.database.execute(
                f'SELECT count(DISTINCT COLUMNS(*)) FROM projection."_dirty_{model.name}"'
            )[0][0]
            for model in (listed, unnamed, by_customer)
        }
        # The rows of `listed` are those of order_facts, merged when it moves. That she has a name is a condition on
        # what is looked up; a way leaves it out, so that no key is missed.
        assert noted == {"listed": 0, "unnamed": 1, "by_customer": 1}


def test_what_is_looked_up_changes_the_rows_that_show_it() -> None:
    """When a customer is renamed, the rows of her orders have her new name, without an event of theirs."""
    with open_shop(threads=1) as lab:
        declared(lab)
        append(lab, [CustomerRegistered(customer_id=f"c-{n}", name="old", email="y") for n in range(3)])
        append(lab, _placed(3))
        assert {row["name"] for row in lab.serve(listed).rows().dicts()} == {"old"}
        append(lab, [CustomerRenamed(customer_id="c-1", name="new")])
        lab.serve(contacts).catch_up()
        assert lab._log.database.execute('SELECT count(*) FROM projection."_dirty_listed"') == [(1,)]
        lab.serve(listed).catch_up()
        named = {row["order_id"]: row["name"] for row in lab.serve(listed).rows().dicts()}
        assert named == {"o-0": "old", "o-1": "new", "o-2": "old"}
        assert lab._log.database.execute('SELECT count(*) FROM projection."_dirty_listed"') == [(0,)]


def _placed(count: int) -> list[Event]:
    return [OrderPlaced(order_id=f"o-{n}", customer_id=f"c-{n}", total=5) for n in range(count)]


Kinds = dict[str, str]
"""Column -> "text", "number" (exact), "real" or "time"."""
FACTS: Kinds = {"order_id": "text", "customer_id": "text", "status": "text", "total": "number", "paid": "number",
                "item_count": "number", "version": "number", "created_at": "time", "updated_at": "time"}  # fmt: skip
CONTACTS: Kinds = {"customer_id": "text", "customer_name": "text", "customer_email": "text"}
AGGREGATES = {
    "text": ("min", "max", "count", "count(DISTINCT "),
    "number": ("sum", "min", "max", "median", "count"),
    "real": ("min", "max", "median"),
    "time": ("min", "max", "count"),
}


@st.composite
def stacks(draw: Any) -> list[ReadModel]:
    """Return read models, each over the shop's two, or over those before it: filtered, joined or grouped anew."""
    known: list[tuple[str, str, Kinds]] = [
        ("order_facts", "order_id", FACTS), ("customer_contacts", "customer_id", CONTACTS)
    ]  # fmt: skip
    models = []
    for number in range(draw(st.integers(1, 4))):
        source, key, kinds = draw(st.sampled_from(known))
        of = {kind: [column for column in kinds if kinds[column] == kind] for kind in set(kinds.values())}
        shape = draw(st.sampled_from(["filter", "join", "group"]))
        columns: Kinds = {}
        if shape == "group":
            by = draw(st.sampled_from([column for column in kinds if kinds[column] in ("text", "time")] or [key]))
            # Not GROUP BY g: the source may have a column of that name, which is then what DuckDB takes.
            group = f"{by}::DATE::TIMESTAMP" if kinds[by] == "time" else by
            columns, items = {"g": kinds[by]}, [f"{group} AS g"]
            for at, column in enumerate(draw(st.lists(st.sampled_from(list(kinds)), max_size=4)), 1):
                aggregate = draw(st.sampled_from(AGGREGATES[kinds[column]]))
                items.append(f"{aggregate}{'' if '(' in aggregate else '('}{column}) AS a{at}")
                columns[f"a{at}"] = (
                    "number" if "count" in aggregate
                    else "real" if aggregate == "median"
                    else kinds[column]
                )  # fmt: skip
            having = draw(st.sampled_from(["", " HAVING count(*) > 1"]))
            sql = f"SELECT {', '.join(items)} FROM {source} WHERE {by} IS NOT NULL GROUP BY {group}{having}"
            new_key = "g"
        else:
            taken = [key, *draw(st.lists(st.sampled_from(list(kinds)), max_size=3, unique=True))]
            taken = list(dict.fromkeys(taken))
            columns, new_key = {column: kinds[column] for column in taken}, key
            items = [f"x.{column}" for column in taken]
            joined = ""
            if shape == "join":
                other, other_key, others = draw(st.sampled_from(known))
                on = [column for column in of.get(others[other_key], []) or [] if others[other_key] == "text"]
                if on and other != source:
                    kind = draw(st.sampled_from(["LEFT JOIN", "JOIN"]))
                    joined = f" {kind} {other} AS y ON y.{other_key} = x.{draw(st.sampled_from(on))}"
                    more = draw(st.lists(st.sampled_from(list(others)), min_size=1, max_size=2, unique=True))
                    items += [f"y.{column} AS y_{column}" for column in more]
                    columns |= {f"y_{column}": others[column] for column in more}
            where = draw(st.sampled_from(["", *(f" WHERE x.{c} > 1" for c in of.get("number", [])),
                                          *(f" WHERE x.{c} IS NOT NULL" for c in taken)]))  # fmt: skip
            sql = f"SELECT {', '.join(items)} FROM {source} AS x{joined}{where}"
        name = f"layer_{number}"
        models.append(ReadModel(name, new_key, sql))
        known.append((name, new_key, columns))
    return models


@given(models=stacks(), history=st.lists(facts, min_size=1, max_size=4), data=st.data())
@settings(max_examples=10, deadline=None)
def test_random_layers_agree(models: list[ReadModel], history: list[Any], data: st.DataObject) -> None:
    """Whatever is built on what, view, table, projection and as of agree at every cut, and with a fresh store."""
    with open_shop(threads=1) as lab:
        for model in models:
            lab._catalog.declare(model)
        past = 0
        for part in history:
            append(lab, part)
            for model in data.draw(st.lists(st.sampled_from(models), max_size=2)):
                lab.serve(model).catch_up(to=data.draw(st.integers(0, lab.head)))
            for served in lab._servings.served():
                then = lab.as_of(position=served.position)
                assert_same(lab, served.select(), then._text(served.model))
            past = past or lab.head
        for model in models:
            lab.serve(model), lab.serve(model, "materialized").refresh()
        lab.catch_up()
        with open_shop(threads=1) as young:
            append(young, history[0])
            for model in models:
                young._catalog.declare(model)
                view = lab.serve(model, "view").select()
                assert_same(lab, lab.serve(model).select(), view)
                assert_same(lab, lab.serve(model, "materialized").select(), view)
                assert_same(lab, lab.as_of(position=lab.head)._text(model), view)
                assert lab.as_of(position=past).rows(model).fetchall() == young.serve(model, "view").rows().fetchall()
