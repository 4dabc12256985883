"""Figures: what was measured, drawn as it is, as a picture with a text that stays the same."""

from __future__ import annotations

import base64
import struct
import zlib

import polars as pl
import pytest

from cqrs_lab import open_shop
from cqrs_lab.errors import InvalidTable
from cqrs_lab.shop import daily_orders, order_summary
from cqrs_lab.workbench import Workload, drive, generate
from cqrs_lab.workbench.measure.crossovers import crossover
from cqrs_lab.workbench.plots import (
    crossover_chart,
    crossover_map,
    describe,
    distribution_chart,
    lag_chart,
    latency_chart,
    orders_per_day_chart,
    show,
    staleness_chart,
    status_chart,
)

WAYS = ["view", "materialized", "projection"]


SMALL = Workload(orders=60, seed=3)


@pytest.fixture
def lab():
    """A shop with a small workload."""
    with open_shop(threads=1) as shop:
        generate(shop, SMALL)
        yield shop


def plotted(chart):
    """Return the rows that a chart draws."""
    [rows] = chart.to_dict()["datasets"].values()
    return rows


def test_the_latency_chart_draws_every_serving():
    """Each row of the frame is drawn, readable, and what is behind says so; the picture is a PNG with a text."""
    frame = pl.DataFrame(
        {
            "served_as": WAYS * 2,
            "question": ["point"] * 3 + ["mine"] * 3,
            "events": [3_355_000] * 6,
            "p50_ms": [12.3, 0.5, 0.45, 1_234.5, 100.4, 1.0],
            "p95_ms": [15.0, 0.9, 0.6, 2_000.0, 150.0, 1.0],
            "staleness_events": [0, 35, 0] * 2,
        }
    )
    chart = latency_chart(frame)
    rows = plotted(chart)
    assert [row["p50_ms"] for row in rows] == frame["p50_ms"].to_list()
    assert [row["label"] for row in rows] == ["12 ms", "0.5 ms", "0.45 ms", "1.23 s", "100 ms", "1 ms"]
    assert [row["serving"] for row in rows[:3]] == ["view", "materialized (35 events behind)", "projection"]
    assert [row["question"] for row in rows] == ["one row by key"] * 3 + ["mine"] * 3
    assert "3,355,000 events" in chart.to_dict()["title"]["subtitle"]
    picture = show(chart)
    assert repr(picture) == f"<picture: {picture.alt}>"
    assert picture.alt.startswith(
        "How long an answer takes. Milliseconds, the median and in brackets the 95th percentile"
    )
    assert "mine: view 1,234 (2,000), materialized (35 events behind) 100 (150), projection 1 (1)." in picture.alt
    assert show(chart, alt_text="mine").alt == "mine"
    data = picture._repr_mimebundle_()
    width, height = struct.unpack(">II", picture.png[16:24])
    assert picture.png.startswith(b"\x89PNG")
    assert width == 2 * picture.width
    assert min(width, height) > 400
    start = f'<img alt="{picture.alt}" width="{picture.width}" src="data:image/png;base64,'
    assert data["text/html"].startswith(start)
    assert base64.b64decode(data["text/html"].removeprefix(start).split('"')[0]) == picture.png
    assert data["text/plain"] == repr(picture)
    low, high = chart.to_dict()["spec"]["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert 0.45 / 1.3 < low < 0.45  # no part of the scale is empty
    assert 2_000 < high < 2_000 * 1.3


def test_charts_of_crossovers_have_titles_that_differ():
    """What grows is in the title; what was counted stands below it."""
    titles = []
    for over in ("events", "reads_per_refresh", "batch_per_history", "size_of_it"):
        rows = [(x, way, ms) for x in (1, 10) for way, ms in (("view", x), ("materialized", 5))]
        chart = crossover_chart(crossover(pl.DataFrame(rows, schema=[over, "served_as", "ms"], orient="row"), "A read"))
        titles.append(chart.to_dict()["title"]["text"])
        assert chart.to_dict()["title"]["subtitle"][0] == "A read"
    assert len(set(titles)) == 4
    assert titles[0] == "Where each serving begins to win as the history grows"


def test_the_shop_is_drawn(lab):
    """Days and statuses are drawn from the read models as they are; statuses stand in the order that orders take."""
    daily = lab.serve(daily_orders).pl()
    assert [row["orders"] for row in plotted(orders_per_day_chart(daily))] == daily["orders"].to_list()
    counts = lab.serve(order_summary).sql("SELECT status, count(*) AS orders FROM order_summary GROUP BY 1").pl()
    chart = status_chart(counts)
    assert {row["status"]: row["orders"] for row in plotted(chart)} == dict(counts.rows())
    statuses = ["PENDING", "PAID", "SHIPPED", "DELIVERED", "CANCELLED"]
    assert chart.to_dict()["layer"][0]["encoding"]["y"]["sort"] == statuses
    for figure in (chart, orders_per_day_chart(daily)):
        assert show(figure).png.startswith(b"\x89PNG")
    assert show(chart, alt_text="how many").alt == "how many"


def test_crossings_are_drawn():
    """Where one serving begins to win, and which is the cheapest where, are pictures."""
    rows = [(size, way, float(ms)) for way, of in {"view": (1, 10), "materialized": (5, 5)}.items()
            for size, ms in zip((1, 10), of, strict=True)]  # fmt: skip
    found = crossover(pl.DataFrame(rows, schema=["size", "served_as", "ms"], orient="row"), "What")
    best = pl.DataFrame({"events": [1, 10], "reads_per_refresh": [1.0, 1.0], "served_as": WAYS[:2], "ms": [1.0, 5.0]})
    for chart in (crossover_chart(found), crossover_map(best)):
        assert show(chart).png.startswith(b"\x89PNG")


def test_lag_is_drawn_in_order():
    """Every append is drawn, in order of position, with lines at the median and the p95 that say how late that is."""
    late = pl.DataFrame({"position": [9, 3, 5], "seconds": [0.3, 0.02, 1.5]})
    drawn = lag_chart(late).to_dict()["datasets"].values()
    points, lines = sorted(drawn, key=len, reverse=True)
    assert points == [{"append": 1, "ms": 20.0}, {"append": 2, "ms": 1500.0}, {"append": 3, "ms": 300.0}]
    assert [line["said"] for line in lines] == ["half of them: 300 ms", "95 of 100: 1.5 s"]
    assert show(lag_chart(late)).alt.startswith("How late an append could be seen. Milliseconds until ")


def test_a_frame_of_another_shape_is_refused():
    """A frame that lacks a column, or has no rows, is refused with the columns that are needed."""
    with pytest.raises(InvalidTable, match="the chart needs day, orders; the frame has day"):
        orders_per_day_chart(pl.DataFrame({"day": []}))
    with pytest.raises(InvalidTable, match="no rows"):
        status_chart(pl.DataFrame({"status": [], "rows": []}), count="rows")


def test_a_shop_is_described_by_what_its_log_holds():
    """The charts count every order once, name each last event and give the delays; without orders there are none."""
    with open_shop(threads=1) as lab:
        with pytest.raises(InvalidTable, match="no rows"):
            describe(lab)
        generate(lab, Workload(orders=2_000))
        chart = describe(lab)
        said = chart.to_dict()
    frames = [pl.DataFrame(rows) for rows in said["datasets"].values()]
    hours, weekdays, days, customers, last, steps = (
        next(f for f in frames if name in f.columns) for name in ("hour", "weekday", "day", "rank", "event", "step")
    )
    for frame in (hours, weekdays, days, last):
        assert frame["orders"].sum() == 2_000
    assert weekdays["weekday"].to_list() == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    assert customers["rank"].is_sorted()
    assert customers["orders"].is_sorted(descending=True)
    assert set(last["event"]) == {"Placed", "Paid", "Shipped", "Delivered", "Cancelled", "Refunded"}
    assert steps["step"].to_list() == ["Paid", "Shipped", "Delivered"]
    assert steps["median"].to_list() == pytest.approx([0.35, 45, 170], rel=0.2)
    assert (steps["low"] < steps["median"]).all()
    assert (steps["median"] < steps["high"]).all()
    picture = show(chart)
    assert picture.alt.startswith("2,000 orders. Orders by hour of the day, UTC: most at ")
    assert picture.alt.count("Orders by ") == 4
    # A notebook keeps the picture, so its pixels are packed; none is lost.
    start = picture.png.index(b"IDAT")
    size, width, height = (int.from_bytes(picture.png[at : at + 4]) for at in (start - 4, 16, 20))
    body = picture.png[start : start + 4 + size]
    assert len(zlib.decompress(body[4:])) == height * (4 * width + 1) > 30 * len(picture.png)
    assert picture.png[start + 4 + size :][:4] == zlib.crc32(body).to_bytes(4)


def test_a_run_is_drawn(lab):
    """The figures show every latency and every staleness, as pictures with a text."""
    lab.serve(order_summary, mode="background")
    driven = drive(lab, seconds=0.5, reads=60, writes=20, progress=False)
    calls = driven.frame.filter(question="OrderDetails").height
    assert f"OrderDetails (projection): {calls} calls, median " in show(distribution_chart(driven.frame)).alt
    assert show(staleness_chart(driven.frame)).alt.startswith(
        "How old the answers were. Events not seen yet, by second"
    )
    drawn = staleness_chart(driven.frame).to_dict()
    line = drawn["datasets"][drawn["layer"][1]["data"]["name"]]
    assert [step["intended_at"] for step in line] == [0, 1]  # the line goes on to the end of the last second
    points = distribution_chart(driven.frame).to_dict()["spec"]["layer"][0]
    assert points["mark"]["type"] == "circle"
