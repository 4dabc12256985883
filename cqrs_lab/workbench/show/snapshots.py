"""Read models as they were: a snapshot at a position or a day, the difference of two, the days of a log.

Owns what a time machine shows, not what is true: it asks `lab.as_of` and `lab.diff`. Writes nothing. A position means
what was known there; a day means what had happened by its end, as it is known now.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from html import escape

import polars as pl

from cqrs_lab.app import Lab
from cqrs_lab.errors import InvalidMoment, UnknownReadModel
from cqrs_lab.read.changes import changes_page
from cqrs_lab.read.past import Past
from cqrs_lab.read.projection import Model
from cqrs_lab.shop.orders import STAGES, OrderPlaced
from cqrs_lab.shop.read_models import order_summary
from cqrs_lab.sql.names import quote
from cqrs_lab.store.rows import aware
from cqrs_lab.store.shown import html_of, said
from cqrs_lab.workbench.show.pages import bar, html, table


@dataclass(frozen=True, eq=False, repr=False)
class Snapshot:
    """A read model as it was at a position or a day; a notebook shows it as tables, with a bar for each status.

    Attributes:
        model: its name.
        position: the last event that counts.
        recorded_at: when that event was recorded, UTC; None at position 0, and of a day.
        counts: columns status and rows (how many have it); None when the read model has no column status.
        latest: its latest rows, by the last of its columns that holds times or days, then by key.
        occurred: the day by whose end the events that count had occurred; None: all up to the position count.
    """

    model: str
    position: int
    recorded_at: datetime | None
    counts: pl.DataFrame | None
    latest: pl.DataFrame
    occurred: date | None = None

    def __repr__(self) -> str:
        return f"<snapshot: {self.model} {where(self.occurred or self.position)}>"

    def _repr_html_(self) -> str:
        when = f", recorded {said(self.recorded_at)} UTC" if self.recorded_at else ""
        if self.occurred:
            when = ", as it is known now"
        parts = [f"<p><b>{escape(self.model)}</b> {where(self.occurred or self.position, ',')}{when}</p>"]
        if self.counts is not None:
            whole = self.counts["rows"].sum()
            rows = [[html(status), f"{count:,}", bar(count / whole)] for status, count in self.counts.iter_rows()]
            parts.append(table([*self.counts.columns, "share"], rows, "Rows by status", ["rows"]))
        return "\n".join([*parts, latest_table(self.latest)] if self.latest.columns else parts)


def latest_table(rows: pl.DataFrame) -> str:
    """Return the latest rows as HTML."""
    return html_of(aware(rows.to_arrow()), title="Latest rows")


def where(at: int | date, thousands: str = "") -> str:
    """Return a position or a day in words."""
    return f"at position {at:{thousands}}" if isinstance(at, int) else f"by all that occurred until {at}"


def past_at(lab: Lab, at: int | date) -> Past:
    """Return the past at a position, or by all that had occurred by the end of a day."""
    return lab.as_of(position=at) if isinstance(at, int) else lab.as_of(occurred=at)


def snapshot(lab: Lab, position: int | date, *, model: Model | str | None = None, rows: int = 5) -> Snapshot:
    """Return a read model as it was at a position, or as it was true at the end of a day.

    Args:
        position: from 0 to `lab.head`; or a day, by whose end the events had occurred.
        model: a read model, or the name of one; None: the shop's order_summary.
        rows: how many of its rows to take along; 0 spares the question for them.

    Raises:
        InvalidMoment: there is no such position.
        UnknownReadModel, ReadModelRefused: there is no such read model.
    """
    past, day = past_at(lab, position), None if isinstance(position, int) else position
    declared = model_of(lab, model)
    name = quote(declared.name)
    counts = None
    if "status" in past.catalog.columns(declared):
        # In the order in which orders go through them; words of another domain after these, by name.
        stage = pl.col("status").replace_strict({s: n for n, s in enumerate(STAGES)}, default=len(STAGES))
        counts = past.sql(f"SELECT status, count(*) AS rows FROM {name} GROUP BY status").pl().sort(stage, "status")
    return Snapshot(
        model=declared.name,
        position=past.position,
        recorded_at=None if day else _recorded_at(past),
        counts=counts,
        latest=latest(lab, position, declared, rows) if rows else pl.DataFrame(),
        occurred=day,
    )


def latest(lab: Lab, position: int | date, model: Model, rows: int) -> pl.DataFrame:
    """Return the latest rows that a read model had at a position or a day (see `Snapshot`)."""
    past, name = past_at(lab, position), quote(model.name)
    schema = past.sql(f"SELECT * FROM {name} LIMIT 0").pl().schema
    times = [column for column, kind in schema.items() if kind.is_temporal()]
    order = [*(f"{quote(column)} DESC NULLS LAST" for column in times[-1:]), *map(quote, model.keys)]
    return past.sql(f"SELECT * FROM {name} ORDER BY {', '.join(order)} LIMIT {int(rows)}").pl()


@dataclass(frozen=True, eq=False, repr=False)
class Difference:
    """What is different in a read model between two positions, or two days; a notebook shows it as a table.

    Attributes:
        model: its name.
        before, after: the positions or days.
        counts: how many rows were added, removed and changed, in this order.
        first: the first rows that differ, as `Lab.diff` gives them.
    """

    model: str
    before: int | date
    after: int | date
    counts: dict[str, int]
    first: pl.DataFrame

    def __repr__(self) -> str:
        return f"<difference: {self.model} {self._between()}>"

    def _between(self, thousands: str = "") -> str:
        if isinstance(self.before, int):
            return f"from position {self.before:{thousands}} to {self.after:{thousands}}"
        return f"from the end of {self.before} to that of {self.after}, by what occurred"

    def _repr_html_(self) -> str:
        told = ", ".join(f"{count:,} {change}" for change, count in self.counts.items())
        name = escape(self.model)
        head = f"<p><b>{name}</b> {self._between(',')}: <b>{told}</b></p>"
        if self.first.is_empty():
            return head
        return f"{head}\n{changes_page(aware(self.first.to_arrow()), sum(self.counts.values()))}"


def difference(
    lab: Lab, before: int | date, after: int | date, *, model: Model | str | None = None, rows: int = 5
) -> Difference:
    """Return what is different in a read model between two positions, or between the ends of two days.

    Args:
        before, after: from 0 to `lab.head`, or two days, by whose end events had occurred; when the first is the later
            one, the answer leads back.
        model: a read model, or the name of one; None: the shop's order_summary.
        rows: how many of the rows that differ to take along.

    Raises:
        InvalidMoment: there is no such position, or one is a position and the other a day.
        UnknownReadModel, ReadModelRefused: there is no such read model.
    """
    declared = model_of(lab, model)
    if isinstance(before, int) != isinstance(after, int):
        raise InvalidMoment(f"{before} and {after} cannot be compared: give two positions, or two days")
    found = lab.diff(declared, past_at(lab, before), past_at(lab, after)).pl()
    counts = dict.fromkeys(("added", "removed", "changed"), 0) | dict(found.group_by("change").len().iter_rows())
    return Difference(model=declared.name, before=before, after=after, counts=counts, first=found.head(rows))


def model_of(lab: Lab, model: Model | str | None) -> Model:
    """Return the read model to show; the shop's own where none is named.

    Raises:
        UnknownReadModel: none is named, and the lab has no order_summary; says which there are.
    """
    if model is not None:
        return lab.model(model)
    catalog = lab.as_of(position=lab.head).catalog
    known = catalog.known
    if "order_summary" in known or any(OrderPlaced in decider.events for decider in lab.domain.deciders):
        return lab.model(known.get("order_summary", order_summary))
    names = ", ".join(other.name for other in {**catalog.models, **known}.values())
    there = f"there are {names}" if names else "there are none yet, so declare one: ReadModel(name, key, sql)"
    raise UnknownReadModel(f"say which read model to show, such as time_machine(lab, model); {there}")


def _recorded_at(past: Past) -> datetime | None:
    rows = past.sql(f"SELECT recorded_at FROM ({_log(past)}) WHERE position = {past.position}").fetchall()
    return rows[0][0].astimezone(UTC) if rows else None


def days(lab: Lab) -> pl.DataFrame:
    """Return the days on which events were recorded, each with the last position by its end.

    Returns:
        Columns day (UTC) and position, in order.
    """
    past = lab.as_of(position=lab.head)
    found = past.sql(
        f"SELECT CAST(recorded_at AS DATE) AS day, max(position) AS position FROM ({_log(past)}) GROUP BY 1"
    )
    # A clock that was set back leaves days whose last event comes before the last one of an earlier day.
    return found.pl().sort("day").with_columns(pl.col("position").cum_max())


def occurred_days(lab: Lab) -> list[date]:
    """Return the days on which events occurred (UTC), in order, with the day before the first of them in front."""
    past = lab.as_of(position=lab.head)
    found = (
        past.sql(f"SELECT DISTINCT CAST(occurred_at AS DATE) AS day FROM ({_log(past)})").pl()["day"].sort().to_list()
    )
    return [found[0] - timedelta(days=1), *found] if found else []


def _log(past: Past) -> str:
    tables = (quote(category.table) for category in past.catalog.log.categories.values())
    return " UNION ALL ".join(f"SELECT position, recorded_at, occurred_at FROM {name}" for name in tables)
