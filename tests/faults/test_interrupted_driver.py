"""Ctrl-C while a shop is driven."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from support import wait_until

from cqrs_lab import open_shop
from cqrs_lab.shop import order_summary
from cqrs_lab.workbench import Workload, drive, generate

SMALL = Workload(orders=60, seed=3)


@pytest.fixture
def lab():
    """A shop with a small workload, and order_summary kept up to date in the background."""
    with open_shop(threads=1) as shop:
        generate(shop, SMALL)
        shop.serve(order_summary, mode="background")
        yield shop


def workers():
    """Return the driver's threads that run."""
    return [one for one in threading.enumerate() if one.name == "cqrs_lab driver"]


@pytest.mark.skipif(os.name == "nt", reason="Windows ends the process instead")
def test_ctrl_c_stops_all_threads(lab, monkeypatch):
    """Ctrl-C reaches the caller of drive() before the run is over, and no thread goes on."""
    ask, once, asked = lab.ask, iter([signal.SIGINT]), []

    def ask_and_press(query, **more):
        asked.append(query)
        for pressed in once:
            os.kill(os.getpid(), pressed)
        return ask(query, **more)

    monkeypatch.setattr(lab, "ask", ask_and_press)
    # A process that a shell put into the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            drive(lab, seconds=60, reads=50, writes=10, progress=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(asked) < 3_000  # which are all that were to come
    wait_until(lambda: not workers())
