"""The sections of a notebook: what each holds, which are in the core track, how long a learner takes for them.

Owns three conventions. A heading that ends with "· further" is outside of the core track, with all below it; so is a
whole notebook whose title does. A prediction is "Predict first" in bold. An exercise is a heading with that word.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

WORDS_A_MINUTE, PREDICTION, EXERCISE, RUN = 150, 3, 15, 1  # the last three in minutes; all cells of a notebook run in 1

_HEADING = re.compile(r"(#{1,6})\s+(.*)")
_FURTHER = re.compile(r"\s*·\s*[*_]*further[*_]*\s*$", re.IGNORECASE)
_FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_PREDICTION = re.compile(r"\*\*\s*Predict\s+first", re.IGNORECASE)


@dataclass
class Section:
    """A heading and what follows it, up to the next one.

    Attributes:
        title: without "· further".
        level: of the heading: 1 for the notebook's title, 0 for what stands above any.
        further: whether it is outside of the core track.
        words: of its text; answers that are folded are not counted.
        predictions, exercises: how many of each.
        cells: the places of its code cells in the notebook, from 0.
    """

    title: str
    level: int
    further: bool = False
    words: int = 0
    predictions: int = 0
    exercises: int = 0
    cells: list[int] = field(default_factory=list)


def sections_of(notebook: Path) -> list[Section]:
    """Return the sections of a notebook, in order."""
    found = [Section("", 0)]
    for place, cell in enumerate(json.loads(notebook.read_text("utf-8"))["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            found[-1].cells.append(place)
            continue
        for line in _FOLDED.sub("", _FENCE.sub("", text)).splitlines():
            heading = _HEADING.match(line)
            if heading:
                found.append(_section(heading[2], len(heading[1]), found))
            found[-1].words += len(line.split())
            found[-1].predictions += len(_PREDICTION.findall(line))
    return found[1:] if not found[0].cells and not found[0].words else found


def _section(title: str, level: int, before: list[Section]) -> Section:
    """Return a new section; it is further when a heading above it is."""
    above = next((section for section in reversed(before) if section.level < level), None)
    further = bool(_FURTHER.search(title)) or (above is not None and above.further)
    exercises = int("exercise" in title.lower())
    return Section(_FURTHER.sub("", title).strip(), level, further, exercises=exercises)


def minutes(sections: Iterable[Section]) -> int:
    """Return how many minutes a novice takes for these sections of one notebook: to read, predict, exercise, run."""
    chosen = list(sections)
    words = sum(section.words for section in chosen)
    predictions, exercises = sum(s.predictions for s in chosen), sum(s.exercises for s in chosen)
    return ceil(words / WORDS_A_MINUTE + PREDICTION * predictions + EXERCISE * exercises + RUN)


def core(sections: Iterable[Section]) -> list[Section]:
    """Return the sections of the core track."""
    return [section for section in sections if not section.further]


def named(sections: list[Section], which: str) -> list[Section]:
    """Return the sections that a plan names.

    Args:
        which: "all"; "core"; or either followed by ", up to TITLE" or ", without TITLE; TITLE". A title may leave out
            the number in front of it. What is below a heading goes with it. The notebook's first section, up to the
            first heading of level 2, is always there: it imports what all others use.

    Raises:
        ValueError: the notebook has no such section.
    """
    which = which.replace("*", "").strip()
    base, _, rest = which.partition(",")
    if base not in ("all", "core"):
        raise ValueError(f"{which!r} says neither all nor core")
    chosen = [section for section in sections if base == "all" or not section.further]
    rest = rest.strip()
    if rest.startswith("up to "):
        last = sections.index(_below(sections, rest.removeprefix("up to "))[-1])
        chosen = [section for section in chosen if sections.index(section) <= last]
    elif rest.startswith("without "):
        left_out = [one for title in rest.removeprefix("without ").split(";") for one in _below(sections, title)]
        chosen = [section for section in chosen if section not in left_out]
    elif rest:
        raise ValueError(f"{rest!r} says neither up to nor without")
    return chosen


def _below(sections: list[Section], title: str) -> list[Section]:
    """Return the section of a title, and those below it."""
    wanted = _plain(title)
    start = next((n for n, section in enumerate(sections) if _plain(section.title) == wanted), None)
    if start is None:
        raise ValueError(f"no section is called {title.strip()!r}; there are {', '.join(s.title for s in sections)}")
    level = sections[start].level
    end = next((n for n in range(start + 1, len(sections)) if sections[n].level <= level), len(sections))
    return sections[start:end]


def _plain(title: str) -> str:
    return re.sub(r"^\d+ · ", "", title.strip()).lower()


def plans_of(teaching: Path) -> dict[str, list[tuple[str, str, int]]]:
    """Return the plans of TEACHING.md: title -> number of a notebook, sections as `named` takes them, minutes.

    A plan is a table below a heading of level 3; a row whose first cell is no number of a notebook is a break.
    """
    plans: dict[str, list[tuple[str, str, int]]] = {}
    title = ""
    for line in teaching.read_text("utf-8").splitlines():
        if heading := _HEADING.match(line):
            title = heading[2]
        elif row := re.fullmatch(r"\|\s*(\d\d)\b[^|]*\|([^|]*)\|\s*(\d+)\s*\|", line):
            plans.setdefault(title, []).append((row[1], row[2].strip(), int(row[3])))
    return plans


def main(paths: Iterable[str]) -> None:
    """Print the minutes of notebooks: all of each, and its core track."""
    for path in map(Path, paths):
        found = sections_of(path)
        sys.stdout.write(f"{path.stem:<36}{minutes(found):>4}  core {minutes(core(found)):>4}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
