"""What DuckDB makes of a SELECT when it binds it: every call, with the types that it is called with.

Owns the reading of DuckDB's plan. The parse says what an author wrote; only the plan says what it means over tables of
certain types: whether a sum adds exact numbers, and what a name or a keyword stands for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cqrs_lab.errors import QueryFailed
from cqrs_lab.sql import functions

_INEXACT = ("DOUBLE", "FLOAT")


@dataclass(frozen=True)
class Call:
    """A call in a plan.

    Attributes:
        name: the function that DuckDB found, as its catalogue spells it.
        types: the types that it is called with, casts included.
        taken_for: of AT TIME ZONE, the zone in which it takes a time of the log, which is in UTC, to be local.
    """

    name: str
    types: tuple[str, ...]
    taken_for: str = ""


def bound_calls(run: Callable[[str, Sequence[Any]], list[tuple[Any, ...]]], select: str) -> list[Call]:
    """Return every call in the plan of a SELECT, subqueries, filters and orders included.

    What a list function carries inside it (the aggregate of `list_sum`) is left out: a list has an order.

    Args:
        run: asks the database that has the tables of the SELECT. About 1 ms.

    Raises:
        QueryFailed: it does not bind, or its plan cannot be told.
    """
    options = "skip_null := true, skip_empty := true, skip_default := true"
    text = run(f"SELECT json_serialize_plan(?::VARCHAR, {options})", [select])[0][0]
    answer = json.loads(text)
    if answer.get("error"):
        raise QueryFailed(f"{answer.get('error_message')}\nIn: {' '.join(select.split())[:500]}")
    return list(_calls(answer.get("plans", [])))


def _calls(plan: Any) -> Iterator[Call]:
    if isinstance(plan, list):
        for item in plan:
            yield from _calls(item)
    elif isinstance(plan, dict):
        if str(plan.get("expression_class", "")).startswith("BOUND_") and "qname" in plan:
            types = tuple(str(kind.get("id")) for kind in plan.get("arguments", []))
            name = str(plan["qname"]["path"][-1]).lower()
            yield Call(name, types, _taken_for(plan) if name == "timezone" and types[1:] == ("TIMESTAMP",) else "")
        for key, value in plan.items():
            if key != "function_data":
                yield from _calls(value)


def _taken_for(call: dict[str, Any]) -> str:
    zone, time = call.get("children", [{}, {}])
    name = str((zone.get("value") or {}).get("value", "…"))
    return "" if name.upper() in ("UTC", "ETC/UTC", "GMT") or _reads_text(time) else name


def _reads_text(value: Any) -> bool:
    """Whether a time is made of text, which may be local anywhere."""
    if isinstance(value, list):
        return any(map(_reads_text, value))
    if not isinstance(value, dict):
        return False
    is_text = value.get("type") == "BOUND_REF" and (value.get("return_type") or {}).get("id") == "VARCHAR"
    return is_text or any(map(_reads_text, value.get("children", [])))


def bound_reasons(calls: list[Call]) -> Iterator[str]:
    """Yield why calls, as they are bound, are not functions of the events.

    The parse was judged before (`cqrs_lab.sql.parse.call_reasons`); here stands what only types can tell, and what a
    keyword or a macro turned out to mean. DuckDB itself puts `error()` into the plan of a subquery that has to give one
    row: it stops the query the same way whenever it is asked.
    """
    for call in calls:
        reason = functions.refusal(call.name, len(call.types))
        if reason is not None and call.name != "error":
            yield f"{call.name}() is not a function of the events: {reason}"
        elif call.taken_for:
            yield (
                f"AT TIME ZONE '{call.taken_for}' takes a time to be local there, while all times here are in UTC; for "
                f"the local time say AT TIME ZONE 'UTC' AT TIME ZONE '{call.taken_for}'"
            )
        elif call.name in functions.SUMS and any(kind in _INEXACT for kind in call.types):
            yield (
                f"it adds up {call.types[0]} values in {call.name}(), which gives another result with every run; "
                "cast them to DECIMAL"
            )
