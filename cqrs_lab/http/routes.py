"""The routes: which request becomes which call of a lab, and which answer its outcome.

Owns the ASGI application. It knows no thread (`work.py`), no error's looks (`problems.py`) and no socket (`server.py`).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, cast
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cqrs_lab.app import Lab
from cqrs_lab.errors import DeclarationError, InvalidMessage, NotServed, UnknownCommand, UnknownQuery
from cqrs_lab.http import cloud, docs, inside, openapi, streaming, wire
from cqrs_lab.http.feed import Feed
from cqrs_lab.http.limits import Limits
from cqrs_lab.http.problems import MEDIA, Refused, told
from cqrs_lab.http.security import OWNER, Tokens
from cqrs_lab.http.work import Work
from cqrs_lab.messages import INT64_MAX
from cqrs_lab.read.table import WAYS, ServedAs
from cqrs_lab.store.rows import unasked

_LOGGER = logging.getLogger("cqrs_lab.http")
_JSON = "application/json"
_SAFE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_PAGE = "default-src 'none'; style-src 'unsafe-inline'"  # of /docs: no script, and nothing from elsewhere
Endpoint = Callable[[Request, str], Awaitable[Response]]


def app(
    lab: Lab,
    *,
    tokens: Mapping[str, str] | Tokens | None = None,
    limits: Limits | None = None,
    recorders: Collection[str] = (OWNER,),
) -> Starlette:
    """Return the ASGI application over a lab. It does not close the lab.

    Args:
        tokens: token -> who shows it, for the domain's policy. None: one is made, `app.state.token`.
        limits: how much it takes on; None: the usual.
        recorders: who may let events enter, which are facts and ask neither decider nor policy.

    Returns:
        A Starlette application; `app.state.token` is the token that was made, None when some were given.

    Raises:
        DeclarationError: a query has a field that the address needs for itself.
    """
    token = None
    if tokens is None:
        tokens, token = Tokens.made()
    known = tokens if isinstance(tokens, Tokens) else Tokens(tokens)
    routes = _Routes(lab, known, limits or Limits(), frozenset(recorders))
    made = Starlette(
        routes=routes.all(),
        lifespan=routes.lifespan,
        exception_handlers={HTTPException: _not_here, Exception: _unexpected},
    )
    made.state.token, made.state.stop = token, routes.stop
    return made


class _Routes:
    """The endpoints, and what they share."""

    def __init__(self, lab: Lab, tokens: Tokens, limits: Limits, recorders: frozenset[str]) -> None:
        self.lab, self.tokens, self.limits, self.recorders = lab, tokens, limits, recorders
        self.commands, self.queries = inside.commands(lab), inside.queries(lab)
        for name, kind in self.queries.items():
            taken = kind.model_fields.keys() & {"at_least", "timeout", "served_as"}
            if taken:
                raise DeclarationError(f"{name}.{taken.pop()}: over HTTP that name says how to ask; give it another")
        self.start = secrets.token_hex(4)
        self.work = Work(lab, limits)
        self.feed = Feed(lab, self.work, limits)
        self.description = wire.encoded(openapi.described(lab, limits))
        self.page = docs.page(openapi.described(lab, limits))

    def all(self) -> list[Route]:
        """The routes; all but the last three want a token."""
        wanted: list[tuple[str, str, Endpoint]] = [
            ("POST", "/commands/{name}", self.send),
            ("GET", "/commands/{id:path}", self.status),
            ("GET", "/queries/{name}", self.ask),
            ("GET", "/events", self.events),
            ("POST", "/events", self.take_in),
            ("GET", "/lag", self.lag),
        ]
        open_: list[tuple[str, str, Endpoint]] = [
            ("GET", "/health", self.health),
            ("GET", "/openapi.json", self.openapi),
            ("GET", "/docs", self.docs),
        ]
        return [Route(path, self._answering(e, True), methods=[method]) for method, path, e in wanted] + [
            Route(path, self._answering(e, False), methods=[method]) for method, path, e in open_
        ]

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Watch the log while the server runs."""
        self.feed.start()
        try:
            yield
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Take nothing more on, end the streams and what only answers; commands come to their end."""
        self.work.stop()
        await self.feed.stop()

    def _answering(self, endpoint: Endpoint, is_private: bool) -> Callable[[Request], Awaitable[Response]]:
        async def answering(request: Request) -> Response:
            try:
                actor = self.tokens.actor(request.headers.get("authorization")) if is_private else ""
                return await endpoint(request, actor)
            except Exception as error:
                return _problem(error)

        return answering

    # -- commands --------------------------------------------------------------------------------------------------

    async def send(self, request: Request, actor: str) -> Response:
        """Carry a command out: 202, with its receipt and where to ask what became of it."""
        name = request.path_params["name"]
        kind = self.commands.get(name)
        if kind is None:
            raise UnknownCommand(f"there is no command {name}; there are {', '.join(sorted(self.commands))}")
        _check_media(request, _JSON)
        given = _given(request, {"correlation_id", "occurred_at"})
        version = _if_match(request)
        key = request.headers.get("idempotency-key")
        if key is not None and len(key) > 1 and key[0] == key[-1] == '"':
            key = key[1:-1]  # as the draft of that header has it
        command = wire.read_message(kind, await streaming.body(request, self.limits.body, self.limits))
        call = partial(
            self.lab.send,
            command,
            command_id=key,
            correlation_id=given.get("correlation_id"),
            occurred_at=_moment(given.get("occurred_at")),
            expected_version=version,
            actor=actor,
        )
        receipt = await self.work.command(call)
        status = f"/commands/{quote(str(receipt.command_id), safe='')}"
        return _json(wire.receipt(receipt, status), 202, {"Location": status})

    async def status(self, request: Request, _: str) -> Response:
        """Tell what became of a command, at once or when all read models that move by themselves tell it."""
        id = request.path_params["id"]
        seconds = self._seconds(_given(request, {"timeout"}), 0)
        found = await self.work.query(partial(inside.status, self.lab, id))
        if found is not None and found["state"] != "done" and seconds:
            position = found["position"]
            call = partial(inside.wait_for_all, self.lab, position, seconds, lambda: self.work.is_stopping)
            await self.work.wait(call, seconds)
            found = await self.work.query(partial(inside.status, self.lab, id))
        if found is None:
            raise Refused(404, "unknown-command-id", f"no command {id!r:.200} was carried out here, so far")
        return _json(found)

    # -- queries ---------------------------------------------------------------------------------------------------

    async def ask(self, request: Request, _: str) -> Response:
        """Answer a query; its tag begins with the position that it tells."""
        name = request.path_params["name"]
        kind = self.queries.get(name)
        if kind is None:
            raise UnknownQuery(f"there is no query {name}; there are {', '.join(sorted(self.queries))}")
        values = {field: request.query_params.getlist(field) for field in request.query_params}
        own: dict[str, str] = {
            field: values.pop(field)[-1] for field in ("at_least", "timeout", "served_as") if field in values
        }
        query = wire.read_query(kind, values)
        at_least = _whole("at_least", own["at_least"]) if "at_least" in own else None
        seconds = self._seconds(own, min(5, self.limits.wait_seconds))
        served_as = cast("ServedAs | None", own.get("served_as"))
        if served_as not in (None, *WAYS):
            raise NotServed(f"a read model is served as {', '.join(WAYS)}, not as {served_as!r:.50}")
        mark = partial(inside.mark, self.lab, kind.model, served_as, self.start)
        position, tag = await self.work.query(mark)
        if at_least is not None and position < at_least:
            is_stopping = lambda: self.work.is_stopping  # noqa: E731
            call = partial(inside.wait, self.lab, kind.model, served_as, at_least, seconds, is_stopping)
            await self.work.wait(call, seconds)
            position, tag = await self.work.query(mark)
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if tag in [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers={**_SAFE, **headers})
        return Response(
            await self.work.query(partial(self._answer, query, served_as)),
            headers={**_SAFE, **headers},
            media_type=_JSON,
        )

    def _answer(self, query: Any, served_as: ServedAs | None) -> bytes:
        with unasked(self.limits.rows):
            return wire.encoded(wire.answer(self.lab.ask(query, served_as=served_as), self.limits.rows))

    async def lag(self, request: Request, _: str) -> Response:
        """Tell how far each serving is behind."""
        _given(request, set())
        return _json(await self.work.query(lambda: self.lab.lag().dicts()))

    # -- events ----------------------------------------------------------------------------------------------------

    async def events(self, request: Request, _: str) -> Response:
        """Follow the log, or take a part of it as CloudEvents."""
        given = _given(request, {"after", "category", "timeout", "limit"})
        after = max(_whole("after", given.get("after", "0")), _last_id(request))
        category = given.get("category")
        try:
            inside.types(self.lab, category)
        except DeclarationError as error:
            raise InvalidMessage("the question", (f"category: {error}",)) from None
        accepted = request.headers.get("accept", "*/*").lower()
        if cloud.BATCH in accepted:
            limit = min(_whole("limit", given.get("limit", "1000")), 1_000)
            page = partial(cloud.page, self.lab, after, limit, category)
            text, last = await self.work.query(page)
            headers = {**_SAFE, "Events-Position": str(last)}
            return Response(text, headers=headers, media_type=cloud.BATCH)
        if not any(kind in accepted for kind in ("*/*", "text/*", "text/event-stream")):
            raise Refused(406, "not-acceptable", f"events come as text/event-stream or {cloud.BATCH}")
        timeout = self._seconds(given, 0, 86_400) if "timeout" in given else None
        self.feed.enter()
        frames = self.feed.frames(after, category, timeout)
        return streaming.EventStream(frames, self.limits.send_seconds, self.feed.leave)

    async def take_in(self, request: Request, actor: str) -> Response:
        """Let events enter: all of them, or none."""
        if actor not in self.recorders:
            raise Refused(403, "not-allowed", f"{actor} may not let events enter; they are facts, and ask no rule")
        _given(request, set())
        media = _check_media(request, cloud.BATCH, cloud.ONE)
        body = await streaming.body(request, self.limits.batch, self.limits)
        read = cloud.read_batch if media == cloud.BATCH else cloud.read_one
        return _json(await self.work.command(lambda: vars(cloud.take_in(self.lab, read(body)))))

    # -- the server itself -----------------------------------------------------------------------------------------

    async def health(self, *_: Any) -> Response:
        """Tell whether the store is open."""
        return _json({"status": "ok", "position": self.lab.head})

    async def openapi(self, *_: Any) -> Response:
        """Describe all this in OpenAPI 3.1."""
        return Response(self.description, headers=_SAFE, media_type=_JSON)

    async def docs(self, *_: Any) -> Response:
        """Describe it on a page for people."""
        return Response(self.page, headers={**_SAFE, "Content-Security-Policy": _PAGE}, media_type="text/html")

    def _seconds(self, given: Mapping[str, str], default: float, most: float | None = None) -> float:
        """The `timeout` of a request; who is more patient than this server asks again."""
        most = self.limits.wait_seconds if most is None else most
        text = given.get("timeout")
        if text is None:
            return default
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1
        if not seconds >= 0:
            raise InvalidMessage("the question", (f"timeout: {text!r:.50} is no number of seconds from 0 on",))
        return min(seconds, most)


def _given(request: Request, known: Collection[str]) -> dict[str, str]:
    """The parameters of an address that has these alone."""
    for name in request.query_params:
        if name not in known:
            raise InvalidMessage("the question", (f"{name[:80]}: there is no such parameter",))
    return dict(request.query_params)


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= INT64_MAX):
        raise InvalidMessage("the question", (f"{name}: {text!r:.50} is no position",))
    return int(text)


def _last_id(request: Request) -> int:
    text = request.headers.get("last-event-id", "")
    return _whole("Last-Event-ID", text) if text else 0


def _if_match(request: Request) -> int | None:
    """The version of the stream that the sender has seen."""
    text = request.headers.get("if-match")
    if text is None or text == "*":
        return None
    return _whole("If-Match", text.strip().strip('"'))


def _moment(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise InvalidMessage("the question", (f"occurred_at: {text!r:.50} is no time in ISO 8601",)) from None


def _check_media(request: Request, *known: str) -> str:
    media = request.headers.get("content-type", known[0]).split(";")[0].strip().lower()
    if media not in known:
        raise Refused(415, "unsupported-media-type", f"the body is {media!r:.100}; send {' or '.join(known)}")
    return media


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(wire.encoded(value), status, {**_SAFE, **(headers or {})}, _JSON)


def _problem(error: Exception) -> Response:
    status, body, headers = told(error)
    if status >= 500 and not isinstance(error, Refused):
        _LOGGER.warning("answered %d: %s", status, body["detail"], exc_info=error)
    return Response(wire.encoded(body), status, {**_SAFE, **headers}, MEDIA)


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "refused")
    return _problem(Refused(error.status_code, kind, f"{error.detail}; see /docs", error.headers))


async def _unexpected(request: Request, error: Exception) -> Response:
    return _problem(error)
