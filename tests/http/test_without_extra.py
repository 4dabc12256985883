"""Without the extra: nothing of it is imported before it is used, and the error names it."""

from __future__ import annotations

import pytest
from support import python

EXTRA = ["anyio", "cloudevents", "h11", "httpx", "starlette", "uvicorn"]
MISSING = f"""
import sys
for name in {EXTRA!r}:
    sys.modules[name] = None  # as if it was not installed
"""


def test_nothing_is_imported_before_it_is_used() -> None:
    """The package, the workbench, the command line and cqrs_lab.http itself do without what the extra brings."""
    code = f"""
import sys
import cqrs_lab, cqrs_lab.cli, cqrs_lab.http, cqrs_lab.shop, cqrs_lab.workbench.course
print(sorted(set({EXTRA!r}) & sys.modules.keys()))
cqrs_lab.http.Limits(), cqrs_lab.http.__all__
print(sorted(set({EXTRA!r}) & sys.modules.keys()))
"""
    done = python(code)
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")


@pytest.mark.parametrize("name", ["app", "serve", "Client"])
def test_the_error_names_the_extra(name: str) -> None:
    """A name of it that is used says which package is missing, and how to install it."""
    code = f"""{MISSING}
from cqrs_lab import http
from cqrs_lab.errors import CqrsLabError
try:
    http.{name}
except ImportError as error:
    print(isinstance(error, CqrsLabError), error)
"""
    done = python(code)
    assert done.stdout.startswith("True cqrs_lab.http needs "), done.stderr
    assert 'pip install "cqrs-lab[serve]"' in done.stdout


@pytest.mark.parametrize("command", ["serve --db s.duckdb", "export --db s.duckdb", "import-events x --db s.duckdb"])
def test_the_commands_name_the_extra(command: str) -> None:
    """One message and exit code 1; help is there all the same, and no store is made."""
    done = python(f"{MISSING}\nfrom cqrs_lab.cli import app; app({command.split()!r})")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: cqrs_lab.http needs ")
    assert "cqrs-lab[serve]" in done.stderr
    helped = python(f"{MISSING}\nfrom cqrs_lab.cli import app; app({[command.split()[0], '--help']!r})")
    assert helped.returncode == 0


def test_no_other_name_is_there() -> None:
    """A name that the package does not have is the usual error."""
    from cqrs_lab import http

    with pytest.raises(AttributeError, match="no attribute 'server2'"):
        http.server2  # noqa: B018
