"""Limits: how much of everything a server takes on. Owns the numbers, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from cqrs_lab.errors import DeclarationError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a server takes on before it refuses with a clear answer.

    Attributes:
        body: bytes of a command.
        batch: bytes of a batch of events that enters.
        body_seconds: for a body to arrive; also for the head of a request.
        commands: threads that carry out commands; those that come together are committed together.
        queries: threads that answer queries.
        waiting: queries that wait for a position at the same time.
        queue: requests that wait for one of these threads.
        query_seconds: for an answer, once it is looked for.
        wait_seconds: that one request waits for a position; who is more patient asks again.
        rows: of an answer.
        streams: of events, open at the same time.
        send_seconds: for a client to take what is sent to it.
        heartbeat: seconds after which an idle stream says that it is still there.
        stop_seconds: for what is under way when the server is to stop.
    """

    body: int = 2**20
    batch: int = 8 * 2**20
    body_seconds: float = 10
    commands: int = 32
    queries: int = 16
    waiting: int = 64
    queue: int = 1_000
    query_seconds: float = 10
    wait_seconds: float = 30
    rows: int = 100_000
    streams: int = 2_000
    send_seconds: float = 30
    heartbeat: float = 15
    stop_seconds: float = 0.8

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise DeclarationError(f"{field.name}={getattr(self, field.name)!r} is no limit; give one above 0")
