"""The command line as a shell calls it, and as a test does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from cqrs_lab import doctor
from cqrs_lab.cli import app

PROGRAM = Path(sys.executable).with_name("cqrs-lab")


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed program as a shell would."""
    return subprocess.run(
        [str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "COLUMNS": "80", **environment},
    )


def call(*arguments: object) -> Result:
    """Run the same in this process, which is faster."""
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, list(map(str, arguments)))


def failing(findings: list[doctor.Finding]) -> dict[str, str]:
    """Return the checks that failed, with what was seen."""
    return {finding.check: finding.detail for finding in findings if finding.status == "FAIL"}
