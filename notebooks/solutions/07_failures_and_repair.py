"""A solution of the exercise in notebook 07: a delivered order brings its customer a point for each whole euro."""

from cqrs_lab import Command, Decider, Event
from cqrs_lab.shop import OrderDelivered, OrderPlaced
from cqrs_lab.workbench.checks import check_thanks
from cqrs_lab.write.sagas import Saga


class GivePoints(Command):
    """Thank a customer for an order."""

    customer_id: str
    order_id: str
    points: int


class PointsGiven(Event):
    """A customer was thanked for an order."""

    customer_id: str
    order_id: str
    points: int


loyalty = Decider(
    category="loyalty",
    key="customer_id",
    initial=0,
    decide=lambda command, points: [PointsGiven(**dict(command))],
    evolve=lambda points, event: points + event.points,
    commands=[GivePoints],
    events=[PointsGiven],
)


def evolve(placed, event):
    """Return what is known of an order after an event: how it was placed."""
    return event if isinstance(event, OrderPlaced) else placed


def react(placed, event):
    """Return the commands that follow from an event."""
    if isinstance(event, OrderDelivered):
        return [
            GivePoints(
                customer_id=placed.customer_id, order_id=placed.order_id, points=int(placed.total)
            )
        ]
    return []


thanks = Saga(
    name="thanks",
    key="order_id",
    events=[OrderPlaced, OrderDelivered],
    initial=None,
    evolve=evolve,
    react=react,
)
result = check_thanks(thanks, loyalty)
