"""Customers: who they are.

Declarations only: messages and two pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from cqrs_lab.errors import RuleViolated
from cqrs_lab.messages import Command, Event, Id
from cqrs_lab.write.decider import Decider

Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=320)]


class RegisterCustomer(Command):
    """Make somebody known to the shop."""

    customer_id: Id
    name: Annotated[str, Field(min_length=1)]
    email: Email


class CustomerRegistered(Event):
    """Somebody became known to the shop; an anonymised source tells where they live, not who they are."""

    customer_id: Id
    name: str | None = None
    email: str | None = None
    city: str | None = None
    state: str | None = None


def decide(command: Command, known: bool) -> Sequence[Event]:
    """Return the events that a command leads to, or raise RuleViolated."""
    match command:
        case RegisterCustomer():
            if known:
                raise RuleViolated("a customer is registered once", "registered")
            return [CustomerRegistered(customer_id=command.customer_id, name=command.name, email=command.email)]
    raise TypeError(f"customers do not handle {type(command).__name__}")


def evolve(known: bool, event: Event) -> bool:
    """Return whether the customer is known after an event."""
    return known or isinstance(event, CustomerRegistered)


customers = Decider(
    category="customer",
    key="customer_id",
    initial=False,
    decide=decide,
    evolve=evolve,
    commands=[RegisterCustomer],
    events=[CustomerRegistered],
)
