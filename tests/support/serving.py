"""A shop behind HTTP, in this process and in another, and clients that do as they should not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cqrs_lab import Lab
from cqrs_lab.http import Client, app

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette 1.10 would rather have httpx2
    from starlette.testclient import TestClient

TOKENS = {"secret-of-the-owner": "owner", "secret-of-ann": "ann"}
LINES = [{"product_id": "p-1", "quantity": 2, "unit_price": "9.99"}]


def order(order_id: str, **more: Any) -> dict[str, Any]:
    """The body of a command that places an order."""
    return {"order_id": order_id, "customer_id": "c-1", "lines": LINES, **more}


@contextmanager
def inside(lab: Lab, token: str = "secret-of-the-owner", **options: Any) -> Iterator[TestClient]:
    """A client of a lab in this process, without a socket."""
    made = app(lab, tokens=TOKENS, **options)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with TestClient(made, headers=headers, raise_server_exceptions=False) as client:
        yield client


def memory(pid: int) -> int:
    """Bytes of memory that a process has in use."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


__all__ = ["LINES", "TOKENS", "Client", "TestClient", "inside", "memory", "order"]
