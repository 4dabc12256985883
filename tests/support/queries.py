"""What tests of the query bus share: queries of every kind, and a shop that knows them and keeps answers."""

from __future__ import annotations

from typing import Any, ClassVar

from cqrs_lab import Domain, Lab, Query, ReadModel, shop
from cqrs_lab.shop import OrderDetails, OrdersOfCustomer, order_summary
from support.layers import MODELS as LAYERS
from support.layers import by_customer, listed


class ByStatus(Query):
    """How many orders have a status."""

    model: ClassVar[ReadModel] = order_summary
    status: str | None
    customer_id: str | None = None

    def answer(self, read: Any) -> Any:
        return sorted(row[0] for row in read.where(status=self.status, CUSTOMER_id=self.customer_id))


class Everything(Query):
    """All orders, in the shape that is asked for."""

    model: ClassVar[ReadModel] = order_summary
    shape: str = "rows"

    def answer(self, read: Any) -> Any:
        return read.rows() if self.shape == "rows" else getattr(read, self.shape)()


class Counted(Query):
    """What only a SELECT can say, of this model and of another."""

    model: ClassVar[ReadModel] = order_summary

    def answer(self, read: Any) -> Any:
        both = "SELECT (SELECT count(*) FROM order_summary), (SELECT sum(orders) FROM daily_orders)"
        return read.sql(both).fetchall()


class Listed(Query):
    """A row of a layer."""

    model: ClassVar[ReadModel] = listed
    order_id: str

    def answer(self, read: Any) -> Any:
        return read.get(self.order_id), [row[0] for row in read.where(mail="Ann")]


class OfCustomer(Query):
    """A row of another layer."""

    model: ClassVar[ReadModel] = by_customer
    customer_id: str

    def answer(self, read: Any) -> Any:
        return read.get(self.customer_id)


def shop_with(*queries: type[Query], cache_seconds: float | None = 60, path: Any = ":memory:", **more: Any) -> Lab:
    """Open a shop that knows more queries, and keeps answers."""
    domain = Domain(
        deciders=[shop.orders, shop.customers, shop.products],
        read_models=[order_summary, shop.daily_orders, *LAYERS],
        queries=[OrderDetails, OrdersOfCustomer, *queries],
        services=[shop.payments(shop.SimulatedGateway())],
        **more,
    )
    return Lab(path, domain=domain, cache_seconds=cache_seconds, threads=1)


def outcomes(lab: Lab) -> list[str]:
    """What became of the queries so far."""
    return [outcome for _, outcome, _ in lab.query_times()]
