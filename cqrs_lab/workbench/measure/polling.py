"""A poll: asking again and again until a read model has caught up, as clients do that cannot wait for a position.

Owns the loop, and the wait for what a lab notes of its lag.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import polars as pl

from cqrs_lab.app import Lab
from cqrs_lab.errors import NotYet

T = TypeVar("T")


def poll(ask: Callable[[], T], until: Callable[[T], bool], every: float = 0.1, timeout: float = 5) -> tuple[T, int]:
    """Ask until the answer is as it should be.

    Args:
        ask: asks once.
        until: whether an answer is as it should be.
        every: seconds between two questions.
        timeout: seconds after which it gives up; it asks at least once.

    Returns:
        The answer, and how often it was asked for.

    Raises:
        NotYet: no such answer came in time; its `.position` is None.
    """
    end = time.monotonic() + timeout
    polls = 0
    while True:
        answer, polls = ask(), polls + 1
        if until(answer):
            return answer, polls
        if time.monotonic() + every > end:
            raise NotYet(f"not answered as expected after {polls} polls in {timeout:g} s; the last was {answer!r}")
        time.sleep(every)


def visible_ms(lab: Lab, positions: Iterable[int], timeout: float = 60) -> pl.Series:
    """Return how many milliseconds after its commit each of some appends could be seen in a read model.

    Args:
        lab: with a read model that moves by itself.
        positions: of the appends: that of the last event of each.
        timeout: seconds to wait until the last of them is noted, which is just after its rows can be seen.

    Returns:
        Milliseconds, in the order of the positions; of several read models each has its own.

    Raises:
        NotYet: one of them was not noted in time, or was noted too long ago to be remembered.
    """
    wanted = sorted(set(positions))
    noted, _ = poll(
        lambda: lab.lag_history().pl(), until=lambda found: set(wanted) <= set(found["position"]), timeout=timeout
    )
    return noted.filter(pl.col("position").is_in(wanted)).sort("position")["seconds"] * 1000
