"""Which fields can be personal, and how a domain grows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from pydantic import Field
from support import append
from support.people import NAME

from cqrs_lab import Decider, Domain, Event, Lab, ReadModel, Value, open_shop
from cqrs_lab.errors import DeclarationError
from cqrs_lab.messages import Personal, Upcasts


class Known(Event):
    person: str
    name: Personal[str] = None
    born: Personal[Annotated[int, Field(ge=1800)]] = None
    city: str | None = None


class Met(Event):
    person: str
    name: str | None = None


class Keyed(Event):
    person: Personal[str] = None


class Inner(Value):
    name: Personal[str] = None


class Nested(Event):
    person: str
    who: Inner | None = None


class Listed(Event):
    person: str
    names: list[Personal[str]] = []


def domain(*events: type[Event], category: str = "person", models: Sequence[ReadModel] = ()) -> Domain:
    """Return a domain of these events."""
    return Domain(
        deciders=[Decider(category, "person", (), lambda c, s: [], lambda s, e: (*s, e), [], events)],
        read_models=models,
    )


@pytest.mark.parametrize(
    "events",
    [(Known, Met), (Met, Known), (Keyed,), (Nested,), (Listed,)],
    ids=["personal in the first", "in the second", "the key", "inside a value", "inside a list"],
)
def test_a_field_that_cannot_be_personal_is_refused(events: tuple[type[Event], ...]) -> None:
    """A field personal in one event only, a personal key, and one inside a value or a list are DeclarationErrors."""
    with pytest.raises(DeclarationError, match="personal"):
        domain(*events)


def test_a_stored_field_does_not_become_personal(tmp_path: Path) -> None:
    """A field that is in the log, or beside it, cannot be declared otherwise; the error says to take a new name."""
    path = tmp_path / "people.duckdb"

    class Seen(Event):
        person: str
        name: Personal[str] = None

    for first, then, says in ((Met, Seen, "in the log.*personal"), (Seen, Met, "beside the log.*not personal")):
        path.unlink(missing_ok=True)
        with Lab(path, domain=domain(first)) as lab:
            append(lab, [first(person="p", name="n")])
        with pytest.raises(DeclarationError, match=rf"person\.name is stored {says}.*new name"):
            Lab(path, domain=domain(then))
        with Lab(path, domain=domain(first)) as lab:
            assert '"name":"n"' in lab.events().dicts()[0]["data"]


def test_a_domain_grows_personal_fields(tmp_path: Path) -> None:
    """Personal fields may be added to a category that had none, or had others, and are forgotten with them."""
    path = tmp_path / "people.duckdb"

    class Seen(Event):
        person: str

    class Named(Event):
        person: str
        name: Personal[str] = None

    with Lab(path, domain=domain(Seen)) as lab:
        append(lab, [Seen(person="p")])
    for events in ((Seen, Named), (Seen, Named, Known)):
        with Lab(path, domain=domain(*events)) as lab:
            append(lab, [events[-1](person="p", name=NAME)])
    with Lab(path, domain=domain(Seen, Named, Known)) as lab:
        append(lab, [Known(person="p", born=1815, city="London")])
        assert lab.forget("p") == 3
        assert [row["data"] for row in lab.events().dicts()] == ['{"person":"p"}'] * 3 + [
            '{"person":"p","city":"London"}'
        ]


def test_forget_says_which_category_it_needs() -> None:
    """Without personal fields, with a category that has none, or with several, forget says so and erases nothing."""
    with Lab(domain=domain(Met)) as lab, pytest.raises(DeclarationError, match=r"personal.*none"):
        lab.forget("p")
    with open_shop() as lab:
        for category in ("order", "nothing"):
            with pytest.raises(DeclarationError, match="customer"):
                lab.forget("c-1", category)
    both = Domain(deciders=[*domain(Known).deciders, *domain(Known, category="pupil").deciders])
    with Lab(domain=both) as lab:
        for category in ("person", "pupil"):
            append(lab, [Known(person="p", name=NAME)], category=category)
        with pytest.raises(DeclarationError, match="person, pupil"):
            lab.forget("p")
        assert lab.forget("p", "pupil") == 1
        assert [NAME in row["data"] for row in lab.events().dicts()] == [True, False]


def test_a_lifted_personal_field_is_forgotten(tmp_path: Path) -> None:
    """What an upcast makes of personal fields, personal or not, is gone with them."""
    path = tmp_path / "people.duckdb"

    class Named(Event):
        schema_version: ClassVar[int] = 2
        upcasts: ClassVar[Upcasts] = {1: {"first": "split_part(name, ' ', 1)", "initial": "name[1]"}}

        person: str
        first: Personal[str] = None
        initial: str | None = None

    old = type("Named", (Event,), {"__annotations__": {"person": str, "name": Personal[str]}, "name": None})
    with Lab(path, domain=domain(old)) as lab:
        append(lab, [old(person="p", name="Ada Byron")])
    model = ReadModel("initials", "person", "SELECT person, max(initial) AS i FROM person_events GROUP BY person")
    with Lab(path, domain=domain(Named, models=[model])) as lab:
        served = lab.serve(model)
        assert served.rows().fetchall() == [("p", "A")]
        assert lab._log.read(lab._categories["person"], "p")[0].event == Named(person="p", first="Ada", initial="A")
        assert lab.forget("p") == 1
        assert served.rows().fetchall() == [("p", None)]
        assert lab._log.read(lab._categories["person"], "p")[0].event == Named(person="p")
