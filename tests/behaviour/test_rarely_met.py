"""Refusals that hardly anybody meets, and what is stored whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import place

from cqrs_lab import Command, Decider, Domain, Event, Lab, open_shop
from cqrs_lab.errors import CqrsLabError, DeclarationError, NotAStore, StoreError, StoreFormatError
from cqrs_lab.shop import order_summary
from cqrs_lab.store.database import Database


def noted(name: str = "Noted", **more: Any) -> type[Event]:
    """A class of events."""
    kinds = {"k": str, **{field: type(value) for field, value in more.items()}}
    return type(name, (Event,), {"__annotations__": kinds, "__module__": __name__, **more})


def test_a_category_that_cannot_be_is_refused() -> None:
    """Two classes of one name, and a key that is no text, are no category."""
    with pytest.raises(DeclarationError, match="two events named Noted"):
        Domain.of_events("note", key="k", events=[noted(), noted()])
    number = type("Counted", (Event,), {"__annotations__": {"k": int}, "__module__": __name__})
    with pytest.raises(DeclarationError, match="names a stream, so it must be a str"):
        Domain.of_events("note", key="k", events=[number])


def test_a_command_without_the_key_is_refused() -> None:
    """A decider's commands name the thing that they are about."""
    command = type("Note", (Command,), {"__annotations__": {"text": str}, "__module__": __name__})
    with pytest.raises(DeclarationError, match="Note lacks 'k', the key of 'note'"):
        Decider("note", "k", None, lambda c, s: [], lambda s, e: s, [command], [noted()])


def test_a_store_that_does_not_fit_its_domain_is_refused(tmp_path: Path) -> None:
    """Another key of a category, and fields that a read-only store lacks: refused, and the files stay as they are."""
    path = tmp_path / "notes.duckdb"
    with Lab(path, domain=Domain.of_events("note", key="k", events=[noted()])):
        pass
    other = type("Noted", (Event,), {"__annotations__": {"other": str}, "__module__": __name__})
    with pytest.raises(DeclarationError, match="stored with the key 'k', not 'other'"):
        Lab(path, domain=Domain.of_events("note", key="other", events=[other]))
    with pytest.raises(StoreFormatError, match="lacks tables or columns"):
        Lab(path, domain=Domain.of_events("note", key="k", events=[noted(more=1)]), read_only=True)
    with Lab(path, domain=Domain.of_events("note", key="k", events=[noted()])) as lab:
        assert "more" not in lab.events_table("note").arrow().column_names


def test_a_domain_without_categories_has_no_events() -> None:
    """A lab that declares nothing says so when it is asked for events."""
    with Lab(domain=Domain()) as lab, pytest.raises(DeclarationError, match="declares no categories"):
        lab.events()


@pytest.mark.parametrize("move", ["catch_up", "serve"])
def test_a_checkpoint_that_stands_elsewhere_stops_the_move(move: str) -> None:
    """Where somebody moved a checkpoint meanwhile nothing of the move is stored, so nothing is counted twice."""
    with open_shop() as lab:
        served = lab.serve(order_summary)
        lab.send(place("o-1"))
        lab._log.database.execute("UPDATE servings SET position = position + 1000")
        with pytest.raises(StoreError, match="no longer stands at position 0"):
            served.catch_up() if move == "catch_up" else lab.serve(order_summary, mode="inline")
        found = lab._log.database.execute("SELECT count(*) FROM projection.order_summary")
        assert found == [(0,)]


def fail(patch: pytest.MonkeyPatch, begin: str, number: int) -> None:
    """Make one of the statements that begin with a text fail, told by its number."""
    real, seen = Database.execute, list[str]()

    def failing(self: Database, sql: str, params: Any = ()) -> Any:
        if sql.startswith(begin):
            seen.append(sql)
            if len(seen) == number:
                raise StoreError("the disk is gone")
        return real(self, sql, params)

    patch.setattr(Database, "execute", failing)


def test_a_store_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the making of a store stopped half-way there is none, and the next opening makes it."""
    path, domain = tmp_path / "notes.duckdb", Domain.of_events("note", key="k", events=[noted()])
    fail(monkeypatch, "CREATE TABLE", 2)
    with pytest.raises(StoreError, match="disk"):
        Lab(path, domain=domain)
    monkeypatch.undo()
    with pytest.raises(NotAStore, match="is an empty database; open it for writing once"):
        Lab(path, domain=domain, read_only=True)
    with Lab(path, domain=domain) as lab:
        lab.record("a", lab._categories["note"].types["Noted"](k="a"))
        assert lab.head == 1


def test_a_category_is_added_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tables of a new category were not all made the store knows nothing of it; the next opening adds it."""
    path, other = tmp_path / "notes.duckdb", Domain.of_events("page", key="k", events=[noted("Turned")])
    with Lab(path, domain=Domain.of_events("note", key="k", events=[noted()])):
        pass
    fail(monkeypatch, "CREATE INDEX", 1)
    with pytest.raises(StoreError, match="disk"):
        Lab(path, domain=other)
    monkeypatch.undo()
    with Lab(path, domain=Domain(), read_only=True) as lab:
        assert lab._log.database.execute("SELECT category FROM categories") == [("note",)]
    with Lab(path, domain=other) as lab:
        lab.record("a", lab._categories["page"].types["Turned"](k="a"))
        assert lab.head == 1


def test_defaults_are_filled_in_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose filling stopped half-way has none of it, and the next opening does it all."""
    path = tmp_path / "notes.duckdb"
    with Lab(path, domain=Domain.of_events("note", key="k", events=[noted()])) as lab:
        lab.record("a", lab._categories["note"].types["Noted"](k="a"))
    later = Domain.of_events("note", key="k", events=[noted(one=1, two=2)])
    fail(monkeypatch, 'UPDATE "note_events"', 2)
    with pytest.raises(CqrsLabError, match="disk"):
        Lab(path, domain=later)
    monkeypatch.undo()
    first = Domain.of_events("note", key="k", events=[noted()])
    with Lab(path, domain=first, read_only=True) as lab:
        assert lab._log.database.execute("SELECT one, two FROM note_events") == [(None, None)]
    with Lab(path, domain=later) as lab:
        assert lab.sql("SELECT one, two FROM note_events").fetchall() == [(1, 2)]
