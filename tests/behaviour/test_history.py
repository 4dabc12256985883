"""The history of a row, told as a story, and histories that are kept: when they are read, and when not."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from support import append, placed
from support.layers import contacts, declared, demand, listed, unnamed

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.errors import InvalidMoment, NotServed, QueryFailed
from cqrs_lab.read import kept
from cqrs_lab.read.history import _Versions
from cqrs_lab.shop import (
    CustomerRegistered,
    OrderLine,
    OrderPaid,
    OrderPlaced,
    customer_value,
    open_orders,
    order_summary,
)
from cqrs_lab.store.database import Database


def test_a_history_reads_as_a_story():
    """Columns are those of the event, then the row's, then what changed; a row that vanishes is empty."""
    with open_shop() as lab:
        declared(lab)
        order = OrderPlaced(order_id="o-1", customer_id="c-1", total=5)
        person = CustomerRegistered(customer_id="c-1", name="Ann")
        append(lab, [(order, 0), (OrderPaid(order_id="o-2", amount=1), 1), (person, 2)])
        told = lab.history(unnamed, "o-1")
        assert told.columns == [
            "position", "type", "occurred_at", "recorded_at", "order_id", "status", "changed",
        ]  # fmt: skip
        assert [(r["position"], r["type"], r["order_id"], r["changed"]) for r in told.dicts()] == [
            (1, "OrderPlaced", "o-1", ["order_id", "status"]),
            (3, "CustomerRegistered", None, ["order_id", "status"]),
        ]
        assert all(r["occurred_at"].tzinfo and r["recorded_at"].tzinfo for r in told.dicts())
        assert len(lab.history(unnamed, "nobody")) == len(lab.history("order_summary", "nobody")) == 0


def asked(lab: Lab, monkeypatch: pytest.MonkeyPatch, model: ReadModel, *key: str) -> tuple[int, int]:
    """Return how many statements the history of a row takes, and how many changes it has."""
    statements: list[str] = []
    with monkeypatch.context() as patched:
        run = Database.execute

        def counted(self: Database, sql: str, params: Any = ()) -> Any:
            statements.append(sql)
            return run(self, sql, params)

        patched.setattr(Database, "execute", counted)
        changes = len(lab.history(model, *key))
    return len(statements), changes


@pytest.mark.parametrize("model", [order_summary, customer_value, open_orders, demand], ids=lambda m: m.name)
def test_a_history_costs_its_own_versions(model: ReadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of a long log takes as many statements as one of a short log, and as one that changed more often."""
    keys = {order_summary: ("o-1",), customer_value: ("c-1",), open_orders: ("o-1",), demand: ("p-1",)}
    found = []
    for others, payments in ((5, 1), (300, 1), (5, 80)):
        with open_shop(threads=1) as lab:
            declared(lab)
            lines = (OrderLine(product_id="p-1", quantity=1, unit_price="1"),)
            mine = OrderPlaced(order_id="o-1", customer_id="c-1", total=5, lines=lines)
            theirs = [(OrderPlaced(order_id=f"x-{n}", customer_id=f"y-{n}", total=n), 0) for n in range(others)]
            append(lab, [(mine, 0), *theirs, *[(OrderPaid(order_id="o-1", amount=1), 1)] * payments])
            found.append(asked(lab, monkeypatch, model, *keys[model]))
    (short, few), (long, same), (often, more) = found
    assert short == long == often < 40
    assert few == same <= more


def test_a_history_is_cut() -> None:
    """Only the latest changes, or those from a position or a time of recording on, are told when asked so."""
    with open_shop() as lab:
        for minute, amount in enumerate((1, 2, 3)):
            lab._store.clock = lambda minute=minute: datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
            append(lab, [(OrderPaid(order_id="o-1", amount=amount), minute)])

        def told(**given: Any) -> list[int]:
            return [row["position"] for row in lab.history(order_summary, "o-1", **given).dicts()]

        assert told() == told(limit=9) == told(since=0) == told(since=date(2026, 1, 1)) == [1, 2, 3]
        assert told(limit=2) == told(since=2) == told(since=datetime(2026, 1, 1, 0, 1, tzinfo=UTC)) == [2, 3]
        assert told(since=date(2026, 1, 2)) == []
        [last] = lab.history(order_summary, "o-1", limit=1).dicts()
        assert last["changed"] == ["paid", "version", "updated_at"]
        with pytest.raises(QueryFailed, match="limit=0 is not a number"):
            told(limit=0)
        with pytest.raises(InvalidMoment, match="since='x' is neither"):
            told(since="x")
        with pytest.raises(InvalidMoment, match="since"):
            told(since=datetime(2026, 1, 1))


def test_what_duckdb_cannot_put_behind_another_select_is_asked_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A history is the same when each of its positions takes a statement of its own."""
    with open_shop() as lab:
        append(lab, [(OrderPlaced(order_id="o-1", customer_id="c-1", total=5), 0)])
        append(lab, [(OrderPaid(order_id="o-1", amount=n), n) for n in (1, 2)])
        whole, run = lab.history(customer_value, "c-1").dicts(), Database.execute

        def refusing(self: Database, sql: str, params: Any = ()) -> Any:
            return run(self, sql.replace("LATERAL", "LATERALLY"), params)

        monkeypatch.setattr(Database, "execute", refusing)
        assert lab.history(customer_value, "c-1").dicts() == whole


def many(lab: Lab, count: int) -> None:
    """Append orders."""
    append(lab, [(OrderPlaced(order_id=f"o-{n}", customer_id="c-1", total=n), 0) for n in range(count)])


def test_what_is_kept_is_what_is_read(monkeypatch):
    """A question about a position reads the kept rows and folds no more than the events since the last step."""
    monkeypatch.setattr(kept, "DUE", 5)
    with open_shop() as lab:
        many(lab, 10)
        lab.serve(order_summary, keep_history=True)
        many(lab, 2)
        lab.catch_up()
        text = lab.as_of(position=12)._text(order_summary)
        assert "history" in text
        assert "position > 10" in text
        assert "order_events" not in lab.as_of(position=10)._text(order_summary)
        assert "history" not in lab.as_of(position=12, occurred=lab._store.clock())._text(order_summary)
        assert "history" not in lab.as_of(position=0)._text(order_summary)
        assert [(s.model.name, s.as_) for s in lab._servings.served()] == [
            ("customer_contacts", "projection"),
            ("order_summary", "projection"),
        ]
        lab.serve(order_summary)
        assert "history" in lab.as_of(position=12)._text(order_summary)
        lab.serve(order_summary, keep_history=False)
        assert "history" not in lab.as_of(position=12)._text(order_summary)


def test_an_inline_projection_keeps_its_history_at_catch_up(monkeypatch):
    """Appends do not wait for the history; catch_up() moves it on."""
    monkeypatch.setattr(kept, "DUE", 5)
    with open_shop() as lab:
        many(lab, 7)
        lab.serve(order_summary, mode="inline", keep_history=True)
        many(lab, 7)
        assert "_from <= 7" in lab.as_of(position=14)._text(order_summary)
        assert len(lab.as_of(position=14).rows(order_summary)) == 7
        lab.catch_up()
        assert "_from <= 14" in lab.as_of(position=14)._text(order_summary)


def test_another_select_does_not_read_what_was_kept(monkeypatch):
    """A read model that was declared anew is folded until it is rebuilt, and then kept again."""
    monkeypatch.setattr(kept, "DUE", 5)
    with open_shop() as lab:
        many(lab, 12)
        once = ReadModel("totals", "order_id", "SELECT order_id, max(total) AS t FROM order_events GROUP BY order_id")
        again = ReadModel("totals", "order_id", "SELECT order_id, -max(total) AS t FROM order_events GROUP BY order_id")
        lab.serve(once, keep_history=True)
        assert lab.as_of(position=12).get(again, "o-3")["t"] == -3
        lab.serve(again).rebuild()
        assert "history" in lab.as_of(position=12)._text(again)
        assert lab.as_of(position=12).get(again, "o-3")["t"] == -3


def test_what_is_forgotten_is_not_kept(monkeypatch, tmp_path):
    """Erased personal data leave every kept history, also one whose read model nobody declares any more."""
    monkeypatch.setattr(kept, "DUE", 1)
    path = tmp_path / "shop.duckdb"
    with open_shop(path) as lab:
        declared(lab)
        append(lab, [(CustomerRegistered(customer_id="c-1", name="Ann-to-forget", email="e"), 0)])
        lab.serve(listed, keep_history=True)
        lab.serve(contacts, keep_history=True)
        lab.forget("c-1")
        assert lab.as_of(position=1).get(contacts, "c-1")["name"] is None
        assert "history" in lab.as_of(position=1)._text(contacts)
        assert lab._log.database.execute("SELECT name FROM history.contacts") == [(None,)]
        append(lab, [(CustomerRegistered(customer_id="c-2", name="Bea-to-forget", email="e"), 0)])
        lab.catch_up()
    with open_shop(path) as lab:  # it declares no contacts
        lab.forget("c-2")
        left = lab._log.database.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'history'")
        assert ("contacts",) not in left


def test_what_cannot_be_kept_says_so():
    """A read model of which nothing merges is refused with the reason."""
    with open_shop() as lab, pytest.raises(NotServed, match="DISTINCT"):
        lab.serve(demand, keep_history=True)


def test_a_row_is_asked_at_its_own_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What many orders are made into takes as many rows as they have versions, and not versions times orders."""
    kept_rows: list[int] = []
    close = _Versions.close

    def counted(self: _Versions) -> None:
        kept_rows.extend(self._run(f"SELECT count(*) FROM {table}")[0][0] for table in self._tables)
        close(self)

    with open_shop() as lab:
        append(lab, [placed(number) for number in range(30)])
        append(lab, [(OrderPaid(order_id=f"o-{number}", amount=1), 40) for number in range(30)])
        monkeypatch.setattr(_Versions, "close", counted)
        found = lab.history(customer_value, "c-1").dicts()
    assert [row["orders"] for row in found] == [*range(1, 31), *[30] * 30]
    assert max(kept_rows) <= 60
