"""Read models over read models, in every way in which the engine moves them."""

from __future__ import annotations

from cqrs_lab import Lab, ReadModel

contacts = ReadModel(
    "contacts",
    "customer_id",
    "SELECT customer_id, arg_max(name, position) AS name, arg_max(email, position) AS email "
    "FROM customer_events GROUP BY customer_id",
)
listed = ReadModel(
    "listed",
    "order_id",
    "SELECT o.order_id, o.status, o.total, o.created_at, c.name, c.email AS mail "
    "FROM order_facts o LEFT JOIN contacts c USING (customer_id)",
)
unnamed = ReadModel(
    "unnamed",
    "order_id",
    "SELECT order_id, status FROM order_summary LEFT JOIN contacts AS c USING (customer_id) WHERE c.name IS NULL",
)
waiting = ReadModel("waiting", "order_id", "SELECT order_id, mail FROM listed WHERE status IN ('PENDING', 'PAID')")
by_day = ReadModel(
    "by_day",
    "day",
    "SELECT created_at::DATE AS day, count(*) AS orders, median(total) AS middle, count(DISTINCT mail) AS people "
    "FROM listed WHERE created_at IS NOT NULL GROUP BY day",
)
by_state = ReadModel(
    "by_state", ("day", "status"),
    "SELECT day, status, count(*) AS n, max(middle) AS m FROM by_day JOIN listed ON listed.created_at::DATE = day "
    "GROUP BY ALL",
)  # fmt: skip
by_customer = ReadModel(
    "by_customer",
    "customer_id",
    "SELECT c.customer_id, c.name, count(o.order_id) AS orders, sum(o.paid) AS paid, max(o.updated_at) AS last "
    "FROM contacts c LEFT JOIN order_summary o ON o.customer_id = c.customer_id GROUP BY c.customer_id, c.name",
)
demand = ReadModel(
    "demand",
    "product_id",
    "SELECT l.product_id, sum(l.quantity)::BIGINT AS units, count(DISTINCT e.order_id) AS orders "
    "FROM order_events AS e, unnest(e.lines) AS u(l) GROUP BY l.product_id",
)
wanted = ReadModel(
    "wanted",
    "product_id",
    "SELECT l.product_id, count(DISTINCT o.order_id) AS orders FROM order_events AS e, unnest(e.lines) AS u(l) "
    "JOIN order_summary AS o ON o.order_id = e.order_id WHERE o.status <> 'CANCELLED' GROUP BY l.product_id",
)
late = ReadModel(
    "late",
    "order_id",
    "SELECT o.order_id, count(e.position) AS facts, median(c.position) AS known FROM order_summary o "
    "JOIN order_events e ON e.order_id = o.order_id LEFT JOIN customer_events c ON c.customer_id = o.customer_id "
    "GROUP BY o.order_id HAVING count(*) > 1",
)
MODELS = (contacts, listed, unnamed, waiting, by_day, by_state, by_customer, demand, wanted, late)


def declared(lab: Lab) -> None:
    """Make the read models known, each after those it is built on."""
    for model in MODELS:
        lab._catalog.declare(model)
