"""Stock: what the shop has of each product, what is promised to whom, and what it costs.

Declarations only: messages and two pure functions. What is reserved for an order and never released is sold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from cqrs_lab.errors import RuleViolated
from cqrs_lab.messages import Command, Event, Id
from cqrs_lab.shop.orders import Amount
from cqrs_lab.write.decider import Decider

Units = Annotated[int, Field(ge=1)]


class StockProduct(Command):
    """Put units of a product on the shelf."""

    product_id: Id
    quantity: Units


class ReserveStock(Command):
    """Keep units of a product for an order."""

    product_id: Id
    order_id: Id
    quantity: Units


class ReleaseStock(Command):
    """Give back what is reserved for an order: some units, or all when None."""

    product_id: Id
    order_id: Id
    quantity: Units | None = None


class ChangePrice(Command):
    """Give a product another price."""

    product_id: Id
    unit_price: Amount


class ProductStocked(Event):
    """Units of a product came in."""

    product_id: Id
    quantity: Units


class StockReserved(Event):
    """Units of a product are kept for an order."""

    product_id: Id
    order_id: Id
    quantity: Units


class StockReleased(Event):
    """Units that were kept for an order are free again."""

    product_id: Id
    order_id: Id
    quantity: Units


class PriceChanged(Event):
    """A product has another price."""

    product_id: Id
    unit_price: Amount


@dataclass(frozen=True)
class Stock:
    """What the rules need to know of a product.

    Attributes:
        available: units on the shelf that nobody was promised.
        reserved: order -> units kept for it.
        price: None until it is set.
    """

    available: int = 0
    reserved: Mapping[str, int] = field(default_factory=dict)
    price: Decimal | None = None


def decide(command: Command, stock: Stock) -> Sequence[Event]:
    """Return the events that a command leads to, or raise RuleViolated."""
    match command:
        case StockProduct():
            return [ProductStocked(product_id=command.product_id, quantity=command.quantity)]
        case ReserveStock():
            if command.quantity > stock.available:
                wanted = f"{stock.available} available, {command.quantity} wanted"
                raise RuleViolated("only what is available is reserved", wanted)
            return [StockReserved(**dict(command))]
        case ReleaseStock():
            held = stock.reserved.get(command.order_id, 0)
            quantity = held if command.quantity is None else command.quantity
            if not 0 < quantity <= held:
                raise RuleViolated("only what is reserved is released", f"{held} reserved for {command.order_id}")
            return [StockReleased(product_id=command.product_id, order_id=command.order_id, quantity=quantity)]
        case ChangePrice():
            return [] if command.unit_price == stock.price else [PriceChanged(**dict(command))]
    raise TypeError(f"stock does not handle {type(command).__name__}")


def evolve(stock: Stock, event: Event) -> Stock:
    """Return the stock of a product after an event."""
    match event:
        case ProductStocked():
            return replace(stock, available=stock.available + event.quantity)
        case StockReserved():
            return _moved(stock, event.order_id, event.quantity)
        case StockReleased():
            return _moved(stock, event.order_id, -event.quantity)
        case PriceChanged():
            return replace(stock, price=event.unit_price)
    raise TypeError(f"stock does not know {type(event).__name__}")


def _moved(stock: Stock, order: str, units: int) -> Stock:
    """Move units from the shelf to an order, or back."""
    held = {**stock.reserved, order: stock.reserved.get(order, 0) + units}
    return replace(stock, available=stock.available - units, reserved={o: n for o, n in held.items() if n})


products = Decider(
    category="product",
    key="product_id",
    initial=Stock(),
    decide=decide,
    evolve=evolve,
    commands=[StockProduct, ReserveStock, ReleaseStock, ChangePrice],
    events=[ProductStocked, StockReserved, StockReleased, PriceChanged],
    snapshot_every=100,  # a product that sells well has a long stream
)
