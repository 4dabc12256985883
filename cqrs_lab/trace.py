"""A trace: the story behind one correlation id.

Owns the account of what one command set going: the commands, the events they led to, the steps that sagas took, and
the rows of read models that changed. It is read from the log alone; nothing is written down for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from html import escape
from typing import Any
from uuid import UUID

import pyarrow as pa

from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.plan import Recompute
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.ivm.reading import Use
from cqrs_lab.read.catalog import Catalog
from cqrs_lab.read.differences import columns_of
from cqrs_lab.read.past import Past
from cqrs_lab.read.story import tree
from cqrs_lab.sql.names import literal, quote
from cqrs_lab.store.listing import listed
from cqrs_lab.store.log import Log
from cqrs_lab.store.rows import Rows

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
        return tree(self.dicts()) or f"<p>{escape(repr(self))}</p>"


def trace(
    log: Log, catalog: Catalog, models: Sequence[ReadModel], sagas: Sequence[str], correlation_id: UUID | str
) -> Trace:
    """Return the story of one correlation id (see `Lab.trace`).

    Args:
        models: the read models whose rows are looked at.
        sagas: names of the sagas; their commands carry ids that begin with one.
    """
    events = listed(log, correlation_id=correlation_id).dicts()
    commands = log.database.execute(
        """SELECT command_id, type, coalesce(stream, ''), causation_id,
                  CASE WHEN first_position <= last_position THEN first_position END FROM commands
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
            for key, change in _changes(catalog, model, position):
                row = _row(position, "row", model.name, key, "", event["recorded_at"], change)
                told.append(((position, 2), row))
    told.sort(key=lambda item: item[0])
    return Trace.of(log, pa.Table.from_pylist([row for _, row in told], schema=_SCHEMA))


def _row(position: int | None, kind: str, name: str, about: str, by: str, at: Any, detail: str) -> dict[str, Any]:
    return {"position": position, "kind": kind, "name": name, "about": about, "by": by, "at": at, "detail": detail}


def _changes(catalog: Catalog, model: ReadModel, position: int) -> Iterator[tuple[str, str]]:
    """Yield what one event changed in a read model: (the row's key, what changed)."""
    before, after = Past(catalog, position - 1), Past(catalog, position)
    for key in _touched(catalog, model, position):
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


def _touched(catalog: Catalog, model: ReadModel, position: int) -> list[tuple[Any, ...]]:
    """The keys whose rows an event may have changed, by the SQL that moves them."""
    keys, plan = ", ".join(map(quote, model.keys)), catalog.plan(model)
    before, after = (partial(_source, catalog, to=to) for to in (position - 1, position))
    if isinstance(plan, Recompute):
        new, old = after(model.name.lower()), before(model.name.lower())
        select = f"(({new}\n) EXCEPT ALL ({old}\n)) UNION ALL (({old}\n) EXCEPT ALL ({new}\n))"
        return catalog.log.database.execute(f"SELECT DISTINCT {keys} FROM ({select}\n) ORDER BY {keys}")
    found_by, reached = ", ".join(map(quote, plan.found_by)), []
    if isinstance(plan, Merge):
        new = plan.reached(lambda use: catalog.window(position - 1, position)(use.name), lambda _: "", None)
        reached.append(f"SELECT {found_by} FROM ({new}\n)")
    changed = {name: _changed_rows(catalog, name, position) for name in dict.fromkeys(use.name for use in plan.uses)}

    def read(use: Use) -> str:
        more = None if use.is_events else changed[use.name]  # of two rows that change at once, neither finds the other
        return f"{after(use.name)} UNION ALL BY NAME {more}" if more else after(use.name)

    for use in plan.uses:
        rows = changed[use.name]
        if rows:
            reached.append(plan.keys_of(use, rows, read))
    if not reached:
        return []
    select = " UNION ".join(f"({one}\n)" for one in reached)
    if len(plan.found_by) < len(model.keys):  # the rows of part of a key
        alike = " AND ".join(f"_a.{quote(name)} IS NOT DISTINCT FROM _r.{quote(name)}" for name in plan.found_by)
        both = " UNION ".join(f"SELECT {keys} FROM ({there(model.name.lower())}\n)" for there in (before, after))
        select = f"SELECT {keys} FROM ({both}) AS _a WHERE EXISTS (SELECT 1 FROM ({select}\n) AS _r WHERE {alike})"
    return catalog.log.database.execute(f"SELECT DISTINCT {keys} FROM ({select}\n) ORDER BY {keys}")


def _source(catalog: Catalog, name: str, *, to: int) -> str:
    """The SELECT of the rows that a source had at a position."""
    window = catalog.window(0, to)
    layer = catalog.known.get(name)
    return window(name) if layer is None else layer.expanded(catalog.known, window)


def _changed_rows(catalog: Catalog, name: str, position: int) -> str | None:
    """The SELECT of the rows of a source that an event changed, as they were and as they are; None without any."""
    layer = catalog.known.get(name)
    if layer is None:
        return catalog.window(position - 1, position)(name)
    touched = _touched(catalog, layer, position)
    if not touched:
        return None
    # Values and not a SELECT of them: these DuckDB looks up, where it would fold all of the log for the other.
    kinds = {k.lower(): v for k, v in columns_of(catalog.log.database, _source(catalog, name, to=position)).items()}
    rows = []
    for key in touched:
        cells = [
            f"{quote(k)} IS NULL" if v is None else f"{quote(k)} = CAST({literal(str(v))} AS {kinds[k.lower()]})"
            for k, v in zip(layer.keys, key, strict=True)
        ]
        rows.append(f"({' AND '.join(cells)})")
    where = " OR ".join(rows)
    sides = [f"SELECT * FROM ({_source(catalog, name, to=to)}\n) WHERE {where}" for to in (position - 1, position)]
    return " UNION ALL BY NAME ".join(sides)
