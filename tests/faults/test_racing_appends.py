"""Appends that race: nothing lost, doubled or passed, and one name for the loser."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support import pay, place
from support.stores import check_whole, rows
from support.tallies import Add, tallies

from cqrs_lab import Domain, Lab, ReadModel, open_shop
from cqrs_lab.errors import ConcurrencyError, ConstraintViolated
from cqrs_lab.shop import OrderPaid, order_summary, orders
from cqrs_lab.store.database import Database

balances = ReadModel(
    "balances",
    key="tally",
    sql="SELECT tally, sum(n)::BIGINT AS balance FROM tally_events GROUP BY tally",
)


def test_many_threads_on_hot_streams(tmp_path: Path) -> None:
    """Sixteen threads on four streams lose, double and miss nothing, and a reader of the head never sees a hole."""
    with Lab(tmp_path / "bank.duckdb", domain=Domain(deciders=[tallies()], read_models=[balances]), threads=2) as lab:
        served = lab.serve(balances)
        done, seen = threading.Event(), 0
        holes: list[Any] = []
        receipts: list[Any] = []
        losers: list[Any] = []

        def follow() -> None:
            nonlocal seen
            while True:
                last = done.is_set()
                got = [row[0] for row in lab.events(after=seen)]
                if got != list(range(seen + 1, seen + 1 + len(got))):
                    holes.append((seen, got))
                seen += len(got)
                served.catch_up()
                if last:
                    return

        def work(worker: int) -> None:
            for number in range(20):
                while True:
                    try:
                        receipts.append(lab.send(Add(tally=f"a-{(worker + number) % 4}", n=1)))
                        break
                    except ConcurrencyError as error:
                        losers.append((error.expected, error.actual))

        reader = threading.Thread(target=follow)
        reader.start()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(16)))
        done.set()
        reader.join()
        assert not holes
        assert all(actual > expected for expected, actual in losers)
        assert seen == lab.head == 320
        assert sorted(r.position for r in receipts) == list(range(1, 321))
        assert {(r.stream, r.version) for r in receipts} == {
            (f"tally/a-{i}", v) for i in range(4) for v in range(1, 81)
        }
        assert served.pl()["balance"].to_list() == [80] * 4


def test_a_slow_append_is_not_passed() -> None:
    """While an append holds lower positions, nothing above them is visible, and no projection moves past them."""
    with open_shop(threads=1) as lab:
        served = lab.serve(order_summary)
        lab.send(place("o-1"))
        inside, go_on = threading.Event(), threading.Event()

        def slow() -> None:
            with lab._store.appending() as append:
                assert append.new_position() == 2
                inside.set()
                go_on.wait(120)
                raise RuntimeError("given up")

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(slow)
            assert inside.wait(120)
            second = pool.submit(lab.send, place("o-2"))
            time.sleep(0.1)
            assert not second.done()
            assert lab.head == served.catch_up() == len(lab.events()) == 1
            go_on.set()
            with pytest.raises(RuntimeError, match="given up"):
                first.result()
            assert second.result().position == 2
        assert served.catch_up() == 2


def test_a_conflict_on_the_third_of_five_events() -> None:
    """An append that meets a taken key halfway stores none of its events and raises ConcurrencyError."""
    with open_shop(threads=1) as lab:
        lab.send(place("o-1"))
        lab._log.database.execute(
            """INSERT INTO order_events (position, stream_no, version, type, schema_version, event_id, order_id,
               occurred_at, recorded_at) SELECT 4, 99, 1, type, schema_version, event_id, order_id, occurred_at,
               recorded_at FROM order_events"""
        )
        paid = [OrderPaid(order_id="o-1", amount=Decimal(number)) for number in range(5)]
        with pytest.raises(ConcurrencyError) as conflict:
            lab._store.append(orders.log_category, "o-1", paid, expected_version=1)
        assert (conflict.value.expected, conflict.value.actual) == (1, 1)
        with pytest.raises(ConcurrencyError) as conflict:
            lab._store.append(orders.log_category, "o-1", paid, expected_version=0)
        assert (conflict.value.expected, conflict.value.actual) == (0, 1)
        assert lab._log.database.execute("SELECT position FROM order_events ORDER BY 1") == [(1,), (4,)]
        # The heads are those of the tables again: numbers go on where the taken key ends, and the stream where it was.
        assert lab.head == 4
        assert lab._store.append(orders.log_category, "o-1", paid[:1], expected_version=1)[0].position == 5
        assert [r.version for r in lab._log.read(orders.log_category, "o-1")] == [1, 2]


def test_two_labs_over_one_file(store: Path) -> None:
    """A cell that runs twice gives two labs over one store: each sees what the other appended and moved, once."""
    with open_shop(store, threads=1) as first, open_shop(store, threads=1) as second:
        served = [lab.serve(order_summary) for lab in (first, second)]
        first.send(place("o-1"))
        second.send(pay("o-1"))
        assert first.head == second.head == len(first.events()) == 302
        for lab in (first, second):
            assert lab.catch_up() == 302
        for one in served:
            assert one.position == 302
            row = one.get("o-1")
            assert row is not None
            assert (row["paid"], row["item_count"], row["status"]) == (Decimal("5.00"), 1, "PAID")
        first.close()
        assert second.send(place("o-2")).position == 303
        assert check_whole(second) == 303


@pytest.mark.parametrize("form", ["at INSERT", "at COMMIT", "at UPDATE"])
def test_a_lost_race_has_one_name(database: Database, form: str) -> None:
    """Whichever way DuckDB reports that another transaction was first is ConstraintViolated, and nothing is kept."""
    with database.transaction():
        database.execute("INSERT INTO t VALUES (0)")
    statement = "UPDATE t SET i = 7 WHERE i = 0" if form == "at UPDATE" else "INSERT INTO t VALUES (7)"
    with ThreadPoolExecutor(1) as pool:
        go_on, inside = threading.Event(), threading.Event()

        def winner() -> None:
            with database.transaction():
                database.execute(statement)
                inside.set()
                go_on.wait(120)

        won = pool.submit(winner)
        assert inside.wait(120)
        with pytest.raises(ConstraintViolated, match="nothing of"), database.transaction():  # noqa: PT012
            if form == "at INSERT":
                go_on.set()
                won.result()
            database.execute(statement)
            go_on.set()
            won.result()
        go_on.set()
        won.result()
        assert rows(database) == ([7] if form == "at UPDATE" else [0, 7])


def test_threads_do_not_see_unfinished_transactions(database: Database) -> None:
    """Each thread has a cursor of its own: what one has not committed, the others do not see."""
    with ThreadPoolExecutor(1) as pool, database.transaction():
        database.execute("INSERT INTO t VALUES (1)")
        assert not pool.submit(lambda: database.in_transaction).result()
        assert pool.submit(rows, database).result() == []
    assert rows(database) == [1]


def test_a_thread_that_ends_takes_its_cursor(database: Database) -> None:
    """A thousand short threads leave no cursors behind."""
    for _ in range(20):
        with ThreadPoolExecutor(50) as pool:
            list(pool.map(lambda _: database.execute("SELECT 1"), range(50)))
    assert len(database._living()) <= 2
