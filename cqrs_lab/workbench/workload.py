"""Order workloads: a made-up shop's events, as many as wanted, the same ones for the same seed.

Owns the numbers behind them. Writes only through `Lab.append_table`, so every event passes the log's own checks;
never touches the database.

The same seed gives the same rows on any machine. So randomness is the raw output of PCG64, whose stream NumPy keeps
for good (NEP 19; that of `Generator.normal` and the like it may change), and what becomes of it is integers and the
five operations that IEEE 754 rounds in one way only: + - * / and the square root. A log-normal needs an exponential,
whose last bit does differ between machines: it is tabulated once, in whole seconds or cents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from math import exp, fsum
from statistics import NormalDist
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator
from tqdm.auto import tqdm

from cqrs_lab.app import Lab
from cqrs_lab.errors import InvalidMessage
from cqrs_lab.messages import Value

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LARGE = 200_000  # orders from which a progress bar is worth its line
DAY = 86_400
# Few orders at night, a bump at lunch, most in the evening.
HOURS = (20, 10, 5, 3, 3, 5, 12, 25, 45, 60, 68, 72, 75, 70, 66, 64, 62, 60, 64, 72, 78, 76, 60, 38)
BASKET = (60, 22, 10, 5, 3)  # weights of 1 to 5 lines
QUANTITY = (80, 15, 5)  # weights of 1 to 3 units
METHODS, METHOD_WEIGHTS = ("card", "transfer", "voucher"), (75, 20, 5)
REASONS = ("changed my mind", "found it cheaper", "ordered by mistake", "takes too long")
FIRST_NAMES = "Ada Ben Cleo Dan Eva Finn Gita Hugo Iris Jon Kim Lena Max Nora Omar Pia Quin Rosa Sam Tess".split()
LAST_NAMES = "Abel Berg Costa Diaz Engel Falk Gruber Haas Ito Jansen Klein Lund Meyer Novak Okoro Petit Rossi".split()
# In the order in which they may follow each other; events of one second are appended in this order.
STAGES = ("OrderPlaced", "OrderPaid", "OrderShipped", "OrderDelivered", "OrderCancelled")
UNPAID, CALLED_OFF, PAID_BACK, WAITING, LOST, DELIVERED = range(6)  # the fates

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=100_000_000)]


class Workload(Value):
    """What to make up: one seed, one shop.

    Args:
        orders: how many.
        seed: two workloads that differ in nothing else have nothing in common.
        customers: how many; None is a quarter of the orders. How often one orders follows a Zipf law with the
            exponent 1/2.
        products: how many. How often one is bought follows a Zipf law with the exponent 1.
        days: orders are placed within so many days; what happens to them later may happen after.
        start: the first day, UTC; customers are registered as it begins.
        unpaid: share of the orders that nobody pays.
        cancelled: share called off, half of them before they are paid.
        waiting: share paid and not shipped yet.
        lost: share shipped and never delivered. What these four leave is delivered: by default 3.35 events an order.
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
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$", max_length=100)] = ""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if fsum((self.unpaid, self.cancelled, self.waiting, self.lost)) > 1:
            raise ValueError("unpaid, cancelled, waiting and lost are shares of all orders; together they exceed 1")
        return self


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

    Into an empty log they come as if the shop had recorded them while they happened, so that `as_of(recorded=…)` has
    a past to show. A log that has events learns of them now.

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
    first_of_all = lab.head == 0
    made = tables(workload)
    events = sum(table.num_rows for table in made.values())
    with tqdm(total=events, unit=" events", unit_scale=True, disable=workload.orders < LARGE) as bar:
        for category, table in made.items():
            bar.set_description(f"{category} events")
            known = table.append_column("recorded_at", table["occurred_at"]) if first_of_all else table
            lab.append_table(category, known)
            bar.update(table.num_rows)
    return Generated(
        customers=made["customer"].num_rows,
        orders=workload.orders,
        events=events,
        first_occurred_at=made["customer"]["occurred_at"][0].as_py().astimezone(UTC),
        last_occurred_at=made["order"]["occurred_at"][-1].as_py().astimezone(UTC),
        digest=digest(*made.values()),
    )


def tables(workload: Workload) -> dict[str, pa.Table]:
    """Return a workload's events as tables for `Lab.append_table`, by category, in order of time.

    Events of one second stand in order of stage, then of order id; an order's own events never share a second.

    Returns:
        "customer": id, type, occurred_at, name, email. "order": id, type, occurred_at, customer_id, lines, total,
        freight, amount, method, tracking_number, reason. Money is decimal(18, 2); times are UTC, in whole seconds.
    """
    start = int((workload.start - date(1970, 1, 1)) / timedelta(seconds=1))
    customers = _numbered(f"{workload.prefix}c-", workload.customers or max(1, workload.orders // 4), 6)
    return {"customer": _customers(workload, customers, start), "order": _orders(workload, customers, start)}


def _customers(workload: Workload, ids: pa.Array, start: int) -> pa.Table:
    n = len(ids)
    first = pa.array(FIRST_NAMES).take(_draw(_uniform(workload, "first name", n), [1] * len(FIRST_NAMES)))
    last = pa.array(LAST_NAMES).take(_draw(_uniform(workload, "last name", n), [1] * len(LAST_NAMES)))
    email = pc.utf8_lower(pc.binary_join_element_wise(first, last, _numbered("", n, 6), "."))
    return pa.table(
        {
            "id": ids,
            "type": pa.repeat("CustomerRegistered", n),
            "occurred_at": _times(np.full(n, start)),
            "name": pc.binary_join_element_wise(first, last, " "),
            "email": pc.binary_join_element_wise(email, "example.org", "@"),
        }
    )


def _orders(workload: Workload, customers: pa.Array, start: int) -> pa.Table:
    n = workload.orders
    day = np.floor(_uniform(workload, "day", n) * workload.days)
    hour = _draw(_uniform(workload, "hour", n), HOURS)
    placed = np.sort((day * DAY + hour * 3600 + np.floor(_uniform(workload, "second", n) * 3600)).astype(np.int64))
    fate = _fates(workload)
    # Medians near those of real shops: minutes to pay, days to ship, a week to arrive.
    paid = placed + _lognormal(_uniform(workload, "paying", n), median=1_200, sigma=1.5)
    shipped = paid + _lognormal(_uniform(workload, "shipping", n), median=2 * DAY, sigma=0.8)
    delivered = shipped + _lognormal(_uniform(workload, "delivering", n), median=7 * DAY, sigma=0.6)
    cancelled = np.where(fate == PAID_BACK, paid, placed)
    cancelled += _lognormal(_uniform(workload, "cancelling", n), median=DAY // 2, sigma=1.0)
    reached = [
        (placed, np.full(n, True)),
        (paid, fate >= PAID_BACK),
        (shipped, fate >= LOST),
        (delivered, fate == DELIVERED),
        (cancelled, (fate == CALLED_OFF) | (fate == PAID_BACK)),
    ]
    # One whole number for each event, so that one sort gives the total order: seconds, then stage, then order.
    keys = [time[there] * 8 + stage << 27 | np.flatnonzero(there) for stage, (time, there) in enumerate(reached)]
    key = np.sort(np.concatenate(keys))
    order, stage, time = key & (1 << 27) - 1, key >> 27 & 7, key >> 30
    ends, lines, units, total = _baskets(workload)
    freight = 490 + 120 * units + np.floor(_uniform(workload, "freight", n) * 1_000).astype(np.int64)
    buyer = _draw(_uniform(workload, "customer", n), 1 / np.sqrt(np.arange(1, len(customers) + 1)))
    method = _draw(_uniform(workload, "method", n), METHOD_WEIGHTS)
    reason = _draw(_uniform(workload, "reason", n), [1] * len(REASONS))

    def of(name: str, values: pa.Array, per_order: Ints | None = None) -> pa.Array:
        """The values in rows of one type, NULL in the others."""
        row = order if per_order is None else per_order[order]
        return values.take(pa.array(row, mask=stage != STAGES.index(name)))

    return pa.table(
        {
            "id": _numbered(f"{workload.prefix}o-", n, 8).take(order),
            "type": pa.array(STAGES).take(stage),
            "occurred_at": _times(start + time),
            "customer_id": of("OrderPlaced", customers, buyer),
            "lines": _lists(ends, lines, stage == 0),
            "total": of("OrderPlaced", _money(total)),
            "freight": of("OrderPlaced", _money(freight)),
            "amount": of("OrderPaid", _money(total + freight)),
            "method": of("OrderPaid", pa.array(METHODS), method),
            "tracking_number": of("OrderShipped", _numbered(f"{workload.prefix}t-", n, 8)),
            "reason": of("OrderCancelled", pa.array(REASONS), reason),
        }
    )


def _baskets(workload: Workload) -> tuple[Ints, pa.StructArray, Ints, Ints]:
    """Return where each order's lines end (from 0), all lines, and each order's units and total in cents."""
    counts = 1 + _draw(_uniform(workload, "basket", workload.orders), BASKET)
    ends = np.concatenate(([0], np.cumsum(counts)))
    product = _draw(_uniform(workload, "product", ends[-1]), 1 / np.arange(1, workload.products + 1))
    quantity = 1 + _draw(_uniform(workload, "quantity", ends[-1]), QUANTITY)
    prices = _lognormal(_uniform(workload, "price", workload.products), median=4_500, sigma=0.8) // 100 * 100 + 90
    columns = {
        "product_id": _numbered("p-", workload.products, 4).take(product),
        "quantity": pa.array(quantity),
        "unit_price": _money(prices).take(product),
    }
    lines = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    return ends, lines, *(np.add.reduceat(part, ends[:-1]) for part in (quantity, quantity * prices[product]))


def _lists(ends: Ints, lines: pa.StructArray, there: npt.NDArray[np.bool_]) -> pa.ListArray:
    """Return lists of lines in the rows that are `there`, which come in the order of the lists, NULL elsewhere."""
    offsets = ends[np.concatenate(([0], np.cumsum(there)))]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), lines, mask=pa.array(~there))


def _fates(workload: Workload) -> Ints:
    half = workload.cancelled / 2
    shares = [workload.unpaid, half, half, workload.waiting, workload.lost]
    # fsum and not sum, whose last bit is another one since Python 3.12.
    return _draw(_uniform(workload, "fate", workload.orders), [*shares, max(1 - fsum(shares), 0)])


# -- the same on any machine -------------------------------------------------------------------------------------------


def _uniform(workload: Workload, what: str, n: int) -> Floats:
    """Return n numbers in [0, 1), a stream of its own for each purpose: a new one leaves the others as they were."""
    purpose = int.from_bytes(blake2b(what.encode(), digest_size=8).digest(), "big")
    raw = np.random.PCG64(np.random.SeedSequence([workload.seed, purpose])).random_raw(n)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _draw(u: Floats, weights: Sequence[float] | Floats) -> Ints:
    """Return indices of weights, each as often as its weight says (by inverting the cumulated weights)."""
    cumulated = np.cumsum(np.rint(np.asarray(weights, dtype=np.float64) * 2**32).astype(np.int64))
    return np.asarray(np.searchsorted(cumulated, np.floor(u * cumulated[-1]).astype(np.int64), side="right"))


def _lognormal(u: Floats, *, median: int, sigma: float) -> Ints:
    """Return log-normally distributed whole numbers: quantiles from a table, on a straight line between them."""
    points = 4_096
    quantiles = (NormalDist().inv_cdf((i + 0.5) / (points + 1)) for i in range(points + 1))
    table = np.array([round(median * exp(sigma * z)) for z in quantiles], dtype=np.int64)
    place = np.floor(u * points).astype(np.int64)
    step: Ints = np.floor((u * points - place) * (table[place + 1] - table[place])).astype(np.int64)
    return table[place] + step


def _numbered(prefix: str, n: int, width: int) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(np.arange(1, n + 1)).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def _money(cents: Ints) -> pa.Array:
    """Return whole cents as decimal(18, 2): the same digits, so nothing is rounded."""
    return pa.array(cents, pa.int64()).view(pa.decimal64(18, 2)).cast(pa.decimal128(18, 2))


def _times(seconds: Ints) -> pa.Array:
    return pa.array(seconds * 1_000_000, pa.timestamp("us", "UTC"))


def digest(*tables: pa.Table) -> str:
    """Return 32 hexadecimal digits that are equal for tables of equal content, whatever their chunks and encodings.

    Columns count by name and in order, values as they are: numbers and times of up to 64 bits, money, text, structs
    and lists.
    """
    state = blake2b(digest_size=16)
    for table in tables:
        state.update(f"{table.num_rows} rows of {table.num_columns} columns\n".encode())
        for name in table.column_names:
            state.update(f"{len(name)} {name}\n".encode())
            _feed(state, table[name].combine_chunks())
    return state.hexdigest()


def _feed(state: blake2b, values: pa.Array) -> None:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    state.update(np.packbits(values.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    values, kind = values.drop_null(), values.type
    if pa.types.is_struct(kind):
        for field in kind:
            state.update(f"{field.name}\n".encode())
            _feed(state, pc.struct_field(values, field.name))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        state.update(pc.list_value_length(values).to_numpy().astype("<i8").tobytes())
        _feed(state, values.flatten())
    elif pa.types.is_timestamp(kind):
        _feed(state, values.cast(pa.timestamp("us", kind.tz)).cast(pa.int64()))
    elif pa.types.is_integer(kind):
        state.update(values.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
    else:
        text = values.cast(pa.large_string())
        state.update(pc.binary_length(text).to_numpy().astype("<i8").tobytes())
        if len(text):
            _, ends, characters = text.buffers()
            first, last = np.frombuffer(ends, np.int64)[[text.offset, text.offset + len(text)]].tolist()
            state.update(characters.slice(first, last - first))
