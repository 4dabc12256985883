"""The flow of a log: what directly follows what, as rows and as a picture that shows everywhere."""

from __future__ import annotations

import base64
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
from support import pay, place

from cqrs_lab import Lab, open_shop
from cqrs_lab.errors import DeclarationError, InvalidTable
from cqrs_lab.workbench import flow_picture, flows, open_log

LOGS = Path(os.environ.get("CQRS_LAB_LOGS", Path(__file__).parents[3] / "shared" / "data" / "logs"))
SVG = "{http://www.w3.org/2000/svg}"
DAY = datetime(2026, 1, 1, tzinfo=UTC)
ODD = ["<b>bold</b>", "a \"quoted\" & 'name'", "x" * 300, "日本語の活動" * 9, "\x01\x1f", "]]>", " ", "\u202ebackwards"]


def log(*cases: str, hours: int = 1) -> Lab:
    """Open a log of cases; each letter is an activity, one every so many hours."""
    rows = [
        (f"c{n}", letter, DAY + timedelta(hours=hours * at))
        for n, case in enumerate(cases)
        for at, letter in enumerate(case)
    ]
    return open_log(pl.DataFrame(rows, schema=["case", "activity", "time"], orient="row"))


def texts(svg: str) -> list[str]:
    """The texts that are drawn."""
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_each_pair_is_counted_with_its_median_wait() -> None:
    """Starts and ends are pairs, too; without waits."""
    with log("abc", "ac", "abb") as lab:
        hour = timedelta(hours=1)
        assert sorted(flows(lab).rows(), key=str) == sorted(
            [
                (None, "a", 3, None), ("a", "b", 2, hour), ("a", "c", 1, hour), ("b", "b", 1, hour),
                ("b", "c", 1, hour), ("b", None, 1, None), ("c", None, 2, None),
            ],
            key=str,
        )  # fmt: skip
        assert flows(lab).schema["median_wait"] == pl.Duration("us")


def test_a_wait_is_a_median() -> None:
    """One case that waits for ever moves it little."""
    rows = [
        (f"c{n}", name, DAY + timedelta(hours=at))
        for n, h in enumerate((1, 2, 900))
        for name, at in (("a", 0), ("b", h))
    ]
    with open_log(pl.DataFrame(rows, schema=["case", "activity", "time"], orient="row")) as lab:
        assert ("a", "b", 3, timedelta(hours=2)) in flows(lab).rows()


def test_the_past_has_its_own_flow() -> None:
    """A position, what was recorded and what had occurred by a time each end every stream there."""
    with log("abc", "ac") as lab:
        moment = DAY + timedelta(minutes=90)
        for past in (lab.as_of(position=4), lab.as_of(recorded=moment), lab.as_of(occurred=moment)):
            hour = timedelta(hours=1)
            assert set(flows(past).rows()) == {
                (None, "a", 2, None), ("a", "b", 1, hour), ("a", "c", 1, hour), ("b", None, 1, None),
                ("c", None, 1, None),
            }  # fmt: skip
        assert "up to position 4" in flow_picture(lab.as_of(position=4)).alt
        assert "occurred by 2026-01-01 01:30 UTC" in flow_picture(lab.as_of(occurred=moment)).alt


def test_late_events_stand_where_they_happened() -> None:
    """What became known late comes before what it happened before, and no wait is negative."""
    with open_shop(threads=1) as lab:
        lab.send(place(1), occurred_at=DAY)
        lab.send(pay(1), occurred_at=DAY - timedelta(hours=2))
        assert ("OrderPaid", "OrderPlaced", 1, timedelta(hours=2)) in flows(lab, "order").rows()
        assert "2 h" in texts(flow_picture(lab, "order").svg)


def test_which_category_is_asked_for_where_there_are_several() -> None:
    """One that is not there, and none where there are several, are refused with those that there are."""
    with open_shop(threads=1) as lab:
        for ask in (flows, flow_picture):
            with pytest.raises(DeclarationError, match="category=…; there are order, customer"):
                ask(lab)
            with pytest.raises(DeclarationError, match="no category 'case'; there are order"):
                ask(lab.as_of(position=0), "case")
        assert flows(lab, "order").is_empty()
        with pytest.raises(InvalidTable, match="order has no events up to that moment"):
            flow_picture(lab, "order")
        for most in (0, -1, True, 2.5):
            with pytest.raises(InvalidTable, match="most="):
                flow_picture(lab, "order", most=most)  # type: ignore[arg-type]


def test_the_picture_tells_every_number_and_what_it_leaves_out() -> None:
    """Boxes, counts and waits are texts of the SVG; beyond `most` arrows a sentence says how many there are."""
    with log("abc", "ac", "abb", "ad") as lab:
        picture = flow_picture(lab)
        assert {
            "case: 10 events of 4 streams, up to position 10",
            "a",
            "b",
            "c",
            "d",
            "start",
            "end, so far",
            "1 h",
        } < (set(texts(picture.svg)))
        assert "Not shown" not in picture.svg
        assert picture.rows.equals(flows(lab))
        few = flow_picture(lab, most=3)
        note = "Not shown: 6 rarer arrows, 6 of 14 steps, and 1 of 4 activities."
        assert note in texts(few.svg)
        assert note in few.alt
        assert len(few.rows) == 9
        assert repr(few).startswith("<flow picture: case: 10 events of 4 streams, up to position 10. Not shown: 6")
        assert "the start to a, 4 times; a to b, 2 times, median wait 1 h" in repr(few)


def test_it_shows_in_an_untrusted_notebook_and_to_those_who_hear_it() -> None:
    """The page is one image with its text; the SVG within has a role, a title and a label, and needs nothing else."""
    with log("ab<'") as lab:
        picture = flow_picture(lab)
    bundle = picture._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/svg+xml", "text/plain"}
    # JupyterLab's sanitizer keeps an image, its text, width and data; it drops an SVG element.
    found = re.fullmatch(
        r'<img alt="([^"<>]+)" width="\d+" src="data:image/svg\+xml;base64,([\w+/=]+)">', bundle["text/html"]
    )
    assert found is not None
    assert base64.b64decode(found[2]).decode() == bundle["image/svg+xml"] == picture.svg
    root = ElementTree.fromstring(picture.svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", picture.alt)
    assert (root[0].tag, root[0].text) == (f"{SVG}title", "case: 4 events of 1 streams, up to position 4")
    ground = root.find(f"{SVG}rect")
    assert ground is not None
    assert (ground.get("width"), ground.get("fill")) == (root.get("width"), "#ffffff")
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "g", "title", "desc", "rect", "path", "text"}
    assert not re.search(r"href|url\(|<style|script|\bid=|\bon\w+=", picture.svg)


def test_any_text_is_a_name_and_never_markup() -> None:
    """Odd, long, blank and unprintable names give well-formed SVG; the whole name is a title."""
    rows = [("c", name, DAY + timedelta(minutes=n)) for n, name in enumerate([*ODD, ODD[0]])]
    with open_log(pl.DataFrame(rows, schema=["case", "activity", "time"], orient="row")) as lab:
        picture = flow_picture(lab)
    drawn = texts(picture.svg)
    assert {"<b>bold</b>", "]]>", "(blank)", "\ufffdbackwards", "\ufffd\ufffd"} < set(drawn)
    assert any(text.endswith("x…") for text in drawn)
    assert max(map(len, drawn[2:])) < 30
    titles = {title.text for title in ElementTree.fromstring(picture.svg).iter(f"{SVG}title")}
    assert f"{'x' * 300}: 1 times" in titles


@pytest.mark.parametrize("most", [1, 12, 40, 500])
def test_no_label_covers_a_box_or_another_label(most: int) -> None:
    """However many arrows, boxes and labels stay apart, and within the picture."""
    cases = ["abcdefg", "abcabcabc", "aacceg", "gfedcba", "adgbecf", "bd", "hhh", "ijklmnop", "ponm", "aponhb"]
    with log(*cases, hours=1_000) as lab:
        picture = flow_picture(lab, most=most)
    root = ElementTree.fromstring(picture.svg)
    places = []
    for shape in root[-1].iter(f"{SVG}rect"):
        x, y, width, height = (float(shape.get(name) or 0) for name in ("x", "y", "width", "height"))
        places.append((x, y, x + width, y + height))
        assert min(x, y) >= -0.1
        assert x + width <= picture.width
        assert y + height <= picture.height
    for n, one in enumerate(places):
        for other in places[:n]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert apart, (one, other)


def test_no_arrow_crosses_a_box() -> None:
    """An arrow goes by at the side of boxes that are not its own, whether they are high or not."""
    long = "a name that takes three lines, for it has so many words in it, and more"
    cases = [["s", long, "b", "e"], ["s", "b", "c", "e"], ["s", "c", long, "e"], ["s", "e"], ["s", "c", "s", "d", "e"]]
    rows = [
        (f"c{n}", name, DAY + timedelta(hours=at)) for n, case in enumerate(cases * 3) for at, name in enumerate(case)
    ]
    with open_log(pl.DataFrame(rows, schema=["case", "activity", "time"], orient="row")) as lab:
        root = ElementTree.fromstring(flow_picture(lab).svg)
    shapes = [group.find(f"{SVG}rect") for group in root[-1] if group.find(f"{SVG}title") is not None]
    boxes = [
        tuple(float(box.get(name) or 0) for name in ("x", "y", "width", "height")) for box in shapes if box is not None
    ]
    assert len(boxes) == 8
    for path in root[-1].iter(f"{SVG}path"):
        for x, y in passed(path.get("d") or "") if path.get("fill") == "none" else ():
            assert not any(bx < x < bx + w and by + 0.1 < y < by + h - 0.1 for bx, by, w, h in boxes), (x, y)


def passed(path: str) -> list[tuple[float, float]]:
    """Points along a path of an arrow."""
    points, x0, y0 = [], 0.0, 0.0
    for kind, numbers in re.findall(r"([MCV])([-\d. ]+)", path):
        given = [float(number) for number in numbers.split()]
        a, b, c, d, x, y = {"M": [*given * 3], "C": given, "V": [x0, y0, x0, *given, x0, *given]}[kind]
        for n in range(21):
            t, s = n / 20, 1 - n / 20
            px = s**3 * x0 + 3 * s * s * t * a + 3 * s * t * t * c + t**3 * x
            points.append((px, s**3 * y0 + 3 * s * s * t * b + 3 * s * t * t * d + t**3 * y))
        if kind == "M":
            points = []
        x0, y0 = x, y
    return points


@pytest.mark.skipif(not (LOGS / "receipt.csv").exists(), reason="the logs are not on this machine")
@pytest.mark.parametrize(("name", "events", "cases"), [("receipt.csv", 8_577, 1_434), ("running-example.xes", 42, 6)])
def test_a_log_that_people_publish_is_drawn(name: str, events: int, cases: int) -> None:
    """The picture of a real log has its numbers, and all arrows together are its events and cases."""
    with open_log(LOGS / name) as lab:
        picture = flow_picture(lab)
        assert picture.alt.startswith(f"case: {events:,} events of {cases:,} streams")
        assert picture.rows["times"].sum() == events + cases
        ElementTree.fromstring(picture.svg)
        assert flow_picture(lab).svg == picture.svg  # the same at every run
