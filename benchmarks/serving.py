"""Commands over HTTP against the same `lab.send` from as many threads, and what is polled against what is waited for.

The server has a process of its own, and so have its clients, whose own work would else be done on the server's time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

from benchmarks.harness import Median, Result
from cqrs_lab import Lab, open_shop
from cqrs_lab.http import Client
from cqrs_lab.shop import OrderDetails, OrderLine, PlaceOrder, order_summary
from cqrs_lab.workbench.course import served_shop

CROWDS = {1: 300, 8: 100, 32: 40}  # clients at once: commands of each
LINE = OrderLine(product_id="p-1", quantity=2, unit_price="9.99")
MOST = 1.0  # ms that HTTP may cost at the median, with one client


def run(count: int) -> Iterator[Result]:
    """Measure a shop behind HTTP; the number of orders does not matter to it."""
    with tempfile.TemporaryDirectory() as folder:
        yield from commands(Path(folder))
        yield reading(Path(folder))


def place(id: str) -> PlaceOrder:
    """Return a command that places an order."""
    return PlaceOrder(order_id=id, customer_id="c-1", lines=(LINE,))


def send_under_key(lab: Lab, command: PlaceOrder) -> object:
    """Send with a key, as every client does."""
    return lab.send(command, command_id=uuid4())


def crowd(send: Callable[[PlaceOrder], object], clients: int, each: int, name: str) -> tuple[list[float], float]:
    """Send from so many threads at once; return the seconds of each command and of all together."""
    times: list[float] = []
    ready = threading.Barrier(clients + 1)

    def work(number: int) -> None:
        mine = [place(f"{name}-{number}-{n}") for n in range(each)]
        send(place(f"{name}-{number}-first"))
        ready.wait()
        for command in mine:
            begin = time.perf_counter()
            send(command)
            times.append(time.perf_counter() - begin)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    return times, time.perf_counter() - begin


def elsewhere(address: str, token: str, clients: int, each: int, name: str) -> tuple[list[float], float]:
    """Do the same over HTTP, from a process of its own."""
    asked = [sys.executable, "-m", "benchmarks.serving", address, token, str(clients), str(each), name]
    times, whole = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    return times, whole


def commands(folder: Path) -> Iterator[Result]:
    """Commands of 1, 8 and 32 clients, three turns each."""
    with open_shop(folder / "direct.duckdb") as lab, served_shop(folder / "served.duckdb") as served:
        for clients, each in CROWDS.items():
            found: dict[str, list[float]] = {"http": [], "direct": []}
            rates: dict[str, list[float]] = {"http": [], "direct": []}
            for turn in range(3):
                name = f"{clients}-{turn}"
                for way, (times, whole) in {
                    "direct": crowd(partial(send_under_key, lab), clients, each, name),
                    "http": elsewhere(served.address, served.token, clients, each, name),
                }.items():
                    found[way] += times
                    rates[way].append(len(times) / whole)
            ours, limit = (Median(found[way]) * 1e3 for way in ("http", "direct"))
            p99 = {way: sorted(times)[int(len(times) * 0.99)] * 1e3 for way, times in found.items()}
            told = ", ".join(
                f"{way}: {sorted(rates[way])[1]:,.0f} commands/s, p99 {p99[way]:.1f} ms" for way in ("http", "direct")
            )
            aim = (limit + MOST) / limit if clients == 1 else None
            yield Result(f"send over HTTP / lab.send, {clients} at once", ours, limit, "ms", aim, told)


def reading(folder: Path) -> Result:
    """A write and the reading of it: waiting for the position against asking again every 100 ms."""
    path = folder / "read.duckdb"
    with open_shop(path) as lab:
        lab.serve(order_summary, mode="background")
    with served_shop(path) as served, Client(served.address, served.token) as client:

        def waiting(n: int) -> None:
            receipt = client.send(place(f"w-{n}"))
            assert client.ask(OrderDetails(order_id=f"w-{n}"), at_least=receipt.position, timeout=60)

        def polling(n: int) -> None:
            client.send(place(f"p-{n}"))
            while client.ask(OrderDetails(order_id=f"p-{n}")) is None:
                time.sleep(0.1)

        times: dict[str, list[float]] = {"waiting": [], "polling": []}
        for n in range(30):
            for way in (waiting, polling):
                begin = time.perf_counter()
                way(n)
                times[way.__name__].append(time.perf_counter() - begin)
    ours, limit = (Median(times[way]) * 1e3 for way in ("waiting", "polling"))
    return Result(
        "write and read it: at_least / a poll every 100 ms", ours, limit, "ms", None, "over HTTP, median of 30"
    )


if __name__ == "__main__":
    address, token, clients, each, name = sys.argv[1:]
    with Client(address, token) as client:
        print(json.dumps(crowd(client.send, int(clients), int(each), name)))
