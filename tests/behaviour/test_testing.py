"""What helps others to test: specifications of deciders and read models, and the contract of event stores."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.errors import (
    CommandError,
    ConcurrencyError,
    DeclarationError,
    InvalidMessage,
    ReadModelRefused,
    RuleViolated,
)
from cqrs_lab.messages import Recorded
from cqrs_lab.read.serving import Served
from cqrs_lab.shop import (
    CancelOrder,
    CustomerRegistered,
    OrderCancelled,
    OrderLine,
    OrderPaid,
    OrderPlaced,
    PayOrder,
    PlaceOrder,
    RegisterCustomer,
    customers,
    daily_orders,
    order_summary,
    orders,
)
from cqrs_lab.testing import CONTRACT, START, EventStoreContract, LabStore, Noted, Store, given, given_events

LINE = OrderLine(product_id="p-1", quantity=2, unit_price=Decimal("9.99"))
PLACE = PlaceOrder(order_id="o-1", customer_id="c-1", lines=(LINE,))
PAY = PayOrder(order_id="o-1", amount=Decimal("19.98"))
PLACED = OrderPlaced(order_id="o-1", customer_id="c-1", lines=(LINE,), total=Decimal("19.98"), freight=Decimal(0))
PAID = OrderPaid(order_id="o-1", amount=Decimal("19.98"), method="card")
OTHER = OrderPlaced(order_id="o-2", customer_id="c-1", total=Decimal(5))


def told(check: Callable[[], object]) -> tuple[str, BaseException | None]:
    """Return the text and the cause of the AssertionError that a check raises."""
    with pytest.raises(AssertionError) as failed:
        check()
    return str(failed.value), failed.value.__cause__


# -- deciders ----------------------------------------------------------------------------------------------------------


def test_a_decision_is_compared_and_returned() -> None:
    """Given events, one by one or as a list, and a command, then() accepts the events that follow and returns them."""
    assert given().when(PLACE).then(PLACED) == [PLACED]
    assert given(PLACED).when(PAY).then([PAID]) == [PAID]
    assert (
        given([PLACED, PAID])
        .when(CancelOrder(order_id="o-1", reason="late"))
        .then(OrderCancelled(order_id="o-1", reason="late"))
    )


def test_nothing_can_be_what_follows() -> None:
    """then() without arguments, or with an empty list, accepts a decision that led to nothing, and no other."""
    idle = replace(orders, decide=lambda command, order: [])
    assert given(PLACED).when(PAY, idle).then() == []
    assert given(PLACED).when(PAY, decider=idle).then([]) == []
    text, _ = told(lambda: given(PLACED).when(PAY).then())
    assert text.startswith("outcome 1 is one too many\n")
    text, _ = told(lambda: given(PLACED).when(PAY, idle).then(PAID))
    assert text.startswith("outcome 1 is missing\n")
    assert text.endswith("got:      nothing")


def test_an_exception_can_be_what_follows() -> None:
    """then() accepts a class of exceptions, and a RuleViolated with the same rule whatever its state."""
    specification = given(PLACED, PAID).when(PAY)
    assert specification.then(RuleViolated) == []
    assert specification.then(CommandError) == []
    assert specification.then(RuleViolated("an order is paid once, while it is pending", "any")) == []
    text, _ = told(lambda: specification.then(RuleViolated("an order is paid whole", "PAID")))
    assert "rule should be 'an order is paid whole' and is 'an order is paid once, while it is pending'" in text
    text, cause = told(lambda: specification.then(ConcurrencyError))
    assert "type should be 'ConcurrencyError' and is 'RuleViolated'" in text
    assert isinstance(cause, RuleViolated)
    text, cause = told(lambda: given(PLACED).when(PAY).then(RuleViolated))
    assert "type should be 'RuleViolated' and is 'OrderPaid'" in text
    assert cause is None


def test_a_wrong_decision_is_told_line_by_line() -> None:
    """The failure begins with the first difference and shows given, when, expected and got, a line for each."""
    text, cause = told(lambda: given(PLACED).when(PAY).then(PAID.model_copy(update={"method": "cash"}), PAID))
    assert text.splitlines() == [
        "outcome 1: method should be 'cash' and is 'card'",
        f"given:    {PLACED!r}",
        f"when:     {PAY!r}",
        f"expected: {PAID.model_copy(update={'method': 'cash'})!r}",
        f"          {PAID!r}",
        f"got:      {PAID!r}",
    ]
    assert cause is None


def test_an_unexpected_exception_is_shown_and_chained() -> None:
    """When the decider raises what nobody expected, the failure shows it and has it as its cause."""
    broken = replace(orders, decide=lambda command, order: [PAID][1 // 0 :])
    text, cause = told(lambda: given(PLACED).when(PAY, broken).then(PAID))
    assert "type should be 'OrderPaid' and is 'ZeroDivisionError'" in text
    assert "got:      ZeroDivisionError('" in text
    assert isinstance(cause, ZeroDivisionError)
    forgetful = replace(orders, evolve=lambda order, event: 1 // 0)
    assert isinstance(told(lambda: given(PLACED).when(PAY, forgetful).then(PAID))[1], ZeroDivisionError)


@pytest.mark.parametrize("stray", [[OrderPaid(order_id="o-2")], [CustomerRegistered(customer_id="o-1")], None])
def test_what_the_bus_would_refuse_fails_here_too(stray: Any) -> None:
    """A decision that is no list of declared events of the command's stream does not pass for one."""
    specification = given().when(PAY, replace(orders, decide=lambda command, order: stray))
    _, cause = told(lambda: specification.then(stray or []))
    assert isinstance(cause, (InvalidMessage, TypeError))


def test_an_event_class_does_not_pass_for_its_event() -> None:
    """then() takes a class for an exception only: an event's class is a mistake, and fails."""
    wrong: Any = OrderPaid
    assert "should be" in told(lambda: given(PLACED).when(PAY).then(wrong))[0]


def test_a_class_that_was_declared_again_is_another_one() -> None:
    """An event of a class of the same name, as when a notebook's cell ran twice, is told by its class."""
    again = type("OrderPaid", (OrderPaid,), {})(**PAID.model_dump())
    assert told(lambda: given(PLACED).when(PAY).then(again))[0].startswith("outcome 1: class should be <class ")


def test_the_decider_is_found_beside_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one decider that lists the command, in the module of its class, decides; a notebook's module is __main__."""
    assert given().when(PAY).decider is orders
    assert given().when(RegisterCustomer(customer_id="c-1", name="Ann", email="a@example.com")).decider is customers
    notebook = ModuleType("__main__")
    vars(notebook).update(customers=customers, mine=orders, _1=orders)
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    monkeypatch.setattr(PayOrder, "__module__", "__main__")
    assert given().when(PAY).decider is orders
    vars(notebook).update(second=replace(orders))
    with pytest.raises(DeclarationError, match=r"2 deciders among the variables of __main__ list PayOrder.*decider=…"):
        given().when(PAY)
    assert given().when(PAY, orders).decider is orders


def test_a_missing_decider_is_named_with_what_to_pass() -> None:
    """Without a decider for the command, or with one that does not list it, the error says what to pass."""

    class Refund(PayOrder):
        """A command that nobody handles."""

    with pytest.raises(
        DeclarationError, match=r"0 deciders .* list Refund, .* pass the right one: when\(command, deci"
    ):
        given().when(Refund(order_id="o-1", amount=Decimal(1)))
    with pytest.raises(DeclarationError, match="0 deciders among those given list PayOrder"):
        given().when(PAY, customers)


@pytest.mark.parametrize("stray", [OTHER, CustomerRegistered(customer_id="o-1"), PAY], ids=lambda e: type(e).__name__)
def test_given_events_are_of_the_commands_stream(stray: Any) -> None:
    """An event of another order or category, or a command, is refused: a test would pass for nothing."""
    with pytest.raises(DeclarationError, match="cannot be in the stream"):
        given(PLACED, stray).when(PAY)


# -- read models -------------------------------------------------------------------------------------------------------


def test_rows_are_compared_on_the_named_columns() -> None:
    """rows() compares the columns that the expected dicts name, in order of the key, and returns the rows whole."""
    projected = given_events(OTHER, PLACED, PAID).project(order_summary)
    rows = projected.rows(
        {"order_id": "o-1", "status": "PAID", "paid": Decimal("19.98"), "created_at": START + timedelta(minutes=1)},
        {"order_id": "o-2", "status": "PENDING", "customer_id": "c-1", "updated_at": START},
    )
    assert rows == projected.rows() == projected.rows([{}, {}])
    assert rows[0]["item_count"] == 2


def test_wrong_rows_are_told_line_by_line() -> None:
    """A wrong value, a missing row, one too many and an unknown column are each told, with all that was asked."""
    projected = given_events([PLACED]).project(daily_orders)
    (row,) = projected.rows()
    expected = {"orders": 2}
    assert told(lambda: projected.rows(expected))[0].splitlines() == [
        "row 1: orders should be 2 and is 1",
        f"given:    {PLACED!r}",
        "when:     project daily_orders",
        f"expected: {expected!r}",
        f"got:      {row!r}",
    ]
    assert told(lambda: projected.rows({}, {}))[0].startswith("row 2 is missing\n")
    assert told(lambda: projected.rows({"order": 1}))[0].startswith("row 1: order should be 1 and is not there\n")
    assert told(lambda: projected.rows([]))[0].startswith("row 1 is one too many\n")
    assert told(projected.is_empty)[0].startswith("row 1 is one too many\n")


def test_no_rows_are_asserted_by_is_empty() -> None:
    """is_empty() passes when nothing of the events concerns the read model, or when there are no events."""
    given_events(PAID).project(daily_orders).is_empty()
    given_events(deciders=[orders]).project(order_summary).is_empty()


def test_times_can_be_given() -> None:
    """An event given with an aware time occurred then; a naive time is refused."""
    zone = datetime.fromisoformat("2024-05-01T01:00:00+02:00")
    rows = given_events((PLACED, zone), PAID).project(order_summary).rows()
    assert rows[0]["created_at"] == datetime(2024, 4, 30, 23, tzinfo=UTC)
    assert rows[0]["updated_at"] == START + timedelta(minutes=1)
    with pytest.raises(ValueError, match="no time zone"):
        given_events((PLACED, datetime(2024, 5, 1)))


def test_recorded_times_and_ids_repeat() -> None:
    """Two runs give equal rows, also where a read model shows when an event was recorded and its id."""
    model = ReadModel("told", "event_id", "SELECT event_id, recorded_at FROM order_events")
    runs = [given_events(PLACED, PAID).project(model).rows() for _ in range(2)]
    assert runs[0] == runs[1]
    assert [row["recorded_at"] for row in runs[0]] == [START, START + timedelta(minutes=1)]


def test_categories_and_layers_can_be_several() -> None:
    """A read model may join the categories of the events, or those of deciders=, and read other read models."""
    joined = ReadModel(
        "named",
        "order_id",
        """SELECT order_id, max(c.name) AS name FROM order_summary JOIN customer_events AS c USING (customer_id)
           GROUP BY order_id""",
    )
    ann = CustomerRegistered(customer_id="c-1", name="Ann")
    given_events(PLACED, ann).project(joined, layers=[order_summary]).rows({"order_id": "o-1", "name": "Ann"})
    given_events(PLACED).project(joined, layers=[order_summary]).is_empty()
    other = ReadModel("other", "order_id", "SELECT order_id FROM parcel_events")
    with pytest.raises(ReadModelRefused, match="parcel_events"):
        given_events(PLACED).project(other)
    given_events(PLACED, deciders=[orders, customers]).project(joined, layers=[order_summary]).is_empty()


def test_events_without_a_decider_are_refused() -> None:
    """Without events, or with one that no decider, or none of those given, lists, the error says to pass deciders=."""
    with pytest.raises(DeclarationError, match=r"without events .* given_events\(deciders="):
        given_events().project(order_summary)
    with pytest.raises(DeclarationError, match=r"0 deciders among those given list Noted.*given_events\(…, deciders="):
        given_events(Noted(note_id="n"), deciders=[orders]).project(order_summary)


@pytest.mark.parametrize("way", ["materialized", "projection"])
def test_a_serving_that_says_something_else_is_told(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When one way of serving differs from the view, project() fails and shows both."""
    arrow = Served.arrow
    monkeypatch.setattr(Served, "arrow", lambda self: arrow(self).slice(0, 0) if self.as_ == way else arrow(self))
    text, _ = told(lambda: given_events(PLACED).project(order_summary))
    assert text.startswith(f"{way}: row 1 is missing\n")
    assert "view:" in text
    assert text.endswith("nothing")


def test_the_projection_is_moved_by_one_event_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The projection is caught up after every event, so that its merge is tried, and one that stands still is told."""
    moved: list[int] = []
    catch_up = Served.catch_up

    def counted(self: Served) -> int:
        moved.append(catch_up(self))
        return moved[-1]

    monkeypatch.setattr(Served, "catch_up", counted)
    given_events(PLACED, OTHER, PAID).project(order_summary).rows({"paid": Decimal("19.98")}, {"paid": 0})
    assert moved == [1, 2, 3]
    monkeypatch.setattr(Served, "catch_up", lambda self: 0)
    assert told(lambda: given_events(PLACED).project(order_summary))[0].startswith("projection: row 1 is missing\n")


# -- stores ------------------------------------------------------------------------------------------------------------


class TestLabInMemory(EventStoreContract):
    def open_store(self) -> Store:
        return LabStore(Lab(domain=CONTRACT))


class TestLabOnFile(EventStoreContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "contract.duckdb"

    def open_store(self) -> Store:
        return LabStore(Lab(self.path, domain=CONTRACT))


class DictStore:
    """A store of lists and dicts: the contract asks for nothing of DuckDB."""

    def __init__(self) -> None:
        self.log: list[Recorded] = []
        self.lock = threading.Lock()

    def append(
        self, stream: str, events: Any, *, expected_version: int | None = None, command_id: str | None = None
    ) -> list[Recorded]:
        with self.lock:
            version, now = len(self.read(stream)), datetime.now(UTC)
            if expected_version not in (None, version):
                raise ConcurrencyError(stream, expected_version, version)
            new = [
                Recorded(
                    position=len(self.log) + number,
                    stream=stream,
                    version=version + number,
                    event=event,
                    event_id=uuid4(),
                    correlation_id=None,
                    causation_id=None,
                    command_id=command_id,
                    occurred_at=now,
                    recorded_at=now,
                )
                for number, event in enumerate(events, start=1)
            ]
            self.log += new
            return new

    def read(self, stream: str) -> list[Recorded]:
        return [recorded for recorded in self.log if recorded.stream == stream]

    def read_all(self, after: int = 0) -> list[Recorded]:
        return self.log[after:]

    def close(self) -> None:
        self.log = []


class TestDicts(EventStoreContract):
    def open_store(self) -> Store:
        return DictStore()


class Changed(DictStore):
    """A store whose appends are spoilt by `change`, by position, in what it keeps."""

    def __init__(self, change: Callable[[Recorded], dict[str, Any]], *, told: bool = False) -> None:
        super().__init__()
        self.change, self.told = change, told

    def append(self, stream: str, events: Any, **more: Any) -> list[Recorded]:
        new = super().append(stream, events, **more)
        kept = [replace(recorded, **self.change(recorded)) for recorded in new]
        self.log[-len(new) :] = kept
        return kept if self.told else new


class Deaf(DictStore):
    """Lets every conflict through."""

    def append(self, stream: str, events: Any, *, expected_version: int | None = None, **more: Any) -> list[Recorded]:
        return super().append(stream, events, **more)


class Vague(DictStore):
    """Tells of a conflict without its versions."""

    def append(self, stream: str, events: Any, **more: Any) -> list[Recorded]:
        try:
            return super().append(stream, events, **more)
        except ConcurrencyError:
            raise ConcurrencyError(stream, None, 0) from None


class Halving(DictStore):
    """Keeps the first event of a batch that it refuses."""

    def append(self, stream: str, events: Any, **more: Any) -> list[Recorded]:
        try:
            return super().append(stream, events, **more)
        except ConcurrencyError:
            super().append(stream, events[:1])
            raise


class Racing(DictStore):
    """Looks at the version, takes a break, then appends."""

    def append(self, stream: str, events: Any, *, expected_version: int | None = None, **more: Any) -> list[Recorded]:
        version = len(self.read(stream))
        if expected_version not in (None, version):
            raise ConcurrencyError(stream, expected_version, version)
        time.sleep(0.001)
        return super().append(stream, events, **more)


class Losing(DictStore):
    """Acknowledges what it drops now and then when many write."""

    def append(self, stream: str, events: Any, **more: Any) -> list[Recorded]:
        new = super().append(stream, events, **more)
        if threading.current_thread() is not threading.main_thread() and len(self.log) == 7:
            self.log.remove(new[-1])
        return new


class Ahead(DictStore):
    """Gives out positions first and shows events later, as a database's sequence does: the first after some others."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Recorded] = []
        self.looked = threading.Event()

    def append(self, stream: str, events: Any, **more: Any) -> list[Recorded]:
        new = super().append(stream, events, **more)
        if new[0].position == 1:
            self.looked.wait(10)
        self.shown += new
        return new

    def read_all(self, after: int = 0) -> list[Recorded]:
        found = sorted((r for r in self.shown if r.position > after), key=lambda r: r.position)
        if found:
            self.looked.set()
        return found


class Elsewhere(DictStore):
    """Reads a stream otherwise than the whole."""

    def read(self, stream: str) -> list[Recorded]:
        return [replace(recorded, **without("text")(recorded)) for recorded in super().read(stream)]


class Eager(DictStore):
    """Takes an expected version ahead of the stream for a new stream's."""

    def append(self, stream: str, events: Any, *, expected_version: int | None = None, **more: Any) -> list[Recorded]:
        ahead = expected_version is not None and expected_version > len(self.read(stream))
        return super().append(stream, events, expected_version=None if ahead else expected_version, **more)


class Stray(DictStore):
    """Gives one row of reading all wrong."""

    def __init__(self, first: int, step: int = 1) -> None:
        super().__init__()
        self.first, self.step = first, step

    def read_all(self, after: int = 0) -> list[Recorded]:
        return self.log[max(after + self.first, 0) :: self.step]


class Failing(DictStore):
    """Refuses a stream that is not there instead of reading it as empty."""

    def read(self, stream: str) -> list[Recorded]:
        found = super().read(stream)
        assert found or not self.log, f"no stream {stream}"
        return found


def without(*names: str) -> Callable[[Recorded], dict[str, Any]]:
    """Return a change that empties fields of the events."""
    return lambda r: {"event": r.event.model_copy(update=dict.fromkeys(names))}


def naive_event(recorded: Recorded) -> dict[str, Any]:
    """Return a change that takes the zone from a time in the event."""
    at = getattr(recorded.event, "at", None)
    return {"event": recorded.event.model_copy(update={"at": at and at.replace(tzinfo=None)})}


VERSIONS = "test_versions_count_without_holes"
POSITIONS = "test_positions_count_over_all_streams"
READ = "test_what_was_appended_is_read"
ENVELOPE = "test_the_envelope_is_kept"
EXPECTED = "test_the_expected_version_is_checked"
CONFLICT = "test_a_conflict_stores_none_of_its_batch"
EMPTY = "test_a_stream_without_events_is_empty"
WRITERS = "test_of_many_writers_one_wins_each_version"
READER = "test_a_reader_who_follows_never_meets_a_hole"
TOKYO = timedelta(hours=9)


@pytest.mark.parametrize(
    ("caught_by", "broken"),
    [
        (VERSIONS, lambda: Changed(lambda r: {"version": r.version + (r.version > 2)})),
        (VERSIONS, lambda: Changed(lambda r: {"version": r.position})),
        (POSITIONS, lambda: Changed(lambda r: {"position": r.position + (r.position > 4)}, told=True)),
        (POSITIONS, lambda: Changed(lambda r: {"position": r.version}, told=True)),
        (POSITIONS, lambda: Stray(first=-1)),
        (POSITIONS, lambda: Stray(first=1)),
        (POSITIONS, lambda: Stray(first=0, step=2)),
        (READ, lambda: Changed(without("amount"))),
        (READ, lambda: Changed(without("parts"))),
        (READ, lambda: Changed(without("text"), told=True)),
        (READ, lambda: Changed(naive_event)),
        (READ, Elsewhere),
        (READ, lambda: Changed(lambda r: {"command_id": None}, told=True)),
        (READ, lambda: Changed(lambda r: {"occurred_at": r.occurred_at.replace(tzinfo=None)}, told=True)),
        (ENVELOPE, lambda: Changed(lambda r: {"event_id": "same"}, told=True)),
        (ENVELOPE, lambda: Changed(lambda r: {"recorded_at": START - r.position * TOKYO}, told=True)),
        (ENVELOPE, lambda: Changed(lambda r: {"occurred_at": START})),
        (EXPECTED, Deaf),
        (EXPECTED, Eager),
        (EXPECTED, Vague),
        (EXPECTED, Halving),
        (CONFLICT, Deaf),
        (CONFLICT, Vague),
        (CONFLICT, Halving),
        (EMPTY, Failing),
        (WRITERS, Deaf),
        (WRITERS, Vague),
        (WRITERS, Racing),
        (WRITERS, Losing),
        (READER, Ahead),
        (READER, lambda: Stray(first=1)),
    ],
)
def test_the_contract_catches_a_broken_store(caught_by: str, broken: Callable[[], DictStore]) -> None:
    """Each test of the contract fails for a store that breaks what it says."""
    contract = EventStoreContract()
    contract.open_store = broken  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        getattr(contract, caught_by)()


def test_every_test_of_the_contract_is_seen_to_fail() -> None:
    """The broken stores above leave out no test of the contract, and each has one sentence that says what holds."""
    tests = {name: test for name, test in vars(EventStoreContract).items() if name.startswith("test_")}
    assert set(tests) == {VERSIONS, POSITIONS, READ, ENVELOPE, EXPECTED, CONFLICT, EMPTY, WRITERS, READER}
    assert all(test.__doc__ and test.__doc__.count("\n") == 0 for test in tests.values())


def test_a_store_has_to_be_opened() -> None:
    """A contract without open_store says that it is to be defined."""
    with pytest.raises(NotImplementedError, match="open_store"):
        EventStoreContract().test_the_envelope_is_kept()


def test_a_lab_store_reads_what_commands_led_to() -> None:
    """LabStore fits any lab: it reads the streams of the shop, too, and closes the lab."""
    lab = open_shop()
    store: Store = LabStore(lab)
    lab.send(RegisterCustomer(customer_id="c-1", name="Ann", email="a@example.com"))
    lab.send(PLACE)
    assert [r.stream for r in store.read_all()] == ["customer/c-1", "order/o-1"]
    assert [r.event for r in store.read("order/o-1")] == [PLACED]
    assert [r.position for r in store.read_all(after=1)] == [2]
    store.close()
    with pytest.raises(Exception, match="closed"):
        store.read_all()


def test_testing_needs_no_test_runner() -> None:
    """Importing cqrs_lab.testing imports no pytest, which is no dependency of the package."""
    code = "import sys, cqrs_lab.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
