"""Upcasts: SQL expressions over one old event, and the types of the columns that they read."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field
from support import append
from support.ages import decider, lab_of, stored

from cqrs_lab import Event, ReadModel, Value
from cqrs_lab.errors import DeclarationError, UnknownEventType
from cqrs_lab.messages import Upcasts


def versioned(version: int, upcasts: Upcasts, **fields: Any) -> type[Event]:
    """Return an event class Opened of a version."""
    kinds = {"account": str, **{name: kind for name, (kind, _) in fields.items()}}
    defaults = {name: default for name, (_, default) in fields.items()}
    body = {"schema_version": version, "upcasts": upcasts, "__annotations__": kinds, "__module__": __name__, **defaults}
    return type("Opened", (Event,), body)


@pytest.mark.parametrize(
    ("version", "upcasts"),
    [(2, {}), (3, {2: {}}), (3, {1: {}}), (1, {1: {}}), (2, {1: {}, 2: {}}), (2, {0: {}, 1: {}}), (2, {"1": {}})],
)
def test_every_version_has_its_upcast(version: int, upcasts: Any) -> None:
    """A class without an upcast from each version before it, or with one from another, is a DeclarationError."""
    with pytest.raises(DeclarationError, match=rf"Opened is at schema_version {version}.*upcasts from"):
        decider("account", "account", [versioned(version, upcasts)])


@pytest.mark.parametrize(
    "expression",
    [
        "now()", "current_date", "random()", "gen_random_uuid()", "nextval('s')", "(SELECT 1)",
        "(SELECT max(total) FROM order_events)", "EXISTS (SELECT 1)", "note IN (SELECT 'a')", "note, 'a'",
        "note), (note", "note) AS a, (note", "note) UNION ALL SELECT (note", "note) ORDER BY (note",
        "note) FROM streams WHERE (true", "(note", "note)", "note;", "note) -- the end", "/* no end", "",
        "-- nothing", "note AS a", "*", "COLUMNS('n.*')", "no_such_function(note)", "max(note)", "count(*)",
        "row_number() OVER (ORDER BY position)", "lag(note) OVER (ORDER BY position)", "max(note) OVER ()",
        "unnest([note])", "$1", "?", "getenv('HOME')", "read_text('/etc/hostname')",
    ],
)  # fmt: skip
def test_an_upcast_is_a_function_of_one_event(expression: str) -> None:
    """What is not one SQL expression over the event's own columns is refused where it is declared, with its field."""
    with pytest.raises(DeclarationError, match=r"Opened\.note from version 1"):
        decider("account", "account", [versioned(2, {1: {"note": expression}}, note=(str | None, None))])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'x' -- the end", "x"),
        ("/* why */ upper(old) /* and how */", "ANN"),
        ("CASE WHEN old = 'ann' THEN 'yes' ELSE 'no' END", "yes"),
        ("old || ')' || '('", "ann)("),
        ("list_sum([x + 1 for x in [1, 2]])::VARCHAR", "5"),
        ("NULL", None),
        ("type || ' ' || version", "Opened 1"),
        ("42", "42"),
    ],
)
def test_an_upcast_may_be_any_expression(tmp_path: Path, expression: str, expected: str | None) -> None:
    """Comments, CASE, strings with parentheses and the envelope's columns do in an upcast; its type is the field's."""
    path = tmp_path / "accounts.duckdb"
    with lab_of(path, "account", "account", versioned(1, {}, old=(str | None, None))) as lab:
        append(lab, [(lab._categories["account"].types["Opened"](account="a", old="ann"), 0)])
    newer = versioned(2, {1: {"note": expression}}, note=(str | None, None))
    model = ReadModel("notes", "account", "SELECT account, max(note) AS note FROM account_events GROUP BY account")
    with lab_of(path, "account", "account", newer, read_models=[model]) as lab:
        assert stored(lab, "account", "a") == [newer(account="a", note=expected)]
        for way in ("view", "materialized", "projection"):
            assert lab.serve(model, way).rows().fetchall() == [("a", expected)]
        assert lab.as_of(position=1).get(model, "a")["note"] == expected


class Note:
    """The versions of a learner's event."""

    class Noted1(Event):
        """A note was taken."""

        note_id: str
        text: str
        words: int

    class Noted2(Event):
        """A note was taken."""

        schema_version: ClassVar[int] = 2
        upcasts: ClassVar[Upcasts] = {1: {"title": "text", "letters": "length(text)", "urgent": "text LIKE '%!'"}}

        note_id: str
        title: str
        letters: int
        urgent: bool
        words: int

    class Noted3(Event):
        """A note was taken."""

        schema_version: ClassVar[int] = 3
        upcasts: ClassVar[Upcasts] = {
            1: {"title": "text", "letters": "length(text)", "urgent": "text LIKE '%!'"},
            2: {"head": "split_part(title, ' ', 1)", "rest": "title[length(split_part(title, ' ', 1)) + 2:]"},
        }

        note_id: str
        head: str
        rest: str
        letters: int
        urgent: bool = False
        words: int


for _kind in (Note.Noted1, Note.Noted2, Note.Noted3):
    _kind.__name__ = "Noted"


LOUD = ReadModel(
    "loud",
    "urgent",
    "SELECT urgent, count(*) AS n, sum(letters) AS letters, sum(words) AS words FROM note_events GROUP BY urgent",
)


def test_a_field_is_renamed_split_and_added(tmp_path: Path) -> None:
    """In a domain of one's own, a version adds fields and renames one, the next splits it: streams and models agree."""
    path = tmp_path / "notes.duckdb"
    with lab_of(path, "note", "note_id", Note.Noted1) as lab:
        append(lab, [(Note.Noted1(note_id="n", text="buy more milk!", words=3), 0)])
    with lab_of(path, "note", "note_id", Note.Noted2, read_models=[LOUD]) as lab:
        served = lab.serve(LOUD)
        first = Note.Noted2(note_id="n", title="buy more milk!", letters=14, urgent=True, words=3)
        second = Note.Noted2(note_id="n", title="sleep", letters=5, urgent=False, words=1)
        assert stored(lab, "note", "n") == [first]
        append(lab, [(second, 1)])
        served.catch_up()
        assert served.rows().fetchall() == [(False, 1, 5, 1), (True, 1, 14, 3)]
    with lab_of(path, "note", "note_id", Note.Noted3, read_models=[LOUD]) as lab:
        third = Note.Noted3(note_id="n", head="a", rest="b", letters=3, urgent=True, words=2)
        append(lab, [(third, 2)])
        assert stored(lab, "note", "n") == [
            Note.Noted3(note_id="n", head="buy", rest="more milk!", letters=14, urgent=True, words=3),
            Note.Noted3(note_id="n", head="sleep", rest="", letters=5, urgent=False, words=1),
            third,
        ]
        served = lab.serve(LOUD)
        if served.state != "ok":
            served.rebuild()
        served.catch_up()
        assert served.rows().fetchall() == [(False, 1, 5, 1), (True, 2, 17, 5)]
        assert lab.as_of(position=2).rows(LOUD).fetchall() == [(False, 1, 5, 1), (True, 1, 14, 3)]


def test_fields_may_change_places(tmp_path: Path) -> None:
    """The expressions of one upcast all read the columns as they were, so that two fields can be swapped."""
    path = tmp_path / "accounts.duckdb"
    fields = {"a": (int, 0), "b": (int, 0)}
    old, new = versioned(1, {}, **fields), versioned(2, {1: {"a": "b", "b": "a"}}, **fields)
    with lab_of(path, "account", "account", old) as lab:
        append(lab, [(old(account="x", a=1, b=2), 0)])
    with lab_of(path, "account", "account", new) as lab:
        append(lab, [(new(account="x", a=1, b=2), 0)])
        assert stored(lab, "account", "x") == [new(account="x", a=2, b=1), new(account="x", a=1, b=2)]


def test_one_event_is_lifted_and_another_keeps_its_column(tmp_path: Path) -> None:
    """An upcast touches the events of its own type and version; others that have the field keep what they say."""
    path = tmp_path / "accounts.duckdb"

    class Closed(Event):
        account: str
        note: str | None = None

    old, new = versioned(1, {}, note=(str | None, None)), versioned(2, {1: {"note": "'lifted'"}}, note=(str, "new"))
    with lab_of(path, "account", "account", old, Closed) as lab:
        append(lab, [(old(account="x", note="mine"), 0), (Closed(account="x", note="mine"), 0)])
    with lab_of(path, "account", "account", new, Closed) as lab:
        append(lab, [(new(account="x"), 0)])
        expected = [new(account="x", note="lifted"), Closed(account="x", note="mine"), new(account="x", note="new")]
        assert stored(lab, "account", "x") == expected


class Size(Value):
    width: Annotated[Decimal, Field(max_digits=9, decimal_places=3)]
    mark: str | None = None


def test_a_column_of_an_old_version_keeps_its_type(tmp_path: Path) -> None:
    """A DECIMAL and a STRUCT that only an old version has are read as they were stored, and cannot be declared anew."""
    path = tmp_path / "accounts.duckdb"
    price = Annotated[Decimal, Field(max_digits=12, decimal_places=4)]
    old = versioned(1, {}, price=(price | None, None), size=(Size | None, None))
    upcast = {"cents": "(price * 100)::BIGINT", "exact": "price::VARCHAR", "width": "size.width", "mark": "size.mark"}
    new = versioned(
        2,
        {1: upcast},
        cents=(int | None, None),
        exact=(str | None, None),
        width=(Annotated[Decimal, Field(max_digits=9, decimal_places=3)] | None, None),
        mark=(str | None, None),
    )
    with lab_of(path, "account", "account", old) as lab:
        size = Size(width=Decimal("1.125"), mark="m")
        append(lab, [(old(account="x", price=Decimal("12345678.1234"), size=size), 0)])
    with lab_of(path, "account", "account", new) as lab:
        append(lab, [(new(account="x", cents=5), 0)])
        lifted = new(account="x", cents=1234567812, exact="12345678.1234", width=Decimal("1.125"), mark="m")
        assert stored(lab, "account", "x") == [lifted, new(account="x", cents=5)]
        kinds = dict(row[:2] for row in lab._log.database.execute(f"DESCRIBE {lab._log.source('account_events')}"))
        assert kinds["price"] == "DECIMAL(12,4)"
        assert kinds["size"] == "STRUCT(width DECIMAL(9,3), mark VARCHAR)"
    retyped = versioned(3, {1: upcast, 2: {}}, price=(str | None, None))
    with pytest.raises(DeclarationError, match=r"account_events.*price is stored as DECIMAL\(12,4\)"):
        lab_of(path, "account", "account", retyped)


def test_an_upcast_into_a_column_of_an_old_version_is_cast_to_it(tmp_path: Path) -> None:
    """What version 1 gives for a column that only version 2 has is of that column's type, exact to the last digit."""
    path = tmp_path / "accounts.duckdb"
    price = Annotated[Decimal, Field(max_digits=12, decimal_places=4)]
    up1, up2 = {"price": "cents::DECIMAL(18, 4) / 100"}, {"text": "price::VARCHAR"}
    one = versioned(1, {}, cents=(int, 0))
    two = versioned(2, {1: up1}, price=(price, Decimal(0)))
    three = versioned(3, {1: up1, 2: up2}, text=(str, ""))
    for kind, event in ((one, one(account="x", cents=12345)), (two, two(account="x", price=Decimal("0.5")))):
        with lab_of(path, "account", "account", kind) as lab:
            append(lab, [(event, 0)])
    with lab_of(path, "account", "account", three) as lab:
        assert stored(lab, "account", "x") == [three(account="x", text="123.4500"), three(account="x", text="0.5000")]


def test_a_stored_event_that_its_class_refuses_after_the_upcast_is_named(tmp_path: Path) -> None:
    """An event whose lifted fields break the rules of its class is UnknownEventType with the field at fault."""
    path = tmp_path / "accounts.duckdb"
    old = versioned(1, {}, a=(int, 0))
    new = versioned(2, {1: {"b": "-a"}}, b=(Annotated[int, Field(ge=0)], 0))
    with lab_of(path, "account", "account", old) as lab:
        append(lab, [(old(account="x", a=1), 0)])
    with lab_of(path, "account", "account", new) as lab, pytest.raises(UnknownEventType, match=r"Opened.*b: "):
        stored(lab, "account", "x")
