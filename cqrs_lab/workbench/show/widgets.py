"""Widgets of the workbench: the time machine, a slider over the whole log.

Owns what is shown, not what is true: pure functions ask `lab.as_of` and `lab.diff`, and a thin shell of ipywidgets
shows their answers. Writes nothing, and starts no thread. Needs the extra `lab` once a widget is made, not before.
Its pages use no more HTML than JupyterLab leaves in the output of a notebook that it does not trust.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

import polars as pl

from cqrs_lab.app import Lab
from cqrs_lab.errors import CqrsLabError, UnknownReadModel
from cqrs_lab.read.past import Past
from cqrs_lab.read.projection import Model
from cqrs_lab.shop.orders import STAGES, OrderPlaced
from cqrs_lab.shop.read_models import order_summary
from cqrs_lab.sql.names import quote


@dataclass(frozen=True, eq=False, repr=False)
class Snapshot:
    """A read model as it was at a position; a notebook shows it as tables, with a bar for each status.

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
            whole = self.counts["rows"].sum()
            rows = [[_html(status), f"{count:,}", _bar(count / whole)] for status, count in self.counts.iter_rows()]
            parts.append(_table([*self.counts.columns, "share"], rows, "rows by status"))
        latest = ([_html(value) for value in row] for row in self.latest.iter_rows())
        return "\n".join([*parts, _table(self.latest.columns, latest, "latest rows")])


def snapshot(lab: Lab, position: int, *, model: Model | str | None = None, rows: int = 5) -> Snapshot:
    """Return a read model as it was at a position.

    Args:
        position: from 0 to `lab.head`.
        model: a read model, or the name of one; None: the shop's order_summary.
        rows: how many of its rows to take along.

    Raises:
        InvalidMoment: there is no such position.
        UnknownReadModel, ReadModelRefused: there is no such read model.
    """
    past = lab.as_of(position=position)
    declared = _model(lab, model)
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


@dataclass(frozen=True, eq=False, repr=False)
class Difference:
    """What is different in a read model between two positions; a notebook shows it as a table.

    Attributes:
        model: its name.
        before, after: the positions.
        counts: how many rows were added, removed and changed, in this order.
        first: the first rows that differ, as `Lab.diff` gives them.
    """

    model: str
    before: int
    after: int
    counts: dict[str, int]
    first: pl.DataFrame

    def __repr__(self) -> str:
        return f"<difference: {self.model} from position {self.before} to {self.after}>"

    def _repr_html_(self) -> str:
        said = ", ".join(f"{count:,} {change}" for change, count in self.counts.items())
        name = escape(self.model)
        head = f"<p><b>{name}</b> from position {self.before:,} to {self.after:,}: <b>{said}</b></p>"
        # A row tells what changed; one that came or went tells all that it has.
        columns = self.first.columns[:-2]
        rows = [[*map(_html, row[:-2]), _what(row[-2], row[-1], columns)] for row in self.first.iter_rows()]
        return "\n".join([head, _table([*columns, "what"], rows, "first rows that differ")]) if rows else head


def difference(lab: Lab, before: int, after: int, *, model: Model | str | None = None, rows: int = 5) -> Difference:
    """Return what is different in a read model between two positions.

    Args:
        before, after: from 0 to `lab.head`; when the first is the later one, the answer leads back.
        model: a read model, or the name of one; None: the shop's order_summary.
        rows: how many of the rows that differ to take along.

    Raises:
        InvalidMoment: there is no such position.
        UnknownReadModel, ReadModelRefused: there is no such read model.
    """
    declared = _model(lab, model)
    found = lab.diff(declared, before, after).pl()
    counts = dict.fromkeys(("added", "removed", "changed"), 0) | dict(found.group_by("change").len().iter_rows())
    return Difference(model=declared.name, before=before, after=after, counts=counts, first=found.head(rows))


class TimeMachine:
    """A read model at any position, and what differs from any other; what `time_machine` returns.

    Attributes:
        slider, number: the position, the same in both. A slider has no name that a screen reader could say; the
            number has one.
        compare: whether to compare with a second position.
        other_slider, other_number: that position.
        page: the snapshot and the difference, as HTML.
        box: all of it, to be put into other widgets.
    """

    def __init__(self, lab: Lab, model: Model | str | None, rows: int, compare: int | None) -> None:
        try:
            import ipywidgets  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise CqrsLabError(
                "the time machine needs ipywidgets; install it with: pip install 'cqrs-lab[lab]'"
            ) from error
        head = lab.head
        self._lab, self._model, self._rows = lab, _model(lab, model), rows
        page = self._seen(head, compare)

        def handle(name: str, spoken: str, value: int, disabled: bool) -> tuple[Any, Any]:
            # One question for each place where the slider comes to rest, not for those that it passes.
            given = {"value": value, "min": 0, "max": head, "disabled": disabled}
            slider = ipywidgets.IntSlider(description=name, continuous_update=False, readout=False, **given)
            style = {"description_width": "initial"}
            number = ipywidgets.BoundedIntText(description=spoken, style=style, **given)
            ipywidgets.link((slider, "value"), (number, "value"))
            slider.observe(self._moved, "value")
            return slider, number

        is_off = compare is None
        self.slider, self.number = handle("position", "position, typed", head, False)
        self.other_slider, self.other_number = handle(
            "from", "from position, typed", head if compare is None else compare, is_off
        )
        self.compare = ipywidgets.Checkbox(value=not is_off, description="compare two positions")
        self.compare.observe(self._moved, "value")
        self.page = ipywidgets.HTML(value=page)
        one = ipywidgets.HBox([self.slider, self.number])
        other = ipywidgets.HBox([self.other_slider, self.other_number])
        self.box = ipywidgets.VBox([one, self.compare, other, self.page])

    def __repr__(self) -> str:
        since = f", compared with {self.other_slider.value}" if self.compare.value else ""
        return f"<time machine: {self._model.name} at position {self.slider.value} of {self.slider.max}{since}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widgets and, for people who only read the notebook, the page alone."""
        return {**self.box._repr_mimebundle_(**kwargs), "text/html": self.page.value, "text/plain": repr(self)}

    def _seen(self, position: int, other: int | None) -> str:
        shown: list[Snapshot | Difference] = [snapshot(self._lab, position, model=self._model, rows=self._rows)]
        if other is not None:
            shown.append(difference(self._lab, other, position, model=self._model, rows=self._rows))
        return "\n".join(part._repr_html_() for part in shown)

    def _moved(self, _: Any) -> None:
        two = self.compare.value
        self.other_slider.disabled = self.other_number.disabled = not two
        try:
            self.page.value = self._seen(self.slider.value, self.other_slider.value if two else None)
            for handle in (self.slider, self.number, self.other_slider, self.other_number):
                handle.max = self._lab.head  # also reach what was appended since
        except CqrsLabError as error:
            # Raised, it would go to a log that nobody has open.
            self.page.value = f'<p role="alert">{escape(str(error))}</p>'


def time_machine(
    lab: Lab, model: Model | str | None = None, *, rows: int = 5, compare: int | None = None
) -> TimeMachine:
    """Return a slider over the whole log that shows a read model as it was at each position; it starts at the head.

    Args:
        model: a read model, or the name of one; None: the shop's order_summary. When it has a
            column status, its rows are counted by it.
        rows: how many rows to show.
        compare: the position that a second slider starts at, to show what changed from there; None: it is off.

    Raises:
        CqrsLabError: ipywidgets is not installed.
        InvalidMoment: there is no such position.
        UnknownReadModel, ReadModelRefused: there is no such read model.
    """
    return TimeMachine(lab, model, rows, compare)


def _model(lab: Lab, model: Model | str | None) -> Model:
    """The read model to show; the shop's own where none is named.

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


def _recorded_at(lab: Lab, past: Past) -> datetime | None:
    tables = [quote(decider.log_category.table) for decider in lab.domain.deciders]
    question = " UNION ALL ".join(f"SELECT recorded_at FROM {t} WHERE position = {past.position}" for t in tables)
    rows = past.sql(question).fetchall()
    return rows[0][0].astimezone(UTC) if rows else None


def _what(before: dict[str, Any] | None, after: dict[str, Any] | None, but: Sequence[str]) -> str:
    one, other = before or {}, after or {}
    names = [name for name in (other or one) if name not in but and one.get(name) != other.get(name)]
    sides = [side for side in (before, after) if side]
    told = (" → ".join("NULL" if side[name] is None else _html(side[name]) for side in sides) for name in names)
    return "; ".join(f"{escape(name)}: {text}" for name, text in zip(names, told, strict=True))


def _bar(share: float) -> str:
    style = f"display: inline-block; width: {share * 16:.2f}em; height: 0.8em; background-color: #0072B2"
    return f'<span style="{style}"></span> {share:.1%}'


def _table(columns: Iterable[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """Return a table; its cells are HTML."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    lines = "\n".join([f"<thead><tr>{head}</tr></thead>", "<tbody>", *body, "</tbody>"])
    style = "text-align: left; border-collapse: separate; border-spacing: 1em 0.2em"
    return f'<table style="{style}">\n<caption style="text-align: left">{escape(caption)}</caption>\n{lines}\n</table>'


def _html(value: object) -> str:
    return escape(_text(value))


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return "" if value is None else str(value)
