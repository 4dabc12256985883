"""A domain of numbers that are added up, and what its snapshots hold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pyarrow as pa

from cqrs_lab import Command, Decider, Domain, Event, Lab
from cqrs_lab.errors import RuleViolated
from cqrs_lab.write import streams


class Added(Event):
    tally: str
    n: int


class Add(Command):
    tally: str
    n: int


@dataclass(frozen=True)
class Tally:
    total: int = 0
    last: tuple[int, ...] = ()
    days: dict[str, datetime] = field(default_factory=dict)


def decide(command, tally):
    """Return no event for 0 and two for 3; a tally never falls below 0."""
    if tally.total + command.n < 0:
        raise RuleViolated("a tally is never below 0", tally)
    return [Added(tally=command.tally, n=command.n)] * (command.n != 0) * (1 + (command.n == 3))


def evolve(tally, event):
    """Return a state that has something of everything that JSON has no word for."""
    days = {**tally.days, str(event.n): datetime(2025, 1, 1, tzinfo=UTC)}
    return replace(tally, total=tally.total + event.n, last=(*tally.last, event.n)[-3:], days=days)


def tallies(**changes):
    """Return a decider of numbers that are added up, with some of its parts changed."""
    parts = {
        "category": "tally",
        "key": "tally",
        "initial": Tally(),
        "decide": decide,
        "evolve": evolve,
        "commands": [Add],
        "events": [Added],
    }
    return Decider(**(parts | changes))


def open_lab(path=":memory:", **changes):
    """Open a lab of tallies."""
    return Lab(path, domain=Domain(deciders=[tallies(**changes)]), threads=1)


def state_of(lab, id="a"):
    """Return a stream as the next command would find it were nothing remembered."""
    return streams.load(lab._log, lab.domain.deciders[0], id)


def snapshots(lab):
    """Return the versions of the snapshots there are, by stream."""
    return dict(lab._log.database.execute("SELECT stream, version FROM snapshots JOIN streams USING (stream_no)"))


def add(lab, *numbers):
    """Send commands, each decided on what the log holds and not on what is remembered."""
    for n in numbers:
        lab._store.loaded.clear()
        lab.send(Add(tally="a", n=n))


def table(facts):
    """Return facts as a table for append_table."""
    names, numbers = zip(*facts, strict=True)
    times = pa.array([datetime(2025, 1, 1, tzinfo=UTC)] * len(facts), pa.timestamp("us", "UTC"))
    return pa.table({"id": names, "type": ["Added"] * len(facts), "occurred_at": times, "n": numbers})
