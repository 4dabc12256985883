"""Customers: who they are.

Declarations only: messages and two pure functions. Names and e-mail addresses are personal: they are kept beside the
log, and `Lab.forget` erases them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from cqrs_lab.errors import RuleViolated
from cqrs_lab.messages import Command, Event, Id, Personal
from cqrs_lab.write.decider import Decider

Name = Annotated[str, Field(min_length=1)]
Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=320)]


class RegisterCustomer(Command):
    """Make somebody known to the shop."""

    customer_id: Id
    name: Name
    email: Email


class RenameCustomer(Command):
    """Give a customer another name."""

    customer_id: Id
    name: Name


class ChangeCustomerEmail(Command):
    """Give a customer another e-mail address."""

    customer_id: Id
    email: Email


class CustomerRegistered(Event):
    """Somebody became known to the shop; an anonymised source tells where they live, not who they are."""

    customer_id: Id
    name: Personal[str] = None
    email: Personal[str] = None
    city: str | None = None
    state: str | None = None


class CustomerRenamed(Event):
    """A customer has another name."""

    customer_id: Id
    name: Personal[str] = None


class CustomerEmailChanged(Event):
    """A customer has another e-mail address."""

    customer_id: Id
    email: Personal[str] = None


@dataclass(frozen=True)
class Customer:
    """What the rules need to know of a customer; None where it was erased or never known."""

    known: bool = False
    name: str | None = None
    email: str | None = None


def decide(command: Command, customer: Customer) -> Sequence[Event]:
    """Return the events that a command leads to, or raise RuleViolated."""
    match command:
        case RegisterCustomer():
            if customer.known:
                raise RuleViolated("a customer is registered once", "registered")
            return [CustomerRegistered(customer_id=command.customer_id, name=command.name, email=command.email)]
        case RenameCustomer():
            _require_known(customer)
            same = command.name == customer.name
            return [] if same else [CustomerRenamed(customer_id=command.customer_id, name=command.name)]
        case ChangeCustomerEmail():
            _require_known(customer)
            same = command.email == customer.email
            return [] if same else [CustomerEmailChanged(customer_id=command.customer_id, email=command.email)]
    raise TypeError(f"customers do not handle {type(command).__name__}")


def evolve(customer: Customer, event: Event) -> Customer:
    """Return the customer after an event."""
    match event:
        case CustomerRegistered():
            return Customer(True, event.name, event.email)
        case CustomerRenamed():
            return replace(customer, name=event.name)
        case CustomerEmailChanged():
            return replace(customer, email=event.email)
    raise TypeError(f"customers do not know {type(event).__name__}")


def _require_known(customer: Customer) -> None:
    if not customer.known:
        raise RuleViolated("only a registered customer is changed", "not registered")


customers = Decider(
    category="customer",
    key="customer_id",
    initial=Customer(),
    decide=decide,
    evolve=evolve,
    commands=[RegisterCustomer, RenameCustomer, ChangeCustomerEmail],
    events=[CustomerRegistered, CustomerRenamed, CustomerEmailChanged],
)
