"""A table of events, checked as a set by the rules of single events.

Owns the translation of event classes into SQL: for each column an expression that casts it without loss, and rules
that must be true of every row. One scan evaluates all of them. A rule that SQL cannot express (a validator written in
Python) is checked row by row with the class itself, so that no rule is ever skipped.
"""

from __future__ import annotations

import enum
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import AllowInfNan, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cqrs_lab.errors import InvalidTable
from cqrs_lab.messages import PERSONAL, Event, Message, decimal_limits, refused, unwrap
from cqrs_lab.sql.names import quote
from cqrs_lab.store.categories import Category, column_type
from cqrs_lab.store.database import Database

Table: TypeAlias = "pa.Table | pl.DataFrame | pd.DataFrame | str | os.PathLike[str]"
"""What append_table takes: an Arrow, Polars or pandas table, or the path of a Parquet file."""

ROW = "_row"  # number of the row, counted from 1; added to the table under this name

_COMPARISONS: Mapping[type, tuple[str, str]] = {
    Ge: ("ge", ">="),
    Gt: ("gt", ">"),
    Le: ("le", "<="),
    Lt: ("lt", "<"),
}


@dataclass(frozen=True)
class Rule:
    """Something that must be true of a value: an SQL condition over it, and the condition in words."""

    condition: str
    words: str


@dataclass
class Plan:
    """How a table becomes rows of the log.

    Attributes:
        columns: column of the log -> SQL expression over the table.
        params: column -> values for the marks in its expression, in order.
        rules: (column, rule) for every rule, each an SQL condition over a row.
        by_hand: event types with rules that only Python can check.
    """

    columns: dict[str, str] = field(default_factory=dict)
    params: dict[str, list[Any]] = field(default_factory=dict)
    rules: list[tuple[str, Rule]] = field(default_factory=list)
    by_hand: list[type[Event]] = field(default_factory=list)


def to_arrow(table: Table) -> pa.Table:
    """Return the table as Arrow, with its rows numbered from 1 in the column `_row`.

    Raises:
        InvalidTable: not a table, or no such Parquet file.
    """
    if isinstance(table, pl.DataFrame):
        arrow = table.to_arrow()
    elif isinstance(table, pd.DataFrame):
        arrow = pa.Table.from_pandas(table, preserve_index=False)
    elif isinstance(table, (str, os.PathLike)):
        try:
            arrow = pq.read_table(Path(table))
        except (OSError, pa.ArrowInvalid) as error:
            raise InvalidTable(f"{table} cannot be read as Parquet: {error}. Nothing was stored") from error
    elif isinstance(table, pa.Table):
        arrow = table
    else:
        raise InvalidTable(
            f"a {type(table).__name__} is not a table; give Arrow, Polars, pandas or the path of a Parquet file"
        )
    if ROW in arrow.column_names:
        raise InvalidTable(f"the column name {ROW!r} is taken for the row's number; rename it", column=ROW)
    if len(set(arrow.column_names)) != arrow.num_columns:
        raise InvalidTable("two columns have the same name; rename one")
    for index, field_ in enumerate(arrow.schema):
        narrower = _narrower(field_.type)
        if narrower is not None:
            try:
                arrow = arrow.set_column(index, field_.name, arrow[field_.name].cast(narrower))
            except pa.ArrowInvalid as error:
                raise InvalidTable(
                    f"column {field_.name!r} is {field_.type}, finer than the log keeps ({narrower}): {error}. "
                    "Round it first",
                    column=field_.name,
                ) from error
    return arrow.append_column(ROW, pa.array(np.arange(1, arrow.num_rows + 1)))


def _narrower(kind: pa.DataType) -> pa.DataType | None:
    """The type that DuckDB reads instead of one that it does not, or not in full; None for all others."""
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_decimal256(kind):
        return pa.decimal128(38, kind.scale)
    return None


def plan(category: Category, schema: pa.Schema) -> Plan:
    """Return how a table of that schema becomes rows of a category.

    Raises:
        InvalidTable: a column is missing, unknown, or of a type that cannot be cast without loss.
    """
    result = Plan()
    names = [name for name in schema.names if name != ROW]
    allowed = ["id", "type", "occurred_at", "recorded_at", "correlation_id", *category.columns]
    for required in ("id", "type", "occurred_at"):
        if required not in names:
            raise InvalidTable(
                f"the table has no column {required!r}; it needs id, type, occurred_at and the fields of the events. "
                f"It has {', '.join(names)}",
                column=required,
            )
    for name in names:
        if name not in allowed:
            raise InvalidTable(
                f"category {category.name!r} has no field {name!r}; drop the column or rename it to one of "
                f"{', '.join(allowed)}",
                column=name,
            )
    for name, kind, nullable in (
        ("id", str, False),
        ("type", str, False),
        ("occurred_at", datetime, False),
        ("recorded_at", datetime, False),
        ("correlation_id", str, True),
    ):
        if name in names:
            expression, rules = _convert(name, quote(name), schema.field(name).type, kind, [])
            result.columns[name] = expression
            result.rules += [(name, _unless_null(quote(name), rule)) for rule in rules]
            if not nullable:
                result.rules.append((name, Rule(f"{quote(name)} IS NOT NULL", "is there")))
    result.rules.append(("id", Rule("length(id) BETWEEN 1 AND 500", "has 1 to 500 characters")))
    known = ", ".join(category.types)
    result.rules.append(("type", Rule(f"type IN ({literals(category.types)})", f"is one of {known}")))
    for name in category.columns:
        _plan_field(result, category, name, schema)
    result.by_hand = [event for event in category.types.values() if _needs_python(event)]
    return result


def check(database: Database, source: str, category: Category, table: pa.Table, plan: Plan) -> None:
    """Refuse the table when a row of it breaks a rule.

    Raises:
        InvalidTable: names the first bad row, its column, its value and the rule.
    """
    if not table.num_rows:
        return
    every = " AND ".join(f"({rule.condition})" for _, rule in plan.rules)
    good = database.execute(f"SELECT count(*) FILTER ({every}) FROM {source}")[0][0]
    if good == table.num_rows and not plan.by_hand:
        return  # the first bad row is looked for only when there is one: 0.4 s instead of 0.8 s for 3.35 M rows
    firsts = ", ".join(f"min({ROW}) FILTER (NOT coalesce({rule.condition}, false))" for _, rule in plan.rules)
    found = database.execute(f"SELECT {firsts} FROM {source}")[0]
    bad = [(row, number) for number, row in enumerate(found) if row is not None]
    if bad:
        row, number = min(bad)
        column, rule = plan.rules[number]
        _refuse(table, row, column, rule.words)
    for event in plan.by_hand:
        _check_by_hand(event, category, table)


def _refuse(table: pa.Table, row: int, column: str, words: str) -> typing.NoReturn:
    values = table.slice(row - 1, 1).to_pylist()[0]
    shown = repr(values.get(column))
    raise InvalidTable(
        f"row {row} ({values.get('type')} of {values.get('id')!r}): {column} is {shown[:200]}, but the rule is that "
        f"it {words}; nothing of the table was stored. Mend the row, or leave it out, and append again",
        row=row,
        column=column,
    )


def _plan_field(result: Plan, category: Category, name: str, schema: pa.Schema) -> None:
    """Add the expression and the rules of one field of the category's events."""
    owners = {t: event.model_fields[name] for t, event in category.types.items() if name in event.model_fields}
    present = name in schema.names
    column = quote(name)
    if name == category.key:
        if present:
            result.rules.append((name, Rule(f"{column} = id", "equals the column id")))
        result.rules += [("id", rule) for rule in _shared(owners, "id")]
        result.columns[name] = "id"
        return
    required = [t for t, f in owners.items() if f.is_required() and not unwrap(f.annotation)[2]]
    if not present:
        if required:
            words = f"has a column {name!r}, which {' and '.join(required)} need"
            result.rules.append(("type", Rule(f"type NOT IN ({literals(required)})", words)))
        expression = f"CAST(NULL AS {category.columns[name]})"
    else:
        annotation = next(iter(owners.values()))
        expression, rules = _convert(name, column, schema.field(name).type, annotation.annotation, annotation.metadata)
        result.rules += [(name, _unless_null(column, rule)) for rule in rules]
        result.rules += [(name, _unless_null(column, rule)) for rule in _shared(owners, column)]
        if required:
            condition = f"{column} IS NOT NULL OR type NOT IN ({literals(required)})"
            result.rules.append((name, Rule(condition, f"is there for {' and '.join(required)}")))
        if len(owners) < len(category.types):
            condition = f"{column} IS NULL OR type IN ({literals(owners)})"
            result.rules.append((name, Rule(condition, f"is empty except for {' and '.join(owners)}")))
    defaults = []
    for type_name, info in owners.items():
        default = info.get_default(call_default_factory=True) if not info.is_required() else None
        if default not in (None, PydanticUndefined):
            defaults.append(f"WHEN {literals([type_name])} THEN CAST(? AS {category.columns[name]})")
            result.params.setdefault(name, []).append(category.encode_value(default))
    if defaults:
        expression = f"coalesce({expression}, CASE type {' '.join(defaults)} END)"
    result.columns[name] = expression


def _shared(owners: Mapping[str, FieldInfo], column: str) -> Iterator[Rule]:
    """Rules of one field, each stated once for all the event types that have it."""
    seen: dict[tuple[str, str], list[str]] = {}
    for type_name, info in owners.items():
        for rule in _constraints(column, info.annotation, info.metadata, depth=0):
            seen.setdefault(rule, []).append(type_name)
    for (condition, words), types in seen.items():
        if set(types) != set(owners):
            condition = f"type NOT IN ({literals(types)}) OR ({condition})"
        yield Rule(condition, words)


def _constraints(x: str, annotation: Any, metadata: Sequence[Any], *, depth: int) -> Iterator[tuple[str, str]]:
    """The constraints of a value as (SQL condition over `x`, words); those inside a list or struct included."""
    kind, more, _ = unwrap(annotation)
    for item in [*metadata, *more]:
        if _is_numeric_bound(item):
            attribute, sign = _COMPARISONS[type(item)]
            bound = getattr(item, attribute)
            yield f"{x} {sign} {bound}", f"is {sign} {bound}"
        elif isinstance(item, MinLen):
            yield f"length({x}) >= {item.min_length}", f"has at least {item.min_length} characters or items"
        elif isinstance(item, MaxLen):
            yield f"length({x}) <= {item.max_length}", f"has at most {item.max_length} characters or items"
        elif getattr(item, "pattern", None):
            yield f"regexp_matches({x}, {literals([item.pattern])})", f"matches {item.pattern}"
    origin = typing.get_origin(kind)
    if origin is Literal:
        yield f"{x} IN ({literals(typing.get_args(kind))})", f"is one of {', '.join(typing.get_args(kind))}"
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        values = [member.value for member in kind]
        yield f"{x} IN ({literals(values)})", f"is one of {', '.join(values)}"
    elif origin in (list, tuple):
        inner = f"e{depth}"
        item_type = typing.get_args(kind)[0]
        for condition, words in _constraints(inner, item_type, [], depth=depth + 1):
            yield _every(x, inner, condition), f"has no item that breaks: it {words}"
        if not unwrap(item_type)[2]:
            yield _every(x, inner, f"{inner} IS NOT NULL"), "has no empty item"
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, info in kind.model_fields.items():
            part = f"{x}.{quote(name)}"
            nullable = unwrap(info.annotation)[2] or not info.is_required()
            if not nullable:
                yield f"{part} IS NOT NULL", f"has a {name}"
            for condition, words in _constraints(part, info.annotation, info.metadata, depth=depth):
                yield f"{part} IS NULL OR ({condition})", f"{words} ({name})"


def _is_numeric_bound(item: Any) -> bool:
    """Whether a constraint compares with a number; a date would be a subtraction in SQL and is checked in Python."""
    if type(item) not in _COMPARISONS:
        return False
    return isinstance(getattr(item, _COMPARISONS[type(item)][0]), (int, float, Decimal))


def _every(x: str, inner: str, condition: str) -> str:
    return f"coalesce(list_bool_and(list_transform({x}, lambda {inner}: coalesce({condition}, false))), true)"


def _convert(
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
        return f"CAST({x} AS TIMESTAMP)", [Rule(f"isfinite({x})", "is a finite time")]
    if kind is date and pa.types.is_date(source):
        return f"CAST({x} AS DATE)", []
    if kind is bool and pa.types.is_boolean(source):
        return x, []
    if kind is UUID and (is_text or source == pa.uuid()):
        return f"TRY_CAST({x} AS UUID)", [Rule(f"TRY_CAST({x} AS UUID) IS NOT NULL", "is a UUID")]
    if target == "VARCHAR" and (is_text or (kind is str and source == pa.uuid())):
        return f"CAST({x} AS VARCHAR)", []
    if typing.get_origin(kind) in (list, tuple) and _is_list(source):
        inner = f"c{depth}"
        cast, rules = _convert(where, inner, source.value_type, typing.get_args(kind)[0], [], depth + 1)
        lifted = [Rule(_every(x, inner, f"{inner} IS NULL OR ({r.condition})"), r.words) for r in rules]
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
            cast, more = _convert(f"{where}.{name}", part, given[name], info.annotation, info.metadata, depth)
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


def _unless_null(column: str, rule: Rule) -> Rule:
    return Rule(f"{column} IS NULL OR ({rule.condition})", rule.words)


def literals(values: typing.Iterable[str]) -> str:
    """Return names from class declarations as SQL strings; values of rows never come this way."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def _needs_python(model: type[BaseModel]) -> bool:
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
    return isinstance(kind, type) and issubclass(kind, BaseModel) and _needs_python(kind)


def _check_by_hand(event: type[Event], category: Category, table: pa.Table) -> None:
    fields = [name for name in event.model_fields if name in table.column_names or name == category.key]
    for batch in table.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            if row["type"] != event.__name__:
                continue
            row[category.key] = row["id"]
            given = {name: row[name] for name in fields if row[name] is not None}
            try:
                made = event.model_validate(given)
            except ValidationError as error:
                problems = "; ".join(refused(event.__name__, error).problems)
                _refuse(table, row[ROW], "type", f"passes {event.__name__}'s own checks: {problems}")
            for name, value in category.encode(made).items():
                if name in given and name != category.key and value != category.encode_value(given[name]):
                    _refuse(table, row[ROW], name, f"is what its validator makes of it, {value!r}")
