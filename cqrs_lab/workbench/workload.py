"""Order workloads: a made-up shop's events, as many as wanted, the same ones for the same seed (`draws.py` says how).

Owns the numbers behind them. Writes only through `Lab.append_table`, so every event passes the log's own checks;
never touches the database.

Where a number comes from: those marked Olist were counted in 3,008 orders of the public set (Brazilian E-Commerce,
2016 to 2018; times are local). The median is the sample's; sigma is the distance between the quartiles of the
logarithm, divided by 1.349 as for a normal distribution, and rounded. Those not marked are made for learning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from math import fsum
from types import MappingProxyType
from typing import Annotated, Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator
from tqdm.auto import tqdm

from cqrs_lab.app import Lab
from cqrs_lab.errors import InvalidMessage
from cqrs_lab.messages import Value
from cqrs_lab.workbench.draws import (
    BLOCK,
    Bools,
    Floats,
    Ints,
    Spread,
    draw,
    feed,
    lognormal,
    money,
    numbered,
    times,
    uniform,
    whole,
)

LARGE = 200_000  # orders from which a progress bar is worth its line
SLICE = 64 * BLOCK  # events that are made and appended at once: what bounds the memory
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


@dataclass(frozen=True)
class Generated:
    """What `generate` appended.

    Attributes:
        events: of customers and of orders.
        digest: of the two tables (see `digest`): equal digests, equal events.
    """

    customers: int
    orders: int
    events: int
    first_occurred_at: datetime
    last_occurred_at: datetime
    digest: str


def generate(lab: Lab, workload: Workload) -> Generated:
    """Append a workload to a lab of the shop: its customers, then its orders.

    Into an empty log they come with the times at which they were recorded, so that `as_of(recorded=…)` has a past to
    show. A log that has events learns of them now. A large workload comes in parts of four million events, each of
    which is stored whole or not at all.

    Returns:
        How much was appended, when it happened, and a digest of it.

    Raises:
        InvalidMessage: the lab has streams of these ids.
        DeclarationError: the lab's domain has no customers or no orders.
    """
    for category, id in (("customer", f"{workload.prefix}c-000001"), ("order", f"{workload.prefix}o-00000001")):
        if len(lab.events(category=category, stream=f"{category}/{id}")):
            problem = f"prefix: the lab has a {category} {id!r}; choose another one, such as {workload.prefix + 'b-'!r}"
            raise InvalidMessage("Workload", (problem,))
    first_of_all, state = lab.head == 0, blake2b(digest_size=16)
    customers, orders = _customers(workload), _Orders(workload)
    events = customers.num_rows + len(orders.order)

    def made() -> Iterator[tuple[str, pa.Table]]:
        for category, parts in (("customer", [customers]), ("order", orders.tables(SLICE))):
            for part in parts:
                feed(state, part)
                yield category, part

    parts = made()
    with (
        tqdm(total=events, unit=" events", unit_scale=True, disable=workload.orders < LARGE) as bar,
        ThreadPoolExecutor(1) as ahead,  # the next part is made while this one is stored
    ):
        upcoming = ahead.submit(next, parts, None)
        while part := upcoming.result():
            upcoming = ahead.submit(next, parts, None)
            category, table = part
            bar.set_description(f"{category} events")
            lab.append_table(category, table if first_of_all else table.drop_columns("recorded_at"))
            bar.update(table.num_rows)
    start = datetime.combine(workload.start, datetime.min.time(), UTC)
    return Generated(
        customers=customers.num_rows,
        orders=workload.orders,
        events=events,
        first_occurred_at=start,
        last_occurred_at=start + timedelta(seconds=int(orders.occurred.max())),
        digest=state.hexdigest(),
    )


def tables(workload: Workload) -> dict[str, pa.Table]:
    """Return a workload's events as tables for `Lab.append_table`, by category, in the order of recording.

    Events that were recorded in one second stand in order of stage, then of order id; an order's own events never
    occurred in the same second. A log that has events takes the tables without the column recorded_at.

    Returns:
        "customer": id, type, occurred_at, recorded_at, name, email. "order": id, type, occurred_at, recorded_at,
        customer_id, lines, removed, total, freight, amount, method, tracking_number, reason. Money is
        decimal(18, 2); times are UTC, in whole seconds.
    """
    orders = _Orders(workload)
    return {"customer": _customers(workload), "order": next(orders.tables(len(orders.order)))}


def deliveries(workload: Workload) -> pa.Table:
    """Return the order events as a queue hands them over that promises *at least once*: some of them twice.

    Returns:
        The table of orders with a `message_id`, the same for both copies of an event; the second follows up to 50
        rows after the first. The log takes facts as they come, so what is appended like this counts twice: keep the
        first of each id. recorded_at is that of the source; append the rows without it.
    """
    table = tables(workload)["order"]
    version = pl.int_range(1, pl.len() + 1).over("id")
    message_id = pl.DataFrame(table.select(["id"])).select(pl.format("{}/{}", "id", version)).to_series()
    again = np.flatnonzero(uniform(workload.seed, "duplicate", table.num_rows) < workload.duplicates)
    after = again + 1 + whole(uniform(workload.seed, "delivered again", len(again)), 50)
    place = np.argsort(np.concatenate((2 * np.arange(table.num_rows), 2 * after - 1)), kind="stable")
    rows = np.concatenate((np.arange(table.num_rows), again))[place]
    return table.append_column("message_id", message_id.to_arrow()).take(rows)


def _ids(workload: Workload) -> pa.Array:
    return numbered(f"{workload.prefix}c-", workload.customers or max(1, workload.orders // 4), 6)


def _start(workload: Workload) -> int:
    return int((workload.start - date(1970, 1, 1)) / timedelta(seconds=1))


def _customers(workload: Workload) -> pa.Table:
    ids = _ids(workload)
    n, start = len(ids), times(np.full(len(ids), _start(workload)))
    first, last = (
        pa.array(names).take(whole(uniform(workload.seed, what, n), len(names)))
        for what, names in (("first name", FIRST_NAMES), ("last name", LAST_NAMES))
    )
    email = pc.utf8_lower(pc.binary_join_element_wise(first, last, numbered("", n, 6), "."))
    return pa.table(
        {
            "id": ids,
            "type": pa.repeat("CustomerRegistered", n),
            "occurred_at": start,
            "recorded_at": start,
            "name": pc.binary_join_element_wise(first, last, " "),
            "email": pc.binary_join_element_wise(email, "example.org", "@"),
        }
    )


class _Orders:
    """The orders of a workload, and of each of their events the order, the stage and two times, in the log's order.

    Times are seconds from the workload's start.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        shares = [workload.unpaid, workload.cancelled / 2, workload.cancelled / 2]
        shares += [workload.waiting, workload.lost, workload.refunded]
        # fsum and not sum, whose last bit is another one since Python 3.12.
        self.fate = draw(self._uniform("fate"), [*shares, max(1 - fsum(shares), 0)])
        self.method = draw(self._uniform("method"), METHOD_WEIGHTS)
        reached = self._reached()
        # One whole number for each event, so that one sort gives the total order: seconds, then stage, then order.
        key = np.concatenate([recorded * 8 + stage << 27 | order for stage, (order, _, recorded) in enumerate(reached)])
        rank = np.argsort(key)
        self.occurred = np.concatenate([occurred for _, occurred, _ in reached])[rank]
        key = key[rank]
        self.order, self.stage, self.recorded = key & (1 << 27) - 1, key >> 27 & 7, key >> 30

    def tables(self, size: int) -> Iterator[pa.Table]:
        """Yield the events as tables of so many rows."""
        workload, n, start = self.workload, self.workload.orders, _start(self.workload)
        ids, tracking = (numbered(f"{workload.prefix}{letter}-", n, 8) for letter in "ot")
        people = _ids(workload)
        buyer = draw(self._uniform("customer"), 1 / np.sqrt(np.arange(1, len(people) + 1)))
        reason = whole(self._uniform("reason"), len(REASONS))
        lines, goods, units = self._baskets()
        freight = units * lognormal(self._uniform("freight"), FREIGHT)
        back = np.where(self.fate == RETURNED, goods, goods + freight)
        for first in range(0, len(self.order), size):
            rows = slice(first, first + size)
            order, stage = self.order[rows], self.stage[rows]
            at = {name: stage == number for number, name in enumerate(STAGES)}
            wrapping = at["OrderLineAdded"] | at["OrderLineRemoved"]
            yield pa.table(
                {
                    "id": ids.take(order),
                    "type": pa.array(STAGES).take(stage),
                    "occurred_at": times(start + self.occurred[rows]),
                    "recorded_at": times(start + self.recorded[rows]),
                    "customer_id": _where(at["OrderPlaced"], people, buyer[order]),
                    "lines": _where(at["OrderPlaced"] | at["OrderLineAdded"], lines, np.where(wrapping, n, order)),
                    "removed": _where(at["OrderLineRemoved"], lines, np.full(len(order), n)),
                    "total": money(
                        goods[order] + np.where(at["OrderLineAdded"], WRAPPING, 0), at["OrderPlaced"] | wrapping
                    ),
                    "freight": money(freight[order], at["OrderPlaced"]),
                    "amount": money(
                        np.where(at["OrderPaid"], goods[order] + freight[order], back[order]),
                        at["OrderPaid"] | at["OrderRefunded"],
                    ),
                    "method": _where(at["OrderPaid"], pa.array(METHODS), self.method[order]),
                    "tracking_number": _where(at["OrderShipped"], tracking, order),
                    "reason": _where(at["OrderCancelled"] | at["OrderRefunded"], pa.array(REASONS), reason[order]),
                }
            )

    def _reached(self) -> list[tuple[Ints, Ints, Ints]]:
        """Return for each stage which orders reach it, when that occurred and when it was recorded."""
        fate, everyone, placed = self.fate, np.arange(self.workload.orders), self._placed()
        changes, settled = self._changes(placed)
        paying = self._uniform("paying")
        by_transfer = self.method == METHODS.index("transfer")
        paid = settled + np.where(by_transfer, lognormal(paying, TRANSFERRING), lognormal(paying, PAYING))
        shipped = paid + self._after("shipping", SHIPPING)
        delivered = shipped + self._after("delivering", DELIVERING)
        cancelled = np.where(fate == PAID_BACK, paid, settled) + self._after("cancelling", CANCELLING)
        refunded = np.where(fate == PAID_BACK, cancelled, delivered) + self._after("refunding", REFUNDING)
        reached, known = [(everyone, placed, placed), *changes], settled
        for name, there, time in (
            ("paid", fate >= PAID_BACK, paid),
            ("shipped", fate >= LOST, shipped),
            ("delivered", fate >= RETURNED, delivered),
            ("cancelled", (fate == CALLED_OFF) | (fate == PAID_BACK), cancelled),
            ("refunded", (fate == RETURNED) | (fate == PAID_BACK), refunded),
        ):
            # Nothing is recorded before what it follows from: the rules hold in the order of recording.
            late = there & (self._uniform(f"{name} late") < self.workload.late)
            told = np.maximum(known, time + np.where(late, self._after(f"{name} told", LATE), 0))
            known = np.where(there, told, known)
            which = np.flatnonzero(there)
            reached.append((which, time[which], known[which]))
        return reached

    def _placed(self) -> Ints:
        """Return when the orders are placed, in order."""
        workload = self.workload
        weights = np.resize(np.roll(WEEKDAYS, -workload.start.weekday()), workload.days)
        weights[np.unique(whole(self._uniform("promotion", workload.promotions), workload.days))] *= BURST
        day, hour = draw(self._uniform("day"), weights), draw(self._uniform("hour"), HOURS)
        return np.sort(day * DAY + hour * HOUR + whole(self._uniform("second"), HOUR))

    def _changes(self, placed: Ints) -> tuple[list[tuple[Ints, Ints, Ints]], Ints]:
        """Return the changes of hot orders, as `_reached` does, and when the last change of each order occurred."""
        hot, each = np.arange(len(placed))[::1000], self.workload.hot
        gaps = 1 + lognormal(self._uniform("hot", 2 * each * len(hot)), CHANGING).reshape(len(hot), 2 * each)
        occurred = placed[hot, None] + np.cumsum(gaps, axis=1)
        settled = placed.copy()
        settled[hot] += gaps.sum(axis=1)
        order = np.repeat(hot, each)
        added, removed = occurred[:, ::2].ravel(), occurred[:, 1::2].ravel()
        return [(order, added, added), (order, removed, removed)], settled

    def _baskets(self) -> tuple[pa.ListArray, Ints, Ints]:
        """Return the lines of each order, and after all those of a wrapping; its goods in cents; its units."""
        workload = self.workload
        counts = 1 + draw(self._uniform("basket"), BASKET)
        ends = np.concatenate(([0], np.cumsum(counts)))
        product = draw(self._uniform("product", ends[-1]), 1 / np.arange(1, workload.products + 1))
        quantity = 1 + draw(self._uniform("quantity", ends[-1]), QUANTITY)
        prices = lognormal(self._uniform("price", workload.products), PRICE) // 100 * 100 + 90
        goods, units = (np.add.reduceat(part, ends[:-1]) for part in (quantity * prices[product], quantity))
        # The wrapping comes after all products, so that no basket has it.
        product, quantity = np.append(product, workload.products), np.append(quantity, 1)
        columns = {
            "product_id": numbered("p-", workload.products + 1, 4).take(product),
            "quantity": pa.array(quantity),
            "unit_price": money(np.append(prices, WRAPPING)[product]),
        }
        lines = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
        return pa.ListArray.from_arrays(pa.array(np.append(ends, ends[-1] + 1), pa.int32()), lines), goods, units

    def _uniform(self, what: str, n: int | None = None) -> Floats:
        return uniform(self.workload.seed, what, self.workload.orders if n is None else n)

    def _after(self, what: str, delay: Spread) -> Ints:
        return lognormal(self._uniform(what), delay)


def _where(there: Bools, values: pa.Array, row: Ints) -> pa.Array:
    """Return the values of these rows where they are there, NULL elsewhere."""
    return values.take(pa.array(row, mask=~there))
