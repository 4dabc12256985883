"""Projections in Python: rows that handlers make, event by event.

Owns the declaration of such a projection and the way its table moves. It is what other event stores do, and the slow
twin of a read model's SELECT: it reads every event into Python. It is needed for what no SELECT can do, such as sending
mail. Handlers see the events in order, each at least once for whatever they do outside of the store, and exactly once
for the rows: these are kept in memory for a chunk of events and written as a set, together with the checkpoint.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa
from pydantic import create_model

from cqrs_lab.errors import (
    DeclarationError,
    NotServed,
    ProjectionFailed,
    QueryFailed,
    RebuildNeeded,
    StoreError,
    UnknownEventType,
)
from cqrs_lab.ivm.admission import check_model_name
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.messages import Event, Recorded, Value, decimal_limits, unwrap, utc
from cqrs_lab.read.explain import Explanation
from cqrs_lab.read.moving import Check, Stored, Tell
from cqrs_lab.sql.names import check_name, quote
from cqrs_lab.sql.places import Place
from cqrs_lab.store.categories import Category, aware_value, column_type
from cqrs_lab.store.database import Database

if TYPE_CHECKING:
    from cqrs_lab.read.servings import Servings

Handler = Callable[[Recorded, "HandledRows"], object]
Key = tuple[Any, ...]

_REMEMBERED = 200_000  # rows that are known without a look into the table; above, all are forgotten


class Projection(ReadModel):
    """A read model whose rows are made by handlers in Python, one event at a time.

    Handlers are declared with `on`. One that sends commands is refused and belongs into a saga: it would wait for the
    append that waits for it.

    Args:
        name: what queries call it.
        key: the column that names a row, or a tuple of columns.
        columns: column -> its type, as in a message; all but the key may be None.
        chunk: so many events are handed over before their rows and the checkpoint are stored; 1 for a transaction for
            each event.
        side_effect: it has no rows, only effects outside of the store, such as mail. It begins at the head when it is
            new, goes on when its handlers change, and hands history over only when rebuild() is called.

    Raises:
        DeclarationError: names, types or the key do not fit together.
    """

    def __init__(
        self,
        name: str,
        key: str | tuple[str, ...] = (),
        columns: Mapping[str, Any] | None = None,
        *,
        chunk: int = 500,
        side_effect: bool = False,
    ) -> None:
        for field, value in {"name": name, "key": key, "sql": ""}.items():
            object.__setattr__(self, field, value)  # the base is frozen
        check_model_name("projection", name)
        types = dict(columns or {})
        for column in types:
            check_name("column", column)
        if side_effect == bool(types) or len({column.lower() for column in types}) < len(types):
            raise DeclarationError(
                f"projection {name!r}: give it columns whose names differ in more than case, or side_effect=True, "
                "which has none"
            )
        if not side_effect and (not self.keys or not set(self.keys) <= set(types)):
            raise DeclarationError(f"projection {name!r}: its key {self.keys} has to be among its columns {[*types]}")
        if chunk < 1:
            raise DeclarationError(f"projection {name!r}: chunk={chunk} is no number of events")
        self.chunk, self.side_effect = chunk, side_effect
        self.columns = {column: column_type(kind, where=f"{name}.{column}") for column, kind in types.items()}
        self.handlers: dict[type[Event], Handler] = {}
        self._fingerprint: str | None = None
        fields: dict[str, Any] = {c: kind if c in self.keys else (kind | None, None) for c, kind in types.items()}
        self._row = create_model(name, __base__=Value, **fields)
        self._key = create_model(f"key of {name}", __base__=Value, **{column: types[column] for column in self.keys})
        unwrapped = {column: unwrap(kind) for column, kind in types.items()}
        self._places = {c: decimal_limits(more)[1] for c, (kind, more, _) in unwrapped.items() if kind is Decimal}

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def on(self, event: type[Event]) -> Callable[[Handler], Handler]:
        """Declare what handles an event type: `handler(recorded, rows)`, with rows as `HandledRows`.

        Raises:
            DeclarationError: the event type has a handler already.
        """
        if event in self.handlers:
            raise DeclarationError(
                f"projection {self.name!r} has two handlers for {event.__name__}; put them into one, or declare the "
                "projection anew before its handlers"
            )

        def declare(handler: Handler) -> Handler:
            self.handlers[event], self._fingerprint = handler, None
            return handler

        return declare

    def check(self, categories: Iterable[Category]) -> None:
        """Refuse handlers for events that no category has.

        Raises:
            DeclarationError: names the event.
        """
        known = {event for category in categories for event in category.types.values()}
        for event in self.handlers:
            if event not in known:
                raise DeclarationError(f"projection {self.name!r} handles {event.__name__}, which no category has")

    def check_served(self, as_: str, mode: str | None) -> None:
        """Refuse ways to be served that it does not have.

        Raises:
            NotServed: with the reason.
        """
        if as_ != "projection" or mode == "inline":
            raise NotServed(
                f"{self.name} is made by handlers in Python: it is served as a projection, manual or background. It "
                "has no SELECT to run elsewhere, and every append would have to wait for its handlers inline"
            )

    def sources(self) -> tuple[Place, ...]:
        """Return nothing: it names no tables."""
        return ()

    def expanded(self, models: Mapping[str, ReadModel], window: Callable[[str], str | None]) -> NoReturn:
        """Refuse: there is no SELECT.

        Raises:
            NotServed: always.
        """
        raise NotServed(
            f"{self.name} is made by handlers in Python and has no SELECT: it can be read where it is served as a "
            "projection, and not as a view, materialized or as of another moment"
        )

    def fingerprint(self, models: Mapping[str, ReadModel], source: Callable[[str], str | None]) -> str:
        """Return what tells its columns and the source of its handlers from others; not what the handlers call."""
        if self._fingerprint is None:
            handlers = sorted((event.__name__, text(handler)) for event, handler in self.handlers.items())
            said = f"{self.keys} {self.columns} {'side effect' if self.side_effect else handlers}"
            self._fingerprint = hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
        return self._fingerprint

    def explain(self) -> Explanation:
        """Return how it works: the source of its handlers."""
        reason = f"handlers in Python take one event at a time; rows are stored after every {self.chunk}"
        sources = {f"on {event.__name__}": text(handler) for event, handler in self.handlers.items()}
        return Explanation(self.name, "projection", "handlers", reason, sources)

    def place(self, key: Key) -> Key:
        """Return the key of a row as its columns have it."""
        if len(key) != len(self.keys):
            raise QueryFailed(f"{self.name} has the key {', '.join(self.keys)}; {len(key)} values were given")
        return tuple(self._key(**dict(zip(self.keys, key, strict=True))).__dict__.values())

    def row(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row as its columns have it, whether it was just put or read back: checked, UTC, with all places."""
        row = dict(self._row(**values).__dict__)
        for name, value in row.items():
            if isinstance(value, datetime):
                row[name] = utc(value)
            elif name in self._places and value is not None:
                row[name] = value.quantize(Decimal(1).scaleb(-self._places[name]))
        return row


def text(handler: Handler) -> str:
    """Return the source of a handler; where there is none, what Python made of it."""
    try:
        return inspect.getsource(handler)
    except (OSError, TypeError):
        code = getattr(handler, "__code__", None)
        return f"{code.co_code.hex()} {code.co_names} {code.co_consts}" if code else repr(type(handler))


class HandledRows:
    """The rows of a projection as a handler sees them: those stored, with what the chunk's events changed.

    Args:
        model: the projection.
        database: where its rows are kept.
        table: the table that they are read from, quoted; nobody else writes to it meanwhile.
        is_empty: nothing is in it yet, so that there is no need to look: 11,000 events in 0.8 s and not in 3.6.
    """

    def __init__(self, model: Projection, database: Database, table: str, *, is_empty: bool = False) -> None:
        self._model, self._table, self._database, self._is_empty = model, table, database, is_empty
        self._read: dict[Key, dict[str, Any] | None] = {}
        self._changed: dict[Key, dict[str, Any] | None] = {}
        self._now: dict[Key, dict[str, Any] | None] = {}  # by the event that is being handled

    def get(self, *key: Any) -> dict[str, Any] | None:
        """Return the row with that key as a dict, None when there is none."""
        self._check()
        place = self._model.place(key)
        for rows in (self._now, self._changed, self._read):
            if place in rows:
                return copy.deepcopy(rows[place])
        found = self._read[place] = None if self._is_empty else self._look(place)
        return copy.deepcopy(found)

    def put(self, **row: Any) -> None:
        """Store a row, in the place of the one with its key; a column that is not given is empty.

        Raises:
            InvalidMessage: a column that it does not have, or a value that does not fit.
        """
        self._check()
        made = self._model.row(row)
        self._now[tuple(made[key] for key in self._model.keys)] = made

    def delete(self, *key: Any) -> None:
        """Remove the row with that key, if there is one."""
        self._check()
        self._now[self._model.place(key)] = None

    def handle(self, recorded: Recorded) -> None:
        """Hand over one event; when it fails it has changed nothing.

        Raises:
            ProjectionFailed: with what the handler said.
        """
        try:
            self._model.handlers[type(recorded.event)](recorded, self)
            self._changed |= self._now
        except StoreError:
            raise  # a store that is full or closed is not the event's fault
        except Exception as error:
            raise self.failed(recorded.position, recorded.type, error) from error
        finally:
            self._now = {}

    def failed(self, position: int, what: str, error: Exception) -> ProjectionFailed:
        """Return the error that says at which event it stopped."""
        return ProjectionFailed(
            f"{self._model.name} failed at position {position} ({what}): {type(error).__name__}: {error}. Mend the "
            "handler and call rebuild(), or serve it with on_error='dead letter' to go on without such events",
            self._model.name,
        )

    def write(self) -> None:
        """Write what the chunk changed, in the open transaction."""
        keys = ", ".join(map(quote, self._model.keys))
        gone = [dict(zip(self._model.keys, key, strict=True)) for key, row in self._changed.items() if row is None]
        there = [row for row in self._changed.values() if row is not None]
        with_rows = f"INSERT OR REPLACE INTO {self._table} SELECT * FROM"
        without = f"DELETE FROM {self._table} WHERE ({keys}) IN (SELECT ({keys}) FROM"
        for statement, rows, columns in ((without, gone, keys), (with_rows, there, "*")):
            if rows:
                schema = self._database.arrow(f"SELECT {columns} FROM {self._table} LIMIT 0").schema
                plain = [{name: Category.encode_value(value) for name, value in row.items()} for row in rows]
                with self._database.registered(pa.Table.from_pylist(plain, schema=schema), "_handled") as name:
                    self._database.execute(f"{statement} {name}{')' if statement is without else ''}")
        self._read |= self._changed
        self._changed = {}
        if len(self._read) > _REMEMBERED:
            self._read, self._is_empty = {}, False

    def _look(self, place: Key) -> dict[str, Any] | None:
        where = " AND ".join(f"{quote(key)} = ?" for key in self._model.keys)
        values = [Category.encode_value(value) for value in place]
        found = self._database.execute(f"SELECT * FROM {self._table} WHERE {where}", values)
        if not found:
            return None
        return self._model.row({c: aware_value(v) for c, v in zip(self._model.columns, found[0], strict=True)})

    def _check(self) -> None:
        if self._model.side_effect:
            raise DeclarationError(f"{self._model.name} is there for its side effects and has no rows")


class Handled(Stored):
    """The table of a projection in Python; arguments as of `Stored`."""

    model: Projection

    def __init__(self, side: Servings, model: Projection, as_: str, mode: str = "manual") -> None:
        super().__init__(side, model, as_, mode)

    def forward(self, end: int) -> int:
        """Hand over the events up to a position, chunk by chunk; return the position reached.

        Raises:
            ProjectionFailed: an event failed; what came before it is stored.
            RebuildNeeded: other handlers made the rows.
        """
        if not self.is_fit:
            raise RebuildNeeded(f"{self.model.name} has other columns or handlers than those that made its rows")
        rows = HandledRows(self.model, self._side.log.database, self.table, is_empty=self.position == 0)
        while self.position < end:
            start = self.position
            done, error = self._hand_over(start, end, rows)
            if done > start:
                with self.moving_to(done):
                    rows.write()
            if error is not None:
                raise error
        return self.position

    def first_failing(self, end: int) -> int:
        """Return the position of the event before which it stopped."""
        return self.position + 1

    def build(self, head: int, check: Check | None = None, tell: Tell | None = None) -> int:
        """Hand all events over again, into a table beside the old one; swap them when all went well.

        What is there for its side effects hands them over from the first one on.
        """
        if self.model.side_effect:
            with self.moving_to(0):
                pass
            return self.forward(head)
        beside = f"{quote(self.as_)}.{quote(f'_next_{self.model.name}')}"
        columns = ", ".join(f"{quote(name)} {kind}" for name, kind in self.model.columns.items())
        with self.moving_to(head):
            self._run(f"CREATE TABLE {beside} ({columns}, PRIMARY KEY ({self.keys}))")
            done, rows = 0, HandledRows(self.model, self._side.log.database, beside, is_empty=True)
            while done < head:
                done, error = self._hand_over(done, head, rows)
                if error is not None:
                    raise error
                rows.write()
                if tell is not None:
                    tell(done / head)
            self._check(check, beside, head)
            self._run(f"DROP TABLE IF EXISTS {self.table}")
            self._run(f"ALTER TABLE {beside} RENAME TO {quote(self.model.name)}")
        return head

    def again(self, position: int) -> None:
        """Hand over an event that was set aside.

        Raises:
            ProjectionFailed: it failed again.
        """
        rows = HandledRows(self.model, self._side.log.database, self.table)
        with self._side.log.handling(self.model.name):
            for recorded in self._side.log.read_events(list(self.model.handlers), position - 1, position, 1):
                rows.handle(recorded)
        with self.moving_to(self.position):
            rows.write()

    def _hand_over(self, start: int, end: int, rows: HandledRows) -> tuple[int, ProjectionFailed | None]:
        """Hand over at most a chunk of events; return the position reached, and what failed just behind it."""
        dead, done = set(self._side.dead.of(self.model.name)), start
        events, chunk = list(self.model.handlers), self.model.chunk
        while True:
            try:
                batch = self._side.log.read_events(events, start, end, chunk)
                break
            except UnknownEventType as error:  # somewhere: what comes before it is still read
                if end == start + 1:
                    return (end, None) if end in dead else (start, rows.failed(end, "unknown", error))
                end = (start + end) // 2
        with self._side.log.handling(self.model.name):
            for recorded in batch:
                if recorded.position not in dead:
                    try:
                        rows.handle(recorded)
                    except ProjectionFailed as error:
                        return recorded.position - 1, error
                done = recorded.position
        return done if len(batch) == chunk else end, None
