"""Handlers that fail or are killed: rows and checkpoint stay together, and nothing else is held up."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import polars
import pytest
from support import START, append, place, python
from support.handlers import POISONED, counting, paid, sending

from cqrs_lab import Lab, Projection, open_shop
from cqrs_lab.errors import NotYet, ProjectionFailed
from cqrs_lab.read.served import reach
from cqrs_lab.shop import OrderPaid, OrderPlaced, order_summary


@pytest.mark.parametrize("chunk", [1, 2, 500])
def test_a_failing_event_stops_it_and_keeps_what_came_before(chunk: int) -> None:
    """Rows and position are those of the events before the one that fails, which has changed nothing; others go on."""
    with open_shop() as lab:
        served, other = lab.serve(counting(chunk=chunk)), lab.serve(order_summary)
        append(lab, POISONED)
        for _ in range(2):
            with pytest.raises(ProjectionFailed, match=r"position 3 \(OrderShipped\): ValueError: cannot ship"):
                lab.catch_up()
        assert (served.position, other.position) == (2, 4)
        assert served.rows().fetchall() == [("o-1", 1), ("o-2", 1)]
        lag = {row["model"]: (row["state"], row["error"] or "") for row in lab.lag().dicts()}
        assert lag["order_summary"] == ("ok", "")
        assert lag["counts"][0] == "stopped"
        assert "cannot ship" in lag["counts"][1]
        with pytest.raises(ProjectionFailed):
            reach(lab._servings.running, served.model, 4, 0.1)
        assert served.catch_up(to=2) == 2


def test_a_failing_event_keeps_a_new_projection_at_what_came_before() -> None:
    """A projection that is new and meets such an event stays where it got; serving it again attaches to it."""
    with open_shop() as lab:
        append(lab, POISONED)
        with pytest.raises(ProjectionFailed):
            lab.serve(counting())
        assert lab.serve(counting()).rows().fetchall() == [("o-1", 1), ("o-2", 1)]


def test_a_failing_rebuild_keeps_the_old_rows() -> None:
    """A rebuild that meets a failing event fails; the old rows and their position stay, nothing is left over."""
    failing: list[bool] = []
    made = Projection("made", "order_id", {"order_id": str, "n": int}, chunk=1)

    @made.on(OrderPaid)
    def _(recorded: Any, rows: Any) -> None:
        if failing and recorded.position == 2:
            raise ValueError("no more")
        rows.put(order_id=recorded.event.order_id, n=recorded.position)

    with open_shop() as lab:
        append(lab, [paid("o-1"), paid("o-2"), paid("o-1")])
        served = lab.serve(made, on_error="dead letter")
        failing.append(True)
        with pytest.raises(ProjectionFailed, match="no more"):
            served.rebuild()
        assert (served.position, served.rows().fetchall()) == (3, [("o-1", 3), ("o-2", 2)])
        tables = "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'projection'"
        assert lab._log.database.execute(tables) == [(1,)]
        failing.clear()
        assert served.rebuild() == 3


KILLED = """
import os, signal, sys
from support.handlers import *
from support import append
from cqrs_lab import open_shop
from cqrs_lab.store.move import Move
made = counting(chunk=3)
sent = Projection("sent", side_effect=True, chunk=2)
@sent.on(OrderPaid)
def _(recorded, rows):
    with open(sys.argv[1] + ".sent", "a") as file:
        file.write(f"{recorded.position}\\n")
with open_shop(sys.argv[1]) as lab:
    served = lab.serve(sent if sys.argv[2] == "sent" else made)
    append(lab, [paid(f"o-{number % 2}") for number in range(8)])
    write, calls = Move.write_checkpoints, []
    def dying(*args):
        calls.append(args)
        if len(calls) == 3 and sys.argv[3] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        written = write(*args)
        if len(calls) == 3 and sys.argv[3] == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return written
    Move.write_checkpoints = dying
    served.catch_up()
"""


def kill(path: Path, what: str, when: str) -> None:
    """Run a process that is killed between the third chunk and its checkpoint."""
    assert python(KILLED, path, what, when).returncode == -signal.SIGKILL


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_between_rows_and_checkpoint_loses_both(when: str, tmp_path: Path) -> None:
    """After kill -9 rows and position are those of the last whole chunk, and catching up ends as without a crash."""
    path = tmp_path / "lab.duckdb"
    kill(path, "made", when)
    with open_shop(path) as lab:
        served = lab.serve(counting(chunk=3))
        assert (served.position, served.rows().fetchall()) == (6, [("o-0", 3), ("o-1", 3)])
        assert served.catch_up() == 8
        assert served.rows().fetchall() == [("o-0", 4), ("o-1", 4)]


def test_side_effects_happen_at_least_once(tmp_path: Path) -> None:
    """After kill -9 the events behind the checkpoint come again, never fewer than all and none before it."""
    path = tmp_path / "lab.duckdb"
    kill(path, "sent", "before")
    done = [int(line) for line in Path(f"{path}.sent").read_text().split()]
    assert done == [1, 2, 3, 4, 5, 6]
    with open_shop(path) as lab:
        served = lab.serve(sending(done))
        assert served.position == 4
        served.catch_up()
    assert done == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8]


def append_again(lab: Lab, recorded: Any, how: str) -> None:
    """Append something about another order, as no handler may to the log that it follows."""
    order = f"{recorded.event.order_id}-again"
    if how == "append_table":
        lab.append_table("order", polars.DataFrame({"id": [order], "type": ["OrderPaid"], "occurred_at": [START]}))
    else:
        command = place(order)
        lab.send(command) if how == "send" else lab.send_many([command])


@pytest.mark.parametrize("how", ["send", "send_many", "append_table"])
def test_a_handler_appends_nothing_to_its_own_log(how: str) -> None:
    """Whatever it appends with is refused, and says what to do; another lab's log takes what it sends."""
    mails = Projection("mails", side_effect=True)
    with open_shop() as lab, open_shop() as other:
        to: list[Lab] = [lab]

        @mails.on(OrderPlaced)
        def _(recorded: Any, rows: Any) -> None:
            append_again(to[0], recorded, how)

        served = lab.serve(mails)
        lab.send(place(1))
        with pytest.raises(ProjectionFailed, match=r"a handler of the projection mails appends .* make it a saga"):
            served.catch_up()
        assert (lab.head, served.position) == (1, 0)
        to[0] = other
        assert served.catch_up() == 1
        assert (lab.head, other.head) == (1, 1)
        assert lab.send(place(2)).position == 2


@pytest.mark.parametrize("how", ["send", "append_table"])
def test_a_handler_that_sends_holds_nobody_up(how: str) -> None:
    """In the background it is refused while others append with an inline serving, and all of these come through."""
    mails = Projection("mails", side_effect=True)
    with open_shop() as lab:

        @mails.on(OrderPlaced)
        def _(recorded: Any, rows: Any) -> None:
            append_again(lab, recorded, how)

        lab.serve(order_summary, mode="inline")
        lab.serve(mails, mode="background", on_error="dead letter")

        def send(thread: int) -> None:
            for number in range(20):
                lab.send(place(f"{thread}-{number}"))

        threads = [threading.Thread(target=send, args=(n,), daemon=True) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert len(lab.serve(order_summary).rows()) == 60


def test_a_position_that_it_cannot_reach_is_said() -> None:
    """Waiting for a projection that fails in the background ends with NotYet and the reason."""
    with open_shop() as lab:
        served = lab.serve(counting(), mode="background")
        append(lab, POISONED)
        with pytest.raises(NotYet, match="cannot ship") as late:
            reach(lab._servings.running, served.model, 4, 0.5)
        assert late.value.position == 2
