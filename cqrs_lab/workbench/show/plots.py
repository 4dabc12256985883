"""Figures of the workbench: Altair charts, shown as pictures.

Owns their looks. A picture works where a script does not: offline, on a code host's page, in an exported HTML page;
vl-convert draws it without a browser and without the network. Needs the extra `lab`; nothing else imports this module.
Colours are Okabe and Ito's, which people who confuse red and green can tell apart; shapes and labels say the same.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field
from html import escape
from io import BytesIO
from math import ceil, floor, log10
from typing import Any

import altair as alt
import polars as pl

from cqrs_lab.errors import InvalidTable
from cqrs_lab.shop.orders import STAGES
from cqrs_lab.workbench.measure.crossovers import Crossover
from cqrs_lab.workbench.show import told

SCALE = 2  # pixels for each point, so that the picture is sharp on a dense screen
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SERVINGS = {"view": ORANGE, "materialized": BLUE, "projection": GREEN}
SERVINGS |= {"cached projection": "#CC79A7", "row by row": "#E69F00"}
SHAPES = dict(zip(SERVINGS, ("circle", "square", "triangle-up", "cross", "diamond"), strict=True))
QUESTIONS = {"point": "one row by key", "list": "rows by a value", "aggregate": "a GROUP BY over all"}
QUESTIONS |= {"top ten": "the ten largest", "as of": "one row as it was"}


DAYS = alt.Axis(format="%-d %b", labelOverlap="greedy", labelSeparation=12, tickCount=6)
"""Days that do not run into each other."""
_GROWN = {
    "events": ("events in the log", "as the history grows"),
    "reads_per_refresh": ("reads per refresh", "as more reads share a refresh"),
    "batch_per_history": ("size of the batch, as a share of the history", "as the batch grows"),
}
"""What grows, by its column: the title of the axis, and the end of the chart's title."""


@dataclass(frozen=True)
class Picture:
    """A chart as a picture with a text for those who do not see it; a notebook shows it.

    Attributes:
        png: the picture.
        alt: what it shows: its title, axes, series and main values.
        width: in points; the picture has SCALE times as many pixels.
    """

    png: bytes = field(repr=False)
    alt: str
    width: int

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        # Of image/png a screen reader hears nothing, since its alt text stays in the metadata; both would be twice the
        # bytes.
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png).decode()
        return f'<img alt="{escape(self.alt)}" width="{self.width}" src="data:image/png;base64,{data}">'

    def __repr__(self) -> str:
        return f"<picture: {self.alt}>"


def show(chart: alt.TopLevelMixin, *, alt_text: str | None = None) -> Picture:
    """Return a chart as a picture, which a notebook shows as a cell's value.

    Args:
        chart: any Altair chart.
        alt_text: what it shows, in a sentence; when None, the chart's title and description, which the charts of this
            module have: axes, series and main values.
    """
    said = chart.to_dict()
    title = said.get("title", "a chart")
    heading = str(title["text"] if isinstance(title, dict) else title)
    text = alt_text or ". ".join([heading, *([said["description"]] if "description" in said else [])])
    file = BytesIO()
    chart.save(file, format="png", scale_factor=SCALE)
    png = _packed(file.getvalue())
    # Bytes 16 to 20 of a PNG are its width.
    return Picture(png, text, int.from_bytes(png[16:20], "big") // SCALE)


def _packed(png: bytes) -> bytes:
    """Return the same picture in a quarter of the bytes: vl-convert hardly packs them, and notebooks keep them."""
    pixels, others, start = b"", [], 8
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        if png[start + 4 : start + 8] == b"IDAT":
            pixels += png[start + 8 : end - 4]
        else:
            others.append(png[start:end])
        start = end
    body = b"IDAT" + zlib.compress(zlib.decompress(pixels), 9)
    packed = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return png[:8] + b"".join([*others[:-1], packed, others[-1]])


def latency_chart(frame: pl.DataFrame) -> alt.TopLevelMixin:
    """Return a chart of latencies: for each question and serving the median as a point, a line from it to the p95.

    Args:
        frame: as `compare_latency` returns it: served_as, question, events, p50_ms, p95_ms, staleness_events.

    Raises:
        InvalidTable: a column is missing, or there are no rows.
    """
    behind = pl.col("staleness_events")
    shown = need(frame, "served_as", "question", "events", "p50_ms", "p95_ms", "staleness_events").with_columns(
        pl.col("question").replace(QUESTIONS),
        serving=pl.when(behind > 0)
        .then(pl.format("{} ({} events behind)", "served_as", behind))
        .otherwise("served_as"),
        label=pl.col("p50_ms").map_elements(_readable, return_dtype=pl.String),
    )
    servings, questions = (shown[name].unique(maintain_order=True).to_list() for name in ("serving", "question"))
    low, high = min(shown["p50_ms"]), max(shown["p95_ms"])
    millis = alt.X("p50_ms:Q", title="milliseconds, on a logarithmic scale", **log_scale(low, high))
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
    chart = alt.layer(whisker, point, label).properties(width=460, height=alt.Step(42))
    return styled(
        chart.facet(row=alt.Row("question:N", title=None, sort=questions, header=header), spacing=14).resolve_scale(
            y="independent"
        ),
        "How long an answer takes",
        f"{max(shown['events']):,} events; the point is the median, the line ends at the 95th percentile",
        told.latencies(shown),
    )


def orders_per_day_chart(frame: pl.DataFrame, *, day: str = "day", count: str = "orders") -> alt.TopLevelMixin:
    """Return a chart of orders, or of anything else that is counted, over days.

    Args:
        frame: a column of dates, and one with the counts, as the read model daily_orders has them.
        day, count: their names.

    Raises:
        InvalidTable: a column is missing, or there are no rows.
    """
    shown = need(frame, day, count).select(day=day, orders=count)
    base = alt.Chart(shown).encode(
        x=alt.X("day:T", title=None, axis=DAYS),
        y=alt.Y("orders:Q", title="orders placed" if count == "orders" else count),
    )
    chart = alt.layer(base.mark_area(color=BLUE, opacity=0.15), base.mark_line(color=BLUE, strokeWidth=2))
    said = told.over_days(shown, count.capitalize())
    return styled(chart.properties(width=560, height=220), f"{count.capitalize()} per day", described=said)


def status_chart(frame: pl.DataFrame, *, status: str = "status", count: str = "orders") -> alt.TopLevelMixin:
    """Return a chart of how many orders, or rows of any other kind, are in each status.

    Args:
        frame: a column with the statuses, and one with the counts.
        status, count: their names.

    Raises:
        InvalidTable: a column is missing, or there are no rows.
    """
    shown = need(frame, status, count).select(status=pl.col(status).cast(pl.String), orders=count)
    there = shown["status"].to_list()
    order = [*(stage for stage in STAGES if stage in there), *(other for other in there if other not in STAGES)]
    base = alt.Chart(shown).encode(x=alt.X("orders:Q", title=count), y=alt.Y("status:N", title=None, sort=order))
    label = base.mark_text(align="left", dx=5, fontSize=12).encode(text=alt.Text("orders:Q", format=","))
    chart = alt.layer(base.mark_bar(color=BLUE), label).properties(width=480, height=alt.Step(30))
    ranked = sorted(shown.rows(), key=lambda row: order.index(row[0]))
    said = f"{count.capitalize()} by {status}: {told.listed(*zip(*ranked, strict=True))}."
    return styled(chart, f"{count.capitalize()} by {status}", described=said)


def lag_chart(frame: pl.DataFrame) -> alt.TopLevelMixin:
    """Return a chart of how late appends became visible, in their order, with lines at the median and the p95.

    Args:
        frame: of one serving, as `lab.lag_history()` has it: position, seconds.

    Raises:
        InvalidTable: a column is missing, or there are no rows.
    """
    shown = need(frame, "position", "seconds").sort("position")
    shown = shown.select(append=pl.int_range(1, pl.len() + 1), ms=pl.col("seconds") * 1000)
    said = {name: shown["ms"].quantile(at) or 0.0 for name, at in (("half of them", 0.5), ("95 of 100", 0.95))}
    lines = pl.DataFrame({"ms": said.values(), "said": [f"{name}: {_readable(ms)}" for name, ms in said.items()]})
    late = alt.Y("ms:Q", title="milliseconds until it could be seen")
    points = alt.Chart(shown).mark_point(filled=True, color=BLUE, size=22, opacity=0.6)
    rules = alt.Chart(lines).mark_rule(color=ORANGE, strokeDash=[6, 4], strokeWidth=2).encode(y=late)
    # Beside the points, where nothing can hide behind it.
    label = alt.Chart(lines).mark_text(align="left", dx=6, fontSize=12).encode(y=late, x=alt.value(560), text="said:N")
    chart = alt.layer(points.encode(x=alt.X("append:Q", title="appends, in their order"), y=late), rules, label)
    title = "How late an append could be seen"
    return styled(chart.properties(width=560, height=220), title, described=told.late(shown["ms"]))


def distribution_chart(frame: pl.DataFrame) -> alt.TopLevelMixin:
    """Return a chart of every single latency of a live run, with a line at the median and one at the p99.

    Args:
        frame: as `drive` returns it: question, served_as, ms. Points that would fall onto each other are drawn once.

    Raises:
        InvalidTable: a column is missing, or there are no rows.
    """
    row = pl.format("{} ({})", "question", "served_as").alias("row")
    ms = pl.col("ms").clip(lower_bound=0.001).log10()
    shown = need(frame, "question", "served_as", "ms").select(
        row, ((ms * 200).round() / 200).alias("log"), lane=pl.int_range(pl.len()).hash(seed=1) % 25
    )
    rows = shown["row"].unique(maintain_order=True).to_list()
    lines = shown.group_by("row").agg(pl.quantile("log", p).alias(name) for name, p in (("half", 0.5), ("most", 0.99)))
    low, high = (10.0 ** float(end(shown["log"])) for end in (min, max))
    x = alt.X("ms:Q", title="milliseconds from the intended moment, on a logarithmic scale", **log_scale(low, high))
    y = alt.Y("lane:Q", axis=None, scale=alt.Scale(domain=[-3, 27]))
    marks = (
        shown.unique(maintain_order=True)
        .join(lines, on="row")
        .select("row", "lane", ms=10.0 ** pl.col("log"), half=10.0 ** pl.col("half"), most=10.0 ** pl.col("most"))
    )
    base = alt.Chart(alt.InlineData(values=marks.to_dicts()))
    dots = base.mark_circle(size=9, opacity=0.35, color=BLUE).encode(x=x, y=y)
    half = base.mark_rule(color="black", strokeWidth=2).encode(x="min(half):Q")
    most = base.mark_rule(color=ORANGE, strokeWidth=2, strokeDash=[6, 4]).encode(x="min(most):Q")
    chart = alt.layer(dots, half, most).properties(width=560, height=70)
    header = alt.Header(labelAngle=0, labelOrient="top", labelAnchor="start", labelFontSize=13, labelPadding=0)
    said = f"all {len(frame):,} calls; the full line is the median, the broken one the 99th percentile"
    facets = chart.facet(row=alt.Row("row:N", title=None, sort=rows, header=header), spacing=8)
    return styled(facets, "Every single latency", said, told.distributions(frame.select(row, "ms")))


def staleness_chart(frame: pl.DataFrame) -> alt.TopLevelMixin:
    """Return a chart of how many events each read of a live run did not see, over time, and the most in each second.

    Args:
        frame: as `drive` returns it: intended_at, staleness_events. Reads that fall onto one point are drawn once.

    Raises:
        InvalidTable: a column is missing, or there are no reads.
    """
    reads = need(need(frame, "intended_at", "staleness_events").drop_nulls(), "intended_at", "staleness_events")
    width = max(reads["intended_at"]) / 560 or 1.0
    points = reads.with_columns((pl.col("intended_at") / width).round() * width).unique(maintain_order=True)
    worst = reads.group_by(pl.col("intended_at").floor()).agg(pl.max("staleness_events")).sort("intended_at")
    worst = pl.concat([worst, worst.tail(1).with_columns(pl.col("intended_at") + 1)])  # the end of the last second
    x = alt.X("intended_at:Q", title="seconds")
    most = int(max(reads["staleness_events"]))
    ticks = list(range(0, most + 1, ceil(most / 6) or 1))  # half an event is none
    y = alt.Y("staleness_events:Q", title="events not seen yet", axis=alt.Axis(values=ticks))
    dots = alt.Chart(alt.InlineData(values=points.to_dicts())).mark_circle(size=9, opacity=0.4, color=BLUE)
    line = alt.Chart(alt.InlineData(values=worst.to_dicts())).mark_line(color=ORANGE, interpolate="step-after")
    chart = alt.layer(dots.encode(x=x, y=y), line.encode(x=x, y=y)).properties(width=560, height=220)
    said = "every read a point; the line is the oldest answer of each second"
    words = told.staleness(worst[:-1], reads["staleness_events"])
    return styled(chart, "How old the answers were", said, words)


def crossover_chart(found: Crossover) -> alt.TopLevelMixin:
    """Return a chart of what each serving costs as something grows, with a line where one begins to win."""
    what, title = _GROWN.get(found.over, (found.over.replace("_", " "), f"as {found.over.replace('_', ' ')} grow"))
    grown, costs = found.frame[found.over], found.frame["ms"]
    x = alt.X(f"{found.over}:Q", title=what, **log_scale(min(grown), max(grown), room=1.0))
    there = [way for way in SERVINGS if way in set(found.frame["served_as"])]
    scale = alt.Scale(domain=there, range=[SERVINGS[way] for way in there])
    color = alt.Color("served_as:N", title=None, scale=scale)
    lines = alt.Chart(found.frame).encode(
        x=x, y=alt.Y("ms:Q", title="milliseconds", **log_scale(min(costs), max(costs)))
    )
    shapes = alt.Scale(domain=there, range=[SHAPES[way] for way in there])
    lines = lines.encode(color=color, shape=alt.Shape("served_as:N", title=None, scale=shapes))
    points = lines.mark_point(filled=True, size=60) if len(found.frame) < 60 else lines.mark_point(size=0)
    wins = found.crossings.filter(pl.col("at") > found.frame[found.over].min())
    wins = wins.select(pl.col("at").alias(found.over), pl.col("wins").alias("served_as"))
    loser = found.crossings["loses"][0]
    rules = alt.Chart(wins).mark_rule(strokeDash=[6, 4]).encode(x=x, color=color)
    chart = alt.layer(lines.mark_line(strokeWidth=2), points, rules).properties(width=520, height=280)
    counted = found.sentence.partition(":")[0]
    said = [counted, f"a broken line: from there on it beats the {loser}"]
    words = told.crossing(found.frame, found.over, what, found.sentence)
    return styled(chart, f"Where each serving begins to win {title}", said, words)


def crossover_map(frame: pl.DataFrame) -> alt.TopLevelMixin:
    """Return a map of the cheapest serving, by size of the history and reads per refresh.

    Args:
        frame: as `cheapest` returns it.

    Raises:
        InvalidTable: a column is missing, or there are no rows.
    """
    shown = need(frame, "events", "reads_per_refresh", "served_as")
    there = [way for way in SERVINGS if way in set(shown["served_as"])]
    color = alt.Color(
        "served_as:N", title="cheapest", scale=alt.Scale(domain=there, range=[SERVINGS[w] for w in there])
    )
    reads = alt.Y("reads_per_refresh:O", title="reads per refresh", sort="descending", axis=alt.Axis(format=",.2r"))
    sizes = alt.X("events:O", title="events in the log", axis=alt.Axis(format=",", labelAngle=0))
    cells = alt.Chart(shown).mark_rect(stroke="white").encode(x=sizes, y=reads, color=color)
    chart = cells.properties(width=110 * shown["events"].n_unique(), height=alt.Step(16))
    said = "a read with its share of what keeps it up to date"
    return styled(chart, "Which serving is the cheapest to read", said, told.cheapest(shown))


def need(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Return these columns of a frame; refuse one that lacks them, or has no rows."""
    for name in columns:
        if name not in frame.columns:
            raise InvalidTable(
                f"the chart needs {', '.join(columns)}; the frame has {', '.join(frame.columns)}", column=name
            )
    if frame.is_empty():
        raise InvalidTable("the frame has no rows, so there is nothing to draw")
    return frame.select(columns)


def log_scale(low: float, high: float, room: float = 1.25) -> dict[str, Any]:
    """Scale and axis of a logarithmic scale that fits what is drawn, with lines at 1, 2 and 5 of each power of ten.

    Args:
        low, high: the smallest and the largest value, above 0.
        room: by which factor the scale goes on beyond both.
    """
    start, end = low / room, max(high, low * 2) * room
    powers = range(floor(log10(start)), ceil(log10(end)) + 1)
    # Of many powers of ten every line is one; of few there are lines between them.
    steps = (1,) if log10(end / start) > 4 else (1, 3) if log10(end / start) > 2.5 else (1, 2, 5)
    lines = [float(f"{step}e{power}") for power in powers for step in steps]
    axis = alt.Axis(values=[line for line in lines if start <= line <= end], format=",~r")
    return {"scale": alt.Scale(type="log", domain=[start, end], nice=False), "axis": axis}


def _readable(millis: float) -> str:
    return f"{millis / 1000:.3g} s" if millis >= 1000 else f"{millis:.2g} ms" if millis < 100 else f"{millis:.0f} ms"


def styled(chart: Any, title: str, subtitle: str | list[str] = "", described: str = "") -> alt.TopLevelMixin:
    """Return a chart with its title, in the looks that all of them have, and what it shows in words."""
    chart = chart.properties(description=described) if described else chart
    # configure() comes first: it starts the configuration again.
    styled: alt.TopLevelMixin = (
        chart.properties(title=alt.Title(title, subtitle=subtitle, anchor="start", fontSize=16, subtitleFontSize=13))
        .configure(background="white", padding=12)
        .configure_axis(labelFontSize=13, titleFontSize=13, titleFontWeight="normal", gridColor="#e5e5e5")
        .configure_legend(labelFontSize=13, titleFontSize=13, titleFontWeight="normal", symbolSize=130, labelLimit=0)
        .configure_view(stroke=None)
    )
    return styled
