"""Projections in Python are slow twins of read models: the same rows, however they are cut into chunks."""

from __future__ import annotations

from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from support import append, assert_same, histories
from support.handlers import counting, paid, twin

from cqrs_lab import ReadModel, open_shop
from cqrs_lab.shop import OrderCancelled, OrderPaid


@given(
    history=histories,
    cuts=st.lists(st.integers(0, 30), max_size=3),
    chunk=st.sampled_from([1, 2, 3, 500]),
    remembered=st.sampled_from([0, 1, 200_000]),
)
@settings(max_examples=12, deadline=None)
def test_a_twin_in_python_agrees_with_the_select(
    history: list[Any], cuts: list[int], chunk: int, remembered: int
) -> None:
    """For random histories, cuts and chunks the rows are those of the SELECT at that position, and after a rebuild."""
    with open_shop() as lab, mock.patch("cqrs_lab.read.handled._REMEMBERED", remembered):
        served = lab.serve(twin(chunk))
        columns = ", ".join(served._columns)
        facts = ReadModel("facts", "order_id", f"SELECT {columns} FROM order_facts")
        append(lab, history)

        def agree() -> None:
            rows = f"SELECT * REPLACE (version::INTEGER AS version) FROM ({served.select()})"
            assert_same(lab, rows, lab.as_of(position=served.position)._text(facts))

        for cut in sorted(cuts):
            assert served.catch_up(to=cut) == min(lab.head, max(cut, served.position))
            agree()
        assert served.catch_up() == lab.head
        agree()
        before = served.rows().fetchall()
        assert served.rebuild() == lab.head
        assert served.rows().fetchall() == before


@given(steps=st.lists(st.sampled_from([paid("o-1"), paid("o-2"), (OrderCancelled(order_id="o-1"), 0)]), max_size=12))
@settings(max_examples=10, deadline=None)
def test_chunks_make_no_difference(steps: list[Any]) -> None:
    """Rows put, deleted and put again are the same for every size of a chunk, moved or rebuilt."""
    with open_shop() as lab:
        append(lab, steps)
        served = [lab.serve(counting(f"by_{chunk}", chunk)) for chunk in (1, 2, 500)]
        expected = served[0].rows().fetchall()
        counts = {step[0].order_id: 0 for step in steps}
        for step, _ in steps:
            counts[step.order_id] = counts[step.order_id] + 1 if isinstance(step, OrderPaid) else 0
        assert expected == sorted((id, n) for id, n in counts.items() if n)
        for one in served:
            assert one.rows().fetchall() == expected
            one.rebuild()
            assert one.rows().fetchall() == expected
