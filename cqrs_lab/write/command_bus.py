"""The command bus: one command to its decider, its events to the store.

Owns the table of who handles what, and idempotency by command id: the same id with the same command gives the first
receipt again, with another command an IdempotencyConflict. Load, decide, append: `decide` never sees a read model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cqrs_lab.errors import (
    ConcurrencyError,
    DeclarationError,
    IdempotencyConflict,
    InvalidMessage,
    RuleViolated,
    UnknownCommand,
)
from cqrs_lab.messages import Command, Event, Recorded, utc
from cqrs_lab.write.decider import Decider
from cqrs_lab.write.event_store import Context, EventStore


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of a command.

    Attributes:
        position: of its last event in the store; the head at that time when it led to no event.
        stream: `category/id`.
        version: that the stream is at after it.
        events: the events that it led to.
        command_id, correlation_id: as given, or made for it.
    """

    position: int
    stream: str
    version: int
    events: tuple[Event, ...]
    command_id: UUID | str
    correlation_id: UUID | str


class CommandBus:
    """Routes commands to deciders.

    Args:
        store: where events go.
        deciders: the rules; each command class has exactly one.

    Raises:
        DeclarationError: two deciders handle one command.
    """

    def __init__(self, store: EventStore, deciders: Iterable[Decider]) -> None:
        self.store = store
        self.handlers: dict[type[Command], Decider] = {}
        for decider in deciders:
            for command in decider.commands:
                if command in self.handlers:
                    raise DeclarationError(
                        f"{command.__name__} is handled by the deciders of {self.handlers[command].category!r} and "
                        f"{decider.category!r}; a command has one owner"
                    )
                self.handlers[command] = decider

    def send(
        self,
        command: Command,
        *,
        command_id: UUID | str | None = None,
        correlation_id: UUID | str | None = None,
        causation_id: UUID | str | None = None,
        occurred_at: datetime | None = None,
        expected_version: int | None = None,
    ) -> Receipt:
        """Carry out a command.

        Args:
            expected_version: the version that whoever sends it has seen; None: whatever it is.
            command_id: makes it safe to send again; a fresh one when None.
            correlation_id: the story it belongs to; a fresh one when None.
            causation_id: the event or command that led to it; the command itself when None.
            occurred_at: when it happened, aware; now when None.

        Raises:
            UnknownCommand, RuleViolated, ConcurrencyError, IdempotencyConflict, InvalidMessage.
        """
        decider = self._handler(command)
        if occurred_at is not None:
            try:
                occurred_at = utc(occurred_at)
            except (ValueError, AttributeError) as error:
                raise InvalidMessage("occurred_at", (str(error),)) from None
        digest = _digest(command)
        given = {
            "command_id": self.store.new_id() if command_id is None else command_id,
            "correlation_id": self.store.new_id() if correlation_id is None else correlation_id,
        }
        name = str(given["command_id"])
        if command_id is not None:
            before = self._first_receipt(decider, command, name, digest, given)
            if before is not None:
                return before
        context = Context(
            occurred_at=occurred_at,
            correlation_id=str(given["correlation_id"]),
            causation_id=name if causation_id is None else str(causation_id),
            command_id=name,
            digest=digest,
        )
        try:
            recorded, seen = self._carry_out(decider, command, expected_version, context)
        except (ConcurrencyError, RuleViolated):
            # Another thread may have carried out this very command in the meantime.
            before = self._first_receipt(decider, command, name, digest, given)
            if before is None:
                raise
            return before
        position = recorded[-1].position if recorded else self.store.log.head
        events = [r.event for r in recorded]
        return self._receipt(decider, decider.stream_id(command), events, position, seen + len(events), given)

    def _carry_out(
        self, decider: Decider, command: Command, expected_version: int | None, context: Context
    ) -> tuple[list[Recorded], int]:
        """Load, decide, append; return what was appended and the version it was decided on."""
        log, category, id = self.store.log, decider.log_category, decider.stream_id(command)
        number = log.stream_no(category.stream(id))
        past = [] if number is None else log.read_numbered(category, category.stream(id), number)
        version = past[-1].version if past else 0
        if expected_version is not None and expected_version != version:
            raise ConcurrencyError(category.stream(id), expected_version, version)
        state = decider.fold(recorded.event for recorded in past)
        events = decider.checked(command, decider.decide(command, state))
        return self.store.append(category, id, events, seen=(number, version), context=context), version

    def _handler(self, command: Command) -> Decider:
        decider = self.handlers.get(type(command))
        if decider is None:
            known = ", ".join(sorted(c.__name__ for c in self.handlers)) or "none"
            raise UnknownCommand(
                f"no decider handles {type(command).__name__}; the domain's commands are {known}. Nothing was stored"
            )
        return decider

    def _first_receipt(
        self, decider: Decider, command: Command, name: str, digest: str, given: dict[str, Any]
    ) -> Receipt | None:
        found = self.store.remembered(name)
        if found is None:
            return None
        first_digest, first, last = found
        if first_digest != digest:
            raise IdempotencyConflict(
                f"command id {name!r} was used for another command than this {type(command).__name__}; "
                "nothing was stored. Give every new command an id of its own"
            )
        id = decider.stream_id(command)
        if first is None or last is None:
            past = self.store.log.read(decider.log_category, id)
            return self._receipt(decider, id, (), self.store.log.head, past[-1].version if past else 0, given)
        recorded = self.store.log.read_positions(decider.log_category, id, first, last)
        events = [r.event for r in recorded]
        if recorded[0].correlation_id != str(given["correlation_id"]):
            given = given | {"correlation_id": recorded[0].correlation_id}
        return self._receipt(decider, id, events, last, recorded[-1].version, given)

    def _receipt(
        self, decider: Decider, id: str, events: Sequence[Event], position: int, version: int, given: dict[str, Any]
    ) -> Receipt:
        return Receipt(
            position=position,
            stream=decider.log_category.stream(id),
            version=version,
            events=tuple(events),
            **given,
        )


def _digest(command: Command) -> str:
    """What the command says, in 128 bits; the same for equal commands."""
    said = f"{type(command).__qualname__}\n{command.model_dump_json()}"
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
