"""Rows are those of the events that are not set aside, whatever the poison, the cuts and the layers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import append, assert_same
from support.dead_letters import MODELS, by_hand, dead_of, merged, sound, steps

from cqrs_lab import ReadModel, open_shop
from cqrs_lab.store import followers


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for long before the next attempt."""
    monkeypatch.setattr(followers, "_FIRST_PAUSE", 0.0005)


history = st.lists(st.sampled_from([".", "1", "2", "x", "y"]), max_size=9)


@pytest.mark.parametrize("kind", [*MODELS, "python"], ids=lambda kind: getattr(kind, "name", kind))
@given(early=history, late=history, cuts=st.lists(st.integers(0, 30), max_size=3))
@settings(max_examples=4, deadline=None)
def test_rows_are_those_of_the_events_that_are_not_dead(
    kind: Any, early: list[str], late: list[str], cuts: list[int]
) -> None:
    """Any poison, any cuts: handled and dead events add up to the position; rows are the SELECT over the handled."""
    numbers = early + late
    with open_shop(threads=1) as lab:
        append(lab, steps(*early))
        served = lab.serve(by_hand() if kind == "python" else kind, on_error="dead letter")
        append(lab, [(event.model_copy(update={"order_id": "o-1"}), 0) for event, _ in steps(*late)])
        for cut in [*sorted(cuts), None]:
            served.catch_up(to=cut, attempts=1)
            position = served.position
            poison = [place for place, number in enumerate(numbers[:position], 1) if number in "xy"]
            assert dead_of(lab, served.model.name) == poison
            handled = served.sql(f"SELECT coalesce(sum(n), 0)::BIGINT FROM {served.model.name}").fetchall()[0][0]
            assert handled + len(poison) == position
            expected = sound(merged if kind == "python" else kind, poison, position)
            if kind == "python":
                expected = f"SELECT * REPLACE (number::BIGINT AS number) FROM ({expected})"
            assert_same(lab, served.select(), expected)
        assert position == lab.head
        before = served.rows().fetchall()
        served.rebuild()
        assert served.rows().fetchall() == before


@given(numbers=history, cuts=st.lists(st.integers(0, 14), max_size=2))
@settings(max_examples=4, deadline=None)
def test_what_is_built_on_rows_without_dead_events_follows_them(numbers: list[str], cuts: list[int]) -> None:
    """A layer's dead events are missing above it, too, moved or rebuilt, whoever of the two is moved first."""
    above = ReadModel("above", "n", "SELECT n, count(*) AS orders, median(number) AS number FROM merged GROUP BY n")
    with open_shop(threads=1) as lab:
        lab.serve(merged, on_error="dead letter")
        served = lab.serve(above)
        append(lab, steps(*numbers))
        for cut in [*sorted(cuts), lab.head]:
            lab._servings.running.forward(served.stored, cut, 1)
            dead = [place for place, number in enumerate(numbers[: served.position], 1) if number in "xy"]
            assert dead_of(lab, "merged") == dead
            expected = above.bound(lambda place, dead=dead: sound(merged, dead, served.position))
            assert_same(lab, served.select(), expected)
        before = served.rows().fetchall()
        served.rebuild()
        assert served.rows().fetchall() == before
