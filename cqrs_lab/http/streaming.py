"""Bodies: how they arrive, within bounds, and how a stream leaves, for as long as somebody takes it.

Owns the patience with clients. A body that is too large is still taken off the line, and thrown away, before it is
refused: a client that is in the middle of sending reads no answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cqrs_lab.http.limits import Limits
from cqrs_lab.http.problems import Refused

_THROWN_AWAY = 512 * 2**20  # bytes that are taken off the line at most
_MORE = 20.0  # seconds more for them


async def body(request: Request, most: int, limits: Limits) -> bytes:
    """Return the body of a request.

    Args:
        most: bytes that it may have.

    Raises:
        Refused: it is too large, or does not come in time.
    """
    too_large = Refused(413, "body-too-large", f"the body has more than {most:,} bytes, which this server takes")
    declared = request.headers.get("content-length", "0")
    is_too_large = int(declared) > most
    if is_too_large and request.headers.get("expect", "").lower() == "100-continue":
        raise too_large  # before it is sent at all
    parts: list[bytes] = []
    size = 0
    try:
        with anyio.fail_after(limits.body_seconds + (_MORE if is_too_large else 0)) as patience:
            async for part in request.stream():
                size += len(part)
                if size > most and not is_too_large:
                    is_too_large = True
                    patience.deadline += _MORE
                    parts.clear()
                if not is_too_large:
                    parts.append(part)
                elif size > _THROWN_AWAY:
                    break
    except TimeoutError:
        if not is_too_large:
            said = f"the body did not come within {limits.body_seconds:g} s"
            raise Refused(408, "body-too-slow", said, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refused(400, "cut-off", "the connection was cut in the middle of the body") from None
    if is_too_large:
        raise too_large
    return b"".join(parts)


class EventStream(Response):
    """Server-sent events; it ends when the client goes, or takes nothing for too long.

    Args:
        frames: what is sent.
        seconds: for the client to take a part.
        ended: called at its end, whatever that is.
    """

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncIterator[bytes], seconds: float, ended: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._frames, self._seconds, self._ended = frames, seconds, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames."""
        try:
            await self._send(scope, receive, send)
        finally:
            self._ended()

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        async with anyio.create_task_group() as both:

            async def until_gone() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                both.cancel_scope.cancel()

            both.start_soon(until_gone)
            try:
                async for part in self._frames:
                    with anyio.fail_after(self._seconds):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                with anyio.fail_after(self._seconds):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            except TimeoutError:
                pass  # cut: it comes back with the id of the last event that it has
            finally:
                await self._frames.aclose()  # type: ignore[attr-defined]
                both.cancel_scope.cancel()
