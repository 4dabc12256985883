"""The stage of the course: how a story ended, and how late an append could be seen."""

import pytest

from cqrs_lab import open_shop
from cqrs_lab.errors import NotYet
from cqrs_lab.shop import OrderLine, PlaceOrder, SimulatedGateway, order_summary
from cqrs_lab.workbench.course import outcome, repeatable, stocked_shop, visible_ms

PLACE = PlaceOrder(
    order_id="o-1", customer_id="c-1", lines=[OrderLine(product_id="p-1", quantity=2, unit_price="10.00")]
)


def test_the_outcome_of_an_order_says_status_stock_and_money():
    """It is that of the moment: before the order there is none, and after fulfilment all three have changed."""
    gateway = SimulatedGateway()
    with stocked_shop({"p-1": 5}, gateway) as lab:
        assert outcome(lab, gateway) == {"status": None, "free": {"p-1": 5}, "charged": 0.0}
        lab.send(PLACE)
        lab.catch_up()
        assert outcome(lab, gateway) == {"status": "SHIPPED", "free": {"p-1": 3}, "charged": 20.0}


def test_how_late_appends_could_be_seen_is_told_in_their_order():
    """Each append that a read model has taken in has its milliseconds."""
    with open_shop() as lab:
        lab.serve(order_summary, mode="background")
        positions = [lab.send(PLACE.model_copy(update={"order_id": f"o-{n}"})).position for n in range(3)]
        taken = visible_ms(lab, positions)
        assert len(taken) == 3
        assert taken.min() > 0


def test_an_append_that_nobody_takes_in_is_waited_for_in_vain():
    """A read model that moves by hand notes nothing until it is moved."""
    with open_shop(**repeatable()) as lab:
        lab.serve(order_summary)
        position = lab.send(PLACE).position
        with pytest.raises(NotYet):
            visible_ms(lab, [position], timeout=0.1)
