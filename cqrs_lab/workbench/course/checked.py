"""What a check found: one line for each thing that was tried.

Owns how tries become lines; a try that fails is one that does not hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Tries = Iterator[tuple[str, str | None]]
"""What was tried, and what is wrong with it: None when it holds."""


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        lines: one for each thing that was tried.
        passed: whether all of it holds.
    """

    lines: tuple[str, ...]
    passed: bool

    def __repr__(self) -> str:
        return "\n".join([*self.lines, "All done." if self.passed else "Not there yet: mend the first line with ✗."])


def checked(tries: Tries) -> Checked:
    """Return what was found, one line for each try."""
    lines = []
    passed = True
    for what, problem in _safely(tries):
        passed = passed and problem is None
        lines.append(f"✓ {what}" if problem is None else f"✗ {what}: {problem}")
    return Checked(tuple(lines), passed)


def _safely(tries: Tries) -> Tries:
    try:
        yield from tries
    except Exception as error:
        yield "your functions run", f"{type(error).__name__}: {error}"
