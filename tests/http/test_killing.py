"""The server is killed under load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_killed_server_loses_nothing_and_does_nothing_twice() -> None:
    """What clients were told is there once, and the store is whole; any number of kills: tests/http/killing.py."""
    program = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program, "3"], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "3 killed" in done.stdout
