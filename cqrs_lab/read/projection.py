"""Projections in Python: rows that handlers make, event by event.

Owns the declaration of such a projection; how its table moves is in `cqrs_lab.read.handled`. It is what other event
stores do, and the slow twin of a read model's SELECT: it reads every event into Python. It is needed for what no SELECT
can do, such as sending mail.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn, Protocol

from pydantic import create_model

from cqrs_lab.errors import DeclarationError, NotServed, QueryFailed
from cqrs_lab.ivm.admission import check_model_name
from cqrs_lab.ivm.read_model import Named, ReadModel
from cqrs_lab.messages import Event, Recorded, Value, decimal_limits, unwrap, utc
from cqrs_lab.read.explain import Explanation
from cqrs_lab.sql.names import check_name
from cqrs_lab.sql.places import Place
from cqrs_lab.store.categories import Category, column_type


class RowsToHandle(Protocol):
    """The rows of a projection as a handler sees them: those stored, with what the events so far changed."""

    def get(self, *key: Any) -> dict[str, Any] | None:
        """Return the row with that key as a dict, None when there is none."""

    def put(self, **row: Any) -> None:
        """Store a row, in the place of the one with its key; a column that is not given is empty."""

    def delete(self, *key: Any) -> None:
        """Remove the row with that key, if there is one."""


Handler = Callable[[Recorded, Any], object]
"""Takes an event and the rows, as `RowsToHandle`."""
Key = tuple[Any, ...]


class Projection(Named):
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
        self.name, self.key, self.sql = name, key, ""
        self.over: tuple[ReadModel, ...] = ()
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

    def on(self, event: type[Event]) -> Callable[[Handler], Handler]:
        """Declare what handles an event type: `handler(recorded, rows)`, with rows as `RowsToHandle`.

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

    @property
    def fingerprint(self) -> str:
        """What tells its columns and the source of its handlers from others; not what the handlers call."""
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


Model = ReadModel | Projection
"""What can be served: rows that a SELECT makes, or handlers in Python."""
