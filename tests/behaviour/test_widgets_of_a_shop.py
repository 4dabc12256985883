"""The order console sends what a form says and tells what came of it; the lag monitor shows lag, and has buttons."""

from __future__ import annotations

import pytest
from support import wait_until

from cqrs_lab import open_shop
from cqrs_lab.errors import DeclarationError
from cqrs_lab.shop import daily_orders, order_summary
from cqrs_lab.workbench import lag_monitor, order_console
from cqrs_lab.workbench.course import breakdown
from cqrs_lab.workbench.show.lag_monitor import lag_state
from cqrs_lab.workbench.show.order_console import FORMS, LABELS, console_state, send_form

FORM = {
    "order_id": "o-1", "customer_id": "c-1", "product_id": "p-1", "quantity": "2", "unit_price": "9.99",
    "amount": "19.98", "tracking_number": "T-1", "reason": "late",
}  # fmt: skip


@pytest.fixture
def lab():
    """A shop with a read model that is inline, and one that is late on purpose."""
    with open_shop(threads=1) as shop:
        shop.serve(order_summary, mode="inline")
        shop.serve(order_summary, as_="materialized")
        yield shop


def test_every_form_carries_its_command_out(lab):
    """Each form leads to its event; the fields that it does not need are left alone."""
    for do, event in (
        ("place", "OrderPlaced"), ("pay", "OrderPaid"), ("ship", "OrderShipped"), ("deliver", "OrderDelivered"),
        ("refund", "OrderRefunded"),
    ):  # fmt: skip
        outcome = send_form(lab, do, FORM)
        assert outcome.words == f"Done: {event}, at position {lab.head}."
        assert (outcome.refused, outcome.position) == (False, lab.head)
    send_form(lab, "place", FORM | {"order_id": "o-2"})
    assert "OrderCancelled" in send_form(lab, "cancel", FORM | {"order_id": "o-2"}).words
    assert {name for _, names in FORMS.values() for name in names} | {"order_id"} == set(LABELS) == set(FORM)


@pytest.mark.parametrize(
    ("do", "fields", "words"),
    [
        ("place", {}, "Sorry, no. Order o-1 waits for its payment, and an order is placed once. Nothing was stored."),
        ("pay", {"amount": "5"}, "Sorry, no. Order o-1: 19.98 due, 5 offered, and an order is paid whole. "),
        ("ship", {"order_id": "o-9"}, "Sorry, no. There is no order o-9, and only a paid order is shipped. "),
        ("place", {"customer_id": " "}, "Please fill in the field 'customer'. Nothing was sent."),
        ("place", {"quantity": "two"}, "'units' takes a whole number from 1 on, and not 'two'. Nothing was sent."),
        ("place", {"unit_price": "?"}, "'price of one' takes a sum such as 9.99, and not '?'. Nothing was sent."),
        ("pay", {"amount": "-1"}, "The form is not filled in right: amount: "),
    ],
)
def test_a_refusal_is_told_in_the_words_of_a_shopkeeper(lab, do, fields, words):
    """It says what the matter is, and that nothing was stored."""
    send_form(lab, "place", FORM)
    outcome = send_form(lab, do, FORM | fields)
    assert outcome.words.startswith(words)
    assert (outcome.refused, outcome.position, lab.head) == (True, None, 1)


def test_each_served_model_shows_whether_it_is_fresh(lab):
    """One that moves with the append is fresh and knows the order; one that does not is processing and does not."""
    assert not console_state(lab).is_late
    send_form(lab, "place", FORM)
    state = console_state(lab, "o-1")
    found = {row["served_as"]: row for row in state.models.filter(model="order_summary").to_dicts()}
    assert (found["projection"]["says"], found["projection"]["state"]) == ("PENDING", "fresh")
    assert (found["materialized"]["says"], found["materialized"]["state"]) == (None, "processing")
    assert found["materialized"]["behind"] == 1
    assert state.is_late
    assert state.events["type"].to_list() == ["OrderPlaced"]
    assert state.events["data"][0].endswith("}")  # whole
    assert "processing" in state._repr_html_()


def test_the_console_answers_its_page(lab):
    """A form is told as done or as an alert; the button moves what moves by hand, materialized tables as well."""
    lab.serve(daily_orders)
    console = order_console(lab)
    assert "A form stands here" in console.still()
    send = {"ask": "send", "do": "place", "fields": FORM, "order_id": "o-1"}
    first, second = console.reply(send), console.reply(send)
    assert first["said"] == "Done: OrderPlaced, at position 1."
    assert first["late"]
    assert second["alert"].startswith("Sorry, no.")
    assert "said" not in second
    assert console.outcome.refused
    moved = console.reply({"ask": "catch up"})
    assert moved["said"] == "All read models were moved to position 1."
    assert not moved["late"]
    assert console.reply({"ask": "state"}) == {"quiet": True, "page": moved["page"], "late": False}
    assert repr(console) == "<order console: order o-1 at position 1>"


def test_words_of_a_form_never_become_html(lab):
    """An order whose number looks like HTML is shown as it is."""
    send_form(lab, "place", FORM | {"order_id": "<b>x"})
    page = console_state(lab, "<b>x")._repr_html_()
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page


def test_the_monitor_tells_lag_and_ends_with_its_lab(lab):
    """Its numbers are those of the lab, and a closed lab tells the page to stop asking."""
    monitor = lag_monitor(lab)
    send_form(lab, "place", FORM)
    told = monitor.reply({"ask": "state"})
    assert told["behind"] == {"order_summary (materialized)": 1, "order_summary (projection)": 0} | {
        name: 0 for name in told["behind"] if "order_summary" not in name
    }
    state = lag_state(lab)
    assert told["behind"] == state.behind
    assert ">1 of 1<" in told["page"]  # not compared as a whole: its seconds go on
    assert ">1 of 1<" not in monitor.picture()
    lab.close()
    assert monitor.reply({"ask": "state"})["closed"]


def test_buttons_do_what_the_notebook_gave_them(lab):
    """What they return is said, what they raise is an alert, and people who only read learn which there are."""
    monitor = lag_monitor(lab, {"say": lambda: "said it", "keep quiet": lambda: None, "fail": lambda: 1 / 0})
    said = [monitor.reply({"ask": "do", "do": name}) for name in monitor.actions]
    assert [answer.get("said") for answer in said] == ["said it", "keep quiet: done", None]
    assert said[2] == {"alert": "ZeroDivisionError: division by zero"}
    assert "say, keep quiet, fail" in monitor.still()
    with pytest.raises(DeclarationError, match="above 0"):
        lag_monitor(lab, every=0)


def test_the_breakdown_stops_poisons_and_repairs():
    """Work reaches the read model; stopped it falls behind; poisoned it fails; repaired it has every row."""

    def parcels(**wanted):
        row = lab.lag().pl().filter(model="parcels").row(0, named=True)
        return all(row[name] == value for name, value in wanted.items())

    with open_shop(threads=1) as lab:
        stage = breakdown(lab)
        assert stage.work() == "order b-1 left as parcel 101"
        wait_until(lambda: parcels(events_behind=0))
        stage.stop()
        stage.work()
        assert parcels(events_behind=3, mode="manual")
        stage.go_on()
        wait_until(lambda: parcels(events_behind=0))
        stage.poison()
        wait_until(lambda: parcels(state="failing") or parcels(state="stopped"))
        assert not parcels(events_behind=0)
        stage.repair()
        wait_until(lambda: parcels(events_behind=0, state="ok"))
        assert lab.sql("SELECT parcel FROM parcels ORDER BY order_id").pl()["parcel"].to_list() == [101, 102, 103]
        assert list(stage.actions) == ["ship an order", "stop", "go on", "poison", "repair"]
