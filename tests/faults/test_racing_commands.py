"""Commands that race: groups, interrupts of one thread, closing, and a batch whose process is killed."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from support import Child
from support.tallies import Add, Added, Call, Called, assert_there, calls, decide, log_of, open_lab, threads

from cqrs_lab.errors import RuleViolated, StoreClosed, StoreError
from cqrs_lab.store.database import Database
from cqrs_lab.write.event_store import EventStore


@pytest.mark.parametrize(
    ("part", "when", "stored"), [('INTO "tally_events"', "after", 0), ("COMMIT", "before", 0), ("COMMIT", "after", 100)]
)
def test_a_batch_survives_a_kill_whole_or_not_at_all(part, when, stored, tmp_path):
    """A process killed in the middle of a batch leaves all of it or nothing of it."""
    path = str(tmp_path / "lab.duckdb")
    child = Child()
    child.run(f"from support.tallies import *; lab = open_lab({path!r}); lab.send(Add(tally='a', n=1))")
    child.tell(f"die_at({part!r}, {when!r}); lab.send_many([Add(tally=f't-{{i}}', n=1) for i in range(100)])")
    assert child.wait() == -signal.SIGKILL
    with open_lab(path) as lab:
        assert len(log_of(lab)) == 1 + stored
        assert lab._log.database.execute("SELECT count(*) FROM commands") == [(1 + stored,)]
        assert lab.send(Add(tally="t-7", n=1)).version == 1 + stored // 100


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
            assert self.opened.wait(120)
        if command.note == "interrupt":
            raise KeyboardInterrupt
        return decide(command, total)


@contextmanager
def grouped(lab, gate, commands):
    """Send commands that arrive while another one is being decided; yields their futures in order."""
    pool = ThreadPoolExecutor(len(commands) + 1)
    grouping = next(step for step in lab._commands.middleware if getattr(step, "__name__", "") == "grouped")
    first = pool.submit(lab.send, Add(tally="gate", n=1))
    assert gate.reached.wait(120)
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
            errors = [type(future.exception(120)) for future in futures]
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
            errors = [str(future.exception(120)) for future in futures]
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
            assert isinstance(futures[1].exception(120), KeyboardInterrupt)
            receipts = [future.result(120) for future in [futures[0], *futures[2:]]]
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
            assert wait(taken, 120)
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
                    waiter.join(120)
                gate.opened.set()
                waiter.join(120)
                assert not waiter.is_alive()
                assert futures[0].result(120).version == 1
                if leader_too:
                    assert isinstance(futures[1].exception(120), KeyboardInterrupt)
                    assert last.result(120).version == 1
        with threads(lambda: lab.send(Add(tally="c", n=1))) as [after]:
            assert after.result(120).version == 1
        assert "tally/gone" not in [event[0] for event in log_of(lab)]


def test_a_slow_service_holds_up_nobody():
    """While a service waits for the world outside other commands are carried out; it may send commands itself."""
    reached, answered = threading.Event(), threading.Event()

    def handle(command, key):
        lab.send(Add(tally="by the service", n=1))
        reached.set()
        assert answered.wait(120)
        return [Called(line=command.line, key=key)]

    with open_lab(service=calls(handle)) as lab, threads(lambda: lab.send(Call(line="l"))) as [slow]:
        assert reached.wait(120)
        with threads(lambda: lab.send(Add(tally="a", n=1)), lambda: lab.send_many([Add(tally="b", n=1)])) as others:
            for other in others:
                other.result(120)
        assert not slow.done()
        answered.set()
        assert slow.result(120).position == 4


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
            closing.result(120)
        for sender in senders:
            sender.join(120)
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


@pytest.mark.parametrize("command", [Add(tally="a", n=1), Call(line="a")], ids=["decider", "service"])
def test_one_id_from_many_threads(command):
    """However many send one command under one id at once, it is carried out once and all get the same receipt."""
    with open_lab() as lab, ThreadPoolExecutor(16) as pool:
        for id in map(str, range(5)):
            answers = list(pool.map(lambda _, id=id: lab.send(command, command_id=id, correlation_id="s"), range(16)))
            assert answers == [answers[0]] * 16
        assert lab.head == 5
        assert len(log_of(lab)) == 5
