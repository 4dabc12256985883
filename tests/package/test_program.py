"""The installed program: its versions, the doctor of this machine, and JupyterLab at the first notebook."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest
import websocket
from support import wait_until
from support.command_line import call, run

from cqrs_lab.tools import doctor


def test_version_names_what_runs() -> None:
    """--version gives the versions that a bug report needs."""
    said = run("--version")
    assert said.returncode == 0
    assert said.stdout.startswith("cqrs-lab 0.")
    assert f"DuckDB {duckdb.__version__}" in said.stdout


def test_the_doctor_finds_this_machine_well() -> None:
    """With --json, doctor checks the environment, all OK, and prints JSON alone."""
    said = run("doctor", "--json")
    seen = json.loads(said.stdout)
    assert (said.returncode, said.stderr, seen["ok"]) == (0, "", True)
    checks = {finding["check"]: finding for finding in seen["findings"]}
    assert list(checks) == ["Python", "DuckDB", "packages", "JupyterLab", "kernel", "temporary store", "chart"]
    interpreter = Path(os.path.abspath(checks["Python"]["detail"].partition(" at ")[2]))
    assert interpreter.parent == Path(sys.executable).parent
    assert {finding["status"] for finding in checks.values()} == {"OK"}


def test_the_doctor_says_which_package_is_too_old_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package below its floor, or not installed, is a FAIL that names it and how to install."""
    wanted = ["duckdb>=99.0", "nowhere-to-be-found>=1; extra == 'lab'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: wanted)
    findings = {finding.check: finding for finding in doctor.check_environment()}
    assert findings["DuckDB"].status == findings["JupyterLab"].status == "FAIL"
    assert "must be 99.0 or newer" in findings["DuckDB"].detail
    assert "nowhere-to-be-found is missing" in findings["JupyterLab"].detail
    assert "make lab" in findings["JupyterLab"].next


def test_the_doctor_says_when_notebooks_would_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel python3 that belongs to another environment is a FAIL with the command that renews it."""
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    kernel = {"argv": ["/elsewhere/bin/python", "-m", "ipykernel_launcher"], "display_name": "x", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    (finding,) = (finding for finding in doctor.check_environment() if finding.check == "kernel")
    assert finding.status == "FAIL"
    assert "/elsewhere/bin/python" in finding.detail
    assert "ipykernel install" in finding.next


def test_notebooks_says_when_there_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Installed without the course, the command says where the notebooks are to be had."""
    monkeypatch.setattr(doctor, "FIRST_NOTEBOOK", tmp_path / "notebooks" / "00_start_here.ipynb")
    said = call("notebooks", "--no-browser")
    assert said.exit_code == 1
    assert "make lab" in said.stderr


def test_notebooks_opens_jupyterlab_at_the_first_one(tmp_path: Path) -> None:
    """JupyterLab listens on the given port, its address leads to the first notebook; the next one ends its kernel."""
    first = tmp_path / "notebooks" / "00_start_here.ipynb"
    first.parent.mkdir()
    for name in (first.name, "01.ipynb"):
        first.with_name(name).write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    code = (
        "import pathlib, sys; from cqrs_lab.tools import cli, doctor\n"
        "doctor.FIRST_NOTEBOOK = pathlib.Path(sys.argv.pop(1)); cli.app()"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--port", str(port), "--", "--allow-root", "--IdentityProvider.token=secret"]
    folders = {name: str(tmp_path) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    log = tmp_path / "log"
    with (
        log.open("w") as said,
        subprocess.Popen(
            [sys.executable, "-c", code, str(first), "notebooks", *options],
            stdout=said,
            stderr=said,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **folders},
        ) as server,
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:

            def at_the_notebook() -> bool:
                assert server.poll() is None, log.read_text()
                return f":{port}/lab/tree/notebooks/00_start_here.ipynb" in log.read_text()

            def connected() -> bool:  # the address is printed shortly before the server answers there
                with suppress(ConnectionRefusedError):
                    connection.connect()
                    return True
                return False

            wait_until(at_the_notebook, timeout=120)
            wait_until(connected)
            connection.request("GET", "/api/contents/notebooks/00_start_here.ipynb?content=0&token=secret")
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["name"]) == (200, first.name)

            def asked(what: str, send: dict[str, Any] | None = None) -> Any:
                method, body = ("GET", None) if send is None else ("POST", json.dumps(send))
                connection.request(method, f"/api/{what}?token=secret", body)
                return json.loads(connection.getresponse().read())

            def opened(name: str) -> None:
                kernel = {"name": "python3"}
                session = {"path": f"notebooks/{name}", "name": name, "type": "notebook", "kernel": kernel}
                id = asked("sessions", session)["kernel"]["id"]
                # As a browser would: a kernel that nobody talks to does not say that it has nothing to do.
                websocket.create_connection(f"ws://127.0.0.1:{port}/api/kernels/{id}/channels?token=secret").close()
                wait_until(lambda: [k["execution_state"] for k in asked("kernels")] == ["idle"], timeout=120)
                assert [session["path"] for session in asked("sessions")] == [f"notebooks/{name}"]

            opened(first.name)
            opened("01.ipynb")
        finally:
            connection.close()
            server.terminate()
            server.wait(timeout=120)
