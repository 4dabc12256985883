"""Customers with personal data in every place that shows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cqrs_lab import Domain, Lab, ReadModel
from cqrs_lab.errors import RebuildNeeded
from cqrs_lab.shop import ChangeCustomerEmail, RegisterCustomer, RenameCustomer, customers, order_summary
from cqrs_lab.store import wal
from support import place

EMAIL = "ada.lovelace.1815@difference-engine.analytical.example.org"
LATER = "augusta.king.1852@notes-upon-the-memoir.example.org"
NAME = "Augusta Ada King, Countess of Lovelace"
SECRETS = (EMAIL, LATER, NAME, "Ada Byron of Marylebone")
OTHER = "charles.babbage.1791@great-calculating-engine.example.org"
WAYS = ("view", "materialized", "projection")
PEOPLE = ReadModel(
    "people",
    "customer_id",
    """SELECT customer_id, arg_max(name, position) AS name, arg_max(email, position) AS email, count(*) AS events
       FROM customer_events GROUP BY customer_id""",
)
BY_EMAIL = ReadModel(
    "by_email", "email", "SELECT email, count(*) AS n FROM people WHERE email IS NOT NULL GROUP BY email"
)
WITH_ORDERS = ReadModel(
    "with_orders",
    "order_id",
    """SELECT o.order_id, max(o.status) AS status, max(p.email) AS email
       FROM order_summary AS o LEFT JOIN people AS p USING (customer_id) GROUP BY o.order_id""",
)
MODELS = (PEOPLE, BY_EMAIL, WITH_ORDERS)
SNAPPING = replace(customers, snapshot_every=1)


def people(path: Any = ":memory:", **more: Any) -> Lab:
    """Open the shop's customers and orders with read models of personal data, and snapshots of the customers."""
    from cqrs_lab.shop import orders

    domain = Domain(deciders=[SNAPPING, orders], read_models=[order_summary, *MODELS])
    return Lab(path, domain=domain, threads=1, **more)


def fill(lab: Lab) -> None:
    """Two customers with an order; the first one changes everything about herself."""
    lab.send(RegisterCustomer(customer_id="c-1", name="Ada Byron of Marylebone", email=EMAIL), command_id="k-1")
    lab.send(RegisterCustomer(customer_id="c-2", name="Charles", email=OTHER), command_id="k-2")
    lab.send(place("o-1"))
    for model in MODELS:
        for way in WAYS:
            lab.serve(model, way)
    lab.send(RenameCustomer(customer_id="c-1", name=NAME))
    lab.send(ChangeCustomerEmail(customer_id="c-1", email=LATER))
    lab.send(RenameCustomer(customer_id="c-2", name="Charles Babbage"))
    lab.catch_up()


def told(lab: Lab) -> dict[str, str]:
    """Return everything that a lab says of customers: place -> what is shown there."""
    customer = lab._categories["customer"]
    said = {"events": "\n".join(row["data"] for row in lab.events().dicts())}
    for id in ("c-1", "c-2"):
        events = [recorded.event for recorded in lab._log.read(customer, id)]
        said[f"stream {id}"] = f"{events} {customers.fold(events)}"
    for model in MODELS:
        for way in WAYS:
            try:
                said[f"{model.name} as {way}"] = repr(lab.serve(model, way).rows().fetchall())
            except RebuildNeeded:
                said[f"{model.name} as {way}"] = "rebuild needed"
        for position in range(lab.head + 1):
            rows = lab.as_of(position=position).rows(model).fetchall()
            said[f"{model.name} as of {position}"] = repr(rows)
    question = "SELECT * FROM customer_events ORDER BY position"
    for position in range(lab.head + 1):
        said[f"the past of {position}"] = repr(lab.as_of(position=position).sql(question).fetchall())
    said["a question"] = repr(lab.serve(PEOPLE, "view").sql("SELECT * FROM people JOIN by_email USING (email)").dicts())
    return said


def shown(lab: Lab, *texts: str) -> list[str]:
    """Return the places in which one of the texts is shown."""
    return [where for where, said in told(lab).items() if any(text in said for text in texts)]


def columns(lab: Lab, table: str) -> list[str]:
    """Return the columns of a stored table."""
    return [row[0] for row in lab._log.database.execute(f"DESCRIBE {table}")]


def holds(path: Path, text: str) -> bool:
    """Return whether the bytes of a file, or of a log beside it, hold a text."""
    files = [path, *wal.logs_of(path)]
    return any(text.encode() in file.read_bytes() for file in files if file.exists())
