"""Deciders and services: who turns commands into events.

Owns no data. A decider is the business rules of one category as two pure functions: `decide(command, state)` says which
events follow, or raises RuleViolated; `evolve(state, event)` says what the state is afterwards. After Jérémie
Chassaing, "Functional Event Sourcing Decider" (2021). A service is a part of the world outside, such as a payment
gateway: it acts, and its events say what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

from pydantic import TypeAdapter

from cqrs_lab.errors import DeclarationError, InvalidMessage
from cqrs_lab.messages import Command, Event
from cqrs_lab.store.categories import Category
from cqrs_lab.write.code import fingerprint

_INITIAL = object()  # None may be a state


class Handler:
    """What deciders and services have in common: they own a category and handle commands about its streams."""

    category: str
    key: str
    commands: Sequence[type[Command]]
    events: Sequence[type[Event]]

    def __post_init__(self) -> None:
        assert self.log_category  # built now, so that a declaration that does not fit fails where it is made
        for command in self.commands:
            if self.key not in command.model_fields:
                raise DeclarationError(f"{command.__name__} lacks {self.key!r}, the key of {self.category!r}")

    @cached_property
    def log_category(self) -> Category:
        """The category that the log keeps for these events."""
        return Category(self.category, self.key, tuple(self.events))

    def stream_id(self, command: Command) -> str:
        """Return the id of the stream that a command is about."""
        return str(getattr(command, self.key))

    def checked(self, command: Command, events: Sequence[Event]) -> list[Event]:
        """Return the events that a command led to, refusing any that do not belong into its stream.

        Raises:
            InvalidMessage: an undeclared event type, or an event about another thing.
        """
        decided = list(events)
        for event in decided:
            name = type(event).__name__
            if self.log_category.types.get(name) is not type(event):
                raise InvalidMessage(
                    type(command).__name__,
                    (f"it led to {name}, which category {self.category!r} does not declare; add it to its events",),
                )
            if getattr(event, self.key) != self.stream_id(command):
                raise InvalidMessage(
                    type(command).__name__,
                    (
                        f"it is about {self.stream_id(command)!r} and led to {name} of {getattr(event, self.key)!r}; "
                        "a command changes one stream",
                    ),
                )
        return decided


@dataclass(frozen=True)
class Decider(Handler):
    """The rules of one category of streams.

    Args:
        category: name of the category, such as "order".
        key: the field of each command and event that names the thing, such as "order_id".
        initial: the state before the first event.
        decide: (command, state) -> the events that follow; raises RuleViolated. An empty list: nothing to do.
        evolve: (state, event) -> the state after the event.
        commands: the command classes that `decide` handles.
        events: the event classes that `decide` returns and `evolve` understands.
        snapshot_every: keep the state of a stream after so many events, so that a long stream is not folded whole for
            every command; 0 for never. The state must then be something that pydantic can write as JSON and read
            again, such as a dataclass. A snapshot is used by the code that made it: by an `evolve` whose file, and the
            files that this one imports, say the same. What `evolve` imports while it runs, reads from files or finds in
            variables that are set elsewhere is not seen: when that changes, change `initial` or a comment in its file.

    Raises:
        DeclarationError: a command or an event lacks the key, or names collide.
    """

    category: str
    key: str
    initial: Any
    decide: Callable[[Any, Any], Sequence[Event]]
    evolve: Callable[[Any, Any], Any]
    commands: Sequence[type[Command]]
    events: Sequence[type[Event]]
    snapshot_every: int = 0

    def fold(self, events: Iterable[Event], state: Any = _INITIAL) -> Any:
        """Return the state after `events`, from the initial state unless one is given."""
        return reduce(self.evolve, events, self.initial if state is _INITIAL else state)

    @cached_property
    def states(self) -> TypeAdapter[Any]:
        """What writes states as JSON and reads them again."""
        return TypeAdapter(type(self.initial))

    @cached_property
    def code(self) -> str:
        """What tells this `evolve` from an earlier one: a state that other code made is not used."""
        versions = [(event.__name__, event.schema_version, event.upcasts) for event in self.events]
        return fingerprint(self.evolve, versions, self.initial)


@dataclass(frozen=True)
class Service(Handler):
    """A part of the world outside that commands can reach.

    Args:
        category: name of the category that keeps what came of its acts, such as "payment".
        key: the field of each command and event that names the thing.
        handle: (command, key) -> the events that say what came of it. It may be called again for the same command,
            after a crash or when the answer got lost: then with the same key (the command's id), by which the outside
            can tell that it has acted already.
        commands: the command classes that it handles.
        events: the event classes that it returns.
    """

    category: str
    key: str
    handle: Callable[[Any, str], Sequence[Event]]
    commands: Sequence[type[Command]]
    events: Sequence[type[Event]]
