"""What the workbench measures itself: several sizes of a history, shares of it as batches, the article's claims."""

from __future__ import annotations

import pytest

from cqrs_lab.workbench import check_claims, compare_sizes, crossover_over_batches
from cqrs_lab.workbench.measure import costs


@pytest.fixture(scope="module")
def frame():
    """Two small histories, measured by every question and with all costs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "_WRITES", 2)
        return compare_sizes((20, 60), runs=2)


def test_batches_are_measured():
    """Folding a batch and a refresh are timed for each share of the history."""
    found = crossover_over_batches(orders=20, shares=(0.1, 1.0), runs=1)
    assert found.frame["batch_per_history"].to_list() == [0.1, 0.1, 1.0, 1.0]
    assert (found.frame["ms"] > 0).all()
    assert set(found.crossings["loses"]) == {"projection"}


def test_the_claims_are_held_against_measurements(frame):
    """Every claim has a number of the article, one of this machine, a verdict and a reason."""
    claims = check_claims(frame)
    assert claims.columns == ["claim", "article", "here", "agrees", "why"]
    assert len(claims) == 6
    assert set(claims["agrees"]) <= {"yes", "partly", "no"}
    assert claims["here"].str.contains(r"\d").all()


def test_several_sizes_are_compared(frame):
    """Each size is a history of its own, one frame below the other."""
    one = frame.filter(served_as="view", question="point")
    assert one["events"].is_sorted()
    assert one["events"].n_unique() == len(one) == 2
    assert frame["events"].is_sorted()
