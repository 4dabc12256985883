"""The command line: help, wrong input, status, and stories."""

from __future__ import annotations

import json
import signal
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from support import Child, line, pay, place
from support.command_line import call, failing, run

from cqrs_lab import doctor, open_shop

COMMANDS = ["doctor", "notebooks", "generate", "import-olist", "serve", "export", "import-events", "status"]
ORDERS, EVENTS = 6, 1 + 6 * 3  # a customer, and six orders placed, paid and shipped


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_each_command_with_an_example(command: str) -> None:
    """--help says what a command does and shows a line to copy, within 80 columns."""
    said = call(command, "--help")
    assert said.exit_code == 0
    assert f"\n    cqrs-lab {command}" in said.stdout
    assert all(len(line) <= 80 for line in said.stdout.splitlines())


def test_help_lists_the_commands() -> None:
    """The program's own help names every command, and so does a call without arguments."""
    said = run("--help")
    assert (said.returncode, said.stderr) == (0, "")
    assert all(f"\n  {command} " in said.stdout for command in COMMANDS)
    assert all(command in call().output for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments", [["status"], ["status", "--bogus"], ["statu"], ["doctor", "--db"], ["notebooks", "--port", "x"]]
)
def test_wrong_arguments_are_refused_in_one_message(arguments: list[str]) -> None:
    """A wrong call exits with 2, says what was wrong on stderr and nothing on stdout."""
    said = call(*arguments)
    assert said.exit_code == 2
    assert said.stdout == ""
    assert said.stderr.count("Error: ") == 1


@pytest.mark.parametrize("command", ["status", "doctor"])
@pytest.mark.parametrize("kind", ["missing", "folder", "text", "other database", "empty database"])
def test_what_is_no_store_is_refused_and_left_alone(command: str, kind: str, tmp_path: Path) -> None:
    """A path without a store gives one line on stderr that names it, exit code 1, and the file stays as it is."""
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("order_id,total\n" * 100)
    elif kind != "missing":
        with duckdb.connect(str(path)) as connection:
            if kind == "other database":
                connection.execute("CREATE TABLE mine AS SELECT 42 AS answer")
    before = path.read_bytes() if path.is_file() else None
    said = call(command, "--db", path, "--json")
    assert (said.exit_code, said.stdout) == (1, "")
    (line,) = said.stderr.splitlines()
    assert line.startswith("Error: ")
    assert str(path) in line
    assert (path.read_bytes() if path.is_file() else None) == before


def test_an_error_is_no_traceback(tmp_path: Path) -> None:
    """The real program, too, ends with a message and an exit code, not with a traceback."""
    said = run("status", "--db", tmp_path / "none.duckdb")
    assert said.returncode == 1
    assert said.stdout == ""
    assert said.stderr.startswith("Error: ")
    assert "Traceback" not in said.stderr


def test_a_store_held_by_another_process_is_named_with_its_holder(store: Path, child: Child) -> None:
    """While a notebook has the store open the message says which process that is."""
    child.run(f"lab = open_shop({str(store)!r})")
    said = run("status", "--db", store)
    assert said.returncode == 1
    assert f"process {child.pid}" in said.stderr
    assert "lab.close()" in said.stderr


def test_status_tells_what_a_store_holds(store: Path) -> None:
    """With --json, status gives counts, times and lag; the store is only read."""
    before = store.read_bytes()
    said = run("status", "--db", store, "--json")
    assert (said.returncode, said.stderr) == (0, "")
    seen = json.loads(said.stdout)
    assert seen["head"] == EVENTS
    categories = {c["category"]: (c["events"], c["streams"]) for c in seen["categories"]}
    none = (0, 0)
    others = {"fulfilment": none, "payment": none, "product": none}
    assert categories == {"customer": (1, 1), "order": (EVENTS - 1, ORDERS), **others}
    assert seen["first_recorded"] == seen["first_occurred"] == "2025-01-01T00:00:00+00:00"
    assert seen["last_recorded"] > seen["first_recorded"]
    behind = {(s["model"], s["served_as"]): s["events_behind"] for s in seen["servings"]}
    assert behind[("order_summary", "projection")] == 0
    assert behind[("order_summary", "materialized")] == 1
    assert behind[("daily_orders", "view")] == 0
    late = next(s for s in seen["servings"] if s["events_behind"])
    assert late["seconds_behind"] > 1_000
    assert {s["state"] for s in seen["servings"]} == {"ok"}
    assert store.read_bytes() == before


def test_status_for_people_fits_a_terminal(store: Path) -> None:
    """Piped, the lines have no colour codes and at most 80 columns."""
    said = run("status", "--db", store, NO_COLOR="1")
    assert said.returncode == 0
    assert f"{EVENTS} events in {ORDERS + 1} streams" in " ".join(said.stdout.split())
    assert "order_summary" in said.stdout
    assert "\x1b" not in said.stdout
    assert all(len(line) <= 80 for line in said.stdout.splitlines())


def test_status_of_a_store_without_events(tmp_path: Path) -> None:
    """A store that was only made has a head of 0 and no times."""
    open_shop(tmp_path / "new.duckdb").close()
    assert call("status", "--db", tmp_path / "new.duckdb").exit_code == 0
    seen = json.loads(call("status", "--db", tmp_path / "new.duckdb", "--json").stdout)
    assert (seen["head"], seen["last_recorded"], seen["servings"]) == (0, None, [])


def test_a_store_is_read_after_its_writer_was_killed(store: Path, child: Child) -> None:
    """What a killed process had acknowledged shows in status, and the doctor finds the store whole."""
    child.tell(f"lab = open_shop({str(store)!r}); lab.send(DeliverOrder(order_id='o-1')); die()")
    assert child.wait() == -signal.SIGKILL
    assert store.with_name(f"{store.name}.wal").exists()
    assert json.loads(call("status", "--db", store, "--json").stdout)["head"] == EVENTS + 1
    assert failing(doctor.scan(store)) == {}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store with one order that was placed and paid under one correlation id."""
    path = tmp_path_factory.mktemp("trace") / "shop.duckdb"
    with open_shop(path, threads=1) as lab:
        lab.send(place("o-1", line(price="9.99")), correlation_id="story-1")
        lab.send(pay("o-1", "9.99"), correlation_id="story-1")
    return path


def test_trace_tells_a_story(told: Path) -> None:
    """As text each step is one line however long; with --json each is an object whose times carry their offset."""
    said = call("trace", "story-1", "--db", told)
    assert said.exit_code == 0
    lines = said.stdout.splitlines()
    marks = ["▶ PlaceOrder order/o-1", "● OrderPlaced order/o-1", "≈ order_summary o-1"]
    marks += ["▶ PayOrder order/o-1", "● OrderPaid order/o-1", "≈ order_summary o-1", "≈ daily_sales"]
    assert len(lines) == len(marks)
    for told_line, mark in zip(lines, marks, strict=True):
        assert mark in told_line
    rows = json.loads(call("trace", "story-1", "--db", told, "--json").stdout)
    assert [row["kind"] for row in rows] == ["command", "event", "row", "command", "event", "row", "row"]
    assert all(datetime.fromisoformat(row["at"]).utcoffset() == timedelta(0) for row in rows)
    assert rows[-2]["detail"].startswith("status PENDING → PAID, paid 0.00 → 9.99, version 1 → 2")


def test_trace_says_what_is_wrong(told: Path, tmp_path: Path) -> None:
    """An id that nothing carries and a missing store give one line and exit code 1; with --json the id gives []."""
    for arguments in (["no-story", "--db", told], ["story-1", "--db", tmp_path / "none.duckdb"]):
        said = call("trace", *arguments)
        assert (said.exit_code, said.stdout) == (1, "")
        (line,) = said.stderr.splitlines()
        assert line.startswith("Error: ")
        assert str(arguments[2]) in line
    assert not (tmp_path / "none.duckdb").exists()
    said = call("trace", "no-story", "--db", told, "--json")
    assert (said.exit_code, json.loads(said.stdout)) == (0, [])
    assert call("trace", "--db", told).exit_code == 2
