"""Figures of the workbench: Altair charts, shown as pictures.

Owns their looks. A picture works where a script does not: offline, on a code host's page, in an exported HTML page;
vl-convert draws it without a browser and without the network. Needs the extra `lab`; nothing else imports this module.
Colours are Okabe and Ito's, which people who confuse red and green can tell apart; shapes and labels say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from math import ceil, floor, log10
from typing import Any

import altair as alt
import polars as pl

from cqrs_lab.errors import InvalidTable
from cqrs_lab.shop.orders import STAGES

SCALE = 2  # pixels for each point, so that the picture is sharp on a dense screen
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SERVINGS = {"view": ORANGE, "materialized": BLUE, "projection": GREEN}
QUESTIONS = {"point": "one row by key", "list": "rows by a value", "aggregate": "a GROUP BY over all"}


@dataclass(frozen=True)
class Picture:
    """A chart as a picture with a text for those who do not see it; a notebook shows it.

    Attributes:
        png: the picture.
        alt: what it shows, the same at every run.
        width: in points; the picture has SCALE times as many pixels.
    """

    png: bytes = field(repr=False)
    alt: str
    width: int

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return (
            {"image/png": self.png, "text/plain": f"<picture: {self.alt}>"},
            {"image/png": {"alt": self.alt, "width": self.width}},
        )

    def __repr__(self) -> str:
        return f"<picture: {self.alt}>"


def show(chart: alt.TopLevelMixin, *, alt_text: str | None = None) -> Picture:
    """Return a chart as a picture, which a notebook shows as a cell's value.

    Args:
        chart: any Altair chart.
        alt_text: what it shows, in a sentence; the chart's title when None.
    """
    said = chart.to_dict()
    title = said.get("title", "a chart")
    text = alt_text or str(title["text"] if isinstance(title, dict) else title)
    file = BytesIO()
    chart.save(file, format="png", scale_factor=SCALE)
    png = file.getvalue()
    # Bytes 16 to 20 of a PNG are its width.
    return Picture(png, text, int.from_bytes(png[16:20], "big") // SCALE)


def latency_chart(frame: pl.DataFrame) -> alt.TopLevelMixin:
    """Return a chart of latencies: for each question and serving the median as a point, a line from it to the p95.

    Args:
        frame: as `compare_latency` returns it: served_as, question, events, p50_ms, p95_ms, staleness_events.

    Raises:
        InvalidTable: a column is missing, or there are no rows.
    """
    behind = pl.col("staleness_events")
    shown = _need(frame, "served_as", "question", "events", "p50_ms", "p95_ms", "staleness_events").with_columns(
        pl.col("question").replace(QUESTIONS),
        serving=pl.when(behind > 0)
        .then(pl.format("{} ({} events behind)", "served_as", behind))
        .otherwise("served_as"),
        label=pl.col("p50_ms").map_elements(_readable, return_dtype=pl.String),
    )
    servings, questions = (shown[name].unique(maintain_order=True).to_list() for name in ("serving", "question"))
    low, high = floor(log10(min(shown["p50_ms"]))), ceil(log10(max(shown["p95_ms"])))
    powers = [10.0**power for power in range(low, max(high, low + 1) + 1)]
    millis = alt.X(
        "p50_ms:Q",
        title="milliseconds; each line is ten times the one before",
        scale=alt.Scale(type="log", domain=[powers[0], powers[-1]]),
        axis=alt.Axis(values=powers),
    )
    base = alt.Chart(shown).encode(
        x=millis,
        y=alt.Y("serving:N", title=None, sort=servings, axis=alt.Axis(labelLimit=0)),
        color=alt.Color("served_as:N", legend=None, scale=alt.Scale(domain=list(SERVINGS), range=[*SERVINGS.values()])),
    )
    whisker = base.mark_rule(strokeWidth=3, opacity=0.5).encode(x2="p95_ms:Q")
    shape = alt.Shape("served_as:N", legend=None, scale=alt.Scale(domain=list(SERVINGS)))
    point = base.mark_point(filled=True, size=110, opacity=1).encode(shape=shape)
    label = base.mark_text(dy=-14, fontSize=12).encode(text="label:N", color=alt.value("#222"))
    header = alt.Header(
        labelAngle=0, labelOrient="top", labelAnchor="start", labelFontSize=14, labelFontWeight="bold", labelPadding=0
    )
    chart = alt.layer(whisker, point, label).properties(width=460, height=125)
    return _styled(
        chart.facet(row=alt.Row("question:N", title=None, sort=questions, header=header), spacing=14),
        "How long an answer takes",
        f"{max(shown['events']):,} events; the point is the median, the line ends at the 95th percentile",
    )


def orders_per_day_chart(frame: pl.DataFrame) -> alt.TopLevelMixin:
    """Return a chart of orders over days.

    Args:
        frame: day (a date) and orders, as the read model daily_orders has them.

    Raises:
        InvalidTable: a column is missing, or there are no rows.
    """
    base = alt.Chart(_need(frame, "day", "orders")).encode(
        x=alt.X("day:T", title=None), y=alt.Y("orders:Q", title="orders placed")
    )
    chart = alt.layer(base.mark_area(color=BLUE, opacity=0.15), base.mark_line(color=BLUE, strokeWidth=2))
    return _styled(chart.properties(width=560, height=220), "Orders per day")


def status_chart(frame: pl.DataFrame, *, count: str = "orders") -> alt.TopLevelMixin:
    """Return a chart of how many orders, or rows of any other kind, are in each status.

    Args:
        frame: a column status, and one with the counts.
        count: name of the latter.

    Raises:
        InvalidTable: a column is missing, or there are no rows.
    """
    shown = _need(frame, "status", count)
    there = shown["status"].to_list()
    order = [*(stage for stage in STAGES if stage in there), *(status for status in there if status not in STAGES)]
    base = alt.Chart(shown).encode(x=alt.X(f"{count}:Q", title=count), y=alt.Y("status:N", title=None, sort=order))
    label = base.mark_text(align="left", dx=5, fontSize=12).encode(text=alt.Text(f"{count}:Q", format=","))
    chart = alt.layer(base.mark_bar(color=BLUE), label).properties(width=480, height=alt.Step(30))
    return _styled(chart, f"{count.capitalize()} by status")


def lag_chart(frame: pl.DataFrame) -> alt.TopLevelMixin:
    """Return a chart of how late appends became visible, in their order, with lines at the median and the p95.

    Args:
        frame: of one serving, as `lab.lag_history()` has it: position, seconds.

    Raises:
        InvalidTable: a column is missing, or there are no rows.
    """
    shown = _need(frame, "position", "seconds").sort("position")
    shown = shown.select(append=pl.int_range(1, pl.len() + 1), ms=pl.col("seconds") * 1000)
    said = {name: shown["ms"].quantile(at) or 0.0 for name, at in (("half of them", 0.5), ("95 of 100", 0.95))}
    lines = pl.DataFrame({"ms": said.values(), "said": [f"{name}: {_readable(ms)}" for name, ms in said.items()]})
    late = alt.Y("ms:Q", title="milliseconds until it could be seen")
    points = alt.Chart(shown).mark_point(filled=True, color=BLUE, size=22, opacity=0.6)
    rules = alt.Chart(lines).mark_rule(color=ORANGE, strokeDash=[6, 4], strokeWidth=2).encode(y=late)
    # Beside the points, where nothing can hide behind it.
    label = alt.Chart(lines).mark_text(align="left", dx=6, fontSize=12).encode(y=late, x=alt.value(560), text="said:N")
    chart = alt.layer(points.encode(x=alt.X("append:Q", title="appends, in their order"), y=late), rules, label)
    return _styled(chart.properties(width=560, height=220), "How late an append could be seen")


def _need(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    for name in columns:
        if name not in frame.columns:
            raise InvalidTable(
                f"the chart needs {', '.join(columns)}; the frame has {', '.join(frame.columns)}", column=name
            )
    if frame.is_empty():
        raise InvalidTable("the frame has no rows, so there is nothing to draw")
    return frame.select(columns)


def _readable(millis: float) -> str:
    return f"{millis / 1000:.3g} s" if millis >= 1000 else f"{millis:.2g} ms" if millis < 100 else f"{millis:.0f} ms"


def _styled(chart: Any, title: str, subtitle: str = "") -> alt.TopLevelMixin:
    # configure() comes first: it starts the configuration anew.
    styled: alt.TopLevelMixin = (
        chart.properties(title=alt.Title(title, subtitle=subtitle, anchor="start", fontSize=16, subtitleFontSize=13))
        .configure(background="white", padding=12)
        .configure_axis(labelFontSize=13, titleFontSize=13, titleFontWeight="normal", gridColor="#e5e5e5")
        .configure_view(stroke=None)
    )
    return styled
