"""Sagas: fulfilment at work, whatever goes wrong and whoever interferes; crashes; two sagas beside each other."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from support import Child

from cqrs_lab import Command, Domain, Event, Lab, open_shop
from cqrs_lab.errors import DeclarationError, RuleViolated
from cqrs_lab.shop import (
    AddOrderLine,
    CancelOrder,
    CustomerRegistered,
    OrderLine,
    PayOrder,
    PlaceOrder,
    RegisterCustomer,
    RemoveOrderLine,
    SimulatedGateway,
    StockProduct,
    StockReleased,
    customers,
    fulfilment,
    orders,
    payments,
    products,
)
from cqrs_lab.shop.orders import Order
from cqrs_lab.shop.payments import Movement, TimedOut
from cqrs_lab.write.sagas import Saga

TEN = Decimal(10)


def line(product: str, quantity: int = 1, price: Decimal | int = 10) -> OrderLine:
    """Return a line of an order."""
    return OrderLine(product_id=product, quantity=quantity, unit_price=Decimal(price))


def place(id: str, *lines: OrderLine) -> PlaceOrder:
    """Return the command that places an order."""
    return PlaceOrder(order_id=id, customer_id="c-1", lines=lines or (line("pen", 2), line("ink")))


@contextmanager
def shop(
    path: Path | str = ":memory:",
    *,
    gateway: Any = None,
    attempts: int = 3,
    stock: Mapping[str, int] | None = None,
    follows: bool = True,
    also: Sequence[Saga] = (),
) -> Iterator[Lab]:
    """Open a shop whose gateway is asked so many times, with stock and, usually, fulfilment at work."""
    domain = Domain(
        deciders=[orders, customers, products],
        services=[payments(gateway or SimulatedGateway(), attempts)],
        sagas=[fulfilment, *also],
    )
    with Lab(path, domain=domain, threads=1) as lab:
        if follows:
            lab.follow(fulfilment)
        for product, units in ({"pen": 5, "ink": 5} if stock is None else stock).items():
            lab.send(StockProduct(product_id=product, quantity=units))
        yield lab


def state(lab: Lab, decider: Any, id: str) -> Any:
    """Return what a stream folds to."""
    return decider.fold(r.event for r in lab._log.read(decider.log_category, id))


def types(lab: Lab, after: int = 0) -> list[str]:
    """Return the types of all events."""
    return [row["type"] for row in lab.events(after=after).dicts()]


def story(lab: Lab) -> list[tuple[str, str, str]]:
    """Return all that happened, but for ids and times."""
    return [(row["stream"], row["type"], row["data"]) for row in lab.events().dicts()]


def units(order: Order) -> Counter[str]:
    """Return how much an order has of each product."""
    return sum((Counter({one.product_id: one.quantity}) for one in order.lines), Counter())


def check(
    lab: Lab, gateway: Any, placed: Sequence[str], stocked: Mapping[str, int], by_hand: Sequence[str] = ()
) -> None:
    """Assert that every order came to one of its two ends, and that nothing is left over."""
    held: dict[str, Counter[str]] = {id: Counter() for id in placed}
    for product, count in stocked.items():
        stock = state(lab, products, product)
        assert stock.available + sum(stock.reserved.values()) == count
        for id, n in stock.reserved.items():
            held[id][product] += n
    for id in placed:
        order = state(lab, orders, id)
        assert order.status in ("SHIPPED", "CANCELLED"), (id, story(lab))
        if order.status == "SHIPPED":
            assert held[id] == units(order), id
            assert gateway.charged(id) == (0 if id in by_hand else order.due), (id, story(lab))
            charges = [moved for moved in gateway.statement if moved.order_id == id]
            assert id in by_hand or len(charges) == (1 if order.due else 0), charges
        else:
            assert (held[id], gateway.charged(id)) == (Counter(), 0), (id, story(lab))
            assert id in by_hand or order.paid == 0, id


# -- one order ---------------------------------------------------------------------------------------------------------


def test_an_order_is_reserved_charged_and_shipped():
    """Every line is reserved, the due is charged once, and the order is paid and shipped."""
    gateway = SimulatedGateway()
    with shop(gateway=gateway) as lab:
        lab.send(place("o-1"))
        lab.catch_up()
        assert types(lab)[2:] == [
            *["OrderPlaced", "StockReserved", "StockReserved", "PaymentTaken", "OrderPaid", "OrderShipped"]
        ]
        assert lab.follow(fulfilment).position == lab.head
        check(lab, gateway, ["o-1"], {"pen": 5, "ink": 5})


def test_a_free_order_is_shipped_as_well():
    """An order whose lines cost nothing is paid with nothing and shipped."""
    gateway = SimulatedGateway()
    with shop(gateway=gateway) as lab:
        lab.send(place("o-1", line("pen", 1, 0)))
        lab.catch_up()
        assert state(lab, orders, "o-1").status == "SHIPPED"
        check(lab, gateway, ["o-1"], {"pen": 5, "ink": 5})


def test_one_missing_product_cancels_the_order():
    """When one line of three is refused the others are released, the order says why, and nobody is charged."""
    gateway = SimulatedGateway()
    stock = {"pen": 5, "ink": 1, "pad": 5}
    with shop(gateway=gateway, stock=stock) as lab:
        lab.send(place("o-1", line("pen"), line("ink", 2), line("pad", 3)))
        lab.catch_up()
        refused, cancelled = (lab.events(types=[kind]).dicts() for kind in ("StepRefused", "OrderCancelled"))
        rule = "only what is available is reserved (1 available, 2 wanted)"
        assert [row["stream"] for row in refused] == ["fulfilment/o-1"]
        assert all(said in refused[0]["data"] for said in (rule, '"command":"ReserveStock"', '"about":"product/ink"'))
        assert f"product/ink: {rule}" in cancelled[0]["data"]
        assert Counter(types(lab))["StockReleased"] == 2
        assert gateway.statement == []
        check(lab, gateway, ["o-1"], stock)


def test_an_order_is_cancelled_once():
    """When two lines are refused the first refusal cancels the order and the second asks for nothing."""
    with shop(stock={}) as lab:
        lab.send(place("o-1"))
        lab.catch_up()
        assert types(lab) == ["OrderPlaced", "StepRefused", "StepRefused", "OrderCancelled"]


@pytest.mark.parametrize(
    ("answer", "attempts", "reason", "moved"),
    [
        ("decline", 3, "the card was declined", []),
        ("time out", 3, "the payment gateway did not answer", []),
        ("lose the answer", 1, "the payment gateway did not answer", [30, -30]),
    ],
)
def test_no_payment_cancels_the_order(answer, attempts, reason, moved):
    """An order that is declined or not answered is cancelled; money that moved all the same is given back."""
    gateway = SimulatedGateway(otherwise=answer)
    with shop(gateway=gateway, attempts=attempts) as lab:
        lab.send(place("o-1"))
        lab.catch_up()
        assert reason in lab.events(types=["OrderCancelled"]).dicts()[0]["data"]
        assert [movement.amount for movement in gateway.statement] == moved
        check(lab, gateway, ["o-1"], {"pen": 5, "ink": 5})


def test_what_is_owed_stays_owed(monkeypatch):
    """When giving back gets no answer nothing is recorded of it, and the next catch_up asks again with the same key."""
    gateway, keys = SimulatedGateway(otherwise="lose the answer"), []
    give_back = gateway.give_back

    def giving(order_id: str, *, key: str) -> Decimal:
        keys.append(key)
        given = give_back(order_id, key=key)
        if len(keys) == 1:
            raise TimedOut
        return given

    monkeypatch.setattr(gateway, "give_back", giving)
    with shop(gateway=gateway, attempts=1) as lab:
        lab.send(place("o-1"))
        with pytest.raises(TimedOut):
            lab.catch_up()
        assert "PaymentReturned" not in types(lab)
        lab.catch_up()
        assert types(lab)[-1] == "PaymentReturned"
        assert keys == [keys[0]] * 2
        check(lab, gateway, ["o-1"], {"pen": 5, "ink": 5})


# What somebody else does to an order while the saga is at work.
MEDDLING: dict[str, Callable[[str, Order], list[Command]]] = {
    "cancel": lambda id, order: [CancelOrder(order_id=id, reason="changed my mind")],
    "pay by hand": lambda id, order: [PayOrder(order_id=id, amount=order.due, method="cash")],
    "add": lambda id, order: [AddOrderLine(order_id=id, line=line("ink", 2))],
    "add too much": lambda id, order: [AddOrderLine(order_id=id, line=line("pen", 500))],
    "remove": lambda id, order: [RemoveOrderLine(order_id=id, product_id="ink")],
    "add and remove": lambda id, order: [
        AddOrderLine(order_id=id, line=line("pad")),
        RemoveOrderLine(order_id=id, product_id="pad"),
    ],
    "pay by hand and cancel": lambda id, order: [*MEDDLING["pay by hand"](id, order), *MEDDLING["cancel"](id, order)],
    "remove, pay by hand": lambda id, order: [
        *MEDDLING["remove"](id, order),
        PayOrder(order_id=id, amount=order.due - TEN, method="cash"),
    ],
}


@pytest.mark.parametrize(
    ("meddling", "answer"),
    [
        *[(name, "approve") for name in MEDDLING],
        *[(name, "lose the answer") for name in ("cancel", "pay by hand", "add and remove")],
        ("add", "decline"),
    ],
)
def test_somebody_meddles_before_any_step(meddling, answer, monkeypatch):
    """Whatever a customer does before any step, or while the gateway is asked, the order comes to one of its ends."""
    gateway = SimulatedGateway(otherwise=answer)
    placed, by_hand, stocked = [], [], {"pen": 500, "ink": 500, "pad": 500}
    with shop(gateway=gateway, attempts=1, stock=stocked) as lab:
        send, charge = lab._commands.send, gateway.charge
        count, at = 0, 0

        def meddle() -> None:
            nonlocal count
            count += 1
            if count == at:
                for command in MEDDLING[meddling](placed[-1], state(lab, orders, placed[-1])):
                    with suppress(RuleViolated):
                        send(command)
                        if isinstance(command, PayOrder):
                            by_hand.append(placed[-1])

        def meddled(command, **more):
            meddle()
            return send(command, **more)

        def charging(*args, **more):
            charge(*args, **more)
            meddle()

        monkeypatch.setattr(lab._commands, "send", meddled)
        monkeypatch.setattr(gateway, "charge", charging)
        while count >= at:
            count, at = 0, at + 1
            placed.append(f"o-{at}")
            send(place(placed[-1]))
            lab.catch_up()
        assert at > 4
        check(lab, gateway, placed, stocked, by_hand)


# -- many orders -------------------------------------------------------------------------------------------------------

which = st.integers(0, 2)
some = st.builds(line, st.sampled_from(["pen", "ink"]), st.integers(1, 3), st.sampled_from([0, 10]))
acts = st.one_of(
    st.tuples(st.just("place"), which, st.lists(some, min_size=1, max_size=3)),
    st.tuples(st.sampled_from(["cancel", "pay"]), which, st.none()),
    st.tuples(st.just("add"), which, some),
    st.tuples(st.just("remove"), which, st.sampled_from(["pen", "ink"])),
    st.tuples(st.just("catch up"), st.integers(1, 4), st.none()),
)
answers = st.sampled_from(["approve", "approve", "decline", "time out", "lose the answer"])


@hypothesis.given(
    stock=st.fixed_dictionaries({"pen": st.integers(1, 9), "ink": st.integers(1, 9)}),
    answers=st.lists(answers, min_size=3, max_size=3),
    attempts=st.sampled_from([1, 3]),
    first=st.lists(some, min_size=1, max_size=3),
    acts=st.lists(acts, max_size=20),
)
@hypothesis.settings(max_examples=15)
def test_every_order_comes_to_an_end(stock, answers, attempts, first, acts):
    """Whatever is ordered, answered and changed in between, orders come to an end, and seen again change nothing."""
    ids = ["o-0", "o-1", "o-2"]
    gateway = SimulatedGateway(dict(zip(ids, answers, strict=True)))
    by_hand: list[str] = []
    with shop(gateway=gateway, attempts=attempts, stock=stock) as lab:
        follower = lab.follow(fulfilment)
        for act, number, more in [("place", 0, first), *acts]:
            id = ids[number] if number < 3 else ""
            with suppress(RuleViolated):
                match act:
                    case "place":
                        lab.send(place(id, *more))
                    case "cancel":
                        lab.send(CancelOrder(order_id=id, reason="changed my mind"))
                    case "pay":
                        lab.send(PayOrder(order_id=id, amount=state(lab, orders, id).due, method="cash"))
                        by_hand.append(id)
                    case "add":
                        lab.send(AddOrderLine(order_id=id, line=more))
                    case "remove":
                        lab.send(RemoveOrderLine(order_id=id, product_id=more))
                    case "catch up":
                        follower.catch_up(to=follower.position + number)
        lab.catch_up()
        placed = [id for id in ids if state(lab, orders, id).status != "NEW"]
        check(lab, gateway, placed, stock, by_hand)
        head = lab.head
        follower._store(0)
        assert (lab.catch_up(), lab.head) == (head, head)


# -- crashes -----------------------------------------------------------------------------------------------------------


class Ledger:
    """A gateway outside the process that asks: it writes to a file, once for each key, before it answers.

    Orders that end with "lost" never get an answer to their charge.
    """

    def __init__(self, path: Path | str, pause: float = 0) -> None:
        self.path, self.pause = str(path), pause  # the pause stands between the act and the answer
        self._execute("CREATE TABLE IF NOT EXISTS moved (key TEXT PRIMARY KEY, order_id TEXT, amount TEXT)")

    def _execute(self, sql: str, *values: str) -> list[Any]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = FULL")
            return database.execute(sql, values).fetchall()

    @property
    def statement(self) -> list[Movement]:
        """The money that moved."""
        moved = self._execute("SELECT order_id, amount FROM moved WHERE amount NOT IN ('0', '-0') ORDER BY rowid")
        return [Movement(id, Decimal(amount)) for id, amount in moved]

    def charged(self, order_id: str) -> Decimal:
        """Return what an order's customer has paid."""
        return sum((moved.amount for moved in self.statement if moved.order_id == order_id), Decimal(0))

    def charge(self, order_id: str, amount: Decimal, *, key: str | None = None) -> None:
        """Charge once for each key."""
        self._execute("INSERT OR IGNORE INTO moved VALUES (?, ?, ?)", key or "", order_id, str(amount))
        time.sleep(self.pause)
        if order_id.endswith("lost"):
            raise TimedOut

    def give_back(self, order_id: str, *, key: str | None = None) -> Decimal:
        """Give back once for each key."""
        charged = self.charged(order_id)
        self._execute("INSERT OR IGNORE INTO moved VALUES (?, ?, ?)", key or "", order_id, str(-charged))
        time.sleep(self.pause)
        return -Decimal(self._execute("SELECT amount FROM moved WHERE key = ?", key or "")[0][0])


STOCK = {"pen": 9, "ink": 9, "pad": 1}


def prepare(path: Path | str, placed: Sequence[str]) -> None:
    """Make a store with orders that nothing has been done about; those that end with "refused" want too much."""
    with shop(path, stock=STOCK, follows=False) as lab:
        for id in placed:
            lab.send(place(id, line("pen"), line("pad", 2)) if id.endswith("refused") else place(id))


def work(path: str, ledger: str) -> None:
    """Fulfil all orders; run by processes that are killed."""
    with shop(path, gateway=Ledger(ledger, pause=0.1), attempts=1, stock={}, follows=False) as lab:
        lab.follow(fulfilment, after=0)
        print("at work", flush=True)  # noqa: T201
        lab.catch_up()


def undisturbed(folder: Path, placed: Sequence[str]) -> tuple[list[tuple[str, str, str]], list[Movement]]:
    """Return the story and the statement of the same orders without a crash."""
    prepare(folder / "calm.duckdb", placed)
    gateway = Ledger(folder / "calm.sqlite")
    with shop(folder / "calm.duckdb", gateway=gateway, attempts=1, stock={}, follows=False) as lab:
        lab.follow(fulfilment, after=0)
        lab.catch_up()
        check(lab, gateway, placed, STOCK)
        return story(lab), gateway.statement


PLACED = ["o-1", "o-2 refused", "o-3 lost"]


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize(
    ("where", "after", "crashes"),
    [("step", False, 16), ("step", True, 16), ("call of the gateway", True, 3)],
    ids=["before each step", "after each step", "after each call of the gateway"],
)
def test_a_crash_at_every_step_changes_nothing(where, after, crashes, tmp_path, monkeypatch):
    """A saga that crashes at every step, its checkpoint lost, has done in the end what it does undisturbed."""
    calm = undisturbed(tmp_path, PLACED)
    path, gateway = tmp_path / "shop.duckdb", Ledger(tmp_path / "ledger.sqlite")
    prepare(path, PLACED)
    crashed: list[str] = []

    def crashing(call: Callable[..., Any], id: str) -> Callable[..., Any]:
        def called(*args: Any, **more: Any) -> Any:
            crash = more[id] not in crashed
            if crash and not after:
                crashed.append(more[id])
                raise Crash
            try:
                return call(*args, **more)
            finally:
                if crash and after:
                    crashed.append(more[id])
                    raise Crash

        return called

    if where != "step":
        for name in ("charge", "give_back"):
            monkeypatch.setattr(gateway, name, crashing(getattr(gateway, name), "key"))
    for life in range(crashes + 1):
        with shop(path, gateway=gateway, attempts=1, stock={}, follows=False) as lab:
            follower, checkpoint = lab.follow(fulfilment, after=0), [0]
            monkeypatch.setattr(follower, "_stored", checkpoint.pop)
            monkeypatch.setattr(follower, "_store", checkpoint.append)
            if where == "step":
                monkeypatch.setattr(lab._commands, "send", crashing(lab._commands.send, "command_id"))
            with suppress(Crash):
                lab.catch_up()
                assert life == crashes
            if life == crashes:
                assert (story(lab), gateway.statement) == calm
                check(lab, gateway, PLACED, STOCK)
    assert len(crashed) == crashes


def test_killed_at_any_moment(tmp_path):
    """A process killed again and again while it fulfils orders has taken each step and each charge once."""
    placed = [f"o-{number}{end}" for number in range(2) for end in ("", " refused", " lost")]
    calm = undisturbed(tmp_path, placed)
    path, ledger = tmp_path / "shop.duckdb", tmp_path / "ledger.sqlite"
    prepare(path, placed)
    moments, kills = random.Random(7), 0
    for life in range(4):
        child = Child(__file__)
        child.tell(f"import test_sagas; test_sagas.work({str(path)!r}, {str(ledger)!r})")
        assert child.line() == "at work"
        if life < 3:
            time.sleep(moments.uniform(0.02, 0.3))
            child.process.kill()
        kills += child.line() != "done"
        child.kill()
    assert kills < 4
    assert kills > 1
    gateway = Ledger(ledger)
    with shop(path, gateway=gateway, stock={}) as lab:
        assert (story(lab), gateway.statement) == calm
        check(lab, gateway, placed, STOCK)
        assert lab._log.database.execute("SELECT count(DISTINCT command_id) FROM commands") == [(lab.head,)]


def test_a_refused_step_is_not_asked_again(tmp_path, monkeypatch):
    """After a restart a step that was refused stays refused, though it would go through by now."""
    prepare(tmp_path / "shop.duckdb", ["o refused"])
    for life in range(2):
        with shop(tmp_path / "shop.duckdb", stock={"pad": 9} if life else {}, follows=False) as lab:
            follower, asked = lab.follow(fulfilment, after=0), []
            follower._store(0)  # as if its checkpoint were lost
            send = lab._commands.send
            monkeypatch.setattr(lab._commands, "send", lambda *a, **m: (asked.append(a[0]), send(*a, **m))[1])  # noqa: B023
            lab.catch_up()
            assert Counter(types(lab))["StepRefused"] == 1
            assert bool(asked) is (life == 0)


# -- beginnings, stories, errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "done"), [(None, ["o-2"]), (0, ["o-1", "o-2"])])
def test_where_a_saga_begins(after, done, tmp_path):
    """A saga leaves history alone when it comes to a store, or takes it all on with after=0; a restart goes on."""
    with shop(tmp_path / "shop.duckdb", follows=False) as lab:
        lab.send(place("o-1"))
        lab.follow("fulfilment", after=after)
        lab.send(place("o-2"))
    with shop(tmp_path / "shop.duckdb", stock={}) as lab:  # which follows with after=None
        lab.catch_up()
        assert [id for id in ("o-1", "o-2") if state(lab, orders, id).status == "SHIPPED"] == done
        assert lab.follow("fulfilment") is lab.follow(fulfilment)


def gift_of(state: list[str], event: Event) -> list[Command]:
    """Return the gift that a new customer is sent."""
    new = isinstance(event, CustomerRegistered)
    return [PlaceOrder(order_id="o-1", customer_id=event.customer_id, lines=[line("pen", 9, 0)])] if new else []


told: list[str] = []
welcome = Saga(
    name="welcome",
    key="customer_id",
    events=[CustomerRegistered],
    initial=(),
    evolve=lambda state, event: (*state, event),
    react=lambda state, event: (told.append(f"{type(event).__name__} {len(state)}"), gift_of(state, event))[1],
)


def test_two_sagas_work_beside_each_other():
    """One saga's commands set another to work, and neither sees what the other one was refused."""
    told.clear()
    gateway = SimulatedGateway()
    with shop(gateway=gateway, also=[welcome]) as lab:
        lab.follow(welcome)
        for id in ("c-1", "o-1"):  # a customer and an order of one id: the second gift is refused to o-1
            lab.send(RegisterCustomer(customer_id=id, name="Ada", email="ada@example.org"))
        lab.catch_up()
        lab.catch_up()
        refused = lab.events(types=["StepRefused"]).dicts()
        assert [row["stream"] for row in refused] == ["welcome/o-1", "fulfilment/o-1"]
        assert '"rule":"an order is placed once (PENDING)"' in refused[0]["data"]
        assert told == ["CustomerRegistered 1", "CustomerRegistered 1", "StepRefused 2"]
        check(lab, gateway, ["o-1"], {"pen": 5, "ink": 5})
        head = lab.head
        for saga in (welcome, fulfilment):  # from the log alone
            lab.follow(saga)._store(0)
        told.clear()
        with pytest.MonkeyPatch.context() as patch:
            for name in ("welcome", "fulfilment"):
                patch.setattr(lab._followers[name]._handle.__self__, "_states", {})
            lab.catch_up()
        assert told == ["CustomerRegistered 1", "CustomerRegistered 1", "StepRefused 2"]
        assert lab.head == head


def test_steps_tell_their_story_and_their_cause():
    """A saga's commands carry the correlation id of the story, the event's id as causation, and ids made from it."""
    with shop(stock={"pen": 5}) as lab:
        lab.send(place("o-1"), correlation_id="story-1", command_id="first")
        lab.catch_up()
        rows = lab.events(after=1).dicts()
        ids = {str(row["event_id"]): row["type"] for row in rows}
        assert {row["correlation_id"] for row in rows} == {"story-1"}
        causes = [(ids.get(row["causation_id"], row["causation_id"]), row["type"]) for row in rows]
        assert causes == [
            ("first", "OrderPlaced"),
            ("OrderPlaced", "StockReserved"),
            ("OrderPlaced", "StepRefused"),
            ("StepRefused", "OrderCancelled"),
            ("OrderCancelled", "StockReleased"),
        ]
        commands = lab._log.database.execute(
            "SELECT command_id, causation_id FROM commands WHERE command_id LIKE 'fulfilment/%' ORDER BY first_position"
        )
        assert [id for id, _ in commands] == [
            f"fulfilment/{cause}/{n}" for (_, cause), n in zip(commands, [1, 2, 1, 1], strict=True)
        ]


def test_a_policy_may_refuse_a_saga():
    """The policy sees a saga under its name, and what it does not allow is a refused step."""
    policy = lambda command, actor: "no" if (type(command).__name__, actor) == ("ReserveStock", "fulfilment") else None  # noqa: E731
    with open_shop(policy=policy, threads=1) as lab:
        lab.follow(fulfilment)
        lab.send(place("o-1"))
        lab.catch_up()
        assert "fulfilment may not send ReserveStock: no" in lab.events(types=["StepRefused"]).dicts()[0]["data"]
        assert state(lab, orders, "o-1").status == "CANCELLED"


def test_a_saga_must_be_declared():
    """An unknown saga is refused with the names of the known ones; so is an event without the saga's key."""
    with shop() as lab:
        for unknown in ("loyalty", welcome):
            with pytest.raises(DeclarationError, match=r"declares no saga .*; there are fulfilment"):
                lab.follow(unknown)
    with pytest.raises(DeclarationError, match="StockReleased lacks 'customer_id', the key of saga 'loyalty'"):
        Saga("loyalty", "customer_id", [CustomerRegistered, StockReleased], (), gift_of, gift_of)
    with pytest.raises(DeclarationError, match="same category"), shop(also=[fulfilment]):
        pass
