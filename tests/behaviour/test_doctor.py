"""The doctor: what it finds in a whole store, and how it names damage."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest
from support.command_line import call, failing, run

from cqrs_lab import Command, Decider, Domain, Event, Lab, doctor, open_shop

ORDERS, EVENTS = 6, 1 + 6 * 3  # a customer, and six orders placed, paid and shipped


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
