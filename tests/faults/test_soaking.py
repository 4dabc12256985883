"""Faults at random moments: Ctrl-C, kill, fork and many writers at once, while all that changes a store is done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("kind", "counted", "least"),
    [("interrupts", "interrupted", 8), ("kills", "killed", 1), ("forks", "forget", 1), ("appends", "appended", 1)],
)
def test_whatever_happens_leaves_a_whole_store(kind: str, counted: str, least: int) -> None:
    """Nothing acknowledged is lost, nothing is counted twice, all servings agree, and each error is the one it is."""
    if kind in ("kills", "forks") and not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    program = Path(__file__).with_name("soaking.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program, kind, "20"], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(counted) >= least, done.stdout
