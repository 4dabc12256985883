"""The time of a call: how long a call takes.

Owns the clock of single calls.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter, perf_counter_ns


def timed_ms(call: Callable[[], object]) -> float:
    """Return how many milliseconds a call takes."""
    start = perf_counter_ns()
    call()
    return (perf_counter_ns() - start) / 1e6


def median_ms(action: Callable[[int], object], runs: int = 20) -> float:
    """Return how many milliseconds an action takes: the median of some runs, each of which is told its number."""
    taken = []
    for number in range(runs):
        start = perf_counter()
        action(number)
        taken.append(perf_counter() - start)
    return median(taken) * 1000


def medians_ms(*actions: Callable[[int], object], runs: int = 20) -> dict[str, float]:
    """Return how many milliseconds each of some functions takes, by its name (see `median_ms`)."""
    return {action.__name__: median_ms(action, runs) for action in actions}
