"""Widgets of the workbench: the time machine, a slider over the whole log.

Owns what is shown, not what is true: a pure function asks `lab.as_of`, and a thin shell of ipywidgets shows its
answer. Writes nothing, and starts no thread. Needs the extra `lab` once a widget is made, not before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

import polars as pl

from cqrs_lab.app import Lab
from cqrs_lab.database import quote
from cqrs_lab.errors import CqrsLabError
from cqrs_lab.read.models import ReadModel
from cqrs_lab.read.time_travel import Past
from cqrs_lab.shop.orders import STAGES
from cqrs_lab.shop.read_models import order_summary


@dataclass(frozen=True, eq=False, repr=False)
class Snapshot:
    """A read model as it was at a position; a notebook shows it as tables.

    Attributes:
        model: its name.
        position: the last event that counts.
        recorded_at: when that event was recorded, UTC; None at position 0.
        counts: columns status and rows (how many have it); None when the read model has no column status.
        latest: its latest rows, by the last of its columns that holds times or days, then by key.
    """

    model: str
    position: int
    recorded_at: datetime | None
    counts: pl.DataFrame | None
    latest: pl.DataFrame

    def __repr__(self) -> str:
        return f"<snapshot: {self.model} at position {self.position}>"

    def _repr_html_(self) -> str:
        when = f", recorded {_text(self.recorded_at)} UTC" if self.recorded_at else ""
        parts = [f"<p><b>{escape(self.model)}</b> at position {self.position:,}{when}</p>"]
        if self.counts is not None:
            parts.append(_table(self.counts, "rows by status"))
        return "\n".join([*parts, _table(self.latest, "latest rows")])


def snapshot(lab: Lab, position: int, *, model: ReadModel | str = order_summary, rows: int = 5) -> Snapshot:
    """Return a read model as it was at a position.

    Args:
        position: from 0 to `lab.head`.
        model: a read model, or the name of one.
        rows: how many of its rows to take along.

    Raises:
        InvalidMoment: there is no such position.
        UnknownReadModel, ReadModelRefused: there is no such read model.
    """
    past = lab.as_of(position=position)
    declared = past.servings.find(model)
    name = quote(declared.name)
    schema = past.sql(f"SELECT * FROM {name} LIMIT 0").pl().schema
    times = [column for column, kind in schema.items() if kind.is_temporal()]
    order = [*(f"{quote(column)} DESC NULLS LAST" for column in times[-1:]), *map(quote, declared.keys)]
    counts = None
    if "status" in schema:
        # In the order in which orders go through them; words of another domain after these, by name.
        stage = pl.col("status").replace_strict({s: n for n, s in enumerate(STAGES)}, default=len(STAGES))
        counts = past.sql(f"SELECT status, count(*) AS rows FROM {name} GROUP BY status").pl().sort(stage, "status")
    return Snapshot(
        model=declared.name,
        position=position,
        recorded_at=_recorded_at(lab, past),
        counts=counts,
        latest=past.sql(f"SELECT * FROM {name} ORDER BY {', '.join(order)} LIMIT {int(rows)}").pl(),
    )


class TimeMachine:
    """A read model at any position, chosen by a slider or typed: what `time_machine` returns.

    Attributes:
        slider, number: the position, the same in both. A slider has no name that a screen reader could say; the
            number has one.
        page: the snapshot at that position, as HTML.
        box: all of it, to be put into other widgets.
    """

    def __init__(self, lab: Lab, model: ReadModel | str, rows: int) -> None:
        try:
            import ipywidgets  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise CqrsLabError(
                "the time machine needs ipywidgets; install it with: pip install 'cqrs-lab[lab]'"
            ) from error
        self._lab, self._model, self._rows = lab, model, rows
        head = lab.head
        first = snapshot(lab, head, model=model, rows=rows)
        self._name = first.model
        # One question for each place where the slider comes to rest, not for those that it passes.
        self.slider = ipywidgets.IntSlider(
            value=head, min=0, max=head, description="position", continuous_update=False, readout=False
        )
        self.number = ipywidgets.BoundedIntText(
            value=head, min=0, max=head, description="position, typed", style={"description_width": "initial"}
        )
        self.page = ipywidgets.HTML(value=first._repr_html_())
        self.box = ipywidgets.VBox([ipywidgets.HBox([self.slider, self.number]), self.page])
        ipywidgets.link((self.slider, "value"), (self.number, "value"))
        self.slider.observe(self._moved, "value")

    def __repr__(self) -> str:
        return f"<time machine: {self._name} at position {self.slider.value} of {self.slider.max}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widgets and, for people who only read the notebook, the page alone."""
        return {**self.box._repr_mimebundle_(**kwargs), "text/html": self.page.value, "text/plain": repr(self)}

    def _moved(self, change: Any) -> None:
        try:
            shown = snapshot(self._lab, change["new"], model=self._model, rows=self._rows)
            self.page.value = shown._repr_html_()
            self.number.max = self.slider.max = self._lab.head  # also reach what was appended since
        except CqrsLabError as error:
            # Raised, it would go to a log that nobody has open.
            self.page.value = f'<p role="alert">{escape(str(error))}</p>'


def time_machine(lab: Lab, model: ReadModel | str = order_summary, *, rows: int = 5) -> TimeMachine:
    """Return a slider over the whole log that shows a read model as it was at each position; it starts at the head.

    Args:
        model: a read model, or the name of one; when it has a column status, its rows are counted by it.
        rows: how many rows to show.

    Raises:
        CqrsLabError: ipywidgets is not installed.
        UnknownReadModel, ReadModelRefused: there is no such read model.
    """
    return TimeMachine(lab, model, rows)


def _recorded_at(lab: Lab, past: Past) -> datetime | None:
    tables = [quote(decider.log_category.table) for decider in lab.domain.deciders]
    question = " UNION ALL ".join(f"SELECT recorded_at FROM {t} WHERE position = {past.position}" for t in tables)
    rows = past.sql(question).fetchall()
    return rows[0][0].astimezone(UTC) if rows else None


def _table(frame: pl.DataFrame, caption: str) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in frame.columns)
    rows = [
        "<tr>" + "".join(f"<td>{escape(_text(value))}</td>" for value in row) + "</tr>" for row in frame.iter_rows()
    ]
    lines = "\n".join([f"<thead><tr>{head}</tr></thead>", "<tbody>", *rows, "</tbody>"])
    style = "text-align: left; border-collapse: separate; border-spacing: 1em 0.2em"
    return f'<table style="{style}">\n<caption style="text-align: left">{escape(caption)}</caption>\n{lines}\n</table>'


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return "" if value is None else str(value)
