"""The short way: few rows that change, by key and with values.

Owns how a plan moves some rows: what they become is asked in one or two statements, the values come here, and the rows
are changed, added or taken out by their keys. No table is made for it, and no other row is looked at. It is the same
plan as the long way's (see `cqrs_lab.read.mover`) and leaves the same rows. Where it is not sure to, it says so
before anything is changed: keys of several columns or with NULL, and values that Python does not hold as they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from operator import itemgetter
from typing import Any

from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.plan import Touch
from cqrs_lab.read.each import Changed, Each, present
from cqrs_lab.read.values import APART, Values, are_exact
from cqrs_lab.sql.names import quote
from cqrs_lab.store.database import Row

MOST = 1_024  # events, or keys, that are few
# Where somebody wants to know the rows, they are read twice more: 400 events in 51 ms, and in 41 the long way.
TOLD = 200
_EXACT = re.compile(
    r"BOOLEAN|U?(TINY|SMALL|BIG)INT|U?INTEGER|HUGEINT|DECIMAL\(.*\)|VARCHAR|DATE|TIMESTAMP|UUID|DOUBLE|FLOAT"
)


class Few(Each):
    """A table of which few rows can be changed by key; arguments as of `Table`."""

    def move_few(self, plan: Merge | Touch, start: int, end: int, *, noted: bool, told: bool) -> Changed | None:
        """Change the rows that events between two positions, and noted keys, reach.

        Args:
            noted: whether keys are noted.
            told: whether somebody wants to know the rows as they were and as they are.

        Returns:
            None when nothing was done, for it is not few or not sure.
        """
        types = self._types
        if len(self.model.keys) != 1 or not all(map(_EXACT.fullmatch, types.values())):
            return None
        if types[plan.found_by[0]] in ("DOUBLE", "FLOAT"):  # in Python not a number is no key, not even its own
            return None
        held = self.held(plan, start, end) if isinstance(plan, Merge) else None
        if isinstance(plan, Merge) and held is not None and not noted and plan.fold.is_assignable:
            changed = self.move_each(plan, held, told=told)
            if changed is not None:
                return changed
        without = plan.fold.absent(present(held.values())) if isinstance(plan, Merge) and held else frozenset()
        # With parameters, because the same text is parsed once: 2.0 ms for the fold of one event, and not 2.7.
        windows = (self.reader("$1", "$2"), self.reader(0, "$2"), self.dirty if noted else None)
        text = plan.reached(*windows, without) if isinstance(plan, Merge) else plan.reached(*windows)
        reads_events = isinstance(plan, Merge) or any(use.is_events for use in plan.uses)
        reached = self._run(text, [start, end] if reads_events else [])
        if isinstance(plan, Merge):
            names = list(plan.names.values())
            if without:
                left = [name for base, name in plan.names.items() if base not in without]
                whole = itemgetter(*(left.index(name) if name in left else -1 for name in names), len(left))
                reached = [whole((*row, None)) for row in reached]
        else:
            names = list(plan.found_by)
        at = names.index(plan.found_by[0])
        if len(reached) > MOST or any(row[at] is None for row in reached):
            return None
        if not are_exact(reached, map(types.__getitem__, names)):
            return None
        if not reached:
            return Changed([], [])
        # Of a noted key, what is looked up has changed, and not what its events say.
        if isinstance(plan, Merge) and not noted and plan.fold.is_assignable:
            return self._merge_few(plan, reached, at, end, self.first(plan, held or {}), told=told)
        old, new = self.stored([row[at] for row in reached]), self._after(plan, names, reached, end)
        if not all(are_exact(rows, types.values()) for rows in (old, new)) or not self._replace(names[at], old, new):
            return None
        return Changed(old, list(dict.fromkeys(row[list(types).index(names[at])] for row in [*old, *new])))

    def _merge_few(
        self, plan: Merge, reached: list[Row], at: int, end: int, first: Collection[str], *, told: bool
    ) -> Changed | None:
        """Merge new states into few rows; arguments and what is returned as of `move_few`.

        Args:
            at: where the key stands in a row.
            first: keys of which there is no row.
        """
        names, keys = list(plan.names.values()), [row[at] for row in reached]
        types = self._types
        # What is looked up follows from these alone: 500 rows are told apart in 0.1 ms, and in 3 when each is asked.
        sought = [i for state, i in _states(plan).items() if plan.looks_up([state])]
        known = [row for row in reached if row[at] not in first]
        looking = [row for row in known if any(row[i] is not None for i in sought)]
        plain = [row for row in known if all(row[i] is None for i in sought)] if looking else known
        by_key = list(types).index(names[at])
        old = self.stored([row[at] for row in looking]) if looking else []
        there = {row[by_key] for row in old}
        again = [row for row in looking if row[at] in there]
        after = self._after(plan, names, again, end) if again else []
        before = self.stored([row[at] for row in known]) if told and known else []
        if not all(are_exact(rows, types.values()) for rows in (old, after, before)):
            return None
        missing = {row[at] for row in looking} - there | self._update(plan, plain, at)
        fresh = [row for row in reached if row[at] in first or row[at] in missing]
        if again:
            self._replace(names[at], old, after)
        if fresh:
            values = Values()
            kinds = {base: self._types[name] for base, name in plan.names.items()}
            given = f"{values.rows(kinds, [row[:-1] for row in fresh])} AS _states"
            self._run(f"INSERT INTO {self.table} {plan.fresh(given, self.reader(0, end))}", values.given)
        return Changed(before, keys)

    def _after(self, plan: Merge | Touch, names: list[str], reached: list[Row], end: int) -> list[Row]:
        """The rows of some reached keys, as they will be."""
        values = Values()
        given, there = values.rows(self._typed(plan, names), reached), ""
        if isinstance(plan, Merge):
            keys = [row[names.index(plan.found_by[0])] for row in reached]
            there = f"(SELECT *, 0 AS _row FROM {self._there(values, keys)})"
        read = self._reader_to(values, end)
        return self._run(plan.after(there, given, read, nulls=False, few=True), values.given)

    def _typed(self, plan: Merge | Touch, names: list[str]) -> dict[str, str]:
        """The columns of reached rows with their types."""
        found = {name: self._types[name] for name in names}
        return found | {"_folded": "BOOLEAN"} if isinstance(plan, Merge) else found

    def _update(self, plan: Merge, rows: list[Row], at: int) -> set[Any]:
        """Give rows what follows from new states alone; return the keys of which there is no row.

        All by one statement: ten rows by 4 ms, and 13 one after the other.

        Args:
            rows: keys and states.
            at: where the key stands in them.
        """
        if not rows:
            return set()
        # Of a state of which no row says anything, no column is read.
        states = {state: i for state, i in _states(plan).items() if any(row[i] is not None for row in rows)}
        values, key, types = Values(), plan.found_by[0], self._types
        kinds = {state: types[plan.names[state]] for state in states}
        if len(rows) == 1:  # without a join: 1.5 ms, and not 2.0
            sets = plan.assigned({state: values.typed(rows[0][i], kinds[state]) for state, i in states.items()})
            behind = f"WHERE {self.keys} = {values.typed(rows[0][at], types[key])}"
        else:
            sets = plan.assigned({state: f"_new.{quote(plan.names[state])}" for state in states})
            columns = {key: types[key]} | {plan.names[state]: kind for state, kind in kinds.items()}
            given = values.rows(columns, [(row[at], *(row[i] for i in states.values())) for row in rows])
            behind = f"FROM {given} AS _new WHERE _old.{self.keys} = _new.{quote(key)}"
        items = ", ".join(f"{quote(column)} = {text}" for column, text in sets.items())
        update = f"UPDATE {self.table} AS _old SET {items} {behind}"
        if sets and self._run(update, values.given) == [(len(rows),)]:
            return set()
        keys, by_key = [row[at] for row in rows], list(types).index(key)
        return set(keys) - {row[by_key] for row in self.stored(keys)}

    def _replace(self, key: str, before: list[Row], after: list[Row]) -> bool:
        """Put some rows in the place of others; return whether it was done, for two of them must not have one key."""
        names = list(self._types)
        at = names.index(key)
        old, new = ({row[at]: row for row in rows} for rows in (before, after))
        if len(new) < len(after) or None in new:
            return False
        gone, inserts = [one for one in old if one not in new], [row for one, row in new.items() if one not in old]
        if gone:
            values = Values()
            some = values.among(gone, self._types[key])
            self._run(f"DELETE FROM {self.table} WHERE {self.keys} IN ({some})", values.given)
        self._change([(old[one], new[one]) for one in new.keys() & old.keys()], at)
        if inserts:
            values = Values()
            self._run(f"INSERT INTO {self.table} FROM {values.rows(self._types, inserts)}", values.given)
        return True

    def _change(self, pairs: Iterable[tuple[Row, Row]], at: int) -> None:
        """Give stored rows other values, by their key; only in the columns in which one of them has another.

        Args:
            pairs: each as it is, and as it will be.
            at: where the key stands in a row.
        """
        names, changed, rows = list(self._types), set[int](), []
        for was, row in pairs:
            both = enumerate(zip(was, row, strict=True))
            found = [i for i, (one, other) in both if one != other or isinstance(other, float)]
            if found:
                changed.update(found)
                rows.append(row)
        if rows:
            values, columns = Values(), [names[i] for i in sorted(changed)]
            kinds = {names[i]: self._types[names[i]] for i in sorted({*changed, at})}
            given = values.rows(kinds, [tuple(row[i] for i in sorted({*changed, at})) for row in rows])
            items = ", ".join(f"{quote(column)} = _new.{quote(column)}" for column in columns if column != names[at])
            same = f"_old.{self.keys} = _new.{quote(names[at])}"
            self._run(f"UPDATE {self.table} AS _old SET {items} FROM {given} AS _new WHERE {same}", values.given)

    def changed_rows(self, changed: Changed) -> tuple[str, list[Any]]:
        """Return the SELECT of rows as they were and as they are now, and the values that it needs."""
        values = Values()
        rows = f"SELECT * FROM {self._there(values, changed.keys)}"
        if changed.before:
            rows += f" UNION ALL SELECT * FROM {values.rows(self._types, changed.before)}"
        if len(changed.keys) <= APART:
            return rows, values.given
        self._run(f"CREATE OR REPLACE TEMP TABLE _changed AS {rows}", values.given)  # looked up once for all who ask
        return "SELECT * FROM _changed", []


def _states(plan: Merge) -> dict[str, int]:
    """Where the states stand in a reached row."""
    return {state.column: i for i, state in enumerate(plan.fold.states, len(plan.fold.keys))}
