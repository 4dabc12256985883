"""Facts: events that are recorded without a command.

Checks that the events belong to the stream that is named; no decider is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from cqrs_lab.errors import InvalidMessage
from cqrs_lab.messages import Event, Recorded
from cqrs_lab.store.categories import Category
from cqrs_lab.write.batch import Context
from cqrs_lab.write.event_store import EventStore
from cqrs_lab.write.middleware import checked_id, checked_time


def record(
    store: EventStore,
    stream: str,
    events: Sequence[Event],
    expected_version: int | None,
    occurred_at: datetime | None,
    correlation_id: UUID | str | None,
    causation_id: UUID | str | None,
) -> list[Recorded]:
    """Append facts to one stream (see `Lab.record`)."""
    store.log.database.check_open()
    context = Context(
        occurred_at=None if occurred_at is None else checked_time("occurred_at", occurred_at),
        correlation_id=None if correlation_id is None else str(checked_id("correlation_id", correlation_id)),
        causation_id=None if causation_id is None else str(checked_id("causation_id", causation_id)),
    )
    category, id = _place_of(store, stream, events)
    return store.append(category, id, events, expected_version=expected_version, context=context)


def _place_of(store: EventStore, stream: str, events: Sequence[Event]) -> tuple[Category, str]:
    """The category and the id of the stream that facts belong to.

    Raises:
        InvalidMessage: no event, one that no category declares, or one about another thing.
    """
    if not events:
        raise InvalidMessage(stream, ("there is no event to record",))
    categories = store.log.categories
    for category in categories.values():
        if all(category.types.get(type(event).__name__) is type(event) for event in events):
            break
    else:
        names = ", ".join(dict.fromkeys(type(event).__name__ for event in events))
        raise InvalidMessage(stream, (f"no category declares {names}; there are {', '.join(categories) or 'none'}",))
    for event in events:
        type(event)(**dict(event))  # one made by model_construct was not checked
    about = {getattr(event, category.key) for event in events}
    id = next(iter(about))
    if len(about) > 1 or stream not in (id, category.stream(id)):
        raise InvalidMessage(stream, (f"the events are about {', '.join(map(repr, sorted(about)))}",))
    return category, id
