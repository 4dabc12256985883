"""Tracing: the story behind one correlation id.

Owns the account of what one command set going: the commands, the events they led to, the steps that sagas took, and
the rows of read models that changed. It is read from the log alone; nothing is written down for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import pyarrow as pa

from cqrs_lab.database import quote
from cqrs_lab.log import Log
from cqrs_lab.read.merge import Merge
from cqrs_lab.read.models import ReadModel
from cqrs_lab.read.servings import Servings
from cqrs_lab.read.time_travel import Past
from cqrs_lab.rows import Rows

_SCHEMA = pa.schema(
    [  # type: ignore[arg-type, unused-ignore]
        ("position", pa.int64()),
        ("kind", pa.string()),
        ("name", pa.string()),
        ("about", pa.string()),
        ("by", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("detail", pa.string()),
    ]
)


class Trace(Rows):
    """A story, as Rows and as text to read."""

    def __repr__(self) -> str:
        lines = []
        for row in self.dicts():
            mark = {"command": "▶ ", "saga": "  ↳ ", "event": "    ● ", "row": "        ≈ "}[row["kind"]]
            by = f" (by {row['by']})" if row["kind"] == "saga" else ""
            at = f"{row['position']:>6} {row['at']:%H:%M:%S}" if row["kind"] == "event" else " " * 15
            detail = f": {row['detail']}" if row["detail"] else ""
            lines.append(f"{at} {mark}{row['name']} {row['about']}{by}{detail}")
        return "\n".join(lines) or "nothing carries that correlation id"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"


def trace(
    log: Log, servings: Servings, models: Sequence[ReadModel], sagas: Sequence[str], correlation_id: UUID | str
) -> Trace:
    """Return the story of one correlation id (see `Lab.trace`).

    Args:
        models: the read models whose rows are looked at.
        sagas: names of the sagas; their commands carry ids that begin with one.
    """
    events = log.events(correlation_id=correlation_id).dicts()
    commands = log.database.execute(
        """SELECT command_id, type, coalesce(stream, ''), causation_id, first_position FROM commands
           LEFT JOIN streams USING (stream_no) WHERE correlation_id = ?""",
        [str(correlation_id)],
    )
    places = {str(event["event_id"]): event["position"] for event in events}
    told: list[tuple[tuple[float, int], dict[str, Any]]] = []
    for command_id, name, stream, causation_id, first in commands:
        saga = next((s for s in sagas if command_id.startswith(f"{s}/")), None)
        position = first if first is not None else places.get(causation_id, 0) + 0.5
        at = next((event["recorded_at"] for event in events if event["position"] == first), None)
        row = _row(
            first, "saga" if saga else "command", name, stream, saga or "", at, "" if first else "led to nothing"
        )
        told.append(((position, 0), row))
    for event in events:
        position = event["position"]
        row = _row(position, "event", event["type"], event["stream"], "", event["recorded_at"], event["data"])
        told.append(((position, 1), row))
        for model in models:
            for key, change in _changes(servings, model, position):
                row = _row(position, "row", model.name, key, "", event["recorded_at"], change)
                told.append(((position, 2), row))
    told.sort(key=lambda item: item[0])
    return Trace.of(log, pa.Table.from_pylist([row for _, row in told], schema=_SCHEMA))


def _row(position: int | None, kind: str, name: str, about: str, by: str, at: Any, detail: str) -> dict[str, Any]:
    return {"position": position, "kind": kind, "name": name, "about": about, "by": by, "at": at, "detail": detail}


def _changes(servings: Servings, model: ReadModel, position: int) -> Iterator[tuple[str, str]]:
    """Yield what one event changed in a read model: (the row's key, what changed)."""
    before, after = Past(servings, position - 1), Past(servings, position)
    for key in _touched(servings, model, position):
        old, new = before.get(model, *key), after.get(model, *key)
        if old == new:
            continue
        if new is None:
            changed = "gone"
        else:
            cells = {name: (old.get(name) if old else None, value) for name, value in new.items()}
            shown = [
                f"{name} {f'{_said(was)} → ' if old else ''}{_said(now)}"
                for name, (was, now) in cells.items()
                if was != now and name not in model.keys
            ]
            changed = ", ".join(shown)
        yield ", ".join(map(str, key)), changed


def _said(value: Any) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value)


def _touched(servings: Servings, model: ReadModel, position: int) -> list[tuple[Any, ...]]:
    """The keys whose rows an event may have changed."""
    keys = ", ".join(map(quote, model.keys))
    if isinstance(servings.way(model), Merge):  # of a model that merges, the event's own fold has them
        text = model.expanded(servings.models, servings.window(position - 1, position))
        return servings.log.database.execute(f"SELECT {keys} FROM ({text}\n) ORDER BY {keys}")
    old, new = (model.expanded(servings.models, servings.window(0, to)) for to in (position - 1, position))
    difference = f"(({new}\n) EXCEPT ALL ({old}\n)) UNION ALL (({old}\n) EXCEPT ALL ({new}\n))"
    return servings.log.database.execute(f"SELECT DISTINCT {keys} FROM ({difference}) ORDER BY {keys}")
