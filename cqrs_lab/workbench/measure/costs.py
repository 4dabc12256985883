"""The costs of a serving: what writing, refreshing and keeping its rows take, and the steps of projections.

Owns how they are measured, and the projection row by row that they are compared with. What writes, it does to a copy on
disk, but for the orders of `time_steps`, which are placed in the lab.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from cqrs_lab.app import Lab
from cqrs_lab.errors import QueryError
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.messages import Event, Recorded
from cqrs_lab.read.projection import Model, Projection, RowsToHandle
from cqrs_lab.shop import OrderLine, PlaceOrder
from cqrs_lab.shop.orders import orders
from cqrs_lab.sql.names import literal
from cqrs_lab.workbench.measure.timing import timed_ms

BY_HAND = "row by row"
COSTS = ("write_ms", "refresh_ms", "event_ms", "bytes")
_WRITES, _BATCH = 7, 50  # how often a command is timed; how many events are a batch


def order_summary_by_hand() -> Projection:
    """Return order_summary as handlers in Python make it, one event at a time; without the customer's name and email.

    A handler finds rows by key alone, and a customer's orders have another one.
    """
    kinds = {"order_id": str, "customer_id": str, "status": str, "total": Decimal, "paid": Decimal, "item_count": int}
    kinds |= {"version": int, "created_at": datetime, "updated_at": datetime}
    made = Projection("order_summary_by_hand", key="order_id", columns=kinds)
    stages = ["PENDING", "PAID", "SHIPPED", "DELIVERED", "CANCELLED"]
    reached = {"OrderPaid": 1, "OrderShipped": 2, "OrderDelivered": 3, "OrderCancelled": 4}

    def handle(recorded: Recorded, rows: RowsToHandle) -> None:
        event: Any = recorded.event
        at = recorded.occurred_at
        row = rows.get(event.order_id) or {
            "order_id": event.order_id, "status": "PENDING", "paid": Decimal(0), "item_count": 0, "updated_at": at
        }  # fmt: skip
        stage = max(stages.index(row["status"]), reached.get(recorded.type, 0))
        row |= {"status": stages[stage], "version": recorded.version, "updated_at": max(row["updated_at"], at)}
        if recorded.type == "OrderPlaced":
            row |= {"customer_id": event.customer_id, "created_at": at}
        if getattr(event, "total", None) is not None:
            row["total"] = event.total
        row["item_count"] += sum(line.quantity for line in getattr(event, "lines", ()))
        row["item_count"] -= sum(line.quantity for line in getattr(event, "removed", ()))
        amount = getattr(event, "amount", None) or 0
        row["paid"] += -amount if recorded.type == "OrderRefunded" else amount
        rows.put(**row)

    for event in orders.events:
        made.on(event)(handle)
    return made


def takes_orders(lab: Lab) -> bool:
    """Whether orders can be placed in a lab."""
    return any(PlaceOrder in decider.commands for decider in lab.domain.deciders)


@contextmanager
def copied(lab: Lab, *, is_needed: bool) -> Iterator[Lab]:
    """A copy of the store on disk, whose commands are as durable as any and change nothing of the lab."""
    if not is_needed:
        yield lab
        return
    with TemporaryDirectory(prefix="cqrs_lab_") as folder:
        path = Path(folder) / "copy.duckdb"
        lab.backup(path)
        with Lab(path, domain=lab.domain) as copy:
            yield copy


def costs_of(copy: Lab, model: Model, ways: Sequence[str], chance: random.Random) -> dict[str, dict[str, float]]:
    """Return, for each way, what COSTS are in a copy of the store that nobody else uses."""
    found: dict[str, dict[str, float]] = {way: {"bytes": 0} for way in ways}
    moves: dict[str, Callable[[], object]] = {}
    database = copy.as_of(position=copy.head).catalog.log.database
    for way in ways:
        if way != "view":
            served = copy.serve(order_summary_by_hand()) if way == BY_HAND else copy.serve(model, as_=way)  # type: ignore[arg-type]
            moves[way] = served.refresh if way == "materialized" else served.catch_up
            database.checkpoint()
            table = literal(f"{served.as_}.{served.model.name}")
            found[way]["bytes"] = database.execute(
                "SELECT (SELECT count(DISTINCT block_id) FROM pragma_storage_info("
                f"{table}) WHERE block_id >= 0) * (SELECT block_size FROM pragma_database_size())"
            )[0][0]
    place = _placing(copy) if takes_orders(copy) else _recording(copy, model)
    if place is None:
        return found
    taken: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(_WRITES):
        for size in (1, _BATCH):
            for move in moves.values():
                move()
            taken["alone", size].append(timed_ms(partial(place, size)))
            for way in chance.sample(list(moves), len(moves)):
                taken[way, size].append(timed_ms(moves[way]))
        if "projection" in ways:
            copy.serve(model, mode="inline")
            taken["inline", 1].append(timed_ms(place))
            copy.serve(model, mode="manual")
    medians = {what: median(times) for what, times in taken.items()}
    for way in ways:
        batch, one = (medians.get((way, size), 0.0) for size in (_BATCH, 1))
        found[way] |= {
            "write_ms": medians["inline" if way == "projection" else "alone", 1],
            "refresh_ms": one,
            "event_ms": 0.0 if way == "materialized" else max(0.0, batch - one) / (_BATCH - 1),
        }
    return found


def _placing(copy: Lab) -> Callable[..., object]:
    """What places so many orders, in one transaction."""
    numbers, line = count(), OrderLine(product_id="p", quantity=1, unit_price=Decimal(1))

    def place(orders: int = 1) -> None:
        id = f"measured-{copy.head}-"
        copy.send_many(
            [PlaceOrder(order_id=f"{id}{next(numbers)}", customer_id="measured", lines=(line,)) for _ in range(orders)]
        )

    return place


def _recording(copy: Lab, model: Model) -> Callable[..., object] | None:
    """What records the latest event that a read model follows once more, so many times, each in a stream of its own.

    None where there is none, or where its key is no text, so that nobody can make up another one.
    """
    tables = {table.lower() for table in copy.as_of(position=copy.head).catalog.tables_of(model)}
    deciders = [decider for decider in copy.domain.deciders if decider.log_category.table.lower() in tables]
    for decider in deciders:
        latest = copy.events(category=decider.category, descending=True, limit=1).dicts()
        if not latest:
            continue
        after = latest[0]["position"] - 1
        recorded = next(iter(copy.subscribe(after, category=decider.category, timeout=1)), None)
        if recorded is not None and isinstance(getattr(recorded.event, decider.key), str):
            return partial(_record, copy, decider.category, decider.key, recorded.event, count())
    return None


def _record(copy: Lab, category: str, key: str, event: Event, numbers: Iterator[int], events: int = 1) -> None:
    for _ in range(events):
        id = f"measured-{copy.head}-{next(numbers)}"
        copy.record(f"{category}/{id}", event.model_copy(update={key: id}))


def time_steps(
    lab: Lab, models: Sequence[ReadModel], sizes: Sequence[int] = (1, 10, 100, 1_000), runs: int = 2
) -> pl.DataFrame:
    """Time how long projections take to follow batches of new orders, which are placed in the lab.

    Args:
        models: served as projections, and brought up to date first.
        sizes: how many orders, an event each, are placed before a step.
        runs: how often each is measured; the fastest counts, because what else the machine does only adds.

    Returns:
        A frame with events, model and ms.

    Raises:
        QueryError: the lab takes no orders.
    """
    if not takes_orders(lab):
        raise QueryError("time_steps places orders, which this lab does not take; use compare_latency(lab, model)")
    servings = [lab.serve(model) for model in models]
    lab.catch_up()
    prefix, numbers, line = f"step-{lab.head}-", count(), OrderLine(product_id="p", quantity=1, unit_price=Decimal(1))
    taken: dict[tuple[int, str], float] = {}
    for size in [*sizes] * runs:
        lab.send_many(
            [PlaceOrder(order_id=f"{prefix}{next(numbers)}", customer_id="c", lines=(line,)) for _ in range(size)]
        )
        for served in servings:
            what, ms = (size, served.model.name), timed_ms(served.catch_up)
            taken[what] = min(ms, taken.get(what, ms))
    rows = [(events, model, ms) for (events, model), ms in taken.items()]
    return pl.DataFrame(rows, schema=["events", "model", "ms"], orient="row")
