"""A stream as it is loaded: the state that commands are decided on.

Owns the snapshots. A snapshot is the state of a stream after one of its events, kept so that only the events behind it
are folded. It is a cache and never an answer of its own: dropping all of them changes nothing but the time it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from pydantic import BaseModel, PydanticUserError, ValidationError

from cqrs_lab.errors import DeclarationError
from cqrs_lab.messages import Recorded
from cqrs_lab.store.log import Log
from cqrs_lab.write.batch import Batch, Seen
from cqrs_lab.write.decider import Decider


@dataclass
class Loaded:
    """A stream as a command finds it.

    Attributes:
        seen: its number and version.
        state: what its events fold to.
        position: of its last event.
        folded: how many events were folded since the last snapshot.
    """

    seen: Seen
    state: Any
    position: int = 0
    folded: int = 0

    @property
    def version(self) -> int:
        """The version that the stream is at."""
        return self.seen[1]

    def after(self, recorded: Sequence[Recorded], number: int | None, state: Any) -> Loaded:
        """Return the stream after more events, which lead to that state."""
        if not recorded:
            return self
        last = recorded[-1]
        return Loaded((number, last.version), state, last.position, self.folded + len(recorded))


def load(log: Log, decider: Decider, id: str) -> Loaded:
    """Return the state of one stream, from its snapshot where there is one."""
    category = decider.log_category
    stream = category.stream(id)
    number = log.stream_no(stream)
    if number is None:
        return Loaded((None, 0), decider.initial)
    version, position, state = _snapshot(log, decider, number) if decider.snapshot_every else (0, 0, decider.initial)
    past = log.read_numbered(category, stream, number, after=position)
    if past:
        version, position = past[-1].version, past[-1].position
    return Loaded((number, version), decider.fold((r.event for r in past), state), position, len(past))


def load_many(log: Log, decider: Decider, ids: Sequence[str]) -> dict[str, Loaded]:
    """Return the state of many streams of one category, by name of the stream."""
    category = decider.log_category
    if len(ids) == 1:
        return {category.stream(ids[0]): load(log, decider, ids[0])}
    if decider.snapshot_every:
        return {category.stream(id): load(log, decider, id) for id in ids}
    result = {category.stream(id): Loaded((None, 0), decider.initial) for id in ids}
    for stream, past in log.read_many(category, ids).items():
        state = decider.fold(recorded.event for recorded in past)
        version, position = (past[-1].version, past[-1].position) if past else (0, 0)
        result[stream] = Loaded((log.stream_no(stream), version), state, position, len(past))
    return result


def keep_snapshot(batch: Batch, decider: Decider, loaded: Loaded) -> None:
    """Store the state that was loaded with the batch, when folding it took as many events as the decider says.

    Raises:
        DeclarationError: the state does not come back from JSON as it went.
    """
    if not decider.snapshot_every or loaded.folded < decider.snapshot_every:
        return
    try:
        state = decider.states.dump_json(loaded.state, warnings=False).decode()
        comes_back = decider.states.validate_json(state) == loaded.state
    except (PydanticUserError, ValueError):
        comes_back = False
    if not comes_back:
        raise DeclarationError(
            f"the state of {decider.category!r}, {loaded.state!r}, comes back from JSON as another one; give its "
            "fields types that pydantic can read, or leave snapshot_every out"
        )
    number, version = loaded.seen
    row = {"stream_no": number, "version": version, "position": loaded.position, "code": decider.code, "state": state}
    batch.rows["snapshots"] = [other for other in batch.rows.get("snapshots", ()) if other["stream_no"] != number]
    batch.add("snapshots", row)
    loaded.folded = 0


def _snapshot(log: Log, decider: Decider, number: int) -> tuple[int, int, Any]:
    """The version, position and state of a stream's snapshot; the beginning when there is none that fits."""
    found = log.database.execute("SELECT version, position, code, state FROM snapshots WHERE stream_no = ?", [number])
    if found and found[0][2] == decider.code:
        version, position, _, state = found[0]
        try:
            found_state = decider.states.validate_json(state)
        except ValidationError:
            pass  # as good as none
        else:
            # JSON says Z for UTC. What pydantic makes of it equals datetime.timezone.utc and prints otherwise, and a
            # refusal prints the state.
            return version, position, _in_utc(found_state) if 'Z"' in state else found_state
    return 0, 0, decider.initial


def _in_utc(value: Any) -> Any:
    """Return a state just read from JSON with its times in UTC as `evolve` has them; objects are changed in place."""
    if isinstance(value, datetime | time):
        return value.replace(tzinfo=UTC) if value.utcoffset() == timedelta(0) else value
    if isinstance(value, dict):
        items = [(_in_utc(key), _in_utc(inner)) for key, inner in value.items()]
        value.clear()
        value.update(items)
    elif isinstance(value, list):
        value[:] = map(_in_utc, value)
    elif isinstance(value, tuple | set | frozenset):
        inner = [_in_utc(one) for one in value]
        return value._make(inner) if hasattr(value, "_make") else type(value)(inner)
    elif isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        names = type(value).model_fields if isinstance(value, BaseModel) else [one.name for one in fields(value)]
        for name in names:
            object.__setattr__(value, name, _in_utc(getattr(value, name)))
    return value
