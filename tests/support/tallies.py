"""A domain of numbers that are added up, and a service that says under which key it was called."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from cqrs_lab import Command, Decider, Domain, Event, Lab, Value
from cqrs_lab.errors import RuleViolated
from cqrs_lab.write.decider import Service


class Spot(Value):
    name: str
    depth: int | None = None


class Added(Event):
    tally: str
    n: int
    note: str | None = None
    spot: Spot | None = None
    spots: list[Spot] = []


class Add(Command):
    tally: str
    n: int
    note: str | None = None
    spot: Spot | None = None
    spots: list[Spot] = []


class Called(Event):
    line: str
    key: str


class Call(Command):
    line: str


def decide(command, total):
    """Return what follows: nothing for 0; a tally never falls below 0."""
    if total + command.n < 0:
        raise RuleViolated("a tally is never below 0", total)
    return [Added(**dict(command))] if command.n else []


def tallies(**changes):
    """Return a decider of numbers that are added up, with some of its parts changed."""
    parts = {
        "category": "tally",
        "key": "tally",
        "initial": 0,
        "decide": decide,
        "evolve": lambda total, event: total + event.n,
        "commands": [Add],
        "events": [Added],
    }
    return Decider(**(parts | changes))


def calls(handle=lambda command, key: [Called(line=command.line, key=key)]):
    """Return a service that says under which key it was called."""
    return Service(category="line", key="line", handle=handle, commands=[Call], events=[Called])


def open_lab(path=":memory:", *, service=None, middleware=(), policy=None, **changes):
    """Open a lab of tallies and calls."""
    services = [service or calls()]
    domain = Domain(deciders=[tallies(**changes)], services=services, middleware=middleware, policy=policy)
    return Lab(path, domain=domain, threads=1)


def log_of(lab):
    """Return the log without ids and times, asserting that positions and versions have no holes."""
    rows, versions = lab.events().dicts(), {}
    assert [row["position"] for row in rows] == list(range(1, lab.head + 1))
    for row in rows:
        versions[row["stream"]] = versions.get(row["stream"], 0) + 1
        assert row["version"] == versions[row["stream"]]
    return [(row["stream"], row["version"], row["type"], row["data"]) for row in rows]


def assert_there(lab, receipts):
    """Assert that the events of receipts are where they say, and that there are no others."""
    rows = {row["position"]: (row["stream"], row["version"]) for row in lab.events().dicts()}
    assert {r.position: (r.stream, r.version) for r in receipts} == rows
    assert len(receipts) == len(rows)


@contextmanager
def threads(*acts):
    """Run acts in threads of their own beside the block, and wait for their ends; yields their futures."""
    pool = ThreadPoolExecutor(len(acts))
    try:
        yield [pool.submit(act) for act in acts]
    finally:
        pool.shutdown(wait=False)  # a hang is told by the timeouts of result()
