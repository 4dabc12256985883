"""Dead letters: events that fail are tried again, set aside, counted, and taken back; nothing else is held up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import START, append, assert_same, wait_until
from support.dead_letters import by_hand, dead_of, merged, sound, steps

from cqrs_lab import Projection, ReadModel, open_shop
from cqrs_lab.errors import ProjectionFailed, UnknownReadModel
from cqrs_lab.read import runner as running
from cqrs_lab.shop import CustomerRegistered, OrderPaid, OrderShipped, RegisterCustomer
from cqrs_lab.store import followers


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for long before the next attempt."""
    monkeypatch.setattr(followers, "_FIRST_PAUSE", 0.0005)


def failing(model: str) -> Callable[[], Any]:
    """Return a projection in Python or from a SELECT, by name."""
    return by_hand() if model == "by_hand" else merged  # type: ignore[return-value]


@pytest.mark.parametrize("model", ["by_hand", "merged"])
def test_attempts_come_first(model: str) -> None:
    """By hand an event is tried as often as was said, three times when it is to be set aside, once when not."""
    with open_shop() as lab:
        served = lab.serve(failing(model))
        append(lab, steps(".", "x", "."))
        for attempts, counted in [(None, 1), (2, 2), (5, 5)]:
            with pytest.raises(ProjectionFailed):
                served.catch_up(attempts=attempts)
            assert lab._servings.running.failures[model, "projection"].attempts == counted
        assert served.position == (1 if model == "by_hand" else 0)
        assert len(lab.dead_letters()) == 0
        lab.serve(failing(model) if model == "merged" else served.model, on_error="dead letter")
        assert lab.catch_up() == served.position == 3
        append(lab, steps("y", "."))
        assert served.catch_up(attempts=2) == 5
        assert [(row["position"], row["attempts"]) for row in lab.dead_letters().dicts()] == [(2, 3), (4, 2)]
        assert [row["state"] for row in lab.lag().dicts()] == ["ok, 2 dead letters"]


def test_an_attempt_that_goes_well_sets_nothing_aside() -> None:
    """What fails for a while, such as a mail server, is handled at a later attempt, once and in its place."""
    tries: list[int] = []
    flaky = Projection("flaky", side_effect=True)

    @flaky.on(OrderPaid)
    def _(recorded: Any, rows: Any) -> None:
        tries.append(recorded.position)
        if recorded.position == 2 and tries.count(2) < 3:
            raise OSError("the server is busy")

    with open_shop() as lab:
        served = lab.serve(flaky, on_error="dead letter")
        append(lab, steps(".", ".", "."))
        assert served.catch_up() == 3
        assert (tries, len(lab.dead_letters())) == ([1, 2, 2, 2, 3], 0)


@pytest.mark.parametrize(("model", "mode"), [("by_hand", "background"), ("merged", "background"), ("merged", "inline")])
def test_what_moves_by_itself_sets_aside_by_itself(model: str, mode: str) -> None:
    """In the background after eight attempts, inline behind the append, while the append itself goes on."""
    with open_shop() as lab:
        tries: list[str] = []
        made = by_hand(lambda number: tries.append(number) or number.isdigit()) if model == "by_hand" else merged
        served = lab.serve(made, mode=mode, on_error="dead letter")
        append(lab, steps(".", "x", "1", "y", "2"))
        wait_until(lambda: served.position == 5)
        assert served.rows().fetchall() == [("o-0", 3, 3)]
        counted = {row["position"]: row["attempts"] for row in lab.dead_letters().dicts()}
        if mode == "background":
            assert counted == {2: running.ATTEMPTS, 4: running.ATTEMPTS}
            assert model == "merged" or tries.count("x") == tries.count("y") == running.ATTEMPTS
        assert list(counted) == [2, 4]
        assert [row["state"] for row in lab.lag().dicts()] == ["ok, 2 dead letters"]


def test_only_who_was_told_sets_aside_and_the_others_stop() -> None:
    """A projection that was not told stops before the event; being told "stop" again ends the setting aside."""
    with open_shop() as lab:
        lab.serve(by_hand(), on_error="dead letter")
        stops = lab.serve(by_hand(name="stops"))
        append(lab, steps(".", "x", "."))
        with pytest.raises(ProjectionFailed, match="stops failed at position 2"):
            lab.catch_up()
        states = {row["model"]: row["state"] for row in lab.lag().dicts()}
        assert states == {"by_hand": "ok, 1 dead letter", "stops": "stopped"}
        assert stops.position == 1
        served = lab.serve("by_hand", on_error="stop")
        append(lab, steps("x"))
        with pytest.raises(ProjectionFailed):
            served.catch_up()
        assert dead_of(lab, "by_hand") == [2]


def test_dead_letters_are_listed_and_kept(tmp_path: Path) -> None:
    """Each is shown with its event, error and attempts; after reopening it stays out, and more are set aside."""
    path = tmp_path / "lab.duckdb"
    with open_shop(path) as lab:
        append(lab, steps(".", "x"))
        for model in (by_hand(), merged):
            lab.serve(model, on_error="dead letter")
        for row in lab.dead_letters().dicts():
            assert list(row) == "model position stream type occurred_at data error attempts at".split()
            assert (row["position"], row["stream"], row["type"]) == (2, "order/o-1", "OrderShipped")
            assert (row["occurred_at"], row["attempts"]) == (START, 3)
            assert json.loads(row["data"]) == {"order_id": "o-1", "tracking_number": "x"}
            assert row["error"].startswith("ValueError: x is no number" if row["model"] == "by_hand" else "QueryFailed")
            assert row["at"].tzinfo is not None
        assert [row["model"] for row in lab.dead_letters()._table.to_pylist()] == ["by_hand", "merged"]
    with open_shop(path) as lab:
        append(lab, steps("1", "x", "2"))
        for model in (by_hand(), merged):
            served = lab.serve(model)
            assert served.catch_up() == 5
            assert served.rows().fetchall()[0][2] == 3
            assert dead_of(lab, model.name) == [2, 4]
            served.rebuild()
            assert served.rows().fetchall()[0][2] == 3
    with open_shop(path, read_only=True) as lab:
        assert len(lab.dead_letters()) == 4
        assert {row["state"] for row in lab.lag().dicts() if row["model"] != "order_summary"} <= {"ok, 2 dead letters"}


def test_a_store_without_the_table_gets_it(tmp_path: Path) -> None:
    """A store of an earlier version is read as one without dead letters, and has the table once it is written to."""
    path = tmp_path / "lab.duckdb"
    with open_shop(path) as lab:
        lab._log.database.execute("DROP TABLE dead_letters")
    with open_shop(path, read_only=True) as lab:
        assert len(lab.dead_letters()) == 0
    with open_shop(path) as lab:
        append(lab, steps("x"))
        lab.serve(merged, on_error="dead letter")
        assert dead_of(lab, "merged") == [1]


@pytest.mark.parametrize("model", ["by_hand", "merged"])
def test_a_poison_event_fails_a_rebuild(model: str) -> None:
    """A rebuild sets nothing aside, whatever was told: it fails, and the old rows keep serving."""
    works = [True]
    with open_shop() as lab:
        made = by_hand(lambda number: works[0]) if model == "by_hand" else merged
        append(lab, steps("1", "2"))
        served = lab.serve(made, on_error="dead letter")
        before = served.rows().fetchall()
        works[0] = False
        if model == "merged":
            append(lab, steps("x"))
        with pytest.raises(ProjectionFailed):
            served.rebuild()
        assert (served.rows().fetchall(), served.position) == (before, 2)
        assert len(lab.dead_letters()) == 0


def test_an_error_says_nothing_of_who_was_forgotten() -> None:
    """When somebody is forgotten, what errors say about their events is cut to its kind."""
    book = Projection("book", "customer_id", {"customer_id": str, "name": str})

    @book.on(CustomerRegistered)
    def _(recorded: Any, rows: Any) -> None:
        raise ValueError(f"no place for {recorded.event.name}")

    with open_shop() as lab:
        lab.send(RegisterCustomer(customer_id="c-1", name="Ada", email="ada@example.org"))
        lab.serve(book, on_error="dead letter")
        assert "Ada" in str(lab.dead_letters().dicts())
        lab.forget("c-1")
        assert "Ada" not in str(lab.dead_letters().dicts())
        assert [row["error"] for row in lab.dead_letters().dicts()] == ["ValueError"]


def test_an_event_of_an_unknown_version_can_be_set_aside() -> None:
    """An event that nobody can read stops a projection in Python by name, or is skipped and counted when told so."""
    with open_shop() as lab:
        append(lab, steps("1", "2", "3", "x", "4"))
        lab._log.database.execute("UPDATE order_events SET schema_version = 9 WHERE position = 3")
        lab._log.memory.read()
        with pytest.raises(ProjectionFailed, match=r"UnknownEventType: .*OrderShipped v9"):
            lab.serve(by_hand(chunk=500))
        served = lab.serve(by_hand(chunk=500), on_error="dead letter")
        assert served.state == "ok"
        assert served.catch_up() == 5
        assert dead_of(lab, "by_hand") == [3, 4]
        assert served.rows().fetchall() == [("o-0", 2, 5), ("o-1", 1, 2)]


def test_what_no_event_is_guilty_of_stops() -> None:
    """A failure that stays without the event, such as one that rows below bring, sets nothing aside."""
    named = ReadModel(
        "named", "order_id", "SELECT order_id, max(tracking_number) AS number FROM order_events GROUP BY order_id"
    )
    above = ReadModel(
        "above", "number", "SELECT CAST(number AS BIGINT) AS number, count(*) AS n FROM named GROUP BY ALL HAVING n > 0"
    )
    with open_shop() as lab:
        lab.serve(named)
        served = lab.serve(above, on_error="dead letter")
        append(lab, steps("1", "x", "2"))
        with pytest.raises(ProjectionFailed):
            served.catch_up(attempts=1)
        assert len(lab.dead_letters()) == 0
        assert [row["state"] for row in served.lag().dicts()] == ["stopped"]


def test_a_projection_in_python_handles_them_again_in_order() -> None:
    """With the same handlers each is handled where the rows are now; what fails again stays, with one attempt more."""
    known, order = {"1"}, []
    made = by_hand(lambda number: number in known)
    handler = made.handlers[OrderShipped]
    made.handlers[OrderShipped] = lambda recorded, rows: (handler(recorded, rows), order.append(recorded.position))
    with open_shop() as lab:
        append(lab, steps("y", "x", "1", "x", "z"))
        served = lab.serve(made, on_error="dead letter")
        assert (dead_of(lab, "by_hand"), order) == ([1, 2, 4, 5], [3])
        assert lab.retry_dead_letters() == 0
        assert {row["attempts"] for row in lab.dead_letters().dicts()} == {4}
        known |= {"x", "z"}
        assert lab.retry_dead_letters("by_hand") == 3
        assert [(row["position"], row["attempts"]) for row in lab.dead_letters().dicts()] == [(1, 5)]
        assert order == [3, 2, 4, 5]
        assert served.rows().fetchall() == [("o-0", 2, 1), ("o-1", 2, 0)]
        assert served.position == 5
        known |= {"y"}
        assert (lab.retry_dead_letters(made), len(lab.dead_letters())) == (1, 0)
        assert [row["state"] for row in lab.lag().dicts()] == ["ok"]
        assert lab.retry_dead_letters() == 0


def test_a_mended_select_is_made_anew_with_them() -> None:
    """With a SELECT that goes well all are taken back; with one that mends some, the others stay and are left out."""
    with open_shop() as lab:
        append(lab, steps("1", "x", "2", "y", "x"))
        lab.serve(merged, on_error="dead letter")
        assert lab.retry_dead_letters("merged") == 0
        assert {row["attempts"] for row in lab.dead_letters().dicts()} == {4}
        for mended, back, left in [("'x'", 2, [4]), ("'x', 'y'", 1, [])]:
            text = merged.sql.replace(
                "CAST(tracking_number",
                f"CAST(CASE WHEN tracking_number IN ({mended}) THEN '0' ELSE tracking_number END",
            )
            served = lab.serve(ReadModel("merged", "order_id", text))
            assert served.state == "rebuild needed"
            assert lab.retry_dead_letters() == back
            assert (served.state, dead_of(lab, "merged")) == ("ok", left)
            assert_same(lab, served.select(), sound(served.model, left, 5))
        assert_same(lab, served.select(), lab.as_of(position=5)._text(served.model))


def test_other_handlers_make_all_rows_anew_with_them() -> None:
    """A projection in Python with mended handlers is made anew over all events, the dead ones in their place."""
    with open_shop() as lab:
        append(lab, steps("1", "x", "2"))
        lab.serve(by_hand(), on_error="dead letter")
        mended, seen = Projection("by_hand", "order_id", {"order_id": str, "n": int, "number": int}), []
        mended.on(OrderShipped)(lambda recorded, rows: seen.append(recorded.position))
        served = lab.serve(mended)
        assert served.state == "rebuild needed"
        assert (lab.retry_dead_letters(), served.state, seen) == (1, "ok", [1, 2, 3])


def test_what_nobody_knows_cannot_be_retried() -> None:
    """Dead letters of a name that is not declared now are left alone; asked for by that name they are an error."""
    with open_shop() as lab:
        append(lab, steps("x"))
        lab.serve(merged, on_error="dead letter")
        del lab._catalog.models["merged"]
        assert lab.retry_dead_letters() == 0
        with pytest.raises(UnknownReadModel):
            lab.retry_dead_letters("merged")
        assert dead_of(lab, "merged") == [1]
