"""A solution of the exercise in notebook 02: a bookshop's table becomes events.

The key may be a number; the event's id is text. The time zone says which moment a local time was: Lisbon is at UTC in
winter and an hour ahead in summer, and the clocks changed in the night of these orders.
"""

from cqrs_lab.workbench import events_from_milestones
from cqrs_lab.workbench.checks import check_import, sales

events = events_from_milestones(
    sales(),
    key="number",
    milestones={
        "OrderPlaced": "ordered",
        "OrderPaid": "money_came",
        "OrderShipped": "left_us",
        "OrderCancelled": "called_off",
    },
    fields={
        "OrderPlaced": {"customer_id": "buyer", "total": "sum"},
        "OrderPaid": {"amount": "sum"},
        "OrderCancelled": {"reason": "because"},
    },
    zone="Europe/Lisbon",
)
result = check_import(events)
