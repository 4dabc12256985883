"""What a store could not read again is refused where it enters: by message and by table, with the name of the field."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest
from support import place
from support.things import things

from cqrs_lab import Command, Decider, Domain, Event, Lab, ReadModel, Value, open_shop
from cqrs_lab.errors import InvalidMessage, InvalidMoment, InvalidTable
from cqrs_lab.shop import OrderDetails, daily_orders

FAR_WEST, FAR_EAST = timezone(timedelta(hours=-5)), timezone(timedelta(hours=5))
BEYOND = [datetime(9999, 12, 31, 23, tzinfo=FAR_WEST), datetime(1, 1, 1, 1, tzinfo=FAR_EAST)]
MICROS = pa.timestamp("us", "UTC")
FAR = [253_402_300_800_000_000, 2**63 - 1, -(2**63) + 1, -62_135_596_800_000_001]


class Part(Value):
    """Part of a note."""

    text: str = ""
    at: datetime | None = None


class Note(Command):
    """Write something down."""

    note_id: str
    text: str = ""
    at: datetime | None = None
    day: date | None = None
    parts: tuple[Part, ...] = ()


class Noted(Event):
    """Something was written down."""

    note_id: str
    text: str = ""
    at: datetime | None = None
    day: date | None = None
    parts: tuple[Part, ...] = ()


def decide(command: Note, state: Noted | None) -> list[Noted]:
    """Write it down, unless it says nothing new."""
    return [] if command.text == "nothing" else [Noted(**dict(command))]


NOTES = Decider("note", "note_id", None, decide, lambda s, e: e, [Note], [Noted])


@pytest.fixture
def lab() -> Any:
    """A lab for notes."""
    with Lab(domain=Domain([NOTES])) as lab:
        yield lab


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("note_id", {"note_id": "a\0b"}),
        ("text", {"text": "\0"}),
        ("text", {"parts": [{"text": "x\0"}]}),
        *[("at", {"at": moment}) for moment in BEYOND],
        *[("at", {"parts": [{"at": moment}]}) for moment in BEYOND],
    ],
)
def test_messages_refuse_what_could_not_be_read_again(field: str, given: dict[str, Any]) -> None:
    """NUL characters and times outside the years 1 to 9999 are no values of a command, an event or a part of one."""
    for message in (Note, Noted):
        with pytest.raises(InvalidMessage, match=field):
            message(**{"note_id": "n", **given})


@pytest.mark.parametrize("text", ["a\0", "\0", "\0\0b"])
def test_what_is_sent_beside_a_command_is_looked_at_too(text: str) -> None:
    """Ids, actors and moments of a send are refused alike."""
    with open_shop() as lab:
        for name in ("command_id", "correlation_id"):
            with pytest.raises(InvalidMessage, match=name):
                lab.send(place("o-1"), **{name: text})
        for moment in BEYOND:
            with pytest.raises(InvalidMessage, match="occurred_at"):
                lab.send(place("o-1"), occurred_at=moment)
        with pytest.raises(InvalidMessage, match="order_id"):
            OrderDetails(order_id=text)
        assert lab.head == 0
        served = lab.serve(daily_orders)
        assert served.get(text) is None


def table(**columns: Any) -> pa.Table:
    """A table of one note."""
    times = pa.array([0], MICROS)
    return pa.table({"id": ["n"], "type": ["Noted"], "occurred_at": times, **columns})


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", ["n\0"]),
        ("type", ["Noted\0"]),
        ("correlation_id", ["s\0"]),
        ("text", ["\0"]),
        ("text", pa.array(["a\0"]).dictionary_encode()),
        ("text", pa.array(["a\0"], pa.large_string())),
        ("text", pa.array(["a\0"], pa.string_view())),
        ("parts", pa.array([[{"text": "a"}, {"text": "\0"}]])),
        *[(name, pa.array([far], MICROS)) for name in ("occurred_at", "recorded_at", "at") for far in FAR],
        *[("parts", pa.array([[{"at": far}]], pa.list_(pa.struct([("at", MICROS)])))) for far in FAR],
        *[("day", pa.array([far], pa.date32())) for far in (2_932_897, 2**31 - 1, -719_163)],
        *[("at", pa.array([2**60], pa.timestamp(unit, "UTC"))) for unit in ("s", "ms")],
        ("recorded_at", pa.array([datetime.now(UTC) + timedelta(days=3_700)], MICROS)),
    ],
)
def test_tables_refuse_what_could_not_be_read_again(lab: Lab, column: str, values: Any) -> None:
    """A table with one such value is refused whole, by the name of its column, and the next one is stored."""
    with pytest.raises(InvalidTable) as refused:
        lab.append_table("note", table(**{column: values}))
    assert refused.value.column == column
    assert lab.head == 0
    lab.append_table("note", table())
    assert len(lab.events().fetchall()) == 1


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("ratio", [float("nan")], "is a finite number"),
        ("ratio", [float("inf")], "is a finite number"),
        ("ratio", pa.array([float("-inf")], pa.float32()), "is a finite number"),
        ("reference", ["no UUID"], "is a UUID"),
        ("parts", [[{"name": "a", "colour": "red"}]], "has a part 'colour'"),
        ("parts", [[{"size": 1.0}]], "lacks the part 'name'"),
        ("parts", [[{"name": "a", "size": float("nan")}]], "is a finite number"),
        ("parts", [[{"name": "a", "size": 1.0}, None]], "has no item that breaks"),
        ("counts", [[1, None]], "has no empty item"),
    ],
)
def test_tables_refuse_what_no_message_could_say(column: str, values: Any, said: str) -> None:
    """Numbers that are none, ids that are none, parts too many or too few: refused by the name of the column."""
    with Lab(domain=Domain([things])) as lab:
        times = pa.array([0], MICROS)
        given = {"id": ["t"], "type": ["Everything"], "occurred_at": times, column: values}
        with pytest.raises(InvalidTable, match=said) as refused:
            lab.append_table("thing", pa.table(given))
        assert refused.value.column == column
        assert lab.head == 0


def test_the_ends_of_what_can_be_read_are_stored(lab: Lab) -> None:
    """The first and the last moment, and texts of every other character, come back as they were given."""
    ends = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    text = "".join(map(chr, range(1, 0xD800)))
    for number, end in enumerate(ends):
        lab.send(Note(note_id=f"n-{number}", at=end, day=end.date(), text=text))
    given = pa.array(ends, MICROS)
    days = pa.array([end.date() for end in ends])
    lab.append_table("note", pa.table({"id": ["a", "b"], "type": ["Noted"] * 2, "occurred_at": given, "at": given,
                                       "day": days, "text": [text, text]}))  # fmt: skip
    stored = [each.event for id in ("n-0", "n-1", "a", "b") for each in lab._log.read(NOTES.log_category, id)]
    assert [(e.at, e.day, e.text) for e in stored] == [(end, end.date(), text) for end in ends] * 2


def test_what_an_earlier_version_stored_is_read(lab: Lab) -> None:
    """A text with a NUL character that is in the log already comes back, to the write side and to every reader."""
    lab.send(Note(note_id="n"))
    lab._log.database.execute("UPDATE note_events SET text = 'a' || chr(0)")
    assert [each.event.text for each in lab._log.read(NOTES.log_category, "n")] == ["a\0"]
    assert lab.send(Note(note_id="n")).version == 2
    model = ReadModel("m", "note_id", "SELECT note_id, min(text) AS t, max(text) AS u FROM note_events GROUP BY ALL")
    assert {tuple(lab.serve(model, way).get("n").values()) for way in ("view", "projection")} == {("n", "", "a\0")}


def test_the_past_is_not_asked_for_what_is_beyond() -> None:
    """A moment outside the years 1 to 9999 in UTC is refused by its name."""
    with open_shop() as lab:
        for moment in BEYOND:
            for name in ("occurred", "recorded"):
                with pytest.raises(InvalidMoment, match=f"{name}.*years 1 to 9999"):
                    lab.as_of(**{name: moment})


@pytest.mark.parametrize(
    "command_id", ["k", "6f1c24f8-1a8b-4f6e-8d3f-1b5a0c9d7e21", "6F1C24F8-1A8B-4F6E-8D3F-1B5A0C9D7E21"]
)
@pytest.mark.parametrize("story", [None, "s", "6f1c24f8-1a8b-4f6e-8d3f-1b5a0c9d7e22"])
def test_the_receipt_of_a_repeated_command_equals_the_first(tmp_path: Any, command_id: str, story: str | None) -> None:
    """Whichever ids were given, and whatever came meanwhile, a command that comes again has its first receipt."""
    something, nothing = Note(note_id="n", text="a"), Note(note_id="n", text="nothing")
    path, domain = tmp_path / "notes.duckdb", Domain([NOTES])
    with Lab(path, domain=domain) as lab:
        nowhere = lab.send(nothing, command_id=f"{command_id}-0")
        lab.send(something)
        first = [
            lab.send(something, command_id=command_id, correlation_id=story),
            lab.send(nothing, command_id=f"{command_id}-1", correlation_id=story),
            *lab.send_many([something, nothing], command_ids=[f"{command_id}-{n}" for n in (2, 3)]),
        ]
        lab.send(something)
        lab.send(Note(note_id="other"))
    for again in (None, "another", story):
        with Lab(path, domain=domain) as lab:
            told = [
                lab.send(something, command_id=command_id, correlation_id=again),
                lab.send(nothing, command_id=f"{command_id}-1", correlation_id=again),
                *lab.send_many([something, nothing], command_ids=[f"{command_id}-{n}" for n in (2, 3)]),
            ]
            assert told == first
            assert [type(each.correlation_id) for each in told] == [type(each.correlation_id) for each in first]
            assert lab.send(nothing, command_id=f"{command_id}-0") == nowhere
            assert lab.head == 5
