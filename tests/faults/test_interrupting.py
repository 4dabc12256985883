"""Ctrl-C at random moments: nothing is counted twice, nothing is left apart, and KeyboardInterrupt comes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_interrupted_leaves_a_whole_store(seed: int) -> None:
    """Sends, batches, tables, moves, builds, histories and erasures are stopped at any moment; all agrees after it."""
    program = Path(__file__).with_name("interrupting.py")
    done = subprocess.run(
        [sys.executable, program, "15", "--seed", str(seed)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("interrupted") >= 8, done.stdout
