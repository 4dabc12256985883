"""Histories of rows, differences between two moments, and kept histories: all agree with folds of the log."""

from __future__ import annotations

from collections.abc import Iterable
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
from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.states import COMBINE, RUNNING
from cqrs_lab.read import kept
from cqrs_lab.shop import daily_orders, order_facts, order_summary

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
        lab._catalog.declare(model)


def by_hand(lab: Lab, model: ReadModel) -> dict[tuple[Any, ...], list[tuple[int, dict[str, Any] | None, list[str]]]]:
    """Return the history of every row: position, the row after it, what changed, asked of every position alone."""
    told: dict[tuple[Any, ...], list[Any]] = {}
    pasts = [lab.as_of(position=p).rows(model).dicts() for p in range(lab.head + 1)]
    rows = [{tuple(row[k] for k in model.keys): row for row in past} for past in pasts]
    for position, (before, after) in enumerate(pairwise(rows), start=1):
        for key in before.keys() | after.keys():
            old, new = before.get(key), after.get(key)
            if old != new and None not in key:
                columns = lab._catalog.columns(model)
                changed = [c for c in columns if (old or {}).get(c) != (new or {}).get(c)]
                told.setdefault(key, []).append((position, new, changed))
    return told


def check_history(lab: Lab, model: ReadModel) -> None:
    """Compare the history of every row with that made by hand."""
    for key, expected in by_hand(lab, model).items():
        rows = lab.history(model, *key).dicts()
        assert [row["position"] for row in rows] == [position for position, _, _ in expected], key
        for row, (_, after, changed) in zip(rows, expected, strict=True):
            columns = lab._catalog.columns(model)
            assert {c: row[c] for c in columns} == (after or dict.fromkeys(columns))
            assert row["changed"] == changed


@given(history=histories)
@settings(max_examples=4, deadline=None)
def test_history_of_what_merges(history):
    """Every aggregate that merges has the history that asking each position alone gives."""
    with open_shop(threads=1) as lab:
        known(lab)
        append(lab, history)
        for model in MERGING[:4]:
            check_history(lab, model)


@given(history=st.lists(facts, max_size=2))
@settings(max_examples=3, deadline=None)
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
        assert all(isinstance(lab._catalog.plan(lab._catalog.find(m)), Merge) for m in (*MERGING,))


@given(history=st.lists(facts, max_size=3), data=st.data())
@settings(max_examples=8, deadline=None)
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


steps = st.lists(st.tuples(facts, st.lists(moves, min_size=1, max_size=3)), min_size=1, max_size=4)


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
            assert_kept(lab, {data.draw(st.integers(0, lab.head)), lab.head})
        with open_shop(path, threads=1) as lab:
            known(lab)
            assert_kept(lab, {data.draw(st.integers(0, lab.head)), lab.head})
            append(lab, steps[0][0])
            lab.catch_up()
            assert_kept(lab, {*data.draw(st.lists(st.integers(0, lab.head), max_size=5)), lab.head})


def assert_kept(lab: Lab, positions: Iterable[int]) -> None:
    """Compare every read model that is served as of some positions with its fold."""
    for model in {served.model.name: served.model for served in lab._servings.served()}.values():
        for position in positions:
            fold = model.expanded(lab._catalog.models, lab._catalog.window(0, position))
            assert_same(lab, lab.as_of(position=position)._text(model), fold)
