"""A shop: the example domain, declarations only. It never reaches the database."""

from cqrs_lab.shop.customers import CustomerRegistered, RegisterCustomer, customers
from cqrs_lab.shop.orders import (
    CancelOrder,
    DeliverOrder,
    OrderCancelled,
    OrderDelivered,
    OrderLine,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    PayOrder,
    PlaceOrder,
    ShipOrder,
    orders,
)
from cqrs_lab.shop.read_models import OrderDetails, OrdersOfCustomer, daily_orders, order_summary

__all__ = [
    "CancelOrder",
    "CustomerRegistered",
    "DeliverOrder",
    "OrderCancelled",
    "OrderDelivered",
    "OrderDetails",
    "OrderLine",
    "OrderPaid",
    "OrderPlaced",
    "OrderShipped",
    "OrdersOfCustomer",
    "PayOrder",
    "PlaceOrder",
    "RegisterCustomer",
    "ShipOrder",
    "customers",
    "daily_orders",
    "order_summary",
    "orders",
]
