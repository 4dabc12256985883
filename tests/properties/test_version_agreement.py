"""Stores of several versions of events say what a store of one version says."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import append, as_table, assert_same
from support.ages import BY_CUSTOMER, MODELS, First, Second, aged, equal_stores, last, part, shop_of

from cqrs_lab import Event, open_shop
from cqrs_lab.errors import RebuildNeeded


@given(one=part, two=part, three=last)
@settings(max_examples=6, deadline=None)
def test_three_versions_say_what_one_says(one: list, two: list, three: list) -> None:
    """A store with a part of each version equals, in states, servings and all its past, one of the latest alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.duckdb"
        for age, history in ((First, one), (Second, two)):
            with shop_of(path, age) as lab:
                append(lab, [(aged(event, age), minute) for event, minute in history])
        with open_shop(path, threads=1) as mixed, open_shop(threads=1) as plain:
            append(mixed, three)
            append(plain, [*one, *two, *three])
            versions = mixed._log.database.execute(
                "SELECT position, schema_version FROM order_events WHERE type = 'OrderPlaced' ORDER BY position"
            )
            ends = (len(one), len(one) + len(two))
            assert all(v == (1 if p <= ends[0] else 2 if p <= ends[1] else 3) for p, v in versions)
            equal_stores(mixed, plain)


@given(one=part, two=part, three=last, cuts=st.lists(st.integers(0, 18), max_size=5))
@settings(max_examples=6, deadline=None)
def test_a_projection_moves_across_the_versions(one: list, two: list, three: list, cuts: list[int]) -> None:
    """Moved by any batches over events of three versions, a projection's rows are those of its position."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.duckdb"
        with open_shop(path, threads=1) as lab, open_shop(threads=1) as plain:
            moving = [lab.serve(model) for model in (*MODELS, BY_CUSTOMER)]
            for age, history in ((First, one), (Second, two)):
                with shop_of(path, age) as earlier:  # beside the lab, which goes on
                    append(earlier, [(aged(event, age), minute) for event, minute in history])
            append(lab, three)
            append(plain, [*one, *two, *three])
            for cut in [*sorted(cuts), lab.head]:
                for served in moving:
                    served.catch_up(to=cut)
                    assert_same(lab, served.select(), lab.as_of(position=served.position)._text(served.model))
                    then = plain.as_of(position=served.position).rows(served.model).fetchall()
                    assert served.rows().fetchall() == then


@given(one=part, two=part, three=last)
@settings(max_examples=6, deadline=None)
def test_a_projection_meets_a_version_at_a_time(one: list, two: list, three: list) -> None:
    """Reopened between the versions, a projection is right, or asks to be rebuilt and then is; it never is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.duckdb"
        history: list[tuple[Event, int]] = []
        for age, steps in ((First, one), (Second, two), (None, three)):
            with open_shop(path, threads=1) if age is None else shop_of(path, age) as lab:
                append(lab, steps if age is None else [(aged(event, age), minute) for event, minute in steps])
            history += steps
            with open_shop(path, threads=1) as lab, open_shop(threads=1) as plain:
                append(plain, history)
                for model in MODELS:
                    served = lab.serve(model)
                    if served.state == "ok":
                        served.catch_up()
                    else:
                        with pytest.raises(RebuildNeeded):
                            served.rows()
                        served.rebuild()
                    assert served.rows().fetchall() == plain.serve(model, "view").rows().fetchall()


@given(history=part)
@settings(max_examples=6, deadline=None)
def test_an_old_shop_appends_a_table(history: list) -> None:
    """A table appended by the domain of an old version is lifted as events appended one by one are."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.duckdb"
        with shop_of(path, First) as lab:
            table = as_table(history).rename_columns(
                ["customer" if name == "customer_id" else name for name in as_table(history).column_names]
            )
            totals = [getattr(aged(event, First), "total", None) for event, _ in history]
            table = table.set_column(table.column_names.index("total"), "total", [totals]).drop_columns(
                ["source_status", "removed", "freight", "method"]
            )
            assert lab.append_table("order", table) == len(history)
        with open_shop(path, threads=1) as mixed, open_shop(threads=1) as plain:
            append(plain, history)
            equal_stores(mixed, plain)
