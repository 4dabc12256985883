"""A poll: asking again and again until a read model has caught up, as clients do that cannot wait for a position."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

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
