"""Cut, flipped, mixed up and foreign files: a prefix or an error by name, never a wrong answer."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from support import batch, place
from support.stores import entries, untouched

from cqrs_lab import Lab, open_shop
from cqrs_lab.errors import NotAStore, ReadOnlyStore, StoreCorrupt, StoreError, StoreMissing
from cqrs_lab.shop import daily_orders, order_summary
from cqrs_lab.store import wal


def test_a_log_cut_anywhere_holds_a_prefix(logged: SimpleNamespace, tmp_path: Path) -> None:
    """A log cut at any byte, as a kill leaves it, opens with the commits that were whole, and takes new ones."""
    borders = entries(logged.log)
    cuts = {border + step for border in borders for step in (0, 1, 16)} | set(range(0, len(logged.log), 97))
    cuts = {cut for cut in cuts if cut <= len(logged.log)}
    # Every commit and its neighbours; among the rest a sample, drawn anew for every length of the log.
    near = {size + step for size, _ in logged.commits for step in (-1, 0)}
    sample = random.Random(len(logged.log)).sample(sorted(cuts - near), 14)
    path = tmp_path / "shop.duckdb"
    for cut in sorted({*(n for n in near if n <= len(logged.log)), *sample}):
        path.write_bytes(logged.main)
        wal.logs_of(path)[0].write_bytes(logged.log[:cut])
        with open_shop(path, threads=1) as lab:
            whole = max((head for size, head in logged.commits if size <= cut), default=0)
            assert lab.head == whole, cut
            assert [e[0] for e in lab.events()] == list(range(1, whole + 1)), cut
            if cut % 5 == 0:
                assert lab.send(place("new")).position == whole + 1
        if cut % 5 == 0:
            with open_shop(path, threads=1) as lab:
                assert lab.head == whole + 1
        wal.logs_of(path)[0].unlink(missing_ok=True)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_flipped_byte_in_the_log_is_refused(logged: SimpleNamespace, tmp_path: Path, read_only: bool) -> None:
    """A byte that changed anywhere in the log is StoreCorrupt, and the files stay as they are."""
    path = tmp_path / "shop.duckdb"
    path.write_bytes(logged.main)
    log = wal.logs_of(path)[0]
    borders = entries(logged.log)
    places = {*range(borders[0]), *range(borders[0], len(logged.log), 577)}
    # The length of an entry is what DuckDB believes without a checksum: of the first, a middle and the last ones.
    places |= {border + i for border in (*borders[:2], *borders[30:32], *borders[-5:-1]) for i in (0, 3, 7, 8, 15)}
    for at in sorted(places)[read_only::2]:
        damaged = bytearray(logged.log)
        damaged[at] ^= 1 << (at % 8)
        log.write_bytes(damaged)
        with untouched(tmp_path), pytest.raises(StoreCorrupt) as refused:
            open_shop(path, threads=1, read_only=read_only)
        assert len(str(refused.value)) < 800, at
        assert "Stack Trace" not in str(refused.value)


def test_a_log_of_something_else_is_refused(logged: SimpleNamespace, store: Path, tmp_path: Path) -> None:
    """Garbage, or the log of another store, in the place of the log is StoreCorrupt, and the files stay."""
    log = wal.logs_of(store)[0]
    for content in (random.Random(5).randbytes(5000), b"\0" * 5000, b"hello", logged.log, logged.log[:60]):
        log.write_bytes(content)
        for read_only in (False, True):
            with untouched(store.parent), pytest.raises(StoreCorrupt, match="does not begin as a log of this"):
                open_shop(store, read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_log_without_its_beginning_is_refused(logged: SimpleNamespace, tmp_path: Path, read_only: bool) -> None:
    """A log whose first transactions are gone, the rest intact, does not fit its file and is StoreCorrupt."""
    path = tmp_path / "shop.duckdb"
    path.write_bytes(logged.main)
    wal.logs_of(path)[0].write_bytes(logged.log[: entries(logged.log)[0]] + logged.log[logged.commits[0][0] :])
    with untouched(tmp_path), pytest.raises(StoreCorrupt, match="cannot be opened"):
        open_shop(path, read_only=read_only)


def test_the_commit_mark_is_the_one_duckdb_writes(logged: SimpleNamespace) -> None:
    """The bytes by which damage is told from a torn end are those that this version of DuckDB ends a commit with."""
    for size, _ in logged.commits:
        assert logged.log[:size].endswith(b"\x05" + bytes(7) + wal._COMMIT)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_flipped_byte_in_the_file_is_never_a_wrong_answer(store: Path, read_only: bool) -> None:
    """A byte that changed in the file is StoreCorrupt at opening or at reading, or lies where nothing reads."""
    original = store.read_bytes()

    def answers(lab: Lab) -> list[Any]:
        ways = [
            lab.serve(m, a).rows().fetchall() for m in (order_summary, daily_orders) for a in ("projection", "view")
        ]
        return [lab.events().fetchall(), *ways]

    with open_shop(store, threads=1, read_only=True) as lab:
        expected = answers(lab)
    spots = random.Random(7 + read_only)
    places = [8, 130, 4100, 4110, 8200, *(spots.randrange(12_288, len(original)) for _ in range(14))]
    refused = 0
    for at in places:
        with store.open("r+b") as stream:
            stream.seek(at)
            stream.write(bytes([original[at] ^ 0x10]))
        with untouched(store.parent):
            try:
                with open_shop(store, threads=1, read_only=read_only) as lab:
                    assert answers(lab) == expected, at
            except StoreCorrupt:
                refused += 1
        store.write_bytes(original)
    assert refused > 6


@pytest.mark.parametrize("read_only", [False, True])
def test_a_cut_file_is_refused(store: Path, read_only: bool) -> None:
    """A file cut short anywhere is StoreCorrupt at opening, or when what is missing is asked for."""
    original = store.read_bytes()
    for size in (0, 1, 11, 12, 100, 4096, 12_287, 12_288, 20_000, len(original) // 2, len(original) - 300_000):
        store.write_bytes(original[:size])
        with untouched(store.parent), pytest.raises(StoreCorrupt):  # noqa: PT012, the damage may show late
            lab = open_shop(store, threads=1, read_only=read_only)
            try:
                lab.events().fetchall()
                lab.serve(order_summary, "projection").rows().fetchall()
                lab.serve(order_summary, "materialized").rows().fetchall()
            finally:
                lab.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_what_is_no_store_is_refused(logged: SimpleNamespace, tmp_path: Path, read_only: bool) -> None:
    """A foreign file, a folder, a foreign database, and a log without its file are named errors; nothing changes."""
    text, empty, folder, lone = (tmp_path / name for name in ("notes.txt", "empty.db", "folder", "lone.db"))
    text.write_text("dear diary, today I made a CSV; it was not DUCK but a goose " * 9)
    empty.touch()
    folder.mkdir()
    wal.logs_of(lone)[0].write_bytes(logged.log)
    foreign, used = tmp_path / "foreign.db", tmp_path / "used.db"
    with duckdb.connect(str(foreign)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    # A foreign database in use: part of what it holds is in its log.
    connection = duckdb.connect(str(foreign))
    connection.execute("INSERT INTO t VALUES (2)")
    for file in (foreign, wal.logs_of(foreign)[0]):
        shutil.copy(file, str(file).replace("foreign", "used"))
    connection.close()
    for path, error, said in (
        (text, NotAStore, "is not a DuckDB file"),
        (empty, StoreCorrupt, "has no bytes"),
        (folder, NotAStore, "is a folder"),
        (lone, StoreCorrupt, "is missing while its log"),
        (foreign, NotAStore, "other tables"),
        (used, NotAStore, "other tables"),
    ):
        with untouched(tmp_path), pytest.raises(error, match=said):
            open_shop(path, read_only=read_only)
    assert not list(folder.iterdir())


def test_a_path_that_cannot_be_a_store(tmp_path: Path) -> None:
    """A missing folder, a missing file asked for read-only, and impossible names are named errors."""
    with pytest.raises(StoreMissing, match="make it first"):
        open_shop(tmp_path / "nowhere" / "shop.duckdb")
    with pytest.raises(StoreMissing, match="does not exist"):
        open_shop(tmp_path / "shop.duckdb", read_only=True)
    with pytest.raises(StoreMissing, match="cannot be the path"):
        open_shop(f"{tmp_path}/a\0b")
    with pytest.raises(StoreError, match="cannot be opened"):
        open_shop(tmp_path / ("x" * 300))
    assert not list(tmp_path.iterdir())


def test_looking_changes_nothing(logged: SimpleNamespace, tmp_path: Path) -> None:
    """A store that is opened for writing and only read keeps its bytes, even when a killed process left a log."""
    path = tmp_path / "shop.duckdb"
    path.write_bytes(logged.main)
    wal.logs_of(path)[0].write_bytes(logged.log)
    with untouched(tmp_path), open_shop(path) as lab:
        assert len(lab.events()) == lab.head == 8
    with open_shop(path) as lab:
        lab.send(place("new"))
    assert not wal.logs_of(path)[0].exists()


def test_read_only(store: Path) -> None:
    """A read-only store answers every question, refuses every write by name, and its bytes stay."""
    with untouched(store.parent), open_shop(store, read_only=True, threads=1) as lab:
        assert len(lab.serve(order_summary, "projection").rows()) == 300
        assert len(lab.serve(order_summary, "view").rows()) == 300
        assert lab.as_of(position=10).sql("SELECT count(*) FROM order_summary").fetchall() == [(10,)]
        for write in (
            lambda: lab.send(place("o-1")),
            lambda: lab.append_table("order", batch("r", 3)),
            lambda: lab.serve(order_summary, "projection").rebuild(),
            lambda: lab.serve(order_summary, "materialized").refresh(),
        ):
            with pytest.raises(ReadOnlyStore):
                write()
