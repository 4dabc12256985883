"""The server is killed again and again while clients send: nothing acknowledged is lost, nothing is done twice.

Use: python tests/http/killing.py KILLS [--clients N] [--seed N]

Every client sends until it has an answer, each command under a key of its own. A command adds a unit of a product,
which no rule forbids to do twice: an event too many would stay.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from cqrs_lab import open_shop
from cqrs_lab.http import Client
from cqrs_lab.shop import StockProduct, order_summary
from cqrs_lab.tools.scan import scan
from cqrs_lab.workbench.course import ServedShop, served_shop

Acknowledged = dict[str, int]  # key -> position


class Wrong(Exception):
    """Something was lost, or done twice."""


def sending(served: ServedShop, number: int, is_over: threading.Event, done: Acknowledged, told: Counter[str]) -> None:
    """Send until it is over; whatever was begun is sent again until it is answered."""
    with Client(served.address, served.token, patience=300) as client:
        count = 0
        while not is_over.is_set():
            key, count = f"client-{number}-{count}", count + 1
            command = StockProduct(product_id=f"p-{number}", quantity=1)
            receipt = client.send(command, command_id=key)
            if random.random() < 0.1 and client.send(command, command_id=key).position != receipt.position:
                raise Wrong(f"{key} has two receipts")
            done[key] = receipt.position
            told["acknowledged"] += 1


def kill(kills: int, clients: int, rng: random.Random) -> Counter[str]:
    """Kill so many times, and look at the store at the end.

    Raises:
        Wrong: something is not as it was acknowledged.
    """
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.duckdb"
        with open_shop(path) as lab:
            lab.serve(order_summary, mode="background")
        done: Acknowledged = {}
        is_over, failed = threading.Event(), []

        def guarded(number: int) -> None:
            try:
                sending(served, number, is_over, done, told)
            except BaseException as error:
                failed.append(error)

        with served_shop(path) as served:
            threads = [threading.Thread(target=guarded, args=(number,)) for number in range(clients)]
            for thread in threads:
                thread.start()
            for _ in range(kills):
                before = len(done)
                while len(done) == before and not failed:
                    time.sleep(0.01)
                time.sleep(rng.random() ** 2)
                served.kill()
                told["killed"] += 1
                served.start()
            is_over.set()
            for thread in threads:
                thread.join()
        if failed:
            raise Wrong(f"a client failed: {failed[0]!r}") from failed[0]
        bad = [finding for finding in scan(path) if finding.status == "FAIL"]
        if bad:
            raise Wrong(f"the store is not whole: {bad}")
        with open_shop(path) as lab:
            there = Counter((row["command_id"], row["position"]) for row in lab.events(category="product").dicts())
        if there != Counter(done.items()):
            lost, extra = Counter(done.items()) - there, there - Counter(done.items())
            raise Wrong(f"lost: {dict(lost)}; not acknowledged, or twice: {dict(extra)}")
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kills", type=int)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    counted = kill(asked.kills, asked.clients, random.Random(asked.seed))
    sys.stdout.writelines(f"{times:8,} {line}\n" for line, times in sorted(counted.items()))
