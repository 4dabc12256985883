"""The recorder tests that the `eventsourcing` package ships for whoever stores its events, over the public surface."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest

from cqrs_lab import Command, Decider, Domain, Event, Lab
from cqrs_lab.errors import ConcurrencyError, RuleViolated
from cqrs_lab.messages import Recorded

pytest.importorskip("eventsourcing", reason="the peer comes with the extra `bench`")

from eventsourcing.persistence import (
    IntegrityError,
    Notification,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
)
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
    ProcessRecorderTestCase,
    TrackingRecorderTestCase,
)


class Stored(Event):
    """An event of the peer's, in its own bytes."""

    originator: str
    number: int
    topic: str
    state: bytes


class Store(Command):
    """Store events of one aggregate behind those that there are."""

    originator: str
    numbers: tuple[int, ...]
    topics: tuple[str, ...]
    states: tuple[bytes, ...]


class Tracked(Event):
    """A notification of another application was processed."""

    application: str
    notification: int


class Track(Command):
    """Say that it was."""

    application: str
    notification: int


def store(command: Store, last: int | None) -> list[Stored]:
    """Give the events out, when they follow the last one."""
    for before, number in zip((last, *command.numbers), command.numbers, strict=False):
        if before is not None and number != before + 1:
            raise RuleViolated("numbers have no holes and come once", last)
    each = zip(command.numbers, command.topics, command.states, strict=True)
    return [Stored(originator=command.originator, number=n, topic=t, state=s) for n, t, s in each]


def track(command: Track, last: int) -> list[Tracked]:
    """Go forward only."""
    if command.notification <= last:
        raise RuleViolated("tracking goes forward", last)
    return [Tracked(application=command.application, notification=command.notification)]


DOMAIN = Domain(
    [
        Decider("aggregate", "originator", None, store, lambda last, event: event.number, [Store], [Stored]),
        Decider("tracking", "application", 0, track, lambda last, event: event.notification, [Track], [Tracked]),
    ]
)


class Recorder(ProcessRecorder):
    """The peer's interface over a lab."""

    def __init__(self, *, tells_ids: bool = True) -> None:
        self.lab, self._tells_ids = Lab(domain=DOMAIN, threads=1), tells_ids

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store events, all of them or none."""
        tracking = kwargs.get("tracking")
        try:
            if tracking is None and len({e.originator_id for e in stored_events}) == 1:
                told = [recorded.position for recorded in self._record(stored_events)]
            else:
                told = self._send(stored_events, tracking)
        except (ConcurrencyError, RuleViolated) as error:
            raise IntegrityError(str(error)) from error
        return told if told and self._tells_ids else None

    def _record(self, events: Sequence[StoredEvent]) -> list[Recorded]:
        stream = f"aggregate/{events[0].originator_id}"
        there = self.lab.events(stream=stream, limit=1, descending=True).dicts()
        last = json.loads(there[0]["data"])["number"] if there else None
        facts = store(_command(events), last)
        return self.lab.record(stream, facts, expected_version=there[0]["version"] if there else 0)

    def _send(self, events: Sequence[StoredEvent], tracking: Tracking | None) -> list[int]:
        ids = dict.fromkeys(event.originator_id for event in events)
        commands: list[Command] = [_command([e for e in events if e.originator_id == id]) for id in ids]
        if tracking is not None:
            commands.append(Track(application=tracking.application_name, notification=tracking.notification_id))
        receipts = self.lab.send_many(commands)[: len(ids)]
        return [p for one in receipts for p in range(one.position - len(one.events) + 1, one.position + 1)]

    def select_events(
        self, originator_id: UUID | str, *, gt: int | None = None, lte: int | None = None, desc: bool = False,
        limit: int | None = None,
    ) -> list[StoredEvent]:  # fmt: skip
        """Return events of one aggregate, between two of its versions."""
        stream = f"aggregate/{originator_id}"
        first = self.lab.events(stream=stream, limit=1).dicts()
        if not first:
            return []
        ahead = first[0]["version"] - json.loads(first[0]["data"])["number"]  # of its versions, which may begin at 0
        rows = self.lab.events(
            stream=stream,
            from_version=None if gt is None else gt + ahead + 1,
            to_version=None if lte is None else lte + ahead,
            limit=limit,
            descending=desc,
        )
        return [StoredEvent(**_fields(json.loads(row["data"]))) for row in rows.dicts()]

    def select_notifications(
        self, start: int | None, limit: int, stop: int | None = None, topics: Sequence[str] = (),
        *, inclusive_of_start: bool = True,
    ) -> list[Notification]:  # fmt: skip
        """Return events of all aggregates, in order."""
        after = (start or 0) - (1 if inclusive_of_start and start else 0)
        few = None if topics else limit
        rows = self.lab.events(category="aggregate", after=after, up_to=stop, limit=few).dicts()
        found = [Notification(id=row["position"], **_fields(json.loads(row["data"]))) for row in rows]
        return [one for one in found if not topics or one.topic in topics][:limit]

    def max_notification_id(self) -> int | None:
        """Return the id of the last event."""
        rows = self.lab.events(category="aggregate", limit=1, descending=True).dicts()
        return rows[0]["position"] if rows else None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[Any]:
        """Return an iterator over what is there and what comes."""
        return Following(self, gt, topics)

    def insert_tracking(self, tracking: Tracking) -> None:
        """Say how far another application was followed."""
        self.insert_events([], tracking=tracking)

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return how far another application was followed."""
        rows = self.lab.events(stream=f"tracking/{application_name}", limit=1, descending=True).dicts()
        return json.loads(rows[0]["data"])["notification"] if rows else None


class Following(Subscription[Any]):
    """The peer's subscription over a lab's."""

    def __init__(self, recorder: Recorder, gt: int | None, topics: Sequence[str]) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._events = recorder.lab.subscribe(gt or 0, category="aggregate")

    def stop(self) -> None:
        """End it."""
        super().stop()
        self._events.stop()

    def __next__(self) -> Notification:
        for recorded in self._events:
            event = recorded.event
            assert isinstance(event, Stored)
            if not self._topics or event.topic in self._topics:
                fields = {"originator_id": UUID(event.originator), "originator_version": event.number}
                return Notification(id=recorded.position, topic=event.topic, state=event.state, **fields)
        raise StopIteration


def _command(events: Sequence[StoredEvent]) -> Store:
    return Store(
        originator=str(events[0].originator_id),
        numbers=tuple(event.originator_version for event in events),
        topics=tuple(event.topic for event in events),
        states=tuple(event.state for event in events),
    )


def _fields(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "originator_id": UUID(data["originator"]),
        "originator_version": data["number"],
        "topic": data["topic"],
        "state": base64.b64decode(data["state"]),
    }


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close every lab that a test has made."""
    made: list[Recorder] = []
    real = Recorder.__init__

    def noted(self: Recorder, **given: Any) -> None:
        real(self, **given)
        made.append(self)

    Recorder.__init__ = noted  # type: ignore[method-assign]
    yield
    Recorder.__init__ = real  # type: ignore[method-assign]
    for each in made:
        each.lab.close()


class TestAggregateRecorder(AggregateRecorderTestCase):
    """Events of one aggregate."""

    def create_recorder(self) -> Recorder:
        """Return a new one."""
        return Recorder(tells_ids=False)


class TestApplicationRecorder(ApplicationRecorderTestCase[Any]):
    """Events of all aggregates, from many threads, and subscriptions."""

    def create_recorder(self) -> Recorder:
        """Return a new one."""
        return Recorder()

    def test_insert_subscribe(self) -> None:
        """What the peer leaves to those that have subscriptions."""
        self.optional_test_insert_subscribe()


class TestTrackingRecorder(TrackingRecorderTestCase):
    """How far other applications were followed."""

    def create_recorder(self) -> Recorder:
        """Return a new one."""
        return Recorder()


class TestProcessRecorder(ProcessRecorderTestCase):
    """Events, and how far others were followed, in one transaction."""

    def create_recorder(self) -> Recorder:
        """Return a new one."""
        return Recorder()


class TestNonInterleaving(NonInterleavingNotificationIDsBaseCase):
    """Two at once never mix."""

    def create_recorder(self) -> Recorder:
        """Return a new one."""
        return Recorder()


del AggregateRecorderTestCase, ApplicationRecorderTestCase, NonInterleavingNotificationIDsBaseCase
del ProcessRecorderTestCase, TrackingRecorderTestCase
