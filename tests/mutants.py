"""Takes each protection out, on a copy, and shows that a test fails.

Use: python tests/mutants.py [PART…] [--list] [--keep FOLDER]

A protection is a refusal (an `if` that ends in `raise`), a lock, a transaction, a constraint of a table, a rule for the
rows of a table of events, or the quoting of what goes into SQL. All those of `store/`, `write/` and of what moves rows
are found in the source. A first run of the tests, on a copy that notes it, tells which tests meet which protection;
each is then taken out alone, and the tests that meet it are run, those of faults first. What no test misses is told.

PART: only protections whose place contains this, such as "locks" or "write/append_table.py".
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("store/*.py", "write/*.py", "read/mover.py", "read/table.py", "read/stored.py", "read/adopting.py",
         "read/kept.py", "read/few.py", "sql/names.py")  # fmt: skip
TESTS = ("tests/unit", "tests/behaviour", "tests/faults", "tests/properties", "tests/http/test_cloudevents.py")
LEFT_OUT = ("tests/behaviour/test_peer_suite.py", "tests/properties/test_agreement.py")
MOST, SECONDS = 12, 300  # tests for one protection, and how long they may take together
HITS = """
import os
_seen = set()


def hit(site):
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    if test and (site, test) not in _seen:
        _seen.add((site, test))
        with open(os.environ["MUTANT_HITS"], "a") as file:
            file.write(f"{site}\\t{test}\\n")
"""
LOCK = re.compile(r"lock\(|_lock\b|_guard\b|APPEND|\.lock\b|\.busy\b|erasing\(\)|building\(\)|\.held\(\)")
CONSTRAINT = re.compile(
    r"(?<= )PRIMARY KEY(?! \()|, PRIMARY KEY \([^)]*\)|, UNIQUE \([^)]*\)|(?<=[A-Z\]] )(?<!IS )NOT NULL(?= *[,)\"'\n])"
)
LAYOUT = ["tests/behaviour/test_layout.py"]
RULES = [
    "tests/behaviour/test_odd_values.py",
    "tests/behaviour/test_append_table.py",
    "tests/properties/test_tables.py",
]
QUOTING = ["tests/properties/test_names.py"]
# Locks are missed by chance only: these tests race for as long as it takes.
RACES = [
    "tests/faults/test_racing_appends.py",
    "tests/faults/test_racing_commands.py",
    "tests/faults/test_cache_races.py",
    "tests/faults/test_building.py",
    "tests/faults/test_forks.py",
    "tests/faults/test_soaking.py",
    "tests/behaviour/test_forgetting.py",
]


@dataclass(frozen=True)
class Site:
    """A protection: where it is, what it protects, and how it is taken out.

    Attributes:
        start, end: of the text that is replaced, in the file.
        body: the line before which a hit is noted, with its indent; 0 for none: all tests that open a store meet it.
    """

    file: str
    line: int
    kind: str
    protects: str
    start: int
    end: int
    instead: str
    body: int
    indent: int

    @property
    def name(self) -> str:
        """Its place, by which it is called."""
        return f"{self.kind} {self.file}:{self.line}"


def sites() -> list[Site]:
    """All protections, in order."""
    files = sorted({file for part in PARTS for file in (ROOT / "cqrs_lab").glob(part)})
    return [site for file in files for site in _sites_of(file)]


def _sites_of(file: Path) -> Iterator[Site]:
    text = file.read_text()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    data, name = text.encode(), str(file.relative_to(ROOT / "cqrs_lab"))

    def span(node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    def walk(node: ast.AST, owner: str) -> Iterator[Site]:
        for child in ast.iter_child_nodes(node):
            inside = owner
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                said = (ast.get_docstring(child) or "").split("\n")[0]
                inside = f"{child.name}: {said}" if said else child.name
            if isinstance(child, ast.If) and isinstance(child.body[-1], ast.Raise) and child.body[-1].exc is not None:
                start, end = span(child.test)
                said = _said(child.body[-1].exc)
                if said:
                    first = child.body[0]
                    yield Site(name, child.lineno, "refusal", said, start, end, "False", first.lineno, first.col_offset)
            if isinstance(child, ast.With):
                for item in child.items:
                    start, end = span(item.context_expr)
                    held = data[start:end].decode()
                    kind = "transaction" if held.endswith(".transaction()") else "lock" if LOCK.search(held) else ""
                    if kind and item.optional_vars is None:
                        first = child.body[0]
                        protects = f"{held} in {inside}"
                        instead = '__import__("contextlib").nullcontext()'
                        place = (start, end, instead, first.lineno, first.col_offset)
                        yield Site(name, item.context_expr.lineno, kind, protects, *place)
            if isinstance(child, ast.Constant) and isinstance(child.value, str) and "SELECT" not in child.value:
                start, end = span(child)
                for found in CONSTRAINT.finditer(data[start:end].decode()):
                    at = start + len(data[start:end].decode()[: found.start()].encode())
                    protects = " ".join(data[start:end].decode()[max(0, found.start() - 60) : found.end()].split())
                    line = data[:at].count(b"\n") + 1
                    yield Site(name, line, "constraint", protects, at, at + len(found[0].encode()), "", 0, 0)
            if isinstance(child, ast.Call) and ast.unparse(child.func) == "Rule" and len(child.args) == 2:
                start, end = span(child.args[0])
                if isinstance(child.args[0], ast.Constant | ast.JoinedStr | ast.Name):
                    said = f"a value {ast.unparse(child.args[1])}"
                    yield Site(name, child.lineno, "rule", said, start, end, '"true"', 0, 0)
            if isinstance(child, ast.Call) and file.name == "names.py" and ast.unparse(child.func).endswith(".replace"):
                assert isinstance(child.func, ast.Attribute)
                start, end = span(child)
                instead = ast.unparse(child.func.value)
                yield Site(name, child.lineno, "quoting", inside, start, end, instead, 0, 0)
            yield from walk(child, inside)

    taken: set[tuple[int, int]] = set()
    for site in walk(ast.parse(text), ""):
        if (site.start, site.end) not in taken:  # the parts of an f-string all have its place
            taken.add((site.start, site.end))
            yield site


def _said(error: ast.expr) -> str:
    """The name of an error that is raised, and the first words of what it says; nothing for one that is passed on."""
    if not isinstance(error, ast.Call):
        return ""
    words = [node.value for node in ast.walk(error) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return f"{ast.unparse(error.func)}: {' … '.join(' '.join(word.split()) for word in words)[:100]}"


def copied(folder: Path) -> Path:
    """Make a copy of the project."""
    leave = shutil.ignore_patterns(".git", ".venv*", "*.egg-info", ".*_cache", ".hypothesis", "__pycache__")
    return Path(shutil.copytree(ROOT, folder, ignore=leave, dirs_exist_ok=True))


def tests(copy: Path, names: list[str], seconds: float, *more: str, **env: str) -> tuple[int, str]:
    """Run tests of a copy; return pytest's exit code, or 124 when they took too long, and what it said."""
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *more, *names]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", **env}
    run = subprocess.Popen(
        command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = run.communicate(timeout=seconds)
        return run.returncode, said
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, 9)
        run.communicate()
        return 124, ""


def met(found: list[Site], folder: Path) -> dict[str, list[str]]:
    """Run all tests once; return which of them met which protection."""
    copy, hits = copied(folder / "noting"), folder / "hits.txt"
    (copy / "cqrs_lab" / "_hits.py").write_text(HITS)
    by_file: defaultdict[str, list[Site]] = defaultdict(list)
    for site in found:
        if site.body:
            by_file[site.file].append(site)
    for file, there in by_file.items():
        path = copy / "cqrs_lab" / file
        lines = path.read_text().splitlines(keepends=True)
        for site in sorted(there, key=lambda site: site.body, reverse=True):
            note = f"__import__('cqrs_lab._hits', fromlist=['hit']).hit({site.name!r})"
            lines.insert(site.body - 1, f"{' ' * site.indent}{note}\n")
        path.write_text("".join(lines))
    left_out = [f"--ignore={name}" for name in LEFT_OUT]
    code, said = tests(copy, list(TESTS), 3600, "-n", "2", *left_out, MUTANT_HITS=str(hits))
    if code not in (0, 1):
        raise SystemExit(f"the tests could not be run: {said[-2000:]}")
    told: defaultdict[str, list[str]] = defaultdict(list)
    for line in hits.read_text().splitlines():
        site, _, test = line.partition("\t")
        if test not in told[site]:
            told[site].append(test)
    return dict(told)


def _order(test: str) -> tuple[bool, ...]:
    """Those that ask whether a lock is held first, then those of faults, and what takes long behind them."""
    return "test_held_locks" not in test, "faults" not in test, "soaking" in test


def fate(site: Site, copy: Path, known: dict[str, list[str]]) -> str:
    """Take one protection out and run the tests that meet it; return what became of it."""
    chosen = sorted(known.get(site.name, []), key=_order)[:MOST]
    if site.body and not chosen:
        return "SURVIVED: no test meets it"
    path = copy / "cqrs_lab" / site.file
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: site.start] + site.instead.encode() + whole[site.end :])
        names = chosen or {"rule": RULES, "quoting": QUOTING}.get(site.kind, LAYOUT)
        code, said = tests(copy, names, SECONDS, "-x")
        if code == 0 and site.kind in ("lock", "transaction"):
            names += RACES
            code, said = tests(copy, RACES, 5 * SECONDS, "-x")
    finally:
        path.write_bytes(whole)
    if code == 0:
        return f"SURVIVED: {len(names)} tests pass without it"
    failed = re.search(r"^(?:FAILED|ERROR) (?:[^:\s]*/)?(.+?)(?: - |$)", said, re.MULTILINE)
    return f"killed by {failed[1] if failed else 'a hang' if code == 124 else f'an error, {code}'}"


def main() -> int:
    """Try all protections; the exit code is 1 when one survived."""
    parser = argparse.ArgumentParser(description="Take each protection out on a copy, and see a test fail.")
    parser.add_argument("part", nargs="*", help="only protections whose place contains one of these")
    parser.add_argument("--list", action="store_true", help="show them, and do nothing")
    parser.add_argument("--keep", type=Path, help="a folder for the copies and for which test meets what, used again")
    asked = parser.parse_args()
    found = [site for site in sites() if not asked.part or any(part in site.name for part in asked.part)]
    if asked.list:
        sys.stdout.writelines(f"{site.name}  {site.protects}\n" for site in found)
        sys.stdout.write(f"{len(found)} protections\n")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, begin = asked.keep or Path(temporary), time.monotonic()
        folder.mkdir(exist_ok=True)
        if (folder / "hits.txt").exists():
            known: defaultdict[str, list[str]] = defaultdict(list)
            for line in (folder / "hits.txt").read_text().splitlines():
                known[line.partition("\t")[0]].append(line.partition("\t")[2])
        else:
            known = defaultdict(list, met(sites(), folder))
        copies = [copied(folder / f"copy{number}") for number in range(2)]
        survivors = 0
        with ThreadPoolExecutor(len(copies)) as threads:
            free = list(copies)

            def tried(site: Site) -> tuple[Site, str]:
                copy = free.pop()
                try:
                    return site, fate(site, copy, known)
                finally:
                    free.append(copy)

            for site, told in threads.map(tried, found):
                survivors += told.startswith("SURVIVED")
                sys.stdout.write(f"{site.name}  {told}\n    {site.protects}\n")
                sys.stdout.flush()
        taken = f"{time.monotonic() - begin:,.0f} s"
        sys.stdout.write(f"{len(found)} protections taken out, {survivors} survived, {taken}\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
