"""The command bus: middleware, batches, and many threads over one log."""

from __future__ import annotations

import logging
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Child, pay, place

from cqrs_lab import Command, Decider, Domain, Event, Lab, Value, open_shop
from cqrs_lab.database import Database
from cqrs_lab.errors import (
    ConcurrencyError,
    DeclarationError,
    IdempotencyConflict,
    InvalidMessage,
    NotAllowed,
    RuleViolated,
    StoreClosed,
    StoreError,
    UnknownCommand,
)
from cqrs_lab.shop import (
    PayOrder,
    RegisterCustomer,
    ReserveStock,
    StockProduct,
    TakePayment,
    fulfilment,
)
from cqrs_lab.write.decider import Service
from cqrs_lab.write.event_store import _FEW, EventStore

STOCK = StockProduct(product_id="p-1", quantity=5)


class Spot(Value):
    name: str
    depth: int | None = None


class Added(Event):
    tally: str
    n: int
    note: str | None = None
    spot: Spot | None = None
    spots: list[Spot] = []


class Add(Command):
    tally: str
    n: int
    note: str | None = None
    spot: Spot | None = None
    spots: list[Spot] = []


class Called(Event):
    line: str
    key: str


class Call(Command):
    line: str


def decide(command, total):
    """Return what follows: nothing for 0; a tally never falls below 0."""
    if total + command.n < 0:
        raise RuleViolated("a tally is never below 0", total)
    return [Added(**dict(command))] if command.n else []


def tallies(**changes):
    """Return a decider of numbers that are added up, with some of its parts changed."""
    parts = {
        "category": "tally",
        "key": "tally",
        "initial": 0,
        "decide": decide,
        "evolve": lambda total, event: total + event.n,
        "commands": [Add],
        "events": [Added],
    }
    return Decider(**(parts | changes))


def calls(handle=lambda command, key: [Called(line=command.line, key=key)]):
    """Return a service that says under which key it was called."""
    return Service(category="line", key="line", handle=handle, commands=[Call], events=[Called])


def open_lab(path=":memory:", *, service=None, middleware=(), policy=None, **changes):
    """Open a lab of tallies and calls."""
    services = [service or calls()]
    domain = Domain(deciders=[tallies(**changes)], services=services, middleware=middleware, policy=policy)
    return Lab(path, domain=domain, threads=1)


def log_of(lab):
    """Return the log without ids and times, asserting that positions and versions have no holes."""
    rows, versions = lab.events().dicts(), {}
    assert [row["position"] for row in rows] == list(range(1, lab.head + 1))
    for row in rows:
        versions[row["stream"]] = versions.get(row["stream"], 0) + 1
        assert row["version"] == versions[row["stream"]]
    return [(row["stream"], row["version"], row["type"], row["data"]) for row in rows]


def assert_there(lab, receipts):
    """Assert that the events of receipts are where they say, and that there are no others."""
    rows = {row["position"]: (row["stream"], row["version"]) for row in lab.events().dicts()}
    assert {r.position: (r.stream, r.version) for r in receipts} == rows
    assert len(receipts) == len(rows)


@contextmanager
def threads(*acts):
    """Run acts in threads of their own beside the block, and wait for their ends; yields their futures."""
    pool = ThreadPoolExecutor(len(acts))
    try:
        yield [pool.submit(act) for act in acts]
    finally:
        pool.shutdown(wait=False)  # a hang is told by the timeouts of result()


# -- middleware --------------------------------------------------------------------------------------------------------


def test_the_order_of_middleware_can_be_seen():
    """Own middleware stands behind the checks and before the retries, and is named with the rest."""

    def mine(envelope, proceed):
        return proceed(envelope)

    with open_lab(middleware=[mine], policy=lambda command, actor: None) as lab:
        order = ["logged", "times", "validated", "authorized", "mine", "retried", "acting", "grouped", "idempotent"]
        assert lab.middleware == order
    with open_lab() as lab:
        assert lab.middleware == [name for name in order if name not in ("authorized", "mine")]


def test_own_middleware_sees_the_envelope_and_the_receipt_and_can_refuse():
    """It gets what was sent and what came of it, can change neither, and what it raises reaches the sender."""
    seen = []

    def mine(envelope, proceed):
        with pytest.raises(AttributeError):
            envelope.actor = "another"
        if envelope.actor == "mallory":
            raise NotAllowed("not today")
        receipt = proceed(envelope)
        with pytest.raises(AttributeError):
            receipt.version = 7
        seen.append((envelope.command, envelope.stream, envelope.actor, receipt))
        return receipt

    with open_lab(middleware=[mine]) as lab:
        receipt = lab.send(Add(tally="a", n=1), actor="ann")
        with pytest.raises(NotAllowed, match="not today"):
            lab.send(Add(tally="a", n=1), actor="mallory")
        assert seen == [(Add(tally="a", n=1), "tally/a", "ann", receipt)]
        lab.send_many([Add(tally="b", n=1), Call(line="l")], actor="bob")
        assert [(stream, actor) for _, stream, actor, _ in seen[1:]] == [("tally/b", "bob"), ("line/l", "bob")]
        assert lab.head == 3


def test_every_command_is_logged_with_its_story(caplog):
    """The logger cqrs_lab.commands tells at INFO what a command led to, or why it was refused."""
    caplog.set_level(logging.INFO, "cqrs_lab.commands")
    with open_lab() as lab:
        lab.send(Add(tally="a", n=1), correlation_id="story-1")
        lab.send(Add(tally="a", n=0), correlation_id="story-2")
        with pytest.raises(RuleViolated):
            lab.send(Add(tally="a", n=-9), correlation_id="story-3")
        with pytest.raises(InvalidMessage):
            lab.send(Add.model_construct(n=1), correlation_id="story-4")
    assert {record.levelno for record in caplog.records} == {logging.INFO}
    done, nothing, refused, wrong = caplog.messages
    assert done == "Add on tally/a [story-1] led to Added at position 1"
    assert nothing == "Add on tally/a [story-2] led to nothing at position 1"
    assert refused.startswith("Add on tally/a [story-3] refused: RuleViolated: the rule 'a tally is never below 0'")
    assert wrong.startswith("Add on tally/? [story-4] refused: InvalidMessage")


BAD = {
    "text for a number": (lambda: Add.model_construct(tally="a", n="x"), {}),
    "a number for the key": (lambda: Add.model_construct(tally=5, n=1), {}),
    "no key": (lambda: Add.model_construct(n=1), {}),
    "any object": (lambda: Add.model_construct(tally="a", n=object()), {}),
    "more than 64 bits": (lambda: Add.model_construct(tally="a", n=2**63), {}),
    "a lone surrogate": (lambda: Add.model_construct(tally="\ud800", n=1), {}),
    "a service's": (lambda: Call.model_construct(line=None), {}),
    "a number": (None, {"command_id": 5}),
    "empty": (None, {"command_id": ""}),
    "not printable": (None, {"command_id": "a\0b"}),
    "not a character": (None, {"command_id": "\ud800"}),
    "too long": (None, {"command_id": "x" * 501}),
    "bytes": (None, {"correlation_id": b"x"}),
    "a line break": (None, {"correlation_id": "a\nb"}),
    "naive": (None, {"occurred_at": datetime(2025, 1, 1)}),
    "a text": (None, {"occurred_at": "2025-01-01"}),
    "before time": (None, {"occurred_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))}),
}


@pytest.mark.parametrize("many", [False, True], ids=["send", "send_many"])
@pytest.mark.parametrize("bad", BAD)
def test_what_was_not_checked_when_it_was_made_is_refused(bad, many):
    """Commands by model_construct, wrong ids and wrong times are an InvalidMessage, and nothing is stored."""
    make, given_ = BAD[bad][0], dict(BAD[bad][1])
    command = make() if make else Add(tally="a", n=1)
    with open_lab() as lab:
        ids = ["ok", given_.pop("command_id", None)]

        def act():
            if many:
                return lab.send_many([Add(tally="b", n=1), command], command_ids=ids, **given_)
            return lab.send(command, command_id=ids[1], **given_)

        with pytest.raises(InvalidMessage, match="Nothing was stored"):
            act()
        assert lab.head == 0
        assert lab._log.database.execute("SELECT count(*) FROM commands") == [(0,)]


def test_a_policy_says_who_may_send_what():
    """Who is allowed passes; others get NotAllowed with the reason, in a batch as well, and nothing is stored."""
    policy = lambda command, actor: None if actor == "ann" or command.n == 1 else "only ann adds more than 1"  # noqa: E731
    with open_lab(policy=policy) as lab:
        lab.send(Add(tally="a", n=5), actor="ann")
        lab.send(Add(tally="a", n=1))
        with pytest.raises(NotAllowed, match=r"bob may not send Add: only ann adds .* nothing was stored"):
            lab.send(Add(tally="a", n=5), actor="bob")
        with pytest.raises(NotAllowed, match="nobody in particular") as refused:
            lab.send_many([Add(tally="a", n=1), Add(tally="a", n=5)])
        assert refused.value.__notes__[0].startswith("It was command 2 of 2, Add(")
        assert lab.head == 2


def test_a_policy_applies_to_a_sagas_commands():
    """What a saga may not send becomes a StepRefused of its process."""
    policy = lambda command, actor: "no saga reserves" if actor and isinstance(command, ReserveStock) else None  # noqa: E731
    with open_shop(policy=policy, threads=1) as lab:
        lab.follow(fulfilment)
        lab.send(STOCK)
        lab.send(place())
        lab.catch_up()
        (row,) = lab.events(types=["StepRefused"]).dicts()
        assert row["stream"] == "fulfilment/o-1"
        assert "fulfilment may not send ReserveStock: no saga reserves" in row["data"]


@pytest.mark.parametrize("command", [Add(tally="a", n=1), Add(tally="a", n=0), Call(line="a")], ids=str)
def test_the_same_command_again_acts_once(command, tmp_path):
    """An id that comes again gives the first receipt, wherever it comes again; with another body it is a conflict."""
    acted = []
    service = calls(lambda command, key: acted.append(key) or [Called(line=command.line, key=key)])
    key = "line" if isinstance(command, Call) else "tally"
    same, other = {"command_id": "once", "correlation_id": "story"}, command.model_copy(update={key: "b"})
    with open_lab(tmp_path / "lab.duckdb", service=service) as lab:
        first = lab.send(command, **same)
        head = lab.head
        assert lab.send(command, **same) == first
        assert lab.send_many([command] * 2, command_ids=["once", "once"], correlation_id="story") == [first] * 2
        with pytest.raises(IdempotencyConflict, match="another command"):
            lab.send(other, command_id="once")
        with pytest.raises(IdempotencyConflict):
            lab.send_many([Add(tally="z", n=1), other], command_ids=["z", "once"])
        with pytest.raises(IdempotencyConflict):
            lab.send_many([command, other], command_ids=["twice", "twice"])
        twice = lab.send_many([command] * 2, command_ids=["new", "new"], correlation_id="story")
        assert twice[0] == twice[1]
        assert lab.head == head + len(first.events)
        lab._store.loaded.clear()
    with open_lab(tmp_path / "lab.duckdb", service=service) as lab:
        again = lab.send(command, **same)
        assert (again.events, again.stream) == (first.events, first.stream)
        if first.events:
            assert again == first
        assert len(lab.events(correlation_id="story")) == 2 * len(first.events)
    assert set(acted) <= {"once", "twice", "new", "z"}
    assert acted.count("once") == isinstance(command, Call)


@pytest.mark.parametrize("command", [Add(tally="a", n=1), Call(line="a")], ids=["decider", "service"])
def test_one_id_from_many_threads(command):
    """However many send one command under one id at once, it is carried out once and all get the same receipt."""
    with open_lab() as lab, ThreadPoolExecutor(16) as pool:
        for id in map(str, range(5)):
            answers = list(pool.map(lambda _, id=id: lab.send(command, command_id=id, correlation_id="s"), range(16)))
            assert answers == [answers[0]] * 16
        assert lab.head == 5
        assert len(log_of(lab)) == 5


def test_a_service_that_was_overtaken_is_asked_again_with_the_same_key():
    """When somebody appends to its stream meanwhile it handles the command again; whoever names a version is told."""
    keys = []

    def handle(command, key):
        keys.append(key)
        if len(keys) in (1, 2, 4):  # somebody else calls the same line meanwhile
            lab._store.append(service.log_category, command.line, [Called(line=command.line, key="other")])
        return [Called(line=command.line, key=key)]

    service = calls(handle)
    with open_lab(service=service) as lab:
        receipt = lab.send(Call(line="l"), command_id="mine")
        assert (keys, receipt.version) == (["mine"] * 3, 3)
        with pytest.raises(ConcurrencyError):
            lab.send(Call(line="l"), expected_version=3)
        assert (len(keys), lab.head) == (4, 4)
        for command in (Call(line="l"), Add(tally="a", n=1)):
            with pytest.raises(ConcurrencyError):
                lab.send(command, expected_version=7)
        assert (len(keys), lab.head) == (4, 4)  # it did not even act
        assert lab.send(Call(line="l"), expected_version=4).version == 5


def test_command_times_tell_every_command():
    """There is a row for each command, done or not, with its time; it may be asked while others send."""
    with open_lab() as lab:
        assert lab.command_times().fetchall() == []
        lab.send_many([Add(tally="a", n=1), Call(line="l")])
        with pytest.raises(RuleViolated):
            lab.send(Add(tally="a", n=-2))
        rows = lab.command_times().fetchall()
        assert [row[:2] for row in rows] == [("Add", "done"), ("Call", "done"), ("Add", "RuleViolated")]
        assert all(0 < ms < 10_000 for *_, ms in rows)
        with threads(lambda: lab.send_many([Add(tally="b", n=1)] * 2000)) as [sending]:
            while not sending.done():
                lab.command_times()
            assert len(sending.result()) == 2000


def test_a_command_has_one_handler():
    """Two handlers for one command, or none, are errors that name what is registered."""
    with pytest.raises(DeclarationError, match=r"Add is handled in .*'tally' and 'other'.* are Add \(tally\)"):
        Lab(domain=Domain(deciders=[tallies(), tallies(category="other")]))
    with open_lab() as lab:
        for send in (lab.send, lambda command: lab.send_many([Add(tally="a", n=1), command])):
            with pytest.raises(UnknownCommand, match=r"PayOrder; registered are Add \(tally\), Call \(line\)"):
                send(PayOrder(order_id="o", amount=1))
        assert lab.head == 0


def test_what_evolve_refuses_is_not_stored():
    """A command whose events the state cannot take is refused, alone or in a group; the state stays as it was."""

    def evolve(state, event):
        state = dict(state)
        state["n"] = state.get("n", 0) + 10 / event.n
        return state

    parts = {"initial": {}, "decide": lambda command, state: [Added(tally=command.tally, n=command.n)]}
    with open_lab(evolve=evolve, **parts) as lab:
        lab.send(Add(tally="a", n=1))
        with pytest.raises(ZeroDivisionError):
            lab.send(Add(tally="a", n=0))
        with pytest.raises(ZeroDivisionError):
            lab.send_many([Add(tally="a", n=1), Add(tally="a", n=0)])
        assert lab.head == 1
        assert lab.send(Add(tally="a", n=1)).version == 2


def test_none_is_a_state_like_any_other():
    """A state may become None; it is not taken for the initial one."""
    seen = []
    parts = {"evolve": lambda state, event: None if event.n == 1 else (state, event.n)}
    with open_lab(**parts, decide=lambda c, state: seen.append(state) or [Added(tally="a", n=c.n)]) as lab:
        for n in (1, 2, 3):
            lab.send(Add(tally="a", n=n))
        assert seen == [0, None, (None, 2)]


# -- send_many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1, 40])
def test_a_batch_is_stored_whole_or_not_at_all(before):
    """When a rule refuses command k nothing is stored, the heads stay, and a note says which command it was."""
    with open_lab() as lab:
        lab.send(Add(tally="a", n=5))
        heads = replace(lab._log.heads, streams=dict(lab._log.heads.streams.items()))
        batch = [*(Add(tally=f"t-{i % 3}", n=1) for i in range(before)), Add(tally="a", n=-4), Add(tally="a", n=-2)]
        with pytest.raises(RuleViolated) as refused:
            lab.send_many([*batch, Add(tally="a", n=9)], command_ids=[f"c-{i}" for i in range(before + 3)])
        assert refused.value.state == 1  # what the command before it left
        (note,) = refused.value.__notes__
        assert note.startswith(f"It was command {before + 2} of {before + 3}, Add(tally='a', n=-2")
        assert replace(lab._log.heads, streams=dict(lab._log.heads.streams.items())) == heads
        assert lab.head == 1
        assert lab.send(Add(tally="a", n=-5), command_id="c-0").version == 2  # its ids are not used up


def test_receipts_of_a_mixed_batch():
    """A batch over categories and services gives each command its receipt; an empty one gives none."""
    with open_shop(threads=1) as lab:
        assert lab.send_many([]) == []
        register = RegisterCustomer(customer_id="c-1", name="Ann", email="ann@example.com")
        take = TakePayment(order_id="o-1", amount="5.00")
        batch = [STOCK, place(), register, take, pay(), STOCK]
        receipts = lab.send_many(
            iter(batch), correlation_id="story", command_ids=[None, "mine", uuid4(), None, None, None]
        )
        assert [(r.position, r.stream, r.version) for r in receipts] == [
            (1, "product/p-1", 1),
            (2, "order/o-1", 1),
            (3, "customer/c-1", 1),
            (4, "payment/o-1", 1),
            (5, "order/o-1", 2),
            (6, "product/p-1", 2),
        ]
        assert receipts[1].command_id == "mine"
        assert {r.correlation_id for r in receipts} == {"story"}
        assert_there(lab, receipts)
        with pytest.raises(InvalidMessage, match="1 for 2 commands"):
            lab.send_many([STOCK, STOCK], command_ids=["one"])


spots = st.builds(Spot, name=st.text(max_size=3), depth=st.none() | st.integers(-(2**63), 2**63 - 1))
adds = st.builds(
    Add,
    tally=st.sampled_from(["a", "b", "ö/'x", "\N{SNOWMAN}"]),
    n=st.integers(-2, 3) | st.sampled_from([2**62, 2**63 - 1]),
    note=st.none() | st.text(max_size=3),
    spot=st.none() | spots,
    spots=st.lists(spots, max_size=2),
)
histories = st.lists(adds | st.builds(Call, line=st.sampled_from("xy")), max_size=30)


@settings(max_examples=12)
@given(histories, st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_a_batch_equals_its_commands_one_by_one(commands, cuts):
    """Commands sent as batches lead to the events, versions and states of the same commands sent one by one."""
    never = lambda command, total: [Added(**dict(command))] if command.n else []  # noqa: E731
    call = calls(lambda command, key: [Called(line=command.line, key="k")])
    with open_lab(decide=never, service=call) as one, open_lab(decide=never, service=call) as many:
        sent = [one.send(command) for command in commands]
        batched, rest = [], list(commands)
        for cut in [*cuts, 99]:
            batched += many.send_many(rest[:cut])
            rest = rest[cut:]
        said = [(r.stream, r.version, r.events) for r in sent]
        assert [(r.stream, r.version, r.events) for r in batched] == said
        assert [r.position for r in batched if r.events] == [r.position for r in sent if r.events]
        assert log_of(many) == log_of(one)
        for id in {command.tally for command in commands if isinstance(command, Add)}:
            category = one._categories["tally"]
            assert [r.event for r in many._log.read(category, id)] == [r.event for r in one._log.read(category, id)]
            if f"tally/{id}" in one._store.loaded:
                loaded, other = one._store.loaded[f"tally/{id}"], many._store.loaded[f"tally/{id}"]
                assert (loaded.state, loaded.version) == (other.state, other.version)


@pytest.mark.parametrize("count", [_FEW, _FEW + 1])
def test_few_and_many_rows_are_the_same_rows(count):
    """Rows that go as values and rows that go as a table read back alike, whatever they hold."""
    spot = Spot(name="ü\N{SNOWMAN}'\"\n", depth=-(2**63))
    odd = [
        Add(tally="a", n=2**63 - 1),
        Add(tally="a", n=-(2**63), note="", spot=spot, spots=[spot, Spot(name="")]),
        Add(tally="\N{SNOWMAN}/'", n=1, note="\N{PILE OF POO}\t\\", spot=Spot(name="x")),
    ]
    batch = [*odd, *(Add(tally="b", n=1) for _ in range(count - len(odd)))]
    with open_lab(decide=lambda command, total: [Added(**dict(command))]) as lab:
        receipts = lab.send_many(batch)
        assert_there(lab, receipts)
        read = [r for id in ("a", "\N{SNOWMAN}/'", "b") for r in lab._log.read(lab._categories["tally"], id)]
        assert [r.event for r in read] == [Added(**dict(command)) for command in batch]
        assert [r.command_id for r in read] == [str(r.command_id) for r in receipts]


@pytest.mark.parametrize(
    ("part", "when", "stored"), [('INTO "tally_events"', "after", 0), ("COMMIT", "before", 0), ("COMMIT", "after", 100)]
)
def test_a_batch_survives_a_kill_whole_or_not_at_all(part, when, stored, tmp_path):
    """A process killed in the middle of a batch leaves all of it or nothing of it."""
    path = str(tmp_path / "lab.duckdb")
    child = Child(__file__)
    child.run(f"from test_bus import *; lab = open_lab({path!r}); lab.send(Add(tally='a', n=1))")
    child.tell(f"die_at({part!r}, {when!r}); lab.send_many([Add(tally=f't-{{i}}', n=1) for i in range(100)])")
    assert child.wait() == -signal.SIGKILL
    with open_lab(path) as lab:
        assert len(log_of(lab)) == 1 + stored
        assert lab._log.database.execute("SELECT count(*) FROM commands") == [(1 + stored,)]
        assert lab.send(Add(tally="t-7", n=1)).version == 1 + stored // 100


# -- many threads ------------------------------------------------------------------------------------------------------


def test_two_hundred_threads_on_twenty_streams(tmp_path):
    """No event is lost or doubled, positions and versions have no holes, and events are where receipts say."""
    with open_lab(tmp_path / "lab.duckdb") as lab, ThreadPoolExecutor(200) as pool:
        work = lambda t: [lab.send(Add(tally=f"t-{(t + i) % 20}", n=t * 20 + i + 1)) for i in range(20)]  # noqa: E731
        receipts = [receipt for done in pool.map(work, range(200)) for receipt in done]
        assert len(log_of(lab)) == 4000
        assert_there(lab, receipts)
        assert sorted(r.events[0].n for r in receipts) == list(range(1, 4001))
        stored = {r.position: r.event for i in range(20) for r in lab._log.read(lab._categories["tally"], f"t-{i}")}
        assert {r.position: r.events[0] for r in receipts} == stored


class Gate:
    """A decider that stops at the tally "gate" until it is told to go on, so that others have to wait together."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, command, total):
        if command.tally == "gate":
            self.reached.set()
            assert self.opened.wait(20)
        if command.note == "interrupt":
            raise KeyboardInterrupt
        return decide(command, total)


@contextmanager
def grouped(lab, gate, commands):
    """Send commands that arrive while another one is being decided; yields their futures in order."""
    pool = ThreadPoolExecutor(len(commands) + 1)
    grouping = next(step for step in lab._commands.middleware if getattr(step, "__name__", "") == "grouped")
    first = pool.submit(lab.send, Add(tally="gate", n=1))
    assert gate.reached.wait(20)
    futures = []
    for number, command in enumerate(commands, start=1):
        futures.append(pool.submit(lab.send, command))
        while len(grouping._queue) < number:
            assert not futures[-1].done()
    try:
        yield [first, *futures]
    finally:
        gate.opened.set()
        pool.shutdown(wait=False)


def test_a_command_that_fails_in_a_group_fails_alone():
    """Of commands that are stored together those that are refused tell their senders; the others are stored."""
    gate = Gate()
    evolve = lambda total, event: 1 // 0 if event.note == "poison" else total + event.n  # noqa: E731
    with open_lab(decide=gate, evolve=evolve) as lab:
        lab._store.append(lab._categories["tally"], "sick", [Added(tally="sick", n=1, note="poison")])
        commits = lab._log.database._commit
        counted = []
        lab._log.database._commit = lambda: counted.append(1) or commits()
        batch = [Add(tally="a", n=2), Add(tally="a", n=-9), Add(tally="sick", n=1), Add(tally="p", n=1, note="poison")]
        with grouped(lab, gate, [*batch, Add(tally="a", n=3)]) as futures:
            gate.opened.set()
            errors = [type(future.exception(20)) for future in futures]
        assert errors == [type(None), type(None), RuleViolated, ZeroDivisionError, ZeroDivisionError, type(None)]
        assert futures[-1].result().version == 2
        assert counted == [1, 1]
        assert [row[:2] for row in log_of(lab)] == [
            ("tally/sick", 1),
            ("tally/gate", 1),
            ("tally/a", 1),
            ("tally/a", 2),
        ]


def test_a_commit_that_fails_fails_its_whole_group(monkeypatch):
    """When the disk refuses a commit everybody in it is told, nothing of it is stored, and the next commit works."""
    gate, commit, fails = Gate(), Database._commit, iter([False, True])

    def failing(self):
        if next(fails, False):
            raise StoreError("the disk said no")
        commit(self)

    with open_lab(decide=gate) as lab:
        monkeypatch.setattr(Database, "_commit", failing)
        with grouped(lab, gate, [Add(tally=f"t-{i}", n=1) for i in range(3)]) as futures:
            gate.opened.set()
            errors = [str(future.exception(20)) for future in futures]
        assert errors == ["None", *["the disk said no"] * 3]
        assert len(log_of(lab)) == 1
        assert [lab.send(Add(tally=f"t-{i}", n=1)).version for i in range(3)] == [1, 1, 1]
        assert len(log_of(lab)) == 4


@pytest.mark.parametrize("when", ["deciding", "before the commit", "after the commit"])
def test_ctrl_c_is_for_one_thread_alone(when, monkeypatch):
    """A KeyboardInterrupt in the thread that leads hits no other; their commands are carried out exactly once."""
    gate, storing, left = Gate(), EventStore._storing, [2]

    @contextmanager
    def interrupted(self, batch, **rest):
        left[0] -= 1
        with storing(self, batch, **rest):
            yield
            if not left[0] and when == "before the commit":
                raise KeyboardInterrupt
        if not left[0] and when == "after the commit":
            raise KeyboardInterrupt

    monkeypatch.setattr(EventStore, "_storing", interrupted)
    with open_lab(decide=gate) as lab:
        batch = [Add(tally="x", n=1, note="interrupt" if when == "deciding" else None)]
        batch += [Add(tally="a", n=1) for _ in range(5)]
        with grouped(lab, gate, batch) as futures:
            gate.opened.set()
            assert isinstance(futures[1].exception(20), KeyboardInterrupt)
            receipts = [future.result(20) for future in [futures[0], *futures[2:]]]
        events = log_of(lab)
        assert sorted(r.version for r in receipts[1:]) == [1, 2, 3, 4, 5]
        assert [event[0] for event in events].count("tally/a") == 5
        assert [event[0] for event in events].count("tally/x") == (when == "after the commit")
        assert lab.send(Add(tally="x", n=1)).version == 1 + (when == "after the commit")


@pytest.mark.parametrize("leader_too", [False, True])
def test_an_interrupted_waiter_is_gone(leader_too, monkeypatch):
    """The command of a thread that was interrupted while it waited is not carried out later; nobody waits for it."""
    gate, wait, taken = Gate(), threading.Event.wait, threading.Event()

    def interrupted(self, timeout=None):
        if threading.current_thread().name == "interrupted":
            assert wait(taken, 20)
            raise KeyboardInterrupt
        return wait(self, timeout)

    def deciding(command, total):
        if command.note == "last":  # the group is being carried out: the waiter goes now, and the leader is interrupted
            taken.set()
            while any(t.name == "interrupted" for t in threading.enumerate()):
                pass
            if not leader_retried:
                leader_retried.append(1)
                raise KeyboardInterrupt
        return gate(command, total)

    def send_gone():
        with suppress(KeyboardInterrupt):
            lab.send(Add(tally="gone", n=1))

    leader_retried = []
    with open_lab(decide=deciding) as lab:
        grouping = next(step for step in lab._commands.middleware if getattr(step, "__name__", "") == "grouped")
        with grouped(lab, gate, [Add(tally="a", n=1)] if leader_too else []) as futures:
            waiter = threading.Thread(target=send_gone, name="interrupted", daemon=True)
            waiter_there = len(grouping._queue) + 1
            monkeypatch.setattr(threading.Event, "wait", interrupted)
            waiter.start()
            while len(grouping._queue) < waiter_there:
                pass
            with ThreadPoolExecutor(1) as pool:
                if leader_too:
                    last = pool.submit(lab.send, Add(tally="b", n=1, note="last"))
                    while len(grouping._queue) <= waiter_there:
                        pass
                else:
                    taken.set()
                    waiter.join(20)
                gate.opened.set()
                waiter.join(20)
                assert not waiter.is_alive()
                assert futures[0].result(20).version == 1
                if leader_too:
                    assert isinstance(futures[1].exception(20), KeyboardInterrupt)
                    assert last.result(20).version == 1
        with threads(lambda: lab.send(Add(tally="c", n=1))) as [after]:
            assert after.result(20).version == 1
        assert "tally/gone" not in [event[0] for event in log_of(lab)]


def test_deciding_sends_nothing(tmp_path):
    """A decide() that sends, appends or sends by another lab is told so, alone or in a batch, and nothing is stored."""

    def deciding(command, total):
        match command.note:
            case "send":
                lab.send(Add(tally="b", n=1))
            case "send many":
                lab.send_many([Add(tally="b", n=1)])
            case "elsewhere":
                other.send(Add(tally="b", n=1))
        return decide(command, total)

    path = tmp_path / "lab.duckdb"
    with open_lab(path, decide=deciding) as lab, open_lab(path) as other, ThreadPoolExecutor(1) as pool:
        for note in ("send", "send many", "elsewhere"):
            command = Add(tally="a", n=1, note=note)
            for act in (lambda c=command: lab.send(c), lambda c=command: lab.send_many([c])):
                with pytest.raises(DeclarationError, match="decide\\(\\) is pure"):
                    pool.submit(act).result(20)
        assert log_of(lab) == []
        assert pool.submit(lab.send, Add(tally="a", n=1)).result(20).version == 1


def test_a_slow_service_holds_up_nobody():
    """While a service waits for the world outside other commands are carried out; it may send commands itself."""
    reached, answered = threading.Event(), threading.Event()

    def handle(command, key):
        lab.send(Add(tally="by the service", n=1))
        reached.set()
        assert answered.wait(20)
        return [Called(line=command.line, key=key)]

    with open_lab(service=calls(handle)) as lab, threads(lambda: lab.send(Call(line="l"))) as [slow]:
        assert reached.wait(20)
        with threads(lambda: lab.send(Add(tally="a", n=1)), lambda: lab.send_many([Add(tally="b", n=1)])) as others:
            for other in others:
                other.result(20)
        assert not slow.done()
        answered.set()
        assert slow.result(20).position == 4


def test_closing_while_threads_send(tmp_path):
    """close() does not hang: every sender gets a receipt or StoreClosed, and what has a receipt is in the log."""
    for round_ in range(2):
        path, receipts, ends = tmp_path / f"{round_}.duckdb", [], []
        lab = open_lab(path)

        def send(t, lab=lab, receipts=receipts, ends=ends):
            try:
                while True:
                    receipts.append(lab.send(Add(tally=f"t-{t % 4}", n=1)))
            except BaseException as error:
                ends.append(type(error))

        senders = [threading.Thread(target=send, args=(t,), daemon=True) for t in range(12)]
        for sender in senders:
            sender.start()
        while len(receipts) < 100:
            pass
        with threads(lab.close) as [closing]:
            closing.result(20)
        for sender in senders:
            sender.join(20)
        assert ends == [StoreClosed] * 12
        with open_lab(path) as lab:
            stored = {(f"{e[0]}", e[1]) for e in log_of(lab)}
            assert {(r.stream, r.version) for r in receipts} <= stored
            assert len({r.position for r in receipts}) == len(receipts)


def test_two_labs_over_one_file_share_one_log(tmp_path):
    """Threads on two labs leave positions and versions without holes, and streams may be read meanwhile."""
    path = tmp_path / "lab.duckdb"
    with open_lab(path) as one, open_lab(path) as other, ThreadPoolExecutor(13) as pool:

        def send(t):
            lab = (one, other)[t % 2]
            return [lab.send(Add(tally=f"t-{i % 3}", n=1)) for i in range(25)]

        done = [pool.submit(send, t) for t in range(12)]
        while not all(future.done() for future in done):
            one.events(stream="tally/t-0").fetchall()
        assert_there(one, [receipt for future in done for receipt in future.result()])
        assert len(log_of(other)) == 300
        assert one.send(Add(tally="t-0", n=-108)).version == 109
        with pytest.raises(RuleViolated):
            other.send(Add(tally="t-0", n=-1))
