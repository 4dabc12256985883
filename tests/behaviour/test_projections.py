"""Projections in Python: the slow twins of read models, rows and checkpoint together, side effects at least once."""

from __future__ import annotations

import enum
import signal
import threading
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import START, append, assert_same, histories, place, python

from cqrs_lab import Domain, Event, Lab, Projection, ReadModel, Value, open_shop
from cqrs_lab.errors import (
    NotServed,
    NotYet,
    ProjectionFailed,
    RebuildNeeded,
)
from cqrs_lab.shop import (
    CustomerRegistered,
    OrderCancelled,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    RegisterCustomer,
    order_facts,
    order_summary,
    orders,
)

RANKS = ["PENDING", "PAID", "SHIPPED", "DELIVERED", "CANCELLED"]
RANK = {"OrderPaid": 1, "OrderShipped": 2, "OrderDelivered": 3, "OrderCancelled": 4}
EMPTY = {"status": "PENDING", "paid": Decimal(0), "item_count": 0}


def twin(chunk: int = 500) -> Projection:
    """Return order_summary as a projection in Python."""
    made = Projection(
        "orders_by_hand",
        key="order_id",
        columns={
            "order_id": str,
            "customer_id": str,
            "status": str,
            "total": Decimal,
            "paid": Decimal,
            "item_count": int,
            "version": int,
            "created_at": datetime,
            "updated_at": datetime,
        },
        chunk=chunk,
    )

    def handle(recorded: Any, rows: Any) -> None:
        event, kind, at = recorded.event, recorded.type, recorded.occurred_at
        row = rows.get(event.order_id) or EMPTY | {"order_id": event.order_id, "updated_at": at}
        rank = max(RANKS.index(row["status"]), RANK.get(kind, 0))
        row |= {"version": recorded.version, "status": RANKS[rank], "updated_at": max(row["updated_at"], at)}
        if kind == "OrderPlaced":
            row["customer_id"] = max(filter(None, (row.get("customer_id"), event.customer_id)), default=None)
            row["created_at"] = max(filter(None, (row.get("created_at"), at)))
        if kind in ("OrderPlaced", "OrderLineAdded", "OrderLineRemoved") and event.total is not None:
            row["total"] = event.total
        row["item_count"] += sum(line.quantity for line in getattr(event, "lines", None) or ())
        row["item_count"] -= sum(line.quantity for line in getattr(event, "removed", None) or ())
        amount = getattr(event, "amount", None) or 0
        row["paid"] += -amount if kind == "OrderRefunded" else amount
        rows.put(**row)

    for event in orders.events:
        made.on(event)(handle)
    return made


def counting(name: str = "counts", chunk: int = 500, **more: Any) -> Projection:
    """Return how many events each order has; one that is cancelled has no row, shipping with "poison" fails."""
    made = Projection(name, key="order_id", columns={"order_id": str, "n": int}, chunk=chunk, **more)

    @made.on(OrderPlaced)
    @made.on(OrderPaid)
    def _(recorded: Any, rows: Any) -> None:
        row = rows.get(recorded.event.order_id) or {"n": 0}
        rows.put(order_id=recorded.event.order_id, n=row["n"] + 1)

    @made.on(OrderCancelled)
    def _(recorded: Any, rows: Any) -> None:
        rows.delete(recorded.event.order_id)

    @made.on(OrderShipped)
    def _(recorded: Any, rows: Any) -> None:
        rows.put(order_id=recorded.event.order_id, n=-1)
        rows.delete("o-1")
        if recorded.event.tracking_number == "poison":
            raise ValueError("cannot ship")

    return made


def paid(id: str = "o-1") -> tuple[Event, int]:
    """Return one more event of an order."""
    return OrderPaid(order_id=id, amount=Decimal(1)), 0


def shipped(id: str, number: str) -> tuple[Event, int]:
    """Return that an order was shipped; "poison" makes `counting` fail."""
    return OrderShipped(order_id=id, tracking_number=number), 0


POISONED = [paid("o-1"), paid("o-2"), shipped("o-2", "poison"), paid("o-1")]


# -- the same as the SELECT ----------------------------------------------------------------------------------------


@given(
    history=histories,
    cuts=st.lists(st.integers(0, 30), max_size=3),
    chunk=st.sampled_from([1, 2, 3, 500]),
    remembered=st.sampled_from([0, 1, 200_000]),
)
@settings(max_examples=20, deadline=None)
def test_a_twin_in_python_agrees_with_the_select(
    history: list[Any], cuts: list[int], chunk: int, remembered: int
) -> None:
    """For random histories, cuts and chunks the rows are those of the SELECT at that position, and after a rebuild."""
    with open_shop() as lab, mock.patch("cqrs_lab.read.projections._REMEMBERED", remembered):
        served = lab.serve(twin(chunk))
        columns = ", ".join(served._columns)
        facts = ReadModel("facts", "order_id", f"SELECT {columns} FROM order_facts")
        append(lab, history)

        def agree() -> None:
            rows = f"SELECT * REPLACE (version::INTEGER AS version) FROM ({served._select()})"
            assert_same(lab, rows, lab.as_of(position=served.position)._text(facts))

        for cut in sorted(cuts):
            assert served.catch_up(to=cut) == min(lab.head, max(cut, served.position))
            agree()
        assert served.catch_up() == lab.head
        agree()
        before = served.rows().fetchall()
        assert served.rebuild() == lab.head
        assert served.rows().fetchall() == before


@given(steps=st.lists(st.sampled_from([paid("o-1"), paid("o-2"), (OrderCancelled(order_id="o-1"), 0)]), max_size=12))
@settings(max_examples=15, deadline=None)
def test_chunks_make_no_difference(steps: list[Any]) -> None:
    """Rows put, deleted and put again are the same for every size of a chunk, moved or rebuilt."""
    with open_shop() as lab:
        append(lab, steps)
        served = [lab.serve(counting(f"by_{chunk}", chunk)) for chunk in (1, 2, 500)]
        expected = served[0].rows().fetchall()
        counts = {step[0].order_id: 0 for step in steps}
        for step, _ in steps:
            counts[step.order_id] = counts[step.order_id] + 1 if isinstance(step, OrderPaid) else 0
        assert expected == sorted((id, n) for id, n in counts.items() if n)
        for one in served:
            assert one.rows().fetchall() == expected
            one.rebuild()
            assert one.rows().fetchall() == expected


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


# -- as other servings ---------------------------------------------------------------------------------------------


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
    for put, said in [
        ({"order_id": "o", "m": 1}, "no such field"),
        ({"order_id": "o", "n": "many"}, "n: "),
        ({"n": 1}, "order_id"),
    ]:
        bad = Projection("bad", "order_id", {"order_id": str, "n": int})
        bad.on(OrderPaid)(lambda recorded, rows, put=put: rows.put(**put))
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
                lambda served=served: lab._servings.stored(served.model).forward(9),
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
        lab._servings.running.reach(other.model, 2, 5)
        assert (served.state, served.position) == ("rebuild needed", 1)
        served.rebuild()
        append(lab, [paid()])
        lab._servings.running.reach(served.model, 3, 5)
        assert served.rows().fetchall() == [("o-1", 30)]


# -- what fails ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 500])
def test_a_failing_event_stops_it_and_keeps_what_came_before(chunk: int) -> None:
    """Rows and position are those of the events before the one that fails, which has changed nothing; others go on."""
    with open_shop() as lab:
        served, other = lab.serve(counting(chunk=chunk)), lab.serve(order_summary)
        append(lab, POISONED)
        for _ in range(2):
            with pytest.raises(ProjectionFailed, match=r"position 3 \(OrderShipped\): ValueError: cannot ship"):
                lab.catch_up()
        assert (served.position, other.position) == (2, 4)
        assert served.rows().fetchall() == [("o-1", 1), ("o-2", 1)]
        lag = {row["model"]: (row["state"], row["error"] or "") for row in lab.lag().dicts()}
        assert lag["order_summary"] == ("ok", "")
        assert lag["counts"][0] == "stopped"
        assert "cannot ship" in lag["counts"][1]
        with pytest.raises(ProjectionFailed):
            lab._servings.running.reach(served.model, 4, 0.1)
        assert served.catch_up(to=2) == 2


def test_a_failing_event_keeps_a_new_projection_at_what_came_before() -> None:
    """A projection that is new and meets such an event stays where it got; serving it again attaches to it."""
    with open_shop() as lab:
        append(lab, POISONED)
        with pytest.raises(ProjectionFailed):
            lab.serve(counting())
        assert lab.serve(counting()).rows().fetchall() == [("o-1", 1), ("o-2", 1)]


def test_a_failing_rebuild_keeps_the_old_rows() -> None:
    """A rebuild that meets a failing event fails; the old rows and their position stay, nothing is left over."""
    failing: list[bool] = []
    made = Projection("made", "order_id", {"order_id": str, "n": int}, chunk=1)

    @made.on(OrderPaid)
    def _(recorded: Any, rows: Any) -> None:
        if failing and recorded.position == 2:
            raise ValueError("no more")
        rows.put(order_id=recorded.event.order_id, n=recorded.position)

    with open_shop() as lab:
        append(lab, [paid("o-1"), paid("o-2"), paid("o-1")])
        served = lab.serve(made, on_error="dead letter")
        failing.append(True)
        with pytest.raises(ProjectionFailed, match="no more"):
            served.rebuild()
        assert (served.position, served.rows().fetchall()) == (3, [("o-1", 3), ("o-2", 2)])
        tables = "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'projection'"
        assert lab._log.database.execute(tables) == [(1,)]
        failing.clear()
        assert served.rebuild() == 3


KILLED = """
import os, signal, sys
from test_projections import *
from cqrs_lab.read.servings import Servings
made = counting(chunk=3)
sent = Projection("sent", side_effect=True, chunk=2)
@sent.on(OrderPaid)
def _(recorded, rows):
    with open(sys.argv[1] + ".sent", "a") as file:
        file.write(f"{recorded.position}\\n")
with open_shop(sys.argv[1]) as lab:
    served = lab.serve(sent if sys.argv[2] == "sent" else made)
    append(lab, [paid(f"o-{number % 2}") for number in range(8)])
    write, calls = Servings.write_checkpoint, []
    def dying(*args):
        calls.append(args)
        if len(calls) == 3 and sys.argv[3] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        written = write(*args)
        if len(calls) == 3 and sys.argv[3] == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return written
    Servings.write_checkpoint = dying
    served.catch_up()
"""


def kill(path: Path, what: str, when: str) -> None:
    """Run a process that is killed between the third chunk and its checkpoint."""
    assert python(KILLED, path, what, when, beside=__file__).returncode == -signal.SIGKILL


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_between_rows_and_checkpoint_loses_both(when: str, tmp_path: Path) -> None:
    """After kill -9 rows and position are those of the last whole chunk, and catching up ends as without a crash."""
    path = tmp_path / "lab.duckdb"
    kill(path, "made", when)
    with open_shop(path) as lab:
        served = lab.serve(counting(chunk=3))
        assert (served.position, served.rows().fetchall()) == (6, [("o-0", 3), ("o-1", 3)])
        assert served.catch_up() == 8
        assert served.rows().fetchall() == [("o-0", 4), ("o-1", 4)]


# -- side effects --------------------------------------------------------------------------------------------------


def sending(sent: list[int], **more: Any) -> Projection:
    """Return a projection that notes what it sends; a file in its place, and it is mail."""
    made = Projection("sent", side_effect=True, **more)
    made.on(OrderPaid)(lambda recorded, rows: sent.append(recorded.position))
    return made


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


def test_side_effects_happen_at_least_once(tmp_path: Path) -> None:
    """After kill -9 the events behind the checkpoint come again, never fewer than all and none before it."""
    path = tmp_path / "lab.duckdb"
    kill(path, "sent", "before")
    done = [int(line) for line in Path(f"{path}.sent").read_text().split()]
    assert done == [1, 2, 3, 4, 5, 6]
    with open_shop(path) as lab:
        served = lab.serve(sending(done))
        assert served.position == 4
        served.catch_up()
    assert done == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8]


def append_again(lab: Lab, recorded: Any, how: str) -> None:
    """Append something about another order, as no handler may to the log that it follows."""
    order = f"{recorded.event.order_id}-again"
    if how == "append_table":
        lab.append_table("order", polars.DataFrame({"id": [order], "type": ["OrderPaid"], "occurred_at": [START]}))
    else:
        command = place(order)
        lab.send(command) if how == "send" else lab.send_many([command])


@pytest.mark.parametrize("how", ["send", "send_many", "append_table"])
def test_a_handler_appends_nothing_to_its_own_log(how: str) -> None:
    """Whatever it appends with is refused, and says what to do; another lab's log takes what it sends."""
    mails = Projection("mails", side_effect=True)
    with open_shop() as lab, open_shop() as other:
        to: list[Lab] = [lab]

        @mails.on(OrderPlaced)
        def _(recorded: Any, rows: Any) -> None:
            append_again(to[0], recorded, how)

        served = lab.serve(mails)
        lab.send(place(1))
        with pytest.raises(ProjectionFailed, match=r"a handler of the projection mails appends .* make it a saga"):
            served.catch_up()
        assert (lab.head, served.position) == (1, 0)
        to[0] = other
        assert served.catch_up() == 1
        assert (lab.head, other.head) == (1, 1)
        assert lab.send(place(2)).position == 2


@pytest.mark.parametrize("how", ["send", "append_table"])
def test_a_handler_that_sends_holds_nobody_up(how: str) -> None:
    """In the background it is refused while others append with an inline serving, and all of these come through."""
    mails = Projection("mails", side_effect=True)
    with open_shop() as lab:

        @mails.on(OrderPlaced)
        def _(recorded: Any, rows: Any) -> None:
            append_again(lab, recorded, how)

        lab.serve(order_summary, mode="inline")
        lab.serve(mails, mode="background", on_error="dead letter")

        def send(thread: int) -> None:
            for number in range(20):
                lab.send(place(f"{thread}-{number}"))

        threads = [threading.Thread(target=send, args=(n,), daemon=True) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert len(lab.serve(order_summary).rows()) == 60


def test_a_position_that_it_cannot_reach_is_said() -> None:
    """Waiting for a projection that fails in the background ends with NotYet and the reason."""
    with open_shop() as lab:
        served = lab.serve(counting(), mode="background")
        append(lab, POISONED)
        with pytest.raises(NotYet, match="cannot ship") as late:
            lab._servings.running.reach(served.model, 4, 0.5)
        assert late.value.position == 2


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
