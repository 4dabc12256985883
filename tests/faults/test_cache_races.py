"""The query cache while rows move: what is read meanwhile is not kept, and no reader goes back."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from support import append, pay, place, wait_until
from support.queries import outcomes, shop_with

from cqrs_lab import Lab, Query, ReadModel
from cqrs_lab.shop import OrderDetails, OrderPaid, OrderPlaced, order_summary
from cqrs_lab.store.move import Move


def test_a_move_that_is_rolled_back_leaves_the_cache_in_use():
    """Whether rows moved or an append was given up, answers are kept again afterwards."""
    poison = ReadModel(
        "poison", "order_id", "SELECT order_id, sum(amount::TINYINT) AS n FROM order_events GROUP BY ALL"
    )
    with shop_with() as lab:
        lab.send(place())
        lab.serve(order_summary, mode="inline")
        lab.serve(poison, mode="inline")
        append(lab, [(OrderPaid(order_id="o-1", amount=Decimal(999), method="card"), 0)])
        assert "stopped" in [row["state"] for row in lab.lag().dicts()]
        query = OrderDetails(order_id="o-1")
        assert [lab.ask(query)["paid"] for _ in range(2)] == [Decimal(999)] * 2
        assert outcomes(lab) == ["done", "cached"]
        assert not +lab._catalog.memory.answers._open


def test_an_answer_made_of_old_rows_is_not_kept():
    """A reader that had read before rows moved, and is done after, gets its answer and leaves none behind."""
    lab: Lab
    meanwhile: list[Any] = []

    class Slow(Query):
        model: ClassVar[ReadModel] = order_summary

        def answer(self, read: Any) -> Any:
            row = read.get("o-1")
            for step in meanwhile:
                step()
            return row["status"]

    with shop_with(Slow) as lab:
        lab.send(place())
        lab.serve(order_summary)

        def moves() -> None:
            meanwhile.clear()
            lab.send(pay())
            lab.catch_up()

        meanwhile.append(moves)
        assert lab.ask(Slow()) == "PENDING"
        assert [lab.ask(Slow()), lab.ask(Slow())] == ["PAID", "PAID"]
        assert outcomes(lab) == ["done", "done", "cached"]


@pytest.mark.parametrize("mode", ["manual", "inline"])
def test_no_answer_is_kept_while_rows_move(mode, monkeypatch):
    """Between the dropping of answers and the commit of the rows, an answer of the old rows is not kept."""
    with shop_with() as lab:
        lab.send(place())
        served = lab.serve(order_summary, mode=mode)
        query = OrderDetails(order_id="o-1")
        real, seen = Move.write_checkpoints, []

        def while_moving(*given: Any) -> Any:  # after the rows are written, before they are committed
            reader = threading.Thread(target=lambda: seen.append(lab.ask(query)["status"]))
            reader.start()
            reader.join()
            return real(*given)

        assert lab.ask(query)["status"] == "PENDING"
        monkeypatch.setattr(Move, "write_checkpoints", while_moving)
        lab.send(pay())
        served.catch_up()
        assert set(seen) == {"PENDING"}
        assert lab.ask(query)["status"] == "PAID"


@pytest.mark.parametrize("mode", ["inline", "background"])
def test_readers_of_a_cache_never_go_back(mode):
    """While rows move, a reader never sees less than it saw, nor less than a position it waited for."""
    orders, sent, problems, done = 4, {}, [], threading.Event()
    with shop_with() as lab:
        for number in range(orders):
            append(lab, [(OrderPlaced(order_id=f"o-{number}", customer_id="c-1", lines=[], total=None), 0)])
        served = lab.serve(order_summary, mode=mode)

        def read(number: int) -> None:
            seen: dict[int, int] = {}
            while not done.is_set():
                for order in range(orders):
                    direct = served.get(f"o-{order}")["version"]  # past the cache: visible to whoever asks next
                    least, at = sent.get(order, (1, None))
                    query, wanted_at = OrderDetails(order_id=f"o-{order}"), at if number % 2 else None
                    version = lab.ask(query, at_least=wanted_at, timeout=120)["version"]
                    wanted = max(seen.get(order, 1), direct, least if number % 2 else 1)
                    if version < wanted:
                        problems.append((order, version, wanted))
                    seen[order] = version

        readers = [threading.Thread(target=read, args=(number,)) for number in range(3)]
        for reader in readers:
            reader.start()
        for version in range(2, 40):
            order = version % orders
            append(lab, [(OrderPaid(order_id=f"o-{order}", amount=Decimal(1), method="card"), 0)])
            sent[order] = (1 + len([v for v in range(2, version + 1) if v % orders == order]), lab.head)
        wait_until(lambda: "cached" in outcomes(lab), timeout=120)
        done.set()
        for reader in readers:
            reader.join()
        assert problems == []
        assert "cached" in outcomes(lab)
