"""Messages: what a field takes, what is refused and how it is named."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from support.tallies import Added, tallies
from support.things import Everything

from cqrs_lab import Event, Value
from cqrs_lab.errors import CqrsLabError, DeclarationError, InvalidMessage, UnsupportedField
from cqrs_lab.messages import Message
from cqrs_lab.shop import OrderDetails, OrderLine, PayOrder, PlaceOrder, RegisterCustomer

LINE = {"product_id": "p-1", "quantity": 1, "unit_price": "1.50"}


@pytest.mark.parametrize(
    ("message", "fields", "said"),
    [
        (PlaceOrder, {"lines": []}, "lines: .*at least 1 item"),
        (PlaceOrder, {"order_id": ""}, "order_id: .*at least 1 character"),
        (PlaceOrder, {"order_id": "x" * 501}, "order_id: .*at most 500 characters"),
        (PlaceOrder, {"order_id": "a\ud800"}, "order_id: .*unicode"),
        (PlaceOrder, {"order_id": 7}, "order_id: .*string.*got 7"),
        (PlaceOrder, {"lines": [LINE | {"quantity": 0}]}, r"lines\[0\]\.quantity: .*greater than or equal to 1.*got 0"),
        (PlaceOrder, {"lines": [LINE, LINE | {"unit_price": "1.005"}]}, r"lines\[1\]\.unit_price: .*2 decimal places"),
        (PlaceOrder, {"lines": [LINE | {"unit_price": float("nan")}]}, r"lines\[0\]\.unit_price: .*finite"),
        (PlaceOrder, {"lines": [LINE | {"unit_price": "Infinity"}]}, r"lines\[0\]\.unit_price: .*finite"),
        (PlaceOrder, {"lines": [LINE | {"unit_price": "-0.01"}]}, r"lines\[0\]\.unit_price: .*or equal to 0"),
        (PlaceOrder, {"lines": [LINE | {"product_id": "\udfff"}]}, r"lines\[0\].*product_id: .*unicode"),
        (PlaceOrder, {"lines": [LINE | {"quantity": 2**63}]}, r"lines\[0\].*quantity: .*64 bits"),
        (PlaceOrder, {"lines": [LINE | {"color": "red"}]}, r"lines\[0\]\.color: there is no such field"),
        (PlaceOrder, {"priority": 1}, "priority: there is no such field"),
        (PayOrder, {"amount": "10000000000000000.00"}, "amount: .*digits"),
        (PayOrder, {"amount": "abc"}, "amount: .*decimal.*got 'abc'"),
        (PayOrder, {"amount": "NaN"}, "amount: .*finite"),
        (PayOrder, {"amount": 1e400}, "amount: .*finite"),
        (PayOrder, {}, "amount: .*required"),
        (PayOrder, {"amount": "Infinity"}, "amount: .*finite"),
        (PayOrder, {"amount": 10**17}, "amount: .*digits"),
        (PayOrder, {"amount": 1, "order_id": ""}, "order_id: .*at least 1 character"),
        (PayOrder, {"amount": 1, "tip": 2}, "tip: there is no such field"),
        (OrderLine, {"quantity": 0}, "quantity: .*greater than or equal to 1"),
        (OrderLine, {"unit_price": float("nan")}, "unit_price: .*finite"),
        (OrderLine, {"unit_price": "1.005"}, "unit_price: .*2 decimal places"),
        (OrderLine, {"unit_price": -1}, "unit_price: .*or equal to 0"),
        (RegisterCustomer, {"name": "Ann", "email": "nowhere"}, "email: .*match"),
        (RegisterCustomer, {"name": "", "email": "x"}, "name: .*at least 1.*; email: .*match"),
    ],
)
def test_a_command_that_breaks_a_rule(message: type[Value], fields: dict[str, Any], said: str) -> None:
    """A field that breaks its rule is InvalidMessage, naming the field, the rule and what was given."""
    valid: dict[type[Value], dict[str, Any]] = {
        OrderLine: LINE,
        PlaceOrder: {"order_id": "o-1", "customer_id": "c-1", "lines": [LINE]},
        PayOrder: {"order_id": "o-1"},
        RegisterCustomer: {"customer_id": "c-1"},
    }
    with pytest.raises(InvalidMessage, match=said) as refused:
        message(**(valid[message] | fields))
    assert str(refused.value).startswith(f"{message.__name__} was refused: ")
    assert str(refused.value).endswith("Nothing was stored")
    assert isinstance(refused.value, CqrsLabError)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"number": 2**63}, "number: .*64 bits"),
        ({"number": -(2**63) - 1}, "number: .*64 bits"),
        ({"number": 1.5}, "number: "),
        ({"ratio": float("nan")}, "ratio: .*finite"),
        ({"ratio": float("-inf")}, "ratio: .*finite"),
        ({"weight": "1.123456"}, "weight: .*5 decimal places"),
        ({"weight": "12345678.0"}, "weight: .*digits"),
        ({"at": datetime(2024, 3, 1)}, "at: .*no time zone"),
        ({"at": "2024-03-01T00:00:00"}, "at: .*no time zone"),
        ({"text": "x\udc80"}, "text: .*surrogate"),
        ({"parts": [{"name": "\ud83d"}]}, r"parts.0.*name: .*surrogate"),
        ({"parts": [{"name": "a", "size": float("inf")}]}, r"parts.0.*size: .*finite"),
        ({"parts": [{"name": "a", "made_at": datetime(2024, 3, 1)}]}, r"parts.0.*made_at: .*no time zone"),
        ({"counts": [1, 2**64]}, r"counts\[1\]: .*64 bits"),
        ({"reference": "not-a-uuid"}, "reference: "),
        ({"day": "2024-13-01"}, "day: "),
    ],
)
def test_an_event_that_a_column_cannot_hold(fields: dict[str, Any], said: str) -> None:
    """A value that a typed column could not give back is refused when the event is made, also deep inside it."""
    with pytest.raises(InvalidMessage, match=said):
        Everything(thing_id="t-1", **fields)


def test_messages_are_frozen_and_named() -> None:
    """A message cannot be changed, takes its fields by name only, and equals another that says the same."""
    line = OrderLine(**LINE)
    with pytest.raises(ValueError, match="frozen"):
        line.quantity = 2
    with pytest.raises(TypeError):
        OrderLine("p-1", 1, Decimal("1.50"))
    assert line == OrderLine(product_id="p-1", quantity=1, unit_price=Decimal("1.5"))
    assert hash(line) == hash(OrderLine(product_id="p-1", quantity=1, unit_price=Decimal("1.50")))
    assert OrderDetails(order_id="o-1").order_id == "o-1"
    lines = [dict(LINE)]
    order = PlaceOrder(order_id="o-1", customer_id="c-1", lines=lines)
    lines.append(dict(LINE))
    assert len(order.lines) == 1


def test_validation_by_pydantic_is_the_same() -> None:
    """What pydantic's own entrances take is held to the same rules, and malformed JSON is refused."""
    with pytest.raises(ValueError, match="no time zone"):
        Everything.model_validate({"thing_id": "t", "at": datetime(2024, 1, 1)})
    for text in ("{", '{"order_id": "o-1", "amount": NaN}', '{"order_id": "o-1", "amount": "1.005"}', "[]"):
        with pytest.raises(ValueError, match="validation error"):
            PayOrder.model_validate_json(text)


def test_a_subclass_keeps_its_rules() -> None:
    """A message declared by anybody is validated as the shop's are."""

    class Measured(Event):
        schema_version: ClassVar[int] = 3
        sensor: str
        value: float

    assert issubclass(Measured, Message)
    with pytest.raises(InvalidMessage, match=r"Measured was refused: value: .*finite"):
        Measured(sensor="s", value=float("nan"))


class Reserved(Event):
    tally: str
    position: int


class Cased(Event):
    tally: str
    Note: str | None = None


class Retyped(Event):
    tally: str
    note: int | None = None


class Shapeless(Event):
    tally: str
    data_: dict[str, str] = {}


class Keyless(Event):
    number: str


@pytest.mark.parametrize("event", [Reserved, Cased, Retyped, Shapeless, Keyless])
def test_fields_that_cannot_be_columns_are_refused_at_declaration(event):
    """Envelope names, names that differ in case, a second type, an unsupported type and a missing key are refused."""
    with pytest.raises((UnsupportedField, DeclarationError)):
        tallies(events=[Added, event])
