"""Forks: other worlds over the log up to a point, with events dropped, edited and injected."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import START, append, events, fold_summary, histories, pay, place
from support.layers import MODELS, listed

from cqrs_lab import Event, Lab, open_shop
from cqrs_lab.errors import DeclarationError, InvalidMessage, InvalidMoment, RuleViolated
from cqrs_lab.shop import (
    CustomerRegistered,
    OrderCancelled,
    OrderPaid,
    OrderRefunded,
    PayOrder,
    RegisterCustomer,
    order_summary,
)


@pytest.fixture
def lab():
    """A shop with a customer and two orders, one of them paid and then cancelled by an event."""
    with open_shop(threads=1) as lab:
        lab.send(RegisterCustomer(customer_id="c-1", name="Ann", email="a@example.org"))
        for id in ("o-1", "o-2"):
            lab.send(place(id), command_id=f"place {id}")
        lab.send(pay(), command_id="pay o-1")
        append(lab, [(OrderCancelled(order_id="o-1", reason="r"), 0)])
        yield lab


def tables(lab: Lab, to: int) -> dict[str, Any]:
    """Return all that the log holds up to a position."""
    database, heads = lab._log.database, lab._log.heads
    names = [f"{name}_events" for name in heads.tables] + [f"{name}_personal" for name in heads.personal]
    return {
        name: database.execute(f"SELECT * FROM {name} WHERE position <= {to} ORDER BY position") for name in names
    } | {"events": lab.events().arrow().slice(0, to)}


def schema(lab: Lab) -> list[Any]:
    """Return the statements that make the tables and indexes of a store."""
    return lab._log.database.execute(
        "SELECT sql FROM duckdb_tables() WHERE schema_name = 'main' UNION ALL "
        "SELECT sql FROM duckdb_indexes() ORDER BY 1"
    )


def told(lab: Lab) -> list[tuple[Event, float]]:
    """Return the events of orders, as a history."""
    kinds = list(lab._categories["order"].types.values())
    found = lab._log.read_events(kinds, 0, lab.head, 10_000)
    return [(recorded.event, (recorded.occurred_at - START) / timedelta(minutes=1)) for recorded in found]


def check_whole(lab: Lab) -> None:
    """Assert that positions and versions have no holes, recorded times do not go back, ids are unique and rows fit."""
    rows = lab.events().dicts()
    assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
    versions: dict[str, int] = {}
    for row in rows:
        versions[row["stream"]] = versions.get(row["stream"], 0) + 1
        assert row["version"] == versions[row["stream"]]
    times = [row["recorded_at"] for row in rows]
    assert times == sorted(times)
    assert len({row["event_id"] for row in rows}) == len(rows)
    streams = {row[0] for row in lab._log.database.execute("SELECT stream FROM streams")}
    assert streams == set(versions)
    now = lab.as_of(position=lab.head).rows(order_summary).dicts()
    unnamed = {"customer_name": None, "customer_email": None}  # the fold is of orders alone
    assert {row["order_id"]: row | unnamed for row in now} == fold_summary(told(lab))


@given(history=histories, data=st.data())
@settings(max_examples=10, deadline=None)
def test_a_fork_is_the_log_up_to_a_point(history, data):
    """Positions, versions, ids, times, tables and their keys are the same, and all read models say what as_of says."""
    with open_shop(threads=1) as lab:
        append(lab, history)
        position = data.draw(st.integers(0, lab.head))
        with lab.fork(position=position) as fork:
            assert fork.head == position
            assert tables(fork, position) == tables(lab, position)
            assert schema(fork) == schema(lab)
            assert len(lab.diff(order_summary, lab.as_of(position=position), fork)) == 0
            check_whole(fork)


@given(history=histories, data=st.data())
@settings(max_examples=12, deadline=None)
def test_a_changed_fork_is_the_changed_history(history, data):
    """Whatever is dropped, edited and injected, the fork is what appending the changed history would have been."""
    numbered = list(enumerate(history, start=1))
    places = st.integers(1, max(len(history), 1))
    drop = data.draw(st.sets(places, max_size=4))
    edits = data.draw(st.dictionaries(places, events, max_size=3)) if history else {}
    added = data.draw(st.lists(st.tuples(events, st.integers(0, 99), st.integers(0, len(history))), max_size=3))
    expected: list[Any] = []
    for position, (event, minute) in [(0, (None, 0)), *numbered]:
        if position and position not in drop:
            expected.append((edits.get(position, event), minute))
        expected += [(extra, at) for extra, at, after in added if after == position]
    with open_shop(threads=1) as lab:
        append(lab, history)
        before = tables(lab, lab.head)
        with lab.fork(
            drop=drop,
            edit=lambda recorded: edits.get(recorded.position),
            inject=[(event, START + timedelta(minutes=at), after) for event, at, after in added],
        ) as fork:
            assert told(fork) == expected
            check_whole(fork)
            append(fork, history)
            check_whole(fork)
        assert tables(lab, lab.head) == before


@pytest.mark.parametrize(
    "drop",
    [{4, 5}, {"OrderPaid", "OrderCancelled"}, {OrderPaid, 5}, lambda e: e["type"] in ("OrderPaid", "OrderCancelled"),
     lambda e: e["data"].get("method") == "card" or e["data"].get("reason") == "r"],
)  # fmt: skip
def test_events_are_dropped_by_what_they_are(lab, drop):
    """Positions, types, classes and a predicate of the event as a dict say what to leave out."""
    with lab.fork(drop=drop) as fork:
        assert [row["type"] for row in fork.events().dicts()] == ["CustomerRegistered", "OrderPlaced", "OrderPlaced"]
        assert fork.as_of(position=3).get(order_summary, "o-1")["status"] == "PENDING"


def test_a_stream_is_dropped_whole(lab):
    """A stream that is left out is as if it had never been: its thing can begin again."""
    with lab.fork(drop={"order/o-1"}) as fork:
        assert fork.send(place()).version == 1
        check_whole(fork)


def test_edited_and_injected_events(lab):
    """An edited event keeps its times and ids; an injected one comes at the end or after a position."""
    was = lab.events().dicts()
    late = START + timedelta(days=400)
    with lab.fork(
        edit={3: {"customer_id": "c-9"}, 1: {"name": "Bea"}},
        inject=[(OrderPaid(order_id="o-2", amount=5), late), (OrderRefunded(order_id="o-1", amount=1), late, 4)],
    ) as fork:
        now = fork.events().dicts()
        assert [row["type"] for row in now][3:] == ["OrderPaid", "OrderRefunded", "OrderCancelled", "OrderPaid"]
        kept = ("position", "stream", "version", "type", "occurred_at", "recorded_at", "event_id", "correlation_id")
        assert [{k: row[k] for k in kept} for row in now[:4]] == [{k: row[k] for k in kept} for row in was[:4]]
        assert now[4]["recorded_at"] == was[3]["recorded_at"]
        assert now[4]["occurred_at"] == late
        assert '"Bea"' in now[0]["data"]
        assert fork.as_of(position=fork.head).get(order_summary, "o-2")["customer_id"] == "c-9"
        changed = lab.diff(order_summary, lab, fork).dicts()
        assert [(row["change"], row["order_id"]) for row in changed] == [("changed", "o-1"), ("changed", "o-2")]
        assert (changed[1]["before"]["status"], changed[1]["after"]["status"]) == ("PENDING", "PAID")


def test_worlds_go_their_own_ways(lab):
    """What is sent to one world stays there; both know the commands that were sent before they parted."""
    with lab.fork() as fork:
        assert fork.send(pay(), command_id="pay o-1").position == 4  # as it was
        fork.send(PayOrder(order_id="o-2", amount="5.00"), command_id="new")
        assert (lab.head, fork.head) == (5, 6)
        assert lab.as_of(position=5).get(order_summary, "o-2")["status"] == "PENDING"
        lab.send(PayOrder(order_id="o-2", amount="5.00"), command_id="new")
        with lab.fork(position=3) as early:
            early.send(pay(), command_id="pay o-1")
            assert early.head == 4
        with pytest.raises(RuleViolated):
            fork.send(PayOrder(order_id="o-2", amount="5.00"), command_id="another")


def test_a_fork_up_to_a_time(lab):
    """recorded= and occurred= cut the log as they do for as_of; what had not occurred leaves no hole."""
    append(lab, [(OrderPaid(order_id="o-2", amount=1), 60 * 24 * 4)])
    with lab.fork(occurred=START + timedelta(days=1)) as fork:
        assert [row["type"] for row in fork.events().dicts()] == ["OrderCancelled"]
        check_whole(fork)
    first = lab.events().dicts()[0]["recorded_at"]
    with lab.fork(recorded=first) as fork:
        assert fork.head == lab.as_of(recorded=first).position


def test_other_read_models_come_along(lab):
    """A read model that was declared later, and a diff by its name, work in both worlds."""
    for model in MODELS:
        lab.serve(model)
    with lab.fork(drop={CustomerRegistered}) as fork:
        rows = lab.diff("listed", lab, fork).dicts()
        assert [(row["before"]["name"], row["after"]["name"]) for row in rows] == [("Ann", None)] * 2
        assert [row["change"] for row in fork.diff(listed, lab, fork.as_of(position=0)).dicts()] == ["removed"] * 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"edit": {99: {}}}, InvalidMoment),
        ({"edit": {4: {"amount": -1}}}, InvalidMessage),
        ({"inject": [(OrderPaid(order_id="o-1"), START, 99)]}, InvalidMoment),
        ({"inject": [(Event(), START)]}, DeclarationError),
        ({"position": 99}, InvalidMoment),
    ],
)
def test_a_change_that_means_nothing_is_refused(lab, change, error):
    """Positions outside of the log, fields that break a rule and events of no category are refused."""
    with pytest.raises(error):
        lab.fork(**change)
