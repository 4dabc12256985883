"""Specifications: what has happened, which command comes, what follows; given, when, then.

Owns no rules: the real deciders and read models are asked::

    given(placed).when(PayOrder(order_id="o-1", amount="9.99")).then(OrderPaid(order_id="o-1", amount="9.99"))
    given(placed, paid).when(pay).then(RuleViolated("an order is paid once, while it is pending", "PAID"))
    given(placed, reserved).when(declined, saga=fulfilment).then(CancelOrder(order_id="o-1", reason="declined"))
    given_events(placed, paid).project(order_summary).rows({"order_id": "o-1", "status": "PAID"})
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, zip_longest
from typing import Any, overload
from uuid import UUID

from cqrs_lab.app import Lab
from cqrs_lab.domain import Domain
from cqrs_lab.errors import DeclarationError, RuleViolated
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.messages import Command, Event, Message, utc
from cqrs_lab.read.table import WAYS
from cqrs_lab.sql.places import Place
from cqrs_lab.write.batch import Context
from cqrs_lab.write.decider import Decider
from cqrs_lab.write.sagas import Saga

START = datetime(2025, 1, 1, tzinfo=UTC)  # when the first given event occurs; the others follow a minute apart
Events = Sequence[Event]


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

    @overload
    def when(self, command: Command, decider: Decider | None = None) -> When: ...

    @overload
    def when(self, command: Event, *, saga: Saga) -> Reaction: ...

    def when(
        self, command: Command | Event, decider: Decider | None = None, *, saga: Saga | None = None
    ) -> When | Reaction:
        """Say which command comes, or which event a saga meets.

        Args:
            command: the command, or, for a saga, the event.
            decider: who decides; the one that lists the command, in the module of its class, when None.
            saga: who reacts to the event.

        Raises:
            DeclarationError: there is no such decider, or more than one, or an event is not of the command's stream; or
                an event is none that the saga follows, or belongs to another process of it.
        """
        if isinstance(command, Event):
            if saga is None:
                raise DeclarationError(
                    f"{type(command).__name__} is an event, to which a saga reacts; say which: when(event, saga=…)"
                )
            for event in (command, *self.events):  # the command first: only what is followed has an id
                if type(event) not in saga.followed or saga.id_of(event) != saga.id_of(command):
                    raise DeclarationError(
                        f"{event!r} is not in the process of {saga.name!r} that {type(command).__name__} is about, or "
                        f"is not followed by it; it follows {', '.join(kind.__name__ for kind in saga.followed)}"
                    )
            return Reaction(self.events, command, saga)
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
class Reaction:
    """What has happened and which event a saga meets; made by `given(…).when(event, saga=…)`."""

    events: Events
    event: Event
    saga: Saga

    def then(self, *expected: Command | list[Command]) -> list[Command]:
        """Assert which commands the saga sends after the event, in order, and return them.

        Args:
            expected: commands, one by one or as one list; none when it sends nothing. What it sent before is not asked.

        Raises:
            AssertionError: it sends others.
        """
        state = self.saga.initial
        for event in (*self.events, self.event):
            state = self.saga.evolve(state, event)
        wanted, got = _flat(expected), list(self.saga.react(state, self.event))
        difference = _difference("command", wanted, got)
        if difference:
            raise _failure(difference, given=self.events, when=[self.event], expected=wanted, got=got)
        return got


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
    return {"type": name, "class": type(item)} | (item.__dict__ if isinstance(item, Message) else more)


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
