"""The doctor: is this machine able to run the lab?

Owns the checks of the machine, what a finding is, and what to do about each; writes nothing but a temporary store that
it removes. A store is looked at by `scan.py`.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from cqrs_lab.app import open_shop
from cqrs_lab.errors import CqrsLabError, DeclarationError, StoreError
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.store.shown import clean

FIRST_NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_start_here.ipynb"

_INSTALL = 'Install everything the lab needs: make lab (or, where the source is, pip install -e ".[course]")'
RESTORE = "Restore a backup, or copy what can still be read into a new store; the file was left as it is"
_COLORS = {"OK": "#1a7f37", "FAIL": "#c62828", "NOTE": "#9a6700"}  # each at least 4.5 to 1 on white
_SIGNS = {"OK": "✓", "FAIL": "✗", "NOTE": "!"}
VERSION = "Upgrade cqrs_lab, or install the DuckDB that requirements.lock names"


@dataclass(frozen=True)
class Finding:
    """What one check saw.

    Attributes:
        check: what was looked at.
        status: OK, FAIL, or NOTE for what could not be checked here.
        detail: what was seen.
        next: what to do about it, empty when nothing is to be done.
    """

    check: str
    status: Literal["OK", "FAIL", "NOTE"]
    detail: str
    next: str = ""

    def __str__(self) -> str:
        return f"{self.status:<4}  {self.check}: {self.detail}{'. ' if self.next else ''}{self.next}"


class Findings(list[Finding]):
    """What several checks saw; a notebook shows it as a list."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self))

    def _repr_html_(self) -> str:
        lines = []
        for one in self:
            status = f'<strong style="color: {_COLORS[one.status]}">{_SIGNS[one.status]} {one.status}</strong>'
            then = f"<br><strong>What to do:</strong> {escape(clean(one.next))}" if one.next else ""
            lines.append(f"<li>{status} {escape(clean(one.check))}: {escape(clean(one.detail))}{then}</li>")
        return f'<ul style="list-style: none; padding-left: 0; line-height: 1.6">{"".join(lines)}</ul>'


class Failed(Exception):
    """A check that does not hold: what was seen, and what to do next."""

    def __init__(self, detail: str, next: str = RESTORE) -> None:
        super().__init__(detail)
        self.detail, self.next = detail, next


def check_environment() -> Findings:
    """Check the interpreter, the packages, the kernel, a store on disk and a chart, without the internet.

    Returns:
        A list of findings; a notebook shows it with a colour and a word for each.
    """
    checks: dict[str, Callable[[], str]] = {
        "Python": _python,
        "DuckDB": lambda: _packages(only="duckdb"),
        "packages": _packages,
        "JupyterLab": lambda: _packages(extra="lab"),
        "kernel": _kernel,
        "temporary store": _store_on_disk,
        "chart": _chart,
    }
    return Findings(run(name, check) for name, check in checks.items())


def run(name: str, check: Callable[[], str], next: str = RESTORE) -> Finding:
    """Return what a check saw, or why it does not hold, with what to do next."""
    try:
        return Finding(name, "OK", check())
    except Failed as failed:
        return Finding(name, "FAIL", failed.detail, failed.next)
    except StoreError as error:
        return Finding(name, "FAIL", str(error))  # these say themselves what to do next
    except DeclarationError as error:
        return Finding(name, "FAIL", str(error), VERSION)
    except CqrsLabError as error:
        return Finding(name, "FAIL", str(error), next)
    except Exception as error:  # a broken installation fails in its own ways; the doctor goes on to the next check
        return Finding(name, "FAIL", f"{type(error).__name__}: {error}", _INSTALL)


def _python() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    near = os.path.relpath(sys.executable) if os.name == "posix" else sys.executable
    # From where one stands, unless that is a long way round: a notebook that is shared then names nobody's home.
    return f"{version} at {near if near.count('..') <= 2 else sys.executable}"


def _packages(*, extra: str | None = None, only: str | None = None) -> str:
    """Compare what is installed with what the package's own metadata asks for."""
    seen, wrong = [], []
    for line in importlib.metadata.requires("cqrs-lab") or ():
        found = re.match(r"([\w.-]+)>=([\d.]+)\s*(?:;.*?extra\s*==\s*['\"](\w+)['\"])?", line)
        if found is None or found[3] != extra or (only is not None and found[1] != only):
            continue
        name, floor = found[1], found[2]
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        seen.append(f"{name} {version}")
        if _numbers(version) < _numbers(floor):
            wrong.append(f"{name} is {version} and must be {floor} or newer")
    if wrong:
        raise Failed("; ".join(wrong), _INSTALL)
    return ", ".join(seen)


def _numbers(version: str) -> list[int]:
    release = re.match(r"\d+(\.\d+)*", version)
    return [int(part) for part in release[0].split(".")] if release else []


def _kernel() -> str:
    from jupyter_client.manager import KernelManager

    command = KernelManager(kernel_name="python3").format_kernel_cmd()[0]
    # Not the file behind the links: the interpreters of two environments may be links to the same one.
    if os.path.dirname(os.path.abspath(command)) != os.path.dirname(os.path.abspath(sys.executable)):
        raise Failed(
            f"the kernel python3 runs {command}, not {sys.executable}",
            f"Renew it: {sys.executable} -m ipykernel install --sys-prefix --name python3",
        )
    return "notebooks run in this interpreter (python3)"


def _store_on_disk() -> str:
    shop_models()  # says it in one sentence when this DuckDB cannot judge the shop
    from cqrs_lab.shop import RegisterCustomer

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "check.duckdb")
        with open_shop(path, threads=1) as lab:
            lab.send(RegisterCustomer(customer_id="c-1", name="Ada", email="ada@example.org"))
        with open_shop(path, threads=1, read_only=True) as lab:
            if len(lab.events()) != 1:
                raise Failed("a temporary store lost its event", "Check the disk that holds temporary files")
    return "made, written and read again"


def _chart() -> str:
    import altair
    import polars

    picture = io.BytesIO()
    chart = altair.Chart(polars.DataFrame({"x": [1, 2], "y": [2, 1]})).mark_bar().encode(x="x:O", y="y:Q")
    chart.save(picture, format="png")
    if not picture.getvalue().startswith(b"\x89PNG"):
        raise Failed("the chart is not a PNG", _INSTALL)
    return "drawn as PNG, offline"


def shop_models() -> dict[str, ReadModel]:
    """Return the shop's read models by lower-case name.

    Raises:
        DeclarationError: the installed DuckDB parses or judges them otherwise than this package knows.
    """
    try:
        from cqrs_lab import shop  # here, because a DuckDB that cannot judge it must not stop the doctor
    except Exception as error:
        said = str(error) if isinstance(error, CqrsLabError) else f"{type(error).__name__}: {error}"
        raise DeclarationError(f"the shop cannot be declared with the DuckDB that is installed: {said}") from error
    return {model.name.lower(): model for model in vars(shop).values() if isinstance(model, ReadModel)}
