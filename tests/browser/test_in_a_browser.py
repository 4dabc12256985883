"""The course and its widgets in a real JupyterLab and a real browser that reaches nothing else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CELLS = [
    """from cqrs_lab import open_shop
from cqrs_lab.shop import order_summary
from cqrs_lab.workbench import (
    Workload, advice_widget, generate, lag_monitor, order_console, recorded_measurements, time_machine,
)
from cqrs_lab.workbench.course import breakdown
shop = open_shop()
shop.serve(order_summary, mode="inline")
shop.serve(order_summary, as_="materialized")
stage = breakdown(shop)
lab = open_shop()
generate(lab, Workload(orders=500, seed=7)).events""",
    "order_console(shop)",
    "lag_monitor(shop, stage.actions)",
    "machine = time_machine(lab)\nmachine",
    "advice_widget(recorded_measurements())",
]
CONSOLE, MONITOR, MACHINE, ADVICE = range(4)


@pytest.fixture(scope="module")
def page(desk: Any) -> Iterator[Page]:
    """A notebook with every widget, run."""
    name = desk.write("widgets.ipynb", *CELLS)
    opened = desk.open(name)
    desk.run(opened)
    opened.locator(".cqrs-lab-live tbody").nth(len(CELLS)).wait_for(state="attached")
    yield opened
    desk.close(opened)


def widget(page: Page, number: int) -> Locator:
    """Return a widget that lives."""
    return page.locator(".cqrs-lab-live").nth(number)


def says(place: Locator, words: str) -> None:
    """Wait until words can be read in a place."""
    place.get_by_text(re.compile(re.escape(words))).first.wait_for()


def reads(place: Locator, value: str) -> None:
    """Wait until a field holds a value."""
    place.page.wait_for_function("([field, value]) => field.value === value", arg=[place.element_handle(), value])


def test_the_first_notebook_runs_whole(desk: Any) -> None:
    """Run from its first cell to its last, it ends without an error and reaches nothing but its own server."""
    shutil.copy(NOTEBOOKS / "00_start_here.ipynb", desk.folder)
    page = desk.open("00_start_here.ipynb")
    desk.run(page)
    desk.command(page, "docmanager:save")
    cells = [cell for cell in desk.read("00_start_here.ipynb").cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    failed = [cell for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert all("raises-exception" in cell.metadata.get("tags", []) for cell in failed)
    page.locator(".cqrs-lab-live").first.wait_for(state="attached")
    assert desk.reached == []
    desk.close(page)


def test_the_slider_moves_by_keyboard(desk: Any, page: Page) -> None:
    """Arrows move it by an event, Page Down by a day, Home to the start; number and date go along."""
    machine = widget(page, MACHINE)
    slider, number, day = (
        machine.get_by_role("slider", name="position in the log", exact=True),
        machine.get_by_label("position", exact=True),
        machine.get_by_label("day", exact=True),
    )
    head = int(slider.get_attribute("max") or 0)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    reads(number, str(head - 1))
    says(machine, f"at position {head - 1:,}")
    last = day.input_value()
    page.keyboard.press("PageDown")
    page.wait_for_function("([field, last]) => field.value < last", arg=[day.element_handle(), last])
    said = slider.get_attribute("aria-valuetext") or ""
    assert said.endswith(f"recorded on {day.input_value()}")
    says(machine, f"at position {int(number.input_value()):,}")
    page.keyboard.press("Home")
    reads(number, "0")
    says(machine, "at position 0")
    assert day.input_value() == ""


def test_no_shortcut_of_the_notebook_fires_in_a_widget(page: Page) -> None:
    """Keys that would insert, cut or delete a cell do nothing to the notebook while a handle has the focus."""
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    slider = widget(page, MACHINE).get_by_role("slider", name="position in the log", exact=True)
    slider.focus()
    for key in "abxdd":
        page.keyboard.press(key)
    assert slider.evaluate("one => one === document.activeElement")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells == len(CELLS)


def test_the_slider_moves_by_mouse(page: Page) -> None:
    """Dragged to the middle it shows the middle; it is as wide as its output."""
    machine = widget(page, MACHINE)
    slider = machine.get_by_role("slider", name="position in the log", exact=True)
    slider.scroll_into_view_if_needed()
    box, whole = slider.bounding_box(), machine.bounding_box()
    assert box
    assert whole
    assert box["width"] > 0.9 * whole["width"]
    page.mouse.move(box["x"] + 20, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=10)
    position = int(slider.input_value())  # it has moved already, and so has the number, while the mouse is down
    reads(machine.get_by_label("position", exact=True), str(position))
    page.mouse.up()
    head = int(slider.get_attribute("max") or 0)
    assert 0.4 * head < position < 0.6 * head
    says(machine, f"at position {position:,}")


def test_a_date_and_a_second_position_are_chosen(page: Page) -> None:
    """A date moves to its last event; a second position shows what changed from there."""
    machine = widget(page, MACHINE)
    day = machine.get_by_label("day", exact=True)
    first = day.get_attribute("min") or ""
    day.fill(first)
    says(machine, f"recorded {first}")
    machine.get_by_label("compare two positions").check()
    other = machine.get_by_label("from position", exact=True)
    other.fill("0")
    other.press("Tab")
    says(machine, "from position 0 to")


def test_it_goes_by_what_occurred(page: Page) -> None:
    """A choice goes by the days on which events occurred, by keyboard too, and back; each handle stays at its day."""
    machine = widget(page, MACHINE)
    machine.get_by_label("compare two positions").uncheck()
    slider, day, number = (
        machine.get_by_role("slider", name="position in the log", exact=True),
        machine.get_by_label("day", exact=True),
        machine.get_by_label("position", exact=True),
    )
    slider.focus()
    page.keyboard.press("End")
    machine.get_by_label("recorded: what was known then").focus()
    page.keyboard.press("ArrowRight")
    assert machine.get_by_label("occurred: what was true then").is_checked()
    last = day.input_value()
    says(machine, f"by all that occurred until {last}")
    assert not number.is_visible()
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("([field, last]) => field.value < last", arg=[day.element_handle(), last])
    assert slider.get_attribute("aria-valuetext") == f"all that occurred until {day.input_value()}"
    says(machine, f"by all that occurred until {day.input_value()}")
    page.keyboard.press("Home")
    day.fill(last)
    says(machine, f"by all that occurred until {last}")
    machine.get_by_label("recorded: what was known then").check()
    reads(number, slider.get_attribute("max") or "")
    says(machine, f"at position {int(number.input_value()):,}")


def test_every_control_has_a_name(page: Page) -> None:
    """Each control has a name of its own within its widget, and no tooltip says null."""
    for number in (CONSOLE, MONITOR, MACHINE, ADVICE):
        controls = widget(page, number).locator("input:visible, button:visible")
        names = controls.evaluate_all(
            "all => all.map(one => one.type + ' ' + (one.getAttribute('aria-label') || one.labels?.[0]?.innerText"
            " || one.innerText))"
        )
        assert all(len(name.split(" ", 1)[1].strip()) > 2 for name in names), names
        assert len(set(names)) == len(names)
    assert page.locator('.jp-Notebook [title="null"]').count() == 0


def test_an_order_is_placed_and_refused_in_the_console(page: Page) -> None:
    """Placed, the event appears, one read model is fresh and the late one processing; placed again, it is refused."""
    console = widget(page, CONSOLE)
    console.get_by_label("order", exact=True).fill("o-77")
    send = console.get_by_role("button", name="send the command")
    console.get_by_label("customer").press("Enter")
    says(console, "Done: OrderPlaced")
    says(console, "order/o-77")
    says(console, "PENDING")
    says(console, "processing")
    send.click()
    says(console.get_by_role("alert"), "Sorry, no. Order o-77 waits for its payment")
    console.get_by_label("pay", exact=True).check()
    assert not console.get_by_label("customer").is_visible()
    console.get_by_role("button", name="move the read models").click()
    says(console, "All read models were moved")
    console.get_by_text("processing").wait_for(state="detached")


def test_the_lag_is_live_and_buttons_break_and_repair(page: Page) -> None:
    """What a button does is seen in the table: poisoned, the read model fails; repaired, it does not."""
    monitor = widget(page, MONITOR)
    monitor.get_by_role("button", name="poison").click()
    row = monitor.locator("tr", has_text="parcels")
    row.get_by_text(re.compile("failing|stopped")).wait_for()
    monitor.get_by_role("button", name="repair").click()
    row.get_by_text("ok").wait_for()
    assert "parcels (projection)" in (monitor.get_by_role("img").get_attribute("aria-label") or "")


def test_the_advice_is_asked_for_by_keyboard(page: Page) -> None:
    """Arrow keys choose the question, and the focus stays in the widget."""
    advice = widget(page, ADVICE)
    advice.get_by_label("point", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert advice.get_by_label("list", exact=True).is_checked()
    assert advice.evaluate("one => one.contains(document.activeElement)")
    advice.get_by_label("reads a second").fill("")
    says(advice.get_by_role("alert"), "in numbers")
    advice.get_by_label("reads a second").fill("300")
    says(advice, "Take ")
    advice.get_by_role("alert").wait_for(state="detached")


def test_the_picture_is_there_when_the_widget_is_not(desk: Any, page: Page) -> None:
    """While it lives its picture is hidden; after a restart, and saved and opened again, the picture stands there."""
    pictures = page.locator(".cqrs-lab-picture")
    assert pictures.count() == 4
    assert not any(pictures.nth(n).is_visible() for n in range(4))
    desk.restart(page)
    pictures.first.wait_for()
    desk.command(page, "docmanager:save")
    page.close()
    again = desk.open("widgets.ipynb")
    for name, words in (
        ("order console", "What each read model knows"),
        ("lag monitor", "ship an order, stop"),
        ("time machine", "Rows by status"),
        ("advice", "You do not need CQRS"),
    ):
        picture = again.locator(".cqrs-lab-picture", has_text=f"A picture of the {name}")
        says(picture, "run this cell in JupyterLab")
        says(picture, words)
    assert not again.get_by_text("model not found").locator("visible=true").count()
    assert desk.reached == []
    desk.close(again)
