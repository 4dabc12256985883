"""The history of a row, told as a story, and histories that are kept: when they are read, and when not."""

from __future__ import annotations

import pytest
from support import append
from support.layers import contacts, declared, demand, listed, unnamed

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.errors import NotServed
from cqrs_lab.read import kept
from cqrs_lab.shop import CustomerRegistered, OrderPaid, OrderPlaced, order_summary


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
