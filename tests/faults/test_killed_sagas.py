"""Fulfilment that crashes or is killed takes each step and each charge once."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support import Child
from support.fulfilment import STOCK, check, prepare, shop, story

from cqrs_lab.shop import fulfilment
from cqrs_lab.shop.payments import Movement, TimedOut


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


def work(path: str, ledger: str, pause: float) -> None:
    """Fulfil all orders; run by processes that are killed."""
    with shop(path, gateway=Ledger(ledger, pause=pause), attempts=1, stock={}, follows=False) as lab:
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
        # Each of more than six calls of the gateway takes a second, so that a kill comes before the end.
        pause = 1 if life < 3 else 0
        child.tell(f"import test_killed_sagas; test_killed_sagas.work({str(path)!r}, {str(ledger)!r}, {pause})")
        assert child.line() == "at work"
        if life < 3:
            time.sleep(moments.uniform(0.02, 1.5))
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
