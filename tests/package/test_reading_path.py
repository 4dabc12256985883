"""What CONTRIBUTING tells people to read first is there, and short enough for two hours."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_LINES = 2_400


def test_the_reading_path_is_there_and_short() -> None:
    """The modules that are to be read first have below 2,400 lines together, and README points to them."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    steps = re.findall(r"^\d\. (.+)$", text.split("## What to read first")[1].split("\n## ")[0], re.MULTILINE)
    modules = [name for step in steps for name in re.findall(r"`([\w/]+\.py)`", step)]
    assert len(modules) > 10
    lines = {name: len((ROOT / "cqrs_lab" / name).read_text(encoding="utf-8").splitlines()) for name in modules}
    assert sum(lines.values()) < MOST_LINES, lines
    assert "Two hours of reading" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_modules_are_read_in_one_sitting() -> None:
    """No module has more than 400 lines but the one that is mostly docstrings, and each opens with what it is."""
    for path in (ROOT / "cqrs_lab").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert path.name == "app.py" or len(text.splitlines()) <= 400, path
        assert text.startswith('"""'), path
