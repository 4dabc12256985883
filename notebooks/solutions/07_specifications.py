"""A solution of the second exercise in notebook 07: given, when, then for a saga and for a read model."""

from cqrs_lab.shop import (
    CancelOrder,
    OrderCancelled,
    OrderLine,
    OrderPaid,
    OrderPlaced,
    OrderRefunded,
    PaymentDeclined,
    ReleaseStock,
    StockReserved,
    fulfilment,
)
from cqrs_lab.testing import given, given_events
from cqrs_lab.workbench.checks import check_specifications, kept_money

lines = [OrderLine(product_id=f"p-{n}", quantity=2, unit_price="10.00") for n in (1, 2)]
placed = OrderPlaced(order_id="o-1", customer_id="c-1", lines=lines, total="40.00")
reserved = [StockReserved(product_id=f"p-{n}", order_id="o-1", quantity=2) for n in (1, 2)]
declined = PaymentDeclined(order_id="o-1", reason="no cover")
cancelled = OrderCancelled(order_id="o-1", reason="no cover")


def of_saga(saga):
    """A declined card cancels the order; a cancelled order releases all that was reserved."""
    given([placed, *reserved]).when(declined, saga=saga).then(
        CancelOrder(order_id="o-1", reason="no cover")
    )
    given([placed, *reserved, declined]).when(cancelled, saga=saga).then(
        ReleaseStock(product_id="p-1", order_id="o-1", quantity=None),
        ReleaseStock(product_id="p-2", order_id="o-1", quantity=None),
    )


def of_model(model):
    """What was paid, less every refund; only for orders that were paid."""
    given_events(
        placed,
        OrderPaid(order_id="o-1", amount="40.00"),
        OrderRefunded(order_id="o-1", amount="10.00"),
        OrderRefunded(order_id="o-1", amount="5.00"),
        OrderPlaced(order_id="o-2", customer_id="c-2", total="7.00"),
        OrderPaid(order_id="o-2", amount="7.00"),
        OrderPlaced(order_id="o-3", customer_id="c-3", total="9.00"),
    ).project(model).rows({"order_id": "o-1", "kept": 25}, {"order_id": "o-2", "kept": 7})


of_saga(fulfilment)
of_model(kept_money())
result = check_specifications(of_saga, of_model)
