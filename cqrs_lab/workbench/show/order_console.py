"""The order console: a form that sends commands to a shop, the events that follow, and what each read model knows yet.

Owns the form and its words, not the rules: `send_form` sends what was filled in, `console_state` reads what came of it.
The page (see `Live`) asks for both. A refusal is told as somebody behind a counter would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import polars as pl

from cqrs_lab.app import Lab
from cqrs_lab.errors import CqrsLabError, InvalidMessage, RuleViolated
from cqrs_lab.messages import Command
from cqrs_lab.shop import CancelOrder, DeliverOrder, PayOrder, PlaceOrder, RefundOrder, ShipOrder
from cqrs_lab.store.shown import NULL, html_of
from cqrs_lab.workbench.show.live import Live, Message
from cqrs_lab.workbench.show.pages import html, table

FORMS: dict[str, tuple[type[Command], tuple[str, ...]]] = {
    "place": (PlaceOrder, ("customer_id", "product_id", "quantity", "unit_price")),
    "pay": (PayOrder, ("amount",)),
    "ship": (ShipOrder, ("tracking_number",)),
    "deliver": (DeliverOrder, ()),
    "cancel": (CancelOrder, ("reason",)),
    "refund": (RefundOrder, ("amount", "reason")),
}
"""What can be done to an order: its command, and the fields that it needs beside the order's number."""

LABELS = {
    "order_id": "order",
    "customer_id": "customer",
    "product_id": "product",
    "quantity": "units",
    "unit_price": "price of one",
    "amount": "amount",
    "tracking_number": "tracking number",
    "reason": "reason",
}
"""What each field is called."""

_FILLED = {
    "order_id": "o-1",
    "customer_id": "c-1",
    "product_id": "p-1",
    "quantity": "2",
    "unit_price": "9.99",
    "amount": "19.98",
    "tracking_number": "T-1",
    "reason": "changed my mind",
}
_STAGES = {
    "NEW": "There is no order {}",
    "PENDING": "Order {} waits for its payment",
    "PAID": "Order {} is paid",
    "SHIPPED": "Order {} has left the house",
    "DELIVERED": "Order {} was delivered",
    "CANCELLED": "Order {} was cancelled",
}


def command_of(do: str, fields: Mapping[str, str]) -> Command:
    """Return the command that a filled form stands for.

    Args:
        do: a key of FORMS.
        fields: order_id and what FORMS says, as they were typed.

    Raises:
        InvalidMessage: a field breaks its rule.
    """
    kind, names = FORMS[do]
    given: dict[str, Any] = {name: fields.get(name, "").strip() for name in ("order_id", *names)}
    if kind is PlaceOrder:
        given["lines"] = [{name: given.pop(name) for name in ("product_id", "quantity", "unit_price")}]
    return kind(**given)


def _to_mend(do: str, fields: Mapping[str, str]) -> str | None:
    """What has to be filled in otherwise, None when nothing that can be said so."""
    for name in ("order_id", *FORMS[do][1]):
        given, called = fields.get(name, "").strip(), LABELS[name]
        if not given:
            return f"Please fill in the field {called!r}"
        if name == "quantity" and not (given.isdecimal() and int(given) > 0):
            return f"{called!r} takes a whole number from 1 on, and not {given!r}"
        if name in ("unit_price", "amount"):
            try:
                Decimal(given)
            except InvalidOperation:
                return f"{called!r} takes a sum such as 9.99, and not {given!r}"
    return None


def in_words(error: CqrsLabError, order_id: str) -> str:
    """Return a refusal in the words of a shopkeeper.

    Args:
        error: what `lab.send` raised.
        order_id: the order that it is about.
    """
    if isinstance(error, InvalidMessage):
        return f"The form is not filled in right: {'; '.join(error.problems)}. Nothing was stored."
    if isinstance(error, RuleViolated):
        stage = _STAGES.get(str(error.state))
        told = stage.format(order_id) if stage else f"Order {order_id}: {error.state}"
        return f"Sorry, no. {told}, and {error.rule}. Nothing was stored."
    return f"That did not work: {error}"


@dataclass(frozen=True)
class Outcome:
    """What came of a form.

    Attributes:
        words: what to tell the person who sent it.
        refused: whether nothing was stored.
        position: of the last event that it led to; None when it was refused.
    """

    words: str
    refused: bool
    position: int | None


def send_form(lab: Lab, do: str, fields: Mapping[str, str]) -> Outcome:
    """Send the command of a form; a refusal is an outcome, not an error.

    Args:
        do, fields: as for `command_of`.
    """
    order_id = fields.get("order_id", "").strip()
    mend = _to_mend(do, fields)
    if mend:
        return Outcome(f"{mend}. Nothing was sent.", True, None)
    try:
        receipt = lab.send(command_of(do, fields))
    except CqrsLabError as error:
        return Outcome(in_words(error, order_id), True, None)
    what = ", ".join(type(event).__name__ for event in receipt.events) or "nothing new"
    return Outcome(f"Done: {what}, at position {receipt.position:,}.", False, receipt.position)


@dataclass(frozen=True, eq=False, repr=False)
class ConsoleState:
    """The latest events, and what each served read model says of one order; a notebook shows it as two tables.

    Attributes:
        order_id: the order.
        events: position, type, stream and data, the latest first.
        models: model, served_as, mode, says (the order's status there, None when there is none), behind (events) and
            state ("fresh", "processing", or why it does not move).
    """

    order_id: str
    events: pl.DataFrame
    models: pl.DataFrame

    @property
    def is_late(self) -> bool:
        """Whether any read model is behind."""
        return bool((self.models["behind"] > 0).any())

    def __repr__(self) -> str:
        return f"<console: order {self.order_id}, {self.models.height} served read models>"

    def _repr_html_(self) -> str:
        models = [
            [
                html(row["model"]),
                html(f"{row['served_as']}, {row['mode']}"),
                html(row["says"] or NULL),
                f"<b>{html(row['state'])}</b>" + (f", {row['behind']:,} behind" if row["behind"] else ""),
            ]
            for row in self.models.to_dicts()
        ]
        columns = ["read model", "served as", f"order {self.order_id}", "state"]
        events = self.events.rename({"type": "event"}).to_arrow()
        parts = [table(columns, models, "What each read model knows"), html_of(events, title="Latest events")]
        return "\n".join(f"<div>{part}</div>" for part in parts)


def console_state(lab: Lab, order_id: str = "o-1", *, rows: int = 6) -> ConsoleState:
    """Return the latest events of a lab, and what each served read model says of one order.

    Args:
        order_id: the order.
        rows: how many events.
    """
    events = lab.events(descending=True, limit=rows).pl().select("position", "type", "stream", "data")
    found = []
    for row in lab.lag().dicts():
        if row["served_as"] not in ("view", "materialized", "projection"):
            continue  # a saga
        state = row["state"]
        if state == "ok":
            state = "processing" if row["events_behind"] else "fresh"
        says = _status(lab, row["model"], row["served_as"], order_id)
        found.append((row["model"], row["served_as"], row["mode"], says, row["events_behind"], state))
    schema = {"model": pl.String, "served_as": pl.String, "mode": pl.String, "says": pl.String, "behind": pl.Int64}
    models = pl.DataFrame(found, schema={**schema, "state": pl.String}, orient="row")
    return ConsoleState(order_id, events, models)


def _status(lab: Lab, model: str, served_as: Any, order_id: str) -> str | None:
    declared = lab.model(model)
    if tuple(declared.keys) != ("order_id",):
        return None
    try:
        row = lab.serve(declared, served_as).get(order_id)
    except CqrsLabError:
        return None  # its state says why
    return None if row is None else str(row.get("status", "has a row"))


class OrderConsole(Live):
    """A form over a shop, its events and its read models; what `order_console` returns.

    Attributes:
        outcome: what came of the form that was sent last; None before.
        order_id: the order that the read models are asked about.
    """

    script = "order_console.js"
    named = "order console"

    def __init__(self, lab: Lab, order_id: str = "o-1", rows: int = 6) -> None:
        self._lab, self._rows, self.order_id = lab, rows, order_id
        self.outcome: Outcome | None = None
        self._picture = self.state._repr_html_()
        forms = {do: list(names) for do, (_, names) in FORMS.items()}
        super().__init__({"forms": forms, "labels": LABELS, "filled": _FILLED | {"order_id": order_id}})

    def __repr__(self) -> str:
        return f"<order console: order {self.order_id} at position {self._lab.head}>"

    @property
    def state(self) -> ConsoleState:
        """What is shown now."""
        return console_state(self._lab, self.order_id, rows=self._rows)

    def picture(self) -> str:
        """Return the tables as they were when the console was made."""
        return f"<p>A form stands here to {', '.join(FORMS)} an order.</p>\n{self._picture}"

    def answer(self, question: Message) -> Message:
        """Send a form ("send"), move what moves by hand ("catch up"), or look ("state").

        Args:
            question: ask, order_id, and for a form do and fields.
        """
        said: Message = {}
        self.order_id = question.get("order_id") or self.order_id
        if question["ask"] == "send":
            self.outcome = send_form(self._lab, question["do"], question["fields"])
            said = {"alert" if self.outcome.refused else "said": self.outcome.words}
        elif question["ask"] == "catch up":
            self._lab.catch_up()
            for row in self._lab.lag().dicts():
                if row["served_as"] == "materialized":
                    self._lab.serve(row["model"], "materialized").refresh()
            said = {"said": f"All read models were moved to position {self._lab.head:,}."}
        else:
            said = {"quiet": True}
        state = self.state
        return {**said, "page": state._repr_html_(), "late": state.is_late}


def order_console(lab: Lab, *, order_id: str = "o-1", rows: int = 6) -> OrderConsole:
    """Return a form that sends commands to a shop, with the events that follow and what each read model knows yet.

    Args:
        lab: a shop; serve the read models that are to be seen first.
        order_id: the order that the form names at first.
        rows: how many of the latest events to show.

    Raises:
        CqrsLabError: anywidget is not installed.
    """
    return OrderConsole(lab, order_id, rows)
