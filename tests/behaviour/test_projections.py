"""Projections in Python: served as others are, declared with care, rebuilt when their handlers change; side effects."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from support import START, append, place
from support.handlers import counting, paid, sending

from cqrs_lab import Domain, Lab, Projection, ReadModel, Value, open_shop
from cqrs_lab.errors import NotServed, ProjectionFailed, RebuildNeeded
from cqrs_lab.read.handled import stored_of
from cqrs_lab.read.served import reach
from cqrs_lab.shop import CustomerRegistered, OrderPaid, RegisterCustomer, order_facts, order_summary, orders


class Colour(enum.Enum):
    """Kept as text."""

    RED = "red"


class Part(Value):
    """Part of a row."""

    number: int
    at: datetime


@pytest.mark.parametrize("chunk", [1, 500])
def test_a_row_is_read_as_it_was_put(chunk: int) -> None:
    """A handler gets the same values, of the declared types, from memory and from the table."""
    cet = timezone(timedelta(hours=1))
    uuid = UUID(int=7)
    values = {"at": START.astimezone(cet), "colour": Colour.RED, "money": Decimal("1.5"), "yes": True}
    values |= {"parts": [Part(number=1, at=START.astimezone(cet))], "nothing": None}
    types = {"at": datetime, "colour": Colour, "money": Decimal, "yes": bool, "parts": list[Part], "nothing": float}
    odd, seen = Projection("odd", ("no", "id"), {"no": int, "id": UUID, **types}, chunk=chunk), []

    @odd.on(OrderPaid)
    def _(recorded: Any, rows: Any) -> None:
        seen.append(rows.get(7, str(uuid)))
        rows.put(no="7", id=uuid, **values)

    with open_shop() as lab:
        append(lab, [paid()] * 3)
        served = lab.serve(odd)
        assert seen[0] is None
        for row in seen[1:]:
            assert row == {"no": 7, "id": uuid, **values}
            assert (str(row["money"]), row["at"].utcoffset(), type(row["id"])) == ("1.50", timedelta(0), UUID)
        stored = served.get(7, uuid)
        assert stored is not None
        assert (stored["at"], stored["colour"], stored["money"]) == (START, "red", Decimal("1.50"))


def test_it_answers_and_moves_as_other_servings_do(tmp_path: Path) -> None:
    """It is found by name, asked, moved, measured, waited for, and found again after reopening."""
    path = tmp_path / "lab.duckdb"
    domain = Domain(deciders=[orders], projections=[counting()], read_models=[order_facts])
    with Lab(path, domain=domain) as lab:
        append(lab, [paid("o-1"), paid("o-2"), paid("o-1")])
        served = lab.serve("counts")
        assert served.position == 3
        assert served.get("o-1") == {"order_id": "o-1", "n": 2}
        assert served.get("nobody") is None
        assert served.where(n=1).fetchall() == [("o-2", 1)]
        assert served.rows().fetchall() == [("o-1", 2), ("o-2", 1)]
        assert served.sql("SELECT sum(n) FROM counts").fetchall() == [(3,)]
        lab.serve(order_facts)
        both = served.sql("SELECT n, version FROM counts JOIN order_facts USING (order_id) ORDER BY ALL")
        assert both.fetchall() == [(1, 1), (2, 2)]
        append(lab, [paid("o-3")])
        assert {row["model"]: row["events_behind"] for row in lab.lag().dicts()} == {"counts": 1, "order_facts": 1}
        assert lab.catch_up() == served.position == 4
        assert "handlers" in str(served.explain())
    with Lab(path, domain=domain) as lab:
        assert lab.serve("counts").position == 4
        lab.send(place(4), wait_for="counts")
        assert lab.serve("counts").get("o-4") == {"order_id": "o-4", "n": 1}


def test_it_moves_in_the_background(tmp_path: Path) -> None:
    """A projection in Python served in the background is moved by the thread; a command can wait for it."""
    with open_shop(tmp_path / "lab.duckdb") as lab:
        served = lab.serve(counting(), mode="background")
        append(lab, [paid()])
        lab.send(place(2), wait_for="counts")
        assert served.rows().fetchall() == [("o-1", 1), ("o-2", 1)]


def test_a_handler_may_only_put_what_fits() -> None:
    """A column that is not there, a value of another type and a key with a part missing fail, and say so."""
    for use, said in [
        (lambda rows: rows.put(order_id="o", m=1), "no such field"),
        (lambda rows: rows.put(order_id="o", n="many"), "n: "),
        (lambda rows: rows.put(n=1), "order_id"),
    ]:
        bad = Projection("bad", "order_id", {"order_id": str, "n": int})
        bad.on(OrderPaid)(lambda recorded, rows, use=use: use(rows))
        with open_shop() as lab:
            append(lab, [paid()])
            with pytest.raises(ProjectionFailed, match=said):
                lab.serve(bad)


def test_other_columns_or_handlers_need_a_rebuild() -> None:
    """Rows that other columns or handlers made say "rebuild needed", are not moved or shown, and are made anew."""
    with open_shop() as lab:
        append(lab, [paid()])
        lab.serve(counting(), mode="background")
        wider = Projection("counts", "order_id", {"order_id": str, "n": int, "more": str})
        again = Projection("counts", "order_id", {"order_id": str, "n": int})
        for other in (wider, again):
            other.on(OrderPaid)(lambda recorded, rows: rows.put(order_id=recorded.event.order_id, n=7))
            served = lab.serve(other)
            assert served.state == "rebuild needed"
            assert [row["state"] for row in lab.lag().dicts()] == ["rebuild needed"]
            append(lab, [paid()])
            for use in (
                served.catch_up,
                served.rows,
                lambda served=served: stored_of(lab._catalog, served.model, "projection").forward(9),
            ):
                with pytest.raises(RebuildNeeded, match="columns or handlers"):
                    use()
            assert served.rebuild() == lab.head
            assert served.where(n=7).dicts()[0]["order_id"] == "o-1"
        same = Projection("counts", "order_id", {"order_id": str, "n": int})
        same.on(OrderPaid)(again.handlers[OrderPaid])
        assert lab.serve(same).state == "ok"


@pytest.mark.parametrize("mode", ["inline", "background"])
def test_what_moves_by_itself_waits_for_its_rebuild(mode: str) -> None:
    """New events are not merged into rows that another SELECT made: these stay until they are made anew."""
    models = [
        ReadModel("sums", "order_id", f"SELECT order_id, sum({amount}) AS n FROM order_events GROUP BY order_id")
        for amount in ("amount", "amount * 10")
    ]
    with open_shop() as lab:
        append(lab, [paid()])
        lab.serve(models[0], mode=mode)
        served, other = lab.serve(models[1]), lab.serve(order_summary, mode=mode)
        append(lab, [paid()])
        reach(lab._servings.running, other.model, 2, 5)
        assert (served.state, served.position) == ("rebuild needed", 1)
        served.rebuild()
        append(lab, [paid()])
        reach(lab._servings.running, served.model, 3, 5)
        assert served.rows().fetchall() == [("o-1", 30)]


def test_side_effects_are_carried_out_once_the_store_grows() -> None:
    """History is left alone, new events have their effect once, a changed handler goes on; rebuild() is for history."""
    sent: list[int] = []
    with open_shop() as lab:
        append(lab, [paid()] * 2)
        served = lab.serve(sending(sent))
        assert (sent, served.position) == ([], 2)
        append(lab, [paid()] * 3)
        assert (lab.catch_up(), sent) == (5, [3, 4, 5])
        changed = Projection("sent", side_effect=True)
        changed.on(OrderPaid)(lambda recorded, rows: sent.append(-recorded.position))
        append(lab, [paid()])
        served = lab.serve(changed)
        assert (served.state, served.catch_up(), sent) == ("ok", 6, [3, 4, 5, -6])
        lab.send(RegisterCustomer(customer_id="c-1", name="Ada", email="ada@example.org"))
        lab.forget("c-1")
        assert sent == [3, 4, 5, -6]
        assert served.rebuild() == 7
        assert sent == [3, 4, 5, -6, -1, -2, -3, -4, -5, -6]


def test_side_effects_have_no_rows() -> None:
    """A handler for side effects has no rows to put, and nobody has any to read."""
    made = Projection("sent", side_effect=True)
    made.on(OrderPaid)(lambda recorded, rows: rows.put(n=1))
    with open_shop() as lab:
        served = lab.serve(made)
        append(lab, [paid()])
        with pytest.raises(ProjectionFailed, match="has no rows"):
            served.catch_up()
        for ask in (served.rows, served.where, served.get, lambda: served.sql("SELECT * FROM sent")):
            with pytest.raises(NotServed, match="no rows"):
                ask()


def test_who_is_forgotten_is_forgotten_here_too() -> None:
    """Rows that handlers made from personal fields are made anew when somebody is forgotten."""
    book = Projection("book", "customer_id", {"customer_id": str, "email": str})

    @book.on(CustomerRegistered)
    def _(recorded: Any, rows: Any) -> None:
        rows.put(customer_id=recorded.event.customer_id, email=recorded.event.email)

    with open_shop() as lab:
        for id in ("c-1", "c-2"):
            lab.send(RegisterCustomer(customer_id=id, name="Ada", email=f"{id}@example.org"))
        served = lab.serve(book)
        assert served.rows().fetchall() == [("c-1", "c-1@example.org"), ("c-2", "c-2@example.org")]
        lab.forget("c-1")
        assert served.rows().fetchall() == [("c-1", None), ("c-2", "c-2@example.org")]
