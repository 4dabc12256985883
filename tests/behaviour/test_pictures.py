"""Pictures of the lab: well-formed, with words for those who do not see them, and true to what they draw."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from xml.etree import ElementTree

import polars as pl
import pytest
from support import line, pay, place

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.errors import InvalidTable, NotServed, ProjectionFailed, QueryError
from cqrs_lab.shop import DeliverOrder, ShipOrder, SimulatedGateway, StockProduct, order_summary
from cqrs_lab.workbench import (
    SvgPicture,
    advise,
    belief_picture,
    loop_picture,
    poisoned_picture,
    recorded_measurements,
    saga_picture,
    standing,
    stream_picture,
    tipping_picture,
)

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: SvgPicture) -> list[str]:
    """The texts that are drawn, all of them within the picture."""
    root = ElementTree.fromstring(picture.svg)
    assert root.get("aria-label") == root.findtext(f"{SVG}desc") == picture.alt
    assert (root.get("width"), root.get("height")) == (str(picture.width), str(picture.height))
    for text in root.iter(f"{SVG}text"):
        assert -30 <= float(text.get("x", 0)) <= picture.width
        assert 0 <= float(text.get("y", 0)) <= picture.height
    return [text.text or "" for text in root.iter(f"{SVG}text")]


@pytest.fixture
def shop() -> Iterator[Lab]:
    """A shop whose saga gave up an order, since one of two products was missing, and another order with a line more."""
    with open_shop(threads=1, gateway=SimulatedGateway()) as lab:
        lab.follow("fulfilment")
        lab.send(StockProduct(product_id="pen", quantity=3))
        lab.send(place("<o>", line("pen"), line("ink")), correlation_id="bad")
        lab.catch_up()
        yield lab


def test_the_loop_shows_in_a_notebook_that_is_not_trusted() -> None:
    """It is an image with a text, the same at every run; what a notebook prints in its place is the text."""
    picture = loop_picture()
    for name in ("Command", "Decider", "Event", "Log", "Read model", "Query"):
        assert name in texts(picture)
    bundle = picture._repr_mimebundle_()
    assert bundle["text/html"].startswith('<img alt="The loop. Write side: a command, such as PayOrder, ')
    assert 'src="data:image/svg+xml;base64,' in bundle["text/html"]
    assert bundle["text/plain"] == f"<picture: {picture.alt}>"
    assert loop_picture().svg == picture.svg


def test_a_stream_is_drawn_with_versions_and_places(shop: Lab) -> None:
    """Each event has its version, its position, and between them the number of events of other streams."""
    drawn = texts(stream_picture(shop, "order/<o>"))
    assert drawn[0] == f"order/<o>: 2 events of {shop.head} in the log"
    assert [text for text in drawn if text.startswith("version")] == ["version 1", "version 2"]
    positions = shop.events(stream="order/<o>").pl()["position"].to_list()
    assert {str(position) for position in positions} <= set(drawn)
    assert {"OrderPlaced", "OrderCancelled", f"{positions[1] - positions[0] - 1} others"} <= set(drawn)
    few = stream_picture(shop, "order/<o>", most=1)
    assert "Not shown: the 1 last ones." in texts(few)
    assert f"version 1, OrderPlaced, at position {positions[0]}" in few.alt
    with pytest.raises(InvalidTable, match="'order/none' has no events"):
        stream_picture(shop, "order/none")
    with pytest.raises(InvalidTable, match="most=0"):
        stream_picture(shop, "order/<o>", most=0)


def test_a_saga_is_a_sequence(shop: Lab) -> None:
    """Every command and event of the story is an arrow, in order; each stream and the saga have a lane."""
    picture = saga_picture(shop, "bad")
    drawn = texts(picture)
    story = [row for row in shop.trace("bad").dicts() if row["kind"] != "row"]
    names = [row["name"] for row in story]
    assert [text for text in drawn if text in names] == names
    assert {"sender", "saga fulfilment", "order/<o>", "product/pen"} <= set(drawn)
    assert "sender sends PlaceOrder to order/<o>; OrderPlaced in order/<o> (position 2)" in picture.alt
    with pytest.raises(InvalidTable, match="nothing carries the correlation id 'none'"):
        saga_picture(shop, "none")


def test_a_story_of_many_streams_has_a_lane_for_each_category() -> None:
    """More streams than can be read side by side are put together."""
    with open_shop(threads=1) as lab:
        for n in range(12):
            lab.send(StockProduct(product_id=f"p-{n}", quantity=1), correlation_id="many")
        drawn = texts(saga_picture(lab, "many"))
        assert "product" in drawn
        assert drawn.count("ProductStocked") == 12


def test_beliefs_are_those_of_the_past() -> None:
    """Each cell is what `as_of` answers; a cell that says otherwise than the one above is marked, and told."""
    now = datetime(2026, 1, 4, 9, tzinfo=UTC)
    days = [date(2026, 1, day) for day in (3, 4, 5, 8)]
    with open_shop(threads=1, clock=lambda: now) as lab:
        for command in (place(1), pay(1), ShipOrder(order_id="o-1", tracking_number="T")):
            lab.send(command)
        now = datetime(2026, 1, 8, 9, tzinfo=UTC)
        lab.send(DeliverOrder(order_id="o-1"), occurred_at=datetime(2026, 1, 5, 14, tzinfo=UTC))
        picture = belief_picture(lab, order_summary, "o-1", "status", recorded=days, occurred=days)
        cells = [lab.as_of(recorded=r, occurred=o).get(order_summary, "o-1") for r in days for o in days]
        wanted = [row["status"] if row else "no row" for row in cells]
        assert [text for text in texts(picture) if text in wanted] == wanted
        assert wanted.count("DELIVERED") == 2
        assert "on Thu 08 Jan about Mon 05 Jan: SHIPPED became DELIVERED" in picture.alt
        assert "no row became" not in picture.alt
        with pytest.raises(InvalidTable, match="no column 'colour'; it has order_id"):
            belief_picture(lab, order_summary, "o-1", "colour", recorded=days, occurred=days)
        with pytest.raises(InvalidTable, match="at least one moment"):
            belief_picture(lab, order_summary, "o-1", "status", recorded=[], occurred=days)


def test_a_poisoned_projection_has_a_time_line() -> None:
    """Each step tells where it stood, that it stopped, and what it set aside."""
    parcels = ReadModel(
        "parcels",
        key="order_id",
        sql="SELECT order_id, max(CAST(tracking_number AS BIGINT)) AS n FROM order_events GROUP BY 1",
    )
    with open_shop(threads=1) as lab:
        with pytest.raises(NotServed, match="parcels is not served as a projection; serve it first"):
            standing(lab, parcels, "early")
        lab.serve(parcels)
        lab.send(place(1))
        lab.send(pay(1))
        lab.catch_up()
        noted = [standing(lab, parcels, "paid")]
        lab.send(ShipOrder(order_id="o-1", tracking_number="T-<1>"))
        with pytest.raises(ProjectionFailed):
            lab.catch_up()
        noted.append(standing(lab, parcels, "poisoned"))
        lab.serve(parcels, on_error="dead letter")
        lab.catch_up()
        noted.append(standing(lab, "parcels", "set aside"))
    assert [(one.position, one.head, one.dead) for one in noted] == [(2, 2, ()), (2, 3, ()), (3, 3, (3,))]
    picture = poisoned_picture(noted)
    assert {"paid", "poisoned", "stopped", "1 behind", "1 dead letter", "set aside: 3"} <= set(texts(picture))
    assert "poisoned: at position 2 of 3, stopped" in picture.alt
    with pytest.raises(InvalidTable, match="nothing was noted"):
        poisoned_picture([])


def test_the_tipping_point_is_where_the_advice_turns() -> None:
    """On both sides of it the advice is what is drawn; a load without one has none."""
    frame = recorded_measurements().filter(pl.col("served_as").is_in(["view", "materialized", "projection"]))
    load = {"writes": 1, "events": 100_000}
    picture = tipping_picture(frame, **load)
    (said,) = [text for text in texts(picture) if text.startswith("The tipping point: from ")]
    reads = float(said.split()[4])
    assert (
        advise(frame, reads=reads / 1.3, **load).served_as
        == "view"
        != advise(frame, reads=reads * 1.3, **load).served_as
    )
    assert {"view", "materialized", "projection", "1,000 ms"} <= set(texts(picture))
    assert not any("tipping" in text for text in texts(tipping_picture(frame, reads=(0.1, 0.5), **load)))
    for wrong in ((0, 1), (2, 1)):
        with pytest.raises(QueryError, match="no two numbers above 0"):
            tipping_picture(frame, reads=wrong, **load)
