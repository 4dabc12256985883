"""The checks of the deciders that a learner declares in notebook 01: returns, and vouchers in three steps.

Owns what is tried and what would be right; compares events field by field, and names the rule that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from cqrs_lab.app import Lab
from cqrs_lab.domain import Domain
from cqrs_lab.errors import RuleViolated
from cqrs_lab.messages import Command, Event
from cqrs_lab.shop import (
    DeliverOrder,
    OrderCancelled,
    OrderDelivered,
    OrderLine,
    OrderPaid,
    OrderPlaced,
    OrderRefunded,
    OrderShipped,
    PayOrder,
    PlaceOrder,
    RefundOrder,
    ShipOrder,
)
from cqrs_lab.workbench.course.checked import Checked, Tries, called, checked, difference, line_of
from cqrs_lab.workbench.course.stage import repeatable
from cqrs_lab.write.decider import Decider


def decides(decider: Decider, command: Command, state: Any, *expected: Event) -> str | None:
    """Say what is wrong with what a decider decides, None when these events follow."""
    try:
        events, line = called(decider.decide, command, state)
    except RuleViolated as error:
        return f"decide() refused it: {error.rule!r}{line_of(error)}"
    problem = difference(events, expected, "decide() gave")
    return problem and problem + line


def refuses(decider: Decider, command: Command, state: Any, rule: str) -> str | None:
    """Say which rule is missing, None when the command is refused."""
    try:
        events, line = called(decider.decide, command, state)
    except RuleViolated:
        return None
    gave = [type(e).__name__ for e in events] if isinstance(events, (list, tuple)) else events
    return f"decide() gave {gave}{line}; the rule {rule!r} is missing: raise RuleViolated(rule, state)"


def check_returns(decider: Decider, command: Callable[..., Command], event: Callable[..., Event]) -> Checked:
    """Check the exercise of notebook 01: an order that was delivered can be sent back, once.

    Args:
        decider: the learner's decider of orders.
        command: the command ReturnOrder(order_id, reason).
        event: the event OrderReturned(order_id, reason).
    """

    def life(order_id: str, price: str = "9.99") -> list[Event]:
        line = OrderLine(product_id="p-1", quantity=1, unit_price=price)
        return [
            OrderPlaced(order_id=order_id, customer_id="c-1", lines=(line,), total=price),
            OrderPaid(order_id=order_id, amount=price),
            OrderShipped(order_id=order_id),
            OrderDelivered(order_id=order_id),
        ]

    def tries() -> Tries:
        ask, back = command(order_id="o-7", reason="too small"), event(order_id="o-7", reason="too small")
        delivered = decider.fold(life("o-7"))
        yield "a delivered order can be returned", decides(decider, ask, delivered, back)
        other = {"order_id": "o-8", "reason": "too large"}
        problem = decides(decider, command(**other), decider.fold(life("o-8")), event(**other))
        yield "each return says its own order and reason", problem
        rule = "only a delivered order is returned"
        for what, past in {
            "a shipped order cannot be returned yet": life("o-7")[:3],
            "a pending order cannot be returned yet": life("o-7")[:1],
            "a cancelled order cannot be returned": [*life("o-7")[:2], OrderCancelled(order_id="o-7")],
            "an order that was never placed cannot be returned": [],
        }.items():
            yield what, refuses(decider, ask, decider.fold(past), rule)
        returned, line = called(decider.evolve, delivered, back)
        same = f"the state is the same before and after OrderReturned{line}"
        yield "evolve() remembers the return", same if returned == delivered else None
        yield "an order is returned once", refuses(decider, ask, returned, "an order is returned once")
        yield from _leaves_the_rest(decider, returned, line)
        yield "a lab works with it", _returned_in_a_lab(decider, command)

    return checked(tries())


def _leaves_the_rest(decider: Decider, returned: Any, line: str) -> Tries:
    """Try what the shop could do before: `returned` is order o-7 of 9.99, paid, and `line` made it."""
    price = Decimal("9.99")
    orderline = OrderLine(product_id="p-1", quantity=1, unit_price=price)
    place = PlaceOrder(order_id="o-9", customer_id="c-1", lines=(orderline,))
    placed = OrderPlaced(**dict(place), total=price, freight=Decimal(0))
    yield "all other commands are left to the shop", decides(decider, place, decider.initial, placed)
    what = "evolve() keeps what was known of the order"
    again = place.model_copy(update={"order_id": "o-7"})
    forgot = refuses(decider, again, returned, "an order is placed once")
    refund = OrderRefunded(order_id="o-7", amount=price, reason="refund")
    forgot = forgot or decides(decider, RefundOrder(order_id="o-7"), returned, refund)
    yield what, forgot and f"{forgot}. The state after OrderReturned has lost it{line}"


def _returned_in_a_lab(decider: Decider, command: Callable[..., Command]) -> str | None:
    with Lab(domain=Domain([decider]), **repeatable()) as lab:
        line = OrderLine(product_id="p-1", quantity=1, unit_price="9.99")
        lab.send(PlaceOrder(order_id="o-1", customer_id="c-1", lines=(line,)))
        lab.send(PayOrder(order_id="o-1", amount="9.99"))
        lab.send(ShipOrder(order_id="o-1", tracking_number="T-1"))
        lab.send(DeliverOrder(order_id="o-1"))
        lab.send(command(order_id="o-1", reason="too small"))
        lab.send(RefundOrder(order_id="o-1"))
        try:
            lab.send(command(order_id="o-1", reason="too small"))
        except RuleViolated:
            return None
    return "once its money was given back, the order could be returned again"


def check_vouchers(decider: Decider, step: int = 3) -> Checked:
    """Check the exercise of notebook 01 that builds a decider in steps: vouchers are issued once and redeemed in parts.

    Args:
        decider: the learner's, of IssueVoucher(voucher_id, amount) and RedeemVoucher(voucher_id, order_id, amount),
            VoucherIssued(voucher_id, amount) and VoucherRedeemed(voucher_id, order_id, amount).
        step: up to which step to look: 1, issue; 2, remember; 3, redeem.
    """

    def tries() -> Tries:
        said = (decider.category, decider.key)
        yield "its category and key are given", _named("category and key", said, ("voucher", "voucher_id"))
        commands, events = ({kind.__name__: kind for kind in kinds} for kinds in (decider.commands, decider.events))
        named = _named("commands", sorted(commands), ["IssueVoucher", "RedeemVoucher"])
        named = named or _named("events", sorted(events), ["VoucherIssued", "VoucherRedeemed"])
        yield "its commands and events are listed", named
        if named:
            return
        issue: Any = commands["IssueVoucher"]
        issued: Any = events["VoucherIssued"]
        for id, amount in (("v-1", 50), ("v-2", 20)):
            what = f"step 1: a voucher of {amount} is issued"
            done = decides(
                decider,
                issue(voucher_id=id, amount=amount),
                decider.initial,
                issued(voucher_id=id, amount=amount),
            )
            yield what, done
        if step < 2:
            return
        new, line = called(decider.evolve, decider.initial, issued(voucher_id="v-1", amount=50))
        same = f"the state is the same before and after VoucherIssued{line}"
        yield "step 2: evolve() remembers that it was issued", same if new == decider.initial else None
        again = refuses(decider, issue(voucher_id="v-1", amount=50), new, "a voucher is issued once")
        yield "step 2: a voucher is issued once", again
        if step >= 3:
            yield from _redeeming(decider, commands["RedeemVoucher"], events["VoucherRedeemed"], issue, new)

    return checked(tries())


def _redeeming(decider: Decider, redeem: Any, redeemed: Any, issue: Any, new: Any) -> Tries:
    """Try the third step, with a voucher of 50 as `new`."""

    def used(amount: int, order_id: str = "o-1") -> dict[str, Any]:
        return {"voucher_id": "v-1", "order_id": order_id, "amount": amount}

    left = "no more is redeemed than is left"
    yield "step 3: a part of it is redeemed", decides(decider, redeem(**used(30)), new, redeemed(**used(30)))
    yield f"step 3: {left}", refuses(decider, redeem(**used(51)), new, left)
    rest = decider.evolve(new, redeemed(**used(30)))
    yield "step 3: evolve() takes away what was redeemed", refuses(decider, redeem(**used(21, "o-2")), rest, left)
    last = decides(decider, redeem(**used(20, "o-2")), rest, redeemed(**used(20, "o-2")))
    yield "step 3: the rest can be redeemed, to the last euro", last
    empty = decider.evolve(rest, redeemed(**used(20, "o-2")))
    yield "step 3: an empty voucher is empty", refuses(decider, redeem(**used(1)), empty, left)
    once = refuses(decider, issue(voucher_id="v-1", amount=50), empty, "a voucher is issued once")
    yield "step 3: an empty voucher is not issued again", once
    never = refuses(decider, redeem(**used(1)), decider.initial, "only a voucher that was issued is redeemed")
    yield "step 3: what was never issued is not redeemed", never
    with Lab(domain=Domain([decider]), **repeatable()) as lab:
        lab.send(issue(voucher_id="v-1", amount=50))
        lab.send(redeem(**used(30)))
        stored = [event["type"] for event in lab.events().dicts()]
    yield "a lab works with it", _named("events in the log", stored, ["VoucherIssued", "VoucherRedeemed"])


def _named(what: str, found: Sequence[str], wanted: Sequence[str]) -> str | None:
    if found == wanted:
        return None
    return f"{what}: {', '.join(found) or 'none'}; it should be {', '.join(wanted)}"
