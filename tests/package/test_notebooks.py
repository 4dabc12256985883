"""The notebooks as they are committed: executed, whole, and free of what belongs to one machine.

nbval runs them again and compares; but it never compares a cell that was not executed, so that is checked here.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PIXELS = re.compile(r"base64,[A-Za-z0-9+/=]+")  # of an image; any letters may be in it
# Home directories, temporary folders, checkouts, drives; of the places where somebody's machine shows.
FRAME = re.compile(r'class="dataframe"|shape: \(\d+')  # of pandas or Polars
MACHINE_PATH = re.compile(r"/(?:home|Users|root|tmp|work|private|var|mnt|opt)/[\w.~-]|[A-Z]:\\\\?\w|site-packages")


def _cells(notebook: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return [(number, cell) for number, cell in enumerate(notebook["cells"], 1) if cell["cell_type"] == "code"]


def _text(value: Any) -> str:
    """All text of an output, as a reader sees it."""
    if isinstance(value, dict):
        return "\n".join(_text(inner) for kind, inner in value.items() if kind != "image/png")
    if isinstance(value, list):
        return "".join(_text(inner) for inner in value)
    return PIXELS.sub("", str(value))


def faults(notebook: dict[str, Any], size: int = 0) -> list[str]:
    """Return what a notebook must not be committed with."""
    found = []
    metadata = notebook["metadata"]
    if metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("its kernel is not called python3")
    if "widgets" in metadata:
        found.append("it holds the state of widgets (metadata.widgets)")
    if size >= 1_000_000:
        found.append(f"it has {size:,} bytes; a million is too many")
    for expected, (number, cell) in enumerate(_cells(notebook), 1):
        if not "".join(cell["source"]).strip():
            found.append(f"cell {number} is empty")
        if cell["execution_count"] != expected:
            found.append(f"cell {number} was executed as {cell['execution_count']}, not as {expected}")
        for output in cell["outputs"]:
            kind = output["output_type"]
            if kind == "error" and "raises-exception" not in cell["metadata"].get("tags", []):
                found.append(f"cell {number} fails and is not tagged raises-exception")
            if output.get("name") == "stderr":
                found.append(f"cell {number} writes to stderr: {_text(output['text'])[:80]}")
            path = MACHINE_PATH.search(
                _text({key: output[key] for key in ("data", "text", "traceback") if key in output})
            )
            if path:
                found.append(f"cell {number} shows a path of one machine: {path[0]}")
            if FRAME.search(_text([output[key] for key in ("data", "text") if key in output])):
                found.append(f"cell {number} shows a frame as its library does; end it in Rows or show_rows(…)")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_executed_and_clean(path: Path) -> None:
    """Every notebook was run once from top to bottom and holds nothing of the machine that ran it."""
    assert faults(json.loads(path.read_text("utf-8")), path.stat().st_size) == []


def _title(cell: dict[str, Any], title: str) -> str:
    """The last heading of a cell, or the one before it."""
    found = re.findall(r"(?m)^#+ (.*)$", "".join(cell["source"])) if cell["cell_type"] == "markdown" else []
    return found[-1] if found else title


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_can_be_read_in_a_room(path: Path) -> None:
    """There are at most 30 code cells (36 where a story is told), and none above 20 lines outside of exercises."""
    cells, title, long = json.loads(path.read_text("utf-8"))["cells"], "", []
    for number, cell in enumerate(cells, 1):
        title = _title(cell, title)
        lines = "".join(cell["source"]).splitlines()
        if cell["cell_type"] == "code" and len(lines) > 20 and "exercise" not in title.lower():
            long.append((number, len(lines)))
    assert long == []
    assert sum(cell["cell_type"] == "code" for cell in cells) <= (36 if path.stem[:2] in ("06", "07", "09") else 30)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_terms_of_a_notebook_are_in_the_glossary(path: Path) -> None:
    """Each link to the glossary names a term that is there, and no term is linked twice."""
    headings = re.findall(r"(?m)^## (.*)$", (FOLDER / "GLOSSARY.md").read_text("utf-8"))
    known = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    cells = json.loads(path.read_text("utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    linked = re.findall(r"GLOSSARY\.md#([\w-]+)", text)
    assert linked, "no term is linked"
    assert set(linked) <= known
    assert len(linked) == len(set(linked))


def _notebook(*outputs: dict[str, Any], count: int | None = 1, tags: tuple[str, ...] = ()) -> dict[str, Any]:
    cell = {"cell_type": "code", "source": ["x"], "execution_count": count, "metadata": {"tags": list(tags)}}
    return {"metadata": {"kernelspec": {"name": "python3"}}, "cells": [{**cell, "outputs": list(outputs)}]}


def _stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": [text]}


_ERROR = {"output_type": "error", "ename": "E", "evalue": "", "traceback": ["E"]}


@pytest.mark.parametrize(
    "notebook",
    [
        _notebook(),
        _notebook(_stream("GET /orders/home, 12/tmp\n")),
        _notebook(_ERROR, tags=("raises-exception",)),
        _notebook({"output_type": "display_data", "metadata": {}, "data": {"image/png": "/tmp/x", "text/plain": "x"}}),
        _notebook(
            {"output_type": "display_data", "metadata": {}, "data": {"text/html": '<img src="data:a;base64,A/tmp/x">'}}
        ),
    ],
)
def test_a_clean_notebook_has_no_faults(notebook: dict[str, Any]) -> None:
    """What notebooks do show, such as failures on purpose, is not taken for a fault."""
    assert faults(notebook) == []


@pytest.mark.parametrize(
    ("notebook", "said"),
    [
        (_notebook(count=None), "executed as None"),
        (_notebook(count=2), "executed as 2, not as 1"),
        (_notebook(_ERROR), "raises-exception"),
        (_notebook(_stream("Warning", name="stderr")), "stderr"),
        (_notebook(_stream("at /home/ada/shop.duckdb")), "path of one machine"),
        (_notebook(_stream("C:\\Users\\Ada")), "path of one machine"),
        (_notebook(_stream("shape: (2, 3)\n┌──┐")), "as its library does"),
        (_notebook() | {"metadata": {"kernelspec": {"name": "ada-env"}}}, "python3"),
        (_notebook() | {"metadata": {"kernelspec": {"name": "python3"}, "widgets": {}}}, "widgets"),
    ],
)
def test_a_fault_of_a_notebook_is_named(notebook: dict[str, Any], said: str) -> None:
    """Each fault that a notebook must not be committed with is found."""
    (fault,) = faults(notebook)
    assert said in fault
