"""A learner's copy of the course: what it holds, what a second call does, and that it runs where it lies."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from support.command_line import call

from cqrs_lab.tools import doctor
from cqrs_lab.tools.learner import NOTE, copy_course

ROOT = Path(__file__).parents[2]


def _course(folder: Path, cell: str = "1 + 1") -> Path:
    """Make a small course and return its folder."""
    code = {"cell_type": "code", "source": cell, "execution_count": 7, "metadata": {}, "outputs": [{"x": 1}]}
    notebook = {"cells": [code], "metadata": {"widgets": {}}, "nbformat": 4, "nbformat_minor": 5}
    for name, text in {
        "notebooks/00_start_here.ipynb": json.dumps(notebook),
        "notebooks/RECIPES.md": "recipes",
        "notebooks/TEACHING.md": "what surprises",
        "notebooks/execute.py": "",
        "notebooks/solutions/00.py": "result = 1",
        "data/log.csv": "a,b",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def test_a_copy_has_no_outputs_and_what_the_notebooks_refer_to(tmp_path: Path) -> None:
    """Notebooks come without outputs, with their pages, solutions and data; what is for teachers stays behind."""
    course, folder = _course(tmp_path / "course"), tmp_path / "mine"
    copied = copy_course(course, folder)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*copied.added, NOTE}
    assert sorted(copied.added) == [
        "data/log.csv",
        "notebooks/00_start_here.ipynb",
        "notebooks/RECIPES.md",
        "notebooks/solutions/00.py",
    ]
    notebook = json.loads((folder / "notebooks/00_start_here.ipynb").read_text("utf-8"))
    (cell,) = notebook["cells"]
    assert (cell["source"], cell["outputs"], cell["execution_count"]) == ("1 + 1", [], None)
    assert notebook["metadata"] == {}


def test_a_second_copy_keeps_what_was_changed(tmp_path: Path) -> None:
    """What the learner changed stays, what only the course changed is renewed, what is new is added."""
    course, folder = _course(tmp_path / "course"), tmp_path / "mine"
    copy_course(course, folder)
    mine = folder / "notebooks" / "00_start_here.ipynb"
    mine.write_text("my work", "utf-8")
    _course(course, cell="2 + 2")
    (course / "notebooks" / "RECIPES.md").write_text("better recipes", "utf-8")
    (course / "notebooks" / "01.ipynb").write_bytes((course / "notebooks" / "00_start_here.ipynb").read_bytes())
    for expected in (
        (["notebooks/01.ipynb"], ["notebooks/RECIPES.md"], ["notebooks/00_start_here.ipynb"]),
        ([], [], ["notebooks/00_start_here.ipynb"]),
    ):
        copied = copy_course(course, folder)
        assert (copied.added, copied.renewed, copied.kept) == expected
        assert mine.read_text("utf-8") == "my work"
    (folder / NOTE).unlink()
    (course / "notebooks" / "RECIPES.md").write_text("the best recipes", "utf-8")
    assert copy_course(course, folder).kept == ["notebooks/00_start_here.ipynb", "notebooks/RECIPES.md"]


@pytest.mark.parametrize("inside", [".", "notebooks", "notebooks/mine", "data"])
def test_the_course_is_not_copied_onto_itself(tmp_path: Path, inside: str) -> None:
    """A folder that is the course, or lies in it where the course would find it, is refused and nothing is written."""
    course = _course(tmp_path / "course")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Exception, match="is the course itself; name another folder"):
        copy_course(course, course / inside)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_copies_and_says_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder the copy is cqrs-lab-course, here; the second call names each file that was kept."""
    course = _course(tmp_path / "course")
    monkeypatch.setattr(doctor, "FIRST_NOTEBOOK", course / "notebooks" / "00_start_here.ipynb")
    monkeypatch.chdir(tmp_path)
    said = call("notebooks", "--learner", "--copy-only")
    assert (said.exit_code, said.stdout) == (0, "cqrs-lab-course: 4 files added, 0 renewed, 0 kept.\n")
    (tmp_path / "cqrs-lab-course" / "data" / "log.csv").write_text("mine", "utf-8")
    said = call("notebooks", "--learner", "cqrs-lab-course", "--copy-only")
    assert "cqrs-lab-course: 0 files added, 0 renewed, 1 kept." in said.stdout
    assert "kept, because you changed it: data/log.csv" in said.stdout


def test_a_folder_without_learner_is_refused() -> None:
    """A folder or --copy-only alone would be taken for something else, so the right call is named."""
    for given in (("mine",), ("--copy-only",)):
        said = call("notebooks", *given)
        assert said.exit_code == 1
        assert "Say: cqrs-lab notebooks --learner" in said.stderr


def test_a_notebook_runs_where_it_was_copied(tmp_path: Path) -> None:
    """The notebook that reads ../data runs whole in the learner's folder, and every link to a file leads somewhere."""
    copy_course(ROOT, tmp_path)
    folder = tmp_path / "notebooks"
    for path in folder.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                for target in _links(cell.source):
                    assert (folder / target).exists(), f"{path.name} refers to {target}"
    notebook = nbformat.read(folder / "09_your_own_events.ipynb", as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    assert (tmp_path / "data" / "support_desk.csv").exists()


def _links(text: str) -> list[str]:
    found = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    return [target for target in found if "://" not in target and not target.startswith("attachment:")]
