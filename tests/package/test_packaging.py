"""Packaging: pyproject.toml is the one list of dependencies, and the other files agree with it."""

import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
ENVIRONMENT = (ROOT / "environment.yml").read_text("utf-8")


def _wanted() -> list[Requirement]:
    project = PROJECT["project"]
    brought = ("lab", "serve", "scale", "test", "bench")
    extras = (line for extra in brought for line in project["optional-dependencies"][extra])
    lines = [*project["dependencies"], *extras, *PROJECT["build-system"]["requires"]]
    return [Requirement(line) for line in lines if canonicalize_name(Requirement(line).name) != "cqrs-lab"]


def _locked() -> list[Requirement]:
    return [Requirement(line) for line in LOCK.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("wanted", _wanted(), ids=str)
def test_the_lock_satisfies_every_requirement(wanted: Requirement) -> None:
    """Each dependency, of what `all` brings and of the build, is locked at a version that pyproject.toml allows."""
    versions = [next(iter(r.specifier)).version for r in _locked() if canonicalize_name(r.name) == wanted.name]
    assert versions, f"{wanted} is not locked; run: make lock"
    assert all(wanted.specifier.contains(version) for version in versions), f"{wanted} is locked at {versions}"


def test_the_lock_holds_exact_versions_and_no_addresses() -> None:
    """The lock names versions alone: no index, no file, no hash, nothing of the machine that wrote it."""
    for requirement in _locked():
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert "*" not in pin.version
        assert requirement.url is None
    for line in LOCK.splitlines():
        assert not re.search(r"://|@|^\s*-|/[a-z]", line), line


def test_the_lock_serves_every_python_and_system() -> None:
    """On each Python and system that is supported a package is locked once."""
    for python in ("3.11", "3.12", "3.13", "3.14"):
        for system, os_name in (("linux", "posix"), ("darwin", "posix"), ("win32", "nt")):
            machine = {
                "python_version": python,
                "python_full_version": f"{python}.5",
                "sys_platform": system,
                "os_name": os_name,
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
            }
            names = _there(_locked(), machine)
            assert len(names) == len(set(names))
            assert {*_there(_wanted(), machine)} <= {*names}


def _there(requirements: list[Requirement], machine: dict[str, str]) -> list[str]:
    """The names of those that a machine needs."""
    return [canonicalize_name(r.name) for r in requirements if not r.marker or r.marker.evaluate(machine)]


def test_what_is_installed_is_what_is_allowed() -> None:
    """The environment that the tests run in meets every requirement of pyproject.toml."""
    for wanted in _wanted():
        if wanted.marker and not wanted.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            # pip builds in an environment of its own when it installs without the lock.
            assert str(wanted) in PROJECT["build-system"]["requires"]
        else:
            assert wanted.specifier.contains(version), wanted


def test_the_conda_environment_installs_the_course() -> None:
    """environment.yml brings a Python that pyproject.toml allows, and leaves the rest to pip and pyproject.toml."""
    lines = [line.strip() for line in ENVIRONMENT.splitlines() if not line.startswith("#")]
    name = PROJECT["project"]["name"]
    assert lines == [
        f"name: {name}",
        "channels:",
        "- conda-forge",
        "dependencies:",
        f"- python{PROJECT['project']['requires-python']}",
        "- pip",
        "- pip:",
        "- -e .[course]",
    ]


def test_binder_and_the_container_install_the_course() -> None:
    """Binder and the development container take a Python that is allowed, and the extra `course`; kernels end there."""
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    runtime = (ROOT / "binder" / "runtime.txt").read_text("utf-8").strip()
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    for python in (runtime.removeprefix("python-"), container["image"].rpartition(":")[2]):
        assert re.fullmatch(r"3\.\d+", python)
        assert allowed.contains(python)
    assert (ROOT / "binder" / "requirements.txt").read_text("utf-8") == "-e .[course]\n"
    assert container["postCreateCommand"].endswith('pip install --no-input -c requirements.lock -e ".[course]"')
    (settings,) = re.findall(r"'(\{.*\})'", (ROOT / "binder" / "postBuild").read_text("utf-8"))
    module, _, name = json.loads(settings)["ServerApp"]["kernel_manager_class"].rpartition(".")
    assert hasattr(importlib.import_module(module), name)
    assert os.access(ROOT / "binder" / "postBuild", os.X_OK)


def test_the_course_brings_no_tools_of_tests_and_benchmarks() -> None:
    """The extra `course` is what the notebooks need; `all` is everything but pathway."""
    name, extras = PROJECT["project"]["name"], PROJECT["project"]["optional-dependencies"]
    assert extras["course"] == [f"{name}[lab,serve,scale]"]
    assert extras["all"] == [f"{name}[lab,serve,scale,test,bench]"]


def test_every_install_line_runs_in_every_shell() -> None:
    """Extras stand in double quotes: zsh expands bare brackets, and the Windows prompt keeps single quotes."""
    pages = [ROOT / "README.md", *ROOT.glob("notebooks/*.md"), ROOT / "cqrs_lab" / "tools" / "doctor.py"]
    for page in pages:
        for line in page.read_text("utf-8").splitlines():
            for extra in re.finditer(r"pip (?:install|wheel|download)[^`]*?(\S*\[\w+\]\S?)", line):
                assert re.match(r'".*\]"', extra[1]), f"{page.name}: {line}"


def test_one_python_floor_everywhere() -> None:
    """Package, type checker, linter, lock and Makefile agree on the oldest Python."""
    floor = PROJECT["project"]["requires-python"].removeprefix(">=")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert SpecifierSet(f">={floor}").contains(Version(".".join(map(str, sys.version_info[:3]))))
    assert PROJECT["tool"]["mypy"]["python_version"] == floor
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{floor.replace('.', '')}"
    assert f"--python-version {floor}" in makefile
    assert makefile.count(f"sys.version_info < ({floor.replace('.', ', ')})") == 2


def test_the_installed_version_is_the_declared_one() -> None:
    """The metadata that pip shows come from pyproject.toml."""
    assert importlib.metadata.version("cqrs-lab") == PROJECT["project"]["version"]


def _make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # As a person would call it, also when these tests were started by make.
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", *arguments], cwd=cwd, env=own, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("goal", ["help", ""])
def test_make_lists_its_targets(goal: str) -> None:
    """`make` alone says what can be made and changes nothing."""
    said = _make(*goal.split())
    assert said.returncode == 0, said.stderr
    targets = [line.split()[1] for line in said.stdout.splitlines()]
    assert targets[:5] == ["help", "lab", "learn", "test", "quick"]
    assert {"lint", "format", "bench", "lock", "clean"} < set(targets)


def test_make_says_when_the_python_is_too_old(tmp_path: Path) -> None:
    """With an old Python `make` stops before it installs anything, and says how to name another one."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit\nexit 1\n')
    old.chmod(0o755)
    made = _make("lint", f"PYTHON={old}", cwd=tmp_path)
    assert made.returncode != 0
    assert "needs Python 3.11 or newer" in made.stderr
    assert "Python 3.9.2" in made.stderr
    assert "make lint PYTHON=" in made.stderr
    assert not (tmp_path / ".venv").exists()
