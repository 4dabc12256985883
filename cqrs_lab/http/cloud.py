"""CloudEvents 1.0: how events leave for other programs, and how they enter from them.

Owns the mapping. `id` is the event's id, `source` the stream as /category/id, `type` the event's type, `subject` the
stream's id, `time` when it happened; the rest of the envelope stands in extensions. Events leave in the version that
the domain declares now: an older one is lifted. `commandid`, `commandtype` and `commanddigest` tell the command that
led to an event, so that a log that enters as it was still knows which keys are used. Not in them: keys of commands that
led to nothing, snapshots, what read models hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote
from uuid import NAMESPACE_URL, UUID, uuid5

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.exceptions import BaseCloudEventException
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from cqrs_lab.app import Lab
from cqrs_lab.errors import InvalidMessage, UnknownEventType
from cqrs_lab.http import inside
from cqrs_lab.http.problems import Refused
from cqrs_lab.messages import Event, Recorded, refused
from cqrs_lab.store.categories import Category
from cqrs_lab.write.batch import Remembered
from cqrs_lab.write.enveloped import Enveloped, TakenIn
from cqrs_lab.write.enveloped import take_in as take_in_log
from cqrs_lab.write.middleware import checked_id, checked_time

ONE, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
_FORMAT = JSONFormat()
_PAGE = 1_000
_TEXTS = {"correlationid": "correlation_id", "causationid": "causation_id", "commandid": "command_id"}
_COMMAND = {"commandtype": "command", "commanddigest": "digest"}


def written(recorded: Recorded, command: Remembered | None = None) -> bytes:
    """Return an event as a CloudEvent in JSON.

    Args:
        command: what is remembered of the command that led to it.
    """
    category, _, id = recorded.stream.partition("/")
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(recorded.event_id),
        "source": f"/{quote(category, safe='')}/{quote(id, safe='')}",
        "type": recorded.type,
        "subject": id,
        "time": recorded.occurred_at,
        "datacontenttype": "application/json",
        # Integers of CloudEvents have 32 bits, and a log may be longer.
        "position": str(recorded.position),
        "version": recorded.version,
        "schemaversion": recorded.event.schema_version,
        "recordedat": recorded.recorded_at.isoformat(),
    }
    attributes |= {name: value for name, of in _TEXTS.items() if (value := getattr(recorded, of)) is not None}
    if command is not None:  # of one whose personal data were erased there is no digest
        attributes |= {name: value for name, of in _COMMAND.items() if (value := getattr(command, of))}
    data = to_jsonable_python(recorded.event, bytes_mode="base64", inf_nan_mode="strings")
    return _FORMAT.write(CloudEvent(attributes, data))


def page(lab: Lab, after: int, limit: int, category: str | None) -> tuple[bytes, int]:
    """Return events behind a position as one batch, and the position up to which it tells the log."""
    head = lab.head
    found = inside.read_events(lab, after, head, limit, category)
    last = found[-1].position if found and len(found) == limit else max(after, head)
    return b"[" + b",\n".join(_written(lab, found)) + b"]", last


def _written(lab: Lab, found: list[Recorded]) -> Iterator[bytes]:
    ids = list({one.command_id for one in found if one.command_id is not None})
    commands = inside.store(lab).remember(ids)
    return (written(one, commands.get(one.command_id or "")) for one in found)


def export(lab: Lab, after: int = 0, category: str | None = None) -> Iterator[bytes]:
    """Yield the log as CloudEvents, one a line, up to where it ends now.

    Raises:
        UnknownEventType: the log holds events that the domain does not declare, which could not leave with the rest.
    """
    declared = {name: set(one.types) for name, one in inside.log(lab).categories.items()}
    for name, versions in inside.heads(lab).versions.items():
        strange = sorted({kind for kind, _ in versions} - declared.get(name, set()))
        if strange and category in (None, name):
            raise UnknownEventType(
                f"the log holds {', '.join(strange)} in category {name!r}, which the domain does not declare; open it "
                "with a domain that does, so that nothing is left out"
            )
    head = lab.head
    while found := inside.read_events(lab, after, head, _PAGE, category):
        for line in _written(lab, found):
            yield line + b"\n"
        after = found[-1].position


def read_batch(body: bytes) -> list[tuple[str, Any]]:
    """Return the events of a batch, each with what to call it.

    Raises:
        Refused: it is not JSON, or no array.
    """
    given = _json(body)
    if not isinstance(given, list):
        raise Refused(400, "not-a-batch", "the body is no array of events, which a batch is")
    return [(f"event {number}", one) for number, one in enumerate(given, start=1)]


def read_one(body: bytes) -> list[tuple[str, Any]]:
    """Return the one event in a body."""
    return [("the event", _json(body))]


def read_lines(lines: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    """Yield the events of a file with one on each line.

    Raises:
        InvalidMessage: a line is not JSON.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield f"line {number}", _json(line)
            except Refused as error:
                raise InvalidMessage(f"line {number}", (str(error),)) from None


def take_in(lab: Lab, events: Iterable[tuple[str, Any]], *, as_facts: bool = False) -> TakenIn:
    """Append CloudEvents to the log: all of them, or none.

    They are facts: each is checked by the rules of its event class, and no decider is asked. Into an empty store a
    whole log enters as it was, with the keys of the commands that led to its events. Into another one, or with
    `as_facts`, positions, versions and times of recording are given out again and no key is used; an event whose id
    came before is left out, so that a batch can be sent again.

    Raises:
        InvalidMessage: one of them is no CloudEvent, or breaks a rule; says which.
    """
    categories = inside.log(lab).categories.values()
    read = (_read(where, one, categories) for where, one in events)
    # What is in memory already is read first, so that the log is not held meanwhile; a file is read as it comes.
    return take_in_log(inside.store(lab), list(read) if isinstance(events, list) else read, as_facts=as_facts)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "not-json", f"it is not JSON: {str(error)[:200]}") from None


def _read(where: str, given: Any, categories: Iterable[Category]) -> Enveloped:
    if not isinstance(given, dict):
        raise InvalidMessage(where, ("a CloudEvent is an object",))
    try:
        event = _FORMAT.read(CloudEvent, json.dumps(given))
    except (BaseCloudEventException, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InvalidMessage(
            where, (f"it is no CloudEvent of version 1.0: {' '.join(str(error).split())[:300]}",)
        ) from None
    fields = event.get_data()
    if not isinstance(fields, dict):
        raise InvalidMessage(where, ("data: it is no object with the fields of the event",))
    category, kind = _kind(where, event, categories)
    schema = event.get_extension("schemaversion")
    if schema not in (None, kind.schema_version, str(kind.schema_version)):
        raise InvalidMessage(
            where, (f"schemaversion: {kind.__name__} is at {kind.schema_version} here, and this is {schema!r:.20}",)
        )
    try:
        made = kind.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        raise InvalidMessage(f"{where}, {kind.__name__}", refused(kind.__name__, error).problems) from None
    subject = event.get_subject()
    if subject not in (None, getattr(made, category.key)):
        raise InvalidMessage(where, (f"subject: {subject!r:.80} is not the {category.key} of its data",))
    time = event.get_time()
    return Enveloped(
        where=where,
        category=category,
        event=made,
        event_id=_id(event),
        position=_number(where, event, "position"),
        version=_number(where, event, "version"),
        occurred_at=None if "time" not in given or time is None else checked_time(f"{where}: time", time),
        recorded_at=_recorded_at(where, event),
        **{of: _text(where, event, name) for name, of in (_TEXTS | _COMMAND).items()},
    )


def _kind(where: str, event: BaseCloudEvent, categories: Iterable[Category]) -> tuple[Category, type[Event]]:
    """The category and the class of an event; where several categories have the type, the source tells."""
    type_, source = event.get_type(), unquote(event.get_source().strip("/").split("/")[0])
    found = [one for one in categories if type_ in one.types]
    chosen = next((one for one in found if one.name == source), found[0] if len(found) == 1 else None)
    if chosen is None:
        known = ", ".join(name for one in categories for name in one.types)
        why = "several categories declare it, and the source names none" if found else f"there are {known}"
        raise InvalidMessage(where, (f"type: {type_!r:.80} is no event type here; {why}",))
    return chosen, chosen.types[type_]


def _id(event: BaseCloudEvent) -> UUID:
    """The id of an event; of one that is no UUID, the same at every time."""
    try:
        found = UUID(event.get_id())
        if str(found) == event.get_id():
            return found
    except ValueError:
        pass
    return uuid5(NAMESPACE_URL, f"{event.get_source()}#{event.get_id()}")


def _number(where: str, event: BaseCloudEvent, name: str) -> int | None:
    value = event.get_extension(name)
    if value is None:
        return None
    if not (str(value).isascii() and str(value).isdigit() and 0 < int(value) < 2**63):
        raise InvalidMessage(where, (f"{name}: {value!r:.50} is no number from 1 on",))
    return int(value)


def _text(where: str, event: BaseCloudEvent, name: str) -> str | None:
    value = event.get_extension(name)
    return None if value is None else str(checked_id(f"{where}: {name}", value))


def _recorded_at(where: str, event: BaseCloudEvent) -> datetime | None:
    value = event.get_extension("recordedat")
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise InvalidMessage(where, (f"recordedat: {error}",)) from None
    return checked_time(f"{where}: recordedat", moment)
