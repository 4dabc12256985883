"""The time machine shows each read model as it was and what changed, by slider or number, and to those who read."""

from __future__ import annotations

import re
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from html.parser import HTMLParser

import polars as pl
import pytest
from support import append, line, place, python

from cqrs_lab import ReadModel, open_shop
from cqrs_lab.errors import CqrsLabError, InvalidMoment, UnknownReadModel
from cqrs_lab.shop import OrderPlaced, PayOrder, RegisterCustomer, daily_orders
from cqrs_lab.workbench.data.generated import generate
from cqrs_lab.workbench.data.workload import Workload
from cqrs_lab.workbench.show import live
from cqrs_lab.workbench.show.snapshots import Snapshot, days, difference, snapshot
from cqrs_lab.workbench.show.time_machine import time_machine

NINE = line(price=9)
SMALL = Workload(orders=30, seed=5)


@pytest.fixture(scope="module")
def lab():
    """A shop with a small workload, to which nothing is appended."""
    with open_shop(threads=1) as shop:
        generate(shop, SMALL)
        yield shop


class Cells(HTMLParser):
    """Reads a page: its words cell by cell, and the tags that it uses."""

    def __init__(self, page):
        super().__init__()
        self.cells, self.tags = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.cells.append(data)


def words(page):
    """Return what a page says, cell by cell."""
    return "|".join(cell for cell in Cells(page).cells if cell.strip())


def test_a_difference_says_what_changed():
    """A row that changed tells its columns before and after; one that came or went, all that it has."""
    now = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
    with open_shop(threads=1, clock=lambda: now) as lab:
        lab.send(place("o-1", NINE))
        lab.send(place("<o-2>", NINE))
        lab.send(PayOrder(order_id="o-1", amount=Decimal("9.00")))
        assert words(difference(lab, 1, 3)._repr_html_()) == (
            "order_summary| from position 1 to 3: |1 added, 0 removed, 1 changed"
            "|Differences: 2 rows. Times are UTC.|change|order_id|column|before|after|added|<o-2>|whole row|–"
            "|order_id: <o-2>, customer_id: c-1, customer_name: –, customer_email: –, status: PENDING, total: 9.00, "
            "paid: 0.00, item_count: 1, version: 1, created_at: 2025-03-01 12:30:00, updated_at: 2025-03-01 12:30:00"
            "|changed|o-1|status|PENDING|PAID|paid|0.00|9.00|version|1|2"
        )
        lab.send(RegisterCustomer(customer_id="c-1", name="Ada", email="ada@example.org"))
        email = "customer_name|–|Ada|customer_email|–|ada@example.org"
        assert words(difference(lab, 3, 4)._repr_html_()).endswith(f"|changed|<o-2>|{email}|changed|o-1|{email}")
        assert "removed|<o-2>|whole row|order_id: <o-2>, customer_id: c-1," in words(
            difference(lab, 2, 1)._repr_html_()
        )
        none = difference(lab, 2, 2)
        assert words(none._repr_html_()) == "order_summary| from position 2 to 2: |0 added, 0 removed, 0 changed"
        assert repr(none) == "<difference: order_summary from position 2 to 2>"


def test_the_chart_is_drawn_from_the_counts():
    """Each status has a bar as long as its share of the rows, and the share in words beside it."""
    counts = pl.DataFrame({"status": ["PENDING", "PAID"], "rows": [1, 1_999]})
    page = Snapshot("m", 1, None, counts, pl.DataFrame())._repr_html_()
    assert [float(width) for width in re.findall(r"width: ([\d.]+)em; height", page)] == [0.01, 15.99]
    assert "|PENDING|1| 0.1%|PAID|1,999| 100.0%" in words(page)


def test_a_snapshot_knows_when_it_was(lab):
    """It carries the time at which its last event, of whatever category, was recorded; at position 0 none."""
    recorded = lab.events().pl()["recorded_at"].to_list()
    for position in (1, 7, 8, len(recorded)):
        assert snapshot(lab, position).recorded_at == recorded[position - 1]
    assert snapshot(lab, 0).recorded_at is None
    assert repr(snapshot(lab, 7)) == "<snapshot: order_summary at position 7>"
    assert snapshot(lab, 1).recorded_at.tzinfo is UTC


def test_a_snapshot_has_the_latest_rows(lab):
    """The rows are those changed last, as many as asked for; of read models without times, the first by key."""
    whole = lab.serve("order_summary").pl().sort(["updated_at", "order_id"], descending=[True, False])
    assert snapshot(lab, lab.head, rows=7).latest.equals(whole.head(7))
    days = lab.serve(daily_orders).pl().sort("day", descending=True)
    assert snapshot(lab, lab.head, model="daily_orders").latest.equals(days.head(5))
    people = ReadModel("people", key="customer_id", sql="SELECT customer_id, name FROM customer_events")
    found = snapshot(lab, lab.head, model=people)
    assert found.latest["customer_id"].to_list() == [f"c-00000{n}" for n in range(1, 6)]
    assert found.counts is None


def test_a_position_or_model_that_is_not_there_is_refused(lab):
    """Positions outside the log and unknown read models are refused by name."""
    for position in (-1, lab.head + 1):
        for ask in (snapshot, lambda lab, p: difference(lab, 1, p), lambda lab, p: time_machine(lab, compare=p)):
            with pytest.raises(InvalidMoment, match=f"position={position}"):
                ask(lab, position)
    with pytest.raises(UnknownReadModel, match="orders"):
        snapshot(lab, 1, model="orders")
    with pytest.raises(UnknownReadModel, match="orders"):
        time_machine(lab, "orders")


def shown(machine, position, compare=None):
    """Return what the page of a time machine shows at a position."""
    counts = machine.reply({"ask": "counts", "position": position})["counts"]
    rows = machine.reply({"ask": "rows", "position": position, "compare": compare, "head": 0})["rows"]
    return f"{counts}\n{rows}"


def test_the_page_asks_for_counts_on_the_way_and_for_rows_at_rest(lab):
    """Both together are the snapshot of that position; the machine is where the handle rests."""
    machine = time_machine(lab)
    assert machine.position == lab.head
    assert machine.reply({"ask": "counts", "position": 20})["counts"] == snapshot(lab, 20, rows=0)._repr_html_()
    assert machine.position == lab.head
    for position in (20, 33, 0):
        assert shown(machine, position) == snapshot(lab, position)._repr_html_()
        assert machine.position == position


def test_a_second_handle_shows_what_changed(lab):
    """It is off at first; when on, the page also has the difference from there."""
    machine = time_machine(lab, rows=3)
    assert machine.compared is None
    for position, other in ((33, 20), (9, 20), (9, 9)):
        parts = snapshot(lab, position, rows=3), difference(lab, other, position, rows=3)
        assert shown(machine, position, other) == "\n".join(part._repr_html_() for part in parts)
        assert repr(machine).endswith(f"at position {position} of {lab.head}, compared with {other}>")
    assert shown(machine, 9) == snapshot(lab, 9, rows=3)._repr_html_()
    made = time_machine(lab, compare=20, position=30)
    assert made.picture().endswith(difference(lab, 20, 30)._repr_html_())
    assert (made.position, made.compared) == (30, 20)


def test_the_page_knows_the_day_of_each_position(lab):
    """It is told the days of the log, each with its last position, so that a date moves without a question."""
    start = time_machine(lab).widget.start
    events = lab.events().pl()
    found = dict(zip(start["days"], start["ends"], strict=True))
    assert found == {day.isoformat(): last for day, last in days(lab).iter_rows()}
    for day, last in found.items():
        assert events.filter(position=last)["recorded_at"][0].date().isoformat() == day
    assert start["ends"] == sorted(start["ends"])
    assert start["ends"][-1] == start["head"] == lab.head


def test_it_goes_by_what_occurred():
    """By day of occurrence it shows what was true then, late events among it; the picture and the page are the same."""
    late = datetime(2025, 3, 9, 12, tzinfo=UTC)
    with open_shop(threads=1, clock=lambda: late) as lab:
        lab.send(place("o-1", NINE), occurred_at=datetime(2025, 3, 1, 9, tzinfo=UTC))
        lab.send(place("o-2", NINE))
        lab.send(PayOrder(order_id="o-1", amount=Decimal("9.00")), occurred_at=datetime(2025, 3, 4, 9, tzinfo=UTC))
        first, fourth = date(2025, 3, 1), date(2025, 3, 4)
        machine = time_machine(lab, position=fourth, compare=first)
        assert machine.widget.start["occurred"] == ["2025-02-28", "2025-03-01", "2025-03-04", "2025-03-09"]
        handles = [machine.widget.start[name] for name in ("by", "position", "compare")]
        assert handles == ["occurred", "2025-03-04", "2025-03-01"]
        page = shown(machine, "2025-03-04", "2025-03-01")
        assert page == machine.picture()
        assert words(page).startswith(
            "order_summary| by all that occurred until 2025-03-04, as it is known now|Rows by status|status|rows|share"
            "|PAID|1| 100.0%"
        )
        between = "from the end of 2025-03-01 to that of 2025-03-04, by what occurred: |0 added, 0 removed, 1 changed"
        assert between in words(page)
        assert "|changed|o-1|status|PENDING|PAID|" in words(page)
        assert (machine.position, machine.compared) == (fourth, first)
        said = "<time machine: order_summary by all that occurred until 2025-03-04, compared with 2025-03-01>"
        assert repr(machine) == said
        found = snapshot(lab, fourth)
        assert found.latest.equals(lab.as_of(occurred=fourth).rows("order_summary").pl())
        assert (found.recorded_at, found.occurred) == (None, fourth)
        assert snapshot(lab, date(2025, 2, 28)).latest.is_empty()
        machine.move(2)
        assert machine.position == 2
        for wrong in ((3, first), (late, None)):
            with pytest.raises(InvalidMoment, match=r"two days|goes by day"):
                machine.move(*wrong)
        with pytest.raises(InvalidMoment, match="two positions, or two days"):
            difference(lab, 1, first)
        assert machine.position == 2


def test_it_is_moved_from_python(lab):
    """A cell moves the handles; a position that is not there moves nothing."""
    machine, told = time_machine(lab), []
    machine.widget.send = told.append
    machine.move(20, compare=9)
    assert (machine.position, machine.compared) == (20, 9)
    assert {name: told[0][name] for name in ("position", "compare", "head")} == {
        "position": 20, "compare": 9, "head": lab.head,
    }  # fmt: skip
    with pytest.raises(InvalidMoment):
        machine.move(lab.head + 1)
    assert (machine.position, len(told)) == (20, 1)


def test_people_who_only_read_see_the_head(lab, capsys):
    """The picture is an output of its own: the page at the head, and how to wake it; it tells no address."""
    machine = time_machine(lab)
    assert snapshot(lab, lab.head)._repr_html_() in machine.still()
    assert "To use it, run this cell" in machine.still()
    assert repr(machine) == f"<time machine: order_summary at position {lab.head} of {lab.head}>"
    assert time_machine(lab).still() == machine.still()
    machine._ipython_display_()
    assert capsys.readouterr().out.count(repr(machine)) == 1  # in a terminal


def test_what_goes_wrong_is_told_to_the_page(lab):
    """An error of the lab in its words, any other with its name; nothing is raised where nobody would see it."""
    machine = time_machine(lab)
    assert "is not a whole number" in machine.reply({"ask": "counts", "position": -1})["alert"]
    assert machine.reply({"ask": "counts"})["alert"] == "KeyError: 'position'"
    assert machine.reply({"ask": "hello"}) == {}
    sent = []
    machine.widget.send = sent.append
    machine._asked(None, {"ask": "counts", "id": "a-1"}, [])
    assert sent == [{"alert": "KeyError: 'position'", "id": "a-1"}]


def test_the_page_says_what_the_snapshot_has():
    """Position, time, counts by status and rows are on the page, times readable and empty values a dash."""
    now = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
    with open_shop(threads=1, clock=lambda: now) as lab:
        lab.send(place("o-1", NINE))
        lab.send(PayOrder(order_id="o-1", amount=Decimal("9.00")))
        append(lab, [(OrderPlaced(order_id="o-2"), 0)])
        page = words(time_machine(lab).picture())
    assert page == (
        "order_summary| at position 3, recorded 2025-03-01 12:30:00 UTC"
        "|Rows by status|status|rows|share|PENDING|1| 50.0%|PAID|1| 50.0%"
        "|Latest rows: 2 rows. Times are UTC. Empty in these rows, so left out: customer_name, customer_email."
        "|order_id|customer_id|status|total|paid|item_count|version|created_at|updated_at"
        "|o-1|c-1|PAID|9.00|9.00|1|2|2025-03-01 12:30:00|2025-03-01 12:30:00"
        "|o-2|–|PENDING|–|0.00|0|1|2025-01-01 00:00:00|2025-01-01 00:00:00"
    )


def test_values_are_words_and_not_html():
    """An id that looks like HTML is shown as it is and never becomes a tag."""
    with open_shop(threads=1) as lab:
        lab.send(place("<script>alert('x')</script>", NINE, customer='"><img src=x onerror=alert(1)>&amp;'))
        page = Cells(time_machine(lab, compare=0).picture())
    # JupyterLab takes others, svg among them, out of a notebook that it does not trust.
    assert page.tags <= {"p", "b", "div", "strong", "table", "caption", "thead", "tbody", "tr", "th", "td", "span"}
    assert "<script>alert('x')</script>" in page.cells
    assert '"><img src=x onerror=alert(1)>&amp;' in page.cells


def test_what_is_appended_later_can_be_reached():
    """An empty lab has position 0 alone; later events can be reached after the next move; trouble is shown."""
    with open_shop(threads=1) as lab:
        machine = time_machine(lab)
        assert (machine.widget.start["head"], machine.widget.start["days"]) == (0, [])
        assert "at position 0" in machine.picture()
        lab.send(place())
        told = machine.reply({"ask": "rows", "position": 0, "head": 0})
        assert (told["head"], told["ends"]) == (1, [1])
        assert "head" not in machine.reply({"ask": "rows", "position": 1, "head": 1})
    told = machine.reply({"ask": "counts", "position": 1})
    assert told == {"alert": told["alert"], "closed": True}
    assert "is closed; open it again" in told["alert"]


def test_anywidget_is_needed_for_a_widget_alone(lab, monkeypatch):
    """Without anywidget snapshots work, the module loads, and the time machine says what to install."""
    code = "import sys, cqrs_lab.workbench; sys.exit('anywidget' in sys.modules)"
    assert python(code).returncode == 0
    monkeypatch.setitem(sys.modules, "anywidget", None)
    live._kind.cache_clear()
    assert snapshot(lab, 1).position == 1
    with pytest.raises(CqrsLabError, match=r'pip install "cqrs-lab\[lab\]"'):
        time_machine(lab)
