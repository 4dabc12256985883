"""The history of a row, what differs between two moments, and histories that are kept: all agree with the fold."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import append, assert_same, facts, histories
from support.layers import (
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

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.errors import NotServed
from cqrs_lab.read import kept
from cqrs_lab.read.history import RUNNING
from cqrs_lab.read.merge import COMBINE, Merge
from cqrs_lab.shop import CustomerRegistered, OrderPaid, OrderPlaced, daily_orders, order_facts, order_summary

everything = ReadModel(
    "everything",
    "kind",
    "SELECT type AS kind, count(*) AS n, count(amount) AS paid, count_if(total > 50) AS large, sum(amount) AS amount, "
    "min(position) AS first, max(total) AS most, bool_and(total > 5) AS above, bool_or(total > 5) AS some, "
    "bit_and(version) AS all_bits, bit_or(version) AS any_bits, arg_max(total, position) AS latest, "
    "arg_min(order_id, position) AS earliest, max_by(customer_id, position) AS who, min(total) - max(total) AS spread "
    "FROM order_events GROUP BY type -- and nothing else",
)
sold = ReadModel(
    "sold",
    ("day", "product_id"),
    "SELECT e.occurred_at::DATE AS day, l.product_id, sum(l.quantity)::BIGINT AS units, count(*) AS lines "
    "FROM order_events AS e, unnest(e.lines) AS u(l) GROUP BY ALL",
)
numbered = ReadModel(
    "numbered", "order_id", "SELECT order_id, rank() OVER (ORDER BY order_id) AS place FROM order_summary"
)
MERGING = (order_facts, daily_orders, everything, sold, contacts)
OTHERS = (listed, unnamed, waiting, by_day, by_state, by_customer, demand, wanted, late, numbered)


def known(lab: Lab) -> None:
    """Make all read models known."""
    declared(lab)
    for model in (everything, sold, numbered):
        lab._servings.declare(model)


def by_hand(lab: Lab, model: ReadModel) -> dict[tuple[Any, ...], list[tuple[int, dict[str, Any] | None, list[str]]]]:
    """Return the history of every row: position, the row after it, what changed, asked of every position alone."""
    told: dict[tuple[Any, ...], list[Any]] = {}
    pasts = [lab.as_of(position=p).rows(model).dicts() for p in range(lab.head + 1)]
    rows = [{tuple(row[k] for k in model.keys): row for row in past} for past in pasts]
    for position, (before, after) in enumerate(pairwise(rows), start=1):
        for key in before.keys() | after.keys():
            old, new = before.get(key), after.get(key)
            if old != new and None not in key:
                columns = lab._servings.columns(model)
                changed = [c for c in columns if (old or {}).get(c) != (new or {}).get(c)]
                told.setdefault(key, []).append((position, new, changed))
    return told


def check_history(lab: Lab, model: ReadModel) -> None:
    """Compare the history of every row with that made by hand."""
    for key, expected in by_hand(lab, model).items():
        rows = lab.history(model, *key).dicts()
        assert [row["position"] for row in rows] == [position for position, _, _ in expected], key
        for row, (_, after, changed) in zip(rows, expected, strict=True):
            columns = lab._servings.columns(model)
            assert {c: row[c] for c in columns} == (after or dict.fromkeys(columns))
            assert row["changed"] == changed


@given(history=histories)
@settings(max_examples=6, deadline=None)
def test_history_of_what_merges(history):
    """Every aggregate that merges has the history that asking each position alone gives."""
    with open_shop(threads=1) as lab:
        known(lab)
        append(lab, history)
        for model in MERGING[:4]:
            check_history(lab, model)


@given(history=st.lists(facts, max_size=3))
@settings(max_examples=6, deadline=None)
def test_history_of_what_is_made_of_others(history):
    """Joins, layers, medians and windows have the history that asking each position alone gives."""
    with open_shop(threads=1) as lab:
        known(lab)
        for some in history:
            append(lab, some)
        for model in OTHERS:
            check_history(lab, model)


def test_every_way_to_combine_has_a_running_one():
    """What merges can be followed event by event, whatever is added to merge's list."""
    assert set(RUNNING) == set(COMBINE.values())
    with open_shop() as lab:
        assert all(isinstance(lab._servings.way(lab._servings.find(m)), Merge) for m in (*MERGING,))


def test_a_history_reads_as_a_story():
    """Columns are those of the event, then the row's, then what changed; a row that vanishes is empty."""
    with open_shop() as lab:
        known(lab)
        order = OrderPlaced(order_id="o-1", customer_id="c-1", total=5)
        person = CustomerRegistered(customer_id="c-1", name="Ann")
        append(lab, [(order, 0), (OrderPaid(order_id="o-2", amount=1), 1), (person, 2)])
        told = lab.history(unnamed, "o-1")
        assert told.columns == [
            "position", "type", "occurred_at", "recorded_at", "order_id", "status", "changed",
        ]  # fmt: skip
        assert [(r["position"], r["type"], r["order_id"], r["changed"]) for r in told.dicts()] == [
            (1, "OrderPlaced", "o-1", ["order_id", "status"]),
            (3, "CustomerRegistered", None, ["order_id", "status"]),
        ]
        assert all(r["occurred_at"].tzinfo and r["recorded_at"].tzinfo for r in told.dicts())
        assert len(lab.history(unnamed, "nobody")) == len(lab.history("order_summary", "nobody")) == 0


@given(history=st.lists(facts, max_size=3), data=st.data())
@settings(max_examples=10, deadline=None)
def test_diff_is_what_two_folds_differ_in(history, data):
    """A diff of any two moments has each row that differs, once, with what it was and is."""
    with open_shop(threads=1) as lab:
        known(lab)
        for some in history:
            append(lab, some)
        a, b = (data.draw(st.integers(0, lab.head)) for _ in "ab")
        for model in (order_summary, daily_orders, by_state):
            old, new = (
                {tuple(row[k] for k in model.keys): row for row in lab.as_of(position=p).rows(model).dicts()}
                for p in (a, b)
            )
            rows = lab.diff(model, a, lab.as_of(position=b)).dicts()
            keys = [tuple(row[k] for k in model.keys) for row in rows]
            assert sorted(keys, key=str) == sorted((k for k in old | new if old.get(k) != new.get(k)), key=str)
            for key, row in zip(keys, rows, strict=True):
                assert (row["before"], row["after"]) == (old.get(key), new.get(key))
                change = "added" if key not in old else "removed" if key not in new else "changed"
                assert row["change"] == change


KEPT = (*MERGING, listed, unnamed, by_day, by_customer)
moves = st.tuples(st.sampled_from(KEPT), st.sampled_from(["part", "all", "rebuild"]))
steps = st.lists(
    st.tuples(facts, st.lists(moves, max_size=3)),
    min_size=1,
    max_size=5,
)  # fmt: skip


@given(due=st.integers(1, 4), most=st.integers(1, 5), steps=steps, data=st.data())
@settings(max_examples=4, deadline=None)
def test_kept_histories_agree_with_the_fold(due, most, steps, data, tmp_path_factory):
    """As of any position, what was kept says what the fold says, after any moves, rebuilds and a reopening."""
    path = tmp_path_factory.mktemp("kept") / "shop.duckdb"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "DUE", due)
        patch.setattr(kept, "_MOST", most)
        with open_shop(path, threads=1) as lab:
            known(lab)
            for history, moves in steps:
                append(lab, history)
                for model, how in moves:
                    served = lab.serve(model, keep_history=True)
                    if how == "rebuild":
                        served.rebuild()
                    else:
                        served.catch_up(to=data.draw(st.integers(0, lab.head)) if how == "part" else None)
            assert_kept(lab)
        with open_shop(path, threads=1) as lab:
            known(lab)
            assert_kept(lab)
            append(lab, steps[0][0])
            lab.catch_up()
            assert_kept(lab)


def assert_kept(lab: Lab) -> None:
    """Compare every read model as of every position with its fold."""
    for model in KEPT:
        for position in range(lab.head + 1):
            fold = model.expanded(lab._servings.models, lab._servings.window(0, position))
            assert_same(lab, lab.as_of(position=position)._text(model), fold)


def many(lab: Lab, count: int) -> None:
    """Append orders."""
    append(lab, [(OrderPlaced(order_id=f"o-{n}", customer_id="c-1", total=n), 0) for n in range(count)])


def test_what_is_kept_is_what_is_read(monkeypatch):
    """A question about a position reads the kept rows and folds no more than the events since the last step."""
    monkeypatch.setattr(kept, "DUE", 5)
    with open_shop() as lab:
        many(lab, 10)
        lab.serve(order_summary, keep_history=True)
        many(lab, 2)
        lab.catch_up()
        text = lab.as_of(position=12)._text(order_summary)
        assert "history" in text
        assert "position > 10" in text
        assert "order_events" not in lab.as_of(position=10)._text(order_summary)
        assert "history" not in lab.as_of(position=12, occurred=lab._store.clock())._text(order_summary)
        assert "history" not in lab.as_of(position=0)._text(order_summary)
        assert [(s.model.name, s.as_) for s in lab._servings.served()] == [
            ("customer_contacts", "projection"),
            ("order_summary", "projection"),
        ]
        lab.serve(order_summary)
        assert "history" in lab.as_of(position=12)._text(order_summary)
        lab.serve(order_summary, keep_history=False)
        assert "history" not in lab.as_of(position=12)._text(order_summary)


def test_an_inline_projection_keeps_its_history_at_catch_up(monkeypatch):
    """Appends do not wait for the history; catch_up() moves it on."""
    monkeypatch.setattr(kept, "DUE", 5)
    with open_shop() as lab:
        many(lab, 7)
        lab.serve(order_summary, mode="inline", keep_history=True)
        many(lab, 7)
        assert "_from <= 7" in lab.as_of(position=14)._text(order_summary)
        assert len(lab.as_of(position=14).rows(order_summary)) == 7
        lab.catch_up()
        assert "_from <= 14" in lab.as_of(position=14)._text(order_summary)


def test_another_select_does_not_read_what_was_kept(monkeypatch):
    """A read model that was declared anew is folded until it is rebuilt, and then kept again."""
    monkeypatch.setattr(kept, "DUE", 5)
    with open_shop() as lab:
        many(lab, 12)
        once = ReadModel("totals", "order_id", "SELECT order_id, max(total) AS t FROM order_events GROUP BY order_id")
        again = ReadModel("totals", "order_id", "SELECT order_id, -max(total) AS t FROM order_events GROUP BY order_id")
        lab.serve(once, keep_history=True)
        assert lab.as_of(position=12).get(again, "o-3")["t"] == -3
        lab.serve(again).rebuild()
        assert "history" in lab.as_of(position=12)._text(again)
        assert lab.as_of(position=12).get(again, "o-3")["t"] == -3


def test_what_is_forgotten_is_not_kept(monkeypatch, tmp_path):
    """Erased personal data leave every kept history, also one whose read model nobody declares any more."""
    monkeypatch.setattr(kept, "DUE", 1)
    path = tmp_path / "shop.duckdb"
    with open_shop(path) as lab:
        known(lab)
        append(lab, [(CustomerRegistered(customer_id="c-1", name="Ann-to-forget", email="e"), 0)])
        lab.serve(listed, keep_history=True)
        lab.serve(contacts, keep_history=True)
        lab.forget("c-1")
        assert lab.as_of(position=1).get(contacts, "c-1")["name"] is None
        assert "history" in lab.as_of(position=1)._text(contacts)
        assert lab._log.database.execute("SELECT name FROM history.contacts") == [(None,)]
        append(lab, [(CustomerRegistered(customer_id="c-2", name="Bea-to-forget", email="e"), 0)])
        lab.catch_up()
    with open_shop(path) as lab:  # it declares no contacts
        lab.forget("c-2")
        left = lab._log.database.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'history'")
        assert ("contacts",) not in left


def test_what_cannot_be_kept_says_so():
    """A read model of which nothing merges is refused with the reason."""
    with open_shop() as lab, pytest.raises(NotServed, match="DISTINCT"):
        lab.serve(demand, keep_history=True)
