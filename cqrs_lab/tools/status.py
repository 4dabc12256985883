"""The status of a store: what it holds, and how far its servings are behind.

Owns what `cqrs-lab status` tells, as data; how it is shown is the command line's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cqrs_lab.sql.names import quote
from cqrs_lab.store.dead_letters import DeadLetters
from cqrs_lab.store.log import Log
from cqrs_lab.tools.doctor import shop_models


def status_of(log: Log) -> dict[str, Any]:
    """Return what `cqrs-lab status` shows; times in ISO format, UTC."""
    ask, head, now = log.database.execute, log.head, datetime.now(UTC)
    categories = []
    for (category,) in ask("SELECT category FROM categories ORDER BY category"):
        row = ask(f"SELECT count(*), count(DISTINCT stream_no), {_ENDS} FROM {quote(f'{category}_events')}")[0]
        times = {name: _iso(time) for name, time in zip(_TIMES, row[2:], strict=True)}
        categories.append({"category": category, "events": row[0], "streams": row[1], **times})
    whole = {
        name: (min if name.startswith("first") else max)((c[name] for c in categories if c["events"]), default=None)
        for name in _TIMES
    }
    models, servings, letters = shop_models(), [], DeadLetters(log)
    for name, served_as, mode, position, fingerprint in ask(
        "SELECT model, served_as, mode, position, fingerprint FROM servings ORDER BY model, served_as"
    ):
        reached = head if served_as == "view" else position
        oldest = log.recorded_after(reached) if reached < head else None
        model = models.get(name.lower())
        same = served_as == "saga" or (model is not None and model.fingerprint(models, log.meaning) == fingerprint)
        good = letters.state(name) if served_as in ("projection", "saga") else "ok"
        servings.append(
            {
                "model": name,
                "served_as": served_as,
                "mode": mode,
                "position": reached,
                "events_behind": head - reached,
                "seconds_behind": round(max((now - oldest).total_seconds(), 0.0), 3) if oldest else 0.0,
                "state": good if same else "not the shop's" if model is None else "rebuild needed",
            }
        )
    return {"head": head, **whole, "categories": categories, "servings": servings}


_TIMES = ("first_recorded", "last_recorded", "first_occurred", "last_occurred")
_ENDS = "min(recorded_at), max(recorded_at), min(occurred_at), max(occurred_at)"


def _iso(time: datetime | None) -> str | None:
    return time.replace(tzinfo=UTC).isoformat() if time else None
