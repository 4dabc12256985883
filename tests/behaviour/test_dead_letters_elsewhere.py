"""Dead letters of sagas, on the command line, and as the doctor sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import append, place
from support.dead_letters import by_hand, merged, steps
from typer.testing import CliRunner

from cqrs_lab import Domain, Event, Lab, ReadModel, Saga, doctor, open_shop
from cqrs_lab.cli import app
from cqrs_lab.errors import DeclarationError
from cqrs_lab.shop import OrderShipped, customers, order_facts, order_summary, orders
from cqrs_lab.store import followers
from cqrs_lab.store.move import moving


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for long before the next attempt."""
    monkeypatch.setattr(followers, "_FIRST_PAUSE", 0.0005)


def shouting(works: list[str], heard: list[str]) -> Domain:
    """Return a domain with a saga that hears numbers and fails at those that do not work."""

    def react(state: Any, event: Event) -> list[Any]:
        number = event.tracking_number  # type: ignore[attr-defined]
        heard.append(number)
        if number not in works:
            raise ValueError(f"{number} is no number")
        return []

    saga = Saga("shouting", "order_id", [OrderShipped], None, lambda state, event: None, react)
    return Domain(deciders=[orders, customers], sagas=[saga], read_models=[order_summary])


def test_a_saga_stops_or_sets_aside(tmp_path: Path) -> None:
    """A saga stops before an event that fails; told so it tries three times, sets it aside and takes it back later."""
    works, heard = ["1", "2"], []
    path = tmp_path / "lab.duckdb"
    with Lab(path, domain=shouting(works, heard)) as lab:
        follower = lab.follow("shouting")
        append(lab, steps("1", "x", ".", "2", "y"))
        with pytest.raises(ValueError, match="x is no number"):
            lab.catch_up()
        lag = {row["model"]: row for row in lab.lag().dicts()}["shouting"]
        assert (lag["served_as"], lag["state"], lag["events_behind"]) == ("saga", "stopped", 4)
        assert "x is no number" in lag["error"]
        with pytest.raises(ValueError, match="x is no number"):
            follower.catch_up(attempts=2)
        assert heard == ["1", "x", "x", "x"]
        lab.follow("shouting", on_error="dead letter")
        assert follower.catch_up(to=3) == 3
        assert heard == ["1", "x", "x", "x", "x", "x", "x"]
    heard.clear()
    with Lab(path, domain=shouting(works, heard)) as lab:
        follower = lab.follow("shouting")
        assert (follower.catch_up(), heard) == (5, ["2", "y", "y", "y"])
        assert [(row["position"], row["attempts"]) for row in lab.dead_letters().dicts()] == [(2, 3), (5, 3)]
        assert [row["state"] for row in lab.lag().dicts()] == ["ok, 2 dead letters"]
        works.append("y")
        assert lab.retry_dead_letters("shouting") == 1
        assert [(row["position"], row["attempts"]) for row in lab.dead_letters().dicts()] == [(2, 4)]
        assert follower.position == 5


def test_a_saga_and_a_read_model_have_two_names() -> None:
    """A saga with the name of a read model is refused: their dead letters could not be told apart."""
    domain = shouting([], [])
    with Lab(domain=domain) as lab:
        lab.serve(ReadModel("shouting", "order_id", merged.sql))
        with pytest.raises(DeclarationError, match="both called"):
            lab.follow("shouting")


def call(*arguments: object) -> Any:
    """Run the program in this process."""
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, list(map(str, arguments)))


def test_the_command_line_lists_and_rebuilds(tmp_path: Path) -> None:
    """dead-letters lists them, for people and as JSON; rebuild makes rows anew; wrong input is one clear error."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path) as lab:
        append(lab, steps("1", "x"))
        served = lab.serve(order_summary)
        lab._log.database.execute("UPDATE projection.order_summary SET status = 'WRONG'")
        empty = call("dead-letters", "--db", tmp_path / "none.duckdb")
        assert (empty.exit_code, "none.duckdb" in empty.stderr) == (1, True)
        assert served.where(status="WRONG").fetchall()
    assert json.loads(call("dead-letters", "--db", path, "--json").stdout) == []
    with open_shop(path) as lab:
        lab.serve(by_hand(), on_error="dead letter")
    (letter,) = json.loads(call("dead-letters", "--db", path, "--json").stdout)
    assert (letter["model"], letter["position"], letter["attempts"]) == ("by_hand", 2, 3)
    assert "order/o-1" in call("dead-letters", "--db", path).stdout
    assert "rebuilt up to position 2" in call("rebuild", "order_summary", "--db", path).stdout
    with open_shop(path, read_only=True) as lab:
        assert [row["status"] for row in lab.serve(order_summary).rows().dicts()] == ["SHIPPED", "SHIPPED"]
    for arguments, code, said in [
        (("rebuild", "daily_orders", "--db", path), 1, "keeps no rows of daily_orders"),
        (("rebuild", "nothing", "--db", path), 1, "no read model of the shop"),
        (("rebuild", "order_summary", "--db", tmp_path / "none.duckdb"), 1, "none.duckdb"),
        (("rebuild", "--db", path), 2, "MODEL"),
        (("dead-letters",), 2, "--db"),
    ]:
        result = call(*arguments)
        assert result.exit_code == code
        assert said in result.stderr
    assert not (tmp_path / "none.duckdb").exists()


def test_the_doctor_leaves_out_what_was_set_aside(tmp_path: Path) -> None:
    """Rows without the events that were set aside are whole; with the letters gone they are not."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path) as lab:
        lab.send_many([place(1), place(2)])
        with moving(lab._log.memory) as move:
            lab._catalog.dead.put(move, "order_facts", 2, ValueError("no"), 1)
        lab.serve(order_facts)
        assert len(lab.serve(order_facts).rows()) == 1
    assert [finding.check for finding in doctor.scan(path) if finding.status == "FAIL"] == []
    with open_shop(path) as lab, moving(lab._log.memory) as move:
        lab._catalog.dead.drop(move, "order_facts", 2)
    assert [finding.check for finding in doctor.scan(path) if finding.status == "FAIL"] == ["order_facts as projection"]
