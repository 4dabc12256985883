"""A generated shop: the events of a workload, as tables and in a lab.

Owns how the numbers of `workload.py` become customers, orders and what became of them, by the draws of `draws.py`.
Writes only through `Lab.append_table`, so every event passes the log's own checks; never touches the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from math import fsum

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from tqdm.auto import tqdm

from cqrs_lab.app import Lab
from cqrs_lab.errors import InvalidMessage
from cqrs_lab.workbench.data.draws import (
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
from cqrs_lab.workbench.data.workload import (
    BASKET,
    BURST,
    CALLED_OFF,
    CANCELLING,
    CHANGING,
    DAY,
    DELIVERING,
    FIRST_NAMES,
    FREIGHT,
    HOUR,
    HOURS,
    LAST_NAMES,
    LATE,
    LOST,
    METHOD_WEIGHTS,
    METHODS,
    PAID_BACK,
    PAYING,
    PRICE,
    QUANTITY,
    REASONS,
    REFUNDING,
    RETURNED,
    SHIPPING,
    STAGES,
    TRANSFERRING,
    WEEKDAYS,
    WRAPPING,
    Workload,
)

LARGE = 200_000  # orders from which a progress bar is worth its line
SLICE = 64 * BLOCK  # events that are made and appended at once: what bounds the memory


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
    # Nothing can have been recorded in a far future: what happens then is recorded as of now.
    is_near = workload.start + timedelta(workload.days) < date.today() + timedelta(1_000)
    first_of_all, state = lab.head == 0 and is_near, blake2b(digest_size=16)
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
