"""The check of the second version of an event that a learner declares in notebook 03.

Owns the log of the first year that it is tried on, and what would be right.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cqrs_lab.app import Lab
from cqrs_lab.domain import Domain
from cqrs_lab.errors import CqrsLabError, InvalidMessage
from cqrs_lab.messages import Event
from cqrs_lab.workbench.course.checked import Checked, Tries, checked
from cqrs_lab.workbench.course.stage import repeatable

_REASONS = ("broken", "too small", "broken", "too late")


def check_required_field(event: type[Event]) -> Checked:
    """Check the exercise of notebook 03: a field that new events must have and no old event has.

    Args:
        event: the learner's ParcelReturned, version 2: return_id, reason and condition. Of the first year only the
            reason is known; who wrote "broken" meant the condition, and of the others it is "unknown".
    """

    class ParcelReturned(Event):
        """A parcel came back; version 1."""

        return_id: str
        reason: str

    def opened(path: Path, kind: type[Event]) -> Lab:
        return Lab(path, domain=Domain.of_events("return", key="return_id", events=[kind]), **repeatable())

    def tries() -> Tries:
        yield "it is called ParcelReturned", None if event.__name__ == "ParcelReturned" else f"it is {event.__name__}"
        version = event.schema_version
        yield "its schema_version is 2", None if version == 2 else f"it is {version}"
        fields = set(event.model_fields)
        missing = ", ".join(sorted({"return_id", "reason", "condition"} - fields))
        yield "it has the fields return_id, reason and condition", f"{missing} is missing" if missing else None
        if version != 2 or missing or event.__name__ != "ParcelReturned":
            return
        yield "a new event must say the condition", _accepted(event)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "returns.duckdb"
            with opened(path, ParcelReturned) as early:
                for number, reason in enumerate(_REASONS, 1):
                    early.record(f"r-{number}", ParcelReturned(return_id=f"r-{number}", reason=reason))
            with opened(path, event) as lab:
                yield from _read(lab, event)

    return checked(tries())


def _accepted(event: Any) -> str | None:
    tried: tuple[dict[str, None], ...] = ({}, {"condition": None})
    for given in tried:
        try:
            made = event(return_id="r-9", reason="too small", **given)
        except InvalidMessage:
            continue
        said = "an event without it" if not given else "condition=None"
        return f"{said} is accepted, as {made!r}; a field without a default, and without None, is required"
    return None


def _read(lab: Lab, event: Any) -> Tries:
    expected = {f"r-{n}": "broken" if reason == "broken" else "unknown" for n, reason in enumerate(_REASONS, 1)}
    what = "a SELECT reads a condition in each old event"
    yield what, _conditions(lab, expected)
    subscribed = lab.subscribe(after=0)
    try:
        old: Any = next(subscribed).event
    except CqrsLabError as error:
        yield "so does the program", str(error)
        return
    same = old.condition == "broken" and old.reason == "broken"
    yield "so does the program", None if same else f"it is handed {old!r}"
    lab.record("r-5", event(return_id="r-5", reason="too small", condition="as new"))
    yield "a new event keeps its own", _conditions(lab, {**expected, "r-5": "as new"})
    stored = lab.events(stream="return/r-1").dicts()[0]["data"]
    yield "the log is as it was", "the old event was changed" if "condition" in stored else None


def _conditions(lab: Lab, expected: dict[str, str]) -> str | None:
    read = "SELECT return_id, reason, condition FROM return_events ORDER BY position"
    for id, reason, condition in lab.as_of(position=lab.head).sql(read).fetchall():
        if condition != expected[id]:
            return f"of {id}, returned as {reason!r}, it is {condition!r}; it should be {expected[id]!r}"
    return None
