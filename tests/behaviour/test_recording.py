"""Facts without commands, the log read in parts, and followed as it grows."""

from __future__ import annotations

import base64
import json
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest
from support import place
from support.things import Everything, things

from cqrs_lab import Domain, Lab, ReadModel, open_shop
from cqrs_lab.errors import ConcurrencyError, DeclarationError, InvalidMessage, InvalidTable
from cqrs_lab.shop import CustomerRegistered, OrderDelivered, OrderPaid, OrderShipped, order_summary

PAID, SHIPPED = OrderPaid(order_id="o-1", amount=Decimal(5)), OrderShipped(order_id="o-1", tracking_number="t")
AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_facts_are_recorded_as_they_are_said() -> None:
    """A fact goes to its stream, named whole or by its id, with its time and story; read models follow, also inline."""
    with open_shop() as lab:
        served = lab.serve(order_summary, mode="inline")
        lab.send(place("o-1"))
        (first,) = lab.record("order/o-1", PAID, occurred_at=AT, correlation_id="story", causation_id="bank")
        rest = lab.record("o-1", [SHIPPED, OrderDelivered(order_id="o-1")], expected_version=2)
        assert (first.position, first.stream, first.version, first.event) == (2, "order/o-1", 2, PAID)
        assert (first.occurred_at, first.correlation_id, first.causation_id, first.command_id) == (
            AT,
            "story",
            "bank",
            None,
        )
        assert [(one.position, one.version) for one in rest] == [(3, 3), (4, 4)]
        assert served.get("o-1")["status"] == "DELIVERED"
        assert lab.record("c-9", CustomerRegistered(customer_id="c-9", name="Ann"))[0].stream == "customer/c-9"


def test_a_fact_that_does_not_fit_is_refused() -> None:
    """No event, another thing's, another category's, one that was not checked, a stale version: nothing is stored."""
    with open_shop() as lab:
        lab.send(place("o-1"))
        unchecked = OrderPaid.model_construct(order_id="o-1", amount=Decimal("NaN"))
        for stream, events, said in (
            ("o-1", [], "no event"),
            ("o-2", PAID, "'o-1'"),
            ("customer/o-1", PAID, "'o-1'"),
            ("o-1", [PAID, OrderPaid(order_id="o-2")], "'o-2'"),
            ("o-1", [PAID, CustomerRegistered(customer_id="o-1")], "no category declares"),
            ("thing/t", Everything(thing_id="t"), "no category declares Everything"),
            ("o-1", unchecked, "amount"),
        ):
            with pytest.raises(InvalidMessage, match=said):
                lab.record(stream, events)
        with pytest.raises(ConcurrencyError) as met:
            lab.record("o-1", [PAID, SHIPPED], expected_version=0)
        assert (met.value.expected, met.value.actual) == (0, 1)
        for wrong in ({"occurred_at": AT.replace(tzinfo=None)}, {"correlation_id": "a\nb"}, {"causation_id": ""}):
            with pytest.raises(InvalidMessage, match=next(iter(wrong))):
                lab.record("o-1", PAID, **wrong)
        assert lab.head == 1


def test_the_log_is_read_in_parts() -> None:
    """Any bounds of positions and versions, a number of events and either order agree with all of them, cut by hand."""
    with open_shop() as lab:
        for number in range(6):
            lab.send(place(number % 3 + 1 if number < 3 else f"x-{number}"), command_id=f"k-{number}")
            lab.record(f"c-{number}", CustomerRegistered(customer_id=f"c-{number}"))
        lab.record("o-1", [PAID, SHIPPED])
        every = lab.events().dicts()
        assert [row["command_id"] for row in every[:3]] == ["k-0", None, "k-1"]
        for after, up_to, stream, category, limit, descending in (
            (0, None, None, None, 3, False), (0, None, None, None, 3, True), (4, 9, None, None, None, True),
            (4, 9, None, "order", 2, True), (0, 99, "order/o-1", None, 2, True), (3, 2, None, None, None, False),
            (0, None, None, None, 0, False), (2, None, "customer/c-3", "customer", None, False),
        ):  # fmt: skip
            for low, high in ((None, None), (2, None), (None, 1), (2, 2), (9, None)):
                rows = [
                    row for row in every
                    if after < row["position"] <= (99 if up_to is None else up_to)
                    and stream in (None, row["stream"]) and category in (None, row["stream"].split("/")[0])
                    and (low or 0) <= row["version"] <= (high or 99)
                ]  # fmt: skip
                rows = (rows[::-1] if descending else rows)[:limit]
                told = lab.events(
                    after=after, up_to=up_to, stream=stream, category=category, limit=limit, descending=descending,
                    from_version=low, to_version=high,
                )  # fmt: skip
                assert told.dicts() == rows
        with pytest.raises(DeclarationError, match="limit=-1"):
            lab.events(limit=-1)


def test_a_subscriber_is_told_everything_once() -> None:
    """Whoever subscribes is told what is there and what comes, in order, though several write meanwhile."""
    with open_shop() as lab:
        for number in range(20):
            lab.send(place(number))
        told: list[int] = []

        def follow() -> None:
            told.extend(recorded.position for recorded in lab.subscribe(5, timeout=3))

        follower = threading.Thread(target=follow)
        writers = [
            threading.Thread(target=lambda n=n: [lab.send(place(f"{n}-{i}")) for i in range(40)]) for n in range(3)
        ]
        for each in (follower, *writers):
            each.start()
        for each in (follower, *writers):
            each.join()
        assert told == list(range(6, 141))


def test_a_subscription_ends_as_it_is_told() -> None:
    """It ends after its timeout, when it is stopped from elsewhere, when it is left, and when the lab is closed."""
    with open_shop() as lab:
        lab.send(place())
        assert [one.event.order_id for one in lab.subscribe(timeout=0)] == ["o-1"]
        assert list(lab.subscribe(types=[OrderPaid], timeout=0)) == []
        assert list(lab.subscribe(category="customer", timeout=0)) == []
        with pytest.raises(DeclarationError, match="no category 'shop'"):
            lab.subscribe(category="shop")
        with lab.subscribe() as left:
            assert next(left).position == left.position == 1
        assert list(left) == []
        waiting = lab.subscribe(1)
        ends: list[float] = []

        def wait(one: object) -> None:
            list(one)  # type: ignore[call-overload]
            ends.append(time.monotonic())

        for end in (waiting.stop, lab.close):
            thread = threading.Thread(target=wait, args=(waiting if end == waiting.stop else lab.subscribe(1),))
            thread.start()
            time.sleep(0.2)
            start = time.monotonic()
            end()
            thread.join(10)
            assert not thread.is_alive()
            assert ends.pop() - start < 5


def test_bytes_come_back_as_they_were() -> None:
    """A field of bytes is stored by message and by table, and read by everything, base64 where there is JSON."""
    raw = bytes(range(256))
    with Lab(domain=Domain([things])) as lab:
        lab.record("t", Everything(thing_id="t", raw=raw, pieces=(b"", b"\0", raw)))
        times = pa.array([0], pa.timestamp("us", "UTC"))
        for kind in (pa.binary(), pa.large_binary()):
            pieces = pa.array([[b"", b"\0", raw]], pa.list_(kind))
            table = {"id": ["t"], "type": ["Everything"], "occurred_at": times, "raw": pa.array([raw], kind)}
            lab.append_table("thing", pa.table({**table, "pieces": pieces}))
        frame = pl.DataFrame({"id": ["t"], "type": "Everything", "occurred_at": [AT], "raw": [raw]})
        lab.append_table("thing", frame.with_columns(pieces=pl.lit([b"", b"\0", raw], dtype=pl.List(pl.Binary))))
        events = [recorded.event for recorded in lab.subscribe(timeout=0)]
        assert [(event.raw, event.pieces) for event in events] == [(raw, (b"", b"\0", raw))] * 4
        said = [json.loads(row["data"]) for row in lab.events().dicts()]
        assert {base64.b64decode(row["raw"]) for row in said} == {raw}
        model = ReadModel("m", "raw", "SELECT raw, count(*) AS n FROM thing_events GROUP BY raw")
        assert [lab.serve(model, way).get(raw)["n"] for way in ("view", "materialized", "projection")] == [4, 4, 4]
        with pytest.raises(InvalidTable, match="raw"):
            lab.append_table(
                "thing", pa.table({"id": ["t"], "type": ["Everything"], "occurred_at": times, "raw": ["x"]})
            )
