"""Run the benchmarks and print one table of ratios: `python -m benchmarks.run [--orders N] [--json FILE]`."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks import ground, reading, writing
from benchmarks.harness import show


def main() -> int:
    """Run everything; the exit code is 1 when an aim is missed."""
    parser = argparse.ArgumentParser(description="Ratios against bare DuckDB, in one process on the same data.")
    parser.add_argument("--orders", type=int, default=1_000_000, help="orders in the log (about 3.35 events each)")
    parser.add_argument("--json", type=Path, default=None, help="also write the table to this file")
    arguments = parser.parse_args()
    results = [*ground.run(arguments.orders), *reading.run(arguments.orders), *writing.run(arguments.orders)]
    if find_spec("eventsourcing") is None:
        print("The comparison with eventsourcing is left out: it is not installed (pip install -e .[bench]).")
    else:
        from benchmarks import peers

        results += peers.run(arguments.orders)
    return 0 if show(results, as_json=arguments.json) else 1


if __name__ == "__main__":
    sys.exit(main())
