"""What charts show, in words."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from cqrs_lab.workbench.show import told


def test_latencies_name_each_serving_with_its_values() -> None:
    """Question by question each serving has its median and 95th percentile, and the size of the log is said."""
    rows = [("one row", "view", 5_000, 12.34, 20.0), ("one row", "projection", 5_000, 1.0, 1.25)]
    frame = pl.DataFrame(rows, schema=["question", "serving", "events", "p50_ms", "p95_ms"], orient="row")
    assert told.latencies(frame) == (
        "Milliseconds, the median and in brackets the 95th percentile, at 5,000 events. "
        "one row: view 12.3 (20), projection 1 (1.25)."
    )


def test_a_line_over_days_tells_its_ends_and_its_extremes() -> None:
    """First and last day, the day with the most and the one with the fewest, and the sum; the first of equals."""
    days = [date(2025, 1, 1) + timedelta(days=n) for n in range(4)]
    frame = pl.DataFrame({"day": days, "orders": [3, 1_200, 3, 1_200]})
    assert told.over_days(frame.reverse(), "Orders") == (
        "Orders by day, 4 days from 2025-01-01 to 2025-01-04: most on 2025-01-02 (1,200), fewest on 2025-01-01 (3), "
        "2,406 in all."
    )
    assert told.over_days(frame.clear(), "Orders") == "Orders by day: no days."


def test_lag_and_latency_tell_their_percentiles() -> None:
    """A cloud of points is told by its number, its middle and its end."""
    assert told.late(pl.Series([10.0, 20.0, 30.0])) == (
        "Milliseconds until an append could be seen, by append, 3 of them: half of them within 20, 95 of 100 within "
        "30; the fastest 10, the slowest 30."
    )
    calls = pl.DataFrame({"row": ["Details (view)"] * 3 + ["Pay (view)"], "ms": [1.0, 2.0, 9.0, 4.5]})
    assert told.distributions(calls) == (
        "Milliseconds from the intended moment, a point for each call. Details (view): 3 calls, median 2, 99th "
        "percentile 9; Pay (view): 1 call, median 4.5, 99th percentile 4.5."
    )
    worst = pl.DataFrame({"intended_at": [0.0, 1.0], "staleness_events": [2, 0]})
    assert told.staleness(worst, pl.Series([0, 2, 0])) == (
        "Events not seen yet, by second, a point for each of 3 reads: 2 of them saw all events. "
        "The most in each second: 0: 2, 1: 0."
    )


def test_crossings_tell_each_line_and_where_it_wins() -> None:
    """Of a long line the ends and some points between them are told; of the map, where the cheapest one changes."""
    rows = [(at, "view", float(at)) for at in range(1, 101)] + [(1, "table", 7.0), (100, "table", 7.0)]
    frame = pl.DataFrame(rows, schema=["events", "served_as", "ms"], orient="row")
    assert told.crossing(frame, "events", "events in the log", "The table wins.") == (
        "Milliseconds by events in the log: view 1 at 1, 21 at 21, 41 at 41, 60 at 60, 80 at 80, 100 at 100; "
        "table 7 at 1, 7 at 100. The table wins."
    )
    cells = [(5_000, 1.0, "view"), (5_000, 10.0, "view"), (5_000, 1_234.0, "table"), (9_000, 1.0, "table")]
    map_ = pl.DataFrame(cells, schema=["events", "reads_per_refresh", "served_as"], orient="row")
    assert told.cheapest(map_) == (
        "The cheapest serving by events in the log and by reads per refresh. "
        "5,000 events: view from 1, table from 1,200; 9,000 events: table from 1."
    )


def test_the_shape_of_a_log_is_told_chart_by_chart() -> None:
    """Each small chart has its sentence; one without rows has none."""
    frames = {
        "hours": pl.DataFrame({"hour": [3, 20], "orders": [1, 9]}),
        "days": pl.DataFrame({"day": [date(2025, 1, 1)], "orders": [10]}),
        "customers": pl.DataFrame({"orders": [7, 1], "rank": [1, 4]}),
        "last": pl.DataFrame({"event": ["Paid", "Placed"], "orders": [6, 4]}),
        "none": pl.DataFrame({"event": [], "orders": []}),
        "steps": pl.DataFrame({"step": ["Paid"], "low": [0.1], "median": [0.35], "high": [2.0]}),
    }
    titles = ["Orders by hour", "Orders by day", "Orders by customer", "Last", "None", "Hours"]
    assert told.shape(frames, titles, "orders") == (
        "Orders by hour: most at 20 (9), fewest at 3 (1). "
        "Orders by day, 1 day from 2025-01-01 to 2025-01-01: most on 2025-01-01 (10), fewest on 2025-01-01 (10), "
        "10 in all. Orders by customer: 7 for number 1, 1 for number 4. Last: Paid 6, Placed 4. "
        "Hours, the median and where 90 of 100 are: Paid 0.35 (0.1 to 2)."
    )
