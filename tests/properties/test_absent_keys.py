"""What memory says that no table has, no table has: whatever was stored before, and however it ended."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tallies import Add, open_lab

from cqrs_lab import Lab
from cqrs_lab.errors import StoreError
from cqrs_lab.store import absent_keys
from cqrs_lab.store.absent_keys import AbsentKeys
from cqrs_lab.store.database import Database

names = st.sampled_from([f"t-{n}" for n in range(8)])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), names),
        st.tuples(st.just("many"), st.lists(names, min_size=1, max_size=4)),
        st.tuples(st.just("table"), st.lists(names, min_size=1, max_size=4)),
        st.tuples(st.sampled_from(["undone", "reopen", "ask"]), names),
    ),
    max_size=25,
)


def add(name: str) -> Add:
    """A command for the stream of a name."""
    return Add(tally=name, n=1)


def facts(ids: list[str]) -> pa.Table:
    """A table of events for these streams."""
    times = pa.array([0] * len(ids), pa.timestamp("us", "UTC"))
    return pa.table({"id": ids, "type": ["Added"] * len(ids), "occurred_at": times, "n": [1] * len(ids)})


def check(lab: Lab) -> None:
    """Hold what memory says against the tables."""
    for table, absent in lab._log.heads.absent.items():
        for (key,) in lab._log.database.execute(f"SELECT {absent.column} FROM {table}"):
            assert not absent.lacks(key), f"{table} has {key}"


@settings(max_examples=int(os.environ.get("ABSENT", "60")))
@given(steps, st.sampled_from([2, 100_000]))
def test_a_key_that_is_there_is_never_said_to_be_absent(given_steps: list[tuple[str, object]], loose: int) -> None:
    """After commands, tables, what was undone, and opening again, each stored key is known or asked for."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(absent_keys, "_LOOSE", loose)
        path = Path(folder) / "tallies.duckdb"
        lab = open_lab(path)
        try:
            for number, (what, given_now) in enumerate(given_steps):
                sent = lab.head
                if what == "send":
                    lab.send(add(str(given_now)), command_id=f"c-{number}")
                elif what == "many":
                    lab.send_many([add(name) for name in given_now])  # type: ignore[attr-defined]
                elif what == "table":
                    lab.append_table("tally", facts(list(given_now)))  # type: ignore[call-overload]
                elif what == "reopen":
                    lab.close()
                    lab = open_lab(path)
                elif what == "undone":
                    with patch.context() as failing:
                        failing.setattr(Database, "_commit", refuse)
                        with pytest.raises(StoreError):
                            lab.send(add(f"u-{number}"), command_id=f"u-{number}")
                    assert lab.head == sent
                    lab.send(add(f"u-{number}"), command_id=f"u-{number}")
                check(lab)
            for name in [f"t-{n}" for n in range(8)]:
                before = len(lab.events(stream=f"tally/{name}"))
                assert lab.send(add(name)).version == before + 1
        finally:
            lab.close()


def refuse(database: Database) -> None:
    """A commit that fails."""
    raise StoreError("the disk is gone")


def test_what_is_sure_to_be_new_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command for a new stream, with an id of its own, asks no table for them; one that comes again does."""
    asked: list[str] = []
    execute = Database.execute

    def noting(self: Database, sql: str, params: object = ()) -> object:
        asked.append(sql)
        return execute(self, sql, params)  # type: ignore[arg-type]

    with open_lab() as lab:
        lab.send(add("a"), command_id="a")
        monkeypatch.setattr(Database, "execute", noting)
        first = lab.send(add("b"), command_id="b")
        assert not [sql for sql in asked if sql.startswith("SELECT")]
        assert lab.send(add("b"), command_id="b") == first
        assert [sql for sql in asked if sql.startswith("SELECT") and "FROM commands" in sql]


def test_keys_are_learnt_when_it_is_worth_it() -> None:
    """A table is read for its keys only after questions in vain for a thousandth of them; then they are known."""
    database = Database.open(":memory:", read_only=False, threads=1)
    try:
        database.execute("CREATE TABLE t AS SELECT 'k-' || i AS k FROM range(3_500) AS _(i)")
        absent = AbsentKeys("t", "k")
        known = []
        for _ in range(4):
            absent.asked_in_vain(database)
            known.append(absent.lacks("other"))
        assert known == [False, False, False, True]
        assert not any(absent.lacks(f"k-{i}") for i in range(3_500))
        absent.forget()
        assert not absent.lacks("other")
    finally:
        database.release()
