"""Personal data: kept beside the log, and erased by forget from all that was made of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from support import place
from support.people import (
    BY_EMAIL,
    EMAIL,
    LATER,
    MODELS,
    NAME,
    OTHER,
    PEOPLE,
    SECRETS,
    WAYS,
    columns,
    fill,
    holds,
    people,
    shown,
    told,
)

from cqrs_lab import Lab, Projection, ReadModel, open_shop
from cqrs_lab.errors import ProjectionFailed, ReadOnlyStore, RebuildNeeded
from cqrs_lab.shop import (
    ChangeCustomerEmail,
    CustomerRegistered,
    RegisterCustomer,
    RenameCustomer,
    customer_contacts,
    order_facts,
)
from cqrs_lab.store import wal


@pytest.fixture(params=["file", "memory"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A lab with two customers, on disk and in memory."""
    with people(tmp_path / "shop.duckdb" if request.param == "file" else ":memory:") as made:
        fill(made)
        yield made


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


def test_forget_needs_a_store_that_can_be_written(tmp_path: Path) -> None:
    """A read-only lab refuses to forget, and still shows what it showed."""
    path = tmp_path / "shop.duckdb"
    with people(path) as lab:
        fill(lab)
    with people(path, read_only=True) as lab:
        with pytest.raises(ReadOnlyStore):
            lab.forget("c-1")
        assert "people as projection" in shown(lab, LATER)


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


def tables_with(lab: Lab, text: str) -> list[str]:
    """The tables of a store in which a text is found, those half made included."""
    run = lab._log.database.execute
    tables = run("SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database()")
    where = "contains(CAST(t AS VARCHAR), ?)"
    return [f"{s}.{t}" for s, t in tables if run(f'SELECT 1 FROM "{s}"."{t}" AS t WHERE {where} LIMIT 1', [text])]


BROKEN = "SELECT customer_id, max(name)::INTEGER AS n FROM customer_events GROUP BY customer_id"
ON_BROKEN = "SELECT n, count(*) AS many FROM broken GROUP BY n"


@pytest.mark.parametrize("way", ["projection", "inline", "background", "materialized", "layer", "handlers", "history"])
def test_no_read_model_keeps_somebody_from_being_forgotten(tmp_path: Path, way: str) -> None:
    """One that cannot be made again is left without rows and says why; all others, appends and copies go on."""
    broken = ReadModel("broken", "customer_id", BROKEN)
    other = ReadModel("other", "customer_id", "SELECT customer_id, max(name) AS n FROM customer_events GROUP BY ALL")
    on_it = ReadModel("on_it", "n", ON_BROKEN, over=(broken,))
    by_hand = Projection("by_hand", key="customer_id", columns={"customer_id": str, "n": int})

    @by_hand.on(CustomerRegistered)
    def registered(recorded: Any, rows: Any) -> None:
        rows.put(customer_id=recorded.event.customer_id, n=int(recorded.event.name or 0))

    with open_shop(tmp_path / "shop.duckdb") as lab:
        lab.send(RegisterCustomer(customer_id="c-1", name="77001", email="a@b"))
        served = {
            "inline": lambda: lab.serve(broken, mode="inline"),
            "background": lambda: lab.serve(broken, mode="background"),
            "materialized": lambda: lab.serve(broken, as_="materialized"),
            "layer": lambda: lab.serve(on_it),
            "handlers": lambda: lab.serve(by_hand),
            "history": lambda: lab.serve(broken, keep_history=True),
        }.get(way, lambda: lab.serve(broken))()
        rest = lab.serve(other)
        lab.send(RegisterCustomer(customer_id="c-2", name="Bob", email="c@d"))
        with suppress(ProjectionFailed):
            lab.catch_up()
        assert lab.forget("c-1") == 1
        assert rest.rows().fetchall() == [("c-1", None), ("c-2", "Bob")]
        lab.backup(tmp_path / "copy.duckdb")
        assert not holds(tmp_path / "copy.duckdb", "77001")
        assert tables_with(lab, "77001") == []
        with pytest.raises(RebuildNeeded):
            served.rows().fetchall()
        told = {row["model"]: row for row in lab.lag().dicts()}[served.model.name]
        assert told["state"] == "rebuild needed"
        assert "ProjectionFailed" in told["error"]
        lab.send(RegisterCustomer(customer_id="c-3", name="3", email="e@f"))
        with pytest.raises(ProjectionFailed):
            served.rebuild()
        assert lab.forget("c-2") == 1  # what was wrong goes with her, and all are made again
        assert served.state == "ok" or served.rebuild()
        assert served.rows().fetchall()


def test_histories_come_and_go_while_people_are_forgotten(tmp_path: Path) -> None:
    """Keeping a history, ending that, and forgetting somebody at once get in nobody's way."""
    with open_shop(tmp_path / "shop.duckdb") as lab:
        served, failed, over = lab.serve(customer_contacts, keep_history=True), [], threading.Event()

        def toggle() -> None:
            try:
                for number in range(10_000):
                    if over.is_set():
                        return
                    lab.serve(customer_contacts, keep_history=bool(number % 2))
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=toggle)
        thread.start()
        for number in range(40):
            lab.send(RegisterCustomer(customer_id=f"c-{number}", name="Ann", email="a@b.org"))
            assert lab.forget(f"c-{number}") == 1
        over.set()
        thread.join()
        assert not failed, failed
        lab.catch_up()
        assert served.rows().fetchall() == lab.serve(customer_contacts, "view").rows().fetchall()
