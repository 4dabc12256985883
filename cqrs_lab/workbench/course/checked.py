"""What a check found: one line for each thing that was tried, with the line of the learner's code where it is known.

Owns how tries become lines, and how the learner's line is found; a try that fails is one that does not hold.
"""

from __future__ import annotations

import linecache
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from cqrs_lab.messages import Message

Tries = Iterator[tuple[str, str | None]]
"""What was tried, and what is wrong with it: None when it holds."""

# Code below these is not the learner's: this package, the standard library, what was installed.
_NOT_THEIRS = (
    str(Path(__file__).parents[2]),
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    "<frozen",
)


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
        yield "your code runs", f"{type(error).__name__}: {error}{line_of(error)}"


def line_of(error: BaseException) -> str:
    """Return the learner's line that an error came from, as " (line 3: return 1 / 0)"; empty when it is in none."""
    inner: BaseException | None = error
    while inner is not None:
        for frame in reversed(traceback.extract_tb(inner.__traceback__)):
            if not frame.filename.startswith(_NOT_THEIRS):
                return _shown(frame.filename, frame.lineno)
        inner = inner.__cause__ or inner.__context__
    return ""


def called(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Call a learner's function.

    Returns:
        What it returned, and the line that returned it, as `line_of` has it; no line for what is not Python.
    """
    code, left, before = getattr(function, "__code__", None), [0], sys.gettrace()

    def local(frame: FrameType, event: str, argument: object) -> Any:
        if event == "return":
            left[0] = frame.f_lineno
        return local

    def entered(frame: FrameType, event: str, argument: object) -> Any:
        return local if frame.f_code is code else None

    sys.settrace(entered)
    try:
        found = function(*arguments)
    finally:
        sys.settrace(before)
    return found, _shown(code.co_filename, left[0]) if code is not None and left[0] else ""


def _shown(filename: str, number: int | None) -> str:
    text = linecache.getline(filename, number).strip() if number else ""
    return f" (line {number}: {text})" if text else f" (line {number})" if number else ""


def difference(found: Any, expected: Sequence[Message], gave: str) -> str | None:
    """Say what is wrong with messages that a learner's function returned; None when they are the expected ones.

    Args:
        found: what was returned.
        expected: the messages, in order.
        gave: such as "decide() gave".
    """
    if not isinstance(found, (list, tuple)):
        return f"{gave} {found!r}; it gives a list"
    kinds, wanted = [type(one).__name__ for one in found], [type(one).__name__ for one in expected]
    if kinds != wanted:
        return f"{gave} {_named(kinds)}; it should be {_named(wanted)}"
    for one, other in zip(found, expected, strict=True):
        for name, value in dict(other).items():
            said = getattr(one, name, None)
            if said != value:
                return f"{name} of {type(one).__name__} is {said!r}; it should be {value!r}"
    return None


def _named(kinds: Sequence[str]) -> str:
    return ", ".join(kinds) or "nothing"
