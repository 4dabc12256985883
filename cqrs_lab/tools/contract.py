"""The contract of an event store: what every one keeps, as tests that ask a store of any make.

Owns the domain that the tests are about and the tests themselves. Needs no test runner; pytest finds the contract::

    class TestMyStore(EventStoreContract): ...  # define open_store(self), nothing else
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from decimal import Decimal
from threading import Barrier
from typing import Protocol

from cqrs_lab.app import Lab
from cqrs_lab.domain import Domain
from cqrs_lab.errors import ConcurrencyError
from cqrs_lab.messages import Event, Id, Money, Recorded, Value
from cqrs_lab.tools.specs import START, Events
from cqrs_lab.write.batch import Context
from cqrs_lab.write.decider import Decider

THREADS = 4


class Part(Value):
    """A value inside the contract's event."""

    name: str
    price: Money
    since: datetime | None = None


class Noted(Event):
    """The contract's event, with a field of every kind."""

    note_id: Id
    number: int = 0
    text: str | None = None
    amount: Money | None = None
    at: datetime | None = None
    parts: tuple[Part, ...] = ()


CONTRACT = Domain(
    [
        Decider(category, "note_id", None, lambda command, state: [], lambda state, event: state, [], [Noted])
        for category in ("note", "memo")
    ]
)


class Store(Protocol):
    """What the contract asks of an event store for `CONTRACT`: streams `note/…` and `memo/…`, used by many threads."""

    def append(
        self, stream: str, events: Events, *, expected_version: int | None = None, command_id: str | None = None
    ) -> list[Recorded]:
        """Append all events, or none and raise ConcurrencyError when the stream is not at the expected version."""

    def read(self, stream: str) -> list[Recorded]:
        """Return the events of one stream in order of version."""

    def read_all(self, after: int = 0) -> list[Recorded]:
        """Return the events of all streams after a position, in order of position."""

    def close(self) -> None:
        """Let go of what the store holds."""


class LabStore:
    """A lab as a Store; for the contract one over `CONTRACT`."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.close = lab, lab.close

    def append(
        self, stream: str, events: Events, *, expected_version: int | None = None, command_id: str | None = None
    ) -> list[Recorded]:
        """Append all events, or none."""
        category, _, id = stream.partition("/")
        owner, context = self.lab._log.categories[category], Context(command_id=command_id)
        return self.lab._store.append(owner, id, events, expected_version=expected_version, context=context)

    def read(self, stream: str) -> list[Recorded]:
        """Return the events of one stream."""
        category, _, id = stream.partition("/")
        return self.lab._log.read(self.lab._log.categories[category], id)

    def read_all(self, after: int = 0) -> list[Recorded]:
        """Return the events that `Lab.events` lists after a position."""
        listed = {position: stream for position, stream, *_ in self.lab.events(after=after)}
        found = [r for stream in set(listed.values()) for r in self.read(stream) if r.position in listed]
        return sorted(found, key=lambda r: r.position)


class EventStoreContract:
    """What every event store keeps: subclass it as `Test…` and define `open_store`."""

    def open_store(self) -> Store:
        """Return a new, empty store for the domain `CONTRACT`."""
        raise NotImplementedError("define open_store(self) -> Store")

    def test_versions_count_without_holes(self) -> None:
        """The versions of each stream are 1, 2, 3 without holes, whatever the batches and the other streams."""
        with closing(self.open_store()) as store:
            for size in (1, 3, 2):
                store.append("note/a", _notes("a", size))
                store.append("note/b", _notes("b", 1))
            _same("versions of a", [1, 2, 3, 4, 5, 6], [r.version for r in store.read("note/a")])
            _same("versions of b", [1, 2, 3], [r.version for r in store.read("note/b")])

    def test_positions_count_over_all_streams(self) -> None:
        """Positions are 1, 2, 3 without holes over streams, as appended, and read_all resumes after any of them."""
        with closing(self.open_store()) as store:
            appended = _fill(store)
            _same("positions", list(range(1, len(appended) + 1)), [r.position for r in appended])
            for after in range(len(appended) + 1):
                _same(f"read_all({after})", appended[after:], store.read_all(after))

    def test_the_envelope_is_kept(self) -> None:
        """No id comes twice, recorded_at never decreases with position, and occurred_at is read as it was appended."""
        with closing(self.open_store()) as store:
            occurred = {r.position: r.occurred_at for r in _fill(store)}
            read = store.read_all()
            _same("distinct ids", len(read), len({r.event_id for r in read}))
            times = [r.recorded_at for r in sorted(read, key=lambda r: r.position)]
            _same("recorded_at", sorted(times), times)
            for r in [*read, *store.read("note/a")]:
                _same(f"occurred_at of {r.position}", occurred[r.position], r.occurred_at)

    def test_what_was_appended_is_read(self) -> None:
        """Every field of event and envelope is read as appended: money, times, nested values, None, any script."""
        parts = (Part(name="", price=Decimal("0.10"), since=START), Part(name="ß", price=Decimal(7)))
        full = {"number": -(2**63), "text": "☃ \U0001f4e6\n'; --", "amount": Decimal("-1234567890123456.78")}
        events = [Noted(note_id="ä/b 'c'", at=START, parts=parts, **full), Noted(note_id="ä/b 'c'")]
        with closing(self.open_store()) as store:
            appended = store.append("note/ä/b 'c'", events, command_id="c-1")
            _same("events", events, [r.event for r in appended])
            _same("envelopes", [("note/ä/b 'c'", "c-1")] * 2, [(r.stream, r.command_id) for r in appended])
            _same("read()", appended, store.read("note/ä/b 'c'"))
            _same("read_all()", appended, store.read_all())
            times = [t for r in store.read_all() for t in (r.occurred_at, r.recorded_at, getattr(r.event, "at", None))]
            _same("offsets from UTC", {timedelta(0)}, {t.utcoffset() for t in times if t is not None})

    def test_the_expected_version_is_checked(self) -> None:
        """An append goes through at the version that it expects, 0 for a new stream; otherwise nothing is stored."""
        with closing(self.open_store()) as store:
            store.append("note/a", _notes("a", 2), expected_version=0)
            store.append("note/a", _notes("a", 1), expected_version=2)
            for wrong in (0, 2, 4):
                _refused(store, "a", 1, wrong, 3)
            _refused(store, "new", 1, 1, 0)
            _same("versions", [1, 2, 3], [r.version for r in store.read_all()])

    def test_a_conflict_stores_none_of_its_batch(self) -> None:
        """Of a refused batch nothing is stored, and no position or version is lost to it."""
        with closing(self.open_store()) as store:
            before = store.append("note/a", _notes("a", 2))
            _refused(store, "a", 3, 1, 2)
            after = store.append("note/a", _notes("a", 1))
            _same("places", [(3, 3)], [(r.position, r.version) for r in after])
            _same("read_all()", before + after, store.read_all())

    def test_a_stream_without_events_is_empty(self) -> None:
        """A stream that nothing was appended to is read as an empty list."""
        with closing(self.open_store()) as store:
            _same("an empty store", [[], []], [store.read("note/a"), store.read_all()])
            store.append("note/a", _notes("a", 1))
            _same("another stream", [], store.read("note/b"))

    def test_of_many_writers_one_wins_each_version(self) -> None:
        """Of threads behind one version one wins, the others get ConcurrencyError, and nothing is lost or doubled."""
        with closing(self.open_store()) as store:
            start = Barrier(THREADS)

            def write(writer: int) -> list[object]:
                said: list[object] = []
                for version in range(10):
                    start.wait()
                    try:
                        said += [
                            r.version for r in store.append("note/a", _notes("a", 1, writer), expected_version=version)
                        ]
                    except Exception as error:
                        said.append((error.expected, error.actual) if isinstance(error, ConcurrencyError) else error)
                return said

            with ThreadPoolExecutor(THREADS) as pool:
                rounds = list(zip(*pool.map(write, range(THREADS)), strict=True))
            for version, said in enumerate(rounds):
                _same(f"wins at version {version}", [version + 1], [s for s in said if s != (version, version + 1)])
            read = [(r.version, getattr(r.event, "number", None)) for r in store.read("note/a")]
            _same("(version, writer)", [(v, said.index(v)) for v, said in enumerate(rounds, start=1)], read)

    def test_a_reader_who_follows_never_meets_a_hole(self) -> None:
        """Who follows read_all while threads append to many streams meets every position once, in order."""
        with closing(self.open_store()) as store:
            with ThreadPoolExecutor(THREADS) as pool:
                writers = [pool.submit(_fill, store, str(number)) for number in range(THREADS)]
                seen, done = 0, False
                while not done:
                    done = all(writer.done() for writer in writers)
                    new = [r.position for r in store.read_all(seen)]
                    _same(f"positions after {seen}", [seen + i for i in range(1, len(new) + 1)], new)
                    seen += len(new)
            _same("events seen", sum(len(writer.result()) for writer in writers), seen)


def _same(what: str, expected: object, got: object) -> None:
    assert got == expected, f"{what}: expected {expected!r}, got {got!r}"


def _notes(id: str, size: int, number: int = 0) -> Events:
    return [Noted(note_id=id, number=number)] * size


def _fill(store: Store, id: str = "a") -> list[Recorded]:
    batches = [
        store.append(f"{category}/{id}", _notes(id, size)) for size in (1, 3, 2, 1) for category in ("note", "memo")
    ]
    return [recorded for batch in batches for recorded in batch]


def _refused(store: Store, id: str, size: int, expected: int, actual: int) -> None:
    try:
        store.append(f"note/{id}", _notes(id, size), expected_version=expected)
    except ConcurrencyError as error:
        _same("a conflict's (expected, actual)", (expected, actual), (error.expected, error.actual))
    else:
        raise AssertionError(f"an append that expects version {expected} went through at {actual}")
