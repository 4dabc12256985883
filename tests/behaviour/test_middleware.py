"""The command bus: its middleware, policies, ids that are sent again, and deciding alone."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from support.tallies import Add, Added, Call, Called, calls, decide, log_of, open_lab, tallies, threads

from cqrs_lab import Domain, Lab
from cqrs_lab.errors import (
    ConcurrencyError,
    DeclarationError,
    IdempotencyConflict,
    InvalidMessage,
    NotAllowed,
    ReadOnlyStore,
    RuleViolated,
    UnknownCommand,
)
from cqrs_lab.shop import PayOrder, StockProduct

STOCK = StockProduct(product_id="p-1", quantity=5)


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


def test_a_read_only_store_decides_nothing_and_has_no_service_act(tmp_path):
    """A command to it, alone or in a batch, is refused before anything is decided or done in the world outside."""
    done = []
    with open_lab(tmp_path / "lab.duckdb"):
        pass
    service = calls(lambda command, key: done.append(command) or [])
    domain = Domain(deciders=[tallies(decide=lambda command, total: done.append(command) or [])], services=[service])
    with Lab(tmp_path / "lab.duckdb", domain=domain, read_only=True) as lab:
        for command in (Add(tally="a", n=1), Call(line="l")):
            for send in (lab.send, lambda command: lab.send_many([command])):
                with pytest.raises(ReadOnlyStore, match="open it without read_only=True"):
                    send(command)
    assert done == []


def test_command_times_tell_every_command():
    """There is a row for each command, done or not, with its time; it may be asked while others send."""
    with open_lab() as lab:
        assert lab.command_times().fetchall() == []
        lab.send_many([Add(tally="a", n=1), Call(line="l")])
        with pytest.raises(RuleViolated):
            lab.send(Add(tally="a", n=-2))
        rows = lab.command_times().fetchall()
        assert [row[:2] for row in rows] == [("Add", "done"), ("Call", "done"), ("Add", "RuleViolated")]
        assert all(ms > 0 for *_, ms in rows)
        with threads(lambda: lab.send_many([Add(tally="b", n=1)] * 2000)) as [sending]:
            while not sending.done():
                lab.command_times()
            assert len(sending.result()) == 2000


def test_a_command_has_one_handler():
    """Two handlers for one command, or none, are errors that name what is registered."""
    with pytest.raises(
        DeclarationError, match=r"Add is handled in .*'tally' and 'other'; a command has one owner.* are Add \(tally\)"
    ):
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
                    pool.submit(act).result(120)
        assert log_of(lab) == []
        assert pool.submit(lab.send, Add(tally="a", n=1)).result(120).version == 1
