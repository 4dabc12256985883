"""The command line fills a store: generate and import-olist."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.command_line import call, failing, run

from cqrs_lab import doctor, open_shop


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


def test_generate_makes_the_same_shop_again(tmp_path: Path) -> None:
    """With --json, generate prints counts and a digest, equal for equal arguments; the store is sound."""
    arguments = ["--orders", 40, "--seed", 3, "--json"]
    seen = json.loads(run("generate", "--db", tmp_path / "a", *arguments).stdout)
    again = json.loads(call("generate", "--db", tmp_path / "b", *arguments).stdout)
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
    again = call("generate", "--db", db, "--preset", "tiny")
    assert (again.exit_code, again.stdout) == (1, "")
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
    said = call("import-olist", olist, "--db", db, "--json")
    assert (said.exit_code, said.stdout) == (1, "")
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
