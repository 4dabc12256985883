"""Questions without ceremony: SQL over all that there is, what can be asked, and a SELECT that is being written."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from support import pay, place

from cqrs_lab import Domain, Event, Lab, ReadModel, open_shop
from cqrs_lab.errors import DeclarationError, InvalidMoment, QueryFailed, RebuildNeeded, UnknownReadModel
from cqrs_lab.shop import RegisterCustomer, daily_orders, order_summary

BY_STATUS = "SELECT status, count(*) FROM order_summary GROUP BY 1 ORDER BY 1"


class Done(Event):
    """A step of a case."""

    case_id: str
    cost: int = 0


def names_in(columns: str) -> set[str]:
    """The names in a list of columns with their types."""
    flat = re.sub(r"\([^()]*(\([^()]*\)[^()]*)*\)", "", columns)
    return {part.split(" ")[0] for part in flat.split(", ")}


@pytest.fixture
def cases() -> Lab:
    """A log of ninety days that was imported just now."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    days = {
        "id": [f"c{d}" for d in range(90)],
        "type": "Done",
        "occurred_at": [start + timedelta(d) for d in range(90)],
    }
    lab = Lab(domain=Domain.of_events("case", key="case_id", events=[Done]))
    lab.append_table("case", pl.DataFrame(days))
    return lab


@pytest.mark.parametrize("as_", ["view", "materialized", "projection", None])
def test_sql_asks_events_and_read_models(as_: str | None) -> None:
    """Tables of events and read models, served or not, are joined in one question, with values for its marks."""
    with open_shop() as lab:
        lab.send(RegisterCustomer(customer_id="c-1", name="Ann", email="a@b.org"))
        lab.send(place("o-1"))
        if as_ is not None:
            lab.serve(order_summary, as_)
        assert lab.sql(BY_STATUS).fetchall() == [("PENDING", 1)]
        both = "SELECT type, status FROM order_events JOIN order_summary USING (order_id) WHERE customer_name = ?"
        assert lab.sql(both, ["Ann"]).fetchall() == [("OrderPlaced", "PENDING")]
        assert lab.sql("SELECT name FROM customer_events").fetchall() == [("Ann",)]  # which stands beside the log
        for wrong in ("SELECT * FROM nothing", "DELETE FROM order_events", "SELECT 1; SELECT 2", "VACUUM"):
            with pytest.raises(QueryFailed):
                lab.sql(wrong)


def test_sql_reads_the_freshest_serving() -> None:
    """A serving that is behind is not asked where another one is ahead."""
    with open_shop() as lab:
        lab.serve(order_summary, "materialized")
        lab.send(place("o-1"))
        assert lab.sql(BY_STATUS).fetchall() == []
        lab.serve(order_summary, mode="inline")
        assert lab.sql(BY_STATUS).fetchall() == [("PENDING", 1)]


def test_tables_tell_what_can_be_asked() -> None:
    """Every table and read model is listed with what it holds, its columns and how it is served; all can be asked."""
    with open_shop() as lab:
        lab.serve(daily_orders)
        lab.serve(daily_orders, "view")
        told = {row["name"]: row for row in lab.tables().dicts()}
        assert told["order_events"]["holds"].startswith("events: OrderPlaced")
        assert "total DECIMAL(18,2)" in told["order_events"]["columns"]
        assert told["daily_orders"]["served_as"] == "view, projection"
        assert told["order_summary"]["holds"] == "a row for each order_id, made by a SELECT"
        assert told["order_summary"]["served_as"] == ""
        for name, row in told.items():
            assert set(lab.sql(f"SELECT * FROM {name}").arrow().column_names) == names_in(row["columns"])
        assert "order_summary" in lab.tables()._repr_html_()


def test_a_select_is_written_in_a_cell_that_is_run_again() -> None:
    """Another SELECT of one name makes its rows again where that is wanted; a view has nothing to make."""
    with open_shop() as lab:
        lab.send(place("o-1"))
        for text, rows in (("count(*)", [("o-1", 1)]), ("max(version)", [("o-1", 1)]), ("sum(total)", [("o-1", 5)])):
            model = ReadModel("mine", "order_id", f"SELECT order_id, {text} AS n FROM order_events GROUP BY order_id")
            assert lab.serve(model, "view").rows().fetchall() == rows
            found = lab._log.database.execute('SELECT n FROM "view".mine')  # as other programs see it
            assert found == [(rows[0][1],)]
            for as_ in ("projection", "materialized"):
                assert lab.serve(model, as_, rebuild=True).rows().fetchall() == rows
        other = ReadModel("mine", "order_id", "SELECT order_id, min(version) AS n FROM order_events GROUP BY order_id")
        with pytest.raises(RebuildNeeded):
            lab.serve(other).rows()
        before = lab.serve(other, rebuild=True)
        lab.send(pay("o-1"))
        assert lab.serve(other, rebuild=True).position == before.position == 1  # there was nothing to make again


def test_what_was_served_before_is_found_by_its_name(tmp_path: Path) -> None:
    """A read model that this program never declared is served from what the store knows of it, in any case."""
    text = "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id"
    with open_shop(tmp_path / "shop.duckdb") as lab:
        lab.send(place("o-1"))
        lab.serve(ReadModel("Mine", "order_id", text))
        lab.serve(ReadModel("on_mine", "n", "SELECT n, count(*) AS many FROM mine GROUP BY n"))
    with open_shop(tmp_path / "shop.duckdb") as lab:
        assert lab.serve("mine").rows().fetchall() == [("o-1", 1)]
        assert lab.serve("ON_MINE").rows().fetchall() == [(1, 1)]
        with pytest.raises(UnknownReadModel):
            lab.serve("yours")


def test_facts_are_declared_without_commands(cases: Lab) -> None:
    """A domain of facts takes tables and records, serves read models, and handles no command."""
    cases.record("c0", Done(case_id="c0", cost=3))
    model = ReadModel("costs", "case_id", "SELECT case_id, sum(cost) AS cost FROM case_events GROUP BY case_id")
    assert cases.serve(model).get("c0") == {"case_id": "c0", "cost": 3}
    assert cases.head == 91
    with pytest.raises(DeclarationError, match="case_id"):
        Domain.of_events("case", key="case_id", events=[type("Other", (Event,), {"__module__": __name__})])


def test_a_difference_of_two_dates_is_not_silently_empty(cases: Lab) -> None:
    """Two dates before an import are refused with what to write; by the time of happening they tell the difference."""
    model = ReadModel("cases", "case_id", "SELECT case_id, count(*) AS n FROM case_events GROUP BY 1")
    january, february = date(2024, 1, 31), datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)
    for one, other in ((january, february), (february, january)):
        with pytest.raises(InvalidMoment, match="by='occurred'"):
            cases.diff(model, one, other)
        assert len(cases.diff(model, one, other, by="occurred")) == 29
        with pytest.raises(InvalidMoment, match="nothing had been recorded by 2024-02-29"):
            cases.diff(model, one, other, by="recorded")
    assert len(cases.diff(model, date(2020, 1, 1), date(2021, 1, 1))) == 0  # when nothing happened
    assert len(cases.diff(model, january, date.today() + timedelta(1))) == 90
    with pytest.raises(InvalidMoment, match="by='then'"):
        cases.diff(model, january, february, by="then")
