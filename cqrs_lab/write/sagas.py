"""Sagas: events in, commands out. A process that spans several streams, and puts right what went before when it fails.

Owns the declaration of a saga and the way it reacts. Three things make it survive a crash at any point: its state is
folded from the log, its commands carry ids made from the event that caused them, and a refusal is an event as well, so
that a step is carried out or refused once and never again. After Hector Garcia-Molina and Kenneth Salem, "Sagas"
(1987).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cachetools import LRUCache

from cqrs_lab.errors import DeclarationError, NotAllowed, RuleViolated
from cqrs_lab.messages import Command, Event, Id, Recorded
from cqrs_lab.store.categories import Category
from cqrs_lab.write.batch import Context
from cqrs_lab.write.command_bus import CommandBus
from cqrs_lab.write.middleware import digest


class StepRefused(Event):
    """A command that a saga sent was refused by a rule.

    Attributes:
        saga_id: the process that sent it.
        command: name of the command's type.
        about: the stream that it was to change.
        rule: why it was refused.
    """

    saga_id: Id
    command: str
    about: str
    rule: str


@dataclass(frozen=True)
class Saga:
    """A process over several streams, as two pure functions.

    Args:
        name: such as "fulfilment"; the category that keeps its refused steps.
        key: the field, in every event that it follows, that says which process the event belongs to.
        events: the event classes that it follows; its own StepRefused comes with them.
        initial: the state before the first event.
        evolve: (state, event) -> the state after the event.
        react: (state after the event, event) -> the commands that follow.

    Raises:
        DeclarationError: an event lacks the key.
    """

    name: str
    key: str
    events: Sequence[type[Event]]
    initial: Any
    evolve: Callable[[Any, Event], Any]
    react: Callable[[Any, Event], Sequence[Command]]

    def __post_init__(self) -> None:
        assert self.log_category
        for event in self.events:
            if self.key not in event.model_fields:
                raise DeclarationError(f"{event.__name__} lacks {self.key!r}, the key of saga {self.name!r}")

    @cached_property
    def log_category(self) -> Category:
        """The category that keeps the saga's refused steps."""
        return Category(self.name, "saga_id", (StepRefused,))

    @property
    def followed(self) -> list[type[Event]]:
        """The event classes that it follows, with its own refused steps."""
        return [*self.events, StepRefused]

    def id_of(self, event: Event) -> str:
        """Return the id of the process that an event belongs to."""
        return str(event.saga_id if isinstance(event, StepRefused) else getattr(event, self.key))


class Process:
    """A saga at work: hands each event to it and sends what it answers.

    Args:
        saga: the declaration.
        bus: where its commands go.
    """

    def __init__(self, saga: Saga, bus: CommandBus) -> None:
        self.saga, self._bus, self._log = saga, bus, bus.store.log
        # State and the position it stands at. A cache: what is not in it is folded from the log.
        self._states: LRUCache[str, tuple[int, Any]] = LRUCache(10_000)

    def handle(self, recorded: Recorded) -> None:
        """React to one event. Events come in order of position; one that comes again changes nothing."""
        if not self._is_ours(recorded):
            return
        id = self.saga.id_of(recorded.event)
        commands = self.saga.react(self._state(id, recorded), recorded.event)
        if not isinstance(commands, (list, tuple)):
            raise DeclarationError(
                f"react() of saga {self.saga.name!r} answered {recorded.type} with {commands!r}; it returns a list of "
                "commands, empty when nothing follows"
            )
        for number, command in enumerate(commands, start=1):
            self._send(id, command, f"{self.saga.name}/{recorded.event_id}/{number}", recorded)

    def _is_ours(self, recorded: Recorded) -> bool:
        """Whether an event is not a step of another saga."""
        own = self.saga.log_category.stream("")
        return not isinstance(recorded.event, StepRefused) or recorded.stream.startswith(own)

    def _send(self, id: str, command: Command, command_id: str, cause: Recorded) -> None:
        story, causation = cause.correlation_id or str(cause.event_id), str(cause.event_id)
        if self._bus.store.remembered(command_id) is not None:
            return  # carried out, or refused, before a crash
        try:
            self._bus.send(
                command,
                command_id=command_id,
                correlation_id=story,
                causation_id=causation,
                actor=self.saga.name,
            )
        except (RuleViolated, NotAllowed) as refusal:
            handler = self._bus.handlers[type(command)]
            refused = StepRefused(
                saga_id=id,
                command=type(command).__name__,
                about=handler.log_category.stream(handler.stream_id(command)),
                rule=f"{refusal.rule} ({refusal.state})" if isinstance(refusal, RuleViolated) else str(refusal),
            )
            context = Context(
                correlation_id=story,
                causation_id=causation,
                command_id=command_id,
                command=type(command).__name__,
                digest=digest(command),
            )
            self._bus.store.append(self.saga.log_category, id, [refused], context=context)

    def _state(self, id: str, upto: Recorded) -> Any:
        """The state of one process after an event."""
        position, state = self._states.get(id, (None, self.saga.initial))
        if position is None or position > upto.position:  # never seen, or an earlier event that comes again
            keys = {self.saga.key: id, "saga_id": id}
            past = self._log.read_about(self.saga.followed, keys, upto.position)
            state = self.saga.initial
            for recorded in filter(self._is_ours, past):
                state = self.saga.evolve(state, recorded.event)
        elif position < upto.position:
            state = self.saga.evolve(state, upto.event)
        self._states[id] = (upto.position, state)
        return state
