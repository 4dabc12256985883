"""The one way to run, to interrupt and to kill another Python process, and to wait for something to be so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from cqrs_lab.store.database import Database

TESTS = Path(__file__).parents[1]
SERVER = """
import sys
scope = {}
while line := sys.stdin.readline():
    exec(eval(line), scope)
    print("done", flush=True)
"""
PRELUDE = """
import os, signal, sys, threading, time
from cqrs_lab import open_shop
from cqrs_lab.store.database import Database
from cqrs_lab.errors import *
from cqrs_lab.shop import *
from support import *
"""


def environment(beside: str | None = None, **more: str) -> dict[str, str]:
    """Return the environment of a process that finds `support`, and the modules beside a test file."""
    folders = [TESTS, *([Path(beside).parent] if beside else [])]
    inherited = os.environ.get("PYTHONPATH", "")
    return os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, folders), inherited]).rstrip(os.pathsep)} | more


def python(code: str, *arguments: Any, beside: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code in another process to its end, whatever that is, and return its exit code and what it printed.

    Args:
        code: the program.
        arguments: its `sys.argv[1:]`.
        beside: `__file__` of a test, for code that imports from it.
        env: variables of its environment.
    """
    command = [sys.executable, "-c", code, *map(str, arguments)]
    told = environment(beside, **env)
    return subprocess.run(command, env=told, capture_output=True, text=True, timeout=120, check=False)


class Child:
    """A Python process that runs what it is told, in one scope that knows the shop and `support`.

    Args:
        beside: `__file__` of a test, for code that imports from it.

    Attributes:
        process: the process itself.
        pid: its number.
    """

    def __init__(self, beside: str | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env=environment(beside),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pid = self.process.pid
        self.run(PRELUDE)

    def tell(self, code: str) -> None:
        """Start code without waiting for its end."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{code!r}\n")

    def line(self) -> str:
        """Return the next line that the process prints, empty when it is dead."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def run(self, code: str) -> list[str]:
        """Run code to its end, or to the process's, and return the lines it printed."""
        self.tell(code)
        lines = []
        while (line := self.line()) not in ("done", ""):
            lines.append(line)
        return lines

    def kill(self) -> int:
        """Kill the process and return its exit code."""
        self.process.kill()
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of the process and return its exit code."""
        code = self.process.wait(timeout=120)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        return code


def say(what: object) -> None:
    """Print a line for the parent to read."""
    print(what, flush=True)  # noqa: T201


def die() -> NoReturn:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_at(part: str, when: str) -> None:
    """Kill this process "before" or "after" the next statement that has a text in it."""
    execute = Database.execute

    def dying(self: Database, sql: str, params: Any = ()) -> Any:
        if part in sql and when == "before":
            die()
        rows = execute(self, sql, params)
        if part in sql:
            die()
        return rows

    Database.execute = dying  # type: ignore[method-assign]


def wait_until(condition: Callable[[], Any], timeout: float = 60) -> Any:
    """Wait until something is so, and return what the condition said; after the timeout, in seconds, fail."""
    end = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < end, f"not so after {timeout} s"
        time.sleep(0.005)
    return answer
