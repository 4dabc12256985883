"""The command line: what people and scripts see, and what the doctor finds in a damaged store."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner, Result

from cqrs_lab import Command, Decider, Domain, Event, Lab, doctor, open_shop
from cqrs_lab.cli import app
from cqrs_lab.shop import OrderLine, PayOrder, PlaceOrder, RegisterCustomer, ShipOrder

PROGRAM = Path(sys.executable).with_name("cqrs-lab")
COMMANDS = ["doctor", "notebooks", "generate", "import-olist", "status"]
ORDERS, EVENTS = 6, 1 + 6 * 3  # a customer, and six orders placed, paid and shipped


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a small store with every way of serving; the materialized tables are one event behind."""
    path = tmp_path_factory.mktemp("store") / "shop.duckdb"
    start = datetime(2025, 1, 1, tzinfo=UTC)
    ticks = iter(start + timedelta(minutes=n) for n in range(1_000))
    with open_shop(path, threads=1, clock=lambda: next(ticks)) as lab:
        lab.send(RegisterCustomer(customer_id="c-1", name="Ada", email="ada@example.org"))
        for number in range(ORDERS):
            order_id = f"o-{number}"
            line = OrderLine(product_id="p-1", quantity=2, unit_price=Decimal("9.50"))
            lab.send(PlaceOrder(order_id=order_id, customer_id="c-1", lines=[line]))
            lab.send(PayOrder(order_id=order_id, amount=Decimal("19.00")))
            if number == ORDERS - 1:
                for way in ("view", "materialized", "projection"):
                    lab.serve("order_summary", way)
                    lab.serve("daily_orders", way)
            lab.send(ShipOrder(order_id=order_id, tracking_number="t-1"))
        lab.serve("order_summary").catch_up()
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """Copy that store, to be damaged."""
    return Path(shutil.copy(whole, tmp_path / "shop.duckdb"))


@pytest.fixture
def olist(tmp_path: Path) -> Path:
    """Make a folder like the public one, with two orders and no other files."""
    folder = tmp_path / "olist"
    folder.mkdir()
    (folder / "olist_orders_dataset.csv").write_text(
        '"order_id","customer_id","order_status","order_purchase_timestamp","order_approved_at",'
        '"order_delivered_carrier_date","order_delivered_customer_date","order_estimated_delivery_date"\n'
        '"a","k","delivered","2018-01-01 10:00:00","2018-01-01 11:00:00","2018-01-02 10:00:00",'
        '"2018-01-05 10:00:00","2018-01-09 00:00:00"\n'
        '"b","k","delivered","2018-01-03 10:00:00","2018-01-04 11:00:00","2018-01-04 10:00:00",'
        ',"2018-01-09 00:00:00"\n'
    )
    return folder


# -- help and wrong input --------------------------------------------------------------------------------------------


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


def test_version_names_what_runs() -> None:
    """--version gives the versions that a bug report needs."""
    said = run("--version")
    assert said.returncode == 0
    assert said.stdout.startswith("cqrs-lab 0.")
    assert f"DuckDB {duckdb.__version__}" in said.stdout


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


def test_a_store_held_by_another_process_is_named_with_its_holder(store: Path) -> None:
    """While a notebook has the store open the message says which process that is."""
    code = (
        "import sys; from cqrs_lab import open_shop; lab = open_shop(sys.argv[1]); print('open', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        said = run("status", "--db", store)
        holder.communicate("\n", timeout=30)
    assert said.returncode == 1
    assert f"process {holder.pid}" in said.stderr
    assert "lab.close()" in said.stderr


# -- status ----------------------------------------------------------------------------------------------------------


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
    assert f"{EVENTS} events in {ORDERS + 1} streams" in said.stdout
    assert "order_summary" in said.stdout
    assert "\x1b" not in said.stdout
    assert all(len(line) <= 80 for line in said.stdout.splitlines())


def test_status_of_a_store_without_events(tmp_path: Path) -> None:
    """A store that was only made has a head of 0 and no times."""
    open_shop(tmp_path / "new.duckdb").close()
    assert call("status", "--db", tmp_path / "new.duckdb").exit_code == 0
    seen = json.loads(call("status", "--db", tmp_path / "new.duckdb", "--json").stdout)
    assert (seen["head"], seen["last_recorded"], seen["servings"]) == (0, None, [])


def test_a_store_is_read_after_its_writer_was_killed(store: Path) -> None:
    """What a killed process had acknowledged shows in status, and the doctor finds the store whole."""
    code = (
        "import sys, os, signal; from cqrs_lab import open_shop; from cqrs_lab.shop import DeliverOrder\n"
        "lab = open_shop(sys.argv[1]); lab.send(DeliverOrder(order_id='o-1')); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(store)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert store.with_name(f"{store.name}.wal").exists()
    assert json.loads(call("status", "--db", store, "--json").stdout)["head"] == EVENTS + 1
    assert failing(doctor.scan(store)) == {}


# -- doctor ----------------------------------------------------------------------------------------------------------


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


def test_the_doctor_finds_a_whole_store_whole(store: Path) -> None:
    """With --db, doctor reads every table, compares every serving, and ends with a line that says all holds."""
    said = run("doctor", "--db", store)
    assert (said.returncode, said.stderr) == (0, "")
    assert "FAIL" not in said.stdout
    assert said.stdout.splitlines()[-1].endswith("checks hold.")
    assert all(len(line) <= 80 for line in said.stdout.splitlines())
    findings = {finding.check: finding.detail for finding in doctor.scan(store)}
    assert findings["table order_events"] == f"{EVENTS - 1} rows, every column read"
    assert findings["positions"] == f"1 to {EVENTS} without a hole"
    assert findings["order_summary as projection"] == f"equal to its SELECT at position {EVENTS} of {EVENTS}"
    assert findings["order_summary as materialized"] == f"equal to its SELECT at position {EVENTS - 1} of {EVENTS}"


def test_the_doctor_fails_a_store_with_a_missing_event(store: Path) -> None:
    """A deleted event makes doctor exit with 1, say where it was and what to do next."""
    with duckdb.connect(str(store)) as connection:
        connection.execute("DELETE FROM order_events WHERE position = 6")
    said = run("doctor", "--db", store)
    assert said.returncode == 1
    assert "positions are missing: 6" in " ".join(said.stdout.split())
    assert "Next: Restore a backup" in said.stdout
    assert "checks failed." in said.stdout.splitlines()[-1]


DAMAGE = {
    "a hole in the middle": ("DELETE FROM order_events WHERE position = 6", "positions", "missing: 6"),
    "a hole of several": ("DELETE FROM order_events WHERE position IN (6, 7)", "positions", "missing: 6 to 7"),
    "a version skipped": ("UPDATE order_events SET version = 9 WHERE position = 4", "versions", "order/o-0 before"),
    "a position used twice": (
        "UPDATE customer_events SET position = 6",
        "positions",
        "missing: 1; positions occur twice: 6",
    ),
    "events without a stream": ("DELETE FROM streams WHERE stream = 'order/o-1'", "streams of order", "no stream has"),
    "a stream without events": (
        "INSERT INTO streams VALUES ('order/x', 99, 'order', 'x')",
        "streams of order",
        "no events",
    ),
    "one number for two streams": (
        "UPDATE streams SET stream_no = 2 WHERE stream = 'order/o-1'",
        "streams of order",
        "given to 2",
    ),
    "an event in another's stream": (
        "UPDATE order_events SET order_id = 'o-2' WHERE position = 6",
        "streams of order",
        "of o-2 lies in order/o-1",
    ),
    "time going back": (
        "UPDATE order_events SET recorded_at = '2020-01-01' WHERE position = 6",
        "recorded_at",
        "position 6",
    ),
    "an event nobody declares": (
        "UPDATE order_events SET type = 'OrderEaten' WHERE position = 6",
        "events of order",
        "OrderEaten v2",
    ),
    "an event from the future": (
        "UPDATE order_events SET schema_version = 7 WHERE position = 6",
        "events of order",
        "v7",
    ),
    "a command pointing nowhere": ("UPDATE commands SET last_position = 999", "commands", "not where"),
    "the last event gone": (f"DELETE FROM order_events WHERE position = {EVENTS}", "commands", "not where"),
    "a projection beyond the log": ("UPDATE servings SET position = 99", "order_summary as projection", "claims"),
    "a projection of another SELECT": (
        "UPDATE servings SET fingerprint = 'x'",
        "daily_orders as projection",
        "another SELECT",
    ),
    "a projection with a wrong row": (
        "UPDATE projection.order_summary SET status = 'LOST' WHERE order_id = 'o-1'",
        "order_summary as projection",
        "lacks 1 rows",
    ),
    "a materialized table short of a row": (
        "DELETE FROM materialized.order_summary WHERE order_id = 'o-1'",
        "order_summary as materialized",
        "lacks 1 rows",
    ),
    "a serving without its table": (
        "DROP TABLE projection.daily_orders",
        "daily_orders as projection",
        "does not exist",
    ),
    "a table gone": ("DROP TABLE commands", "table commands", "does not exist"),
    "another format": ("UPDATE store SET value = '99' WHERE name = 'format'", "format", "format 99"),
}


@pytest.mark.parametrize(("sql", "check", "said"), DAMAGE.values(), ids=DAMAGE)
def test_the_doctor_names_the_damage(store: Path, sql: str, check: str, said: str) -> None:
    """Each thing that cannot be in a store written by this package fails the check that is about it."""
    with duckdb.connect(str(store)) as connection:
        connection.execute(sql)
    found = failing(doctor.scan(store))
    assert said in found.get(check, ""), found


def test_the_doctor_compares_a_kept_history_with_the_past(store: Path) -> None:
    """A history is whole when its rows at the end, and half the way there, are those of the SELECT."""
    with open_shop(store) as lab:
        lab.serve("order_summary", keep_history=True)
    findings = {finding.check: finding for finding in doctor.scan(store)}
    assert findings["order_facts as history"].status == "OK"
    assert findings["order_facts as history"].detail.startswith(f"equal to its SELECT at position {EVENTS // 2} and ")
    with duckdb.connect(str(store)) as connection:
        there = f"_from <= {EVENTS // 2} AND _to > {EVENTS // 2}"
        connection.execute(f"UPDATE history.order_facts SET paid = 1 WHERE order_id = 'o-0' AND {there}")
        connection.execute(f"UPDATE history.customer_contacts SET _to = {EVENTS}")
    found = failing(doctor.scan(store))
    assert f"at position {EVENTS // 2} it lacks 1 rows" in found["order_facts as history"]
    assert f"at position {EVENTS} it lacks 1 rows" in found["customer_contacts as history"]


def test_the_doctor_notices_a_flipped_byte_in_any_block(store: Path) -> None:
    """One wrong byte is found wherever it lies, in an index or a table that no other check needs."""
    whole = store.read_bytes()
    blocks = (len(whole) - 3 * 4096) // 262_144
    assert blocks >= 3
    for block in range(blocks):
        damaged = bytearray(whole)
        damaged[3 * 4096 + block * 262_144 + 100] ^= 0xFF
        store.write_bytes(damaged)
        assert failing(doctor.scan(store)), f"block {block} of {blocks}"
        assert store.read_bytes() == damaged


@pytest.mark.parametrize("left", [0, 6_000, 20_000, 0.5])
def test_the_doctor_says_that_a_file_is_cut_short(store: Path, left: float) -> None:
    """A truncated store is a FAIL, and the file stays as it is."""
    data = store.read_bytes()
    store.write_bytes(data[: left if isinstance(left, int) else int(len(data) * left)])
    before = store.read_bytes()
    assert failing(doctor.scan(store))
    assert store.read_bytes() == before


def test_the_doctor_reads_a_store_of_another_domain(tmp_path: Path) -> None:
    """A store of anybody's own domain is checked but for what only its own program can tell, which is noted."""

    class OpenAccount(Command):
        account_id: str

    class AccountOpened(Event):
        account_id: str

    accounts = Decider(
        category="account",
        key="account_id",
        initial=None,
        decide=lambda command, state: [AccountOpened(account_id=command.account_id)],
        evolve=lambda state, event: state,
        commands=[OpenAccount],
        events=[AccountOpened],
    )
    with Lab(tmp_path / "bank.duckdb", domain=Domain(deciders=[accounts])) as lab:
        lab.send(OpenAccount(account_id="a-1"))
    findings = doctor.scan(tmp_path / "bank.duckdb")
    assert failing(findings) == {}
    assert [finding.check for finding in findings if finding.status == "NOTE"] == ["events of account"]
    assert json.loads(call("status", "--db", tmp_path / "bank.duckdb", "--json").stdout)["head"] == 1


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


# -- generate --------------------------------------------------------------------------------------------------------


def test_generate_makes_the_same_shop_again(tmp_path: Path) -> None:
    """With --json, generate prints counts and a digest, equal for equal arguments; the store is sound."""
    arguments = ["--orders", 40, "--seed", 3, "--json"]
    seen, again = (json.loads(run("generate", "--db", tmp_path / name, *arguments).stdout) for name in ("a", "b"))
    assert seen == again | {"store": str(tmp_path / "a")}
    assert (seen["orders"], seen["customers"], seen["head"]) == (40, 10, seen["events"])
    assert failing(doctor.scan(tmp_path / "a")) == {}
    other = json.loads(call("generate", "--db", tmp_path / "c", *arguments, "--seed", 4).stdout)
    assert other["digest"] != seen["digest"]


def test_generate_fills_a_store_twice_under_another_prefix(tmp_path: Path) -> None:
    """A preset is told by name; a second shop needs a prefix of its own, which the refusal says in one line."""
    db = tmp_path / "shop.duckdb"
    said = call("generate", "--db", db, "--preset", "tiny")
    assert said.exit_code == 0
    assert "300 orders of 75 customers, 1,126 events" in " ".join(said.stdout.split())
    assert "cqrs-lab status" in said.stdout
    again = run("generate", "--db", db, "--preset", "tiny")
    assert (again.returncode, again.stdout) == (1, "")
    (line,) = again.stderr.splitlines()
    assert "choose another one, such as 'b-'" in line
    more = json.loads(call("generate", "--db", db, "--preset", "tiny", "--prefix", "b-", "--json").stdout)
    assert more["head"] == 2 * more["events"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--orders", 0], "orders"), (["--seed", -1], "seed"), (["--prefix", "a b"], "prefix"),
        (["--preset", "huge"], "preset: there are tiny, workshop, million, ten_million"),
    ],
)  # fmt: skip
def test_generate_refuses_nonsense(arguments: list[Any], named: str, tmp_path: Path) -> None:
    """What makes no workload is refused in one line that names it, before a store is made."""
    said = call("generate", "--db", tmp_path / "x.duckdb", *arguments)
    assert (said.exit_code, said.stdout) == (1, "")
    (line,) = said.stderr.splitlines()
    assert line.startswith(f"Error: Workload was refused: {named}")
    assert not (tmp_path / "x.duckdb").exists()


# -- import-olist ----------------------------------------------------------------------------------------------------


def test_import_olist_stores_a_shop_and_counts_what_is_odd(olist: Path, tmp_path: Path) -> None:
    """With --json, import-olist prints counts and anomalies by kind, and the events are in the store."""
    db = tmp_path / "olist.duckdb"
    said = run("import-olist", olist, "--db", db, "--json")
    assert (said.returncode, said.stderr) == (0, "")
    seen = json.loads(said.stdout)
    assert seen["orders"] == 2
    assert seen["events"]["OrderPlaced"] == 2
    assert seen["anomalies"]["shipped_before_paid"] == 1
    assert seen["anomalies"]["delivered_without_date"] == 1
    assert seen["head"] == sum(seen["events"].values())
    assert json.loads(call("status", "--db", db, "--json").stdout)["first_occurred"] == "2018-01-01T10:00:00+00:00"
    assert failing(doctor.scan(db)) == {}


def test_import_olist_for_people(olist: Path, tmp_path: Path) -> None:
    """Without --json the counts are tables within 80 columns, and the next command is named."""
    said = call("import-olist", olist, "--db", tmp_path / "s.duckdb", "--zone", "America/Sao_Paulo")
    assert said.exit_code == 0
    assert "shipped_before_paid" in said.stdout
    assert "cqrs-lab status" in said.stdout
    with open_shop(tmp_path / "s.duckdb", read_only=True) as lab:
        assert lab.events().pl()["occurred_at"].min() == datetime(2018, 1, 1, 12, tzinfo=UTC)


def test_import_olist_twice_is_refused_in_one_line(olist: Path, tmp_path: Path) -> None:
    """A second import of the same folder stores nothing and says so without a traceback."""
    db = tmp_path / "olist.duckdb"
    assert call("import-olist", olist, "--db", db).exit_code == 0
    head = json.loads(call("status", "--db", db, "--json").stdout)["head"]
    said = run("import-olist", olist, "--db", db, "--json")
    assert (said.returncode, said.stdout) == (1, "")
    (line,) = said.stderr.splitlines()
    assert line.startswith("Error: ")
    assert json.loads(call("status", "--db", db, "--json").stdout)["head"] == head


@pytest.mark.parametrize("wrong", ["no folder", "a file", "an empty folder", "zone", "store is a folder"])
def test_import_olist_says_what_is_wrong(wrong: str, olist: Path, tmp_path: Path) -> None:
    """A wrong folder, zone or store gives one line on stderr and exit code 1."""
    arguments: dict[str, list[Any]] = {
        "no folder": [tmp_path / "none", "--db", tmp_path / "x.duckdb"],
        "a file": [olist / "olist_orders_dataset.csv", "--db", tmp_path / "x.duckdb"],
        "an empty folder": [tmp_path, "--db", tmp_path / "x.duckdb"],
        "zone": [olist, "--db", tmp_path / "x.duckdb", "--zone", "Mars/Olympus"],
        "store is a folder": [olist, "--db", tmp_path],
    }
    said = call("import-olist", *arguments[wrong])
    assert (said.exit_code, said.stdout) == (1, "")
    (line,) = said.stderr.splitlines()
    assert line.startswith("Error: ")


# -- notebooks -------------------------------------------------------------------------------------------------------


def test_notebooks_says_when_there_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Installed without the course, the command says where the notebooks are to be had."""
    monkeypatch.setattr(doctor, "FIRST_NOTEBOOK", tmp_path / "notebooks" / "00_start_here.ipynb")
    said = call("notebooks", "--no-browser")
    assert said.exit_code == 1
    assert "make lab" in said.stderr


def test_notebooks_opens_jupyterlab_at_the_first_one(tmp_path: Path) -> None:
    """JupyterLab listens on the given port and its address leads to the first notebook."""
    first = tmp_path / "notebooks" / "00_start_here.ipynb"
    first.parent.mkdir()
    first.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    code = (
        "import pathlib, sys; from cqrs_lab import cli, doctor\n"
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
        try:
            deadline = time.monotonic() + 60
            while f":{port}/lab/tree/notebooks/00_start_here.ipynb" not in log.read_text():
                assert time.monotonic() < deadline, log.read_text()
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            while True:  # the address is printed shortly before the server answers there
                try:
                    connection.request("GET", "/api/contents/notebooks/00_start_here.ipynb?content=0&token=secret")
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.1)
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["name"]) == (200, first.name)
            connection.close()
        finally:
            server.terminate()
            server.wait(timeout=30)


# -- trace -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store with one order that was placed and paid under one correlation id."""
    path = tmp_path_factory.mktemp("trace") / "shop.duckdb"
    line = OrderLine(product_id="p-1", quantity=1, unit_price=Decimal("9.99"))
    with open_shop(path, threads=1) as lab:
        lab.send(PlaceOrder(order_id="o-1", customer_id="c-1", lines=(line,)), correlation_id="story-1")
        lab.send(PayOrder(order_id="o-1", amount=Decimal("9.99")), correlation_id="story-1")
    return path


def test_trace_tells_a_story(told: Path) -> None:
    """As text each step is one line however long; with --json each is an object whose times carry their offset."""
    said = call("trace", "story-1", "--db", told)
    assert said.exit_code == 0
    lines = said.stdout.splitlines()
    marks = ["▶ PlaceOrder order/o-1", "● OrderPlaced order/o-1", "≈ order_summary o-1"]
    marks += ["▶ PayOrder order/o-1", "● OrderPaid order/o-1", "≈ order_summary o-1", "≈ daily_sales"]
    assert len(lines) == len(marks)
    for line, mark in zip(lines, marks, strict=True):
        assert mark in line
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
