"""One order of the shop, as specs of given, when and then tell it, and what a failed check says."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from cqrs_lab.shop import OrderPaid, OrderPlaced, PayOrder
from support import line, place

LINE = line("p-1", 2, "9.99")
PLACE = place("o-1", LINE)
PAY = PayOrder(order_id="o-1", amount=Decimal("19.98"))
PLACED = OrderPlaced(order_id="o-1", customer_id="c-1", lines=(LINE,), total=Decimal("19.98"), freight=Decimal(0))
PAID = OrderPaid(order_id="o-1", amount=Decimal("19.98"), method="card")
OTHER = OrderPlaced(order_id="o-2", customer_id="c-1", total=Decimal(5))


def told(check: Callable[[], object]) -> tuple[str, BaseException | None]:
    """Return the text and the cause of the AssertionError that a check raises."""
    with pytest.raises(AssertionError) as failed:
        check()
    return str(failed.value), failed.value.__cause__
