"""Forks: another world over a copy of the log, with or without changes to what happened.

Owns the copying of a log into another, as a set, and the three changes: events dropped, edited, injected. What is
changed is appended behind the copy first, as any event is, and then all are put in their order and counted anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import pyarrow as pa

from cqrs_lab.errors import DeclarationError, InvalidMoment
from cqrs_lab.messages import Event, Recorded
from cqrs_lab.sql.names import names_events, quote
from cqrs_lab.store.categories import Category, naive
from cqrs_lab.store.database import Database
from cqrs_lab.store.listing import listed
from cqrs_lab.store.log import Log
from cqrs_lab.write.batch import Context
from cqrs_lab.write.event_store import EventStore

Drop: TypeAlias = "Callable[[dict[str, Any]], bool] | Collection[int | str | type[Event]]"
"""Which events to leave out: a predicate of one as a dict, or positions, streams and types."""

Edit: TypeAlias = "Mapping[int, Mapping[str, Any]] | Callable[[Recorded], Event | None]"
"""Which events were others: position -> fields, or a function."""

Injected: TypeAlias = "tuple[Event, datetime] | tuple[Event, datetime, int]"
"""An event that happened as well: when, and the position that it comes after."""

_CHUNK = 5_000  # events that a function sees between two reads of the log


def copy_log(source: Log, target: Log, to: int) -> None:
    """Copy a log, up to a position, into an empty one: its events, streams, snapshots and remembered commands."""
    database = target.database
    with database.transaction():
        for table in _tables(source):
            rows = source.database.arrow(f"SELECT * FROM {quote(table)} WHERE position <= {to}")
            with database.registered(rows, "_copied") as copied:
                _refill(database, table, f"SELECT * FROM {copied}", _statements(source, table))
        known = " UNION ".join(f"SELECT stream_no FROM {quote(f'{name}_events')}" for name in source.heads.tables)
        silent = " OR last_position IS NULL" if to == source.head else ""  # when these were sent is not known
        for table, where in {
            "categories": "true",
            "streams": f"stream_no IN ({known or 'NULL'})",
            "snapshots": f"position <= {to}",
            "commands": f"last_position <= {to}{silent}",
        }.items():
            rows = source.database.arrow(f"SELECT * FROM {table}")
            with database.registered(rows, "_copied") as copied:
                database.execute(f"INSERT OR IGNORE INTO {table} SELECT * FROM {copied} WHERE {where}")
    Log(database, target.categories.values())  # looks at the tables again
    target.memory.read()


def change_log(
    store: EventStore,
    *,
    occurred: datetime | None = None,
    drop: Drop | None = None,
    edit: Edit | None = None,
    inject: Sequence[Injected] = (),
) -> None:
    """Change a copied log (see `Lab.fork`).

    Args:
        occurred: leave out what occurred later.

    Raises:
        InvalidMoment: a position that is not in the log.
        InvalidMessage: an edited event breaks a rule.
    """
    log = store.log
    head = log.head
    gone = set(_dropped(log, drop)) if drop is not None else set()
    if occurred is not None:
        gone |= set(_positions(log, "occurred_at > ?", [naive(occurred)]))
    edited = [(recorded, event) for recorded, event in _edited(log, edit) if recorded.position not in gone]
    added: list[tuple[Event, Context, int, int | None]] = []  # event, context, place, the position that it replaces
    for recorded, event in edited:
        context = Context(
            occurred_at=recorded.occurred_at,
            correlation_id=recorded.correlation_id,
            causation_id=recorded.causation_id,
        )
        added.append((event, context, recorded.position, recorded.position))
    for event, occurred_at, *given in inject:
        after = int(given[0]) if given else head
        if not 0 <= after <= head:
            raise InvalidMoment(f"an event cannot be injected after position {after}: the log has 1 to {head}")
        added.append((event, Context(occurred_at=occurred_at), after, None))
    gone |= {recorded.position for recorded, _ in edited}
    if not gone and not added:
        return
    places = []
    with store.together() as batch:
        for rank, (event, context, place, old) in enumerate(added):
            category = _category(log, event)
            (recorded,) = store.append(category, getattr(event, category.key), [event], context=context, batch=batch)
            places.append({"position": recorded.position, "place": place, "rank": rank + 1, "old": old})
    _count_anew(log, gone, places)
    store.loaded.clear()


def _count_anew(log: Log, gone: set[int], places: list[dict[str, Any]]) -> None:
    """Put all events in their order, and give them positions and versions without holes."""
    database, tables = log.database, _tables(log)
    every = " UNION ALL ".join(
        f"SELECT position, stream_no, recorded_at, event_id, command_id FROM {quote(f'{name}_events')}"
        for name in log.heads.tables
    )
    schema = pa.schema([(name, pa.int64()) for name in ("position", "place", "rank", "old")])
    numbers = pa.table({"position": pa.array(sorted(gone), pa.int64())})
    with (
        database.transaction(),
        database.registered(pa.Table.from_pylist(places, schema=schema), "_places") as placed,
        database.registered(numbers, "_gone") as dropped,
    ):
        # What was injected was learnt when what comes before it was: recorded_at never decreases with position.
        database.execute(
            f"""CREATE OR REPLACE TEMP TABLE _order AS
            WITH every AS ({every}), placed AS (
                SELECT every.position, every.stream_no, every.recorded_at, coalesce(place, every.position) AS place,
                       coalesce(rank, 0) AS rank, coalesce(was.event_id, every.event_id) AS event_id,
                       coalesce(was.command_id, every.command_id) AS command_id,
                       CASE WHEN rank IS NULL THEN every.recorded_at ELSE was.recorded_at END AS known_at
                FROM every LEFT JOIN {placed} AS p ON p.position = every.position
                LEFT JOIN every AS was ON was.position = p.old
                WHERE every.position NOT IN (SELECT position FROM {dropped}))
            SELECT position AS was, row_number() OVER _log AS position, stream_no, event_id, command_id,
                   row_number() OVER (PARTITION BY stream_no ORDER BY place, rank) AS version,
                   coalesce(max(known_at) OVER _log, min(known_at) OVER (), recorded_at) AS recorded_at
            FROM placed WINDOW _log AS (ORDER BY place, rank)"""
        )
        for table in tables:
            names = ["position"]
            if names_events(table):
                names += ["version", "recorded_at", "event_id", "command_id"]
            new = ", ".join(f"o.{name} AS {name}" for name in names)
            rows = f"SELECT e.* REPLACE ({new}) FROM {quote(table)} AS e JOIN _order AS o ON o.was = e.position"
            database.execute(f"CREATE OR REPLACE TEMP TABLE _rows AS {rows}")
            _refill(database, table, "SELECT * FROM temp._rows ORDER BY position", _statements(log, table))
        database.execute("DELETE FROM streams WHERE stream_no NOT IN (SELECT stream_no FROM _order)")
        for table in ("commands", "snapshots", "temp._rows", "temp._order"):
            database.execute(f"{'DROP TABLE' if '.' in table else 'DELETE FROM'} {table}")
    log.memory.read()


def _tables(log: Log) -> list[str]:
    """The tables that hold events, and what is personal in them."""
    heads = log.heads
    return [f"{name}_events" for name in heads.tables] + [f"{name}_personal" for name in heads.personal]


def _statements(log: Log, table: str) -> list[str]:
    """The statements that make a table, and then its indexes."""
    here = "WHERE table_name = ? AND schema_name = 'main' AND database_name = current_database()"
    made = log.database.execute(f"SELECT sql FROM duckdb_tables() {here}", [table])
    return [sql for (sql,) in made + log.database.execute(f"SELECT sql FROM duckdb_indexes() {here}", [table])]


def _refill(database: Database, table: str, select: str, statements: list[str]) -> None:
    """Make a table anew, with these rows; an index over rows that are there costs less than one that grows."""
    make, *indexes = statements
    for sql in (f"DROP TABLE IF EXISTS {quote(table)}", make, f"INSERT INTO {quote(table)} {select}", *indexes):
        database.execute(sql)


def _positions(log: Log, condition: str, params: Sequence[Any]) -> list[int]:
    parts = [
        f"SELECT position FROM {quote(f'{name}_events')} JOIN streams USING (stream_no) WHERE {condition}"
        for name in log.heads.tables
    ]
    return [p for part in parts for (p,) in log.database.execute(part, params)]


def _dropped(log: Log, drop: Drop) -> Iterator[int]:
    if callable(drop):
        for row in listed(log).dicts():
            if drop(row | {"data": json.loads(row["data"])}):
                yield row["position"]
        return
    named = [item if isinstance(item, str) else item.__name__ for item in drop if not isinstance(item, int)]
    # Joined, for there may be as many positions as events: 50,000 of 200,000 by 0.7 s, and in a list by 1.8 s.
    among = "IN (SELECT unnest(CAST(? AS {}[])))".format
    where = f"position {among('BIGINT')} OR stream {among('VARCHAR')} OR type {among('VARCHAR')}"
    yield from _positions(log, where, [[item for item in drop if isinstance(item, int)], named, named])


def _edited(log: Log, edit: Edit | None) -> Iterator[tuple[Recorded, Event]]:
    if edit is None:
        return
    types = [event for category in log.categories.values() for event in category.types.values()]
    if callable(edit):
        after = 0
        while some := log.read_events(types, after, log.head, _CHUNK):
            for recorded in some:
                changed = edit(recorded)
                if changed is not None and changed != recorded.event:
                    yield recorded, changed
            after = some[-1].position
        return
    for position, fields in edit.items():
        found = log.read_events(types, position - 1, position, 1)
        if not found:
            raise InvalidMoment(f"there is no event at position {position} to edit; the log has 1 to {log.head}")
        event = found[0].event
        yield found[0], type(event)(**{**dict(event), **fields})


def _category(log: Log, event: Event) -> Category:
    for category in log.categories.values():
        if type(event) in category.types.values():
            return category
    raise DeclarationError(f"no category declares {type(event).__name__}; it cannot be part of this log")
