"""Your measurement beside the recorded one."""

import polars as pl
import pytest

from cqrs_lab.errors import InvalidTable
from cqrs_lab.workbench.course import beside


def test_times_stand_beside_the_recorded_ones():
    """Rows are matched by name, in your order; what was not recorded is null."""
    shown = beside({"fold": 2.345, "new": 1.0}, pl.DataFrame({"what": ["kept", "fold"], "ms": [9.0, 3.0]}))
    assert shown.columns == ["what", "ms", "recorded_ms"]
    assert shown.rows() == [("fold", 2.35, 3.0), ("new", 1.0, None)]


def test_a_frame_is_matched_by_the_columns_that_are_named():
    """Several columns name a row, and each column of times gets its recorded one next to it."""
    yours = pl.DataFrame({"way": ["view", "view"], "events": [1, 2], "p50_ms": [1.0, 2.0], "p95_ms": [3.0, 4.0]})
    recorded = yours.with_columns(pl.col("p50_ms") * 10, pl.col("p95_ms") * 10)
    shown = beside(yours, recorded, by=["way", "events"], of=["p50_ms", "p95_ms"])
    assert shown.columns == ["way", "events", "p50_ms", "recorded_p50_ms", "p95_ms", "recorded_p95_ms"]
    assert shown.row(1) == ("view", 2, 2.0, 20.0, 4.0, 40.0)


def test_a_row_that_stands_several_times_is_shown_once():
    """Costs are repeated for each question; they are one row of the comparison."""
    costs = pl.DataFrame({"what": ["view", "view"], "ms": [1.0, 1.0]})
    assert beside(costs, costs).rows() == [("view", 1.0, 1.0)]


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        (pl.DataFrame({"what": ["a", "a"], "ms": [1.0, 2.0]}), "several recorded rows have the same what"),
        (pl.DataFrame({"what": ["a"]}), "recorded has no column ms; it has what"),
    ],
)
def test_what_cannot_be_matched_is_refused(recorded, said):
    """A name that is not unique, or a column that is missing, is said instead of a wrong comparison."""
    with pytest.raises(InvalidTable, match=said):
        beside({"a": 1.0}, recorded)
