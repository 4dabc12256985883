"""Middleware: what happens around every command.

Owns one function for each concern, in call-next style: it gets the envelope and `proceed`, which is everything further
in, and returns the receipt. The command bus says the order.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from uuid import UUID

from cqrs_lab.errors import ConcurrencyError, IdempotencyConflict, InvalidMessage, NotAllowed, RuleViolated
from cqrs_lab.messages import Command, Event, utc
from cqrs_lab.store.times import Times
from cqrs_lab.write.batch import Batch, Remembered, Seen
from cqrs_lab.write.decider import Handler, Service
from cqrs_lab.write.event_store import EventStore

_LOGGER = logging.getLogger("cqrs_lab.commands")


def digest(command: Command) -> str:
    """Return what a command says, in 128 bits; the same for equal commands."""
    said = f"{type(command).__qualname__}\n{command.model_dump_json()}"
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A command on its way to its handler.

    Attributes:
        command: what is asked.
        handler: the decider or service that handles it.
        command_id: makes it safe to send again.
        correlation_id: the story that it belongs to.
        causation_id: the event or command that led to it; itself when None.
        occurred_at: when it happened, aware; the clock's time when None.
        expected_version: the version of the stream that the sender has seen; None: whatever it is.
        actor: who sends it, for the policy.
        is_new: whether its id was made for it, so that it cannot have been carried out before.
        batch: the larger append that it is part of.
        acted: what a service has done for it already: the stream as it was before, and the events.
    """

    command: Command
    handler: Handler
    command_id: UUID | str
    correlation_id: UUID | str
    causation_id: UUID | str | None
    occurred_at: datetime | None
    expected_version: int | None
    actor: str | None
    is_new: bool
    batch: Batch | None
    acted: tuple[Seen, Sequence[Event]] | None = None

    @cached_property
    def digest(self) -> str:
        """What the command says, in 128 bits."""
        return digest(self.command)

    @property
    def stream(self) -> str:
        """The stream that the command is about."""
        return self.handler.log_category.stream(self.handler.stream_id(self.command))


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of a command.

    Attributes:
        position: of its last event in the store; the head at that time when it led to no event.
        stream: `category/id`.
        version: that the stream is at after it.
        events: the events that it led to.
        command_id, correlation_id: as given, or made for it; a text that is a UUID is a UUID.
    """

    position: int
    stream: str
    version: int
    events: tuple[Event, ...]
    command_id: UUID | str
    correlation_id: UUID | str


Proceed = Callable[[Envelope], Receipt]
Middleware = Callable[[Envelope, Proceed], Receipt]
Policy = Callable[[Command, str | None], str | None]
"""(command, who sends it) -> None when it is allowed, else the reason why not."""


def logged(envelope: Envelope, proceed: Proceed) -> Receipt:
    """Log every command with its correlation id and what became of it (logger `cqrs_lab.commands`, level INFO)."""
    command, handler = envelope.command, envelope.handler
    about = f"{handler.category}/{getattr(command, handler.key, '?')}"  # nobody has checked the command yet
    said = (type(command).__name__, about, envelope.correlation_id)
    try:
        receipt = proceed(envelope)
    except Exception as error:
        _LOGGER.info("%s on %s [%s] refused: %s: %s", *said, type(error).__name__, error)
        raise
    events = ", ".join(type(event).__name__ for event in receipt.events) or "nothing"
    _LOGGER.info("%s on %s [%s] led to %s at position %d", *said, events, receipt.position)
    return receipt


class CommandTimes(Times):
    """Notes how long each command took."""

    def __call__(self, envelope: Envelope, proceed: Proceed) -> Receipt:
        """Carry the command out and note how long that took."""
        return self.note(type(envelope.command).__name__, lambda: proceed(envelope))


def validated(envelope: Envelope, proceed: Proceed) -> Receipt:
    """Refuse what was not checked when it was made, such as a command made by `model_construct`, and wrong ids."""
    command = envelope.command
    type(command)(**command.model_dump(warnings=False))
    for name in ("command_id", "correlation_id", "causation_id"):
        given = getattr(envelope, name)
        if given is not None:
            checked_id(name, given)
    if envelope.occurred_at is not None:
        checked_time("occurred_at", envelope.occurred_at)
    return proceed(envelope)


def checked_id(name: str, given: UUID | str) -> UUID | str:
    """Return an id of a message, refusing what is none.

    Raises:
        InvalidMessage: names it.
    """
    if not isinstance(given, (str, UUID)):
        raise InvalidMessage(name, (f"{given!r} is neither a text nor a UUID",))
    if isinstance(given, str) and not (0 < len(given) <= 500 and given.isprintable()):
        raise InvalidMessage(name, (f"{given[:80]!r} is not 1 to 500 printable characters",))
    return given


def checked_time(name: str, given: datetime) -> datetime:
    """Return a time in UTC.

    Raises:
        InvalidMessage: it has no time zone, or is beyond the years 1 to 9999.
    """
    try:
        return utc(given)
    except (ValueError, AttributeError) as error:
        raise InvalidMessage(name, (str(error),)) from None


def authorized(policy: Policy) -> Middleware:
    """Return middleware that asks a policy whether whoever sends a command may do so."""

    def authorized(envelope: Envelope, proceed: Proceed) -> Receipt:
        reason = policy(envelope.command, envelope.actor)
        if reason is not None:
            raise NotAllowed(
                f"{envelope.actor or 'nobody in particular'} may not send {type(envelope.command).__name__}: {reason}; "
                "nothing was stored"
            )
        return proceed(envelope)

    return authorized


def idempotent(store: EventStore) -> Middleware:
    """Return middleware that answers a command carried out before with its first receipt.

    The same id with the same command gives the first receipt again, with another command an IdempotencyConflict.
    """

    def idempotent(envelope: Envelope, proceed: Proceed) -> Receipt:
        if envelope.is_new:
            return proceed(envelope)
        before = store.remembered(str(envelope.command_id), envelope.batch)
        if before is not None:
            return _first_receipt(store, envelope, before)
        try:
            return proceed(envelope)
        except (ConcurrencyError, RuleViolated):
            # Another thread may have carried out this very command in the meantime.
            before = store.remembered(str(envelope.command_id), envelope.batch)
            if before is None:
                raise
            return _first_receipt(store, envelope, before)

    return idempotent


def _first_receipt(store: EventStore, envelope: Envelope, before: Remembered) -> Receipt:
    # No digest is left of a command whose personal data were erased.
    if before.digest not in ("", envelope.digest):
        raise IdempotencyConflict(
            f"command id {str(envelope.command_id)!r} was used for another command than this "
            f"{type(envelope.command).__name__}; nothing was stored. Give every new command an id of its own"
        )
    category, id = envelope.handler.log_category, envelope.handler.stream_id(envelope.command)
    recorded = before.recorded
    if recorded is None and before.first <= before.last:
        recorded = tuple(store.log.read_positions(category, id, before.first, before.last))
    version = recorded[-1].version if recorded else 0
    if not recorded and before.stream_no is not None:
        version = store.log.stream_version(envelope.stream, before.stream_no, before.last)
    return Receipt(
        position=before.last,
        stream=envelope.stream,
        version=version,
        events=tuple(r.event for r in recorded or ()),
        command_id=envelope.command_id,
        correlation_id=envelope.correlation_id if before.correlation_id is None else as_id(before.correlation_id),
    )


def as_id(given: UUID | str) -> UUID | str:
    """Return an id in its one form: a text that writes a UUID as this one does is a UUID."""
    if isinstance(given, str):
        with suppress(ValueError):
            found = UUID(given)
            return found if str(found) == given else given
    return given


def retried(store: EventStore, attempts: int = 5, first_pause: float = 0.001) -> Middleware:
    """Return middleware that decides again when somebody else appended to the stream in the meantime.

    It pauses a random time, up to twice as long at each attempt, so that writers who met do not meet again. The last
    attempt holds the log while it decides, so it cannot meet anybody. A sender who names the version that he has seen
    wants to know, and is not retried.

    Args:
        attempts: how often to try, the first time included.
        first_pause: the longest first pause, in seconds.
    """

    def retried(envelope: Envelope, proceed: Proceed) -> Receipt:
        if envelope.expected_version is not None or envelope.batch is not None:
            return proceed(envelope)
        for attempt in range(attempts - 1):
            try:
                return proceed(envelope)
            except ConcurrencyError:
                time.sleep(random.uniform(0, first_pause * 2**attempt))
        with store.together() as batch:
            return proceed(replace(envelope, batch=batch))

    return retried


def acting(store: EventStore) -> Middleware:
    """Return middleware that lets a service act before the log is held: the world outside takes its time."""

    def acting(envelope: Envelope, proceed: Proceed) -> Receipt:
        handler = envelope.handler
        if not isinstance(handler, Service):
            return proceed(envelope)
        if not envelope.is_new and store.remembered(str(envelope.command_id), envelope.batch) is not None:
            return proceed(envelope)
        store.check_writable()
        seen = store.seen(handler.log_category, handler.stream_id(envelope.command), envelope.batch)
        if envelope.expected_version not in (None, seen[1]):
            raise ConcurrencyError(envelope.stream, envelope.expected_version, seen[1])
        events = handler.handle(envelope.command, str(envelope.command_id))
        return proceed(replace(envelope, acted=(seen, events)))

    return acting
