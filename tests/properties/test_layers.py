"""Read models over read models: however they move, together or apart, their rows are those of their position."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqrs_lab import Event, Lab, ReadModel, open_shop
from cqrs_lab.shop import (
    CustomerEmailChanged,
    CustomerRegistered,
    CustomerRenamed,
    customers,
    order_facts,
    order_summary,
    orders,
)
from cqrs_lab.write.event_store import Context
from support import START, assert_same, events

contacts = ReadModel(
    "contacts",
    "customer_id",
    "SELECT customer_id, arg_max(name, position) AS name, arg_max(email, position) AS email "
    "FROM customer_events GROUP BY customer_id",
)
listed = ReadModel(
    "listed",
    "order_id",
    "SELECT o.order_id, o.status, o.total, o.created_at, c.name, c.email AS mail "
    "FROM order_facts o LEFT JOIN contacts c USING (customer_id)",
)
unnamed = ReadModel(
    "unnamed",
    "order_id",
    "SELECT order_id, status FROM order_summary LEFT JOIN contacts AS c USING (customer_id) WHERE c.name IS NULL",
)
waiting = ReadModel("waiting", "order_id", "SELECT order_id, mail FROM listed WHERE status IN ('PENDING', 'PAID')")
by_day = ReadModel(
    "by_day",
    "day",
    "SELECT created_at::DATE AS day, count(*) AS orders, median(total) AS middle, count(DISTINCT mail) AS people "
    "FROM listed WHERE created_at IS NOT NULL GROUP BY day",
)
by_state = ReadModel(
    "by_state", ("day", "status"),
    "SELECT day, status, count(*) AS n, max(middle) AS m FROM by_day JOIN listed ON listed.created_at::DATE = day "
    "GROUP BY ALL",
)  # fmt: skip
by_customer = ReadModel(
    "by_customer",
    "customer_id",
    "SELECT c.customer_id, c.name, count(o.order_id) AS orders, sum(o.paid) AS paid, max(o.updated_at) AS last "
    "FROM contacts c LEFT JOIN order_summary o ON o.customer_id = c.customer_id GROUP BY c.customer_id, c.name",
)
demand = ReadModel(
    "demand",
    "product_id",
    "SELECT l.product_id, sum(l.quantity)::BIGINT AS units, count(DISTINCT e.order_id) AS orders "
    "FROM order_events AS e, unnest(e.lines) AS u(l) GROUP BY l.product_id",
)
wanted = ReadModel(
    "wanted",
    "product_id",
    "SELECT l.product_id, count(DISTINCT o.order_id) AS orders FROM order_events AS e, unnest(e.lines) AS u(l) "
    "JOIN order_summary AS o ON o.order_id = e.order_id WHERE o.status <> 'CANCELLED' GROUP BY l.product_id",
)
late = ReadModel(
    "late",
    "order_id",
    "SELECT o.order_id, count(e.position) AS facts, median(c.position) AS known FROM order_summary o "
    "JOIN order_events e ON e.order_id = o.order_id LEFT JOIN customer_events c ON c.customer_id = o.customer_id "
    "GROUP BY o.order_id HAVING count(*) > 1",
)
MODELS = (contacts, listed, unnamed, waiting, by_day, by_state, by_customer, demand, wanted, late)

who = st.sampled_from(["c-1", "c-2", "c-3"])
names = st.sampled_from(["Ann", "Ben", None])
people = st.one_of(
    st.builds(CustomerRegistered, customer_id=who, name=names, email=names),
    st.builds(CustomerRenamed, customer_id=who, name=names),
    st.builds(CustomerEmailChanged, customer_id=who, email=names),
)
facts = st.lists(st.tuples(st.one_of(events, people), st.integers(0, 60 * 24 * 3)), min_size=1, max_size=6)
moves = st.tuples(st.sampled_from([order_summary, *MODELS]), st.sampled_from(["catch up", "part", "rebuild"]))


def record(lab: Lab, history: list[tuple[Event, int]]) -> None:
    """Append facts one by one."""
    for event, minute in history:
        decider, id = (
            (customers, event.customer_id)
            if hasattr(event, "email") or isinstance(event, CustomerRenamed)
            else (orders, event.order_id)
        )
        context = Context(occurred_at=START + timedelta(minutes=minute))
        lab._store.append(decider.log_category, id, [event], context=context)


def declared(lab: Lab) -> None:
    """Make the read models known, each after those it is built on."""
    for model in MODELS:
        lab._servings.declare(model)


@given(steps=st.lists(st.tuples(facts, st.lists(moves, max_size=4)), min_size=1, max_size=5), data=st.data())
@settings(max_examples=25, deadline=None)
def test_layers_tell_their_position(steps: list[Any], data: st.DataObject) -> None:
    """Moved alone, together, in part or anew, in any order, every projection's rows are those as of its position."""
    with open_shop(threads=1) as lab:
        declared(lab)
        for history, movements in steps:
            record(lab, history)
            for model, how in movements:
                served = lab.serve(model)
                if how == "rebuild":
                    served.rebuild()
                else:
                    served.catch_up(to=None if how == "catch up" else data.draw(st.integers(0, lab.head)))
            for served in lab._servings.served():
                then = lab.as_of(position=served.position)
                assert_same(lab, served._select(), then._text(served.model))
        for model in MODELS:
            lab.serve(model)
        lab.catch_up()
        for model in MODELS:
            assert_same(lab, lab.serve(model)._select(), lab.serve(model, "view")._select())


@pytest.mark.parametrize(
    ("model", "way"),
    [(contacts, "merge"), (listed, "merge"), (unnamed, "touched keys"), (waiting, "touched keys"),
     (by_day, "touched keys"), (by_state, "touched keys"), (by_customer, "touched keys"), (demand, "touched keys"),
     (wanted, "touched keys"), (late, "touched keys")],
    ids=lambda value: getattr(value, "name", value),
)  # fmt: skip
def test_the_way_is_named(model: ReadModel, way: str) -> None:
    """explain() names the way in which a projection moves, and why."""
    with open_shop() as lab:
        declared(lab)
        explained = lab.serve(model).explain()
        assert explained.way == way
        assert explained.reason


def test_only_what_is_reached_is_made_anew() -> None:
    """A batch of one order notes one key in each read model built on it, not all of them."""
    with open_shop(threads=1) as lab:
        declared(lab)
        record(lab, [(CustomerRegistered(customer_id=f"c-{n}", name="x", email="y"), 0) for n in range(20)])
        record(lab, [(event, 0) for event in _placed(20)])
        for model in MODELS:
            lab.serve(model)
        record(lab, [(event, 0) for event in _placed(1)])
        lab.serve(order_facts).catch_up()
        lab.serve(order_summary).catch_up()
        noted = {
            model.name: lab._log.database.execute(
                f'SELECT count(DISTINCT COLUMNS(*)) FROM projection."_dirty_{model.name}"'
            )[0][0]
            for model in (listed, unnamed, by_customer)
        }
        # The rows of `listed` are those of order_facts, merged when it moves; and she has a name, before and now.
        assert noted == {"listed": 0, "unnamed": 0, "by_customer": 1}


def _placed(count: int) -> list[Event]:
    from cqrs_lab.shop import OrderPlaced

    return [OrderPlaced(order_id=f"o-{n}", customer_id=f"c-{n}", total=5) for n in range(count)]


# -- layers made up at random ------------------------------------------------------------------------------------------

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
@settings(max_examples=25, deadline=None)
def test_random_layers_agree(models: list[ReadModel], history: list[Any], data: st.DataObject) -> None:
    """Whatever is built on what, view, table, projection and as of agree at every cut, and with a fresh store."""
    with open_shop(threads=1) as lab:
        for model in models:
            lab._servings.declare(model)
        past = 0
        for part in history:
            record(lab, part)
            for model in data.draw(st.lists(st.sampled_from(models), max_size=2)):
                lab.serve(model).catch_up(to=data.draw(st.integers(0, lab.head)))
            for served in lab._servings.served():
                then = lab.as_of(position=served.position)
                assert_same(lab, served._select(), then._text(served.model))
            past = past or lab.head
        for model in models:
            lab.serve(model), lab.serve(model, "materialized").refresh()
        lab.catch_up()
        with open_shop(threads=1) as young:
            record(young, history[0])
            for model in models:
                young._servings.declare(model)
                view = lab.serve(model, "view")._select()
                assert_same(lab, lab.serve(model)._select(), view)
                assert_same(lab, lab.serve(model, "materialized")._select(), view)
                assert_same(lab, lab.as_of(position=lab.head)._text(model), view)
                assert lab.as_of(position=past).rows(model).fetchall() == young.serve(model, "view").rows().fetchall()
