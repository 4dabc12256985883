"""Messages in the log: typed, and given back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.histories import CHARACTERS
from support.things import Everything, Part, things

from cqrs_lab import Domain, Event, Lab
from cqrs_lab.shop import (
    CustomerRegistered,
    OrderCancelled,
    OrderDelivered,
    OrderLine,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    customers,
    orders,
)
from cqrs_lab.store.log import Log
from cqrs_lab.write.batch import Context
from cqrs_lab.write.event_store import EventStore

START = datetime(2024, 3, 1, tzinfo=UTC)


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


TEXT = st.text(CHARACTERS) | st.sampled_from(
    ["", "🛒👩‍👩‍👧", "'; DROP TABLE x; --", '"', "שלום עולם", "\u202eabc", "é\u0301", "\\"]
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
                Part, name=TEXT, size=st.floats(allow_nan=False, allow_infinity=False), made_at=st.none() | MOMENT
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
