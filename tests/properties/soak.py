"""Runs made-up read models for some time and prints what they showed.

Use: python tests/properties/soak.py SECONDS [--from SEED] [--processes N]    (or --count CASES instead of SECONDS)
     python tests/properties/soak.py --show SEED                              one failing case, made small
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.pool import AsyncResult
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from agreement import Outcome, program, run, smaller  # noqa: E402
from selects import HAZARDS, case_of  # noqa: E402


@dataclass(frozen=True)
class Told:
    """What one seed showed, and the processor time it took."""

    seed: int
    outcome: Outcome
    seconds: float


def tell(seed: int) -> Told:
    """Run the case of a seed."""
    begin = time.process_time()
    return Told(seed, run(case_of(seed)), time.process_time() - begin)


def soaked(seeds: Iterable[int], processes: int, until: float) -> Iterator[Told]:
    """Run cases side by side until a time comes, or there are none left; tell of them in the order of their seeds."""
    left, running = iter(seeds), deque[AsyncResult[Told]]()
    # Not forked: a database does not survive that.
    with multiprocessing.get_context("spawn").Pool(processes, _leave_interrupts, maxtasksperchild=500) as pool:
        while True:
            while len(running) < 4 * processes and time.monotonic() < until and (seed := next(left, None)) is not None:
                running.append(pool.apply_async(tell, (seed,)))
            if not running:
                return
            yield running.popleft().get()


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def table(told: list[Told], elapsed: float) -> str:
    """Return what cases showed, as text."""
    outcomes = [one.outcome for one in told]
    models = sum(o.models for o in outcomes)
    refused = sum(len(o.refused) for o in outcomes)
    ways = sum((o.ways for o in outcomes), Counter[str]())
    moved = sum(1 for o in outcomes if o.moved)
    lines = [
        f"cases {len(told):,}, models {models:,}, in {elapsed:.0f} s: {models / max(elapsed, 1):.1f} models a second "
        f"({models / max(sum(one.seconds for one in told), 0.001):.1f} for a second of one core)",
        "ways: " + ", ".join(f"{way} {ways[way]:,}" for way in ("merge", "touched keys", "recompute all")),
        f"refused: {refused:,} models ({refused / max(models, 1):.1%}), and {sum(o.left_out for o in outcomes):,} "
        "that read these",
        f"rows that moved and are not empty: in {moved / max(len(told), 1):.0%} of the cases, "
        f"{sum(o.moved for o in outcomes) / max(models, 1):.0%} of the models",
    ]
    for reason, count in Counter(_short(r) for o in outcomes for r in o.refused.values()).most_common(8):
        lines.append(f"  refused {count} times: {reason}")
    failing = [one for one in told if one.outcome.disagreements]
    lines.append(f"seeds with disagreements: {len(failing):,} ({len(failing) / max(len(told), 1):.1%})")
    numbers = {one.seed: at for at, one in zip(_models_before(told), told, strict=True)}
    for kind in sorted({k for one in failing for k in one.outcome.kinds}, key=[*HAZARDS, "other", "error"].index):
        seeds = [one.seed for one in failing if kind in one.outcome.kinds]
        checks = Counter(d.check for one in failing for d in one.outcome.disagreements[:1] if d.kind == kind)
        where = ", ".join(f"{check} {count}" for check, count in checks.most_common())
        lines.append(f"  {kind:16} {len(seeds):4}  first at model {numbers[seeds[0]]:,}, seed {seeds[0]}  ({where})")
        lines.append(f"      {' '.join(map(str, seeds))}")
    return "\n".join(lines)


def _models_before(told: list[Told]) -> Iterator[int]:
    return itertools.accumulate(one.outcome.models for one in told)


def _short(reason: str) -> str:
    return reason.split(": ", 1)[-1][:150]


def main() -> int:
    """Run from the command line; the exit code says whether servings disagreed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="?", type=float, default=60.0)
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="SEED")
    parser.add_argument("--count", type=int, metavar="CASES")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--show", type=int, metavar="SEED")
    parser.add_argument("--whole", action="store_true", help="with --show: as it is, not made small")
    parser.add_argument("--verbose", action="store_true", help="tell of each seed as it is done")
    given = parser.parse_args()
    if given.show is not None:
        case = case_of(given.show)
        case = case if given.whole or not run(case).disagreements else smaller(case)
        print(program(case))  # noqa: T201
        outcome = run(case)
        print(*(f"{d.kind} | {d.check} | {d.model} | {d.detail}" for d in outcome.disagreements), sep="\n")  # noqa: T201
        return bool(outcome.disagreements)
    seeds = itertools.count(given.first) if given.count is None else range(given.first, given.first + given.count)
    begin = time.monotonic()
    told = []
    with suppress(KeyboardInterrupt):  # what there is so far is told
        for one in soaked(seeds, given.processes, begin + (1e9 if given.count is not None else given.seconds)):
            told.append(one)
            if given.verbose:
                found = [f"{d.kind} | {d.check} | {d.model} | {d.detail[:200]}" for d in one.outcome.disagreements[:1]]
                print(one.seed, *found, flush=True)  # noqa: T201
    print(table(told, time.monotonic() - begin))  # noqa: T201
    return any(one.outcome.disagreements for one in told)


if __name__ == "__main__":
    sys.exit(main())
