"""Order workloads: a made-up shop's events, as many as wanted, the same ones for the same seed (`draws.py` says how).

Owns what a workload says and the numbers behind it; `generated.py` makes the events of them.

Where a number comes from: those marked Olist were counted in 3,008 orders of the public set (Brazilian E-Commerce,
2016 to 2018; times are local). The median is the sample's; sigma is the distance between the quartiles of the
logarithm, divided by 1.349 as for a normal distribution, and rounded. Those not marked are made for learning.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from math import fsum
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import Field, model_validator

from cqrs_lab.errors import InvalidMessage
from cqrs_lab.messages import Value
from cqrs_lab.workbench.data.draws import Spread

HOUR, DAY = 3_600, 86_400

# Olist: orders placed in each hour of the day, and on each day of the week from Monday.
HOURS = (70, 37, 20, 11, 8, 8, 13, 29, 78, 147, 171, 242, 174, 215, 206, 178, 201, 178, 179, 183, 182, 184, 168, 126)
WEEKDAYS = (467, 440, 493, 459, 454, 340, 355)
BURST = 5  # Olist: 42 orders on Black Friday 2017, 8.4 on the days two weeks around it
BASKET = (2901, 75, 4, 6)  # Olist: orders with 1 to 4 different products (2 of 2,988 have more)
QUANTITY = (2913, 143, 29, 7, 5, 3)  # Olist: lines with 1 to 6 units
PRICE = Spread(7_490, 0.9)  # cents; Olist: prices of items; the ending that most have is .90
FREIGHT = Spread(1_620, 0.35)  # cents for each unit; Olist: freight of items, of 2 it is twice that
METHODS = ("card", "transfer", "voucher")
METHOD_WEIGHTS = (2_367, 588, 135)  # Olist: payments; its boleto is a transfer
# Olist: card payments are approved in minutes, boletos the day after; then the carrier gets the parcel, then the buyer.
PAYING = Spread(17 * 60, 0.9)
TRANSFERRING = Spread(29 * HOUR, 0.75)
SHIPPING = Spread(45 * HOUR, 1.0)
DELIVERING = Spread(170 * HOUR, 0.75)
CHANGING = Spread(60, 1.0)
CANCELLING = Spread(12 * HOUR, 1.0)
REFUNDING = Spread(72 * HOUR, 0.8)
LATE = Spread(DAY, 1.0)  # what banks and carriers say may come so much later
WRAPPING = 490  # cents for a gift wrapping
REASONS = ("changed my mind", "found it cheaper", "ordered by mistake", "takes too long")
FIRST_NAMES = "Ada Ben Cleo Dan Eva Finn Gita Hugo Iris Jon Kim Lena Max Nora Omar Pia Quin Rosa Sam Tess".split()
LAST_NAMES = "Abel Berg Costa Diaz Engel Falk Gruber Haas Ito Jansen Klein Lund Meyer Novak Okoro Petit Rossi".split()
# In the order in which they may follow each other; what is recorded in the same second is appended in this order.
STAGES = (
    "OrderPlaced", "OrderLineAdded", "OrderLineRemoved", "OrderPaid", "OrderShipped", "OrderDelivered",
    "OrderCancelled", "OrderRefunded",
)  # fmt: skip
UNPAID, CALLED_OFF, PAID_BACK, WAITING, LOST, RETURNED, FINE = range(7)  # the fates

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=100_000_000)]


class Workload(Value):
    """What to make up: one seed, one shop.

    Hours, weekdays, baskets, prices, delays and payments are those of the public Olist set. Customers, products and
    fates are not: there 97 of 100 orders are delivered, and nearly nobody comes twice, so that there is little to see.

    Args:
        orders: how many.
        seed: two workloads that differ in nothing else have nothing in common.
        customers: how many; None is a quarter of the orders. How often one orders follows a Zipf law with the
            exponent 1/2.
        products: how many. How often one is bought follows a Zipf law with the exponent 1.
        days: orders are placed within so many days; what happens to them later may happen after.
        start: the first day, UTC; customers are registered as it begins.
        unpaid: share of the orders that nobody pays.
        cancelled: share called off: half of them before they are paid, the others get their money back.
        waiting: share paid and not shipped yet.
        lost: share shipped and never delivered.
        refunded: share delivered and paid back, but for the freight. What these five leave is delivered and kept: by
            default 3.43 events an order.
        promotions: days on which five times as many orders are placed; two may fall on the same day.
        late: share of the payments and of all that follows which is recorded later than it occurred, by a day or so.
            Then the log is not in the order in which things happened.
        hot: every thousandth order adds a gift wrapping and takes it out again, so many times: a few long streams.
        duplicates: share of the events that `deliveries` hands over twice; the events are the same.
        prefix: what ids of orders and customers begin with, so that several workloads fit into one lab.

    Raises:
        InvalidMessage: a value out of its range.
    """

    orders: Count = 10_000
    seed: Annotated[int, Field(ge=0)] = 7
    customers: Count | None = None
    products: Count = 500
    days: Annotated[int, Field(ge=1, le=3_660)] = 90
    start: Annotated[date, Field(ge=date(1900, 1, 1), le=date(2900, 1, 1))] = date(2025, 1, 1)
    unpaid: Share = 0.12
    cancelled: Share = 0.09
    waiting: Share = 0.05
    lost: Share = 0.05
    refunded: Share = 0.03
    promotions: Annotated[int, Field(ge=0, le=3_660)] = 2
    late: Share = 0.0
    hot: Annotated[int, Field(ge=0, le=10_000)] = 0
    duplicates: Share = 0.0
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$", max_length=100)] = ""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if fsum((self.unpaid, self.cancelled, self.waiting, self.lost, self.refunded)) > 1:
            raise ValueError(
                "unpaid, cancelled, waiting, lost and refunded are shares of all orders; together they exceed 1"
            )
        return self

    @classmethod
    def preset(cls, name: str) -> Workload:
        """Return a workload by name: tiny, workshop, million or ten_million.

        Raises:
            InvalidMessage: there is none of that name.
        """
        if name not in PRESETS:
            raise InvalidMessage("Workload", (f"preset: there are {', '.join(PRESETS)}, not {name!r}",))
        return PRESETS[name]


PRESETS: Mapping[str, Workload] = MappingProxyType(
    {
        "tiny": Workload(orders=300, seed=1, days=28, products=40, late=0.05, hot=20, duplicates=0.02),
        "workshop": Workload(orders=20_000),
        "million": Workload(orders=275_000),
        "ten_million": Workload(orders=2_750_000),
    }
)
"""`tiny` has some of everything and is kept in data/; `workshop` has 20,000 orders, the last two so many events."""
