"""The live driver keeps to its schedule, counts from the intended moment, and forgets no call."""

from __future__ import annotations

import threading
import time

import polars as pl
import pytest
from support import wait_until

from cqrs_lab import open_shop
from cqrs_lab.errors import QueryError
from cqrs_lab.shop import order_summary
from cqrs_lab.workbench import Workload, drive, generate

SMALL = Workload(orders=60, seed=3)


@pytest.fixture
def lab():
    """A shop with a small workload, and order_summary kept up to date in the background."""
    with open_shop(threads=1) as shop:
        generate(shop, SMALL)
        shop.serve(order_summary, mode="background")
        yield shop


def workers():
    """Return the driver's threads that run."""
    return [one for one in threading.enumerate() if one.name == "cqrs_lab driver"]


def test_every_call_is_made_and_told(lab):
    """As many reads and writes as the rates say are carried out, each with its times; several runs fit into one lab."""
    before = lab.head
    for run in (1, 2):
        driven = drive(lab, seconds=1, reads=60, writes=30, lists=0.2, drain=120, progress=False)
        frame = driven.frame
        assert dict(frame.group_by("kind").len().rows()) == {"read": 60, "write": 30}
        assert frame["ok"].all(), frame["error"].drop_nulls().to_list()
        assert lab.head == before + 30 * run
    assert set(frame["question"]) >= {"OrderDetails", "OrdersOfCustomer", "PlaceOrder"}
    assert frame["intended_at"].is_sorted()
    assert frame["intended_at"].is_between(0, 1).all()
    assert (frame["started_at"] >= frame["intended_at"]).all()
    assert (frame["ms"] >= frame["service_ms"]).all()
    assert frame.filter(kind="read")["staleness_events"].null_count() == 0
    assert frame.filter(kind="write")["staleness_events"].null_count() == 30
    assert set(frame["served_as"]) == {"projection"}
    assert not workers()
    assert "60 reads/s" in repr(driven)
    assert driven.overhead >= 0
    assert driven.summary()["calls"].sum() == 90


def test_orders_go_through_their_stages(lab, monkeypatch):
    """What was placed is paid, shipped and delivered; nobody pays an order while another thread still places it."""
    send, slow = lab.send, iter([0.6])

    def first_slow(command):
        time.sleep(next(slow, 0))
        return send(command)

    monkeypatch.setattr(lab, "send", first_slow)
    driven = drive(lab, seconds=1, reads=0, writes=110, threads=5, drain=120, progress=False)
    assert driven.frame["ok"].all(), driven.frame["error"].drop_nulls().to_list()
    counts = dict(driven.frame.group_by("question").len().rows())
    assert counts == {"PlaceOrder": 24 + 14, "PayOrder": 24, "ShipOrder": 24, "DeliverOrder": 24}


def test_the_wait_of_a_call_is_in_its_latency(lab, monkeypatch):
    """With one thread, calls that come during a slow one wait for its end, and that wait counts as their own."""
    ask, slow = lab.ask, iter([0.4])

    def once_slow(query, **more):
        time.sleep(next(slow, 0))
        return ask(query, **more)

    monkeypatch.setattr(lab, "ask", once_slow)
    frame = drive(lab, seconds=0.4, reads=100, writes=0, threads=1, lists=0, drain=120, progress=False).frame
    first, *others = frame.to_dicts()
    # All were meant to start while the first one slept, and started when it was over.
    assert all(call["intended_at"] < 0.4 + first["intended_at"] <= call["started_at"] for call in others)
    for call in others:
        waited = 1000 * (call["started_at"] - call["intended_at"])
        assert call["ms"] == pytest.approx(call["service_ms"] + waited)


def test_reads_see_how_far_behind_they_are(lab):
    """A serving that nobody moves is further behind the log with every write; a view never is."""
    lab.serve(order_summary, mode="manual")
    drive(lab, seconds=0.5, reads=0, writes=60, drain=120, progress=False)
    behind = drive(lab, seconds=0.5, reads=100, writes=60, drain=120, progress=False).frame.filter(kind="read")
    assert behind["staleness_events"].is_between(30, 60).all()
    last = drive(lab, seconds=0.5, reads=100, writes=0, drain=120, progress=False).frame
    assert set(last["staleness_events"]) == {60}
    fresh = drive(lab, seconds=0.5, reads=40, writes=20, served_as="view", drain=120, progress=False).frame
    assert fresh.filter(kind="read")["staleness_events"].max() == 0


def test_what_is_not_done_in_time_is_told(lab, monkeypatch):
    """After the drain what was never answered is in the frame as failed, late until then; no thread is left waiting."""
    free = threading.Event()
    monkeypatch.setattr(lab, "ask", lambda query, **more: free.wait(1))
    driven = drive(lab, seconds=0.3, reads=100, writes=0, threads=2, drain=0.2, progress=False)
    assert len(driven.frame) == 30
    failed = driven.frame.filter(~pl.col("ok"))
    assert len(failed) > 0  # each call takes a second, and there are two threads
    assert failed["error"].str.starts_with("NotAnswered").all()
    assert failed["ms"].min() >= 200
    assert failed["service_ms"].null_count() == len(failed)
    assert not driven.is_held
    assert "NOT held" in repr(driven)
    wait_until(lambda: not workers())


def test_errors_are_told_and_stop_nothing(lab, monkeypatch):
    """A call that fails says why, and the others go on."""

    def fail(*args, **more):
        raise ValueError("no")

    monkeypatch.setattr(lab, "send", fail)
    driven = drive(lab, seconds=0.3, reads=30, writes=20, drain=120, progress=False)
    assert dict(driven.frame.group_by("kind").agg(pl.col("ok").all()).rows()) == {"read": True, "write": False}
    assert set(driven.frame.filter(kind="write")["error"]) == {"ValueError: no"}


def test_nothing_to_do_is_refused(lab):
    """No calls, and numbers that make no sense, are refused; an empty shop can be driven."""
    with pytest.raises(QueryError, match="less than one call"):
        drive(lab, reads=0, writes=0)
    for wrong in ({"seconds": 0}, {"reads": -1}, {"threads": 0}, {"lists": 2}, {"drain": -1}):
        with pytest.raises(QueryError, match="above 0"):
            drive(lab, **wrong)
    with open_shop(threads=1) as empty:
        assert drive(empty, seconds=0.2, reads=20, writes=20, drain=120, progress=False).frame["ok"].all()
