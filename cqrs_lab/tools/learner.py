"""A learner's copy of the course: notebooks without outputs, their data and pages, in a folder of the learner's own.

Owns what is copied, and the note of what was written, by which a later call knows the learner's work and leaves it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cqrs_lab.errors import CqrsLabError

NOTE = ".cqrs-lab-course.json"
_NOT_COPIED = ("TEACHING.md",)  # it tells what surprises
_LARGEST = 5_000_000  # bytes; a real shop that lies in data/ stays there


@dataclass(frozen=True)
class Copied:
    """What a copy did; all paths are relative to the folder.

    Attributes:
        added: files that were not there.
        renewed: files that the learner had not changed and the course has.
        kept: files that the learner changed; they were left as they are.
    """

    added: list[str]
    renewed: list[str]
    kept: list[str]


def copy_course(course: Path, folder: Path) -> Copied:
    """Copy the course, adding what is new and leaving what the learner changed.

    Args:
        course: the checkout, with `notebooks` and `data`.
        folder: where to; made when it is not there. What refers to ../data holds in it.

    Raises:
        CqrsLabError: the folder is the course itself, or lies in its notebooks or data.
    """
    target = folder.resolve()
    inside = [course.resolve(), *((course / name).resolve() for name in ("notebooks", "data"))]
    if target == inside[0] or any(part in (target, *target.parents) for part in inside[1:]):
        raise CqrsLabError(f"{folder} is the course itself; name another folder for a learner's copy")
    note = folder / NOTE
    written = _noted(note)
    copied = Copied([], [], [])
    for name, content in _files(course):
        path, digest = folder / name, hashlib.sha256(content).hexdigest()
        if not path.exists():
            copied.added.append(name)
        elif (found := hashlib.sha256(path.read_bytes()).hexdigest()) == digest:
            written[name] = digest
            continue
        elif found == written.get(name):
            copied.renewed.append(name)
        else:
            copied.kept.append(name)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, content)
        written[name] = digest
    _write(note, json.dumps(written, indent=1, sort_keys=True).encode())
    return copied


def cleared(notebook: bytes) -> bytes:
    """Return a notebook without outputs and without the state of widgets, as JupyterLab would save it."""
    content = json.loads(notebook)
    content["metadata"].pop("widgets", None)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _files(course: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what belongs to a learner's copy: its path, and its content."""
    for pattern in ("notebooks/*.ipynb", "notebooks/*.md", "notebooks/images/*", "notebooks/solutions/*.py", "data/*"):
        for path in sorted(course.glob(pattern)):
            if path.is_file() and path.name not in _NOT_COPIED and path.stat().st_size <= _LARGEST:
                content = path.read_bytes()
                yield path.relative_to(course).as_posix(), cleared(content) if path.suffix == ".ipynb" else content


def _noted(note: Path) -> dict[str, str]:
    """Return the digest of each file as it was written; nothing when the note is gone, so that all is kept."""
    try:
        found = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: half a notebook would later be taken for the learner's."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)
