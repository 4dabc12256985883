"""A solution of the exercise in notebook 09: whose solutions last."""

from cqrs_lab import ReadModel
from cqrs_lab.workbench.checks import check_came_back

came_back = ReadModel(
    "came_back",
    key="agent",
    sql="""
    SELECT agent, count(*) AS solved, count(*) FILTER (WHERE next = 'Reopened') AS came_back
    FROM (
        SELECT agent, type,
               lead(type) OVER (PARTITION BY ticket_id ORDER BY occurred_at, position) AS next
        FROM ticket_events
        WHERE type IN ('Solved', 'Reopened')
    )
    WHERE type = 'Solved'
    GROUP BY agent
    """,
)

result = check_came_back(came_back)
