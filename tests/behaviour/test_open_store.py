"""A log that was imported, by the command or in Python, is opened again without its domain."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import polars as pl
import pytest
from pydantic import Field
from support.command_line import call

from cqrs_lab import Domain, Event, Lab, Personal, ReadModel, Value, open_shop
from cqrs_lab.errors import NotAStore, StoreMissing
from cqrs_lab.workbench import Workload, generate, guess_columns, open_log, open_store

HEAD = "case_id,activity,timestamp,who,cost\n"
LINES = """c1,open,2026-01-05T10:00:00Z,Ann,1.50
c1,it's shut,2026-01-06T10:00:00Z,Bea,2.25
c2,open,2026-01-05T11:00:00Z,,0.00
"""
MODEL = ReadModel("costs", "case_id", "SELECT case_id, sum(cost) AS cost FROM case_events GROUP BY 1")


def log(folder: Path, head: str = HEAD, lines: str = LINES) -> Path:
    """Write a small log."""
    file = folder / "log.csv"
    file.write_text(head + lines)
    return file


def test_the_command_stores_what_open_log_stores(tmp_path: Path) -> None:
    """The command says which columns it took, what it read and how to go on; the store has the same events."""
    said = call("import-log", str(log(tmp_path)), "--db", str(tmp_path / "log.duckdb"))
    assert said.exit_code == 0, said.output
    assert "case: case_id, activity: activity, timestamp: timestamp" in said.stderr
    assert "3 events of 2 cases, 2 activities" in " ".join(said.stdout.split())
    assert "open_store" in said.stdout
    question = "SELECT case_id, type, occurred_at, recorded_at, who, cost FROM case_events ORDER BY position"
    with open_log(log(tmp_path)) as direct, open_store(tmp_path / "log.duckdb") as again:
        assert again.sql(question).fetchall() == direct.sql(question).fetchall()
        assert again.serve(MODEL).get("c1") == {"case_id": "c1", "cost": Decimal("3.75")}
        row = {"id": "c2", "type": "it's shut", "occurred_at": datetime.now(UTC), "cost": Decimal("1.00")}
        again.append_table("case", pl.DataFrame(row))
    with open_store(tmp_path / "log.duckdb", read_only=True) as again:
        assert again.head == 4
        assert again.serve("costs", "view").pl()["cost"].to_list() == [Decimal("3.75"), Decimal("1.00")]


def test_the_command_tells_programs_in_json(tmp_path: Path) -> None:
    """With --json it prints the report, and nothing else, on standard output."""
    options = ["--db", str(tmp_path / "log.duckdb"), "--category", "ticket", "--json", "--yes"]
    said = json.loads(call("import-log", str(log(tmp_path)), *options).stdout)
    assert (said["events"], said["cases"], said["head"]) == (3, 2, 3)
    assert said["columns"] == {"who": "who", "cost": "cost"}
    with open_store(tmp_path / "log.duckdb") as lab:
        assert lab.sql("SELECT count(*) FROM ticket_events WHERE ticket_id = 'c1'").fetchall() == [(2,)]


@pytest.mark.parametrize(
    ("options", "head", "said"),
    [
        (["--case", "nope"], HEAD, "no such column"),
        ([], "who,activity,timestamp,person,cost\n", "say which column is the case, as --case NAME; log.csv has who"),
        (["--zone", "Nowhere/At"], HEAD, "not a time zone"),
        (["--category", "not a name"], HEAD, "not a name"),
        (["--recorded", "nope"], HEAD, "no such column"),
    ],
)
def test_the_command_refuses_in_one_message(tmp_path: Path, options: list[str], head: str, said: str) -> None:
    """A wrong option is one error with exit code 1, and no store is left behind."""
    called = call("import-log", str(log(tmp_path, head)), "--db", str(tmp_path / "log.duckdb"), *options)
    assert called.exit_code == 1
    assert said in called.stderr
    assert called.stderr.count("Error: ") == 1
    assert not (tmp_path / "log.duckdb").exists()


def test_the_command_leaves_stores_and_missing_files_alone(tmp_path: Path) -> None:
    """It makes a new store out of a file that is there, or says why not."""
    called = call("import-log", str(tmp_path / "none.csv"), "--db", str(tmp_path / "log.duckdb"))
    assert (called.exit_code, "is not a file" in called.stderr) == (1, True)
    (tmp_path / "old.duckdb").write_text("mine")
    called = call("import-log", str(log(tmp_path)), "--db", str(tmp_path / "old.duckdb"))
    assert (called.exit_code, "name a new store" in called.stderr) == (1, True)
    assert (tmp_path / "old.duckdb").read_text() == "mine"


def test_only_the_head_of_a_file_is_read_to_guess(tmp_path: Path) -> None:
    """The columns are guessed from what a file calls them, whatever its rows are."""
    file = log(tmp_path, "Ticket_ID,Status,created_at,x\n", "not,even")
    guessed, names = guess_columns(file)
    assert guessed == {"case": "Ticket_ID", "activity": "Status", "timestamp": "created_at"}
    assert names == ["Ticket_ID", "Status", "created_at", "x"]


class Part(Value):
    """A part."""

    name: str
    sizes: list[int]


class Made(Event):
    """Everything that a field may be."""

    thing_id: str
    n: int
    part: Part
    parts: list[Part]
    price: Annotated[Decimal, Field(max_digits=9, decimal_places=3)]
    day: date
    at_: datetime
    token: UUID
    raw: bytes
    ok: bool
    share: float
    owner: Personal[str] = None


def test_every_kind_of_field_is_read_back(tmp_path: Path) -> None:
    """Numbers, money, times, structs, lists, bytes and what is personal have their types again, and can be erased."""
    given: dict[str, Any] = {
        "n": 1, "part": Part(name='a "b", c', sizes=[1, 2]), "parts": [Part(name="x", sizes=[])],
        "price": Decimal("1.250"), "day": date(2026, 1, 5), "at_": datetime(2026, 1, 5, tzinfo=UTC),
        "token": UUID(int=7), "raw": b"\x00", "ok": True, "share": 0.5, "owner": "Ann",
    }  # fmt: skip
    path = tmp_path / "things.duckdb"
    with Lab(path, domain=Domain.of_events("thing", key="thing_id", events=[Made])) as lab:
        lab.record("a", Made(thing_id="a", **given))
        before = lab.events().dicts()
    with open_store(path) as lab:
        assert lab.events().dicts() == before
        (recorded,) = lab.subscribe(timeout=0)
        assert recorded.event.model_dump() == Made(thing_id="a", **given).model_dump()
        lab.forget("a")
        assert lab.sql("SELECT owner, n FROM thing_events").fetchall() == [(None, 1)]


def test_a_shop_is_asked_without_its_domain(tmp_path: Path) -> None:
    """All categories of a store are there, and what was served in it is found by its name."""
    with open_shop(tmp_path / "shop.duckdb") as shop:
        generate(shop, Workload(orders=30))
        shop.serve("order_summary")
        rows, head = shop.serve("order_summary").rows().fetchall(), shop.head
    with open_store(tmp_path / "shop.duckdb") as lab:
        assert lab.head == head
        assert lab.serve("order_summary", "view").rows().fetchall() == rows


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    """A missing file makes no store, and another file is left alone."""
    with pytest.raises(StoreMissing, match="does not exist"):
        open_store(tmp_path / "none.duckdb")
    (tmp_path / "text").write_text("hello\n" * 1000)
    with pytest.raises(NotAStore):
        open_store(tmp_path / "text")
    assert not (tmp_path / "none.duckdb").exists()
