"""Time travel: every read model as of a moment, from the log alone.

Owns the meaning of a moment. `position` and `recorded` cut the log where the store stood: what was known then.
`occurred` keeps the events that had happened by then, as they are known now. Together: what was believed on one day
about another.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from cqrs_lab.errors import InvalidMoment
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.messages import utc
from cqrs_lab.read.differences import columns_of, differences
from cqrs_lab.read.kept import kept
from cqrs_lab.read.served import as_stored
from cqrs_lab.read.servings import Servings
from cqrs_lab.sql.names import quote
from cqrs_lab.store.categories import naive
from cqrs_lab.store.rows import Rows

Moment = datetime | date
"""An aware datetime, or a date, which means the end of that day in UTC."""


def moment(value: Moment, name: str) -> datetime:
    """Return an aware datetime in UTC.

    Raises:
        InvalidMoment: naive, or neither a datetime nor a date.
    """
    if isinstance(value, datetime):
        try:
            return utc(value)
        except ValueError as error:
            raise InvalidMoment(f"{name}={value!r}: {error}") from None
    if isinstance(value, date):
        return datetime.combine(value, time.max, UTC)
    raise InvalidMoment(f"{name}={value!r} is neither a datetime nor a date")


@dataclass(frozen=True)
class Past:
    """The store as of a moment; made by `Lab.as_of`.

    Attributes:
        position: the last position that counts.
        occurred: only events that had occurred by then count; None: all of them.
    """

    servings: Servings
    position: int
    occurred: datetime | None = None

    def get(self, model: ReadModel | str, *key: Any) -> dict[str, Any] | None:
        """Return the row that the read model had for a key, None when it had none."""
        found = self.servings.find(model)
        rows = self._where(found, self.servings.keyed(found, key)).dicts()
        return rows[0] if rows else None

    def where(self, model: ReadModel | str, **equals: Any) -> Rows:
        """Return the rows that the read model had with these values, ordered by key."""
        return self._where(self.servings.find(model), equals)

    def rows(self, model: ReadModel | str) -> Rows:
        """Return all rows that the read model had, ordered by key."""
        return self.where(model)

    def sql(self, question: str, params: Sequence[Any] = ()) -> Rows:
        """Return the answer to a SELECT over read models and tables of events as they were.

        Args:
            params: a value for each ? in it.

        Raises:
            QueryFailed: DuckDB refused it, or it is not one SELECT.
        """
        folded = question.lower()
        views = {
            category.table: self._window(category.table)
            for category in self.servings.log.categories.values()
            if category.table.lower() in folded
        }
        views |= {model.name: self._text(model) for model in self.servings.mentioned(question)}
        return Rows(self.servings.log, question, [as_stored(value) for value in params], views=views)

    def __repr__(self) -> str:
        occurred = f", occurred by {self.occurred.isoformat()}" if self.occurred else ""
        return f"<the past: up to position {self.position} of {self.servings.log.head}{occurred}>"

    def _where(self, model: ReadModel, equals: dict[str, Any]) -> Rows:
        condition, params = self.servings.conditions(model, equals)
        order = ", ".join(map(quote, model.keys))
        # DuckDB pushes a condition on the key below the GROUP BY, so that one row costs one scan and no fold.
        sql = f"SELECT * FROM ({self._text(model)}\n) WHERE {condition} ORDER BY {order}"
        return Rows(self.servings.log, sql, params)

    def _text(self, model: ReadModel) -> str:
        """The SELECT of the rows that a read model had: out of the kept history where there is one, else folded."""
        if self.occurred is None:
            there = kept(self.servings, model)
            rows = there and there.rows(self.position)
            if rows:
                return rows
        models = self.servings.models
        if not any(source.name.lower() in models for source in model.sources()):
            return model.expanded(models, self._window)
        return model.bound(
            lambda place: (
                self._text(models[place.name.lower()]) if place.name.lower() in models else self._window(place.name)
            )
        )

    def _window(self, table: str) -> str:
        occurred = None if self.occurred is None else naive(self.occurred)
        return self.servings.log.window(table, to=self.position, occurred=occurred)


def as_of(
    servings: Servings,
    *,
    position: int | None = None,
    recorded: Moment | None = None,
    occurred: Moment | None = None,
) -> Past:
    """Return the store as of a moment (see `Lab.as_of`)."""
    head = servings.log.head
    last = head
    if position is None and recorded is None and occurred is None:
        raise InvalidMoment("say which moment: position=, recorded= or occurred=")
    if position is not None:
        if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position <= head:
            raise InvalidMoment(f"position={position!r} is not a whole number from 0 to the head, {head}")
        last = position
    if recorded is not None:
        last = min(last, servings.log.position_recorded_by(moment(recorded, "recorded")))
    return Past(servings, last, None if occurred is None else moment(occurred, "occurred"))


def diff(model: ReadModel | str, before: int | Moment | Past, after: int | Moment | Past, default: Servings) -> Rows:
    """Return what is different between two moments (see `Lab.diff`).

    Args:
        default: the servings of the lab that positions and times belong to.
    """
    one, other = _past(before, default), _past(after, default)
    found = default.find(model)
    database, texts = default.log.database, []
    columns = columns_of(database, found.expanded(default.models, default.log.source))
    with ExitStack() as stack:
        for number, past in enumerate((one, other)):
            text = past._text(past.servings.find(found))
            if past.servings.log.database is not database:  # another world: its rows come over, as they are typed here
                rows = past.servings.log.database.arrow(text)
                source = stack.enter_context(database.registered(rows, f"_world_{number}"))
                cast = ", ".join(f"CAST({quote(c)} AS {kind}) AS {quote(c)}" for c, kind in columns.items())
                text = f"SELECT {cast} FROM {source}"
            texts.append(text)
        table = differences(database, found.keys, (texts[0], columns), (texts[1], columns))
    return Rows.of(default.log, table.remove_column(1 + len(found.keys)))


def _past(value: int | Moment | Past, servings: Servings) -> Past:
    if isinstance(value, Past):
        return value
    if isinstance(value, (datetime, date)):
        return as_of(servings, recorded=value)
    return as_of(servings, position=value)
