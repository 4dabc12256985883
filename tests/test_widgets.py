"""The time machine shows each read model as it was, by slider or by number, and to people who only read."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import append, histories

from cqrs_lab import ReadModel, open_shop
from cqrs_lab.errors import CqrsLabError, InvalidMoment, UnknownReadModel
from cqrs_lab.shop import OrderLine, OrderPlaced, PayOrder, PlaceOrder, RegisterCustomer, daily_orders, orders
from cqrs_lab.shop.orders import STAGES
from cqrs_lab.workbench.widgets import snapshot, time_machine
from cqrs_lab.workbench.workload import Workload, generate

SMALL = Workload(orders=30, seed=5)


@pytest.fixture
def lab():
    """A shop with a small workload."""
    with open_shop(threads=1) as shop:
        generate(shop, SMALL)
        yield shop


def place(lab, order_id="o-1", customer_id="c-1"):
    """Place an order of one line for 9.00."""
    line = OrderLine(product_id="p-1", quantity=1, unit_price=Decimal("9.00"))
    return lab.send(PlaceOrder(order_id=order_id, customer_id=customer_id, lines=[line]))


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


@given(history=histories, share=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_a_snapshot_is_a_fold_of_the_events_up_to_it(history, share):
    """At any position the counts, in the order of the stages, are those of a fold in plain Python."""
    with open_shop(threads=1) as lab:
        append(lab, history)
        position = round(share * lab.head)
        streams = {}
        for event, _ in history[:position]:
            streams.setdefault(event.order_id, []).append(event)
        statuses = Counter(orders.fold(events).status for events in streams.values())
        seen = snapshot(lab, position)
        assert seen.counts.rows() == [(status, statuses[status]) for status in STAGES if status in statuses]
        assert seen.position == position
        assert len(seen.latest) == min(len(streams), 5)


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
        with pytest.raises(InvalidMoment, match=f"position={position}"):
            snapshot(lab, position)
    with pytest.raises(UnknownReadModel, match="orders"):
        snapshot(lab, 1, model="orders")
    with pytest.raises(UnknownReadModel, match="orders"):
        time_machine(lab, "orders")


def test_the_slider_and_the_number_move_together(lab):
    """Moving either one moves the other and shows the snapshot of that position."""
    machine = time_machine(lab)
    assert (machine.slider.min, machine.slider.max, machine.slider.value) == (0, lab.head, lab.head)
    machine.slider.value = 20
    assert machine.number.value == 20
    assert machine.page.value == snapshot(lab, 20)._repr_html_()
    machine.number.value = 33
    assert machine.slider.value == 33
    assert machine.page.value == snapshot(lab, 33)._repr_html_()
    machine.number.value = 10**6
    assert machine.slider.value == lab.head


def test_both_can_be_used_without_a_mouse_or_eyes(lab):
    """The number has a name of its own, and the slider asks once it rests, not on the way."""
    machine = time_machine(lab)
    assert machine.number.description == "position, typed"
    assert machine.slider.description == "position"
    assert machine.slider.continuous_update is False
    controls, page = machine.box.children
    assert (controls.children, page) == ((machine.slider, machine.number), machine.page)


def test_people_who_only_read_see_the_head(lab):
    """Where no widget runs, the cell's output is the page at the head, and its text tells no address."""
    machine = time_machine(lab)
    bundle = machine._repr_mimebundle_(include=None, exclude=None)
    assert bundle["text/html"] == snapshot(lab, lab.head)._repr_html_()
    assert (
        bundle["text/plain"] == repr(machine) == f"<time machine: order_summary at position {lab.head} of {lab.head}>"
    )
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == machine.box.model_id
    again = time_machine(lab)._repr_mimebundle_()
    assert {kind: again[kind] for kind in ("text/html", "text/plain")} == {
        kind: bundle[kind] for kind in ("text/html", "text/plain")
    }


def test_the_page_says_what_the_snapshot_has():
    """Position, time, counts by status and rows are on the page, times readable and empty values empty."""
    now = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
    with open_shop(threads=1, clock=lambda: now) as lab:
        place(lab)
        lab.send(PayOrder(order_id="o-1", amount=Decimal("9.00")))
        append(lab, [(OrderPlaced(order_id="o-2"), 0)])
        page = "|".join(cell for cell in Cells(time_machine(lab).page.value).cells if cell.strip())
    assert page == (
        "order_summary| at position 3, recorded 2025-03-01 12:30:00 UTC"
        "|rows by status|status|rows|PENDING|1|PAID|1"
        "|latest rows|order_id|customer_id|status|total|paid|item_count|version|created_at|updated_at"
        "|o-1|c-1|PAID|9.00|9.00|1|2|2025-03-01 12:30:00|2025-03-01 12:30:00"
        "|o-2|PENDING|0.00|0|1|2025-01-01 00:00:00|2025-01-01 00:00:00"
    )


def test_values_are_words_and_not_html():
    """An id that looks like HTML is shown as it is and never becomes a tag."""
    with open_shop(threads=1) as lab:
        place(lab, order_id="<script>alert('x')</script>", customer_id='"><img src=x onerror=alert(1)>&amp;')
        page = Cells(time_machine(lab).page.value)
    assert page.tags <= {"p", "b", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert "<script>alert('x')</script>" in page.cells
    assert '"><img src=x onerror=alert(1)>&amp;' in page.cells


def test_what_is_appended_later_can_be_reached(lab):
    """After the next move the slider and the number reach events that were appended since."""
    machine = time_machine(lab)
    position = lab.send(RegisterCustomer(customer_id="c-new", name="Ada", email="ada@example.org")).position
    machine.slider.value = 1
    assert machine.slider.max == machine.number.max == position
    machine.slider.value = position
    assert machine.page.value == snapshot(lab, position)._repr_html_()


def test_an_empty_lab_has_a_time_machine():
    """Without events there is position 0 alone, with no rows."""
    with open_shop(threads=1) as lab:
        machine = time_machine(lab)
        assert (machine.slider.max, machine.slider.value) == (0, 0)
        assert "at position 0" in machine.page.value


def test_trouble_is_shown_where_one_looks():
    """When a move fails, the page says why."""
    lab = open_shop(threads=1)
    generate(lab, SMALL)
    machine = time_machine(lab)
    lab.close()
    machine.slider.value = 3
    assert "is closed; open it again" in machine.page.value


def test_ipywidgets_is_needed_for_a_widget_alone(lab, monkeypatch):
    """Without ipywidgets snapshots work, the module loads, and the time machine says what to install."""
    code = "import sys, cqrs_lab.workbench.widgets; sys.exit('ipywidgets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert snapshot(lab, 1).position == 1
    with pytest.raises(CqrsLabError, match=r"pip install 'cqrs-lab\[lab\]'"):
        time_machine(lab)
