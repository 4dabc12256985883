"""Rebuilding: new rows beside the old ones, compared before they take their place."""

from __future__ import annotations

import threading
from decimal import Decimal
from pathlib import Path

import pytest
from support import append, place, placed, tamper
from typer.testing import CliRunner

from cqrs_lab import Projection, ReadModel, open_shop
from cqrs_lab.cli import app
from cqrs_lab.errors import RebuildNeeded, RebuildRefused
from cqrs_lab.shop import OrderPlaced, customer_value, daily_sales, order_facts, order_summary


def test_what_is_refused_changes_nothing() -> None:
    """A check that says no keeps rows, position and state, and an error in it does the same."""
    with open_shop() as lab:
        append(lab, [placed(1), placed(2)])
        served = lab.serve(order_summary)
        tamper(lab, "UPDATE projection.order_summary SET total = 7 WHERE order_id = 'o-1'")
        seen = []
        with pytest.raises(RebuildRefused, match="1 would have changed"):
            served.rebuild(check=lambda changes: bool(seen.extend(changes.dicts())))
        with pytest.raises(ZeroDivisionError):
            served.rebuild(check=lambda changes: bool(1 // 0))
        [row] = seen
        assert (row["change"], row["order_id"], row["columns"]) == ("changed", "o-1", ["total"])
        assert (row["before"]["total"], row["after"]["total"]) == (Decimal("7.00"), Decimal("10.00"))
        assert served.get("o-1")["total"] == Decimal("7.00")
        assert lab.lag().pl().filter(model="order_summary")["state"].to_list() == ["ok"]
        served.rebuild(check=lambda changes: len(changes) == 1)
        assert served.get("o-1")["total"] == Decimal("10.00")


def test_what_happened_since_is_no_difference() -> None:
    """A serving that is behind is compared as of its own position, and the rebuild still reaches the head."""
    with open_shop() as lab:
        append(lab, [placed(1)])
        for model in (order_summary, daily_sales, customer_value):
            lab.serve(model)
        append(lab, [placed(2), placed(3)])
        for model in (order_summary, daily_sales, customer_value):
            assert len(lab.serve(model).rehearse()) == 0
            assert lab.serve(model).rebuild() == 3


def test_a_rehearsal_leaves_what_is_below_alone() -> None:
    """What a read model is built on is neither moved nor built by a rehearsal, nor by a rebuild that is refused."""
    with open_shop() as lab:
        append(lab, [placed(1)])
        served, facts = lab.serve(daily_sales), lab.serve(order_facts)
        append(lab, [placed(2)])
        assert len(served.rehearse()) == 0
        assert (served.position, facts.position) == (1, 1)
        facts = lab.serve(
            ReadModel("order_facts", "order_id", order_facts.sql.replace("= 'OrderRefunded'", "= 'None'"))
        )
        assert facts.state == "rebuild needed"
        with pytest.raises(RebuildRefused):
            served.rebuild(check=lambda changes: False)
        assert facts.state == "rebuild needed"
        served.rebuild(check=lambda changes: True)
        assert facts.state == "ok"
        assert (served.position, facts.position) == (2, 2)


def test_the_old_rows_serve_until_the_swap() -> None:
    """While new rows are looked at, others read the old ones, and afterwards the new ones."""
    with open_shop() as lab:
        append(lab, [placed(1)])
        served = lab.serve(order_summary)
        tamper(lab, "UPDATE projection.order_summary SET total = 7")
        read = []

        def look(changes: object) -> bool:
            reader = threading.Thread(target=lambda: read.append(served.get("o-1")["total"]))
            reader.start()
            reader.join(120)
            return True

        served.rebuild(check=look)
        assert read == [Decimal("7.00")]
        assert served.get("o-1")["total"] == Decimal("10.00")


def test_another_select_is_shown_before_it_serves() -> None:
    """Columns that came, went or changed are named for every row; reads are refused until the rebuild."""
    with open_shop() as lab:
        append(lab, [placed(1)])
        lab.serve(daily_sales)
        lab.serve(order_facts)
        other = ReadModel("order_facts", "order_id", "SELECT order_id, count(*) AS version, 1 AS one FROM order_events "
                                                     "GROUP BY order_id")  # fmt: skip
        served = lab.serve(other)
        with pytest.raises(RebuildNeeded):
            served.get("o-1")
        [row] = served.rehearse().dicts()
        assert row["change"] == "changed"
        assert {"one", "status", "version"} <= set(row["columns"])
        with pytest.raises(RebuildNeeded):
            served.get("o-1")
        served.rebuild()
        assert served.get("o-1") == {"order_id": "o-1", "version": 1, "one": 1}


def test_another_key_makes_other_rows() -> None:
    """Rows of another key are none of the old ones: those went, these came."""
    with open_shop() as lab:
        append(lab, [placed(1)])
        lab.serve(ReadModel("seen", "order_id", "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id"))
        served = lab.serve(ReadModel("seen", "day", "SELECT occurred_at::DATE AS day, count(*) AS n FROM order_events "
                                                    "GROUP BY day"))  # fmt: skip
        assert sorted(row["change"] for row in served.rehearse().dicts()) == ["added", "removed"]


def test_rows_do_not_go_back() -> None:
    """A rebuild to a position before that of the old rows, or beyond the log, is refused."""
    with open_shop() as lab:
        append(lab, [placed(1), placed(2), placed(3)])
        served = lab.serve(order_facts)
        for to in (2, 4, -1):
            with pytest.raises(RebuildRefused, match="up to position 3 of 3"):
                served.rebuild(to=to)
        append(lab, [placed(4), placed(5)])
        assert served.rebuild(to=4) == 4
        assert served.get("o-5") is None


def test_handlers_are_rehearsed_too() -> None:
    """A projection in Python tells what its handlers would make of the log today."""
    seen = Projection("seen", key="order_id", columns={"order_id": str, "n": int})
    step = [1]

    @seen.on(OrderPlaced)
    def _(recorded, rows) -> None:
        rows.put(order_id=recorded.event.order_id, n=step[0])

    with open_shop() as lab:
        append(lab, [placed(1)])
        served = lab.serve(seen)
        step[0] = 2
        assert [(row["order_id"], row["columns"]) for row in served.rehearse().dicts()] == [("o-1", ["n"])]
        assert served.get("o-1")["n"] == 1


def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A rebuild shows on request how far it is, and leaves the connection as it was."""
    with open_shop() as lab:
        append(lab, [placed(1)])
        served = lab.serve(order_facts)
        served.rebuild(progress=True)
        assert "rebuild order_facts: 100%" in capsys.readouterr().err
        assert lab._log.database.execute("SELECT current_setting('enable_progress_bar')") == [(False,)]


def test_the_command_line_says_what_would_change(tmp_path: Path) -> None:
    """`cqrs-lab rebuild --dry-run` names the rows that would change and changes none; without it they are mended."""
    path = tmp_path / "shop.duckdb"
    with open_shop(path) as lab:
        lab.send(place())
        lab.serve(order_facts)
        tamper(lab, "UPDATE projection.order_facts SET total = 7")
    run = ["rebuild", "order_facts", "--db", str(path)]
    for _ in range(2):
        said = CliRunner().invoke(app, [*run, "--dry-run"])
        assert said.exit_code == 0
        assert "1 rows would change" in said.output
        assert "total" in said.output
    assert CliRunner().invoke(app, run).exit_code == 0
    assert "0 rows would change" in CliRunner().invoke(app, [*run, "--dry-run"]).output
