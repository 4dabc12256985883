"""The recorded measurements: they ship with the package, say where they come from, and carry the course's claims."""

from __future__ import annotations

import json

import polars as pl
import pytest

from cqrs_lab.errors import QueryError
from cqrs_lab.workbench import (
    advise,
    cheapest,
    crossover_over_history,
    crossover_over_reads,
    load_costs,
    recorded_measurements,
    recorded_on,
)
from cqrs_lab.workbench.measure.costs import BY_HAND, COSTS
from cqrs_lab.workbench.measure.latency import QUESTIONS, SERVED_AS
from cqrs_lab.workbench.measure.recorded import FOLDER
from cqrs_lab.workbench.measure.recording import record


def test_every_recording_is_there():
    """Each table has the columns of what measures it, a row for each combination, and only times that can be."""
    sizes = recorded_measurements()
    assert set(sizes["served_as"]) == {*SERVED_AS}
    assert set(sizes["question"]) == {*QUESTIONS}
    assert sorted(set(sizes["events"])) == [3_631, 18_356, 73_754, 184_344]
    assert sizes.select(COSTS).null_count().sum_horizontal().item() == 0
    assert recorded_measurements("steps").group_by("model").len()["len"].to_list() == [4] * 4
    assert set(recorded_measurements("batches")["served_as"]) == {"projection", "materialized"}
    for name in ("pairs", "calls"):
        assert recorded_measurements(name).columns == ["what", "ms"]
        assert recorded_measurements(name)["what"].is_unique().all()
    driven = recorded_measurements("driven")
    assert driven.group_by("served_as").len().sort("served_as").rows() == [
        ("cached projection", 4), ("projection", 4), ("view", 4),
    ]  # fmt: skip
    assert (driven["p50_ms"] <= driven["p99_ms"]).all()
    for name in ("steps", "batches", "pairs", "calls"):
        assert recorded_measurements(name)["ms"].min() > 0
    with pytest.raises(QueryError, match="there is no recording 'moods'; there are batches, pairs, sizes, steps"):
        record(only=["moods"])
    with pytest.raises(QueryError, match="there are batches, calls, driven, pairs, sizes, steps"):
        recorded_measurements("moods")


def test_the_recordings_say_where_they_come_from():
    """The command, the day, the machine and the versions are named, and no path of that machine."""
    made = json.loads((FOLDER / "made.json").read_text("utf-8"))
    said = recorded_on()
    assert all(str(value) in said for value in made.values())
    assert made["command"] == "python -m cqrs_lab.workbench.recording"
    assert "/" not in said


def test_what_takes_measurements_takes_the_recorded_ones():
    """Advice, costs, crossovers and the map work on the recorded frame as on a measured one."""
    sizes = recorded_measurements().filter(pl.col("served_as") != BY_HAND)  # which was not measured at all sizes
    load = {"reads": 50, "writes": 1, "events": 150_000}
    assert advise(sizes, **load).served_as in SERVED_AS
    assert not load_costs(sizes, **load)["extrapolated"].any()
    measured = sizes.filter(pl.col("served_as").is_in(["view", "materialized", "projection"]))
    assert crossover_over_history(measured).over == "events"
    assert crossover_over_reads(measured).over == "reads_per_refresh"
    assert set(cheapest(measured)["events"]) == set(sizes["events"])
