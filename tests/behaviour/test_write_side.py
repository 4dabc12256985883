"""Commands in, events out: rules, versions, receipts, idempotency, the log in one shape."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest
from support import line, pay, place
from support.tallies import Add, Added, tallies

from cqrs_lab import Command, Domain, Event, Lab, open_shop
from cqrs_lab.errors import ConcurrencyError, DeclarationError, IdempotencyConflict, InvalidMessage, RuleViolated
from cqrs_lab.shop import CancelOrder, DeliverOrder, OrderPlaced, RegisterCustomer, ShipOrder, orders

PLACE = place("o-1", line("p-1", 2, "9.99"))
PAY = pay("o-1", "19.98")
SHIP = ShipOrder(order_id="o-1", tracking_number="T-1")
DELIVER = DeliverOrder(order_id="o-1")
CANCEL = CancelOrder(order_id="o-1", reason="changed my mind")


def test_an_order_goes_its_way():
    """Place, pay, ship and deliver follow each other, and each receipt says where its event is."""
    with open_shop() as lab:
        for version, command in enumerate([PLACE, PAY, SHIP, DELIVER], start=1):
            receipt = lab.send(command)
            assert (receipt.stream, receipt.version, receipt.position) == ("order/o-1", version, version)
            assert len(receipt.events) == 1
            assert isinstance(receipt.command_id, UUID)
        assert [row[3] for row in lab.events()] == ["OrderPlaced", "OrderPaid", "OrderShipped", "OrderDelivered"]


@pytest.mark.parametrize(
    ("before", "command", "state"),
    [
        ([PLACE], PLACE, "PENDING"),
        ([], PAY, "NEW"),
        ([PLACE, PAY], PAY, "PAID"),
        ([PLACE], pay("o-1", "19.97"), "19.98 due"),
        ([PLACE], SHIP, "PENDING"),
        ([PLACE, PAY, SHIP], SHIP, "SHIPPED"),
        ([PLACE, PAY], DELIVER, "PAID"),
        ([PLACE, PAY, SHIP], CANCEL, "SHIPPED"),
        ([PLACE, CANCEL], PAY, "CANCELLED"),
        ([], CANCEL, "NEW"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Command) else None,
)
def test_a_broken_rule_is_named_and_stores_nothing(before, command, state):
    """A command that a rule refuses raises RuleViolated with the rule and the state, and no event is stored."""
    with open_shop() as lab:
        for earlier in before:
            lab.send(earlier)
        with pytest.raises(RuleViolated) as refused:
            lab.send(command, command_id="refused")
        assert state in str(refused.value.state)
        assert refused.value.rule in str(refused.value)
        assert lab.head == len(before)
        assert lab._store.remembered("refused") is None


def test_a_naive_time_is_refused_and_an_aware_one_kept_in_utc():
    """occurred_at takes aware datetimes of any zone and gives them in UTC."""
    with open_shop() as lab:
        with pytest.raises(InvalidMessage, match=r"occurred_at.*no time zone"):
            lab.send(PLACE, occurred_at=datetime(2025, 1, 1))
        assert lab.head == 0
        lab.send(PLACE, occurred_at=datetime(2025, 1, 1, 2, tzinfo=timezone(timedelta(hours=-3))))
        assert lab.events().dicts()[0]["occurred_at"] == datetime(2025, 1, 1, 5, tzinfo=UTC)


def test_the_same_command_id_gives_the_first_receipt_again():
    """Sending a command twice under one id stores one event; another command under it is a conflict."""
    with open_shop() as lab:
        for name in (uuid4(), "a-name-of-mine"):
            head = lab.head
            order = place(f"o-{name}")
            first = lab.send(order, command_id=name, correlation_id="story")
            again = lab.send(order, command_id=name, correlation_id="story")
            assert again == first
            assert lab.head == head + 1
            with pytest.raises(IdempotencyConflict, match="another command"):
                lab.send(pay(f"o-{name}"), command_id=name)
            assert lab.head == head + 1


def test_command_ids_survive_a_restart(tmp_path):
    """A command repeated after the store was reopened is still recognised, and another one under its id refused."""
    with open_shop(tmp_path / "shop.duckdb") as lab:
        first = lab.send(PLACE, command_id="once", correlation_id="story")
        with pytest.raises(IdempotencyConflict):
            lab.send(place("o-2"), command_id="once")
    with open_shop(tmp_path / "shop.duckdb") as lab:
        assert lab.send(PLACE, command_id="once", correlation_id="story") == first
        with pytest.raises(IdempotencyConflict):
            lab.send(PAY, command_id="once")
        assert lab.head == 1


def test_an_append_with_a_wrong_expected_version_stores_nothing():
    """expected_version guards a stream: the error tells the expected and the actual version."""
    with open_shop() as lab:
        lab.send(PLACE)
        event = OrderPlaced(order_id="o-1")
        for expected in (0, 2):
            with pytest.raises(ConcurrencyError) as refused:
                lab._store.append(orders.log_category, "o-1", [event] * 5, expected_version=expected)
            assert (refused.value.expected, refused.value.actual) == (expected, 1)
        assert lab.head == 1
        recorded = lab._store.append(orders.log_category, "o-1", [event] * 3, expected_version=1)
        assert [(r.position, r.version) for r in recorded] == [(2, 2), (3, 3), (4, 4)]


def test_the_keys_of_the_tables_are_the_last_guard():
    """Even when the heads in memory are wrong, a doubled version is a ConcurrencyError and nothing is stored."""
    with open_shop() as lab:
        lab.send(PLACE)
        lab._log.heads.streams["order/o-1"] = (1, 0)
        with pytest.raises(ConcurrencyError):
            lab._store.append(orders.log_category, "o-1", [OrderPlaced(order_id="o-1")], expected_version=0)
        assert lab.head == 1
        assert lab.send(PAY).version == 2  # the heads were read anew


def test_correlation_and_causation_are_recorded():
    """Every event carries the story that it belongs to and the command that led to it."""
    with open_shop() as lab:
        lab.send(PLACE, command_id="c-1", correlation_id="story")
        lab.send(PAY)
        (row,) = lab.events(correlation_id="story").dicts()
        assert (row["type"], row["causation_id"]) == ("OrderPlaced", "c-1")
        assert len({row["correlation_id"] for row in lab.events().dicts()}) == 2


def test_the_log_in_one_shape_can_be_cut_in_every_way():
    """lab.events() reads by stream, category, type, correlation and after a position, ordered by position."""
    with open_shop() as lab:
        lab.send(RegisterCustomer(customer_id="c-1", name="Ann", email="ann@example.com"))
        lab.send(PLACE)
        lab.send(place("o-2"))
        lab.send(PAY)
        position = lambda **cut: [row[0] for row in lab.events(**cut)]  # noqa: E731
        assert position() == [1, 2, 3, 4]
        assert position(stream="order/o-1") == [2, 4]
        assert position(stream="order/unknown") == []
        assert position(category="customer") == [1]
        assert position(types=[OrderPlaced, "CustomerRegistered"]) == [1, 2, 3]
        assert position(after=2) == [3, 4]
        assert position(after=2, category="order", types=["OrderPaid"]) == [4]
        with pytest.raises(DeclarationError, match="customer"):
            lab.events(category="nothing")
        placed = lab.events(types=["OrderPlaced"]).dicts()[0]
        assert json.loads(placed["data"]) == {
            "order_id": "o-1",
            "customer_id": "c-1",
            "lines": [{"product_id": "p-1", "quantity": 2, "unit_price": 9.99}],
            "total": 19.98,
            "freight": 0.0,
        }


def test_anybodys_own_domain_works():
    """A lab is not about shops: any decider will do, and a command may lead to nothing."""
    once = tallies(decide=lambda command, state: [] if state else [Added(tally=command.tally, n=1)])
    with Lab(domain=Domain(deciders=[once])) as lab:
        first, again = lab.send(Add(tally="a", n=1)), lab.send(Add(tally="a", n=1), command_id="twice")
        assert (first.position, again.position, again.events, again.version) == (1, 1, (), 1)
        assert lab.send(Add(tally="a", n=1), command_id="twice").events == ()
        assert lab.head == 1


class Elsewhere(Event):
    tally: str


@pytest.mark.parametrize(
    "decide",
    [lambda command, state: [Added(tally="another", n=1)], lambda command, state: [Elsewhere(tally=command.tally)]],
)
def test_a_decision_about_another_stream_or_type_is_refused(decide):
    """A decider may return declared events about the command's own stream and no others."""
    with Lab(domain=Domain(deciders=[tallies(decide=decide)])) as lab:
        with pytest.raises(InvalidMessage, match="Nothing was stored"):
            lab.send(Add(tally="a", n=1))
        assert lab.head == 0


class Retyped(Event):
    tally: str
    note: int | None = None


def test_a_new_field_becomes_a_column_and_a_changed_one_is_refused(tmp_path):
    """A store grows with its domain: fields are added; a field that changes its type is refused and named."""

    class Renamed(Event):
        tally: str
        nickname: str = "none"

    path = tmp_path / "tallies.duckdb"
    with Lab(path, domain=Domain(deciders=[tallies()])) as lab:
        lab.send(Add(tally="a", n=1))
    with Lab(path, domain=Domain(deciders=[tallies(events=[Added, Renamed])])) as lab:
        lab._store.append(lab._categories["tally"], "a", [Renamed(tally="a", nickname="x")])
        assert [r.event for r in lab._log.read(lab._categories["tally"], "a")] == [
            Added(tally="a", n=1),
            Renamed(tally="a", nickname="x"),
        ]
    with pytest.raises(DeclarationError, match=r"tally_events\.note"):
        Lab(path, domain=Domain(deciders=[tallies(events=[Retyped])]))


def test_a_sender_may_say_which_version_it_has_seen():
    """A command decided on an old version of a stream is refused; on the version that is there it is carried out."""
    with open_shop() as lab:
        lab.send(PLACE, expected_version=0)
        with pytest.raises(ConcurrencyError) as refused:
            lab.send(PAY, expected_version=0)
        assert (refused.value.stream, refused.value.expected, refused.value.actual) == ("order/o-1", 0, 1)
        assert lab.send(PAY, expected_version=1).version == 2
