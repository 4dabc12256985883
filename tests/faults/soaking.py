"""Faults at random moments, for as long as one likes, while everything that changes a store is done.

Use: python tests/faults/soaking.py interrupts|kills|forks|appends SECONDS [--seed N]

interrupts: Ctrl-C in the middle of a call. KeyboardInterrupt came and no other error, and the store is whole.
kills: the process is killed; whoever opens the store finds all that was acknowledged, and the store whole.
forks: the process forks at any moment; the child is refused and ends in some way, and the parent notices nothing.
appends: many threads append to the same streams; no version is lost or given twice, and no acknowledged one is missing.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]

from working import Working, Wrong, place  # noqa: E402

from cqrs_lab import Lab, open_shop  # noqa: E402
from cqrs_lab.errors import ConcurrencyError, CqrsLabError, RuleViolated  # noqa: E402
from cqrs_lab.messages import Recorded  # noqa: E402
from cqrs_lab.shop import CustomerRegistered, RegisterCustomer, customer_contacts, daily_orders  # noqa: E402
from cqrs_lab.write.middleware import Receipt  # noqa: E402


class Interrupted(Working):
    """One whose calls are stopped; arguments as of `Working`. The moments of the interrupts are the machine's."""

    def step(self) -> None:
        """Do one thing, interrupt it or not, and look at everything."""
        name = self.rng.choice(self.CALLS)
        outcome = self._interrupted(getattr(self, name), self.rng.choice([0.0005, 0.003, 0.01, 0.03, 0.1, 0.3]))
        self.told[f"{name}: {outcome}"] += 1
        try:
            self.look()
        except Exception as error:
            raise Wrong(f"after {name} ({outcome}): {type(error).__name__}: {error}") from error

    def _interrupted(self, call: Callable[[], None], longest: float) -> str:
        """Do something, with a Ctrl-C some time from now; say how it ended."""
        came, is_over = threading.Event(), threading.Event()

        def stop() -> None:
            if not is_over.wait(self.rng.random() * longest):
                came.set()
                os.kill(os.getpid(), signal.SIGINT)

        sender, dropped = threading.Thread(target=stop), []
        outcome = "done"
        # One that comes inside a callback of the garbage collector is printed and dropped by Python itself.
        sys.unraisablehook = lambda told: dropped.append(told.exc_type is KeyboardInterrupt)
        try:
            sender.start()
            call()
        except KeyboardInterrupt:
            outcome = "interrupted"
        except Exception as error:
            if type(error).__name__ != "RuleViolated":
                raise Wrong(f"{type(error).__name__} in the place of KeyboardInterrupt: {error}") from error
            outcome = "refused"
        while True:
            try:
                is_over.set()
                sender.join()
                # One that was sent comes, if only now.
                for _ in range(200):
                    if not came.is_set() or outcome == "interrupted":
                        break
                    if any(dropped):
                        return "dropped by Python"
                    time.sleep(0.005)
                else:
                    raise Wrong(f"an interrupt was swallowed ({outcome})")
                return outcome
            except KeyboardInterrupt:
                outcome = "interrupted"


def interrupts(until: float, rng: random.Random) -> Counter[str]:
    """Interrupt calls, with a new store every 400; return how they ended."""
    told: Counter[str] = Counter()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what goes on behind it without one
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory() as folder:
            one = Interrupted(str(Path(folder) / "shop.duckdb"), rng.randrange(10**9))
            try:
                for _ in range(400):
                    if time.monotonic() > until:
                        break
                    one.step()
            finally:
                told += one.told
                one.lab.close()
    return told


# -- kills -----------------------------------------------------------------------------------------------------------


def forked(work: Callable[[Callable[[str], None]], None]) -> tuple[int, int]:
    """Do something in a forked process, which may tell lines; return its id and where these are read."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        faulthandler.dump_traceback_later(15)  # to see where one hangs
        try:
            work(lambda line: os.write(writing, f"{line}\n".encode()) and None)
            os.write(writing, b"done\n")
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}\n".encode())
        os._exit(0)
    os.close(writing)
    return pid, reading


def lines_of(reading: int) -> list[str]:
    """All that a process has told."""
    with os.fdopen(reading, "rb") as stream:
        return stream.read().decode().splitlines()


def kills(until: float, rng: random.Random) -> Counter[str]:
    """Kill a process that works, with a new store every 30 times; return how often what was done."""
    told: Counter[str] = Counter()
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory() as folder:
            path, head = str(Path(folder) / "shop.duckdb"), 0
            for _ in range(30):
                if time.monotonic() > until:
                    break
                seed, name = rng.randrange(10**9), "opening"

                def work(tell: Callable[[str], None], path: str = path, seed: int = seed) -> None:
                    one = Working(path, seed)
                    one.number = one.lab.head
                    while True:
                        with suppress(RuleViolated):
                            tell(f"{one.do_one()} {one.lab.head}")

                pid, reading = forked(work)
                time.sleep(rng.random() * rng.choice([0.05, 0.3, 1.5]))
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                for line in lines_of(reading):
                    name, _, at = line.rpartition(" ")
                    if not at.isdigit():
                        raise Wrong(f"the process that was to be killed failed: {line}")
                    head = int(at)
                    told[name] += 1

                def look(tell: Callable[[str], None], path: str = path, seed: int = seed) -> None:
                    one = Working(path, seed)
                    try:
                        one.look()
                        tell(str(one.lab.head))
                    finally:
                        one.lab.close()

                pid, reading = forked(look)
                os.waitpid(pid, 0)
                said = lines_of(reading)
                if said[-1] != "done" or int(said[0]) < head:
                    raise Wrong(f"killed behind {name} at position {head}: {said}")
                told["killed"] += 1
                head = int(said[0])
    return told


# -- forks -----------------------------------------------------------------------------------------------------------

# What makes messages is left out: pydantic's own lock may be held by another thread at that moment.
FORKED = [name for name in Working.CALLS if name not in ("again", "send", "pay", "register", "batch")]
READY = place("ready")
ENDS: tuple[Callable[[Working], object], ...] = (
    lambda one: os._exit(0),
    lambda one: sys.exit(0),
    lambda one: one.lab.close(),
    lambda one: (one.__dict__.clear(), gc.collect()),
    lambda one: os.kill(os.getpid(), signal.SIGKILL),
)


def refused(one: Working, name: str, end: Callable[[Working], object], tell: Callable[[str], None]) -> None:
    """Do something in a forked process, tell of what it is refused by, and end."""
    try:
        one.lab.send(READY) if name == "table" else getattr(one, name)()
        tell("nothing")
    except Exception as error:
        tell(type(error).__name__)
    end(one)


def forks(until: float, rng: random.Random) -> Counter[str]:
    """Fork while two threads work; return what the children were told, by their calls."""
    told: Counter[str] = Counter()
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory() as folder:
            one = Working(str(Path(folder) / "shop.duckdb"), rng.randrange(10**9))
            beside, over, failed = Working.__new__(Working), threading.Event(), []
            beside.__dict__ = {**one.__dict__, "rng": random.Random(1), "number": 10**6}

            def work(worker: Working, over: threading.Event = over, failed: list[object] = failed) -> None:
                calls = [name for name in worker.CALLS if name != "again"]
                while not over.is_set():
                    try:
                        getattr(worker, worker.rng.choice(calls))()
                    except RuleViolated:
                        pass
                    except CqrsLabError as error:
                        failed.append(error)

            threads = [threading.Thread(target=work, args=(each,)) for each in (one, beside)]
            for each in threads:
                each.start()
            try:
                for _ in range(60):
                    name, end = rng.choice(FORKED), rng.choice(ENDS)

                    pid, reading = forked(partial(refused, one, name, end))
                    for _ in range(2_000):
                        if os.waitpid(pid, os.WNOHANG)[0]:
                            break
                        time.sleep(0.01)
                    else:
                        os.kill(pid, signal.SIGKILL)
                        os.waitpid(pid, 0)
                        raise Wrong(f"a child hangs in {name}")
                    said = lines_of(reading)
                    if said[0] != "StoreForked":
                        raise Wrong(f"a child that did {name} was told: {said}")
                    told[name] += 1
                    if time.monotonic() > until:
                        break
            finally:
                over.set()
                for each in threads:
                    each.join()
            if failed:
                raise Wrong(f"the parent failed: {failed[0]!r}") from failed[0]
            one.look()
            head = one.lab.head
            one.again()
            if one.lab.head != head:
                raise Wrong(f"{head} were appended and {one.lab.head} are there")
            one.look()
            one.lab.close()
    return told


# -- appends ---------------------------------------------------------------------------------------------------------


Given = tuple[str, int, int]  # stream, version, position


def append(lab: Lab, number: int, rng: random.Random, until: float, told: Counter[str]) -> list[Given]:
    """Append to a few streams by every way, until a time; return what was acknowledged."""
    found: list[Given] = []
    while time.monotonic() < until:
        id, way = f"c-{rng.randrange(20)}", rng.randrange(3)
        fact = CustomerRegistered(customer_id=id, name=f"{number}")
        try:
            if way == 0:
                found += map(given, lab.record(id, [fact] * rng.choice([1, 10, 200])))
            elif way == 1:
                seen = lab.events(stream=f"customer/{id}", limit=1, descending=True).dicts()
                found += map(given, lab.record(id, fact, expected_version=seen[0]["version"] if seen else 0))
            else:
                ids = [f"{number}-{len(found)}-{n}" for n in range(50)]
                commands = [RegisterCustomer(customer_id=id, name="a", email="a@b.org") for id in ids]
                found += map(given, lab.send_many(commands))
        except ConcurrencyError:
            told["refused"] += 1
    return found


def given(one: Recorded | Receipt) -> Given:
    """Where an event was put."""
    return one.stream, one.version, one.position


def appends(until: float, rng: random.Random) -> Counter[str]:
    """Append from eight threads to the same streams; return how many were acknowledged and refused."""
    told: Counter[str] = Counter()
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory() as folder, open_shop(Path(folder) / "shop.duckdb") as lab:
            lab.serve(daily_orders, mode="background")
            lab.serve(customer_contacts, mode="inline")
            end = min(until, time.monotonic() + 120)
            with ThreadPoolExecutor(8) as threads:
                seeds = [random.Random(rng.randrange(10**9)) for _ in range(8)]
                each = [threads.submit(append, lab, number, seed, end, told) for number, seed in enumerate(seeds)]
                acknowledged = [place for one in each for place in one.result()]
            lab.catch_up()
            columns, log = "stream, version, position", "customer_events JOIN streams USING (stream_no)"
            rows = lab._log.database.execute(f"SELECT {columns} FROM {log}")
            if sorted(rows) != sorted(acknowledged):
                raise Wrong(f"{len(acknowledged):,} were acknowledged and {len(rows):,} are there")
            if sorted(position for _, _, position in rows) != list(range(1, len(rows) + 1)):
                raise Wrong("positions have holes")
            versions: dict[str, list[int]] = {}
            for stream, version, _ in sorted(rows):
                versions.setdefault(stream, []).append(version)
            if any(found != list(range(1, len(found) + 1)) for found in versions.values()):
                raise Wrong("versions have holes, or come twice")
            told["appended"] += len(rows)
    return told


KINDS = {"interrupts": interrupts, "kills": kills, "forks": forks, "appends": appends}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    counted = KINDS[asked.kind](time.monotonic() + asked.seconds, random.Random(asked.seed))
    sys.stdout.writelines(f"{times:8,} {line}\n" for line, times in sorted(counted.items()))
