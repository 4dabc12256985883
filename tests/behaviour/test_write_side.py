"""Commands in, events out: rules, versions, receipts, idempotency, the log in one shape."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from support import START

from cqrs_lab import Command, Decider, Domain, Event, Lab, open_shop
from cqrs_lab.errors import (
    ConcurrencyError,
    CqrsLabError,
    DeclarationError,
    IdempotencyConflict,
    InvalidMessage,
    RuleViolated,
    UnknownCommand,
    UnsupportedField,
)
from cqrs_lab.shop import (
    CancelOrder,
    DeliverOrder,
    OrderLine,
    OrderPlaced,
    PayOrder,
    PlaceOrder,
    RegisterCustomer,
    ShipOrder,
    orders,
)

LINE = OrderLine(product_id="p-1", quantity=2, unit_price="9.99")
PLACE = PlaceOrder(order_id="o-1", customer_id="c-1", lines=[LINE])
PAY = PayOrder(order_id="o-1", amount="19.98")
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
        ([PLACE], PayOrder(order_id="o-1", amount="19.97"), "19.98 due"),
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


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: PlaceOrder(order_id="o", customer_id="c", lines=[]), "lines"),
        (lambda: OrderLine(product_id="p", quantity=0, unit_price=1), "quantity"),
        (lambda: OrderLine(product_id="p", quantity=1, unit_price=float("nan")), "unit_price"),
        (lambda: OrderLine(product_id="p", quantity=1, unit_price="1.005"), "unit_price"),
        (lambda: OrderLine(product_id="p", quantity=1, unit_price=-1), "unit_price"),
        (lambda: PayOrder(order_id="o", amount=Decimal("Infinity")), "amount"),
        (lambda: PayOrder(order_id="", amount=1), "order_id"),
        (lambda: PayOrder(order_id="o", amount=10**17), "amount"),
        (lambda: PayOrder(order_id="o"), "amount: Field required"),
        (lambda: PayOrder(order_id="o", amount=1, tip=2), "tip: there is no such field"),
        (lambda: RegisterCustomer(customer_id="c", name="Ann", email="nowhere"), "email"),
        (
            lambda: PlaceOrder(
                order_id="o", customer_id="c", lines=[{"product_id": "p", "quantity": 0, "unit_price": 1}]
            ),
            "lines[0]",
        ),
    ],
)
def test_bad_input_is_refused_naming_the_field(make, names):
    """A message that cannot be stored cannot be made, and the error names the field."""
    with pytest.raises(InvalidMessage) as refused:
        make()
    assert names in str(refused.value)
    assert isinstance(refused.value, (CqrsLabError, ValueError))


def test_a_naive_time_is_refused_and_an_aware_one_kept_in_utc():
    """occurred_at takes aware datetimes of any zone and gives them in UTC."""
    with open_shop() as lab:
        with pytest.raises(InvalidMessage, match="time zone"):
            lab.send(PLACE, occurred_at=datetime(2025, 1, 1))
        assert lab.head == 0
        lab.send(PLACE, occurred_at=datetime(2025, 1, 1, 2, tzinfo=timezone(timedelta(hours=-3))))
        assert lab.events().dicts()[0]["occurred_at"] == datetime(2025, 1, 1, 5, tzinfo=UTC)


def test_the_same_command_id_gives_the_first_receipt_again():
    """Sending a command twice under one id stores one event; another command under it is a conflict."""
    with open_shop() as lab:
        for name in (uuid4(), "a-name-of-mine"):
            head = lab.head
            place = PlaceOrder(order_id=f"o-{name}", customer_id="c-1", lines=[LINE])
            first = lab.send(place, command_id=name, correlation_id="story")
            again = lab.send(place, command_id=name, correlation_id="story")
            assert again == first
            assert lab.head == head + 1
            with pytest.raises(IdempotencyConflict, match="another command"):
                lab.send(PayOrder(order_id=f"o-{name}", amount="19.98"), command_id=name)
            assert lab.head == head + 1


def test_command_ids_survive_a_restart(tmp_path):
    """A command repeated after the store was reopened is still recognised."""
    with open_shop(tmp_path / "shop.duckdb") as lab:
        first = lab.send(PLACE, command_id="once", correlation_id="story")
    with open_shop(tmp_path / "shop.duckdb") as lab:
        assert lab.send(PLACE, command_id="once", correlation_id="story") == first
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
        lab.send(PlaceOrder(order_id="o-2", customer_id="c-1", lines=[LINE]))
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


def test_an_unknown_command_is_named_with_what_is_known():
    """A command that no decider handles is refused with the list of those that are handled."""

    class Dance(Command):
        order_id: str

    with open_shop() as lab, pytest.raises(UnknownCommand, match=r"Dance.*PlaceOrder"):
        lab.send(Dance(order_id="o-1"))


class Opened(Event):
    """An account of any kind of fields was opened."""

    account: str
    note: str | None = None


class Open(Command):
    account: str


def accounts(**changes):
    """Return a decider of accounts with some of its parts changed."""
    parts = {
        "category": "account",
        "key": "account",
        "initial": 0,
        "decide": lambda command, state: [Opened(account=command.account)],
        "evolve": lambda state, event: state + 1,
        "commands": [Open],
        "events": [Opened],
    }
    return Decider(**(parts | changes))


def test_anybodys_own_domain_works():
    """A lab is not about shops: any decider will do, and a command may lead to nothing."""
    once = accounts(decide=lambda command, state: [] if state else [Opened(account=command.account)])
    with Lab(domain=Domain(deciders=[once])) as lab:
        first, again = lab.send(Open(account="a")), lab.send(Open(account="a"), command_id="twice")
        assert (first.position, again.position, again.events, again.version) == (1, 1, (), 1)
        assert lab.send(Open(account="a"), command_id="twice").events == ()
        assert lab.head == 1


class Elsewhere(Event):
    account: str


@pytest.mark.parametrize(
    "decide",
    [
        lambda command, state: [Opened(account="another")],
        lambda command, state: [Elsewhere(account=command.account)],
    ],
)
def test_a_decision_about_another_stream_or_type_is_refused(decide):
    """A decider may return declared events about the command's own stream and no others."""
    with Lab(domain=Domain(deciders=[accounts(decide=decide)])) as lab:
        with pytest.raises(InvalidMessage, match="Nothing was stored"):
            lab.send(Open(account="a"))
        assert lab.head == 0


def test_two_owners_of_one_command_are_an_error_at_the_start():
    """A command class has one decider."""
    with pytest.raises(DeclarationError, match="one owner"):
        Lab(domain=Domain(deciders=[accounts(), accounts(category="other")]))


class Reserved(Event):
    account: str
    position: int


class Cased(Event):
    account: str
    Note: str | None = None


class Retyped(Event):
    account: str
    note: int | None = None


class Shapeless(Event):
    account: str
    data_: dict[str, str] = {}


class Keyless(Event):
    number: str


@pytest.mark.parametrize("event", [Reserved, Cased, Retyped, Shapeless, Keyless])
def test_fields_that_cannot_be_columns_are_refused_at_declaration(event):
    """Envelope names, names that differ in case, a second type, an unsupported type and a missing key are refused."""
    with pytest.raises((UnsupportedField, DeclarationError)):
        accounts(events=[Opened, event])


def test_a_new_field_becomes_a_column_and_a_changed_one_is_refused(tmp_path):
    """A store grows with its domain: fields are added; a field that changes its type is refused and named."""

    class Renamed(Event):
        account: str
        nickname: str = "none"

    path = tmp_path / "accounts.duckdb"
    with Lab(path, domain=Domain(deciders=[accounts()])) as lab:
        lab.send(Open(account="a"))
    with Lab(path, domain=Domain(deciders=[accounts(events=[Opened, Renamed])])) as lab:
        lab._store.append(lab._categories["account"], "a", [Renamed(account="a", nickname="x")])
        assert [r.event for r in lab._log.read(lab._categories["account"], "a")] == [
            Opened(account="a"),
            Renamed(account="a", nickname="x"),
        ]
    with pytest.raises(DeclarationError, match=r"account_events\.note"):
        Lab(path, domain=Domain(deciders=[accounts(events=[Retyped])]))


def test_the_clock_may_run_backwards():
    """recorded_at never decreases with position, whatever the clock does; occurred_at is kept as given."""
    times = iter([START, START - timedelta(days=1), START + timedelta(days=1)])
    with open_shop(clock=lambda: next(times)) as lab:
        for command in (PLACE, PAY, SHIP):
            lab.send(command)
        recorded = [row["recorded_at"] for row in lab.events().dicts()]
        assert recorded == [START, START, START + timedelta(days=1)]


def test_a_sender_may_say_which_version_it_has_seen():
    """A command decided on an old version of a stream is refused; on the version that is there it is carried out."""
    with open_shop() as lab:
        lab.send(PLACE, expected_version=0)
        with pytest.raises(ConcurrencyError) as refused:
            lab.send(PAY, expected_version=0)
        assert (refused.value.stream, refused.value.expected, refused.value.actual) == ("order/o-1", 0, 1)
        assert lab.send(PAY, expected_version=1).version == 2
