"""A solution of the exercise in notebook 03: why orders are cancelled, and what they were worth.

The reason stands in one event of an order and the total in others, so the events are brought together by order:
`order_facts` has done that for the total. Joined to the cancellations alone, each order counts once.
"""

from cqrs_lab import ReadModel
from cqrs_lab.workbench.checks import check_cancellations

cancellations = ReadModel(
    "cancellations",
    key="reason",
    sql="""
SELECT cancelled.reason, count(*) AS orders, sum(facts.total)::DECIMAL(18, 2) AS value
FROM order_events AS cancelled
JOIN order_facts AS facts ON facts.order_id = cancelled.order_id
WHERE cancelled.type = 'OrderCancelled'
GROUP BY cancelled.reason
""",
)
result = check_cancellations(cancellations)
