"""The server: the application on a socket, until it is told to stop.

Owns the socket, the patience with connections, and the order of stopping: nothing new is taken on, streams end, what
was begun is answered, then the port is free.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from cqrs_lab.app import Lab
from cqrs_lab.errors import DeclarationError
from cqrs_lab.http.limits import Limits
from cqrs_lab.http.routes import app
from cqrs_lab.http.security import OWNER, Tokens

PORT = 8765
_MORE = 1_000  # connections besides event streams
_TICKS = 10  # of 0.1 s between two looks at the connections
_HEAD = 64 * 2**10  # bytes after which the head of a request must have ended
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def serve(
    lab: Lab,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    tokens: Mapping[str, str] | Tokens | None = None,
    limits: Limits | None = None,
    recorders: Collection[str] = (OWNER,),
    ready: Callable[[str, str | None], None] | None = None,
) -> None:
    """Serve a lab over HTTP until Ctrl-C or SIGTERM. It does not close the lab.

    Args:
        host: where to listen; this machine alone unless told. There is no encryption: anyone who listens elsewhere
            puts a server in front that has it.
        port: 0 for any that is free.
        tokens, limits, recorders: as for `app`.
        ready: told the address, and the token that was made, once it listens; they are printed when None.

    Raises:
        DeclarationError: it cannot listen there.
    """
    limits = limits or Limits()
    made = app(lab, tokens=tokens, limits=limits, recorders=recorders)
    listening = _listen(host, port)
    _allow_files(limits.streams + _MORE)
    tell = ready or _say

    def started() -> None:
        name, number = listening.getsockname()[:2]
        tell(f"http://{f'[{name}]' if ':' in name else name}:{number}", made.state.token)

    config = uvicorn.Config(
        made,
        http=Impatient,
        ws="none",
        loop="auto",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.streams + _MORE,
        backlog=1_024,
        timeout_keep_alive=max(5, int(limits.heartbeat)),
        timeout_graceful_shutdown=limits.stop_seconds,  # type: ignore[arg-type]  # it is handed to asyncio as it is
    )
    with listening, suppress(KeyboardInterrupt):  # uvicorn raises it again, once all is done
        _Server(config, made, limits, started).run([listening])


class Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection that is closed when no request comes, or one whose head has no end.

    httptools reads it where that is installed, h11 otherwise: the first is compiled, the second runs everywhere.
    """

    seconds = 10.0
    head = 0  # bytes of the head that have come

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self.waited = self.loop.time()
        self.progress: tuple[int, float] | None = None
        # asyncio does so for sockets that it made itself; without it an answer of two parts waits 40 ms for a sign that
        # the first one came.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is still the head of a request: httptools would keep one of any size."""
        if self._is_idle and self.head > _HEAD:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
            return
        super().data_received(data)
        self.head = self.head + len(data) if self._is_idle else 0

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def look(self, now: float, patience: float) -> None:
        """Cut the connection when its head does not come, or nobody takes what is sent."""
        if not self._is_idle:
            self.waited = now
        elif now - self.waited > self.seconds and self.timeout_keep_alive_task is None:
            self.transport.abort()
        left = self.transport.get_write_buffer_size()
        if not left or self.progress is None or left != self.progress[0]:
            self.progress = (left, now)
        elif now - self.progress[1] > patience:
            self.transport.abort()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, made: Starlette, limits: Limits, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._made, self._limits, self._started = made, limits, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Impatient):
                    connection.look(now, self._limits.send_seconds)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._made.state.stop()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # a client that has not taken its answer by now


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1_024)
    except (OSError, OverflowError) as error:
        raise DeclarationError(
            f"cannot listen at {host}, port {port}: {getattr(error, 'strerror', None) or error}; name another, or port "
            "0 for any that is free"
        ) from error


def _allow_files(wanted: int) -> None:
    """Let this process have so many files and connections open, where the system allows it."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted + 512 if hard == resource.RLIM_INFINITY else min(wanted + 512, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _say(address: str, token: str | None) -> None:
    lines = [f"Listening on {address} (docs: {address}/docs)", *([f"Token: {token}"] if token else [])]
    sys.stdout.write("\n".join([*lines, "Stop it with Ctrl-C.", ""]))
    sys.stdout.flush()


__all__: Any = ["PORT", "Impatient", "is_loopback", "serve"]
