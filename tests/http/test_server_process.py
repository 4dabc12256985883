"""The server as a process of its own: sockets, clients that are slow, cut off or many, and its end."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from support import place, wait_until
from support.command_line import PROGRAM, run
from support.processes import environment
from support.serving import memory, order

from cqrs_lab import open_shop
from cqrs_lab.errors import (
    ConcurrencyError,
    IdempotencyConflict,
    InvalidMessage,
    NotAllowed,
    NotServed,
    RuleViolated,
    ServerError,
    UnknownQuery,
)
from cqrs_lab.http import Client
from cqrs_lab.shop import OrderDetails, OrdersOfCustomer, PayOrder, PlaceOrder, SalesByDay
from cqrs_lab.workbench.course import ServedShop

MIB = 2**20


@contextmanager
def connected(served: ServedShop) -> Iterator[socket.socket]:
    """A bare connection."""
    host, port = served.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        yield connection


def head(served: ServedShop, method: str, path: str, **headers: str) -> bytes:
    """The head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: here", f"Authorization: Bearer {served.token}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


def answered(connection: socket.socket, until: bytes = b"\r\n\r\n") -> bytes:
    """What comes, up to a text, or to the end."""
    found = b""
    while until not in found and (part := connection.recv(65_536)):
        found += part
    return found


# -- the client ------------------------------------------------------------------------------------------------------


def test_the_client_is_a_lab_elsewhere(client: Client) -> None:
    """send, ask and events have the names and the answers that a lab's have."""
    receipt = client.send(place("o-1"), correlation_id="story-1")
    assert (receipt.position, receipt.stream, receipt.version) == (1, "order/o-1", 1)
    row = client.ask(OrderDetails(order_id="o-1"), at_least=receipt.position)
    assert row["status"] == "PENDING"
    assert [r["order_id"] for r in client.ask(OrdersOfCustomer(customer_id="c-1"))] == ["o-1"]
    assert client.ask(SalesByDay()) == []
    (event,) = client.events()
    assert (event["position"], event["correlation_id"]) == (1, "story-1")
    assert client.status(receipt.command_id, timeout=10)["state"] == "done"
    assert {row["model"] for row in client.lag()} >= {"order_summary"}
    assert client.send(PayOrder(order_id="o-1", amount=row["total"]), wait=True, timeout=30).version == 2


def test_the_client_raises_what_a_lab_would(client: Client, served: ServedShop) -> None:
    """Each refusal is the error that it is in a lab, with what it tells."""
    client.send(place("o-1"), command_id="k-1")
    with pytest.raises(RuleViolated) as broken:
        client.send(place("o-1"))
    assert (broken.value.rule, broken.value.state) == ("an order is placed once", "PENDING")
    with pytest.raises(ConcurrencyError) as moved:
        client.send(PayOrder(order_id="o-1", amount="1"), expected_version=7)
    assert (moved.value.expected, moved.value.actual) == (7, 1)
    with pytest.raises(IdempotencyConflict):
        client.send(place("o-2"), command_id="k-1")
    with pytest.raises(InvalidMessage, match="lines"):
        client.send(PlaceOrder.model_construct(order_id="o-3", customer_id="c", lines=()))
    with pytest.raises(NotServed):
        client.ask(OrderDetails(order_id="o-1"), at_least=99)

    class Unheard(OrderDetails):
        pass

    with pytest.raises(UnknownQuery):
        client.ask(Unheard(order_id="o-1"))
    with Client(served.address, "wrong") as stranger, pytest.raises(ServerError, match="token") as refused:
        stranger.send(place("o-4"))
    assert refused.value.status == 401
    assert not isinstance(refused.value, NotAllowed)


def test_a_server_that_is_gone_is_said_in_time(store: Path) -> None:
    """Nobody listens: the error says that it is not known whether a command was carried out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Client(address, "t", patience=0.2) as client, pytest.raises(ServerError, match="not known"):
        client.send(place("o-1"))


def test_events_are_taken_up_where_they_were_cut(client: Client, served: ServedShop) -> None:
    """The server is killed and started again under a client that follows: no event is missing, none comes twice."""
    found: list[int] = []

    def follow() -> None:
        with Client(served.address, served.token, patience=120) as follower:
            for event in follower.events(timeout=None):
                found.append(event["position"])
                if event["data"]["order_id"] == "last":
                    return

    thread = threading.Thread(target=follow)
    thread.start()
    for n in range(3):
        last = client.send(place(f"o-{n}")).position
        wait_until(lambda last=last: last in found)
        served.kill()
        served.start()
    client.send(place("last"))
    thread.join(timeout=120)
    assert found == [1, 2, 3, 4]


# -- clients that do as they should not ------------------------------------------------------------------------------


def test_large_bodies_are_refused_and_leave_nothing(served: ServedShop) -> None:
    """64 MiB, declared or not, eight at once: each gets 413, and memory does not grow with them."""
    httpx.get(f"{served.address}/docs", trust_env=False)
    before = memory(served.process.pid)
    statuses: list[int] = []

    def send(declared: bool) -> None:
        body = b"x" * (64 * MIB)
        parts = (body[n : n + MIB] for n in range(0, len(body), MIB))
        headers = {"Authorization": f"Bearer {served.token}", "Content-Type": "application/json"}
        answer = httpx.post(
            f"{served.address}/commands/PlaceOrder",
            content=body if declared else parts,
            headers=headers,
            timeout=120,
            trust_env=False,
        )
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=send, args=(bool(n % 2),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [413] * 8
    assert memory(served.process.pid) - before < 48 * MIB
    with connected(served) as careful:
        told = {"Content-Type": "application/json", "Content-Length": str(64 * MIB), "Expect": "100-continue"}
        careful.sendall(head(served, "POST", "/commands/PlaceOrder", **told))
        assert answered(careful).startswith(b"HTTP/1.1 413 ")  # and not 100


def test_a_thousand_idle_streams_cost_little(client: Client, served: ServedShop) -> None:
    """They are all told the next event, nothing else waits for them, and memory stays bounded."""
    client.send(place("first"))
    before = memory(served.process.pid)
    with ExitStack() as open_:
        streams = [open_.enter_context(connected(served)) for _ in range(1_000)]
        for stream in streams:
            stream.sendall(head(served, "GET", "/events?after=1"))
        for stream in streams:
            assert b" 200 " in answered(stream, b"retry: 1000\n\n")
        threads = Path(f"/proc/{served.process.pid}/task")
        assert len(list(threads.iterdir())) < 64
        position = client.send(place("o-1")).position
        for stream in streams:
            assert b"id: %d\n" % position in answered(stream, b'"o-1"')
        assert memory(served.process.pid) - before < 128 * MIB
    assert client.send(place("o-2")).position == position + 1
    assert served.stop() == 0


def test_cut_connections_and_slow_ones_harm_nobody(client: Client, served: ServedShop) -> None:
    """Some cut a body, some send half a head and wait, some take nothing of a stream: others are served as ever."""
    body = json.dumps(order("cut")).encode()
    told = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    with ExitStack() as open_:
        for _ in range(20):
            with connected(served) as cut:
                cut.sendall(head(served, "POST", "/commands/PlaceOrder", **told) + body[:-5])
            slow = open_.enter_context(connected(served))
            slow.sendall(b"POST /commands/Pl")
            deaf = open_.enter_context(connected(served))
            deaf.sendall(head(served, "GET", "/events"))
        with connected(served) as nonsense:
            nonsense.sendall(b"\x16\x03\x01\x02\x00\r\n\r\n")
            assert b" 400 " in answered(nonsense)
        for n in range(20):
            client.send(place(f"o-{n}"))
        assert len(client.ask(OrdersOfCustomer(customer_id="c-1"), at_least=20, timeout=30)) == 20
        assert client.ask(OrderDetails(order_id="cut")) is None


def test_a_head_without_end_is_refused(client: Client, served: ServedShop) -> None:
    """Lines of a head that never ends are taken up to a bound by either parser, and memory does not grow with it."""
    client.send(place("o-1"))
    before = memory(served.process.pid)
    with connected(served) as endless:
        endless.sendall(b"GET /health HTTP/1.1\r\n")
        with suppress(ConnectionError):
            for number in range(64):
                endless.sendall(b"".join(b"X-%d-%d: %s\r\n" % (number, n, b"x" * 1_000) for n in range(1_000)))
        with suppress(ConnectionError):
            assert answered(endless)[:12] in (b"", b"HTTP/1.1 431", b"HTTP/1.1 400")
    assert memory(served.process.pid) - before < 16 * MIB
    for _ in range(300):  # each is counted by itself
        client.lag()


IMPATIENT = """
import sys
from cqrs_lab import cli
from cqrs_lab.http import limits, server
server.Impatient.seconds = 0.5
server.Limits = lambda: limits.Limits(body_seconds=0.5, send_seconds=0.5)
cli.app()
"""


def test_who_takes_too_long_is_cut_off(store: Path) -> None:
    """A head that does not come, a body that does not come, and a stream that nobody takes: each ends."""
    program = IMPATIENT.replace("cli.app()", "cli.app(['serve', *sys.argv[1:]])")
    with ServedShop(store, program) as served, Client(served.address, served.token) as client:
        with connected(served) as silent, connected(served) as half:
            half.sendall(b"GET /health HTT")
            assert answered(silent) == answered(half) == b""
        with connected(served) as slow:
            told = {"Content-Type": "application/json", "Content-Length": "100"}
            slow.sendall(head(served, "POST", "/commands/PlaceOrder", **told) + b"{")
            assert answered(slow).startswith(b"HTTP/1.1 408 ")
        with connected(served) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.sendall(head(served, "GET", "/events"))
            assert b" 200 " in answered(deaf, b"retry: 1000")
            client.send(place("first"))
            line = {"product_id": "p" * 400, "quantity": 1, "unit_price": "1"}
            sockets = Path(f"/proc/{served.process.pid}/fd")
            many = len(list(sockets.iterdir()))
            for n in range(60):
                client.send(PlaceOrder(**order(f"o-{n}", lines=[line] * 300)))
            wait_until(lambda: len(list(sockets.iterdir())) < many)
        assert client.send(place("after")).position == 62


# -- its beginning and its end ---------------------------------------------------------------------------------------


def test_it_stops_by_ctrl_c_whatever_is_going_on(client: Client, served: ServedShop, store: Path) -> None:
    """Streams end, who waits is told, what is acknowledged is there, and the store can be opened at once."""
    told: list[str] = []
    acknowledged: list[str] = []

    def follow() -> None:
        with Client(served.address, served.token, patience=0) as one:
            try:
                for event in one.events(timeout=None):
                    told.append(event["type"])
            except ServerError:
                told.append("cut")

    def send(number: int) -> None:
        with Client(served.address, served.token, patience=0) as one:
            try:
                for n in range(10_000):
                    one.send(place(f"o-{number}-{n}"))
                    acknowledged.append(f"o-{number}-{n}")
            except ServerError:
                pass

    threads = [threading.Thread(target=follow), *(threading.Thread(target=send, args=(n,)) for n in range(4))]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(acknowledged) > 20)
    assert served.stop() == 0
    for thread in threads:
        thread.join(timeout=60)
    assert told[-1] == "cut"
    with open_shop(store) as lab:
        there = {row["stream"] for row in lab.events().dicts()}
        assert {f"order/{id}" for id in acknowledged} <= there


def test_the_command_says_where_it_listens(store: Path, tmp_path: Path) -> None:
    """With port 0 it names the port it got, and the token it made; Ctrl-C ends it with exit code 0."""
    process = subprocess.Popen(
        [PROGRAM, "serve", "--db", store, "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or "Ctrl-C" not in lines[-1]:
        lines.append(process.stdout.readline())
    said = "".join(lines)
    address = next(word for word in said.split() if word.startswith("http://127.0.0.1:"))
    token = said.split("Token: ")[1].split()[0]
    with Client(address, token) as client:
        assert client.send(place("o-1")).position == 1
    process.send_signal(2)
    assert process.wait(timeout=60) == 0
    assert "Stopped." in process.stdout.read()
    process.stdout.close()


def test_a_port_that_is_taken_is_said(store: Path) -> None:
    """One message and exit code 1; so for a store that somebody has, and for a file of tokens that is none."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = run("serve", "--db", store, "--port", taken.getsockname()[1])
        assert (said.returncode, said.stdout) == (1, "")
        assert "cannot listen at 127.0.0.1" in said.stderr
    assert run("serve", "--db", store, "--token-file", store.with_name("none")).returncode == 1
    with open_shop(store):
        assert "is open in process" in run("serve", "--db", store, "--port", 0).stderr
