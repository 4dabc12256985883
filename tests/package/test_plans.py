"""The plans of TEACHING.md and the minutes of the notebooks: each plan runs, and each number is counted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from cqrs_lab.workbench.course.sections import core, minutes, named, plans_of, sections_of

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = {path.stem[:2]: path for path in sorted(FOLDER.glob("*.ipynb"))}
PLANS = plans_of(FOLDER / "TEACHING.md")
CORE = "The core track"
NEAR = 3  # minutes; a sentence more must not turn a number red


def test_the_core_track_takes_at_most_four_hours() -> None:
    """The core track leads through 00, 01, 03, 05, 06 and 07, and takes 240 minutes at most, breaks aside."""
    assert [number for number, _, _ in PLANS[CORE]] == ["00", "01", "03", "05", "06", "07"]
    assert sum(minutes(named(sections_of(NOTEBOOKS[n]), which)) for n, which, _ in PLANS[CORE]) <= 240


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_says_the_minutes_that_are_counted(plan: str) -> None:
    """Each row of each plan says the minutes of its sections, as they are counted."""
    for number, which, said in PLANS[plan]:
        counted = minutes(named(sections_of(NOTEBOOKS[number]), which))
        assert abs(said - counted) <= NEAR, f"{number} ({which}): {said} is said, {counted} are counted"


@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=lambda path: path.stem)
def test_a_notebook_says_the_minutes_that_are_counted(path: Path) -> None:
    """Atop each notebook stand its minutes, and those of the core track where there is a shorter one."""
    sections = sections_of(path)
    first = json.loads(path.read_text("utf-8"))["cells"][0]["source"]
    text = " ".join("".join(first).split())
    said = re.search(r"\*\*Minutes:\*\* (\d+)(?:; the core track takes (\d+))?", text)
    assert said, "the first cell lacks **Minutes:** 50; the core track takes 35."
    assert abs(int(said[1]) - minutes(sections)) <= NEAR, f"{said[1]} is said, {minutes(sections)} are counted"
    if not sections[0].further and minutes(core(sections)) < minutes(sections) - NEAR:
        assert said[2], "sections are marked · further, and the minutes of the core track are not said"
    if said[2]:
        assert abs(int(said[2]) - minutes(core(sections))) <= NEAR, f"{minutes(core(sections))} are counted"


@pytest.mark.parametrize(
    ("number", "which"), sorted({(number, which) for rows in PLANS.values() for number, which, _ in rows})
)
def test_the_sections_of_a_plan_run(number: str, which: str) -> None:
    """The cells of a plan's sections run in a fresh kernel, one by one, without those that are left out."""
    notebook = nbformat.read(NOTEBOOKS[number], as_version=4)
    wanted = {place for section in named(sections_of(NOTEBOOKS[number]), which) for place in section.cells}
    notebook.cells = [cell for place, cell in enumerate(notebook.cells) if place in wanted]
    assert notebook.cells
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=lambda path: path.stem)
def test_the_readme_says_the_minutes_that_are_counted(path: Path) -> None:
    """The README's table says the minutes of the core track, and in brackets those of all where that is longer."""
    sections = sections_of(path)
    readme = (FOLDER.parent / "README.md").read_text("utf-8")
    said = re.search(rf"\(notebooks/{path.name}\).*\| (\d+)(?: \((\d+)\))? \|", readme)
    assert said
    track = sections if sections[0].further else core(sections)
    assert abs(int(said[1]) - minutes(track)) <= NEAR, f"{minutes(track)} are counted"
    assert abs(int(said[2] or said[1]) - minutes(sections)) <= NEAR, f"{minutes(sections)} are counted for all"


def _notebook(path: Path, *cells: str) -> Path:
    kinds = [("code" if cell.startswith(">") else "markdown", cell.removeprefix(">")) for cell in cells]
    path.write_text(json.dumps({"cells": [{"cell_type": kind, "source": text} for kind, text in kinds]}), "utf-8")
    return path


def test_what_is_counted(tmp_path: Path) -> None:
    """Words at 150 a minute, 3 minutes a prediction, 15 an exercise, one for the run; what is folded does not count."""
    words = " ".join(["word"] * 148)
    sections = sections_of(
        _notebook(
            tmp_path / "x.ipynb",
            "# Title",
            ">import x",
            f"## A\n{words}\n<details>{words}</details>\n```\n{words}\n```",
            ">a()\n# no heading",
            "**Predict first.** Which?\n\n## B · *further*\n**Predict first:** what?\n### Below B",
            ">b()",
            "## Exercise: do it",
            ">check()",
        )
    )
    assert [(s.title, s.further, s.cells) for s in sections] == [
        ("Title", False, [1]), ("A", False, [3]), ("B", True, []), ("Below B", True, [5]),
        ("Exercise: do it", False, [7]),
    ]  # fmt: skip
    assert minutes(sections) == 24
    assert minutes(core(sections)) == 21
    assert [s.title for s in named(sections, "all, up to B")] == ["Title", "A", "B", "Below B"]
    assert [s.title for s in named(sections, "core, without *Exercise: do it*; A")] == ["Title"]
    with pytest.raises(ValueError, match="no section is called 'C'; there are Title, A"):
        named(sections, "all, up to C")
