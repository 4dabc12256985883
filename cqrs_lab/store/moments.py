"""Moments: how a time is said when the past is asked.

Owns the rule that a time has a zone, and that a date means a whole day in UTC.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time

from cqrs_lab.errors import InvalidMoment
from cqrs_lab.messages import utc

Moment = datetime | date
"""An aware datetime, or a date, which means the end of that day in UTC."""


def moment(value: Moment, name: str) -> datetime:
    """Return an aware datetime in UTC.

    Raises:
        InvalidMoment: naive, or neither a datetime nor a date.
    """
    if isinstance(value, datetime):
        try:
            return utc(value)
        except ValueError as error:
            raise InvalidMoment(f"{name}={value!r}: {error}") from None
    if isinstance(value, date):
        return datetime.combine(value, time.max, UTC)
    raise InvalidMoment(f"{name}={value!r} is neither a datetime nor a date")
