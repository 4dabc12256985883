"""Problems: what an error looks like to a client, and what a client makes of it.

Owns the table of errors and statuses, in the shape of RFC 9457 (application/problem+json). What the store says of
its files stays inside; an unexpected error is logged, and the client learns nothing of it but that it happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cqrs_lab import errors
from cqrs_lab.errors import CqrsLabError

MEDIA = "application/problem+json"
BUSY = "1"  # seconds after which to come again

KINDS: Mapping[type[CqrsLabError], tuple[int, str]] = {
    errors.InvalidMessage: (422, "invalid-message"),
    errors.InvalidTable: (422, "invalid-events"),
    errors.InvalidMoment: (422, "invalid-moment"),
    errors.UnknownCommand: (404, "unknown-command"),
    errors.UnknownQuery: (404, "unknown-query"),
    errors.RuleViolated: (409, "rule-violated"),
    errors.ConcurrencyError: (409, "stream-moved-on"),
    errors.IdempotencyConflict: (409, "key-used-for-another-command"),
    errors.NotAllowed: (403, "not-allowed"),
    errors.ReadOnlyStore: (403, "read-only"),
    errors.NotServed: (422, "not-served"),
    errors.NotYet: (503, "not-yet"),
    errors.QueryTooLong: (503, "query-too-long"),
    errors.RebuildNeeded: (503, "rebuild-needed"),
    errors.ProjectionFailed: (503, "projection-failed"),
    errors.StoreFull: (503, "store-full"),
    errors.StoreError: (503, "store-unavailable"),
}
_PRIVATE = (errors.StoreError, errors.ProjectionFailed)  # what they say names files, rows and statements
_TITLES = {
    "store-full": "the store has no room left; nothing was stored",
    "store-unavailable": "the store cannot do this now",
    "projection-failed": "the read model cannot be moved; its operator sees why in the lag",
    "read-only": "the store is open read-only",
}
_DETAILS = {
    errors.RuleViolated: ("rule", "state"),
    errors.ConcurrencyError: ("stream", "expected", "actual"),
    errors.NotYet: ("position",),
}


class Refused(CqrsLabError):
    """A request that never came as far as the lab.

    Attributes:
        status: of the answer.
        kind: the last part of its type.
        headers: of the answer.
    """

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind, dict(headers or {})


def busy(message: str) -> Refused:
    """Return the refusal of what would be too much at once."""
    return Refused(503, "busy", f"{message}. Nothing was done; come again a little later", {"Retry-After": BUSY})


def told(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return the status, the body and the headers of the answer to an error."""
    if isinstance(error, Refused):
        return error.status, _body(error.status, error.kind, str(error)), error.headers
    kind = next((known for known in type(error).__mro__ if known in KINDS), None)
    if kind is None:
        return 500, _body(500, "unexpected", "something went wrong in the server; its log says what"), {}
    status, name = KINDS[kind]
    body = _body(status, name, _TITLES[name] if isinstance(error, _PRIVATE) else str(error))
    body |= {field: getattr(error, field) for field in _DETAILS.get(kind, ())}
    if kind is errors.RuleViolated:
        body["state"] = str(body["state"])
    if isinstance(error, errors.InvalidMessage):
        body["errors"] = [_field(problem) for problem in error.problems]
    return status, body, {"Retry-After": BUSY} if status == 503 else {}


def _body(status: int, kind: str, detail: str) -> dict[str, Any]:
    return {"type": f"urn:cqrs-lab:{kind}", "title": kind.replace("-", " "), "status": status, "detail": detail}


def _field(problem: str) -> dict[str, str | None]:
    """A problem of a message, apart from the field that it is about."""
    field, colon, said = problem.partition(": ")
    is_field = bool(colon) and " " not in field
    return {"field": field if is_field else None, "problem": said if is_field else problem}


def understood(status: int, body: Mapping[str, Any]) -> CqrsLabError:
    """Return the error that an answer tells, as the lab would have raised it."""
    kind = str(body.get("type", "")).removeprefix("urn:cqrs-lab:")
    detail = str(body.get("detail") or f"the server answered {status}")
    made: CqrsLabError | None = None
    if kind == "rule-violated":
        made = errors.RuleViolated(str(body.get("rule")), body.get("state"))
    elif kind == "stream-moved-on":
        made = errors.ConcurrencyError(str(body.get("stream")), body.get("expected"), int(body.get("actual", 0)))
    elif kind == "not-yet":
        made = errors.NotYet(detail, body.get("position"))
    elif kind == "invalid-message":
        told = (f"{e['field']}: {e['problem']}" if e.get("field") else e["problem"] for e in body.get("errors", ()))
        made = errors.InvalidMessage("the message", tuple(told) or (detail,))
    else:
        simple = (
            errors.IdempotencyConflict,
            errors.NotAllowed,
            errors.UnknownCommand,
            errors.UnknownQuery,
            errors.NotServed,
            errors.QueryTooLong,
            errors.InvalidMoment,
        )
        made = next((error(detail) for error in simple if KINDS[error][1] == kind), None)
    return made or errors.ServerError(f"{detail} (status {status})", status)
