"""Advice follows from what was measured: lines between sizes, crossings, costs of a load, a recommendation."""

from __future__ import annotations

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqrs_lab.errors import InvalidTable, QueryError
from cqrs_lab.workbench import advice_widget, advise, cheapest, crossover_over_history, crossover_over_reads, load_costs
from cqrs_lab.workbench.checks import check_decision
from cqrs_lab.workbench.measure.advice import interpolate
from cqrs_lab.workbench.measure.crossovers import crossover, wins
from cqrs_lab.workbench.show.plots import crossover_chart

SIZES = (1_000, 10_000, 100_000)
positive = st.floats(0.01, 1e6)
series = st.dictionaries(st.integers(1, 10**9).map(float), positive, min_size=1, max_size=6).map(lambda d: [*d.items()])


def measured(**ways: tuple[list[float], float, float]) -> pl.DataFrame:
    """Return a frame as compare_sizes does: for each serving p50_ms at SIZES, write_ms and refresh_ms."""
    rows = [
        {"served_as": way.replace("_", " "), "question": "point", "events": size, "p50_ms": read, "p95_ms": 2 * read}
        | {"write_ms": write, "refresh_ms": refresh, "event_ms": 0.0, "bytes": 0, "staleness_events": 0}
        for way, (reads, write, refresh) in ways.items()
        for size, read in zip(SIZES, reads, strict=True)
    ]
    return pl.DataFrame(rows)


FRAME = measured(
    view=([1.0, 10.0, 100.0], 2.0, 0.0),
    materialized=([1.0, 1.0, 1.0], 2.0, 50.0),
    projection=([1.0, 1.0, 1.0], 22.0, 20.0),
)


@given(points=series, x=st.floats(0.5, 1e10))
def test_a_value_lies_between_its_neighbours(points, x):
    """At a measured x it is what was measured, in between it is in between, beyond it never falls as x grows."""
    found, is_beyond = interpolate(points, x)
    known = dict(points)
    for at, value in points:
        assert interpolate(points, at) == (pytest.approx(value), False)
    if len(points) > 1:
        low, high = min(known), max(known)
        assert is_beyond == (not low <= x <= high)
        if not is_beyond:
            pairs = [(a, b) for a, b in pairwise(sorted(known)) if a <= x <= b]
            values = [known[at] for pair in pairs for at in pair]
            assert min(values) * 0.999 <= found <= max(values) * 1.001
        elif x > high:
            assert found >= known[high] * 0.999
        else:
            assert found <= known[low] * 1.001


def test_a_steep_line_goes_on_for_ever():
    """However steep the last line is, it has a value far beyond what was measured."""
    found, is_beyond = interpolate([(2848.0, 1.0), (3261.0, 132078.0)], 9979339.0)
    assert found > 132078.0
    assert is_beyond


def test_lines_are_those_of_logarithms():
    """Ten times the events and ten times the cost make a line that goes on; one point stands for all."""
    points = [(10.0, 1.0), (1000.0, 100.0)]
    assert interpolate(points, 100) == (pytest.approx(10), False)
    assert interpolate(points, 10_000) == (pytest.approx(1000), True)
    assert interpolate([(10.0, 5.0)], 99) == (5.0, True)
    assert interpolate([(10.0, 0.0), (1000.0, 0.0)], 99) == (0.0, False)
    with pytest.raises(QueryError, match="nothing to interpolate"):
        interpolate([], 1)


@given(one=series, other=series)
def test_crossings_are_where_the_costs_are_equal(one, other):
    """Between the ends of a stretch where one wins both cost the same, and inside of it that one costs less."""
    shared = sorted(dict(one).keys() & dict(other).keys())
    for start, end in wins(one, other):
        a, b = [(x, dict(one)[x]) for x in shared], [(x, dict(other)[x]) for x in shared]
        for edge in (start, end):
            if edge is not None and edge != shared[0]:
                assert interpolate(a, edge)[0] == pytest.approx(interpolate(b, edge)[0], rel=1e-6)
        inside = [x for x in shared if start < x and (end is None or x < end)]
        assert all(dict(other)[x] < dict(one)[x] for x in inside)


@given(points=series)
def test_nobody_beats_himself(points):
    """The same costs are never cheaper; half of them are everywhere."""
    assert wins(points, points) == []
    assert wins(points, [(x, y / 2) for x, y in points]) == [(min(x for x, _ in points), None)]


def test_crossovers_say_where_each_serving_wins():
    """A serving that wins from somewhere on, in between, never or everywhere is told so, with numbers."""
    rows = {
        "view": [1, 10, 100], "materialized": [10, 10, 10], "projection": [0.5, 20, 200], "row by row": [999, 999, 999],
        "cached projection": [0.1, 0.1, 0.1],
    }  # fmt: skip
    frame = pl.DataFrame(
        [(x, way, float(ms)) for way, values in rows.items() for x, ms in zip((1, 10, 100), values, strict=True)],
        schema=["size", "served_as", "ms"],
        orient="row",
    )
    found = crossover(frame, "What")
    where = {row["wins"]: (row["at"], row["until"]) for row in found.crossings.to_dicts()}
    assert where["materialized"] == (pytest.approx(10), None)
    assert where["projection"] == (1, pytest.approx(10**0.5))
    assert where["row by row"] == (None, None)
    assert where["cached projection"] == (1, None)
    assert "materialized from 10 on; projection from 1 to 3.2; cached projection from 1 on; row by row never" in str(
        found
    )
    assert "wins" not in found.sentence
    only = frame.filter(pl.col("served_as").is_in(["view", "materialized"]))
    assert crossover(only, "What").sentence.endswith("The view wins below 10.")
    never = frame.filter(pl.col("served_as").is_in(["view", "row by row"]))
    assert crossover(never, "What").sentence.endswith("The view wins throughout.")
    with pytest.raises(InvalidTable, match="no rows of 'projection'"):
        crossover(only, "What", base="projection")
    scale = crossover_chart(crossover(never, "What")).to_dict()["layer"][0]["encoding"]["shape"]["scale"]
    assert scale == {"domain": ["view", "row by row"], "range": ["circle", "diamond"]}  # the same in every figure


def test_history_and_reads_cross_where_the_sums_say():
    """A refresh of 50 ms shared by 10 reads makes 6 ms a read: a view of n/1000 ms loses from 6,000 events on."""
    over = crossover_over_history(FRAME, reads_per_refresh=10)
    where = dict(over.crossings.select("wins", "at").iter_rows())
    assert where == {"materialized": pytest.approx(6_000, rel=0.01), "projection": pytest.approx(3_000, rel=0.01)}
    assert "The view wins below 3,000" in over.sentence
    assert over.sentence.startswith("A read (point) and 1/10 of a refresh: ")
    assert "A read (point) and a whole refresh: " in crossover_over_history(FRAME, reads_per_refresh=1).sentence
    # At 10,000 events a read saves 9 ms, so that 50/9 reads pay for a refresh.
    where = dict(crossover_over_reads(FRAME, events=10_000).crossings.select("wins", "at").iter_rows())
    assert where == {"materialized": pytest.approx(50 / 9, rel=0.05), "projection": pytest.approx(20 / 9, rel=0.05)}
    found = cheapest(FRAME)
    assert found.filter(events=1_000)["served_as"].unique().to_list() == ["view"]
    best = found.filter(events=10_000).sort("reads_per_refresh")["served_as"].to_list()
    assert (best[0], best[-1]) == ("view", "projection")
    with pytest.raises(QueryError, match="nobody measured the question 'list'"):
        crossover_over_history(FRAME, "list")


def test_costs_are_sums_of_what_was_measured():
    """Reads, writes and refreshes are multiplied by their price; staleness makes refreshes seldom."""
    load = {"reads": 10, "writes": 4, "events": 10_000}
    at_once = {row["served_as"]: row for row in load_costs(FRAME, **load).to_dicts()}
    assert at_once["view"]["ms"] == pytest.approx(10 * 10 + 4 * 2)
    assert at_once["materialized"]["ms"] == pytest.approx(10 * 1 + 4 * 2 + 4 * 50)
    assert at_once["projection"]["ms"] == pytest.approx(10 * 1 + 4 * 22)
    later = {row["served_as"]: row for row in load_costs(FRAME, **load, staleness=2).to_dicts()}
    assert later["view"]["ms"] == at_once["view"]["ms"]
    assert later["materialized"]["ms"] == pytest.approx(10 * 1 + 4 * 2 + 0.5 * 50)
    assert later["projection"]["ms"] == pytest.approx(10 * 1 + 4 * 2 + 0.5 * 20)
    # Less than a refresh takes is as good as none.
    assert load_costs(FRAME, **load, staleness=0.01)["ms"].to_list() == load_costs(FRAME, **load)["ms"].to_list()
    seldom = load_costs(FRAME, reads=10, writes=0.001, events=10_000, staleness=2)
    assert seldom["refreshes"].to_list() == [0.0, 0.001, 0.001]


def test_a_cache_is_worth_its_hits():
    """Of reads and writes that come at random to the same rows, reads / (reads + writes) find an answer kept."""
    frame = measured(projection=([1.0] * 3, 2.0, 20.0), cached_projection=([0.1] * 3, 2.0, 20.0))
    for reads, writes, read_ms in ((90, 10, 0.19), (1, 0, 0.1), (10, 10, 0.55), (0, 5, 0.1)):
        costs = load_costs(frame, reads=reads, writes=writes, events=10_000)
        assert dict(costs.select("served_as", "read_ms").iter_rows()) == {
            "projection": pytest.approx(1),
            "cached projection": pytest.approx(read_ms),
        }
    alone = load_costs(frame.filter(served_as="cached projection"), reads=10, writes=10, events=10_000)
    assert alone["read_ms"].item() == pytest.approx(0.1)  # nobody knows what a miss would cost


@given(reads=st.floats(0, 1e5), writes=st.floats(0, 1e4), events=st.integers(1, 10**9), staleness=st.floats(0, 1e5))
@settings(max_examples=20)
def test_more_work_never_costs_less(reads, writes, events, staleness):
    """More reads and more writes never cost less, more patience never more; one of the servings is recommended."""
    load = {"reads": reads, "writes": writes, "events": events, "staleness": staleness}
    costs = load_costs(FRAME, **load)["ms"]
    assert (load_costs(FRAME, **load | {"reads": reads + 1})["ms"] >= costs).all()
    assert (load_costs(FRAME, **load | {"writes": writes + 1})["ms"] >= costs).all()
    assert (load_costs(FRAME, **load | {"staleness": staleness + 1})["ms"] <= costs + 1e-6).all()
    found = advise(FRAME, **load)
    assert found.served_as in set(FRAME["served_as"])
    assert found.runner_up != found.served_as
    assert found.needs_cqrs or found.served_as == "view"
    assert ("do not need CQRS" in found.sentence) == (not found.needs_cqrs)


def test_the_advice_fits_the_load():
    """Few reads of a small history need no CQRS; many of a large one do, and patience decides which way to serve."""
    calm = advise(FRAME, reads=5, writes=0.1, events=1_000)
    assert (calm.needs_cqrs, calm.served_as) == (False, "view")
    assert calm.sentence.startswith("You do not need CQRS: a plain view answers in 1 ms")
    busy = advise(FRAME, reads=300, writes=10, events=100_000)
    assert (busy.needs_cqrs, busy.served_as, busy.runner_up) == (True, "projection", "materialized")
    assert busy.margin == pytest.approx((300 + 20 + 500) / (300 + 220))
    assert "1.6 times as much" in busy.sentence
    # A refresh a minute is hardly anything: then the simpler one.
    patient = advise(FRAME, reads=300, writes=10, events=100_000, staleness=60)
    assert patient.served_as == "materialized"
    assert "as good as equal" in patient.sentence
    assert "None of them fits on one core" in advise(FRAME, reads=5_000, writes=10, events=100_000).sentence
    assert "extrapolated" in advise(FRAME, reads=300, writes=1, events=10**7).sentence
    slow = advise(FRAME, reads=0.01, writes=0.01, events=1_000_000)
    assert slow.needs_cqrs  # hardly any work, but an answer takes a second


def test_what_makes_no_sense_is_refused():
    """Numbers below 0, and a frame without costs, are refused."""
    for wrong in ({"reads": -1}, {"writes": -1}, {"staleness": -1}, {"events": 0}):
        with pytest.raises(QueryError, match="not below 0"):
            load_costs(FRAME, **{"reads": 1, "writes": 1, "events": 1} | wrong)
    bare = FRAME.with_columns(refresh_ms=pl.lit(None, pl.Float64))
    with pytest.raises(InvalidTable, match="costs=True"):
        advise(bare, reads=1, writes=1, events=1)


def test_the_widget_shows_the_advice():
    """It starts with an advice, follows its fields, says what is wrong, and shows people who only read the same."""
    widget = advice_widget(FRAME)
    assert widget.page in widget.still()
    load = dict.fromkeys(widget.widget.start["load"], "1")
    assert set(load) == {"reads", "writes", "events", "staleness", "question"}
    load |= {"events": "1000", "question": "point"}
    assert "You do not need CQRS" in widget.reply({"ask": "advice", "load": load})["page"]
    assert "Take a" in widget.reply({"ask": "advice", "load": load | {"events": "100000", "reads": "300"}})["page"]
    assert widget.load["reads"] == 300
    assert "in numbers" in widget.reply({"ask": "advice", "load": load | {"reads": ""}})["alert"]
    assert "not below 0" in widget.reply({"ask": "advice", "load": load | {"reads": "-1"}})["alert"]
    with pytest.raises(InvalidTable, match="costs=True"):
        advice_widget(FRAME.drop("refresh_ms"))


def test_the_check_of_a_decision_says_what_is_missing():
    """It finds loads of nobody or of a day, servings that are dear or unknown, and advice that stays the same."""
    load = {"reads": 3, "writes": 0.1, "events": 10_000, "staleness": 0, "question": "point"}
    assert check_decision(FRAME, load, "view", tipping=10).passed
    for more, choice, tipping, said in [
        ({"reads": 0}, "view", 10, "✗ somebody reads"),
        ({"reads": 86_400}, "view", 10, "86,400 a second are 7,464,960,000 a day"),
        ({}, "table", 10, "'table' is none of view, materialized, projection"),
        ({"writes": 3}, "materialized", 10, "times the work of view"),
        ({}, "view", 3, "with half as many reads and with twice as many the advice is view"),
    ]:
        found = check_decision(FRAME, load | more, choice, tipping)
        assert not found.passed
        assert said in repr(found)
