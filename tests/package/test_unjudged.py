"""What stays usable with a DuckDB whose parse this package cannot read."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cqrs_lab import open_shop
from cqrs_lab.workbench import Workload, generate

# The parse of every SELECT fails, as it would if DuckDB wrote its parse in another way.
UNREADABLE = """
import sys, cqrs_lab
from cqrs_lab.sql import parse as syntax
def unreadable(*_):
    raise KeyError("statements")
syntax.ask = unreadable
from cqrs_lab.cli import app
app(sys.argv[1:])
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process that can judge no SELECT."""
    return subprocess.run([sys.executable, "-c", UNREADABLE, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A small shop on disk."""
    path = tmp_path_factory.mktemp("unjudged") / "shop.duckdb"
    with open_shop(path, threads=1) as lab:
        generate(lab, Workload(orders=5, customers=2))
    return path


def test_help_needs_no_judgement():
    """The package is imported and says how it is used, whatever DuckDB is installed."""
    done = run("--help")
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout


def test_the_doctor_names_what_cannot_be_judged(store):
    """The doctor ends with findings, not with a traceback: what failed, and what to install; the rest is checked."""
    done = run("doctor", "--db", str(store))
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "FAIL temporary store: the shop cannot be declared with the DuckDB that is installed" in said
    assert "FAIL shop: the shop cannot be declared" in said
    assert "install the DuckDB that requirements.lock names" in said
    assert "positions: 1 to" in said
