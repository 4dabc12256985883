"""A solution of the vouchers of notebook 01, after the third step: issued once, redeemed in parts.

The state is what is left, and None before the voucher is issued: an empty voucher (0) is not a new one.
"""

from pydantic import PositiveInt

from cqrs_lab import Command, Decider, Event
from cqrs_lab.errors import RuleViolated
from cqrs_lab.workbench.checks import check_vouchers


class IssueVoucher(Command):
    """Sell a voucher."""

    voucher_id: str
    amount: PositiveInt


class RedeemVoucher(Command):
    """Pay some of an order with a voucher."""

    voucher_id: str
    order_id: str
    amount: PositiveInt


class VoucherIssued(Event):
    """A voucher was sold."""

    voucher_id: str
    amount: int


class VoucherRedeemed(Event):
    """Some of an order was paid with a voucher."""

    voucher_id: str
    order_id: str
    amount: int


def decide(command, left):
    """Return the events that follow from a command."""
    if isinstance(command, IssueVoucher):
        if left is not None:
            raise RuleViolated("a voucher is issued once", left)
        return [VoucherIssued(voucher_id=command.voucher_id, amount=command.amount)]
    if left is None:
        raise RuleViolated("only a voucher that was issued is redeemed", left)
    if command.amount > left:
        raise RuleViolated("no more is redeemed than is left", left)
    return [
        VoucherRedeemed(
            voucher_id=command.voucher_id, order_id=command.order_id, amount=command.amount
        )
    ]


def evolve(left, event):
    """Return what is left after an event."""
    if isinstance(event, VoucherIssued):
        return event.amount
    return left - event.amount


vouchers = Decider(
    category="voucher",
    key="voucher_id",
    initial=None,
    decide=decide,
    evolve=evolve,
    commands=[IssueVoucher, RedeemVoucher],
    events=[VoucherIssued, VoucherRedeemed],
)
result = check_vouchers(vouchers, step=3)
