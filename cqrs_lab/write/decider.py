"""The decider: the business rules of one category as two pure functions.

Owns no data and does no I/O. `decide(command, state)` says which events follow, or raises RuleViolated;
`evolve(state, event)` says what the state is afterwards. After Jérémie Chassaing, "Functional Event Sourcing
Decider" (2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

from cqrs_lab.categories import Category
from cqrs_lab.errors import DeclarationError, InvalidMessage
from cqrs_lab.messages import Command, Event


@dataclass(frozen=True)
class Decider:
    """The rules of one category of streams.

    Args:
        category: name of the category, such as "order".
        key: the field of each command and event that names the thing, such as "order_id".
        initial: the state before the first event.
        decide: (command, state) -> the events that follow; raises RuleViolated. An empty list: nothing to do.
        evolve: (state, event) -> the state after the event.
        commands: the command classes that `decide` handles.
        events: the event classes that `decide` returns and `evolve` understands.

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

    def __post_init__(self) -> None:
        assert self.log_category  # built now, so that a declaration that does not fit fails where it is made
        for command in self.commands:
            if self.key not in command.model_fields:
                raise DeclarationError(f"{command.__name__} lacks {self.key!r}, the key of {self.category!r}")

    @cached_property
    def log_category(self) -> Category:
        """The category that the log keeps for these events."""
        return Category(self.category, self.key, tuple(self.events))

    def fold(self, events: Iterable[Event], state: Any = None) -> Any:
        """Return the state after `events`, from the initial state unless one is given."""
        return reduce(self.evolve, events, self.initial if state is None else state)

    def stream_id(self, command: Command) -> str:
        """Return the id of the stream that a command is about."""
        return str(getattr(command, self.key))

    def checked(self, command: Command, events: Sequence[Event]) -> list[Event]:
        """Return the decided events, refusing any that do not belong into the command's stream.

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
