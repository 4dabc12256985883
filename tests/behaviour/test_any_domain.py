"""The workbench on labs that are no shop: it works for any read model, or says what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from cqrs_lab import Command, Decider, Domain, Event, Lab, Query, ReadModel
from cqrs_lab.errors import InvalidTable, QueryError, UnknownReadModel
from cqrs_lab.workbench import (
    advice_widget,
    advise,
    compare_latency,
    compare_sizes,
    drive,
    flow_picture,
    load_costs,
    open_log,
    plots,
    snapshot,
    time_machine,
    time_steps,
)

DAY = datetime(2026, 1, 1, tzinfo=UTC)
CASES = ReadModel(
    "cases", "case_id", "SELECT case_id, count(*) AS n, arg_max(type, position) AS status FROM case_events GROUP BY 1"
)


class Opened(Event):
    case_id: str


class Closed(Event):
    case_id: str


class OpenCase(Command):
    case_id: str


class CloseCase(Command):
    case_id: str


class CaseStatus(Query):
    model = CASES
    case_id: str

    def answer(self, read: Any) -> Any:
        return read.get(self.case_id)


def decide(command: Any, state: Any) -> list[Event]:
    """Cases open and close; nothing is refused."""
    return [(Opened if isinstance(command, OpenCase) else Closed)(case_id=command.case_id)]


def case(number: int) -> Command:
    """Each case is opened and then closed."""
    return (CloseCase if number % 2 else OpenCase)(case_id=f"c{number // 2}")


def frame() -> pl.DataFrame:
    """A small log."""
    rows = [
        (f"c{n}", "Opened" if at == 0 else "Closed", DAY + timedelta(hours=n + at)) for n in range(8) for at in (0, 3)
    ]
    return pl.DataFrame(rows, schema=["case", "activity", "time"], orient="row")


def logged() -> Lab:
    """As `open_log` makes it."""
    return open_log(frame())


def facts() -> Lab:
    """As `Domain.of_events` makes it."""
    lab = Lab(domain=Domain.of_events("case", key="case_id", events=[Opened, Closed]), threads=1)
    for number in range(4):
        lab.record(f"case/c{number}", [Opened(case_id=f"c{number}"), Closed(case_id=f"c{number}")])
    return lab


def decided() -> Lab:
    """With deciders of its own."""
    decider = Decider(
        "case", "case_id", None, decide, lambda state, event: state, [OpenCase, CloseCase], [Opened, Closed]
    )
    lab = Lab(domain=Domain(deciders=[decider], read_models=[CASES], queries=[CaseStatus]), threads=1)
    lab.send_many([case(number) for number in range(8)])
    return lab


@pytest.fixture(params=[logged, facts, decided])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab of another domain."""
    with request.param() as made:
        yield made


def test_the_time_machine_asks_which_read_model(lab: Lab) -> None:
    """Without an order_summary it says which there are, or to declare one; with a read model it works."""
    there = "there are cases" if "cases" in lab.as_of(position=0).catalog.known else "there are none yet"
    for ask in (time_machine, lambda lab: snapshot(lab, 1)):
        with pytest.raises(UnknownReadModel, match=f"say which read model.*{there}"):
            ask(lab)
    machine = time_machine(lab, CASES, compare=1)
    assert "Closed" in machine.picture()
    with pytest.raises(UnknownReadModel, match="there are cases"):
        time_machine(lab)


def test_what_each_serving_costs_is_measured_and_advised(lab: Lab) -> None:
    """Latencies and costs are there for any read model, so that the advice is, too; the lab stays as it was."""
    head = lab.head
    found = compare_latency(lab, CASES, runs=2, warmup=0)
    assert lab.head == head
    assert set(found["question"]) == {"point", "list", "aggregate", "top ten", "as of"}
    assert found["write_ms"].null_count() == 0
    load = {"reads": 5.0, "writes": 1.0, "events": head}
    assert len(load_costs(found, **load)) == 4  # type: ignore[arg-type]
    assert advise(found, **load).sentence  # type: ignore[arg-type]
    assert "ms of work a second" in advice_widget(found).page
    assert plots.show(plots.latency_chart(found)).png


def test_what_is_the_shop_s_says_so(lab: Lab) -> None:
    """What makes up orders refuses another lab with what to use instead."""
    with pytest.raises(QueryError, match=r"compare_latency\(lab, model\)"):
        compare_sizes(lab)  # type: ignore[arg-type]
    with pytest.raises(QueryError, match=r"compare_latency\(lab, model\)"):
        time_steps(lab, [CASES])
    with pytest.raises(QueryError, match=r"this lab is no shop: give it commands=.*questions="):
        drive(lab, seconds=0.1, progress=False)


def test_any_log_is_described(lab: Lab) -> None:
    """Events by hour, weekday, day and type, what came last and the time between, where there is any."""
    chart = plots.describe(lab)
    titles = str(chart.to_dict())
    assert "Events by type" in titles
    assert f"{lab.head} events" in titles
    assert plots.show(chart).png
    assert flow_picture(lab).rows["times"].sum() == lab.head + len(
        lab.sql("SELECT DISTINCT stream_no FROM case_events")
    )
    with pytest.raises(InvalidTable, match="no category 'order'; there are case"):
        plots.describe(lab, "order")


def test_charts_take_any_column(lab: Lab) -> None:
    """Columns have the caller's names, odd ones too."""
    days = lab.sql('SELECT occurred_at::DATE AS "the.day", count(*) AS "n[:]" FROM case_events GROUP BY 1').pl()
    assert plots.show(plots.orders_per_day_chart(days, day="the.day", count="n[:]")).alt.startswith(
        "N[:] per day. N[:] by day, "
    )
    kinds = lab.sql("SELECT type AS kind, count(*) AS n FROM case_events GROUP BY 1").pl()
    assert plots.show(plots.status_chart(kinds, status="kind", count="n")).alt.startswith("N by kind. N by kind: ")


def test_a_lab_is_driven_by_given_commands_and_questions() -> None:
    """Every command and question of the caller is carried out, those of one stream in order."""
    with decided() as lab:
        head = lab.head
        asked = [CaseStatus(case_id=f"c{n}") for n in range(4)]
        more = {"seconds": 0.5, "drain": 60, "progress": False}
        driven = drive(lab, commands=lambda n: case(n + 100), questions=asked, reads=40, writes=40, **more)  # type: ignore[arg-type]
        assert driven.frame["ok"].all(), driven.frame["error"].drop_nulls().to_list()
        assert set(driven.frame["question"]) == {"OpenCase", "CloseCase", "CaseStatus"}
        assert driven.frame.filter(kind="read")["staleness_events"].null_count() == 0
        assert lab.head == head + 20
        new = lab.sql(
            "SELECT string_agg(type, ',' ORDER BY version) FROM case_events WHERE position > 8 GROUP BY case_id"
        )
        assert set(new.fetchall()) == {("Opened,Closed",)}
        only = drive(lab, commands=case, reads=0, writes=10, **more)  # type: ignore[arg-type]
        assert set(only.frame["kind"]) == {"write"}
        with pytest.raises(QueryError, match=r"no command that this lab handles.*OpenCase, CloseCase"):
            drive(lab, commands=lambda n: asked[0], reads=0, **more)  # type: ignore[arg-type, return-value]
        with pytest.raises(QueryError, match="questions is empty"):
            drive(lab, commands=case, questions=[], **more)  # type: ignore[arg-type]


def test_questions_that_the_lab_does_not_answer_are_refused() -> None:
    """A query that the domain does not declare is said before the run."""
    with facts() as lab, pytest.raises(QueryError, match="no query that this lab answers"):
        drive(lab, questions=[CaseStatus(case_id="c1")], writes=0, seconds=0.1, progress=False)
