"""A table of calls of the read side that are refused, each with its error and the whole message.

Only data and the calls: `test_ways.py` makes them. A call that is given a lab gets one of the shop, in which an order
was placed, at position 1, and paid, at position 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

from support import append
from ways import THEIRS

from cqrs_lab import Decider, Domain, Event, Lab, Projection, Query, ReadModel, errors
from cqrs_lab.read.handled import stored_of
from cqrs_lab.read.served import reach
from cqrs_lab.shop import OrderDetails, OrderPaid, OrderPlaced, daily_orders, order_facts, order_summary

PLACED, PAID = OrderPlaced(order_id="o-1", customer_id="c-1", total=5), OrderPaid(order_id="o-1", amount=5)
DETAILS = OrderDetails(order_id="o-1")


@dataclass(frozen=True)
class Call:
    """What is called, and what it is answered with."""

    error: type[errors.CqrsLabError]
    text: str
    call: Callable[..., object]


def by_hand(name: str = "counts", columns: dict[str, Any] | None = None, handle: Any = None) -> Projection:
    """Return a projection whose rows a handler makes of each payment."""
    made = Projection(name, "order_id", columns or {"order_id": str, "n": int})
    made.on(OrderPaid)(handle or _put)
    return made


def _put(recorded: Any, rows: Any) -> None:
    rows.put(order_id=recorded.event.order_id, n=1)


def effects() -> Projection:
    """Return a projection for side effects, whose handler asks for rows."""
    made = Projection("sent", side_effect=True)
    made.on(OrderPaid)(lambda recorded, rows: rows.put(n=1))
    return made


class Elsewhere(Event):
    """An event of no category of the shop."""

    order_id: str


class Unknown(OrderDetails):
    """A query that no domain declares."""


class Headless(Query):
    """A query of no read model."""


def notes(*names: str, queries: Sequence[type[Query]] = ()) -> Lab:
    """Open a lab of its own domain, with read models of these names and with queries."""
    decider = Decider("order", "order_id", None, lambda c, s: [], lambda s, e: s, [], [Elsewhere])
    models = [ReadModel(name, "order_id", "SELECT order_id FROM order_events GROUP BY 1") for name in names]
    return Lab(domain=Domain(deciders=[decider], read_models=models, queries=queries))


class Mine(Query):
    """A query of the only read model of its domain."""

    model: ClassVar[Any] = "mine"


def handled(use: Callable[[Any], object]) -> Callable[[Lab], None]:
    """Return a call in which a handler does something with its rows; its own error is raised."""

    def call(lab: Lab) -> None:
        try:
            lab.serve(by_hand(handle=lambda recorded, rows: use(rows)))
        except errors.ProjectionFailed as failed:
            raise failed.__cause__ from None

    return call


def effects_put(lab: Lab) -> None:
    """Let a handler for side effects put a row; its own error is raised."""
    served = lab.serve(effects())
    append(lab, [(PAID, 0)])
    try:
        served.catch_up()
    except errors.ProjectionFailed as failed:
        raise failed.__cause__ from None


def mine(columns: str = "count(*) AS n", key: str = "order_id") -> ReadModel:
    """Return a read model of the orders."""
    return ReadModel("mine", key, f"SELECT {key}, {columns} FROM order_events GROUP BY {key}")


def another_select(lab: Lab) -> None:
    """Read what another SELECT has made."""
    lab.serve(mine())
    lab.serve(mine("max(total) AS n")).rows()


def other_handlers(lab: Lab) -> None:
    """Read what other handlers have made."""
    lab.serve(by_hand())
    lab.serve(by_hand(handle=lambda recorded, rows: None)).rows()


def other_handlers_move(lab: Lab) -> None:
    """Move what other handlers have made; a serving refuses that before it comes to this."""
    lab.serve(by_hand())
    served = lab.serve(by_hand(handle=lambda recorded, rows: None))
    served.stored.forward(lab.head + 1)


def not_yet(lab: Lab) -> None:
    """Wait, but not for long, for a table that is refreshed rarely."""
    lab.serve(order_summary, "materialized", refresh_every=1_000)
    append(lab, [(PAID, 0)])
    reach(lab._servings.running, order_summary, 3, timeout=0)


def keys_fail(lab: Lab) -> None:
    """Move a layer whose new rows have a value that the key of what is built on it cannot be made of.

    What moves the layer leaves the other out, and notes why; here the layer moves by itself.
    """
    sql = "SELECT unnest([CAST(substr(order_id, 3) AS INTEGER)]) AS n, total FROM order_facts"
    lab.serve(ReadModel("numbers", "n", sql))
    append(lab, [(OrderPlaced(order_id="o-two"), 0)])
    stored_of(lab._catalog, order_facts, "projection").forward(lab.head)


def serving(sql: str, key: str = "order_id") -> Callable[[Lab], object]:
    """Return a call that serves a SELECT as a projection."""
    return lambda lab: lab.serve(ReadModel("mine", key, sql))


def no(recorded: Any, rows: Any) -> None:
    """Fail at every event."""
    raise ValueError("no")


def elsewhere() -> Projection:
    """Return a projection that handles what no category has."""
    strange = Projection("strange", "id", {"id": str})
    strange.on(Elsewhere)(lambda recorded, rows: None)
    return strange


def past(**moment: Any) -> Callable[[Lab], object]:
    """Return a call that asks for a moment."""
    return lambda lab: lab.as_of(**moment)


def served(as_: str = "projection", model: Any = order_facts, **how: Any) -> Callable[[Lab], object]:
    """Return a call that serves a read model."""
    return lambda lab: lab.serve(model, as_=as_, **how)


_SHOP = (
    "order_facts, customer_contacts, order_summary, order_list, open_orders, customer_value, daily_orders, "
    "daily_sales, product_demand, delivery_times"
)
_HAND = (
    "counts is made by handlers in Python: it is served as a projection, manual or background. It has no SELECT to run "
    "elsewhere, and every append would have to wait for its handlers inline"
)
_NO_SELECT = (
    "counts is made by handlers in Python and has no SELECT: it can be read where it is served as a projection, and "
    "not as a view, materialized or as of another moment"
)
_SIDE = "projection 'x': give it columns whose names differ in more than case, or side_effect=True, which has none"
_MODE = "a {} moves in the mode {}, not {!r}"
_MOMENT = "position={!r} is not a whole number from 0 to the head, 2"
_EVERY = "refresh_every={!r} is neither a number of events nor a time above 0"
_PROJECTION, _FIXED = "manual, inline, background", "manual"
_REFRESH = "refresh_every is for materialized tables; a projection has mode='background'"
_NAME = "{!r} cannot name a read model: use letters, digits and underscores, starting with a letter, at most 63"
_BACK = (
    "order_facts as projection tells the log up to position 2 of 2; rows up to {} would go back, or beyond the log. "
    "lab.as_of(position=…) asks about the past"
)

# What is refused where it is declared, without a lab.
DECLARATIONS = (
    *(
        Call(errors.DeclarationError, _NAME.format(name), lambda n=name: ReadModel(n, "order_id", "SELECT 1"))
        for name in ('x"; DROP TABLE order_events; --', "order summary", "🛒", "", "a" * 64, "1st")
    ),
    *(
        Call(
            errors.ReadModelRefused,
            f"the name {name!r} is kept for a table of the log; choose another",
            lambda n=name, m=make: m(n),
        )
        for make in (lambda n: ReadModel(n, "order_id", "SELECT 1"), lambda n: Projection(n, "id", {"id": str}))
        for name in ("order_events", "streams", "servings", "dead_letters", "x_events", "x_personal")
    ),
    Call(
        errors.ReadModelRefused,
        "two read models are called 'sales'; names differ in more than case",
        lambda: notes("Sales", "sales"),
    ),
    Call(
        errors.DeclarationError,
        "projection 'counts' has two handlers for OrderPaid; put them into one, or declare the projection anew before "
        "its handlers",
        lambda: by_hand().on(OrderPaid),
    ),
    Call(
        errors.DeclarationError,
        "projection 'x': its key ('other',) has to be among its columns ['id']",
        lambda: Projection("x", "other", {"id": str}),
    ),
    Call(errors.DeclarationError, _SIDE, lambda: Projection("x")),
    Call(errors.DeclarationError, _SIDE, lambda: Projection("x", "id", {"id": str}, side_effect=True)),
    Call(errors.DeclarationError, _SIDE, lambda: Projection("x", "id", {"id": str, "ID": str})),
    Call(
        errors.DeclarationError,
        "projection 'x': chunk=0 is no number of events",
        lambda: Projection("x", "id", {"id": str}, chunk=0),
    ),
    Call(
        errors.DeclarationError,
        "Headless names no read model; set model = … in its class",
        lambda: notes(queries=[Headless]),
    ),
    Call(errors.DeclarationError, "Mine is declared twice", lambda: notes("mine", queries=[Mine, Mine])),
    Call(
        errors.DeclarationError,
        "cache_seconds=0 is no time above 0; None keeps no answers",
        lambda: Lab(domain=Domain(), cache_seconds=0),
    ),
)  # fmt: skip

# What a lab refuses before it has served anything.
AT_ONCE = (
    Call(
        errors.UnknownReadModel,
        f"no read model is called 'nothing'; there are {_SHOP}",
        lambda lab: lab.serve("nothing"),
    ),
    Call(
        errors.DeclarationError,
        "projection 'strange' handles Elsewhere, which no category has",
        lambda lab: lab.serve(elsewhere()),
    ),
    Call(errors.NotServed, _HAND, lambda lab: lab.serve(by_hand(), as_="view")),
    Call(errors.NotServed, _HAND, lambda lab: lab.serve(by_hand(), as_="materialized")),
    Call(errors.NotServed, _HAND, lambda lab: lab.serve(by_hand(), mode="inline")),
    Call(
        errors.NotServed,
        "a read model is served as view, materialized, projection, not as 'cache'",
        served("cache"),
    ),
    Call(
        errors.NotServed,
        "a read model is served as view, materialized, projection, not as 'cache'",
        lambda lab: lab.ask(DETAILS, served_as="cache"),
    ),
    *(
        Call(
            errors.NotServed,
            "order_summary is not served as projection here; call lab.serve(order_summary, as_='projection') first",
            lambda lab, at_least=at_least: lab.ask(DETAILS, served_as="projection", at_least=at_least),
        )
        for at_least in (None, 2)
    ),
    *(
        Call(errors.NotServed, _MODE.format(as_, modes, mode), served(as_, mode=mode))
        for as_, modes, mode in (
            ("projection", _PROJECTION, "psychic"), ("projection", _PROJECTION, ""),
            ("projection", _PROJECTION, "every 3 events"), ("view", _FIXED, "inline"),
            ("materialized", _FIXED, "background"),
        )
    ),
    Call(errors.NotServed, _REFRESH, served("projection", refresh_every=3)),
    Call(errors.NotServed, _REFRESH, served("view", refresh_every=3)),
    *(
        Call(errors.NotServed, _EVERY.format(every), served("materialized", refresh_every=every))
        for every in (0, -1, True, "3", 1.5, float("nan"), timedelta(0))
    ),
    Call(
        errors.NotServed,
        "refresh_every says how the table moves; leave mode='background' out",
        served("materialized", refresh_every=3, mode="background"),
    ),
    Call(
        errors.NotServed,
        "on_error is for projections; order_summary as materialized has no events to set aside",
        served("materialized", order_summary, on_error="dead letter"),
    ),
    Call(errors.NotServed, "on_error is 'stop' or 'dead letter', not 'ignore'", served(on_error="ignore")),
    Call(
        errors.NotServed,
        "position 99 is not in the log, which ends at 2",
        lambda lab: lab.ask(DETAILS, at_least=99),
    ),
    Call(
        errors.UnknownQuery,
        "Unknown is not a query of this domain; its queries are OrderDetails, OrdersOfCustomer, SalesByDay",
        lambda lab: lab.ask(Unknown(order_id="o-1")),
    ),
    Call(
        errors.NotServed,
        "the history of a projection is kept; order_summary as materialized has none that moves with it",
        served("materialized", order_summary, keep_history=True),
    ),
    Call(errors.InvalidMoment, "say which moment: position=, recorded= or occurred=", past()),
    Call(
        errors.InvalidMoment,
        "since='x' is neither a position nor a time",
        lambda lab: lab.history(order_facts, "o-1", since="x"),
    ),
    Call(
        errors.QueryFailed,
        "limit=0 is not a number of changes from 1 on",
        lambda lab: lab.history(order_facts, "o-1", limit=0),
    ),
    Call(
        errors.ReadModelRefused,
        "read model 'mine' has no column 'm' to index; it has order_id, n",
        lambda lab: lab.serve(
            ReadModel(
                "mine",
                "order_id",
                "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id",
                indexes=(("n", "m"),),
            )
        ),
    ),
    Call(
        errors.ReadModelRefused,
        "read model 'mine': indexes='n' is not a tuple of columns",
        lambda lab: ReadModel(
            "mine", "order_id", "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id", indexes="n"
        ),
    ),
    *(
        Call(errors.InvalidMoment, _MOMENT.format(position), past(position=position))
        for position in (-1, 5, 1.0, True)
    ),
    Call(
        errors.InvalidMoment,
        f"recorded=datetime.datetime(2025, 1, 1, 0, 0): {THEIRS}",
        past(recorded=datetime(2025, 1, 1)),
    ),
    Call(
        errors.InvalidMoment,
        f"occurred=datetime.datetime(2025, 1, 1, 0, 0): {THEIRS}",
        past(recorded=datetime(2100, 1, 1, tzinfo=UTC), occurred=datetime(2025, 1, 1)),
    ),
    Call(
        errors.InvalidMoment,
        "occurred='2025-01-01' is neither a datetime nor a date",
        past(occurred="2025-01-01"),
    ),
)  # fmt: skip

# What is refused on the way, or by what is served already.
CALLS = (
    Call(
        errors.InvalidMoment,
        "by='then' is not what a time is of: it is 'recorded' or 'occurred'",
        lambda lab: lab.diff(order_facts, 1, 2, by="then"),
    ),
    Call(
        errors.InvalidMoment,
        "nothing was recorded between 2290-01-01 and 2290-01-03, while events of order_events happened then: an import "
        "is recorded when it is made. Say by='occurred' for what happened, or by='recorded' for what was learnt",
        lambda lab: (
            lab.record("o-1", OrderPaid(order_id="o-1", amount=5), occurred_at=datetime(2290, 1, 2, tzinfo=UTC)),
            lab.diff(order_facts, date(2290, 1, 1), date(2290, 1, 3)),
        ),
    ),
    Call(
        errors.InvalidMoment,
        f"nothing had been recorded by 1990-01-03: the first event was recorded at {THEIRS} UTC, as an import is "
        "recorded when it is made. Say by='occurred' for what had happened by then",
        lambda lab: (
            lab.record("o-1", OrderPaid(order_id="o-1", amount=5), occurred_at=datetime(1990, 1, 2, tzinfo=UTC)),
            lab.diff(order_facts, date(1990, 1, 1), date(1990, 1, 3)),
        ),
    ),
    Call(errors.NotServed, _NO_SELECT, lambda lab: lab.as_of(position=0).rows(lab.serve(by_hand()).model)),
    Call(errors.NotServed, _NO_SELECT, lambda lab: lab.history(lab.serve(by_hand()).model, "o-1")),
    Call(
        errors.ReadModelRefused,
        "read model 'above' reads 'counts', which handlers in Python make",
        lambda lab: (
            lab.serve(by_hand()), lab.serve(ReadModel("above", "n", "SELECT n FROM counts GROUP BY n"))
        ),
    ),
    Call(
        errors.ProjectionFailed,
        "counts failed at position 2 (OrderPaid): ValueError: no. Mend the handler and call rebuild(), or serve it "
        "with on_error='dead letter' to go on without such events",
        lambda lab: lab.serve(by_hand(handle=no)),
    ),
    Call(
        errors.QueryFailed,
        "counts has the key order_id; 2 values were given",
        handled(lambda rows: rows.get("a", "b")),
    ),
    Call(errors.DeclarationError, "sent is there for its side effects and has no rows", effects_put),
    Call(
        errors.NotServed,
        "sent is there for its side effects and has no rows to read",
        lambda lab: lab.serve(effects()).rows(),
    ),
    Call(
        errors.NotServed,
        "order_facts is materialized: it is refreshed whole; call refresh()",
        lambda lab: lab.serve(order_facts, "materialized").catch_up(),
    ),
    *(
        Call(
            errors.NotServed,
            f"order_facts is served as {as_}; refresh() is for materialized tables",
            lambda lab, a=as_: lab.serve(order_facts, a).refresh(),
        )
        for as_ in ("view", "projection")
    ),
    Call(
        errors.NotServed,
        "order_facts as view keeps no rows that could differ from its SELECT",
        lambda lab: lab.serve(order_facts, "view").rehearse(),
    ),
    *(
        Call(errors.RebuildRefused, _BACK.format(to), lambda lab, to=to: lab.serve(order_facts).rebuild(to=to))
        for to in (1, 3, -1)
    ),
    Call(
        errors.RebuildRefused,
        "order_facts as projection keeps its old rows: 0 would have changed, and that was refused. Call rehearse() to "
        "see them",
        lambda lab: lab.serve(order_facts).rebuild(check=lambda changes: False),
    ),
    Call(
        errors.RebuildNeeded,
        "mine as projection was built from another SELECT than the one declared now; its rows were kept. Call "
        "rebuild() on it",
        another_select,
    ),
    Call(
        errors.RebuildNeeded,
        "counts as projection was built by other columns or handlers than the one declared now; its rows were kept. "
        "Call rebuild() on it",
        other_handlers,
    ),
    Call(
        errors.RebuildNeeded,
        "counts has other columns or handlers than those that made its rows",
        other_handlers_move,
    ),
    Call(
        errors.ReadModelRefused,
        "read model 'below' reads 'above', which is built on it",
        lambda lab: [
            lab.serve(ReadModel(name, "order_id", f"SELECT order_id FROM {source} GROUP BY order_id"))
            for name, source in (("below", "order_events"), ("above", "below"), ("below", "above"))
        ],
    ),
    Call(
        errors.ProjectionFailed,
        "a projection finds its rows by an index, and DuckDB has none for the type INTERVAL, which is in the key of "
        "mine. Take its text or a number as the key, such as epoch(…) of a duration, or serve it as view or "
        "materialized",
        lambda lab: lab.serve(
            ReadModel("mine", "wait", "SELECT occurred_at - DATE '2024-01-01' AS wait FROM order_events GROUP BY 1")
        ),
    ),
    Call(
        errors.ProjectionFailed,
        "two rows of mine have the key order_id = 'o-1'. Group by the key, or name as the key what tells rows apart",
        serving("SELECT order_id, type FROM order_events"),
    ),
    Call(
        errors.ProjectionFailed,
        f"two rows of mine have one key (order_id): {THEIRS}. Group by the key, or name as the key what tells rows "
        "apart",
        lambda lab: [
            lab.serve(ReadModel("mine", "order_id", "SELECT order_id, type FROM order_events WHERE order_id = 'o-9'")),
            append(lab, [OrderPaid(order_id="o-9", amount=5), OrderPaid(order_id="o-9", amount=6)]),
            lab.serve("mine").catch_up(),
        ],
    ),
    Call(
        errors.ProjectionFailed,
        "two rows of mine have the key customer_id = None. Group by the key, or name as the key what tells rows apart",
        serving("SELECT nullif(order_id, order_id) AS customer_id, type FROM order_events", "customer_id"),
    ),
    Call(
        errors.ProjectionFailed,
        f"the rows of mine could not be made: {THEIRS}",
        serving("SELECT order_id, max(CAST(type AS BIGINT)) AS n FROM order_events GROUP BY order_id"),
    ),
    Call(errors.ProjectionFailed, f"the keys of numbers could not be told: {THEIRS}", keys_fail),
    Call(
        errors.NotYet,
        "order_summary as materialized (every 1000 events) is at position 2 and not yet at 3 after 0 s. Wait longer, "
        "or look at lab.lag()",
        not_yet,
    ),
    Call(
        errors.QueryFailed,
        "order_facts has the key order_id; 2 values were given",
        lambda lab: lab.serve(order_facts).get("o-1", "o-2"),
    ),
    Call(
        errors.QueryFailed,
        "daily_orders has no column 'colour'; it has day, orders, value",
        lambda lab: lab.serve(daily_orders).where(colour="red"),
    ),
    Call(
        errors.NotServed,
        "no history of mine can be kept: its key 'n' is a window; as_of() folds the log instead",
        lambda lab: lab.serve(
            ReadModel("mine", ("order_id", "n"), "SELECT order_id, rank() OVER (ORDER BY position) AS n "
                                                 "FROM order_events"),
            keep_history=True,
        ),
    ),
    Call(
        errors.NotServed,
        "no history of counts can be kept: handlers in Python make its rows; as_of() folds the log instead",
        lambda lab: lab.serve(by_hand(), keep_history=True),
    ),
)  # fmt: skip
