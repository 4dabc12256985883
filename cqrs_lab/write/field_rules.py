"""The rules of a field: what a class says of a value, in SQL.

Owns the translation of one field of an event class: the expression that casts a value without loss, the conditions that
its constraints become, and which classes have rules that SQL cannot express. Knows no table and no row.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import pyarrow as pa
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import AllowInfNan, BaseModel
from pydantic.fields import FieldInfo

from cqrs_lab.errors import InvalidTable
from cqrs_lab.messages import PERSONAL, Message, decimal_limits, unwrap
from cqrs_lab.sql.names import quote
from cqrs_lab.store.categories import column_type

_COMPARISONS: Mapping[type, tuple[str, str]] = {
    Ge: ("ge", ">="),
    Gt: ("gt", ">"),
    Le: ("le", "<="),
    Lt: ("lt", "<"),
}


_YEARS = "is within the years 1 to 9999"
NO_NUL = "has no NUL character"


@dataclass(frozen=True)
class Rule:
    """Something that must be true of a value: an SQL condition over it, and the condition in words.

    Attributes:
        condition: over the value.
        words: the condition in words.
        of_items: of a rule about each item of a list: the list, what an item is called, and the condition over it.
    """

    condition: str
    words: str
    of_items: tuple[str, str, str] | None = None


def all_of(rules: Iterable[Rule]) -> str:
    """Return the condition that all rules hold.

    A list is gone through once for all that is said of its items: 0.10 s for 690,000 events, and 0.18 with each rule by
    itself.
    """
    lists: dict[tuple[str, str], list[str]] = {}
    conditions = []
    for rule in rules:
        if rule.of_items is None:
            conditions.append(rule.condition)
        else:
            values, item, condition = rule.of_items
            lists.setdefault((values, item), []).append(f"({condition})")
    conditions += [_every(values, item, " AND ".join(of_items)) for (values, item), of_items in lists.items()]
    return " AND ".join(f"({condition})" for condition in conditions)


def shared(owners: Mapping[str, FieldInfo], column: str) -> Iterator[Rule]:
    """Yield the rules of one field, each stated once for all the event types that have it."""
    seen: dict[Rule, list[str]] = {}
    for type_name, info in owners.items():
        for rule in _constraints(column, info.annotation, info.metadata, depth=0):
            seen.setdefault(rule, []).append(type_name)
    for rule, types in seen.items():
        if set(types) == set(owners):
            yield rule
        else:
            yield Rule(f"type NOT IN ({literals(types)}) OR ({rule.condition})", rule.words)


def _constraints(x: str, annotation: Any, metadata: Sequence[Any], *, depth: int) -> Iterator[Rule]:
    """The constraints of a value, `x`; those inside a list or struct included."""
    kind, more, _ = unwrap(annotation)
    size = f"{'octet_length' if kind is bytes else 'length'}({x})"
    for item in [*metadata, *more]:
        if _is_numeric_bound(item):
            attribute, sign = _COMPARISONS[type(item)]
            bound = getattr(item, attribute)
            yield Rule(f"{x} {sign} {bound}", f"is {sign} {bound}")
        elif isinstance(item, MinLen):
            yield Rule(f"{size} >= {item.min_length}", f"has at least {item.min_length} characters or items")
        elif isinstance(item, MaxLen):
            yield Rule(f"{size} <= {item.max_length}", f"has at most {item.max_length} characters or items")
        elif getattr(item, "pattern", None):
            yield Rule(f"regexp_matches({x}, {literals([item.pattern])})", f"matches {item.pattern}")
    origin = typing.get_origin(kind)
    if origin is Literal:
        yield Rule(f"{x} IN ({literals(typing.get_args(kind))})", f"is one of {', '.join(typing.get_args(kind))}")
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        values = [member.value for member in kind]
        yield Rule(f"{x} IN ({literals(values)})", f"is one of {', '.join(values)}")
    elif origin in (list, tuple):
        inner = f"e{depth}"
        item_type = typing.get_args(kind)[0]
        for rule in _constraints(inner, item_type, [], depth=depth + 1):
            yield _of_items(x, inner, rule.condition, f"has no item that breaks: it {rule.words}")
        if not unwrap(item_type)[2]:
            yield _of_items(x, inner, f"{inner} IS NOT NULL", "has no empty item")
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, info in kind.model_fields.items():
            part = f"{x}.{quote(name)}"
            nullable = unwrap(info.annotation)[2] or not info.is_required()
            if not nullable:
                yield Rule(f"{part} IS NOT NULL", f"has a {name}")
            for rule in _constraints(part, info.annotation, info.metadata, depth=depth):
                yield Rule(f"{part} IS NULL OR ({rule.condition})", f"{rule.words} ({name})")


def _is_numeric_bound(item: Any) -> bool:
    """Whether a constraint compares with a number; a date would be a subtraction in SQL and is checked in Python."""
    if type(item) not in _COMPARISONS:
        return False
    return isinstance(getattr(item, _COMPARISONS[type(item)][0]), (int, float, Decimal))


def _every(x: str, inner: str, condition: str) -> str:
    return f"coalesce(list_bool_and(list_transform({x}, lambda {inner}: coalesce({condition}, false))), true)"


def _of_items(x: str, inner: str, condition: str, words: str) -> Rule:
    return Rule(_every(x, inner, condition), words, (x, inner, condition))


def convert(
    where: str, x: str, source: pa.DataType, annotation: Any, metadata: Sequence[Any], depth: int = 0
) -> tuple[str, list[Rule]]:
    """Return the expression that casts `x` to the field's column type, and what must hold for it to lose nothing."""
    kind, more, _ = unwrap(annotation)
    target = column_type(annotation, metadata, where=where)
    is_number = pa.types.is_integer(source) or pa.types.is_decimal(source)
    plain = source.value_type if pa.types.is_dictionary(source) else source
    is_text = pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain)
    if pa.types.is_null(source):
        return f"CAST({x} AS {target})", []
    if kind in (int, Decimal) and (is_number or pa.types.is_floating(source)):
        cast = f"TRY_CAST({x} AS {target})"
        finite = f"isfinite({x}) AND " if pa.types.is_floating(source) else ""
        back = f"CAST({cast} AS DOUBLE)" if finite else cast
        digits, places = decimal_limits([*metadata, *more])
        if _fits(source, kind, digits, places):
            return f"CAST({x} AS {target})", []
        words = "is a whole number of 64 bits" if kind is int else f"has at most {places} places and {digits} digits"
        return cast, [Rule(f"{finite}{cast} IS NOT NULL AND {back} = {x}", words)]
    if kind is float and (is_number or pa.types.is_floating(source)):
        return f"CAST({x} AS DOUBLE)", [Rule(f"isfinite(CAST({x} AS DOUBLE))", "is a finite number")]
    if kind is datetime and pa.types.is_timestamp(source):
        if source.tz is None:
            raise InvalidTable(
                f"the times in {where!r} have no time zone; say which, for example in Polars "
                f"pl.col({where!r}).dt.replace_time_zone('UTC')",
                column=where,
            )
        first, last = (f"TIMESTAMPTZ '{end}+00'" for end in (datetime.min, datetime.max))
        return f"CAST({x} AS TIMESTAMP)", [Rule(f"{x} BETWEEN {first} AND {last}", _YEARS)]
    if kind is date and pa.types.is_date(source):
        return f"CAST({x} AS DATE)", [Rule(f"{x} BETWEEN DATE '{date.min}' AND DATE '{date.max}'", _YEARS)]
    if kind is bool and pa.types.is_boolean(source):
        return x, []
    if kind is UUID and (is_text or source == pa.uuid()):
        return f"TRY_CAST({x} AS UUID)", [Rule(f"TRY_CAST({x} AS UUID) IS NOT NULL", "is a UUID")]
    if kind is bytes and (pa.types.is_binary(plain) or pa.types.is_large_binary(plain)):
        return f"CAST({x} AS BLOB)", []
    if target == "VARCHAR" and (is_text or (kind is str and source == pa.uuid())):
        return f"CAST({x} AS VARCHAR)", [Rule(f"NOT contains({x}, chr(0))", NO_NUL)]
    if typing.get_origin(kind) in (list, tuple) and _is_list(source):
        inner = f"c{depth}"
        cast, rules = convert(where, inner, source.value_type, typing.get_args(kind)[0], [], depth + 1)
        lifted = [_of_items(x, inner, f"{inner} IS NULL OR ({r.condition})", r.words) for r in rules]
        return f"CAST(list_transform({x}, lambda {inner}: {cast}) AS {target})", lifted
    if isinstance(kind, type) and issubclass(kind, BaseModel) and pa.types.is_struct(source):
        return _convert_struct(where, x, source, kind, target, depth)
    raise InvalidTable(
        f"column {where!r} is {source}, which does not become {target} without a guess; cast it first", column=where
    )


def _convert_struct(
    where: str, x: str, source: pa.StructType, kind: type[BaseModel], target: str, depth: int
) -> tuple[str, list[Rule]]:
    given = {source.field(i).name: source.field(i).type for i in range(source.num_fields)}
    for name in given:
        if name not in kind.model_fields:
            raise InvalidTable(f"column {where!r} has a part {name!r}, which {kind.__name__} does not", column=where)
    packed, rules = [], []
    for name, info in kind.model_fields.items():
        part = f"{x}.{quote(name)}"
        if name not in given:
            if info.is_required() or info.get_default(call_default_factory=True) is not None:
                raise InvalidTable(f"column {where!r} lacks the part {name!r} of {kind.__name__}", column=where)
            cast = "NULL"
        else:
            cast, more = convert(f"{where}.{name}", part, given[name], info.annotation, info.metadata, depth)
            rules += [Rule(f"{part} IS NULL OR ({r.condition})", f"{r.words} ({name})") for r in more]
        packed.append(f"{quote(name)} := {cast}")
    return f"CAST(CASE WHEN {x} IS NULL THEN NULL ELSE struct_pack({', '.join(packed)}) END AS {target})", rules


def _fits(source: pa.DataType, kind: type, digits: int, places: int) -> bool:
    """Whether every number of a column's type fits the field's."""
    if kind is int:
        return bool(pa.types.is_signed_integer(source))
    return (
        bool(pa.types.is_decimal(source))
        and source.scale <= places
        and (source.precision - source.scale <= digits - places)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def unless_null(column: str, rule: Rule) -> Rule:
    """Return the rule for a value that may be missing."""
    return Rule(f"{column} IS NULL OR ({rule.condition})", rule.words, rule.of_items)  # a list of none keeps all rules


def literals(values: typing.Iterable[str]) -> str:
    """Return names from class declarations as SQL strings; values of rows never come this way."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def needs_python(model: type[BaseModel]) -> bool:
    """Whether a class, or one inside it, has rules that are not among those translated above."""
    if not issubclass(model, Message):
        return True
    own = model.__pydantic_decorators__
    validators = {**own.validators, **own.field_validators, **own.root_validators, **own.model_validators}
    if set(validators) - {"_storable"}:
        return True
    return any(_odd(info.annotation, info.metadata) for info in model.model_fields.values())


def _odd(annotation: Any, metadata: Sequence[Any]) -> bool:
    kind, more, _ = unwrap(annotation)
    for item in [*metadata, *more]:
        known = item is PERSONAL or _is_numeric_bound(item) or isinstance(item, (MinLen, MaxLen, AllowInfNan))
        general = type(item).__name__ == "_PydanticGeneralMetadata" and set(vars(item)) <= {
            "pattern", "max_digits", "decimal_places", "allow_inf_nan",
        }  # fmt: skip
        if not (known or general):
            return True
    if typing.get_origin(kind) in (list, tuple):
        return any(_odd(a, []) for a in typing.get_args(kind) if a is not Ellipsis)
    return isinstance(kind, type) and issubclass(kind, BaseModel) and needs_python(kind)
