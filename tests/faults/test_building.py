"""Builds: rows are made beside the old ones, and nobody waits for them but who asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import line, pay, place, tamper

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.errors import ProjectionFailed, RebuildRefused
from cqrs_lab.read.served import Served
from cqrs_lab.read.stored import Stored
from cqrs_lab.shop import RegisterCustomer, customer_contacts, daily_orders, daily_sales, order_facts, order_summary
from cqrs_lab.workbench import Workload, generate

RANKED = ReadModel(
    "ranked",
    "order_id",
    "SELECT order_id, rank() OVER (ORDER BY total DESC, order_id) AS place FROM order_facts",
    over=(order_facts,),
)
BY_CUSTOMER = ReadModel(
    "by_customer",
    "customer_id",
    "SELECT customer_id, sum(total) AS total, sum(paid) AS paid FROM order_facts GROUP BY customer_id",
    over=(order_facts,),
)
BY_TOTAL = ReadModel(
    "by_total", "total", "SELECT total, count(*) AS n FROM by_customer GROUP BY total", over=(BY_CUSTOMER,)
)
MEDIANS = ReadModel("medians", "customer_id", "SELECT customer_id, median(total) AS m FROM order_events GROUP BY ALL")


@contextmanager
def held(model: ReadModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Stop builds of a read model when their rows are made and not yet in place; yield when one is there, and go on."""
    there, go_on, real = threading.Event(), threading.Event(), Stored._fold

    def fold(self: Stored, head: int, beside: str) -> None:
        real(self, head, beside)
        if self.model.id == model.id and not go_on.is_set():
            there.set()
            assert go_on.wait(60)

    monkeypatch.setattr(Stored, "_fold", fold)
    try:
        yield there, go_on
    finally:
        go_on.set()


def agree(lab: Lab, *models: ReadModel) -> None:
    """Hold the projections of read models against their views, at the head."""
    lab.catch_up()
    for model in models:
        one, two = (sorted(map(repr, lab.serve(model, as_).rows().fetchall())) for as_ in ("projection", "view"))
        assert one == two, model.name


HOW: dict[str, Callable[[Served], object]] = {
    "rebuild": lambda served: served.rebuild(),
    "check": lambda served: served.rebuild(check=lambda changes: len(changes) == 0),
    "rehearse": lambda served: len(served.rehearse()) == 0 or pytest.fail("it told a change that there was not"),
}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("model", [order_summary, daily_sales, RANKED, MEDIANS, daily_orders], ids=lambda m: m.name)
def test_nobody_waits_for_a_build_and_it_misses_nothing(
    model: ReadModel, how: Callable[[Served], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While rows are built, appends, inline and other projections and layers move on; the new rows have all of it."""
    others = (order_summary, daily_sales, RANKED, MEDIANS, daily_orders, customer_contacts)
    with open_shop(threads=1) as lab, ThreadPoolExecutor(1) as pool:
        lab.send_many([place(n, customer=f"c-{n % 3}") for n in range(9)])
        for other in others:
            lab.serve(other, mode="inline" if other is daily_orders else None)
        with held(model, monkeypatch) as (there, go_on):
            building = pool.submit(lambda: how(lab.serve(model)))
            assert there.wait(60)
            lab.send_many([place(n, customer=f"c-{n % 3}") for n in range(20, 24)])
            lab.send_many([pay(n) for n in (1, 2, 21)])
            lab.send(RegisterCustomer(customer_id="c-1", name="Ann", email="a@b.org"))
            for other in others:
                if other is not model:
                    lab.serve(other).catch_up()
            lab.serve(order_facts).catch_up()
            lab.send(RegisterCustomer(customer_id="c-2", name="Bob", email="a@b.org"))
            assert not building.done()
            go_on.set()
            building.result(60)
        agree(lab, *others)


@pytest.mark.parametrize("model", [order_facts, BY_CUSTOMER], ids=lambda m: m.name)
def test_what_is_built_on_rows_that_were_wrong_is_mended(model: ReadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that finds wrong rows tells those built on them, and what changed in old or new rows meanwhile, too."""
    others = (BY_CUSTOMER, BY_TOTAL, RANKED)
    with open_shop(threads=1) as lab, ThreadPoolExecutor(1) as pool:
        lab.send_many([place(n, customer=f"c-{n}") for n in range(9)])
        for other in (order_facts, *others):
            lab.serve(other)
        for wrong in (  # as it would be after a fault in the lower one
            "UPDATE projection.order_facts SET total = 7 WHERE order_id = 'o-1'",
            "UPDATE projection.by_customer SET total = 7 WHERE customer_id = 'c-1'",
            "UPDATE projection.by_total SET n = 8",
            "INSERT INTO projection.by_total FROM projection.by_total SELECT * REPLACE (7 AS total, 1 AS n)",
        ):
            tamper(lab, wrong)
        with held(model, monkeypatch) as (there, go_on):
            building = pool.submit(lambda: lab.serve(model).rebuild())
            assert there.wait(60)
            lab.send_many([pay(2), place(20, customer="c-20")])
            lab.serve(model).catch_up()  # the old rows
            lab.send_many([pay(3), place(21, line(price=6), customer="c-21")])
            lab.serve(order_facts).catch_up()  # what is below them alone
            go_on.set()
            building.result(60)
        agree(lab, BY_TOTAL, BY_CUSTOMER, *([order_facts] if model is order_facts else []))


def test_a_first_build_holds_nobody_up_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is served for the first time is built like that, too."""
    with open_shop(threads=1) as lab, ThreadPoolExecutor(1) as pool:
        lab.serve(daily_orders, mode="inline")
        lab.send_many([place(n) for n in range(3)])
        with held(order_summary, monkeypatch) as (there, go_on):
            building = pool.submit(lambda: lab.serve(order_summary))
            assert there.wait(60)
            lab.send(place("late"))
            assert lab.serve(daily_orders).position == lab.head
            go_on.set()
            building.result(60)
        agree(lab, order_summary, daily_orders)


def test_what_is_erased_is_in_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """An erasure waits for rows that are being built, and they are made again without what it erased."""
    with open_shop(threads=1) as lab, ThreadPoolExecutor(2) as pool:
        lab.send(RegisterCustomer(customer_id="c-1", name="Ann Secret", email="a@b.org"))
        lab.serve(customer_contacts)
        with held(customer_contacts, monkeypatch) as (there, go_on):
            building = pool.submit(lambda: lab.serve(customer_contacts).rebuild())
            assert there.wait(60)
            erasing = pool.submit(lambda: lab.forget("c-1"))
            assert not threading.Event().wait(0.3)
            assert not erasing.done()
            go_on.set()
            building.result(60)
            assert erasing.result(60) == 1
        assert lab.serve(customer_contacts).get("c-1") is None or "Secret" not in str(
            lab.serve(customer_contacts).rows()
        )


def test_what_is_refused_leaves_its_layers_where_they_were() -> None:
    """A rehearsal, and a rebuild whose check says no, move no layer, whether it stands with its rows or behind."""
    with open_shop(threads=1) as lab:
        lab.send(place(1))
        for model in (RANKED, daily_sales, order_facts):
            lab.serve(model)
        lab.send(place(2))
        for model in (daily_sales, RANKED):
            assert len(lab.serve(model).rehearse()) == 0
            with pytest.raises(RebuildRefused):
                lab.serve(model).rebuild(check=lambda changes: False)
            assert [lab.serve(one).position for one in (order_facts, model)] == [1, 1]
        lab.serve(order_facts).catch_up()
        for model in (daily_sales, RANKED):
            assert len(lab.serve(model).rehearse()) == 0
            assert lab.serve(model).rebuild(check=lambda changes: len(changes) == 0) == 2
        agree(lab, RANKED, daily_sales)


def test_a_small_build_does_not_fold_the_log(tmp_path: Path) -> None:
    """Commits of a build leave the write-ahead log to grow far beyond DuckDB's 16 MB, and do not fold it each time."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path) as lab:
        generate(lab, Workload(orders=60_000, seed=1))
        for _ in range(4):
            lab.serve(order_summary).rebuild()
        assert path.with_name("shop.duckdb.wal").stat().st_size > 20_000_000


def test_a_build_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old rows go on serving after a build that failed, and no half-made table stays."""
    with open_shop(threads=1) as lab:
        lab.send(place(1))
        served = lab.serve(order_summary)

        def fail(self: Any, *given: Any) -> int:
            raise ProjectionFailed("no", self.model.name)

        monkeypatch.setattr(Stored, "_swap", fail)
        with pytest.raises(ProjectionFailed, match="no"):
            served.rebuild()
        monkeypatch.undo()
        left = "SELECT table_name FROM duckdb_tables() WHERE starts_with(table_name, '_next_')"
        assert lab._log.database.execute(left) == []
        agree(lab, order_summary)


def test_catch_up_returns_although_writers_go_on() -> None:
    """Projections and sagas follow to where the log ended, and what sagas led to; not for as long as others append."""
    with open_shop(threads=1) as lab:
        for model in (order_summary, daily_sales, MEDIANS):
            lab.serve(model)
        lab.follow("fulfilment", after=0)
        stop, sent = threading.Event(), []

        def write() -> None:
            while not stop.is_set():
                lab.send(place(f"w-{len(sent)}"))
                sent.append(1)
                stop.wait(0.05)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(3):
                lab.catch_up()
        finally:
            stop.set()
            writer.join()
        assert sent
        agree(lab, order_summary, daily_sales, MEDIANS)


@pytest.mark.parametrize("what", ["rehearse", "check", "append"])
def test_a_build_inside_a_move_does_not_meet_one_beside(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are made again inline while another thread builds them; a rehearsal of them, or another build, waits."""
    with open_shop(threads=1) as lab, ThreadPoolExecutor(2) as pool:
        lab.send_many([place(n) for n in range(5)])
        served = lab.serve(RANKED, mode="inline")
        with held(RANKED, monkeypatch) as (there, go_on):
            building = pool.submit(served.rebuild)
            assert there.wait(60)
            monkeypatch.undo()
            if what == "append":
                lab.send(place("late"))
                assert served.position == lab.head
            else:
                second = pool.submit(lambda: HOW[what](served))
                assert not threading.Event().wait(0.2)
                assert not second.done()
            go_on.set()
            building.result(60)
            if what != "append":
                second.result(60)
        assert served.position == lab.head
        agree(lab, RANKED)


def test_letters_are_taken_back_beside_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """What moves because a dead letter was taken back does not wait for a build that waits for it."""
    small = ReadModel("small", "order_id", "SELECT order_id, sum(total)::TINYINT AS n FROM order_events GROUP BY ALL")
    above = ReadModel("above", "order_id", "SELECT order_id, rank() OVER (ORDER BY n, order_id) AS r FROM small",
                      over=(small,))  # fmt: skip
    with open_shop(threads=1) as lab, ThreadPoolExecutor(2) as pool:
        lab.serve(small, on_error="dead letter")
        lab.serve(above)
        lab.send(place(1))
        lab.send(place(2, line(price=500)))
        lab.catch_up()
        with held(above, monkeypatch) as (there, go_on):
            building = pool.submit(lambda: lab.serve(above).rebuild())
            assert there.wait(60)
            retrying = pool.submit(lambda: lab.retry_dead_letters("small"))
            assert not threading.Event().wait(0.2)
            go_on.set()
            building.result(60)
            assert retrying.result(60) == 0
        assert [len(lab.serve(model).rows()) for model in (small, above)] == [1, 1]


def test_erasures_and_kept_histories_do_not_wait_for_each_other() -> None:
    """Somebody is forgotten while rows and their history are built again and again: nothing stands still."""
    with open_shop(threads=1) as lab, ThreadPoolExecutor(3) as pool:
        lab.send(RegisterCustomer(customer_id="c-1", name="Ann", email="a@b.org"))
        lab.send_many([place(n) for n in range(5)])
        lab.serve(order_facts, keep_history=True)

        def build() -> None:
            for _ in range(20):
                lab.serve(order_facts).rebuild()

        def forget() -> None:
            for _ in range(20):
                lab.forget("c-1")

        def keep() -> None:
            for number in range(20):
                lab.serve(order_facts, keep_history=number % 2 == 0)

        for task in [pool.submit(one) for one in (build, forget, keep)]:
            task.result(120)
        agree(lab, order_facts)
