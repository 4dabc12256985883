"""Messages: what may be said, what is refused and how, and that the log gives back what it was given."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, ClassVar
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from cqrs_lab import Command, Decider, Domain, Event, Lab, Value, open_shop
from cqrs_lab.errors import InvalidMessage
from cqrs_lab.log import Log
from cqrs_lab.messages import Message
from cqrs_lab.shop import (
    CustomerRegistered,
    OrderCancelled,
    OrderDelivered,
    OrderDetails,
    OrderLine,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    PayOrder,
    PlaceOrder,
    RegisterCustomer,
    customers,
    orders,
)
from cqrs_lab.write.event_store import Context, EventStore

START = datetime(2024, 3, 1, tzinfo=UTC)
LINE = {"product_id": "p-1", "quantity": 1, "unit_price": "1.50"}


class Part(Value):
    """Something inside a message."""

    name: str
    size: float = 1.0
    made_at: datetime | None = None


class Everything(Event):
    """An event with a field of every kind that the log takes."""

    thing_id: str
    text: str | None = None
    flag: bool | None = None
    number: int | None = None
    ratio: float | None = None
    weight: Annotated[Decimal, Field(max_digits=12, decimal_places=5)] | None = None
    at: datetime | None = None
    day: date | None = None
    reference: UUID | None = None
    parts: tuple[Part, ...] = ()
    counts: tuple[int, ...] = ()


class Touch(Command):
    """A command, so that there is one."""

    thing_id: str


things = Decider(
    category="thing",
    key="thing_id",
    initial=0,
    decide=lambda command, state: [],
    evolve=lambda state, event: state + 1,
    commands=[Touch],
    events=[Everything],
)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "fields", "said"),
    [
        (PlaceOrder, {"lines": []}, "lines: .*at least 1 item"),
        (PlaceOrder, {"order_id": ""}, "order_id: .*at least 1 character"),
        (PlaceOrder, {"order_id": "x" * 501}, "order_id: .*at most 500 characters"),
        (PlaceOrder, {"order_id": "a\ud800"}, "order_id: .*unicode"),
        (PlaceOrder, {"order_id": 7}, "order_id: .*string.*got 7"),
        (PlaceOrder, {"lines": [LINE | {"quantity": 0}]}, r"lines\[0\]\.quantity: .*greater than or equal to 1.*got 0"),
        (PlaceOrder, {"lines": [LINE, LINE | {"unit_price": "1.005"}]}, r"lines\[1\]\.unit_price: .*2 decimal places"),
        (PlaceOrder, {"lines": [LINE | {"unit_price": float("nan")}]}, r"lines\[0\]\.unit_price: .*finite"),
        (PlaceOrder, {"lines": [LINE | {"unit_price": "Infinity"}]}, r"lines\[0\]\.unit_price: .*finite"),
        (PlaceOrder, {"lines": [LINE | {"unit_price": "-0.01"}]}, r"lines\[0\]\.unit_price: .*or equal to 0"),
        (PlaceOrder, {"lines": [LINE | {"product_id": "\udfff"}]}, r"lines\[0\].*product_id: .*unicode"),
        (PlaceOrder, {"lines": [LINE | {"quantity": 2**63}]}, r"lines\[0\].*quantity: .*64 bits"),
        (PlaceOrder, {"lines": [LINE | {"color": "red"}]}, r"lines\[0\]\.color: there is no such field"),
        (PlaceOrder, {"priority": 1}, "priority: there is no such field"),
        (PayOrder, {"amount": "10000000000000000.00"}, "amount: .*digits"),
        (PayOrder, {"amount": "abc"}, "amount: .*decimal.*got 'abc'"),
        (PayOrder, {"amount": "NaN"}, "amount: .*finite"),
        (PayOrder, {"amount": 1e400}, "amount: .*finite"),
        (PayOrder, {}, "amount: .*required"),
        (RegisterCustomer, {"name": "", "email": "x"}, "name: .*at least 1.*; email: .*match"),
    ],
)
def test_a_command_that_breaks_a_rule(message: type[Command], fields: dict[str, Any], said: str) -> None:
    """A field that breaks its rule is InvalidMessage, naming the field, the rule and what was given."""
    valid: dict[type[Command], dict[str, Any]] = {
        PlaceOrder: {"order_id": "o-1", "customer_id": "c-1", "lines": [LINE]},
        PayOrder: {"order_id": "o-1"},
        RegisterCustomer: {"customer_id": "c-1"},
    }
    with pytest.raises(InvalidMessage, match=said) as refused:
        message(**(valid[message] | fields))
    assert str(refused.value).startswith(f"{message.__name__} was refused: ")
    assert str(refused.value).endswith("Nothing was stored")
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"number": 2**63}, "number: .*64 bits"),
        ({"number": -(2**63) - 1}, "number: .*64 bits"),
        ({"number": 1.5}, "number: "),
        ({"ratio": float("nan")}, "ratio: .*finite"),
        ({"ratio": float("-inf")}, "ratio: .*finite"),
        ({"weight": "1.123456"}, "weight: .*5 decimal places"),
        ({"weight": "12345678.0"}, "weight: .*digits"),
        ({"at": datetime(2024, 3, 1)}, "at: .*no time zone"),
        ({"at": "2024-03-01T00:00:00"}, "at: .*no time zone"),
        ({"text": "x\udc80"}, "text: .*surrogate"),
        ({"parts": [{"name": "\ud83d"}]}, r"parts.0.*name: .*surrogate"),
        ({"parts": [{"name": "a", "size": float("inf")}]}, r"parts.0.*size: .*finite"),
        ({"parts": [{"name": "a", "made_at": datetime(2024, 3, 1)}]}, r"parts.0.*made_at: .*no time zone"),
        ({"counts": [1, 2**64]}, r"counts\[1\]: .*64 bits"),
        ({"reference": "not-a-uuid"}, "reference: "),
        ({"day": "2024-13-01"}, "day: "),
    ],
)
def test_an_event_that_a_column_cannot_hold(fields: dict[str, Any], said: str) -> None:
    """A value that a typed column could not give back is refused when the event is made, also deep inside it."""
    with pytest.raises(InvalidMessage, match=said):
        Everything(thing_id="t-1", **fields)


def test_messages_are_frozen_and_named() -> None:
    """A message cannot be changed, takes its fields by name only, and equals another that says the same."""
    line = OrderLine(**LINE)
    with pytest.raises(ValueError, match="frozen"):
        line.quantity = 2
    with pytest.raises(TypeError):
        OrderLine("p-1", 1, Decimal("1.50"))
    assert line == OrderLine(product_id="p-1", quantity=1, unit_price=Decimal("1.5"))
    assert hash(line) == hash(OrderLine(product_id="p-1", quantity=1, unit_price=Decimal("1.50")))
    assert OrderDetails(order_id="o-1").order_id == "o-1"
    lines = [dict(LINE)]
    order = PlaceOrder(order_id="o-1", customer_id="c-1", lines=lines)
    lines.append(dict(LINE))
    assert len(order.lines) == 1


def test_validation_by_pydantic_is_the_same() -> None:
    """What pydantic's own entrances take is held to the same rules, and malformed JSON is refused."""
    with pytest.raises(ValueError, match="no time zone"):
        Everything.model_validate({"thing_id": "t", "at": datetime(2024, 1, 1)})
    for text in ("{", '{"order_id": "o-1", "amount": NaN}', '{"order_id": "o-1", "amount": "1.005"}', "[]"):
        with pytest.raises(ValueError, match="validation error"):
            PayOrder.model_validate_json(text)


def test_nothing_is_stored_of_a_refused_command() -> None:
    """A command that is refused when it is made, or whose time is naive, leaves the log empty."""
    with open_shop(threads=1) as lab:
        with pytest.raises(InvalidMessage):
            lab.send(PlaceOrder(order_id="o-1", customer_id="c-1", lines=()))
        with pytest.raises(InvalidMessage, match=r"occurred_at.*no time zone"):
            lab.send(
                PlaceOrder(order_id="o-1", customer_id="c-1", lines=(OrderLine(**LINE),)),
                occurred_at=datetime(2024, 3, 1),
            )
        assert lab.head == 0


def test_times_are_kept_as_given_in_utc() -> None:
    """Daylight saving and zones change nothing: a time comes back as the same moment, in UTC."""
    with Lab(domain=Domain(deciders=[things]), threads=1) as lab:
        # The hour that a clock in Berlin shows twice.
        twice = [datetime(2024, 10, 27, 2, 30, tzinfo=timezone(timedelta(hours=h))) for h in (2, 1)]
        store = EventStore(lab._log, clock=lambda: START, new_id=uuid4)
        for moment in twice:
            event = Everything(thing_id="t", at=moment, parts=(Part(name="a", made_at=moment),))
            (kept,) = store.append(things.log_category, "t", [event], context=Context(occurred_at=moment))
            read = lab._log.read(things.log_category, "t")[-1]
            assert read.occurred_at == kept.occurred_at == moment
            assert read.event == event
            assert read.event.at.utcoffset() == timedelta(0)
        assert [r.occurred_at.hour for r in lab._log.read(things.log_category, "t")] == [0, 1]


# -- the round trip ----------------------------------------------------------------------------------------------------

TEXT = st.text() | st.sampled_from(
    ["", "\0", "a\0b", "🛒👩‍👩‍👧", "'; DROP TABLE x; --", '"', "שלום עולם", "\u202eabc", "é\u0301", "\\"]
)
ID = TEXT.filter(bool)
MONEY = st.decimals(min_value=Decimal("0.00"), max_value=Decimal("9999999999999999.99"), places=2) | st.sampled_from(
    [Decimal("9999999999999999.99"), Decimal("0.01"), Decimal("1E+3"), Decimal("0")]
)
INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1])
MOMENT = st.datetimes(
    datetime(1, 1, 2),
    datetime(9999, 12, 30),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7, minutes=30))]),
)
LINES = st.lists(
    st.builds(OrderLine, product_id=ID, quantity=st.integers(1, 2**63 - 1), unit_price=MONEY), max_size=4
).map(tuple)
STATUS: dict[str, Any] = {"source_status": st.none() | TEXT}
EVENTS = st.one_of(
    st.builds(
        OrderPlaced,
        order_id=ID,
        customer_id=st.none() | ID,
        lines=LINES,
        total=st.none() | MONEY,
        freight=st.none() | MONEY,
        **STATUS,
    ),
    st.builds(OrderPaid, order_id=ID, amount=st.none() | MONEY, method=st.none() | TEXT, **STATUS),
    st.builds(OrderShipped, order_id=ID, tracking_number=st.none() | TEXT, **STATUS),
    st.builds(OrderDelivered, order_id=ID, **STATUS),
    st.builds(OrderCancelled, order_id=ID, reason=st.none() | TEXT, **STATUS),
    st.builds(
        CustomerRegistered,
        customer_id=ID,
        name=st.none() | TEXT,
        email=st.none() | TEXT,
        city=st.none() | TEXT,
        state=st.none() | TEXT,
    ),
    st.builds(
        Everything,
        thing_id=ID,
        text=st.none() | TEXT,
        flag=st.none() | st.booleans(),
        number=st.none() | INT64,
        ratio=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        weight=st.none() | st.decimals(Decimal("-9999999.99999"), Decimal("9999999.99999"), places=5),
        at=st.none() | MOMENT,
        day=st.none() | st.dates(),
        reference=st.none() | st.uuids(),
        parts=st.lists(
            st.builds(
                Part,
                name=TEXT,
                size=st.floats(allow_nan=False, allow_infinity=False),
                made_at=st.none() | MOMENT,
            ),
            max_size=3,
        ).map(tuple),
        counts=st.lists(INT64, max_size=3).map(tuple),
    ),
)


@pytest.fixture(scope="module")
def store() -> Iterator[EventStore]:
    """A store in memory for every category of this file."""
    with Lab(domain=Domain(deciders=[orders, customers, things]), threads=1) as lab:
        yield EventStore(lab._log, clock=lambda: START, new_id=uuid4)


CATEGORIES = {t: d.log_category for d in (orders, customers, things) for t in d.events}


@given(events=st.lists(EVENTS, min_size=1, max_size=4))
def test_the_log_gives_back_what_it_was_given(store: EventStore, events: list[Event]) -> None:
    """Any event that can be made is read back equal to itself: odd text, limits of numbers, nothing at all."""
    log: Log = store.log
    for event in events:
        category = CATEGORIES[type(event)]
        id = getattr(event, category.key)
        (kept,) = store.append(category, id, [event])
        read = log.read(category, id)[-1]
        assert read.event == event
        assert read.event.model_dump() == event.model_dump()
        assert read.position == kept.position
        assert read.version == kept.version


@given(event=EVENTS)
def test_a_message_survives_json(event: Event) -> None:
    """What a message says as JSON makes the same message again."""
    assert type(event).model_validate_json(event.model_dump_json()) == event


@given(left=st.tuples(ID, ID), right=st.tuples(ID, ID))
def test_ids_never_collide(left: tuple[str, str], right: tuple[str, str]) -> None:
    """Two ids that differ name two streams, whatever they hold."""
    ids = {*left, *right}
    names = {category.stream(id) for category in (orders.log_category, customers.log_category) for id in ids}
    assert len(names) == 2 * len(ids)


def test_a_subclass_keeps_its_rules() -> None:
    """A message declared by anybody is validated as the shop's are."""

    class Measured(Event):
        schema_version: ClassVar[int] = 3
        sensor: str
        value: float

    assert issubclass(Measured, Message)
    with pytest.raises(InvalidMessage, match=r"Measured was refused: value: .*finite"):
        Measured(sensor="s", value=float("nan"))
