"""What a log may hold and what it may not: unknown types, large values, clocks that run backwards, shared ids."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from support import START, append, place
from support.tallies import Add, Added, open_lab

from cqrs_lab import Event, open_shop
from cqrs_lab.errors import UnknownEventType
from cqrs_lab.shop import CancelOrder, customers, orders


def test_an_unknown_event_type(tmp_path: Path) -> None:
    """A stream with an event type, or a version of one, that the domain does not declare raises UnknownEventType."""

    class Removed(Event):
        tally: str

    newer = type("Added", (Added,), {"schema_version": 2, "upcasts": {1: {}}, "__annotations__": {}})
    with open_lab(tmp_path / "old.duckdb") as lab:
        lab.send(Add(tally="a", n=5))
    with open_lab(tmp_path / "old.duckdb", events=[Removed]) as lab:
        with pytest.raises(UnknownEventType, match="Added"):
            lab.send(Add(tally="a", n=5))
        assert lab.head == len(lab.events()) == 1
    with open_lab(tmp_path / "new.duckdb", events=[newer]) as lab:
        append(lab, [newer(tally="a", n=5)])
    with open_lab(tmp_path / "new.duckdb") as lab, pytest.raises(UnknownEventType, match="2"):
        lab.send(Add(tally="a", n=5))


def test_a_payload_of_64_mib(tmp_path: Path) -> None:
    """An event of 64 MiB is stored and read back as it was."""
    reason = "0123456789abcdé" * (64 * 2**20 // 16)
    with open_shop(tmp_path / "shop.duckdb", threads=1) as lab:
        lab.send(place("o-1"))
        lab.send(CancelOrder(order_id="o-1", reason=reason))
    with open_shop(tmp_path / "shop.duckdb", threads=1) as lab:
        last = lab._log.read(orders.log_category, "o-1")[-1]
        assert last.event.reason == reason


def test_the_clock_runs_backwards(tmp_path: Path) -> None:
    """When the clock goes back, recorded_at stands still, order stays by position, and occurred_at is as given."""
    hours = [5, 3, 9, 1]

    def clock() -> datetime:
        return START + timedelta(hours=hours.pop(0) if hours else -100)

    path = tmp_path / "shop.duckdb"
    with open_shop(path, clock=clock) as lab:
        for number in range(4):
            lab.send(place(f"o-{number}"), occurred_at=START - timedelta(days=number))
    with open_shop(path, clock=clock) as lab:
        lab.send(place("o-4"))
        log = lab.events().pl()
        assert log["recorded_at"].to_list() == [START + timedelta(hours=h) for h in (5, 5, 9, 9, 9)]
        assert log["occurred_at"].to_list()[:4] == [START - timedelta(days=n) for n in range(4)]
        assert log["position"].to_list() == [1, 2, 3, 4, 5]


def test_customers_have_streams_of_their_own() -> None:
    """An id that two categories share names two streams, each with its own versions."""
    with open_shop(threads=1) as lab:
        lab.send(place("x"))
        lab.append_table("customer", pa.table({"id": ["x"], "type": ["CustomerRegistered"], "occurred_at": [START]}))
        assert lab.events().pl().select("stream", "version", "position").rows() == [
            ("order/x", 1, 1),
            ("customer/x", 1, 2),
        ]
        assert lab._log.read(customers.log_category, "x")[0].version == 1
