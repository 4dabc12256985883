"""The shape of a log in six small charts: of the shop's orders, or of the events of any other category.

Owns the questions; how charts look is in `plots`. Writes nothing. Needs the extra `lab`.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from cqrs_lab.app import Lab
from cqrs_lab.errors import InvalidTable
from cqrs_lab.shop import OrderPlaced
from cqrs_lab.sql.names import quote
from cqrs_lab.workbench.show import told
from cqrs_lab.workbench.show.plots import BLUE, log_scale, need, styled


def describe(lab: Lab, category: str | None = None) -> alt.TopLevelMixin:
    """Return six small charts of a lab's log: when things happened, how often, what happened last, and how fast.

    Of the shop they are about its orders, by whom they were placed among others; of any other category about its
    events, by their types.

    Args:
        category: whose events, such as "case"; None: the shop's orders, else the only category that there is.

    Raises:
        InvalidTable: it has no events; or there are several categories, none is named and there is no shop.
    """
    categories = {decider.category: decider for decider in lab.domain.deciders}
    is_shop = category is None and any(OrderPlaced in decider.events for decider in categories.values())
    if category is None and not is_shop and len(categories) != 1:
        raise InvalidTable(f"say which category to describe: category=…; there are {', '.join(categories)}")
    if category is not None and category not in categories:
        raise InvalidTable(f"there is no category {category!r}; there are {', '.join(categories)}")
    name = "order" if is_shop else category or next(iter(categories))
    table = quote(categories[name].log_category.table)
    past = lab.as_of(position=lab.head)
    asked = _ORDERS if is_shop else {chart: sql.format(table=table) for chart, sql in _EVENTS.items()}
    frames = {chart: past.sql(sql).pl() for chart, sql in asked.items()}
    what, n = ("Orders", "orders") if is_shop else ("Events", "events")
    counts = alt.Y(f"{n}:Q", title=None, axis=alt.Axis(tickCount=4, format="~s"))

    def log(name: str, *columns: str) -> dict[str, Any]:
        frame = frames[name]
        if frame.is_empty():
            return {}  # it is refused, or left out
        low, high = (end(end(frame[column]) for column in columns) for end in (min, max))
        return log_scale(low, high)

    label: Any = {"title": None, "sort": None, "axis": alt.Axis(labelAngle=0)}
    hours = alt.Axis(labelAngle=0, values=[0, 6, 12, 18, 23])
    bar, line = {"type": "bar", "color": BLUE}, {"type": "line", "color": BLUE}
    by_type = {"x": alt.X(f"{n}:Q", title=None), "y": alt.Y("event:N", **label)}
    fourth: dict[str, tuple[Any, Any]] = {"Events by type": (bar, by_type)}
    if is_shop:
        fourth = {
            "Orders by customer, most first": (
                line | {"point": {"color": BLUE}},
                {
                    "x": alt.X("rank:Q", title=None, **log("customers", "rank")),
                    "y": alt.Y("orders:Q", title=None, **log("customers", "orders")),
                },
            ),
        }
    looks: dict[str, tuple[Any, Any]] = {
        f"{what} by hour of the day, UTC": (bar, {"x": alt.X("hour:O", title=None, axis=hours), "y": counts}),
        f"{what} by weekday": (bar, {"x": alt.X("weekday:O", **label), "y": counts}),
        f"{what} by day": (
            line,
            {
                "x": alt.X(
                    "day:T",
                    title=None,
                    axis=alt.Axis(format="%-d %b", tickCount=4, labelOverlap="greedy", labelSeparation=10),
                ),
                "y": counts,
            },
        ),
        **fourth,
        f"What happened to {'an order' if is_shop else 'a stream'} last": (bar, by_type),
        "Hours since the event before": (
            bar | {"height": 6, "opacity": 0.4},
            {
                "x": alt.X(
                    "low:Q", title="the point is the median; 90 of 100 are within", **log("steps", "low", "high")
                ),
                "x2": "high:Q",
                "y": alt.Y("step:N", **label),
            },
        ),
    }
    charts: list[Any] = [
        alt.Chart(need(frame, *frame.columns), mark=mark, title=title).encode(**encoding)
        for frame, (title, (mark, encoding)) in zip(frames.values(), looks.items(), strict=True)
        if is_shop or len(frame) or frame is frames["hours"]  # a log without steps has no times between them
    ]
    if is_shop or len(frames["steps"]):
        charts[-1] += _medians(frames["steps"], label)
    sized = [chart.properties(width=270, height=130) for chart in charts]
    rows = alt.vconcat(*(alt.hconcat(*sized[first : first + 2]) for first in range(0, len(sized), 2)))
    return styled(rows, f"{frames['hours'][n].sum():,} {n}", described=told.shape(frames, looks, n))


def _medians(steps: pl.DataFrame, label: Any) -> Any:
    points = alt.Chart(steps).mark_point(color=BLUE, filled=True, size=70, opacity=1)
    return points.encode(x="median:Q", y=alt.Y("step:N", **label))


_ORDERS = {
    "hours": "SELECT hour(occurred_at) AS hour, count(*) AS orders FROM order_events WHERE type = 'OrderPlaced' "
    "GROUP BY hour ORDER BY hour",
    "weekdays": "SELECT strftime(occurred_at, '%a') AS weekday, count(*) AS orders FROM order_events "
    "WHERE type = 'OrderPlaced' GROUP BY weekday ORDER BY min(isodow(occurred_at))",
    "days": "SELECT occurred_at::DATE AS day, count(*) AS orders FROM order_events WHERE type = 'OrderPlaced' "
    "GROUP BY day ORDER BY day",
    # One row for each number of orders, so that a million customers are a chart, too.
    "customers": """
SELECT orders, sum(count(*)) OVER (ORDER BY orders DESC)::BIGINT AS rank
FROM (SELECT count(*) AS orders FROM order_events WHERE type = 'OrderPlaced' GROUP BY customer_id)
GROUP BY orders ORDER BY rank""",
    "last": """
SELECT replace(event, 'Order', '') AS event, count(*) AS orders
FROM (SELECT arg_max(type, version) AS event FROM order_events GROUP BY order_id) GROUP BY ALL ORDER BY orders DESC""",
    "steps": """
SELECT step, quantile_cont(hours, 0.05) AS low, median(hours) AS median, quantile_cont(hours, 0.95) AS high
FROM (SELECT replace(type, 'Order', '') AS step,
             epoch(occurred_at - lag(occurred_at) OVER (PARTITION BY order_id ORDER BY version)) / 3600 AS hours
      FROM order_events)
WHERE step IN ('Paid', 'Shipped', 'Delivered') AND hours > 0 GROUP BY step ORDER BY step = 'Delivered', step""",
}
_MOST = 8  # types; a small chart has no room for the names of more
_EVENTS = {
    "hours": "SELECT hour(occurred_at) AS hour, count(*) AS events FROM {table} GROUP BY hour ORDER BY hour",
    "weekdays": "SELECT strftime(occurred_at, '%a') AS weekday, count(*) AS events FROM {table} "
    "GROUP BY weekday ORDER BY min(isodow(occurred_at))",
    "days": "SELECT occurred_at::DATE AS day, count(*) AS events FROM {table} GROUP BY day ORDER BY day",
    "types": f"SELECT type AS event, count(*) AS events FROM {{table}} GROUP BY ALL "
    f"ORDER BY events DESC, event LIMIT {_MOST}",
    "last": f"""
SELECT event, count(*) AS events FROM (SELECT arg_max(type, version) AS event FROM {{table}} GROUP BY stream_no)
GROUP BY ALL ORDER BY events DESC, event LIMIT {_MOST}""",
    "steps": f"""
SELECT step, quantile_cont(hours, 0.05) AS low, median(hours) AS median, quantile_cont(hours, 0.95) AS high
FROM (SELECT type AS step, epoch(occurred_at - lag(occurred_at) OVER (PARTITION BY stream_no ORDER BY version)) / 3600
             AS hours FROM {{table}})
WHERE hours > 0 GROUP BY step ORDER BY count(*) DESC, step LIMIT {_MOST}""",
}
