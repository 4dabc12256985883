"""Times: how long commands and queries took.

Owns the notes of the latest of them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Times:
    """How long each call took: (what, "done" or the name of an error, seconds), the latest 100,000."""

    __name__ = "times"  # what a chain of middleware calls it

    def __init__(self) -> None:
        self.noted: deque[tuple[str, str, float]] = deque(maxlen=100_000)

    def note(self, what: str, call: Callable[[], T], outcome: Callable[[], str] = lambda: "done") -> T:
        """Make a call and note how long it took.

        Args:
            what: is called, such as the type of a command.
            outcome: how it ended when it went well.
        """
        told, start = "", time.perf_counter()
        try:
            answer = call()
            told = outcome()
            return answer
        except BaseException as error:
            told = type(error).__name__
            raise
        finally:
            self.noted.append((what, told, time.perf_counter() - start))
