"""A field that a class got later, with a default: every reader is told the same value of the events before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from cqrs_lab import Command, Decider, Domain, Event, Lab, Projection, ReadModel, Value
from cqrs_lab.errors import StoreFormatError


class Part(Value):
    """Part of a note."""

    text: str


class Note(Command):
    """Write something down."""

    k: str


class Noted(Event):
    """As it was declared at first."""

    k: str


class Ranked(Event):
    """Another event of the category, which has the field from the start."""

    k: str
    priority: int | None = None


GIVEN = {
    "priority": (int, 5),
    "share": (Decimal, Decimal("0.50")),
    "yes": (bool, True),
    "text": (str, "it's"),
    "parts": (tuple[Part, ...], (Part(text="a"),)),
    "none": (tuple[str, ...], ()),
}


def noted(version: int = 1, upcasts: Any = None, **more: Any) -> type[Event]:
    """The class as it is declared later."""
    kinds = {"k": str, **{name: GIVEN[name][0] for name in more}}
    values = {name: GIVEN[name][1] if value is ... else value for name, value in more.items()}
    namespace: dict[str, Any] = {"__annotations__": kinds, "__module__": __name__, **values}
    if version > 1:
        namespace |= {"schema_version": version, "upcasts": upcasts}
        namespace["__annotations__"] |= {"schema_version": ClassVar[int], "upcasts": ClassVar[Any]}
    return type("Noted", (Event,), namespace)


def lab(path: Path, event: type[Event], *, read_only: bool = False) -> Lab:
    """A lab for notes of that class."""

    def decide(command: Note, state: Sequence[Event]) -> list[Event]:
        return [event(k=command.k)]

    notes = Decider("note", "k", (), decide, lambda s, e: (*s, e), [Note], [event, Ranked])
    return Lab(path, domain=Domain([notes]), read_only=read_only)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A store with two events of the first class."""
    with lab(tmp_path / "notes.duckdb", Noted) as first:
        first.send(Note(k="a"))
        times = pa.array([0], pa.timestamp("us", "UTC"))
        first.append_table("note", pa.table({"id": ["b"], "type": ["Noted"], "occurred_at": times}))
    return tmp_path / "notes.duckdb"


def events(one: Lab) -> list[Event]:
    """What the write side reads."""
    category = one._categories["note"]
    return [recorded.event for k in ("a", "b", "c") for recorded in one._log.read(category, k)]


def told(one: Lab, name: str) -> dict[str, list[Any]]:
    """The values of a field, by who reads it."""
    model = ReadModel(f"by_{name}", "k", f"SELECT k, arg_max({name}, position) AS {name} FROM note_events GROUP BY k")
    seen: dict[str, list[Any]] = {}
    for as_ in ("view", "materialized", "projection"):
        served = one.serve(model, as_)
        served.rebuild() if as_ != "view" else None
        seen[as_] = [row[name] for row in served.rows().dicts()]
    seen["as of"] = [row[name] for row in one.as_of(position=one.head).rows(model).dicts()]
    seen["history"] = [one.history(model, k).dicts()[-1][name] for k in ("a", "b", "c")]
    handled: list[Any] = []
    by_hand = Projection("by_hand", "k", {"k": str})

    @by_hand.on(one._categories["note"].types["Noted"])
    def _(recorded: Any, rows: Any) -> None:
        handled.append(one._categories["note"].encode_value(getattr(recorded.event, name)))

    one.serve(by_hand).rebuild()
    encode = one._categories["note"].encode_value
    return {**seen, "handlers": handled[-3:], "write side": [encode(getattr(event, name)) for event in events(one)]}


@pytest.mark.parametrize("name", GIVEN)
def test_every_reader_is_told_the_default(path: Path, name: str) -> None:
    """Write side, handlers, every serving and every question about the past say the default, also of new events."""
    with lab(path, noted(**{name: ...})) as one:
        one.send(Note(k="c"))
        expected = one._categories["note"].encode_value(GIVEN[name][1])
        said = told(one, name)
        assert said == dict.fromkeys(said, [expected] * 3)


def test_a_default_that_changes_changes_no_past(path: Path) -> None:
    """Another default later is that of later events alone, for every reader."""
    with lab(path, noted(priority=...)) as one:
        one.send(Note(k="c"))
    with lab(path, noted(priority=7)) as one:
        one.send(Note(k="c"))
        said = told(one, "priority")
        assert said.pop("write side") == [5, 5, 5, 7]
        assert said.pop("handlers") == [5, 5, 7]
        assert said == {key: [5, 5, 7] for key in said}


def test_an_upcast_has_its_say_first(path: Path) -> None:
    """What an upcast makes of older versions stays; a field beside it has its default."""
    with lab(path, noted(2, {1: {"priority": "9"}}, priority=..., text=...)) as one:
        one.send(Note(k="c"))
        said = told(one, "priority")
        assert said == {key: [9, 9, 5] for key in said}
        said = told(one, "text")
        assert said == dict.fromkeys(said, ["it's"] * 3)


def test_rows_made_before_are_made_again(path: Path) -> None:
    """A field that another event type has already may be in rows; they say that they need a rebuild."""
    model = ReadModel("sums", "k", "SELECT k, coalesce(sum(priority), 0)::BIGINT AS n FROM note_events GROUP BY k")
    with lab(path, Noted) as one:
        assert one.serve(model).rows().fetchall() == [("a", 0), ("b", 0)]
    with lab(path, noted(priority=...)) as one:
        served = one.serve(model)
        assert served.state == "rebuild needed"
        served.rebuild()
        assert served.rows().fetchall() == one.serve(model, "view").rows().fetchall() == [("a", 5), ("b", 5)]
    with lab(path, noted(priority=...)) as one:
        assert one.serve(model).state == "ok"


def test_a_read_only_store_asks_to_be_opened_once(path: Path) -> None:
    """Where nothing can be filled in, the store is not opened with two meanings."""
    with lab(path, Noted):
        pass
    with pytest.raises(StoreFormatError, match="open it for writing once"):
        lab(path, noted(priority=...), read_only=True)
    with lab(path, noted(priority=...)):
        pass
    with lab(path, noted(priority=...), read_only=True) as one:
        assert [event.priority for event in events(one)] == [5, 5]  # type: ignore[attr-defined]


def test_a_table_that_leaves_it_empty_has_the_default(path: Path) -> None:
    """A column that is there and empty means the default, in a projection that the few last events move, too."""
    best = ReadModel("best", "k", "SELECT k, max(priority) AS p, max(share) AS s FROM note_events GROUP BY k")
    with lab(path, noted(priority=..., share=...)) as opened:
        served = opened.serve(best)
        for empty in (["priority", "share"], ["priority"], []):
            times = pa.array([0], pa.timestamp("us", "UTC"))
            given = {name: pa.nulls(1, pa.int64()) for name in empty}
            opened.append_table("note", pa.table({"id": ["1"], "type": ["Noted"], "occurred_at": times, **given}))
            served.catch_up()
            assert served.rows().fetchall() == opened.serve(best, "view").rows().fetchall()
            assert served.get("1") == {"k": "1", "p": 5, "s": Decimal("0.50")}
