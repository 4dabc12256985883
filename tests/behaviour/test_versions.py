"""Events of several versions in one store: lifted by their upcasts, they say the same in every place."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from support import append, as_table, assert_same, lines, maybe, minutes, money

from cqrs_lab import Command, Decider, Domain, Event, Lab, ReadModel, Value, open_shop
from cqrs_lab.categories import Category
from cqrs_lab.errors import DeclarationError, RebuildNeeded, UnknownEventType
from cqrs_lab.messages import Id, Money, Upcasts
from cqrs_lab.shop import (
    OrderCancelled,
    OrderLine,
    OrderLineAdded,
    OrderLineRemoved,
    OrderPaid,
    OrderPlaced,
    OrderRefunded,
    OrderShipped,
    PayOrder,
    customers,
    daily_orders,
    order_summary,
    orders,
)
from cqrs_lab.shop.orders import value

START = datetime(2025, 1, 1, tzinfo=UTC)
MODELS = (order_summary, daily_orders)
BY_CUSTOMER = ReadModel(
    "by_customer",
    "customer_id",
    """SELECT customer_id, count(*) AS orders, sum(total) AS total, sum(freight) AS freight
       FROM order_events WHERE customer_id IS NOT NULL GROUP BY customer_id""",
)


class First:
    """The shop as it began: the customer's column has another name, the freight is inside the total."""

    class OrderPlaced(Event):
        """An order was placed."""

        order_id: Id
        customer: Id | None = None
        lines: tuple[OrderLine, ...] = ()
        total: Money | None = None

    class OrderPaid(Event):
        """An order was paid."""

        order_id: Id
        amount: Money | None = None


class Second:
    """The shop a year later."""

    class OrderPlaced(Event):
        """An order was placed."""

        schema_version: ClassVar[int] = 2
        upcasts: ClassVar[Upcasts] = {1: {"customer_id": "customer"}}

        order_id: Id
        customer_id: Id | None = None
        lines: tuple[OrderLine, ...] = ()
        total: Money | None = None

    OrderPaid = First.OrderPaid


class Fourth:
    """The shop as it is to be: more than this version of the program knows."""

    class OrderPlaced(OrderPlaced):
        """An order was placed."""

        schema_version: ClassVar[int] = 4
        upcasts: ClassVar[Upcasts] = {**OrderPlaced.upcasts, 3: {}}


def decider(category: str, key: str, events: Sequence[type[Event]], commands: Sequence[type[Command]] = ()) -> Decider:
    """Return a decider whose state is the events themselves."""
    return Decider(category, key, (), lambda command, state: [], lambda state, e: (*state, e), commands, events)


def lab_of(path: Any, category: str, key: str, *events: type[Event], read_models: Sequence[ReadModel] = ()) -> Lab:
    """Open a store with a domain of these events."""
    return Lab(path, domain=Domain(deciders=[decider(category, key, events)], read_models=read_models), threads=1)


def shop_of(path: Any, age: type) -> Lab:
    """Open a store as the shop of an earlier or later age, without read models."""
    kinds = [kind for kind in vars(age).values() if isinstance(kind, type) and issubclass(kind, Event)]
    return lab_of(path, "order", "order_id", *kinds, OrderShipped, OrderCancelled)


def stored(lab: Lab, category: str, id: str) -> list[Event]:
    """Return the events of one stream."""
    return [recorded.event for recorded in lab._log.read(lab._categories[category], id)]


def state(lab: Lab, order_id: str) -> Any:
    """Return the state on which a command about an order is decided."""
    return orders.fold(recorded.event for recorded in lab._log.read(orders.log_category, order_id))


def aged(event: Event, age: type) -> Event:
    """Return how an earlier shop would have told an event of today."""
    match event:
        case OrderPlaced():
            total = None if event.freight is None else event.total + event.freight
            name = "customer" if age is First else "customer_id"
            fields = {"order_id": event.order_id, "lines": event.lines, "total": total, name: event.customer_id}
            return age.OrderPlaced(**fields)
        case OrderPaid():
            return age.OrderPaid(order_id=event.order_id, amount=event.amount)
    return event


def placed(order_id: str, customer_id: str | None, lines: list[OrderLine], freight: Decimal | None) -> OrderPlaced:
    """Return an order whose total is the value of its lines."""
    return OrderPlaced(order_id=order_id, customer_id=customer_id, lines=lines, total=value(lines), freight=freight)


few = st.sampled_from(["o-1", "o-2", "ö/4"])
customer = st.sampled_from(["c-1", "c-2", "C'3"]) | maybe
old_events = st.one_of(
    st.builds(placed, few, customer, lines, money | maybe),
    st.builds(OrderPaid, order_id=few, amount=money | maybe, method=st.just("card")),
    st.builds(OrderShipped, order_id=few, tracking_number=st.text(min_size=1, max_size=3)),
    st.builds(OrderCancelled, order_id=few, reason=st.just("changed my mind") | maybe),
)
new_events = st.one_of(
    old_events,
    st.builds(OrderPlaced, order_id=few, customer_id=customer, lines=lines, total=money | maybe, freight=money | maybe),
    st.builds(OrderPaid, order_id=few, amount=money, method=st.sampled_from(["voucher"]) | maybe),
    st.builds(OrderLineAdded, order_id=few, lines=lines, total=money),
    st.builds(OrderLineRemoved, order_id=few, removed=lines, total=money),
    st.builds(OrderRefunded, order_id=few, amount=money, reason=maybe),
)
part = st.lists(st.tuples(old_events, minutes), max_size=6)
last = st.lists(st.tuples(new_events, minutes), max_size=6)


def equal_stores(mixed: Lab, plain: Lab) -> None:
    """Assert that streams, states and read models of two stores are equal, as of the head and of every moment."""
    assert mixed.head == plain.head
    for order_id in ("o-1", "o-2", "ö/4"):
        assert state(mixed, order_id) == state(plain, order_id)
        assert stored(mixed, "order", order_id) == stored(plain, "order", order_id)
    for model in (*MODELS, BY_CUSTOMER):
        expected = plain.serve(model, "view").rows().fetchall()
        for way in ("view", "materialized", "projection"):
            assert mixed.serve(model, way).rows().fetchall() == expected
        for position in range(mixed.head + 1):
            then = plain.as_of(position=position).rows(model).fetchall()
            assert mixed.as_of(position=position).rows(model).fetchall() == then


# -- the old shop ------------------------------------------------------------------------------------------------------


@given(one=part, two=part, three=last)
@settings(max_examples=6, deadline=None)
def test_three_versions_say_what_one_says(one: list, two: list, three: list) -> None:
    """A store with a part of each version equals, in states, servings and all its past, one of the latest alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.duckdb"
        for age, history in ((First, one), (Second, two)):
            with shop_of(path, age) as lab:
                append(lab, [(aged(event, age), minute) for event, minute in history])
        with open_shop(path, threads=1) as mixed, open_shop(threads=1) as plain:
            append(mixed, three)
            append(plain, [*one, *two, *three])
            versions = mixed._log.database.execute(
                "SELECT position, schema_version FROM order_events WHERE type = 'OrderPlaced' ORDER BY position"
            )
            ends = (len(one), len(one) + len(two))
            assert all(v == (1 if p <= ends[0] else 2 if p <= ends[1] else 3) for p, v in versions)
            equal_stores(mixed, plain)


@given(one=part, two=part, three=last, cuts=st.lists(st.integers(0, 18), max_size=5))
@settings(max_examples=6, deadline=None)
def test_a_projection_moves_across_the_versions(one: list, two: list, three: list, cuts: list[int]) -> None:
    """Moved by any batches over events of three versions, a projection's rows are those of its position."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.duckdb"
        with open_shop(path, threads=1) as lab, open_shop(threads=1) as plain:
            moving = [lab.serve(model) for model in (*MODELS, BY_CUSTOMER)]
            for age, history in ((First, one), (Second, two)):
                with shop_of(path, age) as earlier:  # beside the lab, which goes on
                    append(earlier, [(aged(event, age), minute) for event, minute in history])
            append(lab, three)
            append(plain, [*one, *two, *three])
            for cut in [*sorted(cuts), lab.head]:
                for served in moving:
                    served.catch_up(to=cut)
                    assert_same(lab, served._select(), lab.as_of(position=served.position)._text(served.model))
                    then = plain.as_of(position=served.position).rows(served.model).fetchall()
                    assert served.rows().fetchall() == then


@given(one=part, two=part, three=last)
@settings(max_examples=6, deadline=None)
def test_a_projection_meets_a_version_at_a_time(one: list, two: list, three: list) -> None:
    """Reopened between the versions, a projection is right, or asks to be rebuilt and then is; it never is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.duckdb"
        history: list[tuple[Event, int]] = []
        for age, steps in ((First, one), (Second, two), (None, three)):
            with open_shop(path, threads=1) if age is None else shop_of(path, age) as lab:
                append(lab, steps if age is None else [(aged(event, age), minute) for event, minute in steps])
            history += steps
            with open_shop(path, threads=1) as lab, open_shop(threads=1) as plain:
                append(plain, history)
                for model in MODELS:
                    served = lab.serve(model)
                    if served.state == "ok":
                        served.catch_up()
                    else:
                        with pytest.raises(RebuildNeeded):
                            served.rows()
                        served.rebuild()
                    assert served.rows().fetchall() == plain.serve(model, "view").rows().fetchall()


@given(history=part)
@settings(max_examples=6, deadline=None)
def test_an_old_shop_appends_a_table(history: list) -> None:
    """A table appended by the domain of an old version is lifted as events appended one by one are."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.duckdb"
        with shop_of(path, First) as lab:
            table = as_table(history).rename_columns(
                ["customer" if name == "customer_id" else name for name in as_table(history).column_names]
            )
            totals = [getattr(aged(event, First), "total", None) for event, _ in history]
            table = table.set_column(table.column_names.index("total"), "total", [totals]).drop_columns(
                ["source_status", "removed", "freight", "method"]
            )
            assert lab.append_table("order", table) == len(history)
        with open_shop(path, threads=1) as mixed, open_shop(threads=1) as plain:
            append(plain, history)
            equal_stores(mixed, plain)


def test_commands_are_decided_on_lifted_events(tmp_path: Path) -> None:
    """An order of the first version is paid by a command of today: what is due is its old total."""
    path = tmp_path / "shop.duckdb"
    line = OrderLine(product_id="p-1", quantity=2, unit_price=Decimal("1.50"))
    with shop_of(path, First) as lab:
        event = First.OrderPlaced(order_id="o-1", customer="c-1", lines=(line,), total=Decimal("5.00"))
        append(lab, [(event, 0)])
    with open_shop(path) as lab:
        assert state(lab, "o-1").freight == Decimal("2.00")
        assert lab.send(PayOrder(order_id="o-1", amount=Decimal("5.00"))).version == 2
        assert lab.serve(order_summary).get("o-1")["customer_id"] == "c-1"


def old_and_new(path: Path) -> Lab:
    """Return the shop over a store with every serving, to which the first shop then appended an order."""
    with open_shop(path, threads=1) as lab:
        append(lab, [(placed("o-1", "c-1", [], Decimal(1)), 0)])
        for model in (*MODELS, BY_CUSTOMER):
            for way in ("view", "materialized", "projection"):
                lab.serve(model, way)
    with shop_of(path, First) as lab:
        event = First.OrderPlaced(order_id="o-2", customer="c-2", total=Decimal(7))
        append(lab, [(event, 1)])
    return open_shop(path, threads=1)


def test_a_serving_from_before_an_older_version_appeared(tmp_path: Path) -> None:
    """Servings built while the store had one version go on when an older one came, and are right."""
    expected = [("c-1", 1, Decimal(0), Decimal(1)), ("c-2", 1, Decimal(0), Decimal(7))]
    with old_and_new(tmp_path / "shop.duckdb") as lab:
        for way in ("view", "materialized", "projection"):
            served = lab.serve(BY_CUSTOMER, way)
            if way == "materialized":
                served.refresh()
            if way == "projection":
                served.catch_up()
            assert served.rows().fetchall() == expected
        for way in ("view", "materialized", "projection"):
            served = lab.serve(order_summary, way)
            served.rebuild()
            assert served.get("o-2")["customer_id"] == "c-2"


def test_a_view_sees_an_older_version_that_comes_beside_it(tmp_path: Path) -> None:
    """A view that is open while another lab appends events of an older version lifts them, too."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path, threads=1) as lab:
        view = lab.serve(BY_CUSTOMER, "view")
        append(lab, [(placed("o-1", "c-1", [], Decimal(1)), 0)])
        with shop_of(path, First) as earlier:
            append(earlier, [(First.OrderPlaced(order_id="o-2", customer="c-2", total=Decimal(7)), 1)])
        expected = [("c-1", 1, Decimal(0), Decimal(1)), ("c-2", 1, Decimal(0), Decimal(7))]
        assert lab.as_of(position=2).rows(BY_CUSTOMER).fetchall() == expected
        assert view.rows().fetchall() == expected


# -- a version from the future -----------------------------------------------------------------------------------------


def future(path: Path) -> None:
    """Make a store in which one order is of version 4."""
    with shop_of(path, Fourth) as lab:
        append(lab, [(Fourth.OrderPlaced(order_id="o-4"), 0)])


def test_a_version_from_the_future_is_named_by_whoever_reads_it(tmp_path: Path) -> None:
    """Streams, commands, servings and the past refuse a version that is too new, naming the type and the version."""
    path = tmp_path / "shop.duckdb"
    future(path)
    domain = Domain(deciders=[orders, customers])
    with Lab(path, domain=domain, threads=1) as lab:
        reads = [
            lambda: stored(lab, "order", "o-4"),
            lambda: lab.send(PayOrder(order_id="o-4", amount=Decimal(0))),
            *(lambda way=way: lab.serve(order_summary, way) for way in ("view", "materialized", "projection")),
            lambda: lab.as_of(position=1).rows(order_summary).fetchall(),
            lambda: lab.as_of(position=1).sql("SELECT count(*) FROM order_events").fetchall(),
        ]
        for read in reads:
            with pytest.raises(UnknownEventType, match="OrderPlaced v4"):
                read()
        assert lab.head == len(lab.events()) == 1


def test_the_shop_names_a_version_from_the_future(tmp_path: Path) -> None:
    """Opened with the shop of today, such a store tells its type and version: at once, or when it is read."""
    path = tmp_path / "shop.duckdb"
    future(path)
    with pytest.raises(UnknownEventType, match="OrderPlaced v4"), open_shop(path, threads=1) as lab:
        lab.serve(order_summary).rows().fetchall()


def test_a_projection_stops_before_a_version_from_the_future(tmp_path: Path) -> None:
    """When another lab appends a version that is too new, catch_up() names it; rows and checkpoint stay."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path, threads=1) as lab:
        append(lab, [(placed("o-1", "c-1", [], None), 0)])
        served = lab.serve(order_summary)
        before = served.rows().fetchall()
        future(path)
        for move in (lab.catch_up, served.catch_up, served.rebuild):
            with pytest.raises(UnknownEventType, match="OrderPlaced v4"):
                move()
        assert served.position == 1
        assert served.rows().fetchall() == before


# -- declarations ------------------------------------------------------------------------------------------------------


def versioned(version: int, upcasts: Upcasts, **fields: Any) -> type[Event]:
    """Return an event class Opened of a version."""
    kinds = {"account": str, **{name: kind for name, (kind, _) in fields.items()}}
    defaults = {name: default for name, (_, default) in fields.items()}
    body = {"schema_version": version, "upcasts": upcasts, "__annotations__": kinds, "__module__": __name__, **defaults}
    return type("Opened", (Event,), body)


@pytest.mark.parametrize(
    ("version", "upcasts"),
    [(2, {}), (3, {2: {}}), (3, {1: {}}), (1, {1: {}}), (2, {1: {}, 2: {}}), (2, {0: {}, 1: {}}), (2, {"1": {}})],
)
def test_every_version_has_its_upcast(version: int, upcasts: Any) -> None:
    """A class without an upcast from each version before it, or with one from another, is a DeclarationError."""
    with pytest.raises(DeclarationError, match=rf"Opened is at schema_version {version}.*upcasts from"):
        decider("account", "account", [versioned(version, upcasts)])


@pytest.mark.parametrize(
    "expression",
    [
        "now()",
        "current_date",
        "random()",
        "gen_random_uuid()",
        "nextval('s')",
        "(SELECT 1)",
        "(SELECT max(total) FROM order_events)",
        "EXISTS (SELECT 1)",
        "note IN (SELECT 'a')",
        "note, 'a'",
        "note), (note",
        "note) AS a, (note",
        "note) UNION ALL SELECT (note",
        "note) ORDER BY (note",
        "note) FROM streams WHERE (true",
        "(note",
        "note)",
        "note;",
        "note) -- the end",
        "/* no end",
        "",
        "-- nothing",
        "note AS a",
        "*",
        "COLUMNS('n.*')",
        "no_such_function(note)",
        "max(note)",
        "count(*)",
        "row_number() OVER (ORDER BY position)",
        "lag(note) OVER (ORDER BY position)",
        "max(note) OVER ()",
        "unnest([note])",
        "$1",
        "?",
        "getenv('HOME')",
        "read_text('/etc/hostname')",
    ],
)
def test_an_upcast_is_a_function_of_one_event(expression: str) -> None:
    """What is not one SQL expression over the event's own columns is refused where it is declared, with its field."""
    with pytest.raises(DeclarationError, match=r"Opened\.note from version 1"):
        decider("account", "account", [versioned(2, {1: {"note": expression}}, note=(str | None, None))])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'x' -- the end", "x"),
        ("/* why */ upper(old) /* and how */", "ANN"),
        ("CASE WHEN old = 'ann' THEN 'yes' ELSE 'no' END", "yes"),
        ("old || ')' || '('", "ann)("),
        ("list_sum([x + 1 for x in [1, 2]])::VARCHAR", "5"),
        ("NULL", None),
        ("type || ' ' || version", "Opened 1"),
        ("42", "42"),
    ],
)
def test_an_upcast_may_be_any_expression(tmp_path: Path, expression: str, expected: str | None) -> None:
    """Comments, CASE, strings with parentheses and the envelope's columns do in an upcast; its type is the field's."""
    path = tmp_path / "accounts.duckdb"
    with lab_of(path, "account", "account", versioned(1, {}, old=(str | None, None))) as lab:
        append(lab, [(lab._categories["account"].types["Opened"](account="a", old="ann"), 0)])
    newer = versioned(2, {1: {"note": expression}}, note=(str | None, None))
    model = ReadModel("notes", "account", "SELECT account, max(note) AS note FROM account_events GROUP BY account")
    with lab_of(path, "account", "account", newer, read_models=[model]) as lab:
        assert stored(lab, "account", "a") == [newer(account="a", note=expected)]
        for way in ("view", "materialized", "projection"):
            assert lab.serve(model, way).rows().fetchall() == [("a", expected)]
        assert lab.as_of(position=1).get(model, "a")["note"] == expected


# -- anybody's own domain ----------------------------------------------------------------------------------------------


class Note:
    """The versions of a learner's event."""

    class Noted1(Event):
        """A note was taken."""

        note_id: str
        text: str
        words: int

    class Noted2(Event):
        """A note was taken."""

        schema_version: ClassVar[int] = 2
        upcasts: ClassVar[Upcasts] = {1: {"title": "text", "letters": "length(text)", "urgent": "text LIKE '%!'"}}

        note_id: str
        title: str
        letters: int
        urgent: bool
        words: int

    class Noted3(Event):
        """A note was taken."""

        schema_version: ClassVar[int] = 3
        upcasts: ClassVar[Upcasts] = {
            1: {"title": "text", "letters": "length(text)", "urgent": "text LIKE '%!'"},
            2: {"head": "split_part(title, ' ', 1)", "rest": "title[length(split_part(title, ' ', 1)) + 2:]"},
        }

        note_id: str
        head: str
        rest: str
        letters: int
        urgent: bool = False
        words: int


for _kind in (Note.Noted1, Note.Noted2, Note.Noted3):
    _kind.__name__ = "Noted"

LOUD = ReadModel(
    "loud",
    "urgent",
    "SELECT urgent, count(*) AS n, sum(letters) AS letters, sum(words) AS words FROM note_events GROUP BY urgent",
)


def test_a_field_is_renamed_split_and_added(tmp_path: Path) -> None:
    """In a domain of one's own, a version adds fields and renames one, the next splits it: streams and models agree."""
    path = tmp_path / "notes.duckdb"
    with lab_of(path, "note", "note_id", Note.Noted1) as lab:
        append(lab, [(Note.Noted1(note_id="n", text="buy more milk!", words=3), 0)])
    with lab_of(path, "note", "note_id", Note.Noted2, read_models=[LOUD]) as lab:
        served = lab.serve(LOUD)
        first = Note.Noted2(note_id="n", title="buy more milk!", letters=14, urgent=True, words=3)
        second = Note.Noted2(note_id="n", title="sleep", letters=5, urgent=False, words=1)
        assert stored(lab, "note", "n") == [first]
        append(lab, [(second, 1)])
        served.catch_up()
        assert served.rows().fetchall() == [(False, 1, 5, 1), (True, 1, 14, 3)]
    with lab_of(path, "note", "note_id", Note.Noted3, read_models=[LOUD]) as lab:
        third = Note.Noted3(note_id="n", head="a", rest="b", letters=3, urgent=True, words=2)
        append(lab, [(third, 2)])
        assert stored(lab, "note", "n") == [
            Note.Noted3(note_id="n", head="buy", rest="more milk!", letters=14, urgent=True, words=3),
            Note.Noted3(note_id="n", head="sleep", rest="", letters=5, urgent=False, words=1),
            third,
        ]
        served = lab.serve(LOUD)
        if served.state != "ok":
            served.rebuild()
        served.catch_up()
        assert served.rows().fetchall() == [(False, 1, 5, 1), (True, 2, 17, 5)]
        assert lab.as_of(position=2).rows(LOUD).fetchall() == [(False, 1, 5, 1), (True, 1, 14, 3)]


def test_fields_may_change_places(tmp_path: Path) -> None:
    """The expressions of one upcast all read the columns as they were, so that two fields can be swapped."""
    path = tmp_path / "accounts.duckdb"
    fields = {"a": (int, 0), "b": (int, 0)}
    old, new = versioned(1, {}, **fields), versioned(2, {1: {"a": "b", "b": "a"}}, **fields)
    with lab_of(path, "account", "account", old) as lab:
        append(lab, [(old(account="x", a=1, b=2), 0)])
    with lab_of(path, "account", "account", new) as lab:
        append(lab, [(new(account="x", a=1, b=2), 0)])
        assert stored(lab, "account", "x") == [new(account="x", a=2, b=1), new(account="x", a=1, b=2)]


def test_one_event_is_lifted_and_another_keeps_its_column(tmp_path: Path) -> None:
    """An upcast touches the events of its own type and version; others that have the field keep what they say."""
    path = tmp_path / "accounts.duckdb"

    class Closed(Event):
        account: str
        note: str | None = None

    old, new = versioned(1, {}, note=(str | None, None)), versioned(2, {1: {"note": "'lifted'"}}, note=(str, "new"))
    with lab_of(path, "account", "account", old, Closed) as lab:
        append(lab, [(old(account="x", note="mine"), 0), (Closed(account="x", note="mine"), 0)])
    with lab_of(path, "account", "account", new, Closed) as lab:
        append(lab, [(new(account="x"), 0)])
        expected = [new(account="x", note="lifted"), Closed(account="x", note="mine"), new(account="x", note="new")]
        assert stored(lab, "account", "x") == expected


class Size(Value):
    width: Annotated[Decimal, Field(max_digits=9, decimal_places=3)]
    mark: str | None = None


def test_a_column_of_an_old_version_keeps_its_type(tmp_path: Path) -> None:
    """A DECIMAL and a STRUCT that only an old version has are read as they were stored, and cannot be declared anew."""
    path = tmp_path / "accounts.duckdb"
    price = Annotated[Decimal, Field(max_digits=12, decimal_places=4)]
    old = versioned(1, {}, price=(price | None, None), size=(Size | None, None))
    upcast = {"cents": "(price * 100)::BIGINT", "exact": "price::VARCHAR", "width": "size.width", "mark": "size.mark"}
    new = versioned(
        2,
        {1: upcast},
        cents=(int | None, None),
        exact=(str | None, None),
        width=(Annotated[Decimal, Field(max_digits=9, decimal_places=3)] | None, None),
        mark=(str | None, None),
    )
    with lab_of(path, "account", "account", old) as lab:
        size = Size(width=Decimal("1.125"), mark="m")
        append(lab, [(old(account="x", price=Decimal("12345678.1234"), size=size), 0)])
    with lab_of(path, "account", "account", new) as lab:
        append(lab, [(new(account="x", cents=5), 0)])
        lifted = new(account="x", cents=1234567812, exact="12345678.1234", width=Decimal("1.125"), mark="m")
        assert stored(lab, "account", "x") == [lifted, new(account="x", cents=5)]
        kinds = dict(row[:2] for row in lab._log.database.execute(f"DESCRIBE {lab._log.source('account_events')}"))
        assert kinds["price"] == "DECIMAL(12,4)"
        assert kinds["size"] == "STRUCT(width DECIMAL(9,3), mark VARCHAR)"
    retyped = versioned(3, {1: upcast, 2: {}}, price=(str | None, None))
    with pytest.raises(DeclarationError, match=r"account_events.*price is stored as DECIMAL\(12,4\)"):
        lab_of(path, "account", "account", retyped)


def test_an_upcast_into_a_column_of_an_old_version_is_cast_to_it(tmp_path: Path) -> None:
    """What version 1 gives for a column that only version 2 has is of that column's type, exact to the last digit."""
    path = tmp_path / "accounts.duckdb"
    price = Annotated[Decimal, Field(max_digits=12, decimal_places=4)]
    up1, up2 = {"price": "cents::DECIMAL(18, 4) / 100"}, {"text": "price::VARCHAR"}
    one = versioned(1, {}, cents=(int, 0))
    two = versioned(2, {1: up1}, price=(price, Decimal(0)))
    three = versioned(3, {1: up1, 2: up2}, text=(str, ""))
    for kind, event in ((one, one(account="x", cents=12345)), (two, two(account="x", price=Decimal("0.5")))):
        with lab_of(path, "account", "account", kind) as lab:
            append(lab, [(event, 0)])
    with lab_of(path, "account", "account", three) as lab:
        assert stored(lab, "account", "x") == [three(account="x", text="123.4500"), three(account="x", text="0.5000")]


def test_a_stored_event_that_its_class_refuses_after_the_upcast_is_named(tmp_path: Path) -> None:
    """An event whose lifted fields break the rules of its class is UnknownEventType with the field at fault."""
    path = tmp_path / "accounts.duckdb"
    old = versioned(1, {}, a=(int, 0))
    new = versioned(2, {1: {"b": "-a"}}, b=(Annotated[int, Field(ge=0)], 0))
    with lab_of(path, "account", "account", old) as lab:
        append(lab, [(old(account="x", a=1), 0)])
    with lab_of(path, "account", "account", new) as lab, pytest.raises(UnknownEventType, match=r"Opened.*b: "):
        stored(lab, "account", "x")


def test_a_domain_knows_the_versions_that_its_store_holds(tmp_path: Path) -> None:
    """An old domain goes on reading what is its own, and names a later version when it meets one."""
    path = tmp_path / "accounts.duckdb"
    old, new = versioned(1, {}, a=(int, 0)), versioned(2, {1: {"b": "a"}}, b=(int, 0))
    with lab_of(path, "account", "account", old) as lab:
        append(lab, [(old(account="x", a=1), 0)])
        assert stored(lab, "account", "x") == [old(account="x", a=1)]
        with lab_of(path, "account", "account", new) as later:
            append(later, [(new(account="y", b=1), 0)])
        with pytest.raises(UnknownEventType, match="Opened v2"):
            stored(lab, "account", "y")


def test_a_table_and_single_events_are_of_the_version_declared(tmp_path: Path) -> None:
    """append_table stores each row at the version of its class, also where the classes have different ones."""

    class Closed(Event):
        account: str

    new = versioned(2, {1: {}}, note=(str | None, None))
    with lab_of(":memory:", "account", "account", new, Closed) as lab:
        frame = pl.DataFrame({"id": ["x", "x"], "type": ["Opened", "Closed"], "occurred_at": [START, START]})
        lab.append_table("account", frame)
        found = lab._log.database.execute("SELECT type, schema_version FROM account_events ORDER BY position")
        assert found == [("Opened", 2), ("Closed", 1)]


def test_upcasts_run_only_while_an_old_version_is_there() -> None:
    """A store without old events is read as it is stored, at no cost."""
    with open_shop() as lab:
        append(lab, [(placed("o-1", "c-1", [], None), 0)])
        assert lab._log.source("order_events") is None
        assert isinstance(lab._categories["order"], Category)
