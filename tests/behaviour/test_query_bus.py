"""The query bus: its middleware, its times, and polling."""

from __future__ import annotations

from typing import Any

import pytest
from support import pay, place
from support.queries import ByStatus, outcomes

from cqrs_lab import open_shop
from cqrs_lab.errors import DeclarationError, NotAllowed, NotServed, NotYet, UnknownQuery
from cqrs_lab.read.queries import Asked
from cqrs_lab.shop import OrderDetails, OrdersOfCustomer, order_summary
from cqrs_lab.workbench import poll


def test_middleware_stands_around_every_query_in_the_order_given():
    """Each step sees what is asked, may change it or refuse it, and sees the answer; the first is outermost."""
    seen = []

    def outer(asked: Asked, proceed: Any) -> Any:
        seen.append("outer")
        answer = proceed(asked)
        seen.append(answer["status"])
        return {**answer, "by": "outer"}

    def inner(asked: Asked, proceed: Any) -> Any:
        seen.append(type(asked.query).__name__)
        if asked.query.order_id == "o-2":
            raise NotAllowed("o-2 is a secret")
        return proceed(asked)

    with open_shop(query_middleware=[outer, inner], cache_seconds=60) as lab:
        assert lab.query_middleware == ["times", "outer", "inner", "reached", "cached"]
        lab.send(place())
        lab.serve(order_summary)
        for _ in range(2):  # also around what is answered from the cache
            assert lab.ask(OrderDetails(order_id="o-1"))["by"] == "outer"
        assert seen == ["outer", "OrderDetails", "PENDING"] * 2
        with pytest.raises(NotAllowed, match="secret"):
            lab.ask(OrderDetails(order_id="o-2"))
        assert outcomes(lab) == ["done", "cached", "NotAllowed"]


def test_without_a_cache_nothing_is_kept():
    """The cache is off unless it is switched on, and no time is no cache."""
    with open_shop() as lab:
        assert lab.query_middleware == ["times", "reached"]
        lab.send(place())
        lab.serve(order_summary)
        for _ in range(2):
            lab.ask(OrderDetails(order_id="o-1"))
        assert outcomes(lab) == ["done", "done"]
    for wrong in (0, -1, float("nan")):
        with pytest.raises(DeclarationError, match="cache_seconds"):
            open_shop(cache_seconds=wrong)


def test_query_times_tell_every_query():
    """query_times() has the query, what became of it and how long it took; one that is unknown was never asked."""
    with open_shop() as lab:
        assert lab.query_times().fetchall() == []
        lab.ask(OrdersOfCustomer(customer_id="c-1"))
        with pytest.raises(UnknownQuery):
            lab.ask(ByStatus(status="PAID"))
        with pytest.raises(NotServed):
            lab.ask(OrderDetails(order_id="o-1"), at_least=9)
        rows = lab.query_times().dicts()
        assert [(row["query"], row["outcome"]) for row in rows] == [
            ("OrdersOfCustomer", "done"), ("OrderDetails", "NotServed"),
        ]  # fmt: skip
        assert all(row["ms"] >= 0 for row in rows)


def test_polling_asks_until_the_answer_is_there():
    """poll() returns the answer and how often it asked, or says that it gave up."""
    with open_shop() as lab:
        lab.send(place())
        lab.serve(order_summary, mode="background")
        lab.send(pay())
        row, polls = poll(
            lambda: lab.ask(OrderDetails(order_id="o-1"), served_as="projection"),
            lambda row: row["status"] == "PAID",
            every=0.01,
            timeout=120,
        )
        assert (row["status"], polls >= 1) == ("PAID", True)
        assert poll(lambda: 1, lambda answer: answer == 1, timeout=0) == (1, 1)
        with pytest.raises(NotYet, match=r"polls in 0\.05 s") as refused:
            poll(lambda: 1, lambda answer: answer == 2, every=0.01, timeout=0.05)
        assert refused.value.position is None
