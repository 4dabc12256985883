"""States: the aggregates that rows keep, and how those of two halves of a log combine.

Owns the list of aggregates of which that is known.
"""

from __future__ import annotations

from dataclasses import dataclass

from cqrs_lab.sql.parse import Node

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
