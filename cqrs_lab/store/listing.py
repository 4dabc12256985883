"""The listing: events of all categories in one shape.

Owns the SELECT that puts the tables of the log together, and what it can be narrowed by.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from cqrs_lab.errors import DeclarationError
from cqrs_lab.messages import INT64_MAX, Event
from cqrs_lab.sql.names import quote
from cqrs_lab.store.log import Log
from cqrs_lab.store.rows import Rows

_ENVELOPE = "version, type, occurred_at, recorded_at, event_id, correlation_id, causation_id, command_id"


def listed(
    log: Log,
    *,
    stream: str | None = None,
    category: str | None = None,
    types: Iterable[str | type[Event]] | None = None,
    after: int = 0,
    up_to: int | None = None,
    from_version: int | None = None,
    to_version: int | None = None,
    correlation_id: UUID | str | None = None,
    positions: Sequence[int] | None = None,
    limit: int | None = None,
    descending: bool = False,
) -> Rows:
    """Return the log in one shape, in order of position (see `Lab.events`).

    Args:
        positions: only these.
    """
    tables, head = log.heads.tables, log.head  # once: an append in between must not show in one table alone
    if category is not None and category not in tables:
        raise DeclarationError(f"there is no category {category!r}; there are {', '.join(tables) or 'none'}")
    if limit is not None and limit < 0:
        raise DeclarationError(f"limit={limit} is no number of events; leave it out for all of them")
    bounds = {"position > ?": after, "position <= ?": head if up_to is None else min(up_to, head)}
    if from_version is not None or to_version is not None:
        bounds |= {"version >= ?": from_version or 0, "version <= ?": INT64_MAX if to_version is None else to_version}
    if stream is not None:
        bounds["stream_no = ?"] = log.stream_no(stream) or 0
    where: dict[str, Any] = {**bounds}
    if types is not None:
        where["list_contains(?, type)"] = [t if isinstance(t, str) else t.__name__ for t in types]
    if positions is not None:
        where["position IN (SELECT unnest(CAST(? AS BIGINT[])))"] = list(positions)
    if correlation_id is not None:
        where["correlation_id = ?"] = str(correlation_id)
    names = [name for name in tables if category in (None, name)]
    if stream is not None and stream.split("/")[0] in names:
        names = [stream.split("/")[0]]
    if not names:
        raise DeclarationError("the domain declares no categories, so there are no events to read")
    order = f"ORDER BY position{' DESC' if descending else ''}{'' if limit is None else f' LIMIT {limit:d}'}"
    parts = [
        # Each table gives at most so many: without that, all of it would be put into shape first.
        f"(SELECT * FROM ({_shaped(log, name)}) WHERE {' AND '.join(where)} {'' if limit is None else order})"
        for name in names
    ]
    columns, together = f"position, stream, {_ENVELOPE}, data", " UNION ALL ".join(parts)
    text = f"SELECT {columns} FROM ({together}) JOIN streams USING (stream_no) {order}"
    return Rows(log, text, [*where.values()] * len(parts))


def _shaped(log: Log, name: str) -> str:
    """The events of a category with their fields as JSON; bytes in base64."""
    columns = {**log.heads.tables[name], **log.heads.personal.get(name, {})}
    fields = ", ".join(
        f"{quote(column)} := {f'to_base64({quote(column)})' if kind == 'BLOB' else quote(column)}"
        for column, kind in columns.items()
    )
    # A merge patch onto {} drops the fields that other event types have.
    data = f"CAST(json_merge_patch('{{}}', to_json(struct_pack({fields}))) AS VARCHAR)"
    return f"SELECT position, stream_no, {_ENVELOPE}, {data} AS data FROM ({log.whole(name)})"
