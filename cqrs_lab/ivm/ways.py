"""Ways: from a place where something changed to the keys of the rows that it can reach.

Owns the rule by which touched keys are found. It gives a superset: a key too many costs time, a key too few would be
wrong. A way goes from place to place; each place on it is there whenever the one before it is, and is joined by
conditions that hold for every row that the two make together. All other conditions are dropped, so that more is reached
and nothing is missed. After A. Gupta and I. S. Mumick, "Maintenance of Materialized Views" (1995).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from cqrs_lab.ivm.reading import CannotPlan, Condition, Use
from cqrs_lab.ivm.shape import Part, Shape
from cqrs_lab.sql.names import quote
from cqrs_lab.sql.parse import is_aggregate, item_name, own_nodes

Read = Callable[[Use], str]
"""One place where a SELECT reads a source -> the SELECT of its rows there."""

_EQUAL, _OTHER, _ANY = 1, 20, 1_000  # what a step costs: a join by =, by another condition, of all with all


@dataclass(frozen=True)
class Step:
    """A place on a way, and the conditions that join it to the one before."""

    use: Use
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Ways:
    """The ways of one SELECT.

    Attributes:
        shape: what it reads.
        parts: the columns of the key that a change can reach; rows are replaced that agree in all of them.
        steps: number of a place -> the steps from there to the places of the parts.
    """

    shape: Shape
    parts: tuple[Part, ...]
    steps: dict[int, tuple[Step, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return tuple(part.name for part in self.parts)

    def keys_of(self, use: Use, changed: str, read: Read) -> str:
        """Return the SELECT of the parts of the key that rows of one source reach, under their own names.

        Args:
            use: the place where they are read.
            changed: the SELECT of its rows that came, went or changed, as they were and as they are.
            read: what the other places read, as it is now. What they read before is needed as well where several of
                them change at once; of places that change one after the other, each finds the others as they were.
        """
        steps = self.steps[use.number]
        conditions = [*self.own(use), *(condition for step in steps for condition in step.conditions)]
        lists = {alias for part in self.parts for alias in part.unnests}
        lists |= {alias for condition in conditions for alias in self.shape.reading.unnests_of(condition.expression)}
        first = self._placed(use, changed, lists)
        if steps and not self.is_joined(use):
            # Its rows reach all of the others: whether there is one is all that matters.
            first, conditions = f"(SELECT 1 FROM {first}{_where(conditions)} LIMIT 1) AS {quote(use.alias)}", []
        source = [first, *(self._placed(step.use, read(step.use), lists) for step in steps)]
        items = ", ".join(f"{part.text} AS {quote(part.name)}" for part in self.parts)
        return f"SELECT DISTINCT {items}\nFROM {f',{chr(10)}'.join(source)}{_where(conditions)}"

    def own(self, use: Use) -> list[Condition]:
        """Return the conditions that judge rows of a place alone."""
        return [c for c in self.shape.conditions if c.uses == {use.number} and c.scope == use.optional]

    def is_joined(self, use: Use) -> bool:
        """Return whether some keys, and not all, are reached from a row of a place."""
        is_key = any(use.number in part.uses for part in self.parts)
        return is_key or any(step.conditions for step in self.steps[use.number])

    def _placed(self, use: Use, select: str, lists: set[str]) -> str:
        """A place in FROM, with those of its lists that are needed."""
        found = self.shape.reading.unnests.items()
        mine = [unnest.text for alias, unnest in found if alias in lists and unnest.owner == use.number]
        return ", ".join([f"({select}\n) AS {quote(use.alias)}", *mine])

    def cut(self, use: Use, reached: str, *, nulls: bool) -> str | None:
        """Return the condition on the rows of a place, under its alias, that keys of a table need.

        It is None when they need all, and where one place of the text is read twice, each time for other rows.

        Args:
            reached: the table of the parts of keys.
            nulls: whether a key among them holds NULL.
        """
        if len(self.shape.at(use.place)) > 1:
            return None
        conditions = []
        for part in self.parts:
            if part.uses == {use.number} and not part.unnests and not part.makes_rows:
                text, name = part.text, quote(part.name)
                is_null = f" OR ({text}) IS NULL" if nulls else ""
                conditions.append(f"(({text}) IN (SELECT {name} FROM {reached} WHERE {name} IS NOT NULL){is_null})")
        return " AND ".join(conditions) or None


def ways_of(shape: Shape) -> Ways:
    """Return the ways of a SELECT.

    Raises:
        CannotPlan: no part of its key can be followed, or a place has no way to it.
    """
    parts = shape.parts()
    if not parts:
        raise CannotPlan(_why_no_part(shape))
    some = list(dict.fromkeys(part.uses for part in parts if part.uses))
    found = {use.number: _cheapest(shape, use) for use in shape.uses}
    candidates: list[tuple[int, int, list[int]]] = []
    for places in [frozenset[int]().union(*some), *some]:
        targets, cost = sorted(places), 0
        for use in shape.uses:
            # There is a way to each: every row has the places that parts come from.
            cost = max([cost, *(found[use.number][target][0] for target in targets)])
        candidates.append((cost, -len(targets), targets))
    _, _, targets = min(candidates)
    chosen = [part for part in parts if part.uses <= set(targets)]
    steps = {use.number: _steps(found[use.number], targets) for use in shape.uses}
    ways = Ways(shape, tuple(chosen), steps)
    for use in shape.uses:
        if use.is_events and shape.reading.is_loose(use) and not ways.own(use) and not ways.is_joined(use):
            raise CannotPlan(
                f"every event of {use.name} reaches all of its rows, through a SELECT that gives one value"
            )
    return ways


_Found = dict[int, tuple[int, tuple[Step, ...]]]


def _cheapest(shape: Shape, start: Use) -> _Found:
    """The cheapest way from a place to each other one, with its cost (E. W. Dijkstra, 1959)."""
    order = count()
    queue: list[tuple[int, int, Use, tuple[Step, ...]]] = [(0, next(order), start, ())]
    found: _Found = {}
    while queue:
        cost, _, here, steps = heapq.heappop(queue)
        if here.number in found:
            continue
        found[here.number] = (cost, steps)
        for there in shape.uses:
            if there.number in found or not set(there.optional) <= set(here.optional):
                continue
            both = {here.number, there.number}
            usable = tuple(c for c in shape.conditions if c.uses == both and c.scope == here.optional)
            equal = any(c.is_equality for c in usable)
            price = _EQUAL if equal else _OTHER if usable else _ANY
            heapq.heappush(queue, (cost + price, next(order), there, (*steps, Step(there, usable))))
    return found


def _steps(found: _Found, targets: list[int]) -> tuple[Step, ...]:
    """The steps to several places, each place once."""
    steps: dict[int, Step] = {}
    for target in targets:
        for step in found[target][1]:
            steps.setdefault(step.use.number, step)
    return tuple(steps.values())


def _where(conditions: list[Condition]) -> str:
    whole = " AND ".join(f"({condition.text})" for condition in conditions)
    return f"\nWHERE {whole}" if whole else ""


def _why_no_part(shape: Shape) -> str:
    """Say what keeps the key from being followed."""
    keys = {key.lower() for key in shape.model.keys}
    items = [item for item in shape.tree["select_list"] if item_name(item).lower() in keys]
    for item in items:
        name = item_name(item)
        if any(is_aggregate(node) for node in own_nodes(item)):
            return f"its key {name!r} is an aggregate"
        if any(node.get("class") == "WINDOW" for node in own_nodes(item)):
            return f"its key {name!r} is a window"
        try:
            uses = [shape.use(number) for number in shape.uses_of(shape.top.full(item, is_item=True))]
        except CannotPlan as reason:
            return f"of its key {name!r}, {reason}"
        lacking = [use.alias for use in uses if use.optional]
        if lacking:
            return f"its key comes from {lacking[0]!r}, which rows may lack"
    return "it has a window that looks at rows of other keys; one with PARTITION BY its key would not"
