"""The whole shop: its deciders, read models, queries, services and sagas, as one domain."""

from __future__ import annotations

from collections.abc import Sequence

from cqrs_lab.domain import Domain
from cqrs_lab.read.queries import QueryMiddleware
from cqrs_lab.shop.customers import customers
from cqrs_lab.shop.fulfilment import fulfilment
from cqrs_lab.shop.orders import orders
from cqrs_lab.shop.payments import PaymentGateway, SimulatedGateway, payments
from cqrs_lab.shop.read_models import READ_MODELS, OrderDetails, OrdersOfCustomer, SalesByDay
from cqrs_lab.shop.stock import products
from cqrs_lab.write.middleware import Middleware, Policy


def shop_domain(
    *,
    gateway: PaymentGateway | None = None,
    policy: Policy | None = None,
    middleware: Sequence[Middleware] = (),
    query_middleware: Sequence[QueryMiddleware] = (),
) -> Domain:
    """Return the domain of the example shop, for `Lab(path, domain=shop_domain())` or with more of one's own.

    Args:
        gateway: what takes payments; a simulated one that approves when None.
        policy: who may send which command; everybody all when None.
        middleware, query_middleware: what else happens around every command and every query.
    """
    return Domain(
        deciders=[orders, customers, products],
        read_models=READ_MODELS,
        queries=[OrderDetails, OrdersOfCustomer, SalesByDay],
        services=[payments(gateway or SimulatedGateway())],
        sagas=[fulfilment],
        policy=policy,
        middleware=middleware,
        query_middleware=query_middleware,
    )
