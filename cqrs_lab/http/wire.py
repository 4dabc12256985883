"""What goes over the wire: JSON of answers, and messages out of bodies and query strings.

Owns the form of values: money and other decimals as text, so that no digit is lost; times in ISO 8601; bytes in base64.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from cqrs_lab.http.problems import Refused
from cqrs_lab.messages import Message, Query, Recorded, refused, unwrap
from cqrs_lab.store.rows import Rows
from cqrs_lab.write.middleware import Receipt

M = TypeVar("M", bound=Message)


def encoded(value: Any) -> bytes:
    """Return a value as JSON."""
    return to_json(value, bytes_mode="base64", inf_nan_mode="strings", fallback=str)


def answer(given: Any, most: int) -> Any:
    """Return what a query answered as plain values: a frame or Rows as a list of objects.

    Of Rows that nobody has looked at one more is fetched than may be sent, and not all of them.

    Raises:
        Refused: it has too many rows.
    """
    if isinstance(given, Rows):
        is_too_large = not given.fetch(most)
    else:
        is_too_large = hasattr(given, "__len__") and not isinstance(given, str | bytes) and len(given) > most
    if is_too_large:
        said = f"the answer has more than {most:,} rows, which this server sends at most; ask for less"
        raise Refused(422, "answer-too-large", said)
    if isinstance(given, Rows):
        return given.dicts()
    for method in ("to_dicts", "to_pylist"):  # Polars, Arrow
        if hasattr(given, method):
            return getattr(given, method)()
    if hasattr(given, "to_dict") and hasattr(given, "columns"):  # pandas
        return given.to_dict("records")
    return given


def receipt(given: Receipt, status: str) -> dict[str, Any]:
    """Return a receipt.

    Args:
        status: where it can be asked what became of it.
    """
    return {
        "command_id": str(given.command_id),
        "correlation_id": str(given.correlation_id),
        "position": given.position,
        "stream": given.stream,
        "version": given.version,
        "events": [{"type": type(event).__name__, "data": event} for event in given.events],
        "status": status,
    }


def event(given: Recorded) -> dict[str, Any]:
    """Return an event with its envelope, under the names that `Lab.events` has for them."""
    return {
        "position": given.position,
        "stream": given.stream,
        "version": given.version,
        "type": given.type,
        "occurred_at": given.occurred_at,
        "recorded_at": given.recorded_at,
        "event_id": given.event_id,
        "correlation_id": given.correlation_id,
        "causation_id": given.causation_id,
        "command_id": given.command_id,
        "data": given.event,
    }


def read_message(kind: type[M], body: bytes) -> M:
    """Return the message in a body.

    Raises:
        Refused: it is not JSON.
        InvalidMessage: a field breaks its rule.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False)
        if first["type"] == "json_invalid":
            raise Refused(400, "not-json", f"the body is not JSON: {first['msg']}") from None
        raise refused(kind.__name__, error) from None


def read_query(kind: type[Query], given: Mapping[str, Sequence[str]]) -> Query:
    """Return the query in the parameters of an address.

    Raises:
        InvalidMessage: a parameter that it does not have, or a value that breaks a rule.
    """
    fields: dict[str, Any] = {}
    for name, values in given.items():
        info = kind.model_fields.get(name)
        is_list = info is not None and typing.get_origin(unwrap(info.annotation)[0]) in (list, tuple)
        fields[name] = list(values) if is_list or len(values) > 1 else values[0]
    return kind(**fields)
