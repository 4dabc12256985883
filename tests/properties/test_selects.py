"""The one idea, for SELECTs that nobody wrote: in made-up read models every serving agrees at every step.

A fixed range of seeds, so that a run takes the same work everywhere; `soak.py` goes on from any other one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from agreement import program, run
from cases import without
from known_seeds import KNOWN
from selects import HAZARDS, case_of

CASES = 250
"""So many seeds, from 0: 874 read models, 2 minutes of 2 quiet cores."""
CHUNK = 10

known = {seed: kind for kind, seeds in KNOWN.items() for seed in seeds}


class Disagreed(AssertionError):
    """A case showed the fault that it is known for."""


@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_servings_of_made_up_read_models_agree(first: int) -> None:
    """Projection, materialized, as of, history, diff, fork, inline and the store opened again agree with the view."""
    seeds = [seed for seed in range(first, min(first + CHUNK, CASES)) if seed not in known]
    outcomes = {seed: run(case_of(seed)) for seed in seeds}
    wrong = [
        f"seed {seed}: {d.kind} | {d.check} | {d.model} | {d.detail}"
        for seed, outcome in outcomes.items()
        for d in outcome.disagreements[:2]
    ]
    assert not wrong, "\n".join(wrong)
    # What the net is worth: it hardly makes what is refused, and rows do move.
    assert sum(len(o.refused) for o in outcomes.values()) <= sum(o.models for o in outcomes.values()) / 10
    assert sum(1 for o in outcomes.values() if o.moved) >= len(outcomes) / 2


@pytest.mark.parametrize(
    ("seed", "kind"),
    [
        pytest.param(seed, kind, marks=pytest.mark.xfail(strict=True, raises=Disagreed, reason=kind))
        for seed, kind in known.items()
    ],
)
def test_a_known_fault_is_still_there(seed: int, kind: str) -> None:
    """A seed that is kept as known fails as it did; when it does not, its line is to be removed."""
    outcome = run(case_of(seed))
    if kind in outcome.kinds:
        raise Disagreed(outcome.disagreements[0].detail)
    assert not outcome.disagreements, f"seed {seed} was known for {kind}, and now shows {outcome.disagreements}"


def test_a_seed_gives_the_same_case_in_every_process() -> None:
    """A case depends on its seed alone, not on the order of a set's members."""
    asked = (
        "from agreement import program; from selects import case_of; print([program(case_of(n)) for n in range(40)])"
    )
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": f"{here}{os.pathsep}{here.parents[1]}"}
    said = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == f"{[program(case_of(n)) for n in range(40)]}\n"


def test_every_hazard_and_every_construct_is_made() -> None:
    """Within the fixed range every hazard and every kind of SELECT turns up at least five times."""
    cases = [case_of(seed) for seed in range(CASES)]
    hazards = Counter(case.hazard for case in cases)
    assert [hazard for hazard in HAZARDS if hazards[hazard] < 5] == []
    text = "\n".join(model.sql for case in cases for model in case.models)
    constructs = ["LEFT JOIN", " JOIN ", "USING (", "coalesce(", "upper(", " + 1", "<=", "IS NOT DISTINCT FROM", " OR "]
    constructs += [
        " WHERE ",
        "HAVING",
        "DISTINCT ",
        "FILTER",
        "PARTITION BY",
        "OVER ()",
        "QUALIFY",
        "unnest(",
        "WITH w",
    ]
    constructs += [
        "IN (SELECT",
        "EXISTS (SELECT",
        "EXCLUDE (rn)",
        "LATERAL",
        "FROM (SELECT",
        "MATERIALIZED (",
        "UNION ALL",
        "COLLATE NOCASE",
        "GROUP BY 1",
        "arg_max(",
        "median(",
        "string_agg(",
        "list(",
    ]
    assert [construct for construct in constructs if text.count(construct) < 5] == []
    places = Counter(model.sql.count(" JOIN ") for case in cases for model in case.models)
    assert min(places[0], places[1], places[2]) > CASES / 10
    layered = [sum(read in {m.name for m in case.models} for read in m.reads) for case in cases for m in case.models]
    assert sum(1 for count in layered if count) > len(layered) / 4


def test_a_case_made_smaller_is_a_case() -> None:
    """Whatever is taken away, the moves that are left name models that are left."""
    for seed in range(60):
        for less in without(case_of(seed)):
            count = len(less.models)
            named = {n for step in less.steps for n in (*step.order, *(m for m, _ in step.moves))} | {*less.known}
            assert named <= set(range(count))
            assert program(less)
