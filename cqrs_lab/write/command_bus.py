"""The command bus: one command to its handler, its events to the store.

Owns the table of who handles what and the chain of middleware that every command passes. Load, decide, append:
`decide` never sees a read model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from cqrs_lab.errors import ConcurrencyError, CqrsLabError, DeclarationError, InvalidMessage, UnknownCommand
from cqrs_lab.messages import Command, utc
from cqrs_lab.write import streams
from cqrs_lab.write.batch import Batch, Context
from cqrs_lab.write.decider import Decider, Handler
from cqrs_lab.write.event_store import EventStore
from cqrs_lab.write.group_commit import GroupCommit
from cqrs_lab.write.middleware import (
    CommandTimes,
    Envelope,
    Middleware,
    Policy,
    Proceed,
    Receipt,
    acting,
    as_id,
    authorized,
    idempotent,
    logged,
    retried,
    validated,
)


class CommandBus:
    """Routes commands to handlers.

    Args:
        store: where events go.
        handlers: deciders and services; each command class has exactly one.
        policy: who may send what; everybody everything when None.
        middleware: more middleware, around idempotency and retries.

    Raises:
        DeclarationError: two handlers for one command.

    Attributes:
        middleware: what every command passes, outermost first.
        times: how long commands took.
    """

    def __init__(
        self,
        store: EventStore,
        handlers: Iterable[Handler],
        *,
        policy: Policy | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        self.store = store
        self.handlers: dict[type[Command], Handler] = {}
        for handler in handlers:
            for command in handler.commands:
                if command in self.handlers:
                    raise DeclarationError(
                        f"{command.__name__} is handled in the categories {self.handlers[command].category!r} and "
                        f"{handler.category!r}; a command has one owner. Registered are {self._registered()}"
                    )
                self.handlers[command] = handler
        self.times = CommandTimes()
        self.middleware: list[Middleware] = [
            logged,
            self.times,
            validated,
            *([authorized(policy)] if policy else []),
            *middleware,
            retried(store),
            acting(store),
            GroupCommit(store, self._prepare),
            idempotent(store),
        ]
        self._handle: Proceed = self._carry_out
        for step in reversed(self.middleware):
            self._handle = _around(step, self._handle)

    def send(
        self,
        command: Command,
        *,
        command_id: UUID | str | None = None,
        correlation_id: UUID | str | None = None,
        causation_id: UUID | str | None = None,
        occurred_at: datetime | None = None,
        expected_version: int | None = None,
        actor: str | None = None,
    ) -> Receipt:
        """Carry out a command (see `Lab.send`).

        Args:
            causation_id: the event or command that led to it; the command itself when None.
        """
        self.store.log.database.check_open()  # before anything else, for a forked process
        return self._handle(
            self._envelope(command, command_id, correlation_id, causation_id, occurred_at, expected_version, actor)
        )

    def send_many(
        self,
        commands: Sequence[Command],
        *,
        command_ids: Sequence[UUID | str] | None = None,
        correlation_id: UUID | str | None = None,
        occurred_at: datetime | None = None,
        actor: str | None = None,
    ) -> list[Receipt]:
        """Carry out commands in their order, in one transaction: all of them, or none (see `Lab.send_many`)."""
        self.store.log.database.check_open()
        ids: Sequence[UUID | str | None] = [None] * len(commands) if command_ids is None else command_ids
        if len(ids) != len(commands):
            raise InvalidMessage("command_ids", (f"there are {len(ids)} for {len(commands)} commands",))
        envelopes = [
            self._envelope(command, id, correlation_id, None, occurred_at, None, actor)
            for command, id in zip(commands, ids, strict=True)
        ]
        receipts = []
        with self.store.together() as batch:
            self._prepare(batch, envelopes)
            for number, envelope in enumerate(envelopes, start=1):
                try:
                    receipts.append(self._handle(replace(envelope, batch=batch)))
                except CqrsLabError as error:
                    what = f"{number} of {len(commands)}, {envelope.command!r}"
                    error.add_note(f"It was command {what}; none of them was carried out")
                    raise
        return receipts

    def _envelope(
        self,
        command: Command,
        command_id: UUID | str | None,
        correlation_id: UUID | str | None,
        causation_id: UUID | str | None,
        occurred_at: datetime | None,
        expected_version: int | None,
        actor: str | None,
    ) -> Envelope:
        handler = self.handlers.get(type(command))
        if handler is None:
            raise UnknownCommand(
                f"nothing handles {type(command).__name__}; registered are {self._registered()}. Nothing was stored"
            )
        return Envelope(
            command=command,
            handler=handler,
            command_id=self.store.new_id() if command_id is None else as_id(command_id),
            correlation_id=self.store.new_id() if correlation_id is None else as_id(correlation_id),
            causation_id=causation_id,
            occurred_at=occurred_at,
            expected_version=expected_version,
            actor=actor,
            is_new=command_id is None,
            batch=None,
        )

    def _prepare(self, batch: Batch, envelopes: Sequence[Envelope]) -> None:
        """Look up and load what many commands need, with one question for each table.

        What cannot be had this way is left to each command, so that one that fails does so alone.
        """
        with suppress(Exception):
            self._load_all(batch, envelopes)

    def _load_all(self, batch: Batch, envelopes: Sequence[Envelope]) -> None:
        batch.commands.update(self.store.remember([str(e.command_id) for e in envelopes if not e.is_new]))
        ids: dict[str, dict[str, None]] = {}
        deciders: dict[str, Decider] = {}
        for envelope in envelopes:
            if isinstance(envelope.handler, Decider):
                deciders[envelope.handler.category] = envelope.handler
                ids.setdefault(envelope.handler.category, {})[envelope.handler.stream_id(envelope.command)] = None
        for category, decider in deciders.items():
            self._load(batch, decider, list(ids[category]))

    def _load(self, batch: Batch, decider: Decider, ids: Sequence[str]) -> dict[str, streams.Loaded]:
        """Load streams for a batch: from memory what is there and still true, the rest from the log."""
        stream, heads, loaded = decider.log_category.stream, self.store.log.heads.streams, self.store.loaded
        for id in ids:
            known = loaded.get(stream(id))
            if known is not None and heads.get(stream(id)) == known.seen:
                batch.loaded[stream(id)] = known
        missing = [id for id in ids if stream(id) not in batch.loaded]
        if missing:
            batch.loaded.update(streams.load_many(self.store.log, decider, missing))
        return batch.loaded

    def _carry_out(self, envelope: Envelope) -> Receipt:
        """Load, decide, append to the batch."""
        handler, command, batch = envelope.handler, envelope.command, envelope.batch
        assert batch is not None
        category, id = handler.log_category, handler.stream_id(command)
        if envelope.acted is not None:
            seen, decided = envelope.acted
            loaded = streams.Loaded(seen, None)
        else:
            assert isinstance(handler, Decider)
            loaded = batch.loaded.get(envelope.stream) or self._load(batch, handler, [id])[envelope.stream]
            if envelope.expected_version not in (None, loaded.version):
                raise ConcurrencyError(envelope.stream, envelope.expected_version, loaded.version)
            decided = handler.decide(command, loaded.state)
        events = handler.checked(command, decided)
        context = Context(
            occurred_at=None if envelope.occurred_at is None else utc(envelope.occurred_at),
            correlation_id=str(envelope.correlation_id),
            causation_id=str(envelope.command_id if envelope.causation_id is None else envelope.causation_id),
            command_id=str(envelope.command_id),
            command=type(command).__name__,
            digest=envelope.digest,
        )
        state = None
        if isinstance(handler, Decider):
            streams.keep_snapshot(batch, handler, loaded)
            try:
                state = handler.fold(events, loaded.state)  # first: what evolve() refuses must not be stored
            except BaseException:  # it may have changed the state in place
                for remembered in (batch.loaded, self.store.loaded):
                    remembered.pop(envelope.stream, None)
                raise
        recorded = self.store.append(category, id, events, seen=loaded.seen, context=context, batch=batch)
        if isinstance(handler, Decider):
            batch.loaded[envelope.stream] = loaded.after(recorded, batch.streams[envelope.stream][0], state)
        return Receipt(
            position=batch.position,
            stream=envelope.stream,
            version=loaded.version + len(recorded),
            events=tuple(events),
            command_id=envelope.command_id,
            correlation_id=envelope.correlation_id,
        )

    def _registered(self) -> str:
        return ", ".join(sorted(f"{c.__name__} ({h.category})" for c, h in self.handlers.items())) or "none"


def _around(step: Middleware, proceed: Proceed) -> Proceed:
    return lambda envelope: step(envelope, proceed)
