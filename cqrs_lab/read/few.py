"""The short way: few rows that change, by key and with values.

Owns how a plan moves a handful of rows: what they become is asked in one or two statements, the values come here, and
each row is changed, added or taken out by its key. No table is made for it, and no other row is looked at. It is the
same plan as the long way's (see `cqrs_lab.read.mover`) and leaves the same rows. Where it is not sure to, it says so
before anything is changed: keys of several columns or with NULL, and values that Python does not hold as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.plan import Touch
from cqrs_lab.ivm.reading import Use
from cqrs_lab.read.table import Table
from cqrs_lab.sql.names import quote
from cqrs_lab.store.database import Row

MOST = 10  # keys that are few
_EXACT = re.compile(
    r"BOOLEAN|U?(TINY|SMALL|BIG)INT|U?INTEGER|HUGEINT|DECIMAL\(.*\)|VARCHAR|DATE|TIMESTAMP|UUID|DOUBLE|FLOAT"
)
_ENDS = (1, 9999)  # years of the first and the last day that Python knows, by which infinite times come, too
_HUGE = 2**127


@dataclass
class Change:
    """What happens to few rows; all are whole, with the columns of their table.

    Attributes:
        before: rows as they were, where somebody wants to know.
        after: rows as they will be, where somebody wants to know.
        updates: the key of a row that is there, and the values that it gets, by column.
        inserts: rows that come.
        deletes: keys of rows that go.
    """

    before: list[Row] = field(default_factory=list)
    after: list[Row] = field(default_factory=list)
    updates: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    inserts: list[Row] = field(default_factory=list)
    deletes: list[Any] = field(default_factory=list)


class _Values:
    """The values of one statement, each given once and named by its number."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def typed(self, value: Any, kind: str) -> str:
        """Return what stands for a value of a type in SQL."""
        if value is None:
            return f"CAST(NULL AS {kind})"
        self.given.append(value)
        return f"CAST(${len(self.given)} AS {kind})"

    def rows(self, types: Mapping[str, str], rows: Iterable[Row]) -> str:
        """Return rows with columns of these types, as something to select from."""
        lines = [", ".join(self.typed(v, kind) for v, kind in zip(row, types.values(), strict=True)) for row in rows]
        return f"(SELECT * FROM (VALUES ({'), ('.join(lines)})) AS _v({', '.join(map(quote, types))}))"


class Few(Table):
    """A table of which few rows can be changed by key; arguments as of `Table`."""

    def few_changes(self, plan: Merge | Touch, start: int, end: int, *, noted: bool, told: bool) -> Change | None:
        """Return what events between two positions, and noted keys, change; None where that is not few or not sure.

        Args:
            noted: whether keys are noted.
            told: whether somebody wants to know the rows as they were and as they will be.
        """
        types = self._types
        if len(self.model.keys) != 1 or not all(map(_EXACT.fullmatch, types.values())):
            return None
        # With parameters, because the same text is parsed once: 2.0 ms for the fold of one event, and not 2.7.
        text = plan.reached(self.reader("$1", "$2"), self.reader(0, "$2"), self.dirty if noted else None)
        reads_events = isinstance(plan, Merge) or any(use.is_events for use in plan.uses)
        reached = self._run(text, [start, end] if reads_events else [])
        names = list(plan.names.values()) if isinstance(plan, Merge) else list(plan.found_by)
        at = names.index(plan.found_by[0])
        if len(reached) > MOST or not _are_exact(reached) or any(row[at] is None for row in reached):
            return None
        if not reached:
            return Change()
        keys = [row[at] for row in reached]
        if isinstance(plan, Merge) and all(row[-1] for row in reached):
            states = {state.column: i for i, state in enumerate(plan.fold.states, len(plan.fold.keys))}
            new = [{name: row[i] for name, i in states.items() if row[i] is not None} for row in reached]
            if not any(map(plan.looks_up, new)):
                change = self._updated(plan, dict(zip(keys, new, strict=True)), told)
                if change is not None:
                    return change
        of_rows = {name: types[name] for name in names} | ({"_folded": "BOOLEAN"} if isinstance(plan, Merge) else {})
        values = _Values()
        given = values.rows(of_rows, reached)
        there = f"(SELECT *, 0 AS _row FROM {self._there(values, keys)})" if isinstance(plan, Merge) else ""

        def read(use: Use) -> str:
            return self.reader(0, values.typed(end, "BIGINT") if use.is_events else end)(use)

        after = plan.after(there, given, read, nulls=False, few=True)
        return self._compared(names[at], self._stored(keys), self._run(after, values.given))

    def _updated(self, plan: Merge, new: Mapping[Any, Mapping[str, Any]], told: bool) -> Change | None:
        """Return what changes in rows by new states alone, None where one of the rows is not there yet.

        One row after the other: 0.8 ms each, and 2.1 as soon as several are joined with their states.

        Args:
            new: key -> state -> its value.
        """
        change, types = Change(), self._types
        for key, states in new.items():
            values = _Values()
            there = self._there(values, [key])
            if told:
                change.before += self._run(f"FROM {there}", values.given)
            given = {state: values.typed(value, types[plan.names[state]]) for state, value in states.items()}
            columns, select = plan.updated(there, given)
            rows = self._run(select, values.given)
            if not rows or not _are_exact(rows):
                return None
            sets = {copy: value for c, value in zip(columns, rows[0], strict=True) for copy in plan.copies[c]}
            change.updates += [(key, sets)] if sets else []
            change.after += [tuple((dict(zip(types, row, strict=True)) | sets).values()) for row in change.before[-1:]]
        return change

    def _there(self, values: _Values, keys: Iterable[Any]) -> str:
        """The stored rows of some keys, as something to select from."""
        kinds = {name.lower(): kind for name, kind in self._types.items()}
        some = ", ".join(values.typed(key, kinds[self.model.keys[0].lower()]) for key in keys)
        return f"(SELECT * FROM {self.table} WHERE {self.keys} IN ({some}))"

    def _compared(self, key_column: str, before: list[Row], after: list[Row]) -> Change | None:
        """Return what makes some rows of others, None where two have one key."""
        names = list(self._types)
        at = names.index(key_column)
        old, new = ({row[at]: row for row in rows} for rows in (before, after))
        if not _are_exact(before) or not _are_exact(after) or len(new) < len(after) or None in new:
            return None
        change = Change(before, after)
        for key, row in new.items():
            if key not in old:
                change.inserts.append(row)
                continue
            pairs = zip(names, old[key], row, strict=True)
            sets = {name: value for name, was, value in pairs if was != value or isinstance(value, float)}
            change.updates += [(key, sets)] if sets else []
        change.deletes += [key for key in old if key not in new]
        return change

    def write_few(self, change: Change) -> None:
        """Change the rows."""
        names = ", ".join(map(quote, self._types))
        if change.deletes:
            marks = ", ".join("?" * len(change.deletes))
            self._run(f"DELETE FROM {self.table} WHERE {self.keys} IN ({marks})", change.deletes)
        for key, sets in change.updates:
            items = ", ".join(f"{quote(column)} = ?" for column in sets)
            self._run(f"UPDATE {self.table} SET {items} WHERE {self.keys} = ?", [*sets.values(), key])
        if change.inserts:
            marks = ", ".join([f"({', '.join('?' * len(self._types))})"] * len(change.inserts))
            self._run(f"INSERT INTO {self.table} ({names}) VALUES {marks}", [v for row in change.inserts for v in row])

    def changed_rows(self, change: Change) -> str:
        """Return a temporary table of the rows of a change, as they were and as they will be."""
        values = _Values()
        rows = values.rows(self._types, [*change.before, *change.after])
        self._run(f"CREATE OR REPLACE TEMP TABLE _changed AS FROM {rows}", values.given)
        return "_changed"

    def _stored(self, keys: Iterable[Any]) -> list[Row]:
        """The stored rows of some keys."""
        values = _Values()
        return self._run(f"FROM {self._there(values, keys)}", values.given)


def _are_exact(rows: Iterable[Row]) -> bool:
    """Whether Python holds values of exact types as they are: not the times and numbers at its ends."""
    for row in rows:
        for value in row:
            if isinstance(value, date):  # a datetime is one, too
                if value.year in _ENDS:
                    return False
            elif isinstance(value, int) and abs(value) >= _HUGE:
                return False
    return True
