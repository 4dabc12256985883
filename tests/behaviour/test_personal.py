"""Personal data: kept beside the log, erased by forget from all that was made of them, and left out of a backup."""

from __future__ import annotations

import random
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from support import START, Child, append, place

from cqrs_lab import Decider, Domain, Event, Lab, ReadModel, Value, doctor, open_shop, wal
from cqrs_lab.database import Database
from cqrs_lab.errors import (
    ConcurrencyError,
    CqrsLabError,
    DeclarationError,
    ReadOnlyStore,
    RebuildNeeded,
    StoreError,
    StoreMissing,
)
from cqrs_lab.messages import Personal, Upcasts
from cqrs_lab.shop import (
    ChangeCustomerEmail,
    CustomerEmailChanged,
    CustomerRegistered,
    CustomerRenamed,
    RegisterCustomer,
    RenameCustomer,
    customers,
    order_facts,
    order_summary,
)
from cqrs_lab.write.event_store import EventStore

EMAIL = "ada.lovelace.1815@difference-engine.analytical.example.org"
LATER = "augusta.king.1852@notes-upon-the-memoir.example.org"
NAME = "Augusta Ada King, Countess of Lovelace"
SECRETS = (EMAIL, LATER, NAME, "Ada Byron of Marylebone")
OTHER = "charles.babbage.1791@great-calculating-engine.example.org"
WAYS = ("view", "materialized", "projection")

PEOPLE = ReadModel(
    "people",
    "customer_id",
    """SELECT customer_id, arg_max(name, position) AS name, arg_max(email, position) AS email, count(*) AS events
       FROM customer_events GROUP BY customer_id""",
)
BY_EMAIL = ReadModel(
    "by_email", "email", "SELECT email, count(*) AS n FROM people WHERE email IS NOT NULL GROUP BY email"
)
WITH_ORDERS = ReadModel(
    "with_orders",
    "order_id",
    """SELECT o.order_id, max(o.status) AS status, max(p.email) AS email
       FROM order_summary AS o LEFT JOIN people AS p USING (customer_id) GROUP BY o.order_id""",
)
MODELS = (PEOPLE, BY_EMAIL, WITH_ORDERS)
SNAPPING = replace(customers, snapshot_every=1)


def people(path: Any = ":memory:", **more: Any) -> Lab:
    """Open the shop's customers and orders with read models of personal data, and snapshots of the customers."""
    from cqrs_lab.shop import orders

    domain = Domain(deciders=[SNAPPING, orders], read_models=[order_summary, *MODELS])
    return Lab(path, domain=domain, threads=1, **more)


def fill(lab: Lab) -> None:
    """Two customers with an order; the first one changes everything about herself."""
    lab.send(RegisterCustomer(customer_id="c-1", name="Ada Byron of Marylebone", email=EMAIL), command_id="k-1")
    lab.send(RegisterCustomer(customer_id="c-2", name="Charles", email=OTHER), command_id="k-2")
    lab.send(place("o-1"))
    for model in MODELS:
        for way in WAYS:
            lab.serve(model, way)
    lab.send(RenameCustomer(customer_id="c-1", name=NAME))
    lab.send(ChangeCustomerEmail(customer_id="c-1", email=LATER))
    lab.send(RenameCustomer(customer_id="c-2", name="Charles Babbage"))
    lab.catch_up()


@pytest.fixture(params=["file", "memory"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A lab with two customers, on disk and in memory."""
    with people(tmp_path / "shop.duckdb" if request.param == "file" else ":memory:") as made:
        fill(made)
        yield made


def told(lab: Lab) -> dict[str, str]:
    """Return everything that a lab says of customers: place -> what is shown there."""
    customer = lab._categories["customer"]
    said = {"events": "\n".join(row["data"] for row in lab.events().dicts())}
    for id in ("c-1", "c-2"):
        events = [recorded.event for recorded in lab._log.read(customer, id)]
        said[f"stream {id}"] = f"{events} {customers.fold(events)}"
    for model in MODELS:
        for way in WAYS:
            try:
                said[f"{model.name} as {way}"] = repr(lab.serve(model, way).rows().fetchall())
            except RebuildNeeded:
                said[f"{model.name} as {way}"] = "rebuild needed"
        for position in range(lab.head + 1):
            rows = lab.as_of(position=position).rows(model).fetchall()
            said[f"{model.name} as of {position}"] = repr(rows)
    question = "SELECT * FROM customer_events ORDER BY position"
    for position in range(lab.head + 1):
        said[f"the past of {position}"] = repr(lab.as_of(position=position).sql(question).fetchall())
    said["a question"] = repr(lab.serve(PEOPLE, "view").sql("SELECT * FROM people JOIN by_email USING (email)").dicts())
    return said


def shown(lab: Lab, *texts: str) -> list[str]:
    """Return the places in which one of the texts is shown."""
    return [where for where, said in told(lab).items() if any(text in said for text in texts)]


def columns(lab: Lab, table: str) -> list[str]:
    """Return the columns of a stored table."""
    return [row[0] for row in lab._log.database.execute(f"DESCRIBE {table}")]


def holds(path: Path, text: str) -> bool:
    """Return whether the bytes of a file, or of a log beside it, hold a text."""
    files = [path, *wal.logs_of(path)]
    return any(text.encode() in file.read_bytes() for file in files if file.exists())


# -- where they are ----------------------------------------------------------------------------------------------------


def test_personal_fields_stand_beside_the_log(lab: Lab) -> None:
    """The log's own table has no column for them, and still everything that reads events shows them."""
    assert not {"name", "email"} & set(columns(lab, "customer_events"))
    assert columns(lab, "customer_personal") == ["position", "email", "name"]
    assert {"events", "stream c-1", "people as of 1", "the past of 1"} <= set(shown(lab, EMAIL))
    current = {f"{model.name} as {way}" for model in MODELS for way in ("view", "projection")}
    assert current <= set(shown(lab, LATER))
    assert lab.serve(PEOPLE).get("c-1") == {"customer_id": "c-1", "name": NAME, "email": LATER, "events": 3}


def test_forget_erases_them_everywhere(lab: Lab) -> None:
    """After forget no stream, event, serving, layer, question or moment of the past shows them."""
    assert lab.forget("c-1") == 3
    assert shown(lab, *SECRETS) == []
    for way in WAYS:
        served = lab.serve(PEOPLE, way)
        assert served.get("c-1") == {"customer_id": "c-1", "name": None, "email": None, "events": 3}
        assert len(served.where(email=LATER)) == len(served.where(email=EMAIL)) == 0
        assert lab.serve(BY_EMAIL, way).get(LATER) is None
    for position in range(lab.head + 1):
        assert len(lab.as_of(position=position).where(PEOPLE, email=EMAIL)) == 0
    assert lab._log.database.execute("SELECT * FROM customer_personal WHERE position IN (1, 4, 5)") == []


def test_forget_leaves_the_rest(lab: Lab) -> None:
    """Positions, versions, times and ids of all events stay, and so does all that is known of other customers."""
    before = lab.events().pl()
    others = {where: said for where, said in told(lab).items() if "c-2" in where}
    lab.forget("c-1")
    after = lab.events().pl()
    assert after.drop("data").equals(before.drop("data"))
    hers = pl.col("stream") == "customer/c-1"
    assert after.filter(~hers).equals(before.filter(~hers))
    assert set(after.filter(hers)["data"]) == {'{"customer_id":"c-1"}'}
    assert {where: said for where, said in told(lab).items() if "c-2" in where} == others
    assert lab.serve(PEOPLE).get("c-2") == {
        "customer_id": "c-2", "name": "Charles Babbage", "email": OTHER, "events": 2
    }  # fmt: skip
    assert lab.head == 6
    assert lab.send(place("o-2")).position == 7


def test_forgotten_is_forgotten(lab: Lab) -> None:
    """A second time there is nothing to forget, nor for an id that nobody has; other customers stay as they are."""
    assert lab.forget("c-1") == 3
    before = told(lab)
    assert lab.forget("c-1") == lab.forget("nobody") == lab.forget("c-1'; DROP TABLE streams; --") == 0
    assert told(lab) == before
    assert shown(lab, OTHER)


def test_a_forgotten_customer_may_come_back(lab: Lab) -> None:
    """Commands about a forgotten customer go on, from a state without personal data; what they add is forgotten next.

    The event that sets the erased address again is an event, because the rules no longer know that it is the same.
    """
    lab.forget("c-1")
    receipt = lab.send(ChangeCustomerEmail(customer_id="c-1", email=LATER))
    assert (receipt.version, len(receipt.events)) == (4, 1)
    lab.catch_up()
    assert lab.serve(PEOPLE).get("c-1")["email"] == LATER
    assert lab.forget("c-1") == 1
    assert shown(lab, *SECRETS) == []


def test_snapshots_are_forgotten(lab: Lab) -> None:
    """The snapshots of the stream are gone, those of other streams are not, and the next state is folded anew."""
    snapshots = "SELECT stream FROM snapshots JOIN streams USING (stream_no) ORDER BY 1"
    assert lab._log.database.execute(snapshots) == [("customer/c-1",), ("customer/c-2",)]
    lab.forget("c-1")
    assert lab._log.database.execute(snapshots) == [("customer/c-2",)]
    lab.send(RenameCustomer(customer_id="c-1", name="N"))
    assert not any(text in repr(lab._log.database.execute("SELECT * FROM snapshots")) for text in SECRETS)


def test_what_a_command_said_is_forgotten(lab: Lab) -> None:
    """The digests of her commands are gone; a command sent again gives its first receipt, without her data."""
    first = RegisterCustomer(customer_id="c-1", name="Ada Byron of Marylebone", email=EMAIL)
    lab.forget("c-1")
    digests = dict(lab._log.database.execute("SELECT command_id, digest FROM commands"))
    assert digests["k-1"] == ""
    assert digests["k-2"] != ""
    receipt = lab.send(first, command_id="k-1")
    assert (receipt.position, receipt.version, receipt.stream) == (1, 1, "customer/c-1")
    assert receipt.events == (CustomerRegistered(customer_id="c-1"),)
    assert lab.head == 6


def test_reopened_it_stays_forgotten(tmp_path: Path) -> None:
    """A store closed and opened again after forget shows nothing, and every serving is usable."""
    path = tmp_path / "shop.duckdb"
    with people(path) as lab:
        fill(lab)
        lab.forget("c-1")
        before = told(lab)
    with people(path) as lab:
        assert shown(lab, *SECRETS) == []
        assert told(lab) == before
        assert "rebuild needed" not in before.values()
        assert set(lab.lag().pl()["state"]) == {"ok"}


def test_a_lab_beside_shows_nothing_either(tmp_path: Path) -> None:
    """Another lab over the same store, with servings it holds on to, shows nothing after the first one forgot."""
    path = tmp_path / "shop.duckdb"
    with people(path) as lab, people(path) as beside:
        fill(lab)
        held = [beside.serve(model, way) for model in MODELS for way in WAYS]
        beside.send(ChangeCustomerEmail(customer_id="c-1", email=EMAIL))
        lab.forget("c-1")
        assert shown(beside, *SECRETS) == []
        assert not any(text in repr(served.rows().fetchall()) for served in held for text in SECRETS)


def test_servings_that_nobody_declares_now_are_erased_too(tmp_path: Path) -> None:
    """A serving stored by an earlier session, whose read model is not declared today, is erased, too."""
    path, copy = tmp_path / "shop.duckdb", tmp_path / "copy.duckdb"
    with people(path) as lab:
        fill(lab)
    with open_shop(path) as lab:
        assert lab.forget("c-1") == 3
        lab.backup(copy)
    with people(path) as lab:
        assert shown(lab, *SECRETS) == []
    assert not any(holds(copy, text) for text in SECRETS)


def test_only_servings_of_the_category_are_made_anew(lab: Lab) -> None:
    """A serving that reads nothing personal keeps its rows and its position."""
    kept = lab.serve(order_facts, "materialized")
    lab.send(place("o-2"))
    lab.forget("c-1")
    assert kept.position == 6
    assert kept.state == "ok"


# -- what is refused ---------------------------------------------------------------------------------------------------


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


def test_forget_needs_a_store_that_can_be_written(tmp_path: Path) -> None:
    """A read-only lab refuses to forget, and still shows what it showed."""
    path = tmp_path / "shop.duckdb"
    with people(path) as lab:
        fill(lab)
    with people(path, read_only=True) as lab:
        with pytest.raises(ReadOnlyStore):
            lab.forget("c-1")
        assert "people as projection" in shown(lab, LATER)


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


# -- tables ------------------------------------------------------------------------------------------------------------

names = st.sampled_from(["Ada", "Bob", "Ann; DROP", "Ö"]) | st.none()
who = st.sampled_from(["c-1", "c-2", "c-3"])
facts = st.one_of(
    st.builds(CustomerRegistered, customer_id=who, name=names, email=names, city=names),
    st.builds(CustomerRenamed, customer_id=who, name=names),
    st.builds(CustomerEmailChanged, customer_id=who, email=names),
)
FIELDS = ("customer_id", "name", "email", "city", "state")


@given(history=st.lists(facts, max_size=12), forgotten=who)
@settings(max_examples=12, deadline=None)
def test_a_table_is_the_same_as_its_rows_one_by_one(history: list[Event], forgotten: str) -> None:
    """Events with personal fields appended as a table or singly are equal, before and after one is forgotten."""
    rows = [
        {"id": event.customer_id, "type": type(event).__name__, "occurred_at": START + timedelta(minutes=n)}
        | {name: getattr(event, name, None) for name in FIELDS}
        for n, event in enumerate(history)
    ]
    kinds = dict.fromkeys(["id", "type", *FIELDS], pl.String) | {"occurred_at": pl.Datetime("us", "UTC")}
    with people() as single, people() as as_set:
        for n, event in enumerate(history):
            append(single, [(event, n)])
        as_set.append_table("customer", pl.DataFrame(rows, schema=kinds))
        for _ in range(2):
            said = [
                (
                    lab.events().pl().select("position", "stream", "version", "type", "occurred_at", "data").rows(),
                    [[r.event for r in lab._log.read(customers.log_category, f"c-{n}")] for n in (1, 2, 3)],
                    [lab.serve(model, way).rows().fetchall() for model in MODELS for way in WAYS],
                )
                for lab in (single, as_set)
            ]
            assert said[0] == said[1]
            assert single.forget(forgotten) == as_set.forget(forgotten)


# -- crashes -----------------------------------------------------------------------------------------------------------

CHILD = """
import cqrs_lab
from cqrs_lab import ReadModel
people = {people!r}
lab = open_shop({path!r}, threads=1)
for name, key, sql in people:
    model = ReadModel(name, key, sql)
    for way in ("view", "materialized", "projection"):
        lab.serve(model, way)
"""
COUNT = 40


def crowd(path: Path) -> str:
    """Make a store of customers, and return what a child runs to open it with its servings."""
    frame = pl.DataFrame(
        {
            "id": [f"c-{n}" for n in range(COUNT)],
            "type": ["CustomerRegistered"] * COUNT,
            "occurred_at": [START] * COUNT,
            "email": [f"{n}-{EMAIL}" for n in range(COUNT)],
        }
    )
    with people(path) as lab:
        lab.append_table("customer", frame)
        for model in MODELS:
            for way in WAYS:
                lab.serve(model, way)
    return CHILD.format(path=str(path), people=[(m.name, m.key, m.sql) for m in MODELS])


def check_forgotten(path: Path) -> list[int]:
    """Assert that nothing shows what the log has no more; return the customers that were forgotten."""
    with people(path) as lab:
        data = [row["data"] for row in lab.events().dicts()]
        gone = [n for n in range(COUNT) if f"{n}-{EMAIL}" not in data[n]]
        assert len(data) == COUNT
        for model in MODELS[:2]:
            for way in WAYS:
                served = lab.serve(model, way)
                if served.state != "ok":
                    with pytest.raises(RebuildNeeded):
                        served.rows()
                    with pytest.raises(RebuildNeeded):
                        served.get(f"{gone[-1]}-{EMAIL}")
                    served.rebuild()
                rows = repr(served.rows().fetchall())
                assert [n for n in range(COUNT) if f"'{n}-{EMAIL}'" not in rows] == gone
    assert not [finding for finding in doctor.scan(path) if finding.status == "FAIL"]
    return gone


@pytest.mark.parametrize(
    ("part", "when", "gone"),
    [
        ("DELETE FROM", "after", []),
        ("COMMIT", "before", []),
        ("COMMIT", "after", [7]),
        ("CREATE TABLE", "before", []),
        ("DROP TABLE", "after", []),
        ("FORCE CHECKPOINT", "before", [7]),
        ("FORCE CHECKPOINT", "after", [7]),
    ],
)
def test_killed_at_a_named_point(tmp_path: Path, part: str, when: str, gone: list[int]) -> None:
    """A process killed while it forgets has erased all or nothing, and no serving shows what the log has no more."""
    path = tmp_path / "shop.duckdb"
    child = Child()
    child.tell(f"{crowd(path)}\ndie_at({part!r}, {when!r}); lab.forget('c-7')")
    assert child.wait() == -signal.SIGKILL
    assert check_forgotten(path) == gone


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    """Whenever a process is killed, what it said to have forgotten is forgotten, and nothing else than the next one."""
    path, moments = tmp_path / "shop.duckdb", random.Random(seed)
    child = Child()
    loop = f"say('open')\nfor n in range({COUNT}):\n    lab.forget(f'c-{{n}}')\n    say(n)\ntime.sleep(60)"
    child.tell(f"{crowd(path)}\n{loop}")
    assert child.line() == "open"
    killer = threading.Timer(moments.uniform(0.05, 1.5), child.process.kill)
    killer.start()
    lines = []
    while line := child.line():
        lines.append(line)
    killer.join()
    assert child.wait() == -signal.SIGKILL
    gone = check_forgotten(path)
    assert gone == list(range(len(gone)))
    assert len(lines) - 1 <= len(gone) <= len(lines) + 1


# -- beside others -----------------------------------------------------------------------------------------------------


def test_others_go_on_while_she_is_forgotten(tmp_path: Path) -> None:
    """Threads that append, catch up, refresh and serve anew hinder no forget, and leave nothing that shows her."""
    path, stop, failed = tmp_path / "shop.duckdb", threading.Event(), []
    crowd(path)
    with people(path) as lab:

        def work(number: int) -> None:
            try:
                for step in range(20 if number == 3 else 10_000):
                    if stop.wait(0.005):
                        return
                    if number == 0:
                        lab.send(place(f"w-{step}"))
                    elif number == 1:
                        lab.catch_up()
                    elif number == 2:
                        lab.serve(PEOPLE, "materialized").refresh()
                    else:
                        lab.serve(replace(PEOPLE, name=f"people_{step}"), ("projection", "materialized")[step % 2])
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            for n in range(8):
                assert lab.forget(f"c-{n}") == 1
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failed == []
        assert len(lab._servings.served()) > 2 * len(MODELS)
        for served in lab._servings.served():
            if served.state == "ok" and "email" in served._columns:
                assert not any(f"'{n}-{EMAIL}'" in repr(served.rows().fetchall()) for n in range(8)), served


def test_a_serving_made_meanwhile_shows_nothing_of_her(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read model that another thread begins to serve just before she is erased does not keep her."""
    forget, late = EventStore.forget, replace(PEOPLE, name="late")
    threads: list[threading.Thread] = []
    with people(tmp_path / "shop.duckdb") as lab:
        fill(lab)

        def beside(self: EventStore, *rest: Any) -> int:
            thread = threading.Thread(target=lambda: [lab.serve(late, way) for way in WAYS])
            thread.start()
            thread.join(1)  # it may have to wait until she is forgotten
            threads.append(thread)
            return forget(self, *rest)

        monkeypatch.setattr(EventStore, "forget", beside)
        assert lab.forget("c-1") == 3
        threads.pop().join()
        for way in WAYS:
            try:
                assert lab.serve(late, way).get("c-1")["email"] is None
            except RebuildNeeded:
                continue


def test_a_command_on_its_way_keeps_nothing_of_her(tmp_path: Path) -> None:
    """A command that had loaded her before she was forgotten stores no snapshot with her data afterwards."""
    threads: list[threading.Thread] = []

    def decide(command: Any, customer: Any) -> Sequence[Event]:
        for thread in threads:
            if not thread.ident:
                thread.start()
                thread.join(0.5)  # it may have to wait until the command is carried out
        return customers.decide(command, customer)

    with Lab(domain=Domain(deciders=[replace(SNAPPING, decide=decide)])) as lab:
        lab.send(RegisterCustomer(customer_id="c-1", name=NAME, email=EMAIL))
        threads.append(threading.Thread(target=lambda: lab.forget("c-1")))
        lab.send(RenameCustomer(customer_id="c-1", name="N"))
        threads[0].join()
        assert EMAIL not in repr(lab._log.database.execute("SELECT * FROM snapshots"))
        lab.send(RenameCustomer(customer_id="c-1", name="O"))
        assert EMAIL not in repr(lab._log.database.execute("SELECT * FROM snapshots"))


# -- backup ------------------------------------------------------------------------------------------------------------


def test_the_bytes_are_gone(tmp_path: Path) -> None:
    """After forget neither a backup nor the log beside the store holds the bytes of her address; his are there."""
    path, before, after = (tmp_path / f"{name}.duckdb" for name in ("shop", "before", "after"))
    with people(path) as lab:
        fill(lab)
        lab.backup(before)
        assert all(holds(before, text) for text in (EMAIL, LATER, OTHER))
        assert any(EMAIL.encode() in log.read_bytes() for log in wal.logs_of(path) if log.exists())
        lab.forget("c-1")
        assert not any(
            text.encode() in log.read_bytes() for log in wal.logs_of(path) if log.exists() for text in SECRETS
        )
        lab.backup(after)
    assert holds(after, OTHER)
    assert not any(holds(after, text) for text in SECRETS)
    with people(after) as copy:
        assert shown(copy, *SECRETS) == []
        assert shown(copy, OTHER)


@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_copy_is_made_while_others_append(tmp_path: Path, where: str) -> None:
    """Copies made while a thread appends are whole: a prefix of the log with sound servings, no finding."""
    stop, source = threading.Event(), tmp_path / "shop.duckdb" if where == "file" else ":memory:"
    copies = [tmp_path / f"copy {n}'s.duckdb" for n in range(4)]
    with people(source) as lab:
        fill(lab)
        ways = [lab.serve(order_summary, way) for way in WAYS]

        def write() -> None:
            number = 0
            while not stop.is_set():
                lab.send(place(f"w-{number}"))
                number += 1
                if number % 5 == 0:
                    ways[2].catch_up()

        writer = threading.Thread(target=write)
        writer.start()
        heads = []
        try:
            for copy in copies:
                least = lab.head
                lab.backup(copy)
                heads.append((least, lab.head))
        finally:
            stop.set()
            writer.join()
        log = lab.events().pl()
    assert len(log) > 6
    for copy, (least, most) in zip(copies, heads, strict=True):
        assert not [finding for finding in doctor.scan(copy) if finding.status == "FAIL"]
        with people(copy) as other:
            assert least <= other.head <= most
            assert other.events().pl().equals(log.head(other.head))
            for model in (order_summary, *MODELS):
                for way in WAYS:
                    served = other.serve(model, way)
                    expected = other.as_of(position=served.position).rows(model).fetchall()
                    assert (served.state, served.rows().fetchall()) == ("ok", expected)
    assert sorted(f.name for f in tmp_path.iterdir() if "copy" in f.name) == [copy.name for copy in copies]


def test_a_copy_is_a_store(tmp_path: Path, lab: Lab) -> None:
    """A copy goes on by itself: commands are remembered, versions guarded, keys and indexes there, both apart."""
    path = tmp_path / "copy.duckdb"
    lab.backup(path)
    indexes = "SELECT table_name, index_name, sql FROM duckdb_indexes() WHERE database_name = current_database()"
    keys = """SELECT table_name, constraint_type, constraint_text FROM duckdb_constraints()
              WHERE schema_name IN ('main', 'projection') AND database_name = current_database() ORDER BY ALL"""
    with people(path) as copy:
        for question in (f"{indexes} ORDER BY ALL", keys):
            assert copy._log.database.execute(question) == lab._log.database.execute(question)
        again = RegisterCustomer(customer_id="c-2", name="Charles", email=OTHER)
        assert copy.send(again, command_id="k-2").position == 2
        with pytest.raises(ConcurrencyError):
            copy.send(RenameCustomer(customer_id="c-2", name="B"), expected_version=1)
        assert copy.send(place("o-9")).position == 7
        assert copy.forget("c-1") == 3
        assert lab.head == 6
        assert shown(lab, LATER)


def test_who_may_only_read_a_store_may_copy_it(tmp_path: Path) -> None:
    """A lab that is open read-only writes a copy that can be written to, and its own file stays as it was."""
    path, copied = tmp_path / "shop.duckdb", tmp_path / "copy.duckdb"
    with open_shop(path) as lab:
        lab.send(place("o-1"))
    before = path.read_bytes()
    with open_shop(path, read_only=True) as lab:
        lab.backup(copied)
        assert lab.events(stream="order/o-1").pl()["position"].to_list() == [1]  # it goes on reading
    assert sorted(tmp_path.iterdir()) == [copied, path]
    with open_shop(copied) as copy:
        assert copy.send(place("o-2")).position == 2
    assert path.read_bytes() == before


def test_a_copy_takes_nobodys_place(tmp_path: Path, lab: Lab) -> None:
    """A path where something is, the store's own, a folder, or one in no folder is refused and left as it is."""
    there = tmp_path / "there"
    there.write_text("mine")
    paths: list[tuple[Any, type[StoreError]]] = [(there, StoreError), (tmp_path, StoreError)]
    paths += [(tmp_path / "none" / "copy.duckdb", StoreMissing)]
    paths += [] if lab.path == ":memory:" else [(lab.path, StoreError)]
    before = sorted(tmp_path.iterdir())
    for path, error in paths:
        with pytest.raises(error):
            lab.backup(path)
    assert there.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == before
    assert lab.send(place("o-2")).position == 7


@pytest.mark.parametrize("part", ["ATTACH", "COPY FROM", "DETACH"])
def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """When writing the copy fails, or is interrupted, no file of it stays, and the next copy works."""
    path, execute = tmp_path / "copy.duckdb", Database.execute
    before = sorted(tmp_path.iterdir())
    for error in (StoreError("no room"), KeyboardInterrupt()):

        def fails(self: Database, sql: str, *rest: Any, error: BaseException = error) -> Any:
            if not sql.startswith(part):
                return execute(self, sql, *rest)
            if part != "ATTACH":
                execute(self, sql, *rest)
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Database, "execute", fails)
            with pytest.raises(type(error)):
                lab.backup(path)
        assert [f for f in sorted(tmp_path.iterdir()) if f not in before] == []
    lab.backup(path)
    assert not [finding for finding in doctor.scan(path) if finding.status == "FAIL"]


def test_a_copy_goes_on_after_a_killed_one(tmp_path: Path) -> None:
    """What a process killed while copying left behind is not taken for a copy and does not keep the next one away."""
    path, copy = tmp_path / "shop.duckdb", tmp_path / "copy.duckdb"
    child = Child()
    child.tell(f"{crowd(path)}\ndie_at('COPY FROM', 'after'); lab.backup({str(copy)!r})")
    assert child.wait() == -signal.SIGKILL
    assert not copy.exists()
    with people(path) as lab:
        lab.backup(copy)
        assert not [finding for finding in doctor.scan(copy) if finding.status == "FAIL"]
        assert [f.name for f in sorted(tmp_path.iterdir()) if f.name.startswith("copy")] == ["copy.duckdb"]


def test_a_file_beside_the_copy_is_nobodys_business(tmp_path: Path, lab: Lab) -> None:
    """A file of somebody else's beside the copy, whatever it is called, stays as it is."""
    path = tmp_path / "copy.duckdb"
    beside = tmp_path / "copy.duckdb.part"
    beside.write_text("mine")
    try:
        lab.backup(path)
    except CqrsLabError:
        assert not path.exists()
    assert beside.read_text() == "mine"


@given(customers_=st.lists(st.tuples(who, names), min_size=1, max_size=8), forgotten=st.lists(who, max_size=2))
@settings(max_examples=8, deadline=None)
def test_a_copy_says_what_its_store_says(customers_: list[tuple[str, str | None]], forgotten: list[str]) -> None:
    """For random histories with some forgotten, a copy's events, streams, servings and past equal the store's."""
    with tempfile.TemporaryDirectory() as folder, people() as lab:
        for id, name in customers_:
            event = CustomerRenamed(customer_id=id, name=name)
            append(lab, [event])
        for model in MODELS:
            for way in WAYS:
                lab.serve(model, way)
        for id in forgotten:
            lab.forget(id)
        path = Path(folder) / "copy.duckdb"
        lab.backup(path)
        with people(path) as copy:
            assert told(copy) == told(lab)
        with duckdb.connect(str(path), read_only=True) as raw:
            kept = raw.execute("SELECT count(*) FROM customer_personal").fetchone()
        assert kept == (sum(1 for id, name in customers_ if name is not None and id not in forgotten),)
