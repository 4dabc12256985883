"""The live driver: commands and queries at a given rate, from threads, every single one timed.

Owns the schedule, the threads and the clock. The loop is open: every call has an intended moment, drawn before the run
begins and kept however slow the answers are. A latency counts from that moment, so that the time which a call waited
because others were slow is in it (Gil Tene's "coordinated omission" is what leaves it out).
"""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import polars as pl
from tqdm.auto import tqdm

from cqrs_lab.app import Lab
from cqrs_lab.errors import QueryError
from cqrs_lab.messages import Command, Message, Query
from cqrs_lab.read.projection import Model
from cqrs_lab.read.served import Served
from cqrs_lab.read.table import ServedAs
from cqrs_lab.shop import (
    DeliverOrder,
    OrderDetails,
    OrderLine,
    OrdersOfCustomer,
    PayOrder,
    PlaceOrder,
    ShipOrder,
    order_summary,
)
from cqrs_lab.store.rows import Rows
from cqrs_lab.store.shown import said
from cqrs_lab.workbench.measure.costs import takes_orders

_GLANCE = 0.1  # seconds between two looks of a sleeping thread at whether the run is over
_GRACE = 5.0  # seconds that a thread gets to end the call it is in
_CALIBRATION = 2.0  # seconds, at most, of calls that do nothing
_KNOWN = 1_000  # orders that are asked for
_TOGETHER = 24  # orders that are under way at a time
_LINE = OrderLine(product_id="p-driven", quantity=1, unit_price=Decimal("9.90"))


class _Call(NamedTuple):
    """One call of the schedule: its moment, in seconds from the start, and what is sent or asked."""

    number: int
    at: float
    message: Message
    lane: int = 0  # commands of one lane are sent one after the other


class _Done(NamedTuple):
    """What became of a call; times in seconds from the start."""

    number: int
    started_at: float | None
    ended_at: float
    staleness_events: int | None
    error: str | None


@dataclass(frozen=True)
class Driven:
    """What a live run gave.

    Attributes:
        frame: every single call, in order of its intended moment: kind (read or write), question (the type of the
            query or command), served_as, intended_at and started_at (seconds from the start), ms (from the intended
            moment to the answer), service_ms (from the start of the call), staleness_events (of a read: events in the
            log that the serving did not tell as the read began), ok and error.
        seconds: how long the schedule was.
        took: seconds from the start to the last answer.
        cores: how many cores the process kept busy meanwhile, on average.
        overhead: the driver's own share of that, measured with calls that do nothing at the same rate.
    """

    frame: pl.DataFrame = field(repr=False)
    seconds: float
    took: float
    cores: float
    overhead: float

    @property
    def is_held(self) -> bool:
        """Whether every call was answered, and the last of them hardly later than it was meant to be."""
        return bool(self.frame["ok"].all()) and self.took <= self.seconds * 1.01 + 0.5

    def summary(self) -> pl.DataFrame:
        """Return a row for each kind of call: how many, how many failed, latencies, staleness seen."""
        late, behind = pl.col("ms"), pl.col("staleness_events")
        return self.frame.group_by("kind", "question", "served_as", maintain_order=True).agg(
            pl.len().alias("calls"),
            (~pl.col("ok")).sum().alias("failed"),
            (pl.len() / self.seconds).alias("per_second"),
            *(late.quantile(p / 100, interpolation="linear").alias(f"p{p}_ms") for p in (50, 95, 99)),
            late.max().alias("max_ms"),
            behind.median().alias("staleness_p50"),
            behind.quantile(0.95).alias("staleness_p95"),
            behind.max().alias("staleness_max"),
        )

    def __repr__(self) -> str:
        parts = []
        for kind in ("read", "write"):
            of = self.frame.filter(kind=kind)
            if len(of):
                half, most = (of["ms"].quantile(at) or 0.0 for at in (0.5, 0.99))
                p50, p99 = (said(ms, is_ms=True) for ms in (half, most))
                parts.append(f"{len(of) / self.seconds:,.0f} {kind}s/s (p50 {p50} ms, p99 {p99} ms)")
        failed = int((~self.frame["ok"]).sum())
        verdict = "held" if self.is_held else f"NOT held: {failed:,} failed, the last answer after {self.took:.1f} s"
        return (
            f"<driven for {self.seconds:g} s: {' and '.join(parts)}, {verdict}; {self.cores:.2f} cores busy, "
            f"the driver's own share {self.overhead:.1%}>"
        )


def drive(
    lab: Lab,
    *,
    commands: Callable[[int], Command] | None = None,
    questions: Sequence[Query] | None = None,
    model: Model | str | None = None,
    seconds: float = 10,
    reads: float = 1_000,
    writes: float = 100,
    served_as: ServedAs = "projection",
    lists: float = 0.02,
    threads: int = 4,
    seed: int = 7,
    drain: float = 10,
    progress: bool = True,
) -> Driven:
    """Send commands to a lab and ask it queries, at a rate, and return every single latency.

    Any lab takes the commands and questions that it is given. Without them it is a lab of the shop: orders are placed,
    paid, shipped and delivered under ids of this run. Queries go through `lab.ask` to
    `order_summary`; it is built when it is not there yet, and moves as it does: serve it before to say how, such as
    `lab.serve(order_summary, mode="background")`. A lab with cache_seconds answers what it can from its cache. Calls
    come at random moments, as those of many people would. Commands of one stream are sent in their order.

    Args:
        commands: returns the command of a number from 0; all are made before the run. None: the shop's.
        questions: what to draw the reads from. None: the shop's.
        model: the read model that the questions ask, by which staleness is told; None: the first question's, else
            order_summary.
        seconds: how long.
        reads, writes: how many a second.
        served_as: the serving that is asked.
        lists: the share of the reads that ask for all orders of a customer; the others ask for one order by key.
        threads: how many read, and as many write.
        seed: draws the moments and what is asked for.
        drain: seconds after the end of the schedule after which what is still to be done has failed.
        progress: show a progress bar.

    Raises:
        QueryError: nothing to do; or the lab is no shop, and lacks commands or questions to drive it with.
        NotServed, ReadModelRefused, ProjectionFailed: as `lab.serve` raises them.
    """
    if not (seconds > 0 and reads >= 0 and writes >= 0 and threads >= 1 and 0 <= lists <= 1 and drain >= 0):
        raise QueryError("seconds and threads are above 0, reads, writes and drain not below 0, lists from 0 to 1")
    for question in questions or ():
        if type(question) not in lab.domain.queries:
            raise QueryError(f"{question!r} is no query that this lab answers; declare it: Domain(queries=[…])")
    if questions is not None and not questions and reads:
        raise QueryError("questions is empty; give a query to ask, or reads=0")
    _check_given(lab, reads if questions is None else 0, writes if commands is None else 0)
    if model is None:
        model = questions[0].model if questions else order_summary if takes_orders(lab) else None
    served = None if model is None else lab.serve(model, as_=served_as)
    rates, given = (seconds, reads, writes, lists), (commands, questions)
    calls = _schedule(lab, served, f"d{lab.head}-", *rates, *given, random.Random(seed))
    if not calls:
        raise QueryError(f"{reads:g} reads/s and {writes:g} writes/s are less than one call in {seconds:g} s")

    def answer(message: Message) -> object:
        if isinstance(message, Command):
            return lab.send(message)
        assert isinstance(message, Query)
        found = lab.ask(message, served_as=served_as)
        return found.fetchall() if isinstance(found, Rows) else found

    # What the driver itself costs: the same schedule without the calls, before the run, while nothing else moves.
    short = min(seconds, _CALIBRATION)
    first = [call for call in calls if call.at < short] or calls[:1]
    _, _, idle = _run(lab, served, first, lambda message: None, threads, short, drain, None)
    with tqdm(total=len(calls), unit=" calls", leave=False, mininterval=0.5, disable=not progress) as bar:
        done, took, busy = _run(lab, served, calls, answer, threads, seconds, drain, bar)
    return Driven(_framed(calls, done, served_as, seconds + drain), seconds, took, busy, idle / busy if busy else 0.0)


def _schedule(
    lab: Lab,
    served: Served | None,
    prefix: str,
    seconds: float,
    reads: float,
    writes: float,
    lists: float,
    commands: Callable[[int], Command] | None,
    questions: Sequence[Query] | None,
    chance: random.Random,
) -> list[_Call]:
    """Return all calls in order of their moments, ready to be sent: what is made now costs nothing later."""
    keys = f"SELECT order_id, customer_id FROM order_summary ORDER BY hash(order_id) LIMIT {_KNOWN}"
    known: Sequence[tuple[str, str]] = [(f"{prefix}o-0", f"{prefix}c")]
    if questions is None and served is not None and reads:
        known = served.sql(keys).fetchall() or known

    def question() -> Message:
        if questions is not None:
            return chance.choice(questions)
        order, customer = chance.choice(known)
        return OrdersOfCustomer(customer_id=customer) if chance.random() < lists else OrderDetails(order_id=order)

    def command(number: int) -> Message:
        if commands is not None:
            return commands(number)
        step, order = number // _TOGETHER % 4, f"{prefix}o-{_order(number)}"
        if step == 0:
            return PlaceOrder(order_id=order, customer_id=f"{prefix}c", lines=(_LINE,))
        if step == 1:
            return PayOrder(order_id=order, amount=_LINE.unit_price)
        return ShipOrder(order_id=order, tracking_number=order) if step == 2 else DeliverOrder(order_id=order)

    def moments(rate: float) -> list[float]:
        return sorted(chance.uniform(0, seconds) for _ in range(round(rate * seconds)))

    keyed = {kind: decider for decider in lab.domain.deciders for kind in decider.commands}

    def lane(number: int, message: Message) -> int:
        if commands is None:
            return _order(number)
        decider = keyed.get(type(message))  # type: ignore[arg-type]
        if decider is None or not isinstance(message, Command):
            kinds = ", ".join(kind.__name__ for kind in keyed) or "none: it takes facts, by record and append_table"
            raise QueryError(f"commands({number}) is no command that this lab handles: {message!r}; it handles {kinds}")
        return zlib.crc32(f"{decider.category}/{decider.stream_id(message)}".encode())

    asked = [(at, question(), 0) for at in moments(reads)]
    made = [(at, number, command(number)) for number, at in enumerate(moments(writes))]
    sent = [(at, message, lane(number, message)) for at, number, message in made]
    planned = sorted([*asked, *sent], key=lambda call: call[0])
    return [_Call(number, *call) for number, call in enumerate(planned)]


def _check_given(lab: Lab, reads: float, writes: float) -> None:
    """Refuse to drive a lab that is no shop with what only a shop can do.

    Args:
        reads, writes: those for which the caller gave neither questions nor commands.
    """
    if takes_orders(lab) or not (reads or writes):
        return
    handled = ", ".join(kind.__name__ for decider in lab.domain.deciders for kind in decider.commands) or "none"
    asked = ", ".join(query.__name__ for query in lab.domain.queries) or "none"
    raise QueryError(
        "drive places orders and asks for them, and this lab is no shop: give it commands=, a function of a number "
        f"that returns a command (it handles {handled}), or writes=0; and questions=, a list of queries to draw from "
        f"(it answers {asked}), or reads=0"
    )


def _order(number: int) -> int:
    """Which order a command is about: some are placed, then these are paid, shipped and delivered."""
    return number // (4 * _TOGETHER) * _TOGETHER + number % _TOGETHER


def _run(
    lab: Lab,
    served: Served | None,
    calls: Sequence[_Call],
    answer: Callable[[Message], object],
    threads: int,
    seconds: float,
    drain: float,
    bar: Any,
) -> tuple[list[_Done], float, float]:
    """Carry out a schedule; return what was done, the seconds it took and the cores that were busy."""
    over = threading.Event()
    done: list[list[_Done]] = [[] for _ in range(2 * threads)]
    start = time.perf_counter() + 0.02  # when all threads are there

    def work(mine: Iterator[_Call], note: list[_Done]) -> None:
        for call in mine:
            while (wait := start + call.at - time.perf_counter()) > 0 and not over.is_set():
                time.sleep(min(wait, _GLANCE))
            if over.is_set():
                return
            error = behind = None
            if isinstance(call.message, Query) and served is not None:
                behind = max(0, lab.head - served.position)
            began = time.perf_counter()
            try:
                answer(call.message)
            except Exception as problem:
                error = f"{type(problem).__name__}: {problem}"
            note.append(_Done(call.number, began - start, time.perf_counter() - start, behind, error))

    # The thread that is free takes the next read. All commands of a stream go through one thread, in their order.
    reads = iter([call for call in calls if isinstance(call.message, Query)])
    writes = [call for call in calls if isinstance(call.message, Command)]
    shares = [iter([call for call in writes if call.lane % threads == one]) for one in range(threads)]
    jobs = zip([*[reads] * threads, *shares], done, strict=True)
    team = [threading.Thread(target=work, args=job, name="cqrs_lab driver", daemon=True) for job in jobs]
    used = time.process_time()
    try:
        for one in team:
            one.start()
        while any(one.is_alive() for one in team) and time.perf_counter() < start + seconds + drain:
            time.sleep(_GLANCE / 2)
            if bar is not None:
                bar.update(sum(map(len, done)) - bar.n)
    finally:  # also when Ctrl-C came
        over.set()
        until = time.monotonic() + _GRACE
        for one in team:
            if one.ident is not None:
                one.join(max(0.0, until - time.monotonic()))
    ended = [one for notes in done for one in list(notes)]
    elapsed = time.perf_counter() - start
    took = max((one.ended_at for one in ended), default=elapsed)
    return ended, took, (time.process_time() - used) / max(elapsed, 1e-9)


def _framed(calls: Sequence[_Call], done: Sequence[_Done], served_as: str, end: float) -> pl.DataFrame:
    """Return a row for each call; one that was not answered is as late as the end of the run, at least."""
    by_number = {one.number: one for one in done}
    missing = f"NotAnswered: not within {end:g} s of the start"
    rows = []
    for number, at, message, _ in calls:
        _, started, ended, behind, error = by_number.get(number) or _Done(number, None, end, None, missing)
        rows.append(
            {
                "kind": "read" if isinstance(message, Query) else "write",
                "question": type(message).__name__,
                "served_as": served_as,
                "intended_at": at,
                "started_at": started,
                "ms": 1000 * (ended - at),
                "service_ms": None if started is None else 1000 * (ended - started),
                "staleness_events": behind,
                "ok": error is None,
                "error": error,
            }
        )
    types = {"started_at": pl.Float64, "service_ms": pl.Float64, "staleness_events": pl.Int64, "error": pl.String}
    return pl.DataFrame(rows, schema_overrides=types)
