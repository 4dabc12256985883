"""Forgetting and copying beside others, killed at any moment."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import Child, place
from support.crowds import COUNT, check_forgotten, crowd
from support.people import EMAIL, MODELS, NAME, PEOPLE, SNAPPING, WAYS, fill, people

from cqrs_lab import Domain, Event, Lab, doctor
from cqrs_lab.errors import RebuildNeeded, StoreError
from cqrs_lab.shop import RegisterCustomer, RenameCustomer, customers, order_summary
from cqrs_lab.store.database import Database
from cqrs_lab.write.event_store import EventStore


@pytest.mark.parametrize(
    ("part", "when", "gone"),
    [
        ("DELETE FROM", "after", []),
        ("COMMIT", "before", []),
        ("COMMIT", "after", [7]),
        ("CREATE OR REPLACE TABLE", "before", []),
        ("DROP TABLE", "after", []),
        ("FORCE CHECKPOINT", "before", [7]),
        ("FORCE CHECKPOINT", "after", [7]),
    ],
)
def test_killed_at_a_named_point(tmp_path: Path, part: str, when: str, gone: list[int]) -> None:
    """A process killed while it forgets has erased all or nothing, and no serving shows what the log has no more."""
    path = tmp_path / "shop.duckdb"
    child = Child()
    child.tell(f"{crowd(path)}\ndie_at({part!r}, {when!r}); lab.forget('c-7')")
    assert child.wait() == -signal.SIGKILL
    assert check_forgotten(path) == gone


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    """Whenever a process is killed, what it said to have forgotten is forgotten, and nothing else than the next one."""
    path, moments = tmp_path / "shop.duckdb", random.Random(seed)
    child = Child()
    loop = f"say('open')\nfor n in range({COUNT}):\n    lab.forget(f'c-{{n}}')\n    say(n)\ntime.sleep(60)"
    child.tell(f"{crowd(path)}\n{loop}")
    assert child.line() == "open"
    killer = threading.Timer(moments.uniform(0.05, 1.5), child.process.kill)
    killer.start()
    lines = []
    while line := child.line():
        lines.append(line)
    killer.join()
    assert child.wait() == -signal.SIGKILL
    gone = check_forgotten(path)
    assert gone == list(range(len(gone)))
    assert len(lines) - 1 <= len(gone) <= len(lines) + 1


def test_others_go_on_while_she_is_forgotten(tmp_path: Path) -> None:
    """Threads that append, catch up, refresh and serve anew hinder no forget, and leave nothing that shows her."""
    path, stop, failed = tmp_path / "shop.duckdb", threading.Event(), []
    crowd(path)
    with people(path) as lab:

        def work(number: int) -> None:
            try:
                for step in range(20 if number == 3 else 10_000):
                    if stop.wait(0.005):
                        return
                    if number == 0:
                        lab.send(place(f"w-{step}"))
                    elif number == 1:
                        lab.catch_up()
                    elif number == 2:
                        lab.serve(PEOPLE, "materialized").refresh()
                    else:
                        lab.serve(replace(PEOPLE, name=f"people_{step}"), ("projection", "materialized")[step % 2])
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            for n in range(8):
                assert lab.forget(f"c-{n}") == 1
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failed == []
        assert len(lab._servings.served()) > 2 * len(MODELS)
        for served in lab._servings.served():
            if served.state == "ok" and "email" in served._columns:
                assert not any(f"'{n}-{EMAIL}'" in repr(served.rows().fetchall()) for n in range(8)), served


def test_a_serving_made_meanwhile_shows_nothing_of_her(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read model that another thread begins to serve just before she is erased does not keep her."""
    forget, late = EventStore.forget, replace(PEOPLE, name="late")
    threads: list[threading.Thread] = []
    with people(tmp_path / "shop.duckdb") as lab:
        fill(lab)

        def beside(self: EventStore, *rest: Any) -> int:
            thread = threading.Thread(target=lambda: [lab.serve(late, way) for way in WAYS])
            thread.start()
            thread.join(1)  # it may have to wait until she is forgotten
            threads.append(thread)
            return forget(self, *rest)

        monkeypatch.setattr(EventStore, "forget", beside)
        assert lab.forget("c-1") == 3
        threads.pop().join()
        for way in WAYS:
            try:
                assert lab.serve(late, way).get("c-1")["email"] is None
            except RebuildNeeded:
                continue


def test_a_command_on_its_way_keeps_nothing_of_her(tmp_path: Path) -> None:
    """A command that had loaded her before she was forgotten stores no snapshot with her data afterwards."""
    threads: list[threading.Thread] = []

    def decide(command: Any, customer: Any) -> Sequence[Event]:
        for thread in threads:
            if not thread.ident:
                thread.start()
                thread.join(0.5)  # it may have to wait until the command is carried out
        return customers.decide(command, customer)

    with Lab(domain=Domain(deciders=[replace(SNAPPING, decide=decide)])) as lab:
        lab.send(RegisterCustomer(customer_id="c-1", name=NAME, email=EMAIL))
        threads.append(threading.Thread(target=lambda: lab.forget("c-1")))
        lab.send(RenameCustomer(customer_id="c-1", name="N"))
        threads[0].join()
        assert EMAIL not in repr(lab._log.database.execute("SELECT * FROM snapshots"))
        lab.send(RenameCustomer(customer_id="c-1", name="O"))
        assert EMAIL not in repr(lab._log.database.execute("SELECT * FROM snapshots"))


@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_copy_is_made_while_others_append(tmp_path: Path, where: str) -> None:
    """Copies made while a thread appends are whole: a prefix of the log with sound servings, no finding."""
    stop, source = threading.Event(), tmp_path / "shop.duckdb" if where == "file" else ":memory:"
    copies = [tmp_path / f"copy {n}'s.duckdb" for n in range(4)]
    with people(source) as lab:
        fill(lab)
        ways = [lab.serve(order_summary, way) for way in WAYS]

        def write() -> None:
            number = 0
            while not stop.is_set():
                lab.send(place(f"w-{number}"))
                number += 1
                if number % 5 == 0:
                    ways[2].catch_up()

        writer = threading.Thread(target=write)
        writer.start()
        heads = []
        try:
            for copy in copies:
                least = lab.head
                lab.backup(copy)
                heads.append((least, lab.head))
        finally:
            stop.set()
            writer.join()
        log = lab.events().pl()
    assert len(log) > 6
    for copy, (least, most) in zip(copies, heads, strict=True):
        assert not [finding for finding in doctor.scan(copy) if finding.status == "FAIL"]
        with people(copy) as other:
            assert least <= other.head <= most
            assert other.events().pl().equals(log.head(other.head))
            for model in (order_summary, *MODELS):
                for way in WAYS:
                    served = other.serve(model, way)
                    expected = other.as_of(position=served.position).rows(model).fetchall()
                    assert (served.state, served.rows().fetchall()) == ("ok", expected)
    assert sorted(f.name for f in tmp_path.iterdir() if "copy" in f.name) == [copy.name for copy in copies]


def test_a_copy_goes_on_after_a_killed_one(tmp_path: Path) -> None:
    """What a process killed while copying left behind is not taken for a copy and does not keep the next one away."""
    path, copy = tmp_path / "shop.duckdb", tmp_path / "copy.duckdb"
    child = Child()
    child.tell(f"{crowd(path)}\ndie_at('COPY FROM', 'after'); lab.backup({str(copy)!r})")
    assert child.wait() == -signal.SIGKILL
    assert not copy.exists()
    with people(path) as lab:
        lab.backup(copy)
        assert not [finding for finding in doctor.scan(copy) if finding.status == "FAIL"]
        assert [f.name for f in sorted(tmp_path.iterdir()) if f.name.startswith("copy")] == ["copy.duckdb"]


@pytest.fixture(params=["file", "memory"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A lab with two customers, on disk and in memory."""
    with people(tmp_path / "shop.duckdb" if request.param == "file" else ":memory:") as made:
        fill(made)
        yield made


@pytest.mark.parametrize("part", ["ATTACH", "COPY FROM", "DETACH"])
def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """When writing the copy fails, or is interrupted, no file of it stays, and the next copy works."""
    path, execute = tmp_path / "copy.duckdb", Database.execute
    before = sorted(tmp_path.iterdir())
    for error in (StoreError("no room"), KeyboardInterrupt()):

        def fails(self: Database, sql: str, *rest: Any, error: BaseException = error) -> Any:
            if not sql.startswith(part):
                return execute(self, sql, *rest)
            if part != "ATTACH":
                execute(self, sql, *rest)
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Database, "execute", fails)
            with pytest.raises(type(error)):
                lab.backup(path)
        assert [f for f in sorted(tmp_path.iterdir()) if f not in before] == []
    lab.backup(path)
    assert not [finding for finding in doctor.scan(path) if finding.status == "FAIL"]
