"""The query bus: its middleware, and a cache that never tells what is no longer so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import append, events, place
from support.layers import MODELS as LAYERS
from support.layers import by_customer, listed

from cqrs_lab import Domain, Lab, Query, ReadModel, open_shop, shop
from cqrs_lab.errors import (
    DeclarationError,
    NotAllowed,
    NotServed,
    NotYet,
    RebuildNeeded,
    StoreClosed,
    UnknownQuery,
)
from cqrs_lab.read.cache import Changed
from cqrs_lab.read.query_bus import Asked
from cqrs_lab.rows import Rows
from cqrs_lab.shop import (
    OrderDetails,
    OrderPaid,
    OrderPlaced,
    OrdersOfCustomer,
    PayOrder,
    RegisterCustomer,
    order_summary,
)
from cqrs_lab.workbench import poll


class ByStatus(Query):
    """How many orders have a status."""

    model: ClassVar[ReadModel] = order_summary
    status: str | None
    customer_id: str | None = None

    def answer(self, read: Any) -> Any:
        return sorted(row[0] for row in read.where(status=self.status, CUSTOMER_id=self.customer_id))


class Everything(Query):
    """All orders, in the shape that is asked for."""

    model: ClassVar[ReadModel] = order_summary
    shape: str = "rows"

    def answer(self, read: Any) -> Any:
        return read.rows() if self.shape == "rows" else getattr(read, self.shape)()


class Counted(Query):
    """What only a SELECT can say, of this model and of another."""

    model: ClassVar[ReadModel] = order_summary

    def answer(self, read: Any) -> Any:
        return read.sql(
            "SELECT (SELECT count(*) FROM order_summary), (SELECT sum(orders) FROM daily_orders)"
        ).fetchall()


class Listed(Query):
    """A row of a layer."""

    model: ClassVar[ReadModel] = listed
    order_id: str

    def answer(self, read: Any) -> Any:
        return read.get(self.order_id), [row[0] for row in read.where(mail="Ann")]


class OfCustomer(Query):
    """A row of another layer."""

    model: ClassVar[ReadModel] = by_customer
    customer_id: str

    def answer(self, read: Any) -> Any:
        return read.get(self.customer_id)


def shop_with(*queries: type[Query], cache_seconds: float | None = 60, path: Any = ":memory:", **more: Any) -> Lab:
    """Open a shop that knows more queries, and keeps answers."""
    domain = Domain(
        deciders=[shop.orders, shop.customers, shop.products],
        read_models=[order_summary, shop.daily_orders, *LAYERS],
        queries=[OrderDetails, OrdersOfCustomer, *queries],
        services=[shop.payments(shop.SimulatedGateway())],
        **more,
    )
    return Lab(path, domain=domain, cache_seconds=cache_seconds, threads=1)


def outcomes(lab: Lab) -> list[str]:
    """What became of the queries so far."""
    return [outcome for _, outcome, _ in lab.query_times()]


# -- middleware --------------------------------------------------------------------------------------------------------


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


# -- the cache: what is kept -------------------------------------------------------------------------------------------


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
        lab.send(PayOrder(order_id="o-1", amount="5.00"))
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
        lab.send(PayOrder(order_id="o-1", amount="5.00"))
        assert [lab.ask(query) for query in asked] == [[], ["o-1"], []]
        assert outcomes(lab)[4:] == ["done", "done", "cached"]
        lab.send(place(2, customer="c-2"))
        assert [lab.ask(query) for query in asked] == [[], ["o-1"], []]
        assert outcomes(lab)[7:] == ["cached"] * 3
        assert len(lab.ask(Everything())) == 2
        assert outcomes(lab)[-1] == "done"


def test_other_values_than_plain_ones_are_left_to_duckdb():
    """Where Python cannot say what DuckDB takes for equal (casts, NaN, collations), a change drops the answer."""
    model = ReadModel("loose", "k", "SELECT order_id COLLATE NOCASE AS k, count(*) AS n FROM order_events GROUP BY ALL")

    class Loose(Query):
        model: ClassVar[ReadModel]
        key: str

        def answer(self, read: Any) -> Any:
            return read.get(self.key)

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
        assert lab.ask(Loose(key="O-1")) is None
        assert [lab.ask(Paid(paid=value)) for value in values] == [0] * 6
        lab.send(place())
        lab.send(PayOrder(order_id="o-1", amount="5.00"))
        assert lab.ask(Loose(key="O-1"))["n"] == 2
        assert [lab.ask(Paid(paid=value)) for value in values] == [1] * 6


@pytest.mark.parametrize(
    ("value", "row", "reached"),
    [("a", "a", True), ("a", "b", False), (1, 2, False), (1, True, True), (1, 1.0, True), (1.5, 2.5, True),
     (None, None, True), (None, 1, False), ("a", None, False), (1, [1], True), ([1], None, True),
     (date(2025, 1, 1), date(2025, 1, 2), False), (date(2025, 1, 1), datetime(2025, 1, 1), True),
     (datetime(2025, 1, 1), datetime(2025, 1, 1, tzinfo=UTC), True), (Decimal("1.0"), Decimal("1.00"), True),
     ("x", UUID(int=1), True), (b"x", b"y", False)],
    ids=repr,
)  # fmt: skip
def test_a_change_reaches_what_it_could_equal(value, row, reached):
    """Values of one plain kind are compared; of two kinds, or of another one, they might be equal."""
    assert Changed(["K", "other"], [(row, 1)]).reaches((("k", value),)) is reached
    assert Changed(["k"], [(row,)]).reaches(())
    assert not Changed(["k"], []).reaches((("k", "a"),))


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


def test_time_ends_an_answer():
    """After cache_seconds an answer is asked for anew, whatever happened."""
    with open_shop(cache_seconds=0.05) as lab:
        lab.serve(order_summary)
        query = OrderDetails(order_id="o-1")
        _, polls = poll(lambda: lab.ask(query) or outcomes(lab), lambda seen: seen.count("done") == 2, every=0.01)
        assert polls > 2
        assert "cached" in outcomes(lab)


# -- the cache: when it goes -------------------------------------------------------------------------------------------


def test_servings_are_kept_apart_and_refreshed_ones_are_asked_again():
    """A refresh or rebuild drops the answers of its own serving; those of another one stay as old as that is."""
    with open_shop(cache_seconds=60) as lab:
        lab.send(place())
        table, projection = lab.serve(order_summary, as_="materialized"), lab.serve(order_summary)
        query = OrderDetails(order_id="o-1")
        ways = ("materialized", "projection")
        assert [lab.ask(query, served_as=way)["status"] for way in ways] == ["PENDING"] * 2
        lab.send(PayOrder(order_id="o-1", amount="5.00"))
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
        lab._servings.find(new)
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
        assert not +lab._servings.caches._open


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
            lab.send(PayOrder(order_id="o-1", amount="5.00"))
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
        real, seen = lab._servings.write_checkpoint, []

        def while_moving(*given: Any) -> Any:  # after the rows are written, before they are committed
            reader = threading.Thread(target=lambda: seen.append(lab.ask(query)["status"]))
            reader.start()
            reader.join()
            return real(*given)

        assert lab.ask(query)["status"] == "PENDING"
        monkeypatch.setattr(lab._servings, "write_checkpoint", while_moving)
        lab.send(PayOrder(order_id="o-1", amount="5.00"))
        served.catch_up()
        assert set(seen) == {"PENDING"}
        assert lab.ask(query)["status"] == "PAID"


# -- the cache: properties ---------------------------------------------------------------------------------------------

QUERIES: list[Query] = [
    *(OrderDetails(order_id=id) for id in ("o-1", "o-2", "ö/4")),
    *(OrdersOfCustomer(customer_id=id) for id in ("c-1", "c-2")),
    *(ByStatus(status=s, customer_id=c) for s in ("PENDING", "PAID", "CANCELLED") for c in ("c-1", None)),
    Everything(),
    Counted(),
    *(Listed(order_id=id) for id in ("o-1", "o-2")),
    *(OfCustomer(customer_id=id) for id in ("c-1", "c-2")),
]
people = st.tuples(st.sampled_from(["c-1", "c-2"]), st.sampled_from(["Ann", "Ben"]))
steps = st.lists(
    st.one_of(
        events.map(lambda event: ("append", event)),
        people.map(lambda who: ("register", who)),
        st.lists(st.sampled_from(QUERIES), min_size=1, max_size=4).map(lambda some: ("ask", some)),
        st.sampled_from([("catch up", None), ("rebuild", order_summary), ("rebuild", listed), ("forget", "c-1")]),
        st.sampled_from([order_summary, listed, by_customer]).map(lambda model: ("move", model)),
    ),
    min_size=5,
    max_size=20,
)


def told(answer: Any) -> Any:
    """An answer to compare."""
    return answer.dicts() if isinstance(answer, Rows) else answer


@given(steps=steps, mode=st.sampled_from(["manual", "inline"]))
@settings(max_examples=8, deadline=None)
def test_with_a_cache_every_answer_is_that_of_a_lab_without(steps, mode):
    """Whatever is appended, moved, rebuilt or erased in between, a cache changes no answer."""
    plain = shop_with(ByStatus, Everything, Counted, Listed, OfCustomer, cache_seconds=None)
    cached = shop_with(ByStatus, Everything, Counted, Listed, OfCustomer)
    with plain, cached:
        for lab in (plain, cached):
            for model in (order_summary, listed, by_customer):
                lab.serve(model, mode=mode)
        for number, (what, detail) in enumerate(steps):
            for lab in (plain, cached):
                if what == "append":
                    append(lab, [(detail, number)])
                elif what == "register":
                    event = shop.CustomerRegistered(customer_id=detail[0], name=detail[1], email=detail[1])
                    append(lab, [event])
                elif what == "catch up":
                    lab.catch_up()
                elif what == "rebuild":
                    lab.serve(detail).rebuild()
                elif what == "move":
                    lab.serve(detail).catch_up()
                elif what == "forget":
                    lab.forget(detail, "customer")
            asked = detail if what == "ask" else []
            for query in (*asked, *asked):
                assert told(cached.ask(query)) == told(plain.ask(query))


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
                    version = lab.ask(OrderDetails(order_id=f"o-{order}"), at_least=at if number % 2 else None)[
                        "version"
                    ]
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
        done.set()
        for reader in readers:
            reader.join()
        assert problems == []
        assert "cached" in outcomes(lab)


# -- polling -----------------------------------------------------------------------------------------------------------


def test_polling_asks_until_the_answer_is_there():
    """poll() returns the answer and how often it asked, or says that it gave up."""
    with open_shop() as lab:
        lab.send(place())
        lab.serve(order_summary, mode="background")
        lab.send(PayOrder(order_id="o-1", amount="5.00"))
        row, polls = poll(
            lambda: lab.ask(OrderDetails(order_id="o-1"), served_as="projection"),
            lambda row: row["status"] == "PAID",
            every=0.01,
        )
        assert (row["status"], polls >= 1) == ("PAID", True)
        assert poll(lambda: 1, lambda answer: answer == 1, timeout=0) == (1, 1)
        with pytest.raises(NotYet, match=r"polls in 0\.05 s") as refused:
            poll(lambda: 1, lambda answer: answer == 2, every=0.01, timeout=0.05)
        assert refused.value.position is None
