"""Queries over HTTP: positions, tags, patience, and the bounds of an answer."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.serving import TestClient, inside, order

from cqrs_lab import Domain, Event, Lab, Projection, Query, ReadModel, open_shop
from cqrs_lab.errors import DeclarationError
from cqrs_lab.http import Limits, app
from cqrs_lab.shop import order_list, order_summary
from cqrs_lab.store.database import Database


class Happened(Event):
    thing_id: str


things = ReadModel("things", key="thing_id", sql="SELECT thing_id, count(*) AS times FROM thing_events GROUP BY 1")


class Things(Query):
    model: ClassVar[ReadModel] = things
    ids: tuple[str, ...] = ()
    least: int = 0

    def answer(self, read: Any) -> Any:
        return [list(self.ids), self.least, len(read.rows())]


class Endless(Query):
    model: ClassVar[ReadModel] = things

    def answer(self, read: Any) -> Any:
        return read.sql("SELECT sum(a.range * b.range) FROM things, range(10000000) AS a, range(10000000) AS b")


class Large(Query):
    model: ClassVar[ReadModel] = things

    def answer(self, read: Any) -> Any:
        return read.rows()


def facts(**more: Any) -> Lab:
    """A lab about things, ten of which have happened."""
    queries = [Things, Endless, Large]
    lab = Lab(
        domain=Domain.of_events("thing", key="thing_id", events=[Happened], read_models=[things], queries=queries)
    )
    for n in range(10):
        lab.record(f"t-{n}", Happened(thing_id=f"t-{n}"))
    return lab


def test_what_was_written_can_be_read(web: TestClient) -> None:
    """With the position of the receipt the answer tells the command, at the first question, and its tag says so."""
    for n in range(20):
        position = web.post("/commands/PlaceOrder", json=order(f"o-{n}")).json()["position"]
        answer = web.get("/queries/OrderDetails", params={"order_id": f"o-{n}", "at_least": position})
        assert (answer.status_code, answer.json()["total"]) == (200, "19.98")
        assert int(answer.headers["etag"].strip('"').split(".")[0]) >= position


def test_rows_are_a_list(web: TestClient) -> None:
    """Rows come as objects, none as null; parameters become what the query's fields are."""
    position = web.post("/commands/PlaceOrder", json=order("o-1")).json()["position"]
    many = web.get("/queries/OrdersOfCustomer", params={"customer_id": "c-1", "at_least": position})
    assert [row["order_id"] for row in many.json()] == ["o-1"]
    assert web.get("/queries/OrderDetails", params={"order_id": "none"}).json() is None
    assert web.get("/queries/SalesByDay", params={"since": "2020-01-01"}).json() == []


def test_an_answer_that_has_not_changed_is_not_sent_again(lab: Lab, web: TestClient) -> None:
    """The tag begins with the position; 304 while nothing has moved, 200 afterwards."""
    position = web.post("/commands/PlaceOrder", json=order("o-1")).json()["position"]
    ask = {"order_id": "o-1", "at_least": position}
    first = web.get("/queries/OrderDetails", params=ask)
    assert first.headers["etag"].startswith(f'"{position}.')
    again = web.get("/queries/OrderDetails", params=ask, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    several = f'"7", W/{first.headers["etag"]}'
    assert web.get("/queries/OrderDetails", params=ask, headers={"If-None-Match": several}).status_code == 304
    position = web.post("/commands/PayOrder", json={"order_id": "o-1", "amount": "19.98"}).json()["position"]
    ask["at_least"] = position
    later = web.get("/queries/OrderDetails", params=ask, headers={"If-None-Match": first.headers["etag"]})
    assert (later.status_code, later.json()["status"]) == (200, "PAID")


def test_what_was_forgotten_is_not_kept_by_its_tag(lab: Lab) -> None:
    """An erasure changes rows at the same position, so the tag changes with it."""
    with inside(lab) as web:
        web.post("/commands/RegisterCustomer", json={"customer_id": "c-1", "name": "Ann", "email": "a@b.org"})
        position = web.post("/commands/PlaceOrder", json=order("o-1")).json()["position"]
        ask = {"order_id": "o-1", "at_least": position}
        first = web.get("/queries/OrderDetails", params=ask)
        assert first.json()["customer_name"] == "Ann"
        lab.forget("c-1")
        again = web.get("/queries/OrderDetails", params=ask, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.json()["customer_name"]) == (200, None)


def test_what_was_forgotten_while_no_server_ran_is_not_kept_by_its_tag(tmp_path: Path) -> None:
    """A tag of the server before this one tells nothing: rows, read models and queries may have changed meanwhile."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path) as shop:
        shop.serve(order_summary, as_="view")
    with open_shop(path) as shop, inside(shop) as web:
        web.post("/commands/RegisterCustomer", json={"customer_id": "c-1", "name": "Ann", "email": "a@b.org"})
        web.post("/commands/PlaceOrder", json=order("o-1"))
        first = web.get("/queries/OrderDetails", params={"order_id": "o-1"})
        tag = {"If-None-Match": first.headers["etag"]}
        assert web.get("/queries/OrderDetails", params={"order_id": "o-1"}, headers=tag).status_code == 304
    with open_shop(path) as shop:
        shop.forget("c-1")
    with open_shop(path) as shop, inside(shop) as web:
        again = web.get("/queries/OrderDetails", params={"order_id": "o-1"}, headers=tag)
        assert (again.status_code, again.json()["customer_name"]) == (200, None)


def test_an_event_that_is_no_longer_set_aside_changes_the_tag() -> None:
    """A retry changes rows at the position where they stand, and a tag from before it is not answered with 304."""
    counted = Projection("counted", "thing_id", {"thing_id": str})
    broken = {"t-1"}

    @counted.on(Happened)
    def _(recorded: Any, rows: Any) -> None:
        if recorded.event.thing_id in broken:
            raise ValueError("not now")
        rows.put(thing_id=recorded.event.thing_id)

    class Counted(Query):
        model: ClassVar[Projection] = counted

        def answer(self, read: Any) -> Any:
            return len(read.rows())

    domain = Domain.of_events("thing", key="thing_id", events=[Happened], read_models=[counted], queries=[Counted])
    with Lab(domain=domain) as lab, inside(lab) as web:
        lab.serve(counted, mode="manual", on_error="dead letter")
        for name in ("t-1", "t-2"):
            lab.record(name, Happened(thing_id=name))
        lab.catch_up()
        first = web.get("/queries/Counted")
        assert first.json() == 1
        tag = {"If-None-Match": first.headers["etag"]}
        assert web.get("/queries/Counted", headers=tag).status_code == 304
        broken.clear()
        assert lab.retry_dead_letters(counted) == 1
        again = web.get("/queries/Counted", headers=tag)
        assert (again.status_code, again.json()) == (200, 2)


def test_what_is_not_there_yet_is_said(lab: Lab) -> None:
    """503 tells how far it is and when to come again; a position beyond the log is the client's mistake."""
    with inside(lab) as web:
        position = web.post("/commands/PlaceOrder", json=order("o-1")).json()["position"]
        lab.serve(order_list, as_="materialized", refresh_every=1_000)
        lab.serve(order_summary, as_="materialized", refresh_every=1_000)
        web.post("/commands/PlaceOrder", json=order("o-2"))
        ask = {"order_id": "o-2", "at_least": position + 1, "served_as": "materialized", "timeout": 0.05}
        answer = web.get("/queries/OrderDetails", params=ask)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (answer.json()["type"], answer.json()["position"]) == ("urn:cqrs-lab:not-yet", position)
        beyond = web.get("/queries/OrderDetails", params={"order_id": "o-1", "at_least": 99})
        assert (beyond.status_code, beyond.json()["type"]) == (422, "urn:cqrs-lab:not-served")


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 422),
        ({"order_id": ["a", "b"]}, 422),
        ({"order_id": "o", "sql": "SELECT 1"}, 422),
        ({"order_id": "o", "at_least": "-1"}, 422),
        ({"order_id": "o", "at_least": "9" * 30}, 422),
        ({"order_id": "o", "at_least": "٣"}, 422),
        ({"order_id": "o", "timeout": "nan"}, 422),
        ({"order_id": "o", "timeout": "soon"}, 422),
        ({"order_id": "o", "served_as": "'; DROP TABLE streams"}, 422),
        ({"order_id": "o\0"}, 422),
    ],
)
def test_a_wrong_question_is_refused(web: TestClient, params: dict, status: int) -> None:
    """A field that there is not, and a value that is none, are named."""
    answer = web.get("/queries/OrderDetails", params=params)
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True)


def test_there_is_no_way_in_for_sql(web: TestClient) -> None:
    """Neither a path nor a parameter takes a statement."""
    assert web.get("/queries/sql", params={"question": "SELECT 1"}).status_code == 404
    assert web.post("/sql", content="SELECT 1").status_code == 404


def test_lists_and_numbers_come_as_parameters() -> None:
    """A parameter that is given again and again is a list, and text becomes what the field is."""
    with facts() as lab, inside(lab) as web:
        assert web.get("/queries/Things", params={"ids": ["a", "b"], "least": "3"}).json() == [["a", "b"], 3, 10]
        assert web.get("/queries/Things", params={"ids": "a"}).json() == [["a"], 0, 10]
        assert web.get("/queries/Things", params={"least": "three"}).status_code == 422


def test_a_question_takes_no_longer_than_is_allowed() -> None:
    """It is stopped, the thread answers the next one, and commands go on meanwhile."""
    with facts() as lab, inside(lab, limits=Limits(query_seconds=0.3, queries=1)) as web:
        answer = web.get("/queries/Endless")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:cqrs-lab:query-too-long")
        assert web.get("/queries/Things").status_code == 200


def test_one_question_too_many_is_sent_away() -> None:
    """With its one thread busy and one waiting, the third is told to come again; the others get their answers."""
    with facts() as lab, inside(lab, limits=Limits(query_seconds=2, queries=1, queue=1)) as web:
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(web.get("/queries/Endless").status_code)) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
            time.sleep(0.3)
        third = web.get("/queries/Things")
        for thread in threads:
            thread.join()
        assert (third.status_code, third.json()["type"]) == (503, "urn:cqrs-lab:busy")
        assert len(found) == 2


def test_an_answer_is_no_larger_than_is_allowed() -> None:
    """More rows than that are refused, and not cut."""
    with facts() as lab, inside(lab, limits=Limits(rows=9)) as web:
        answer = web.get("/queries/Large")
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:cqrs-lab:answer-too-large")


class Huge(Query):
    model: ClassVar[ReadModel] = things
    way: str

    def answer(self, read: Any) -> Any:
        if self.way == "sql":
            return read.sql("SELECT t.thing_id, r.range FROM things AS t, range(50000000) AS r")
        return read.rows()


many = ReadModel("many", key="n", sql="SELECT n FROM thing_events, range(1000000) AS r(n) WHERE thing_id = 't-1'")


class Many(Query):
    model: ClassVar[ReadModel] = many

    def answer(self, read: Any) -> Any:
        return read.rows()


@pytest.mark.parametrize("cache_seconds", [None, 60])
def test_an_answer_that_is_too_large_is_not_fetched(cache_seconds: float | None, monkeypatch: Any) -> None:
    """Of an answer with very many rows one more is fetched than is sent, also where answers are kept."""
    fetched: list[int] = []
    asked = Database.arrow

    def arrow(self: Database, *given: Any, **more: Any) -> Any:
        table = asked(self, *given, **more)
        fetched.append(table.num_rows)
        return table

    queries = [Many, Huge]
    domain = Domain.of_events("thing", key="thing_id", events=[Happened], read_models=[things, many], queries=queries)
    with Lab(domain=domain, cache_seconds=cache_seconds) as lab:
        lab.record("t-1", Happened(thing_id="t-1"))
        lab.serve(many, as_="materialized")
        monkeypatch.setattr(Database, "arrow", arrow)
        with inside(lab, limits=Limits(rows=50)) as web:
            for path, params in (("Many", {}), ("Huge", {"way": "sql"})):
                answer = web.get(f"/queries/{path}", params=params)
                assert (answer.status_code, answer.json()["type"]) == (422, "urn:cqrs-lab:answer-too-large")
            assert web.get("/queries/Huge", params={"way": "rows"}).json() == [{"thing_id": "t-1", "times": 1}]
    assert 0 < max(fetched) <= 100_001


def test_a_query_with_a_field_of_the_address_is_refused_at_the_start() -> None:
    """`timeout` says how long to wait, so no query can have a field of that name."""

    class Late(Query):
        model: ClassVar[ReadModel] = things
        timeout: int

        def answer(self, read: Any) -> Any:
            return None

    domain = Domain.of_events("thing", key="thing_id", events=[Happened], read_models=[things], queries=[Late])
    with Lab(domain=domain) as lab, pytest.raises(DeclarationError, match=r"Late\.timeout"):
        app(lab)
