"""The shop with fulfilment at work, and a check that every order came to one of its ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cqrs_lab import Domain, Lab
from cqrs_lab.shop import SimulatedGateway, StockProduct, customers, fulfilment, orders, payments, products
from cqrs_lab.shop.orders import Order
from cqrs_lab.write.sagas import Saga
from support import line, place

STOCK = {"pen": 9, "ink": 9, "pad": 1}
ORDER = (line("pen", 2), line("ink"))


@contextmanager
def shop(
    path: Path | str = ":memory:",
    *,
    gateway: Any = None,
    attempts: int = 3,
    stock: Mapping[str, int] | None = None,
    follows: bool = True,
    also: Sequence[Saga] = (),
) -> Iterator[Lab]:
    """Open a shop whose gateway is asked so many times, with stock and, usually, fulfilment at work."""
    domain = Domain(
        deciders=[orders, customers, products],
        services=[payments(gateway or SimulatedGateway(), attempts)],
        sagas=[fulfilment, *also],
    )
    with Lab(path, domain=domain, threads=1) as lab:
        if follows:
            lab.follow(fulfilment)
        for product, units in ({"pen": 5, "ink": 5} if stock is None else stock).items():
            lab.send(StockProduct(product_id=product, quantity=units))
        yield lab


def state(lab: Lab, decider: Any, id: str) -> Any:
    """Return what a stream folds to."""
    return decider.fold(r.event for r in lab._log.read(decider.log_category, id))


def types(lab: Lab, after: int = 0) -> list[str]:
    """Return the types of all events."""
    return [row["type"] for row in lab.events(after=after).dicts()]


def story(lab: Lab) -> list[tuple[str, str, str]]:
    """Return all that happened, but for ids and times."""
    return [(row["stream"], row["type"], row["data"]) for row in lab.events().dicts()]


def units(order: Order) -> Counter[str]:
    """Return how much an order has of each product."""
    return sum((Counter({one.product_id: one.quantity}) for one in order.lines), Counter())


def check(
    lab: Lab, gateway: Any, placed: Sequence[str], stocked: Mapping[str, int], by_hand: Sequence[str] = ()
) -> None:
    """Assert that every order came to one of its two ends, and that nothing is left over."""
    held: dict[str, Counter[str]] = {id: Counter() for id in placed}
    for product, count in stocked.items():
        stock = state(lab, products, product)
        assert stock.available + sum(stock.reserved.values()) == count
        for id, n in stock.reserved.items():
            held[id][product] += n
    for id in placed:
        order = state(lab, orders, id)
        assert order.status in ("SHIPPED", "CANCELLED"), (id, story(lab))
        if order.status == "SHIPPED":
            assert held[id] == units(order), id
            assert gateway.charged(id) == (0 if id in by_hand else order.due), (id, story(lab))
            charges = [moved for moved in gateway.statement if moved.order_id == id]
            assert id in by_hand or len(charges) == (1 if order.due else 0), charges
        else:
            assert (held[id], gateway.charged(id)) == (Counter(), 0), (id, story(lab))
            assert id in by_hand or order.paid == 0, id


def prepare(path: Path | str, placed: Sequence[str]) -> None:
    """Make a store with orders that nothing has been done about; those that end with "refused" want too much."""
    with shop(path, stock=STOCK, follows=False) as lab:
        for id in placed:
            lab.send(place(id, line("pen"), line("pad", 2)) if id.endswith("refused") else place(id, *ORDER))
