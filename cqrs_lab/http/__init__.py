"""A lab behind HTTP: `app` for a server, `Client` for a program elsewhere, `serve` for the two lines in between.

Owns the way in. Starlette, uvicorn, httpx and cloudevents come with the extra `serve`, and nothing of them is imported
before one of these names is used::

    with open_shop("shop.duckdb") as lab:
        serve(lab)                                   # says where it listens, and the token to show

    with Client("http://127.0.0.1:8765", token) as shop:
        receipt = shop.send(PlaceOrder(…))
        shop.ask(OrderDetails(order_id="o-1"), at_least=receipt.position)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from cqrs_lab.errors import ExtraMissing
from cqrs_lab.http.limits import Limits

__all__ = ["Client", "Limits", "app", "serve"]

_HOMES = {"Client": "client", "app": "routes", "serve": "server"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(part(_HOMES[name]), name)


def part(name: str) -> Any:
    """Return a module of this package.

    Raises:
        ExtraMissing: a package that it needs is not installed.
    """
    try:
        return import_module(f"cqrs_lab.http.{name}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("cqrs_lab"):
            raise
        raise ExtraMissing(
            f'cqrs_lab.http needs {error.name}, which is not installed; install it with: pip install "cqrs-lab[serve]"'
        ) from error
