"""Made-up cases as data: a domain, SELECTs over its events and over each other, and a history in steps.

Owns the names that may occur, and how a case is made smaller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from typing import Any

from pydantic import create_model

from cqrs_lab import Decider, Event

PLAIN = {"k": "k", "ref": "ref", "t": "t", "n": "n", "m": "m", "f": "f", "tags": "tags"}
HOSTILE = (
    {"k": "key", "ref": "old", "t": "new", "n": "rowid", "m": "order", "f": "changed", "tags": "combined"},
    {"k": "K", "ref": "select", "t": "base", "n": "row", "m": "before", "f": "is_new", "tags": "list"},
    {"k": "rowid", "ref": "Ref", "t": "from", "n": "at", "m": "after", "f": "old", "tags": "values"},
)
"""The names that the fields of events have."""
KINDS = {"k": "text", "ref": "text", "t": "text", "n": "int", "m": "dec", "f": "bool", "tags": "list"}
COLUMNS = ("rowid", "position", "old", "new", "type", "changed", "combined", "a b", 'quo"te', "order", "select", "row",
           "version", "occurred_at", "before", "at", "Key", "new.x", "columns", "change", "ünï", "count")  # fmt: skip
"""What columns of read models are called where names are a hazard."""
ALIASES = ("old", "new", "combined", "a b", "Before", "select", "x y", "moved", "rows")
MODELS = ("new", "old", "combined", "rows", "Before", "moved", "select", "base")
TEXTS = ("x", "y", "z", "X")
UNLIKE = ("a", "B", "c", "D")  # none equals another one in any collation
NUMBERS = (0, 1, 2, 3)
MONEY = (Decimal("0.50"), Decimal("1.00"), Decimal("2.25"))
DEFAULT = {"text": "'x'", "int": "1", "dec": "1.00", "bool": "false", "date": "DATE '2025-01-01'"}


@dataclass(frozen=True)
class Column:
    """A column of something that can be read: its kind, and whether it may hold NULL."""

    kind: str
    null: bool = True


@dataclass(frozen=True)
class Table:
    """Something that a SELECT can read: a table of events or a layer."""

    name: str
    columns: dict[str, Column]
    key: tuple[str, ...]
    is_events: bool


@dataclass(frozen=True)
class Place:
    """A table in a FROM, under its alias; `is_optional` on the right of a left join."""

    table: Table
    alias: str
    is_optional: bool = False


@dataclass(frozen=True)
class Item:
    """A column of a SELECT."""

    text: str
    name: str
    column: Column
    is_bare: bool = False  # written without AS

    def __str__(self) -> str:
        return self.text if self.is_bare else f"{self.text} AS {ident(self.name)}"


@dataclass(frozen=True)
class Model:
    """A read model before it is declared, in parts, so that columns can be taken away."""

    name: str
    key: tuple[str, ...]
    items: tuple[Item, ...]
    tail: str
    head: str = "SELECT"
    wrap: str = "{}"
    reads: tuple[str, ...] = ()
    features: frozenset[str] = frozenset()

    @property
    def sql(self) -> str:
        """The SELECT."""
        select = f"{self.head} {', '.join(map(str, self.items))} {self.tail}"
        return self.wrap.replace("{names}", ", ".join(ident(item.name) for item in self.items)).replace("{}", select)


@dataclass(frozen=True)
class Fact:
    """An event to append: its category, type and fields, and the day on which it occurred."""

    category: str
    type: str
    fields: dict[str, Any]
    day: int


@dataclass(frozen=True)
class Step:
    """A batch of facts, and the moves that follow it: (number of a model, part of the way to the head)."""

    facts: tuple[Fact, ...]
    moves: tuple[tuple[int, float], ...]
    order: tuple[int, ...]
    past: float


@dataclass(frozen=True)
class Case:
    """All that a seed says."""

    seed: int
    hazard: str
    naming: int
    categories: tuple[str, ...]
    models: tuple[Model, ...]
    steps: tuple[Step, ...]
    born: int  # the step before which projections are served
    is_inline: bool
    is_file: bool
    known: tuple[int, ...]  # the models that the other domain declares when the store is opened again
    late: tuple[Fact, ...]  # what the other domain appends
    ends: frozenset[str] = field(default_factory=frozenset)  # what is asked at the end: fork, inline, diff


@cache
def deciders(naming: int, categories: tuple[str, ...]) -> tuple[Decider, ...]:
    """Return what declares the categories: three event types each, of which two lack fields."""
    names = names_of(naming)
    kinds: dict[str, Any] = {"ref": str, "t": str, "n": int, "m": Decimal, "f": bool}
    found = []
    for number, category in enumerate(categories):
        every = {names[f]: (kind | None, None) for f, kind in kinds.items()} | {names["tags"]: (tuple[str, ...], ())}
        part = {names[f]: every[names[f]] for f in ("t", "n")}
        fields = {"Made": every, "Changed": part, "Seen": {}}
        events = [
            create_model(
                f"{what}{number}", __base__=Event, __module__=__name__, **{names["k"]: (str, ...)}, **some
            )
            for what, some in fields.items()
        ]  # fmt: skip
        found.append(Decider(category, names["k"], 0, lambda c, s: [], lambda s, e: s, [], events))
    return tuple(found)


def names_of(naming: int) -> dict[str, str]:
    """Return the fields' names of a naming: 0 is plain."""
    return HOSTILE[naming - 1] if naming else PLAIN


_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_QUOTED = {*COLUMNS, *ALIASES, "select", "from", "order", "values", "list", "key"}


def ident(name: str) -> str:
    """Return a name as SQL, quoted where it may have to be."""
    is_plain = _PLAIN_NAME.fullmatch(name) and name.lower() not in _QUOTED
    if is_plain or name in ("position", "type", "occurred_at"):
        return name
    return '"' + name.replace('"', '""') + '"'


def without(case: Case) -> Iterator[Case]:
    """Yield the case with one thing less: a model, a step, a fact, a move, a column or a question at the end."""
    # What costs a run much first.
    for end in sorted(case.ends):
        yield replace(case, ends=case.ends - {end})
    if case.born:
        yield replace(case, born=0)
    if case.is_file:
        yield replace(case, is_file=False)
    if case.is_inline:
        yield replace(case, is_inline=False)
    for n in reversed(range(len(case.models))):
        if not any(case.models[n].name in other.reads for other in case.models[n + 1 :]):
            moved = {old: new for new, old in enumerate(i for i in range(len(case.models)) if i != n)}
            steps = tuple(
                replace(
                    step,
                    moves=tuple((moved[m], part) for m, part in step.moves if m in moved),
                    order=tuple(moved[m] for m in step.order if m in moved),
                )
                for step in case.steps
            )
            models = (*case.models[:n], *case.models[n + 1 :])
            yield replace(case, models=models, steps=steps, known=tuple(moved[m] for m in case.known if m in moved))
    for n in reversed(range(len(case.steps))):
        yield replace(case, steps=(*case.steps[:n], *case.steps[n + 1 :]))
    for n, step in enumerate(case.steps):
        facts, moves = step.facts, step.moves
        less = [replace(step, facts=(*facts[:i], *facts[i + 1 :])) for i in reversed(range(len(facts)))]
        less += [replace(step, moves=(*moves[:i], *moves[i + 1 :])) for i in reversed(range(len(moves)))]
        less += [replace(step, order=())] if step.order else []
        for smaller in less:
            yield replace(case, steps=(*case.steps[:n], smaller, *case.steps[n + 1 :]))
    for n, model in enumerate(case.models):
        keys = {key.lower() for key in model.key}
        for i in reversed(range(len(model.items))):
            if model.items[i].name.lower() not in keys:
                smaller_model = replace(model, items=(*model.items[:i], *model.items[i + 1 :]))
                yield replace(case, models=(*case.models[:n], smaller_model, *case.models[n + 1 :]))
