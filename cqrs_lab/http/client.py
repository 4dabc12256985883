"""The client: a lab that is somewhere else, under the same names.

Owns the retries. What is sent has an id before it leaves, and keeps it: however often it is sent, it is carried out
once. Errors are those that the lab itself would raise.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
from pydantic_core import to_jsonable_python

from cqrs_lab.errors import NotYet, ServerError
from cqrs_lab.http.problems import understood
from cqrs_lab.messages import Command, Query

_FIRST_PAUSE = 0.05  # seconds; twice as long at each attempt, up to a second
_IDLE = 60.0  # seconds without a sign of life after which a stream is taken for cut
_TIMEOUT = {"connect": 10.0, "read": _IDLE, "write": 10.0, "pool": 10.0}


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of a command, as the server tells it.

    Attributes:
        position: of its last event in the store.
        stream: `category/id`.
        version: that the stream is at after it.
        events: the events that it led to, each with type and data.
        command_id, correlation_id: as given, or made for it.
        status: where to ask which read models tell it.
    """

    position: int
    stream: str
    version: int
    events: list[dict[str, Any]]
    command_id: str
    correlation_id: str
    status: str


class Client:
    """A lab behind HTTP. A context manager; closed by `close()`. Safe from many threads.

    Args:
        address: such as "http://127.0.0.1:8765".
        token: who this is.
        patience: seconds to go on trying when the server cannot be reached, or says that it is busy.
        transport: what carries the requests, for tests; the network when None.
    """

    def __init__(
        self, address: str, token: str, *, patience: float = 10, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._patience, self._address = patience, str(httpx.URL(address)).rstrip("/")
        self._headers = [("Authorization", f"Bearer {token}")]
        self._http = httpx.Client(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            transport=transport,
            trust_env=False,
        )

    def send(
        self,
        command: Command,
        *,
        command_id: UUID | str | None = None,
        correlation_id: UUID | str | None = None,
        occurred_at: datetime | None = None,
        expected_version: int | None = None,
        wait: bool = False,
        timeout: float = 5,
    ) -> Receipt:
        """Send a command and return once its events are on disk there (see `Lab.send`).

        Args:
            wait: return only once every read model that moves by itself tells the command's events.
            timeout: seconds to wait for that.

        Raises:
            As `Lab.send` does; ServerError when no answer came in time: whether it was carried out is not known, and
            sending it again with the same command_id tells.
        """
        headers = {"Idempotency-Key": str(uuid4() if command_id is None else command_id)}
        if expected_version is not None:
            headers["If-Match"] = f'"{expected_version}"'
        params: dict[str, str] = {}
        if correlation_id is not None:
            params["correlation_id"] = str(correlation_id)
        if occurred_at is not None:
            params["occurred_at"] = occurred_at.isoformat()
        answer = self._request(
            "POST",
            f"/commands/{type(command).__name__}",
            params=params,
            headers={**headers, "Content-Type": "application/json"},
            content=command.model_dump_json().encode(),
        )
        receipt = Receipt(**answer.json())
        if wait:
            late = _late(self.status(receipt.command_id, timeout=timeout))
            if late:
                raise NotYet(
                    f"the events are stored; {late[0]['model']} is at position {late[0]['position']:,} and not yet at "
                    f"{receipt.position:,} after {timeout:g} s",
                    late[0]["position"],
                )
        return receipt

    def status(self, command_id: UUID | str, *, timeout: float = 0) -> dict[str, Any]:
        """Return what became of a command: state ("processing" or "done"), position, and read_models with theirs.

        Args:
            timeout: seconds to wait until the read models that move by themselves tell it.
        """
        path, until = f"/commands/{quote(str(command_id), safe='')}", time.monotonic() + timeout
        while True:
            left = max(0.0, until - time.monotonic())
            found: dict[str, Any] = self._request("GET", path, params={"timeout": f"{left:g}"}).json()
            if not left or not _late(found):
                return found

    def ask(
        self,
        query: Query,
        *,
        served_as: str | None = None,
        at_least: int | None = None,
        timeout: float = 5,
    ) -> Any:
        """Answer a query (see `Lab.ask`).

        Returns:
            The answer as JSON has it: rows are a list of dicts; money and times are text.

        Raises:
            As `Lab.ask` does; ServerError when no answer came.
        """
        fields = to_jsonable_python(query, exclude_none=True)
        params: dict[str, Any] = {
            name: [_text(one) for one in value] if isinstance(value, list) else _text(value)
            for name, value in fields.items()
        }
        if served_as is not None:
            params["served_as"] = served_as
        until = time.monotonic() + timeout
        while True:
            left = max(0.0, until - time.monotonic())
            if at_least is not None:
                params |= {"at_least": str(at_least), "timeout": f"{left:g}"}
            try:
                return self._request("GET", f"/queries/{type(query).__name__}", params=params).json()
            except NotYet:
                if time.monotonic() >= until:  # a server waits for so long at a time
                    raise

    def events(
        self, *, after: int = 0, category: str | None = None, timeout: float | None = 0
    ) -> Iterator[dict[str, Any]]:
        """Yield the events behind a position, in order, and those to come; a stream that is cut is taken up again.

        Args:
            category: only this one.
            timeout: seconds without a new event after which it ends; None waits for ever.

        Yields:
            A dict for each event, as `Lab.events` has it; data is a dict, times are text.

        Raises:
            ServerError: the server cannot be reached any more.
        """
        position, until = after, time.monotonic() + self._patience
        attempt = 0
        while True:
            params = {"category": category} if category is not None else {}
            if timeout is not None:
                params["timeout"] = f"{timeout:g}"
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(position)}
            try:
                request = self._made("GET", "/events", params=params, headers=headers)
                with closing(self._http.send(request, stream=True)) as answer:
                    if answer.status_code == 200:
                        for event in _events(answer.iter_lines()):
                            position, until, attempt = event["position"], time.monotonic() + self._patience, 0
                            yield event
                        if timeout is not None:
                            return  # ended as it was asked to
                        until = time.monotonic() + self._patience
                        error = None
                    else:
                        answer.read()
                        error = _error(answer)
                        if answer.status_code != 503:
                            raise error
            except httpx.TransportError as cut:
                error = ServerError(f"the stream of events was cut: {cut!r}")
            if time.monotonic() > until:
                raise error or ServerError("the stream of events ended again and again")
            attempt = self._pause(attempt)

    def lag(self) -> list[dict[str, Any]]:
        """Return how far each serving is behind (see `Lab.lag`)."""
        found: list[dict[str, Any]] = self._request("GET", "/lag").json()
        return found

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _made(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Request:
        """A request as httpx would build it: to have it merge addresses, headers and cookies takes 0.2 ms each time."""
        return httpx.Request(
            method,
            _url(self._address + path),
            params=params or None,
            headers=[*self._headers, *(headers or {}).items()],
            content=content,
            extensions={"timeout": _TIMEOUT},
        )

    def _request(self, method: str, path: str, **what: Any) -> httpx.Response:
        """Ask until there is an answer that asking again would not change."""
        until, attempt = time.monotonic() + self._patience, 0
        while True:
            try:
                answer = self._http.send(self._made(method, path, **what))
            except httpx.TransportError as error:
                if time.monotonic() > until:
                    raise ServerError(
                        f"{self._address} gave no answer within {self._patience:g} s: {error!r}; whether a "
                        "command was carried out is not known, and sending it again with its command_id tells"
                    ) from error
            else:
                if answer.is_success:
                    return answer
                error_told = _error(answer)
                if not _is_passing(answer) or time.monotonic() > until:
                    raise error_told
            attempt = self._pause(attempt)

    @staticmethod
    def _pause(attempt: int) -> int:
        time.sleep(random.uniform(0.5, 1) * min(1, _FIRST_PAUSE * 2**attempt))
        return attempt + 1


@lru_cache(1_000)
def _url(address: str) -> httpx.URL:
    return httpx.URL(address)


def _late(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The read models that move by themselves and do not tell a command yet."""
    return [one for one in status["read_models"] if one["mode"] == "background" and one["state"] != "done"]


def _is_passing(answer: httpx.Response) -> bool:
    """Whether the same may be answered otherwise a little later."""
    return answer.status_code == 503 and any(kind in answer.text for kind in (":busy", ":store-unavailable"))


def _error(answer: httpx.Response) -> Exception:
    try:
        body = answer.json()
    except ValueError:
        body = {"detail": answer.text[:200]}
    return understood(answer.status_code, body if isinstance(body, Mapping) else {})


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The events in the lines of a stream; one that is cut in the middle comes again."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield json.loads("\n".join(data))
            data = []


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
