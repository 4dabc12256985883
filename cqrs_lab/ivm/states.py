"""States: the aggregates that rows keep, and how those of two halves of a log combine.

Owns the list of aggregates of which that is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cqrs_lab.sql.parse import Node, text_of

_QUOTED, _STATE = re.compile(r"('(?:[^']|'')*')"), re.compile(r'"(_\d+)"')

# How the aggregate of both halves follows from {old}, over the events before, and {new}, over those after. NULL means
# that a half had no value; least and greatest skip NULLs.
ADD = "coalesce({old} + {new}, {old}, {new})"
LATEST = "coalesce({new}, {old})"  # by position, and every new position is above every old one
EARLIEST = "coalesce({old}, {new})"
LEAST, GREATEST = "least({old}, {new})", "greatest({old}, {new})"
COMBINE = {
    "count": ADD,
    "count_star": ADD,
    "count_if": ADD,
    "countif": ADD,
    "sum": ADD,
    "min": LEAST,
    "max": GREATEST,
    "bool_and": "coalesce({old} AND {new}, {old}, {new})",
    "bool_or": "coalesce({old} OR {new}, {old}, {new})",
    "bit_and": "coalesce({old} & {new}, {old}, {new})",
    "bit_or": "coalesce({old} | {new}, {old}, {new})",
    "arg_max": LATEST,
    "argmax": LATEST,
    "max_by": LATEST,
    "arg_min": EARLIEST,
    "argmin": EARLIEST,
    "min_by": EARLIEST,
}
# How an aggregate over all events so far follows from those over each, by how those of two halves combine.
RUNNING = {
    ADD: "sum({x})",
    LEAST: "min({x})",
    GREATEST: "max({x})",
    COMBINE["bool_and"]: "bool_and({x})",
    COMBINE["bool_or"]: "bool_or({x})",
    COMBINE["bit_and"]: "bit_and({x})",
    COMBINE["bit_or"]: "bit_or({x})",
    LATEST: "last_value({x} IGNORE NULLS)",
    EARLIEST: "first_value({x} IGNORE NULLS)",
}


@dataclass(frozen=True)
class State:
    """One aggregate, kept in a column: how its two halves combine."""

    column: str
    expression: Node
    combine: str

    @cached_property
    def of_one(self) -> str:
        """What it is over one event alone, as SQL over the event's own columns; not yet of the aggregate's type."""
        name, given = self.expression["function_name"].lower(), self.expression["arguments"]
        value = text_of(given[0]["expression"]) if given else ""
        only = [text_of(self.expression["filter"])] if self.expression["filter"] is not None else []
        if name not in ("count", "count_star"):  # count_if is a sum, and NULL where there is nothing to count
            return f"CASE WHEN {only[0]} THEN {value} END" if only else value
        if value:
            only.append(f"({value}) IS NOT NULL")
        return f"CASE WHEN {' AND '.join(f'({one})' for one in only)} THEN 1 ELSE 0 END" if only else "1"


def states_in(output: str) -> list[str]:
    """Return the states that the text of a column names, sorted; each as often as it stands there."""
    return sorted(_STATE.findall("".join(_QUOTED.split(output)[::2])))


def over_states(output: str, states: Mapping[str, str]) -> str:
    """Return an output with SQL in the place of the states that it is made of; texts in quotes stay as they are."""
    parts = _QUOTED.split(output)
    parts[::2] = (_STATE.sub(lambda found: f"({states[found[1]]})", part) for part in parts[::2])
    return "".join(parts)
