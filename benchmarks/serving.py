"""Commands over HTTP against the same `lab.send` from as many threads, and what is polled against what is waited for.

The server has a process of its own, and its clients have others, whose own work would else be done on the server's time
or, in one process for all of them, wait for its one interpreter. What HTTP takes at all is told by an empty route.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
PROCESSES = 2  # that the clients are spread over, at most
EMPTY = """
import socket, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def nothing(request):
    await request.body()
    return Response(b"{}", 202, media_type="application/json")

app = Starlette(routes=[Route("/commands/{name}", nothing, methods=["POST"])])
listening = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run([listening])
"""


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


def send_nothing(client: Client, command: PlaceOrder) -> object:
    """Send what `Client.send` does, to a route that does nothing."""
    headers = {"Idempotency-Key": str(uuid4()), "Content-Type": "application/json"}
    content = command.model_dump_json().encode()
    return client._request("POST", "/commands/PlaceOrder", headers=headers, content=content).json()


def crowd(
    send: Callable[[PlaceOrder], object],
    clients: int,
    each: int,
    name: str,
    started: Callable[[], object] = lambda: None,
    pause: float = 0,
) -> tuple[list[float], float]:
    """Send from so many threads at once; return the seconds of each command and of all together.

    Args:
        started: waited for when all are ready.
        pause: seconds before each command.
    """
    times: list[float] = []
    ready, go = threading.Barrier(clients + 1), threading.Barrier(clients + 1)

    def work(number: int) -> None:
        mine = [place(f"{name}-{number}-{n}") for n in range(each)]
        send(place(f"{name}-{number}-first"))
        ready.wait()
        go.wait()
        for command in mine:
            time.sleep(pause)
            begin = time.perf_counter()
            send(command)
            times.append(time.perf_counter() - begin)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    started()
    go.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    return times, time.perf_counter() - begin


def elsewhere(address: str, token: str, clients: int, each: int, name: str) -> tuple[list[float], float]:
    """Do the same over HTTP, from processes of their own."""
    several = min(clients, PROCESSES)
    with ExitStack() as stack:
        processes = []
        for number in range(several):
            asked = [address, token, str(clients // several), str(each), f"{name}-{number}"]
            command = [sys.executable, "-m", "benchmarks.serving", *asked]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            processes.append(stack.enter_context(process))
        pipes = [(one.stdin, one.stdout) for one in processes if one.stdin and one.stdout]
        for _, said in pipes:
            assert said.readline() == "ready\n"
        begin = time.perf_counter()
        for told, _ in pipes:
            told.write("go\n")
            told.flush()
        times = [taken for _, said in pipes for taken in json.loads(said.readline())]
        return times, time.perf_counter() - begin


@contextmanager
def empty_route() -> Iterator[Client]:
    """Have a client of a bare server, in a process of its own, whose one route does nothing."""
    process = subprocess.Popen([sys.executable, "-c", EMPTY], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        with Client(process.stdout.readline().strip(), "none") as client:
            yield client
    finally:
        process.kill()
        process.communicate()


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
            if clients == 1:
                yield nothing(limit, each)


def nothing(limit: float, each: int) -> Result:
    """Return what HTTP takes when nothing is done behind it, asked at the same pace: `limit` is that of lab.send, ms.

    A processor that has rested between two requests is slower than one that is busy with them.
    """
    with empty_route() as client:
        busy, _ = crowd(partial(send_nothing, client), 1, each, "busy")
        rested, _ = crowd(partial(send_nothing, client), 1, each, "rested", pause=limit / 1e3)
    said = f"Starlette, uvicorn and httpx alone, at the same pace; {Median(busy) * 1e3:.2f} ms without a pause"
    return Result("an empty route / lab.send, 1 at once", Median(rested) * 1e3, limit, "ms", None, said)


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


def _started() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    address, token, clients, each, name = sys.argv[1:]
    with Client(address, token) as client:
        print(json.dumps(crowd(client.send, int(clients), int(each), name, _started)[0]), flush=True)
