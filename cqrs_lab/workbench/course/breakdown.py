"""A read model that breaks on demand: the stage of the lag monitor.

Owns the read model `parcels` in a shop of its caller, as somebody declared it who takes a parcel's number for a number,
and how it is mended.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from cqrs_lab.app import Lab
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.shop import OrderLine, PayOrder, PlaceOrder, ShipOrder

_SQL = """
SELECT order_id, count(*) AS events, max(CAST({} AS BIGINT)) AS parcel
FROM order_events GROUP BY order_id
"""


class Breakdown:
    """Work for a shop, and ways to stop, poison and repair one of its read models; what `breakdown` returns.

    Attributes:
        actions: the ways, by a label for a button.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab, self._numbers = lab, count(1)
        self._model = ReadModel("parcels", key="order_id", sql=_SQL.format("tracking_number"))
        lab.serve(self._model, mode="background")
        self.actions: dict[str, Callable[[], str]] = {
            "ship an order": self.work,
            "stop": self.stop,
            "go on": self.go_on,
            "poison": self.poison,
            "repair": self.repair,
        }

    def work(self) -> str:
        """Place, pay and ship an order: three events."""
        return self._ship("{}")

    def poison(self) -> str:
        """Ship an order with a parcel's number that is no number."""
        return self._ship("T-{}")

    def stop(self) -> str:
        """Have the read model move by hand from now on, which nobody does."""
        self._lab.serve(self._model, mode="manual")
        return "parcels stands still; ship some orders"

    def go_on(self) -> str:
        """Have the read model move by itself again."""
        self._lab.serve(self._model, mode="background")
        return "parcels moves by itself again"

    def repair(self) -> str:
        """Declare the read model again, so that it can read every number, and make its rows again."""
        self._model = ReadModel("parcels", key="order_id", sql=_SQL.format("regexp_extract(tracking_number, '[0-9]+')"))
        self._lab.serve(self._model, mode="background", rebuild=True)
        return "parcels was declared again, and its rows were made again"

    def _ship(self, number: str) -> str:
        n = next(self._numbers)
        order, line = f"b-{n}", OrderLine(product_id="p-1", quantity=1, unit_price="10.00")
        self._lab.send(PlaceOrder(order_id=order, customer_id="c-1", lines=[line]))
        self._lab.send(PayOrder(order_id=order, amount="10.00"))
        self._lab.send(ShipOrder(order_id=order, tracking_number=number.format(100 + n)))
        return f"order {order} left as parcel {number.format(100 + n)}"


def breakdown(lab: Lab) -> Breakdown:
    """Return work for a shop and ways to break a read model of it, which it serves: `lag_monitor(lab, ….actions)`.

    Args:
        lab: a shop; the read model parcels is served in it, in the background.
    """
    return Breakdown(lab)
