"""No notebook asserts anything about times that were just measured: counts and recorded measurements alone."""

import ast
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
# What looks at a clock, or reckons with what did.
MEASURES = {
    "check_claims", "compare_latency", "compare_sizes", "crossover_over_batches", "drive", "lag_history", "median_ms",
    "beside", "monotonic", "perf_counter", "process_time", "query_times", "time_steps", "timed_ms", "visible_ms",
}  # fmt: skip
# Columns of measured frames that hold counts.
COUNTS = {"events_behind", "ok", "staleness_events"}


class Cells:
    """What the cells of a notebook assert of names that hold measured times; reads them in their order."""

    def __init__(self) -> None:
        self.measured: set[str] = set()
        self.measures = set(MEASURES)
        self.faults: list[str] = []

    def read(self, source: str) -> None:
        """Read one more cell."""
        code = "\n".join(line for line in source.splitlines() if not line.startswith("%"))
        self._block(ast.parse(code).body)

    def _block(self, body: list[ast.stmt]) -> None:
        for one in body:
            if isinstance(one, ast.Assert):
                if self._times(one.test):
                    self.faults.append(ast.unparse(one))
            elif isinstance(one, ast.FunctionDef):
                if any(self._is_time(node) for node in ast.walk(one)):
                    self.measures.add(one.name)
            elif isinstance(one, ast.Assign | ast.AugAssign):
                for target in one.targets if isinstance(one, ast.Assign) else [one.target]:
                    self._assign(target, is_time=self._times(one.value), is_whole=isinstance(one, ast.Assign))
            elif isinstance(one, ast.For | ast.With | ast.If | ast.While | ast.Try):
                self._block(one.body)

    def _assign(self, target: ast.expr, *, is_time: bool, is_whole: bool) -> None:
        names = {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
        if is_time:
            self.measured |= names
        elif is_whole and isinstance(target, ast.Name | ast.Tuple):
            self.measured -= names

    def _is_time(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr in self.measures
        return isinstance(node, ast.Name) and node.id in self.measured | self.measures

    def _times(self, node: ast.AST) -> bool:
        """Whether an expression has a measured time in it, of which it does not take a count alone."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len":
            return False
        if isinstance(node, ast.Attribute) and node.attr == "height":
            return False
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value in COUNTS:
            return False
        if isinstance(node, ast.Compare) and all(isinstance(how, ast.In | ast.NotIn) for how in node.ops):
            return False
        return self._is_time(node) or any(self._times(inner) for inner in ast.iter_child_nodes(node))


def asserted(*sources: str) -> list[str]:
    """Return the asserts of cells that are about measured times."""
    cells = Cells()
    for source in sources:
        cells.read(source)
    return cells.faults


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_asserts_what_was_measured(path: Path) -> None:
    """On a busy machine any two times may change places, so none is asserted to be below another."""
    notebook = json.loads(path.read_text("utf-8"))
    assert asserted(*("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")) == []


@pytest.mark.parametrize(
    "cells",
    [
        ["sizes = compare_sizes()", "assert not advise(sizes).needs_cqrs"],
        ["sizes = compare_sizes()", "assert advise(sizes, reads=1).served_as == 'view'"],
        ["all = compare_latency(lab)", "p50 = {row['x']: 1 for row in all.to_dicts()}", "assert p50['a'] < p50['b']"],
        ["start = perf_counter()\nslow, fast = 1, perf_counter() - start", "assert fast > 10 * slow"],
        ["def rate():\n    return 1 / perf_counter()", "slow = max(rate() for _ in range(3))", "assert slow > 1"],
        ["costs = {}\nfor way in 'ab':\n    costs[way] = median_ms(act)", "assert costs['a'] < costs['b']"],
        ["with shop() as lab:\n    ms = {'table': median_ms(act)}", "assert ms['table'] < 3"],
        ["late = lab.lag_history().pl()", "busy_ms = late['seconds'].max()", "assert busy_ms < 300"],
        ["live = drive(shop)", "assert live.frame['ms'].max() < 5 and len(live.frame) == 3"],
    ],
    ids=str,
)  # fmt: skip
def test_an_assert_about_a_measured_time_is_found(cells: list[str]) -> None:
    """Through assignments, functions, loops and frames, a time that was measured is known for one."""
    assert len(asserted(*cells)) == 1


@pytest.mark.parametrize(
    "cells",
    [
        ["live = drive(shop)", "assert len(live.frame) == 440", "assert live.frame['staleness_events'].max() == 0"],
        ["claims = check_claims(sizes)", "assert claims.height == 6"],
        ["ms = median_ms(act)", "ms = recorded_measurements()", "assert ms['a'] < ms['b']"],
        ["%xmode Minimal\nfound = dict(lab.query_times())", "assert 'done' in found"],
    ],
    ids=str,
)
def test_an_assert_about_a_count_or_a_recorded_time_is_none(cells: list[str]) -> None:
    """Counts of what was measured, and recorded measurements, may be asserted."""
    assert asserted(*cells) == []
