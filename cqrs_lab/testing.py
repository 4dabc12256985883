"""Testing: for people who test their own domain, or an event store of their own.

Owns no rules: the real deciders, read models and stores are asked. Needs no test runner; pytest finds the contract::

    given(placed).when(PayOrder(order_id="o-1", amount="9.99")).then(OrderPaid(order_id="o-1", amount="9.99"))
    given(placed, paid).when(pay).then(RuleViolated("an order is paid once, while it is pending", "PAID"))
    given_events(placed, paid).project(order_summary).rows({"order_id": "o-1", "status": "PAID"})
    class TestMyStore(EventStoreContract): ...  # define open_store(self), nothing else
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count, zip_longest
from threading import Barrier
from typing import Any, Protocol
from uuid import UUID

from cqrs_lab.app import Lab
from cqrs_lab.domain import Domain
from cqrs_lab.errors import ConcurrencyError, DeclarationError, RuleViolated
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.messages import Command, Event, Id, Money, Recorded, Value, utc
from cqrs_lab.read.table import WAYS
from cqrs_lab.sql.places import Place
from cqrs_lab.write.batch import Context
from cqrs_lab.write.decider import Decider

START = datetime(2025, 1, 1, tzinfo=UTC)  # when the first given event occurs; the others follow a minute apart
THREADS = 4
Events = Sequence[Event]

# -- domains -----------------------------------------------------------------------------------------------------------


class Given:
    """What has happened; made by `given`, of one stream, or by `given_events`, of any streams.

    Args:
        events: one by one or as one list; each alone, or with the aware time at which it occurred.
        deciders: who owns the events; for each the one that lists it, in the module of its class, when None.
    """

    def __init__(self, *events: Any, deciders: Sequence[Decider] | None = None) -> None:
        self.facts: list[tuple[Event, datetime]] = []
        for number, item in enumerate(_flat(events)):
            event, at = item if isinstance(item, tuple) else (item, START + timedelta(minutes=number))
            self.facts.append((event, utc(at)))
        self.events = [event for event, _ in self.facts]
        self.deciders = deciders

    def when(self, command: Command, decider: Decider | None = None) -> When:
        """Say which command comes.

        Args:
            decider: who decides; the one that lists the command, in the module of its class, when None.

        Raises:
            DeclarationError: there is no such decider, or more than one, or an event is not of the command's stream.
        """
        decider = _decider(command, None if decider is None else [decider], "when(command, decider=…)")
        for event in self.events:
            if type(event) not in decider.events or getattr(event, decider.key) != decider.stream_id(command):
                raise DeclarationError(f"{event!r} was given, which cannot be in the stream that {command!r} is about")
        return When(self.events, command, decider)

    def project(self, model: ReadModel, *, layers: Sequence[ReadModel] = ()) -> Projected:
        """Serve a read model in every way, the projection moved by one event at a time, and assert that all agree.

        Args:
            layers: the read models that it reads, in order.

        Raises:
            AssertionError: a serving says something else than the view.
            DeclarationError: the events do not tell the deciders, or the SELECT does not fit them; say deciders=.
        """
        owners = [_decider(event, self.deciders, "given_events(…, deciders=[…])") for event in self.events]
        deciders = self.deciders or list({id(decider): decider for decider in owners}.values())
        if not deciders:
            raise DeclarationError("without events nothing tells the deciders; pass given_events(deciders=[…])")
        now, ids = START, count(1)
        domain = Domain([*deciders, *_neighbours(deciders, [*layers, model])], [*layers, model])
        with Lab(domain=domain, clock=lambda: now, new_id=lambda: UUID(int=next(ids))) as lab:
            projection = lab.serve(model, as_="projection")
            for decider, (event, at) in zip(owners, self.facts, strict=True):
                key = getattr(event, decider.key)
                lab._store.append(decider.log_category, key, [event], context=Context(occurred_at=at))
                projection.catch_up()
                now += timedelta(minutes=1)
            tables: dict[str, Any] = {way: lab.serve(model, as_=way).arrow() for way in WAYS}
            tables |= {"as of the head": lab.as_of(position=lab.head).rows(model).arrow()}
        view, said = tables["view"], {way: table.to_pylist() for way, table in tables.items()}
        for way, table in tables.items():
            if not table.equals(view):
                told = _difference("row", said["view"], said[way]) or f"{table.schema} should be {view.schema}"
                raise _failure(f"{way}: {told}", given=self.events, view=said["view"], **{way: said[way]})
        return Projected(self.events, model, said["view"])


given = given_events = Given


@dataclass(frozen=True)
class When:
    """What has happened and which command comes; made by `given(…).when`."""

    events: Events
    command: Command
    decider: Decider

    def then(self, *expected: Event | list[Event] | BaseException | type[BaseException]) -> list[Event]:
        """Assert what is decided and return the events, none when an exception was expected.

        Args:
            expected: events, one by one or as one list, none when nothing happens; or a class of exceptions; or a
                RuleViolated with the same rule, or another exception with the same text.

        Raises:
            AssertionError: it is decided otherwise; the exception that nobody expected is its cause.
        """
        wanted, cause = _flat(expected), None
        try:
            state = self.decider.fold(self.events)
            got: list[Any] = list(self.decider.checked(self.command, self.decider.decide(self.command, state)))
        except Exception as error:
            if len(wanted) == 1 and isinstance(wanted[0], type) and isinstance(error, wanted[0]):
                return []
            got, cause = [error], error
        difference = _difference("outcome", wanted, got)
        if difference:
            raise _failure(difference, given=self.events, when=[self.command], expected=wanted, got=got) from cause
        return [] if cause else got


@dataclass(frozen=True)
class Projected:
    """The rows of a read model in order of its key; made by `given_events(…).project`."""

    events: Events
    model: ReadModel
    found: list[dict[str, Any]]

    def rows(self, *expected: dict[str, Any] | list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows, asserting, when any are expected, that there are these and no others.

        Args:
            expected: a dict for each row in order of the key; a column that it does not name may hold anything.
        """
        wanted = _flat(expected)
        difference = _difference("row", wanted, self.found) if expected else ""
        if difference:
            asked = [f"project {self.model.name}"]
            raise _failure(difference, given=self.events, when=asked, expected=wanted, got=self.found)
        return self.found

    def is_empty(self) -> None:
        """Assert that there are no rows."""
        self.rows([])


def _flat(items: tuple[Any, ...]) -> list[Any]:
    return items[0] if len(items) == 1 and isinstance(items[0], list) else list(items)


def _neighbours(deciders: Sequence[Decider], models: Iterable[ReadModel]) -> Iterator[Decider]:
    """Yield the deciders whose events the read models name and nothing was given of, from the same package."""
    known = {decider.log_category.table for decider in deciders}
    wanted = {source.name.lower() for model in models for source in _sources(model)} - known
    packages = {event.__module__.rpartition(".")[0] for decider in deciders for event in decider.events}
    for name, module in list(sys.modules.items()):
        if name.rpartition(".")[0] in packages:
            for value in vars(module).values():
                if isinstance(value, Decider) and value.log_category.table in wanted:
                    wanted.remove(value.log_category.table)
                    yield value


def _sources(model: ReadModel) -> Iterator[Place]:
    yield from model.sources()
    for layer in model.over:
        yield from _sources(layer)


def _decider(message: Command | Event, deciders: Sequence[Decider] | None, say: str) -> Decider:
    kind = type(message)
    known = vars(sys.modules.get(kind.__module__, object)).values() if deciders is None else deciders
    found = {id(d): d for d in list(known) if isinstance(d, Decider) and kind in (*d.commands, *d.events)}
    if len(found) != 1:
        where = f"among the variables of {kind.__module__}" if deciders is None else "among those given"
        raise DeclarationError(
            f"{len(found)} deciders {where} list {kind.__name__}, where one has to; pass the right one: {say}"
        )
    return found.popitem()[1]


def _fields(item: Any) -> dict[str, Any]:
    if isinstance(item, dict):
        return item
    more = {"rule": item.rule} if isinstance(item, RuleViolated) else {"text": str(item)}
    name = item.__name__ if isinstance(item, type) else type(item).__name__
    return {"type": name, "class": type(item)} | (item.__dict__ if isinstance(item, Event) else more)


def _difference(kind: str, expected: Sequence[Any], got: Sequence[Any]) -> str:
    """Return the first difference as a sentence, empty when there is none; only the expected fields count."""
    for number, (one, other) in enumerate(zip_longest(expected, got), start=1):
        if one is None or other is None:
            return f"{kind} {number} is {'missing' if other is None else 'one too many'}"
        found = _fields(other)
        for name, value in _fields(one).items():
            if name not in found or found[name] != value:
                shown = repr(found[name]) if name in found else "not there"
                return f"{kind} {number}: {name} should be {value!r} and is {shown}"
    return ""


def _failure(difference: str, **parts: Sequence[object]) -> AssertionError:
    lines = [difference]
    for title, items in parts.items():
        shown = [item if isinstance(item, str) else repr(item) for item in items] or ["nothing"]
        lines += [f"{name:<9} {text}" for name, text in zip_longest([f"{title}:"], shown, fillvalue="")]
    return AssertionError("\n".join(lines))


# -- stores ------------------------------------------------------------------------------------------------------------


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
