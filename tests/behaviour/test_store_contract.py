"""The contract of an event store: kept by the lab, and seen to catch broken ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from support.specs import PLACE, PLACED

from cqrs_lab import Lab, open_shop
from cqrs_lab.errors import ConcurrencyError
from cqrs_lab.messages import Recorded
from cqrs_lab.shop import RegisterCustomer
from cqrs_lab.testing import CONTRACT, START, EventStoreContract, LabStore, Store


class TestLabInMemory(EventStoreContract):
    def open_store(self) -> Store:
        return LabStore(Lab(domain=CONTRACT))


class TestLabOnFile(EventStoreContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "contract.duckdb"

    def open_store(self) -> Store:
        return LabStore(Lab(self.path, domain=CONTRACT))


class DictStore:
    """A store of lists and dicts: the contract asks for nothing of DuckDB."""

    def __init__(self) -> None:
        self.log: list[Recorded] = []
        self.lock = threading.Lock()

    def append(
        self, stream: str, events: Any, *, expected_version: int | None = None, command_id: str | None = None
    ) -> list[Recorded]:
        with self.lock:
            version, now = len(self.read(stream)), datetime.now(UTC)
            if expected_version not in (None, version):
                raise ConcurrencyError(stream, expected_version, version)
            new = [
                Recorded(
                    position=len(self.log) + number,
                    stream=stream,
                    version=version + number,
                    event=event,
                    event_id=uuid4(),
                    correlation_id=None,
                    causation_id=None,
                    command_id=command_id,
                    occurred_at=now,
                    recorded_at=now,
                )
                for number, event in enumerate(events, start=1)
            ]
            self.log += new
            return new

    def read(self, stream: str) -> list[Recorded]:
        return [recorded for recorded in self.log if recorded.stream == stream]

    def read_all(self, after: int = 0) -> list[Recorded]:
        return self.log[after:]

    def close(self) -> None:
        self.log = []


class TestDicts(EventStoreContract):
    def open_store(self) -> Store:
        return DictStore()


class Changed(DictStore):
    """A store whose appends are spoilt by `change`, by position, in what it keeps."""

    def __init__(self, change: Callable[[Recorded], dict[str, Any]], *, told: bool = False) -> None:
        super().__init__()
        self.change, self.told = change, told

    def append(self, stream: str, events: Any, **more: Any) -> list[Recorded]:
        new = super().append(stream, events, **more)
        kept = [replace(recorded, **self.change(recorded)) for recorded in new]
        self.log[-len(new) :] = kept
        return kept if self.told else new


class Deaf(DictStore):
    """Lets every conflict through."""

    def append(self, stream: str, events: Any, *, expected_version: int | None = None, **more: Any) -> list[Recorded]:
        return super().append(stream, events, **more)


class Vague(DictStore):
    """Tells of a conflict without its versions."""

    def append(self, stream: str, events: Any, **more: Any) -> list[Recorded]:
        try:
            return super().append(stream, events, **more)
        except ConcurrencyError:
            raise ConcurrencyError(stream, None, 0) from None


class Halving(DictStore):
    """Keeps the first event of a batch that it refuses."""

    def append(self, stream: str, events: Any, **more: Any) -> list[Recorded]:
        try:
            return super().append(stream, events, **more)
        except ConcurrencyError:
            super().append(stream, events[:1])
            raise


class Racing(DictStore):
    """Looks at the version, takes a break, then appends."""

    def append(self, stream: str, events: Any, *, expected_version: int | None = None, **more: Any) -> list[Recorded]:
        version = len(self.read(stream))
        if expected_version not in (None, version):
            raise ConcurrencyError(stream, expected_version, version)
        time.sleep(0.001)
        return super().append(stream, events, **more)


class Losing(DictStore):
    """Acknowledges what it drops now and then when many write."""

    def append(self, stream: str, events: Any, **more: Any) -> list[Recorded]:
        new = super().append(stream, events, **more)
        if threading.current_thread() is not threading.main_thread() and len(self.log) == 7:
            self.log.remove(new[-1])
        return new


class Ahead(DictStore):
    """Gives out positions first and shows events later, as a database's sequence does: the first after some others."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Recorded] = []
        self.looked = threading.Event()

    def append(self, stream: str, events: Any, **more: Any) -> list[Recorded]:
        new = super().append(stream, events, **more)
        if new[0].position == 1:
            self.looked.wait(120)
        self.shown += new
        return new

    def read_all(self, after: int = 0) -> list[Recorded]:
        found = sorted((r for r in self.shown if r.position > after), key=lambda r: r.position)
        if found:
            self.looked.set()
        return found


class Elsewhere(DictStore):
    """Reads a stream otherwise than the whole."""

    def read(self, stream: str) -> list[Recorded]:
        return [replace(recorded, **without("text")(recorded)) for recorded in super().read(stream)]


class Eager(DictStore):
    """Takes an expected version ahead of the stream for a new stream's."""

    def append(self, stream: str, events: Any, *, expected_version: int | None = None, **more: Any) -> list[Recorded]:
        ahead = expected_version is not None and expected_version > len(self.read(stream))
        return super().append(stream, events, expected_version=None if ahead else expected_version, **more)


class Stray(DictStore):
    """Gives one row of reading all wrong."""

    def __init__(self, first: int, step: int = 1) -> None:
        super().__init__()
        self.first, self.step = first, step

    def read_all(self, after: int = 0) -> list[Recorded]:
        return self.log[max(after + self.first, 0) :: self.step]


class Failing(DictStore):
    """Refuses a stream that is not there instead of reading it as empty."""

    def read(self, stream: str) -> list[Recorded]:
        found = super().read(stream)
        assert found or not self.log, f"no stream {stream}"
        return found


def without(*names: str) -> Callable[[Recorded], dict[str, Any]]:
    """Return a change that empties fields of the events."""
    return lambda r: {"event": r.event.model_copy(update=dict.fromkeys(names))}


def naive_event(recorded: Recorded) -> dict[str, Any]:
    """Return a change that takes the zone from a time in the event."""
    at = getattr(recorded.event, "at", None)
    return {"event": recorded.event.model_copy(update={"at": at and at.replace(tzinfo=None)})}


VERSIONS = "test_versions_count_without_holes"
POSITIONS = "test_positions_count_over_all_streams"
READ = "test_what_was_appended_is_read"
ENVELOPE = "test_the_envelope_is_kept"
EXPECTED = "test_the_expected_version_is_checked"
CONFLICT = "test_a_conflict_stores_none_of_its_batch"
EMPTY = "test_a_stream_without_events_is_empty"
WRITERS = "test_of_many_writers_one_wins_each_version"
READER = "test_a_reader_who_follows_never_meets_a_hole"
TOKYO = timedelta(hours=9)


@pytest.mark.parametrize(
    ("caught_by", "broken"),
    [
        (VERSIONS, lambda: Changed(lambda r: {"version": r.version + (r.version > 2)})),
        (VERSIONS, lambda: Changed(lambda r: {"version": r.position})),
        (POSITIONS, lambda: Changed(lambda r: {"position": r.position + (r.position > 4)}, told=True)),
        (POSITIONS, lambda: Changed(lambda r: {"position": r.version}, told=True)),
        (POSITIONS, lambda: Stray(first=-1)),
        (POSITIONS, lambda: Stray(first=1)),
        (POSITIONS, lambda: Stray(first=0, step=2)),
        (READ, lambda: Changed(without("amount"))),
        (READ, lambda: Changed(without("parts"))),
        (READ, lambda: Changed(without("text"), told=True)),
        (READ, lambda: Changed(naive_event)),
        (READ, Elsewhere),
        (READ, lambda: Changed(lambda r: {"command_id": None}, told=True)),
        (READ, lambda: Changed(lambda r: {"occurred_at": r.occurred_at.replace(tzinfo=None)}, told=True)),
        (ENVELOPE, lambda: Changed(lambda r: {"event_id": "same"}, told=True)),
        (ENVELOPE, lambda: Changed(lambda r: {"recorded_at": START - r.position * TOKYO}, told=True)),
        (ENVELOPE, lambda: Changed(lambda r: {"occurred_at": START})),
        (EXPECTED, Deaf),
        (EXPECTED, Eager),
        (EXPECTED, Vague),
        (EXPECTED, Halving),
        (CONFLICT, Deaf),
        (CONFLICT, Vague),
        (CONFLICT, Halving),
        (EMPTY, Failing),
        (WRITERS, Deaf),
        (WRITERS, Vague),
        (WRITERS, Racing),
        (WRITERS, Losing),
        (READER, Ahead),
        (READER, lambda: Stray(first=1)),
    ],
)
def test_the_contract_catches_a_broken_store(caught_by: str, broken: Callable[[], DictStore]) -> None:
    """Each test of the contract fails for a store that breaks what it says."""
    contract = EventStoreContract()
    contract.open_store = broken  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        getattr(contract, caught_by)()


def test_every_test_of_the_contract_is_seen_to_fail() -> None:
    """The broken stores above leave out no test of the contract, and each has one sentence that says what holds."""
    tests = {name: test for name, test in vars(EventStoreContract).items() if name.startswith("test_")}
    assert set(tests) == {VERSIONS, POSITIONS, READ, ENVELOPE, EXPECTED, CONFLICT, EMPTY, WRITERS, READER}
    assert all(test.__doc__ and test.__doc__.count("\n") == 0 for test in tests.values())


def test_a_store_has_to_be_opened() -> None:
    """A contract without open_store says that it is to be defined."""
    with pytest.raises(NotImplementedError, match="open_store"):
        EventStoreContract().test_the_envelope_is_kept()


def test_a_lab_store_reads_what_commands_led_to() -> None:
    """LabStore fits any lab: it reads the streams of the shop, too, and closes the lab."""
    lab = open_shop()
    store: Store = LabStore(lab)
    lab.send(RegisterCustomer(customer_id="c-1", name="Ann", email="a@example.com"))
    lab.send(PLACE)
    assert [r.stream for r in store.read_all()] == ["customer/c-1", "order/o-1"]
    assert [r.event for r in store.read("order/o-1")] == [PLACED]
    assert [r.position for r in store.read_all(after=1)] == [2]
    store.close()
    with pytest.raises(Exception, match="closed"):
        store.read_all()
