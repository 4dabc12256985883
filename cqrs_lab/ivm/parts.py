"""Parts: a fold over parts of a log that are not one after the other, such as partitions by stream.

Owns how their aggregates combine. It is the combination of `cqrs_lab.ivm.states`, but for the latest and the earliest
by position: of two halves of a log the later one has them; of two parts that is told by the position, which each part
gives beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cqrs_lab.ivm.fold import Fold
from cqrs_lab.ivm.states import EARLIEST, GREATEST, LATEST, LEAST, RUNNING, State
from cqrs_lab.sql.names import quote
from cqrs_lab.sql.parse import Node, syntax_tree, text_of

_BY_POSITION = {LATEST: "arg_max({x}, {at})", EARLIEST: "arg_min({x}, {at})"}


def part_of(fold: Fold) -> Fold:
    """Return the fold of a part: its states, and beside the latest and earliest ones the position that they are of."""
    beside = tuple(
        State(_beside(state), _position_of(state), GREATEST if state.combine == LATEST else LEAST)
        for state in fold.states
        if state.combine in _BY_POSITION
    )
    return replace(fold, states=(*fold.states, *beside))


def whole_of(fold: Fold, parts: str, kinds: Mapping[str, str]) -> str:
    """Return the SELECT of keys and states over all parts.

    Args:
        fold: of the whole.
        parts: the SELECT of the rows of all parts, each folded by `part_of`; at least one part gave some, or none has.
        kinds: column -> its type.
    """
    keys = ", ".join(map(quote, fold.keys))
    states = "".join(
        f",\n       CAST({_combined(state)} AS {kinds[state.column]}) AS {quote(state.column)}" for state in fold.states
    )
    return f"SELECT {keys}{states}\nFROM ({parts}\n) AS _parts GROUP BY {keys}"


def _beside(state: State) -> str:
    """The column that tells of which position a state is."""
    return f"_at of {state.column}"


def _combined(state: State) -> str:
    aggregate = _BY_POSITION.get(state.combine, RUNNING[state.combine])
    return aggregate.format(x=quote(state.column), at=quote(_beside(state)))


def _position_of(state: State) -> Node:
    """The same aggregate of the position, where the one that is picked is not NULL: those are left out of both."""
    value, position = state.expression["arguments"]
    case = f"CASE WHEN ({text_of(value['expression'])}) IS NOT NULL THEN {text_of(position['expression'])} END"
    item = syntax_tree(f"SELECT {case}")["select_list"][0]
    return state.expression | {"arguments": [value | {"expression": item}, position]}
