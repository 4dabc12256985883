"""A shop in memory, a client of it, and a shop that a process of its own serves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serving import TestClient, inside

from cqrs_lab import Lab, open_shop
from cqrs_lab.http import Client
from cqrs_lab.shop import order_summary
from cqrs_lab.workbench.course import ServedShop, served_shop


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A shop in memory, whose orders are served in the background."""
    with open_shop(threads=2) as shop:
        shop.serve(order_summary, mode="background")
        yield shop


@pytest.fixture
def web(lab: Lab) -> Iterator[TestClient]:
    """A client of it, who is the owner."""
    with inside(lab) as client:
        yield client


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store whose orders are served in the background, closed."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path, threads=2) as shop:
        shop.serve(order_summary, mode="background")
    return path


@pytest.fixture
def served(store: Path) -> Iterator[ServedShop]:
    """The same, served by another process."""
    with served_shop(store) as shop:
        yield shop


@pytest.fixture
def client(served: ServedShop) -> Iterator[Client]:
    """A client of that process."""
    with Client(served.address, served.token) as found:
        yield found
