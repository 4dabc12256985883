"""Copies of a store: whole, without what was forgotten, in nobody else's place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import place
from support.people import LATER, OTHER, fill, people, shown

from cqrs_lab import Lab, open_shop
from cqrs_lab.errors import ConcurrencyError, CqrsLabError, StoreError, StoreMissing
from cqrs_lab.shop import RegisterCustomer, RenameCustomer


@pytest.fixture(params=["file", "memory"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A lab with two customers, on disk and in memory."""
    with people(tmp_path / "shop.duckdb" if request.param == "file" else ":memory:") as made:
        fill(made)
        yield made


def test_a_copy_is_a_store(tmp_path: Path, lab: Lab) -> None:
    """A copy goes on by itself: commands are remembered, versions guarded, keys and indexes there, both apart."""
    path = tmp_path / "copy.duckdb"
    lab.backup(path)
    indexes = "SELECT table_name, index_name, sql FROM duckdb_indexes() WHERE database_name = current_database()"
    keys = """SELECT table_name, constraint_type, constraint_text FROM duckdb_constraints()
              WHERE schema_name IN ('main', 'projection') AND database_name = current_database() ORDER BY ALL"""
    with people(path) as copy:
        for question in (f"{indexes} ORDER BY ALL", keys):
            assert copy._log.database.execute(question) == lab._log.database.execute(question)
        again = RegisterCustomer(customer_id="c-2", name="Charles", email=OTHER)
        assert copy.send(again, command_id="k-2").position == 2
        with pytest.raises(ConcurrencyError):
            copy.send(RenameCustomer(customer_id="c-2", name="B"), expected_version=1)
        assert copy.send(place("o-9")).position == 7
        assert copy.forget("c-1") == 3
        assert lab.head == 6
        assert shown(lab, LATER)


def test_who_may_only_read_a_store_may_copy_it(tmp_path: Path) -> None:
    """A lab that is open read-only writes a copy that can be written to, and its own file stays as it was."""
    path, copied = tmp_path / "shop.duckdb", tmp_path / "copy.duckdb"
    with open_shop(path) as lab:
        lab.send(place("o-1"))
    before = path.read_bytes()
    with open_shop(path, read_only=True) as lab:
        lab.backup(copied)
        assert lab.events(stream="order/o-1").pl()["position"].to_list() == [1]  # it goes on reading
    assert sorted(tmp_path.iterdir()) == [copied, path]
    with open_shop(copied) as copy:
        assert copy.send(place("o-2")).position == 2
    assert path.read_bytes() == before


def test_a_copy_takes_nobodys_place(tmp_path: Path, lab: Lab) -> None:
    """A path where something is, the store's own, a folder, or one in no folder is refused and left as it is."""
    there = tmp_path / "there"
    there.write_text("mine")
    paths: list[tuple[Any, type[StoreError]]] = [(there, StoreError), (tmp_path, StoreError)]
    paths += [(tmp_path / "none" / "copy.duckdb", StoreMissing)]
    paths += [] if lab.path == ":memory:" else [(lab.path, StoreError)]
    before = sorted(tmp_path.iterdir())
    for path, error in paths:
        with pytest.raises(error):
            lab.backup(path)
    assert there.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == before
    assert lab.send(place("o-2")).position == 7


def test_a_file_beside_the_copy_is_nobodys_business(tmp_path: Path, lab: Lab) -> None:
    """A file of somebody else's beside the copy, whatever it is called, stays as it is."""
    path = tmp_path / "copy.duckdb"
    beside = tmp_path / "copy.duckdb.part"
    beside.write_text("mine")
    try:
        lab.backup(path)
    except CqrsLabError:
        assert not path.exists()
    assert beside.read_text() == "mine"
