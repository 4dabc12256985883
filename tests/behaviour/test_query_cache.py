"""The query cache: what is kept, how long, and for whom."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from support import pay, place
from support.queries import ByStatus, Counted, Everything, outcomes, shop_with

from cqrs_lab import Domain, Lab, Query, ReadModel, open_shop, shop
from cqrs_lab.errors import RebuildNeeded, StoreClosed
from cqrs_lab.read import cache
from cqrs_lab.shop import OrderDetails, RegisterCustomer, order_summary
from cqrs_lab.store.rows import Rows


def test_an_answer_is_kept_until_its_own_row_moves():
    """get() depends on its key alone: what happens to other rows leaves the answer, what happens to it does not."""
    with open_shop(cache_seconds=60) as lab:
        lab.send(place())
        lab.serve(order_summary, mode="inline")
        first = lab.ask(OrderDetails(order_id="o-1"))
        lab.send(place(2))
        assert lab.ask(OrderDetails(order_id="o-1")) == first
        assert lab.ask(OrderDetails(order_id="o-3")) is None
        assert lab.ask(OrderDetails(order_id="o-3")) is None
        assert outcomes(lab) == ["done", "cached", "done", "cached"]
        lab.send(pay())
        lab.send(place(3))
        assert lab.ask(OrderDetails(order_id="o-1"))["status"] == "PAID"
        assert lab.ask(OrderDetails(order_id="o-3"))["status"] == "PENDING"
        assert outcomes(lab)[4:] == ["done", "done"]


def test_an_answer_by_value_goes_when_a_row_comes_to_the_value_or_leaves_it():
    """where() depends on the rows that have or had the value: one that leaves drops it, and one that comes."""
    with shop_with(ByStatus, Everything) as lab:
        lab.send(place())
        lab.serve(order_summary, mode="inline")
        asked = [ByStatus(status=status, customer_id="c-1") for status in ("PENDING", "PAID", "SHIPPED")]
        assert [lab.ask(query) for query in asked] == [["o-1"], [], []]
        assert len(lab.ask(Everything())) == 1
        lab.send(pay())
        assert [lab.ask(query) for query in asked] == [[], ["o-1"], []]
        assert outcomes(lab)[4:] == ["done", "done", "cached"]
        lab.send(place(2, customer="c-2"))
        assert [lab.ask(query) for query in asked] == [[], ["o-1"], []]
        assert outcomes(lab)[7:] == ["cached"] * 3
        assert len(lab.ask(Everything())) == 2
        assert outcomes(lab)[-1] == "done"


def test_other_values_than_plain_ones_are_left_to_duckdb():
    """Where Python cannot say what DuckDB takes for equal (casts, NaN, collations), a change drops the answer."""
    model = ReadModel(
        "loose",
        "k",
        "SELECT order_id AS k, max(order_id COLLATE NOCASE) AS name, count(*) AS n FROM order_events GROUP BY order_id",
    )

    class Loose(Query):
        model: ClassVar[ReadModel]
        key: str

        def answer(self, read: Any) -> Any:
            return read.where(name=self.key).dicts()

    Loose.model = model

    class Paid(Query):
        model: ClassVar[ReadModel] = order_summary
        paid: Any

        def answer(self, read: Any) -> Any:
            return len(read.where(paid=self.paid))

    with shop_with(Loose, Paid) as lab:
        lab.serve(model, mode="inline")
        lab.serve(order_summary, mode="inline")
        values = ["5", "5.00", 5, 5.0, Decimal(5), Decimal("5.0")]
        assert lab.ask(Loose(key="O-1")) == []
        assert [lab.ask(Paid(paid=value)) for value in values] == [0] * 6
        lab.send(place())
        lab.send(pay())
        assert [row["n"] for row in lab.ask(Loose(key="O-1"))] == [2]
        assert [lab.ask(Paid(paid=value)) for value in values] == [1] * 6


def test_answers_that_are_not_known_to_hold_are_not_kept():
    """sql() may read the log itself, a view is always fresh, a generator is used up, a list has no hash."""

    class Sharp(Query):
        model: ClassVar[ReadModel] = order_summary
        ids: list[str] = []

        def answer(self, read: Any) -> Any:
            return [read.get(id) for id in self.ids] if self.ids else (n for n in range(3))

    class Odd(Query):
        model: ClassVar[ReadModel] = order_summary

        def answer(self, read: Any) -> Any:
            return read.position

    with shop_with(Counted, Sharp, Odd) as lab:
        lab.send(place())
        lab.serve(order_summary)
        for query, way in (
            (Counted(), None), (Sharp(), None), (Sharp(ids=["o-1"]), None), (Odd(), None),
            (OrderDetails(order_id="o-1"), "view"),
        ):  # fmt: skip
            if way == "view":
                lab.serve(order_summary, as_="view")
            for _ in range(2):
                answer = lab.ask(query, served_as=way)
                if isinstance(answer, Iterator):
                    assert list(answer) == [0, 1, 2]
        assert set(outcomes(lab)) == {"done"}
        lab.ask(Counted(), served_as="projection")
        lab.send(place(2))  # only the log has moved
        assert lab.ask(Counted(), served_as="projection") == [(1, 2)]


def test_equal_queries_that_differ_are_kept_apart():
    """True equals 1 in Python; what is asked with one is not answered with the other."""

    class Asks(Query):
        model: ClassVar[ReadModel] = order_summary
        value: Any

        def answer(self, read: Any) -> Any:
            return repr(self.value)

    class Again(Asks):
        pass

    with shop_with(Asks, Again) as lab:
        lab.serve(order_summary)
        for value in (1, True, 1.0, Decimal(1), "1", Decimal("1.0")):
            assert lab.ask(Asks(value=value)) == repr(value)
            assert lab.ask(Asks(value=value)) == repr(value)
        lab.ask(Again(value=1))
        assert outcomes(lab) == ["done", "cached"] * 6 + ["done"]


def test_who_gets_a_kept_answer_may_change_it():
    """An answer is its receiver's own, however deep; Rows are fetched and hold what they held."""

    class Deep(Query):
        model: ClassVar[ReadModel] = order_summary

        def answer(self, read: Any) -> Any:
            return {"rows": [read.get("o-1")], "all": read.where(), "frame": read.df()}

    with shop_with(Deep, Everything) as lab:
        lab.send(place())
        lab.serve(order_summary)
        for _ in range(3):
            answer = lab.ask(Deep())
            assert (answer["rows"][0]["status"], len(answer["frame"]), len(answer["all"])) == ("PENDING", 1, 1)
            assert list(answer["frame"]["total"]) == [Decimal("5.00")]
            answer["rows"][0]["status"] = "MINE"
            answer["rows"].append(1)
            answer["frame"].loc[0, "status"] = "MINE"
            answer["frame"].pop("total")
            assert isinstance(answer["all"], Rows)
        assert outcomes(lab) == ["done", "cached", "cached"]
        kept = lab.ask(Everything())
        lab.send(place(2))
        lab.catch_up()
        assert (len(kept), len(lab.ask(Everything()))) == (1, 2)
        for shape in ("pl", "df", "arrow"):
            lengths = [len(lab.ask(Everything(shape=shape))) for _ in range(2)]
            assert lengths == [2, 2]
            assert outcomes(lab)[-2:] == ["done", "cached"]


def test_time_ends_an_answer(monkeypatch):
    """After cache_seconds an answer is asked for again, whatever happened."""
    now = [0]
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with open_shop(cache_seconds=60) as lab:
        lab.serve(order_summary)
        for now[0] in (0, 59, 61, 120, 122):
            lab.ask(OrderDetails(order_id="o-1"))
        assert outcomes(lab) == ["done", "cached", "done", "cached", "done"]


def test_servings_are_kept_apart_and_refreshed_ones_are_asked_again():
    """A refresh or rebuild drops the answers of its own serving; those of another one stay as old as that is."""
    with open_shop(cache_seconds=60) as lab:
        lab.send(place())
        table, projection = lab.serve(order_summary, as_="materialized"), lab.serve(order_summary)
        query = OrderDetails(order_id="o-1")
        ways = ("materialized", "projection")
        assert [lab.ask(query, served_as=way)["status"] for way in ways] == ["PENDING"] * 2
        lab.send(pay())
        projection.catch_up()
        assert [lab.ask(query, served_as=way)["status"] for way in ways] == ["PENDING", "PAID"]
        assert outcomes(lab)[-2:] == ["cached", "done"]
        table.refresh()
        assert [lab.ask(query, served_as=way)["status"] for way in ways] == ["PAID", "PAID"]
        assert outcomes(lab)[-2:] == ["done", "cached"]
        projection.rebuild()
        lab.ask(query, served_as="projection")
        assert outcomes(lab)[-1] == "done"


def test_a_select_that_changed_is_not_answered_from_the_cache():
    """When another SELECT is declared under the name, asking says that a rebuild is needed, kept answer or not."""
    old = ReadModel("mine", "order_id", "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id")
    new = ReadModel("mine", "order_id", "SELECT order_id, 10 * count(*) AS n FROM order_events GROUP BY order_id")

    class Mine(Query):
        model: ClassVar[Any] = old

        def answer(self, read: Any) -> Any:
            return read.get("o-1")["n"]

    with shop_with(Mine) as lab:
        lab.send(place())
        lab.serve(old)
        assert [lab.ask(Mine()), lab.ask(Mine())] == [1, 1]
        Mine.model = new
        lab._catalog.find(new)
        with pytest.raises(RebuildNeeded):
            lab.ask(Mine(), served_as="projection")
        assert lab.ask(Mine()) == 10
        lab.serve(new).rebuild()
        assert lab.ask(Mine(), served_as="projection") == 10


def test_what_was_erased_is_not_answered(tmp_path):
    """forget() clears the answers of every lab over the file, also of models that only one of them knows."""
    contacts = ReadModel(
        "contacts", "customer_id", "SELECT customer_id, max(name) AS name FROM customer_events GROUP BY customer_id"
    )

    class Name(Query):
        model: ClassVar[ReadModel] = contacts
        customer_id: str

        def answer(self, read: Any) -> Any:
            return (read.get(self.customer_id) or {}).get("name")

    path = tmp_path / "shop.duckdb"
    domain = Domain(deciders=[shop.customers], read_models=[contacts], queries=[Name])
    with open_shop(path) as other, Lab(path, domain=domain, cache_seconds=60) as lab:
        lab.send(RegisterCustomer(customer_id="c-1", name="Ann", email="a@b.c"))
        lab.serve(contacts)
        assert [lab.ask(Name(customer_id="c-1")) for _ in range(2)] == ["Ann", "Ann"]
        other.forget("c-1")
        assert not any(lab._queries._cache.entries.values())  # nor does it stay in memory
        assert lab.ask(Name(customer_id="c-1")) is None


def test_another_lab_over_the_file_drops_the_answers_too(tmp_path):
    """Rows belong to the file: whichever lab moves them, no lab answers as before; a closed lab answers nothing."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path, cache_seconds=60) as one, open_shop(path) as other:
        one.serve(order_summary)
        query = OrderDetails(order_id="o-1")
        assert one.ask(query) is None
        other.send(place())
        assert one.ask(query) is None
        other.catch_up()
        assert one.ask(query)["status"] == "PENDING"
        assert outcomes(one) == ["done", "cached", "done"]
    with pytest.raises(StoreClosed):
        one.ask(query)
