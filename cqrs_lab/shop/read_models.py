"""The shop's read models and the queries that they answer: declarations only.

Each is a SELECT over the log. Every column is an aggregate whose halves combine, so that a projection is moved
forward by the new events alone.
"""

from __future__ import annotations

from typing import Any, ClassVar

from cqrs_lab.messages import Id, Query
from cqrs_lab.read.models import ReadModel

order_summary = ReadModel(
    "order_summary",
    key="order_id",
    sql="""
SELECT order_id,
       max(customer_id) AS customer_id,
       CASE WHEN bool_or(type = 'OrderCancelled') THEN 'CANCELLED'
            WHEN bool_or(type = 'OrderDelivered') THEN 'DELIVERED'
            WHEN bool_or(type = 'OrderShipped')   THEN 'SHIPPED'
            WHEN bool_or(type = 'OrderPaid')      THEN 'PAID'
            ELSE 'PENDING' END AS status,
       arg_max(total, position) AS total,
       coalesce(sum(CASE WHEN type = 'OrderRefunded' THEN -amount ELSE amount END), 0)::DECIMAL(18, 2) AS paid,
       (coalesce(sum(list_sum([line.quantity for line in lines])), 0)
        - coalesce(sum(list_sum([line.quantity for line in removed])), 0))::BIGINT AS item_count,
       max(version) AS version,
       max(CASE WHEN type = 'OrderPlaced' THEN occurred_at END) AS created_at,
       max(occurred_at) AS updated_at
FROM order_events
GROUP BY order_id
""",
)

daily_orders = ReadModel(
    "daily_orders",
    key="day",
    sql="""
SELECT occurred_at::DATE AS day,
       count(*) AS orders,
       coalesce(sum(total), 0)::DECIMAL(18, 2) AS value
FROM order_events
WHERE type = 'OrderPlaced'
GROUP BY day
""",
)


class OrderDetails(Query):
    """One order, or None when there is none of that id."""

    model: ClassVar[ReadModel] = order_summary
    order_id: Id

    def answer(self, read: Any) -> Any:
        """Return the order's row as a dict."""
        return read.get(self.order_id)


class OrdersOfCustomer(Query):
    """All orders of one customer, as Rows."""

    model: ClassVar[ReadModel] = order_summary
    customer_id: Id

    def answer(self, read: Any) -> Any:
        """Return the customer's rows."""
        return read.where(customer_id=self.customer_id)
