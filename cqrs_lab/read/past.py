"""The past: every read model as of a moment, from the log alone.

Owns the meaning of a moment. `position` and `recorded` cut the log where the store stood: what was known then.
`occurred` keeps the events that had happened by then, as they are known now. Together: what was believed on one day
about another.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from cqrs_lab.errors import InvalidMoment, QueryFailed
from cqrs_lab.read.catalog import Catalog
from cqrs_lab.read.changes import Differences
from cqrs_lab.read.differences import columns_of, differences
from cqrs_lab.read.kept import kept
from cqrs_lab.read.projection import Model, Projection
from cqrs_lab.sql.names import quote
from cqrs_lab.store.categories import as_stored, naive
from cqrs_lab.store.moments import Moment, moment
from cqrs_lab.store.rows import Rows


@dataclass(frozen=True)
class Past:
    """The store as of a moment; made by `Lab.as_of`.

    Attributes:
        position: the last position that counts.
        occurred: only events that had occurred by then count; None: all of them.
    """

    catalog: Catalog
    position: int
    occurred: datetime | None = None

    def get(self, model: Model | str, *key: Any) -> dict[str, Any] | None:
        """Return the row that the read model had for a key, None when it had none."""
        found = self.catalog.find(model)
        rows = self._where(found, self.catalog.keyed(found, key)).dicts()
        return rows[0] if rows else None

    def where(self, model: Model | str, **equals: Any) -> Rows:
        """Return the rows that the read model had with these values, ordered by key."""
        return self._where(self.catalog.find(model), equals)

    def rows(self, model: Model | str) -> Rows:
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

        def views() -> dict[str, str]:
            tables = (category.table for category in self.catalog.log.categories.values())
            found = {table: self._window(table) for table in tables if table.lower() in folded}
            return found | {model.name: self._text(model) for model in self.catalog.mentioned(question)}

        values = [as_stored(value) for value in params]
        # A kept history may be dropped at any time, as by an erasure: the question is written again without it.
        return Rows(self.catalog.log, question, values, views=views(), again=lambda: (question, views()))

    def __repr__(self) -> str:
        occurred = f", occurred by {self.occurred.isoformat()}" if self.occurred else ""
        nothing = "" if self.position else ", before anything was recorded"
        return f"<the past: up to position {self.position} of {self.catalog.log.head}{nothing}{occurred}>"

    def _where(self, model: Model, equals: dict[str, Any]) -> Rows:
        condition, params = self.catalog.conditions(model, equals)
        order = ", ".join(map(quote, model.keys))

        def sql() -> str:
            # DuckDB pushes a condition on the key below the GROUP BY, so that one row costs one scan and no fold.
            return f"SELECT * FROM ({self._text(model)}\n) WHERE {condition} ORDER BY {order}"

        return Rows(self.catalog.log, sql(), params, again=lambda: (sql(), None))

    def _text(self, model: Model) -> str:
        """The SELECT of the rows that a read model had: out of the kept history where there is one, else folded."""
        if self.occurred is None:
            with suppress(QueryFailed):  # it may be dropped this very moment, as by an erasure
                there = kept(self.catalog, model)
                rows = there and there.rows(self.position)
                if rows:
                    return rows
        models = self.catalog.known
        if isinstance(model, Projection) or not any(source.name.lower() in models for source in model.sources()):
            return model.expanded(models, self._window)
        return model.bound(
            lambda place: (
                self._text(models[place.name.lower()]) if place.name.lower() in models else self._window(place.name)
            )
        )

    def _window(self, table: str) -> str:
        occurred = None if self.occurred is None else naive(self.occurred)
        return self.catalog.log.window(table, to=self.position, occurred=occurred)


def as_of(
    catalog: Catalog,
    *,
    position: int | None = None,
    recorded: Moment | None = None,
    occurred: Moment | None = None,
) -> Past:
    """Return the store as of a moment (see `Lab.as_of`)."""
    head = catalog.log.head
    last = head
    if position is None and recorded is None and occurred is None:
        raise InvalidMoment("say which moment: position=, recorded= or occurred=")
    if position is not None:
        if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position <= head:
            raise InvalidMoment(f"position={position!r} is not a whole number from 0 to the head, {head}")
        last = position
    if recorded is not None:
        by = moment(recorded, "recorded")
        known = catalog.log.position_recorded_by(by)
        if not known and last:
            _check_nothing_happened(catalog, by, f"by {recorded}", "occurred=")
        last = min(last, known)
    return Past(catalog, last, None if occurred is None else moment(occurred, "occurred"))


def diff(
    model: Model | str,
    before: int | Moment | Past,
    after: int | Moment | Past,
    default: Catalog,
    by: str | None = None,
) -> Rows:
    """Return what is different between two moments (see `Lab.diff`).

    Args:
        default: the catalogue of the lab that positions and times belong to.
    """
    if by not in (None, "recorded", "occurred"):
        raise InvalidMoment(f"by={by!r} is not what a time is of: it is 'recorded' or 'occurred'")
    one, other = _past(before, default, by), _past(after, default, by)
    found = default.find(model)
    if isinstance(before, date) and isinstance(after, date) and by != "occurred" and one.position == other.position:
        if not one.position:
            last = max(before, after, key=lambda time: moment(time, "time"))
            _check_nothing_happened(default, moment(last, "time"), f"by {last}", "by='occurred'")
        elif by is None:
            _check_not_hidden(default, found, before, after)
    database, texts = default.log.database, []
    columns = columns_of(database, found.expanded(default.known, default.log.source))
    with ExitStack() as stack:
        for number, past in enumerate((one, other)):
            text = past._text(past.catalog.find(found))
            if past.catalog.log.database is not database:  # another world: its rows come over, as they are typed here
                rows = past.catalog.log.database.arrow(text)
                source = stack.enter_context(database.registered(rows, f"_world_{number}"))
                cast = ", ".join(f"CAST({quote(c)} AS {kind}) AS {quote(c)}" for c, kind in columns.items())
                text = f"SELECT {cast} FROM {source}"
            texts.append(text)
        table = differences(database, found.keys, (texts[0], columns), (texts[1], columns))
    return Differences.of(default.log, table.remove_column(1 + len(found.keys)))


def _past(value: int | Moment | Past, catalog: Catalog, by: str | None) -> Past:
    if isinstance(value, Past):
        return value
    if isinstance(value, (datetime, date)):
        if by == "occurred":
            return as_of(catalog, occurred=value)
        # Before everything: a store without events, to which the other moment is compared.
        return Past(catalog, catalog.log.position_recorded_by(moment(value, "recorded")))
    return as_of(catalog, position=value)


def _check_nothing_happened(catalog: Catalog, by: datetime, when: str, instead: str) -> None:
    """Refuse a time of recording before everything that was recorded when something had happened by then.

    Raises:
        InvalidMoment: says when the first event was recorded, and what to write.
    """
    tables = [quote(f"{name}_events") for name in catalog.log.heads.tables]
    firsts = (f"SELECT min(occurred_at) AS t, min(recorded_at) AS r FROM {table}" for table in tables)
    happened = " UNION ALL ".join(firsts)
    first, recorded = catalog.log.database.execute(f"SELECT min(t), min(r) FROM ({happened})")[0]
    if first is not None and first <= naive(by):
        raise InvalidMoment(
            f"nothing had been recorded {when}: the first event was recorded at {recorded:%Y-%m-%d %H:%M:%S} UTC, as "
            f"an import is recorded when it is made. Say {instead} for what had happened by then"
        )


def _check_not_hidden(catalog: Catalog, model: Model, before: Moment, after: Moment) -> None:
    """Refuse two times between which events happened that were all recorded at another time.

    Raises:
        InvalidMoment: says what to write.
    """
    first, last = sorted(naive(moment(time, "time")) for time in (before, after))
    for table in catalog.tables_of(model):
        events = catalog.log.window(table)
        between = f"SELECT 1 FROM ({events}) WHERE occurred_at > ? AND occurred_at <= ? LIMIT 1"
        if catalog.log.database.execute(between, [first, last]):
            raise InvalidMoment(
                f"nothing was recorded between {before} and {after}, while events of {table} happened then: an import "
                "is recorded when it is made. Say by='occurred' for what happened, or by='recorded' for what was learnt"
            )
