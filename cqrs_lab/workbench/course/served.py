"""A shop that is served by a process of its own, for notebooks, benchmarks and tests.

Owns that process: how it is started, where it listens, how it is stopped, killed and started again.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from cqrs_lab.errors import ServerError

_ACTOR = "owner"


class ServedShop:
    """A `cqrs-lab serve` in another process. A context manager, which stops it.

    Args:
        path: the store, which nobody else may have open.
        program: what is run instead of `cqrs-lab serve`, with the same arguments: Python code.

    Attributes:
        address: where it listens, also after it was started again.
        token: what to show there, for the actor "owner".
        process: the process.
    """

    def __init__(self, path: str | os.PathLike[str], program: str | None = None) -> None:
        self.path, self.token = Path(path), secrets.token_urlsafe(16)
        self._program, self._port = program, 0
        self._folder = tempfile.TemporaryDirectory()
        self._tokens = Path(self._folder.name) / "tokens"
        self._tokens.touch(0o600)
        self._tokens.write_text(f"{self.token} {_ACTOR}\n", "utf-8")
        self.start()

    def start(self) -> None:
        """Start it, the second time where it listened before.

        Raises:
            ServerError: it ended; with what it said.
        """
        run = ["-m", "cqrs_lab.cli", "serve"] if self._program is None else ["-c", self._program]
        arguments = ["--db", str(self.path), "--port", str(self._port), "--token-file", str(self._tokens), "--json"]
        said = Path(self._folder.name) / "said"
        with said.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *run, *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # a Ctrl-C in the notebook is not for it
            )
        weakref.finalize(self, self.process.kill)  # it does not outlive the notebook
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise ServerError(f"the server ended: {said.read_text('utf-8', 'replace')[-2000:]}")
        self.address: str = json.loads(line)["address"]
        self._port = int(self.address.rsplit(":", 1)[1])

    def kill(self) -> None:
        """Kill it: it finishes nothing and says nothing."""
        self.process.kill()
        self._end()

    def stop(self) -> int:
        """Stop it as Ctrl-C does, and return its exit code."""
        if self.process.poll() is None:
            if sys.platform == "win32":
                self.process.send_signal(signal.CTRL_C_EVENT)
            else:
                self.process.send_signal(signal.SIGINT)
        return self._end()

    def _end(self) -> int:
        code = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self._folder.cleanup()


def served_shop(path: str | os.PathLike[str]) -> ServedShop:
    """Serve a shop over HTTP from a process of its own; a context manager, which stops it.

    Args:
        path: the store, which nobody else may have open; made when it is missing. What is served in it as a projection
            in the background moves there, too.

    Returns:
        The process: `.address`, `.token`, `.kill()`, `.start()`, `.stop()`.
    """
    return ServedShop(path)
