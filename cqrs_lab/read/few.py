"""The short way: few rows that change, by key and with values.

Owns how a plan moves a handful of rows: what they become is asked in one or two statements, the values come here, and
each row is changed, added or taken out by its key. No table is made for it, and no other row is looked at. It is the
same plan as the long way's (see `cqrs_lab.read.mover`) and leaves the same rows. Where it is not sure to, it says so
before anything is changed: keys of several columns or with NULL, and values that Python does not hold as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from cqrs_lab.ivm.absent import Present
from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.plan import Touch
from cqrs_lab.ivm.reading import Use
from cqrs_lab.read.table import Table
from cqrs_lab.sql.names import quote
from cqrs_lab.store.database import Row
from cqrs_lab.store.memory import Held

MOST = 256  # events, or keys, that are few
_APART = 10  # values up to which IN is fastest with each by itself
_EXACT = re.compile(
    r"BOOLEAN|U?(TINY|SMALL|BIG)INT|U?INTEGER|HUGEINT|DECIMAL\(.*\)|VARCHAR|DATE|TIMESTAMP|UUID|DOUBLE|FLOAT"
)
_ENDS = (1, 9999)  # years of the first and the last day that Python knows, by which infinite times come, too
_HUGE = 2**127


class _Values:
    """The values of one statement, each given once and named by its number."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def typed(self, value: Any, kind: str) -> str:
        """Return what stands for a value of a type in SQL.

        NULL is given as others are, so that the text stays the same, and is parsed once: 1.9 ms for a row, and not 2.6.
        """
        self.given.append(value)
        return f"CAST(${len(self.given)} AS {kind})"

    def among(self, values: Collection[Any], kind: str) -> str:
        """Return what stands for some values of a type in brackets behind IN."""
        if len(values) > _APART:
            return f"SELECT unnest({self.typed(list(values), f'{kind}[]')})"
        return ", ".join(self.typed(value, kind) for value in values)

    def rows(self, types: Mapping[str, str], rows: Sequence[Row]) -> str:
        """Return rows with columns of these types, as something to select from.

        Column by column: 50 rows are stored in 2.7 ms, and in 7.8 with each value by itself.
        """
        if len(rows) == 1:
            given = zip(rows[0], types.items(), strict=True)
            items = [f"{self.typed(value, kind)} AS {quote(name)}" for value, (name, kind) in given]
        else:
            columns = zip(zip(*rows, strict=True), types.items(), strict=True)
            items = [f"unnest({self.typed(list(c), f'{kind}[]')}) AS {quote(name)}" for c, (name, kind) in columns]
        return f"(SELECT {', '.join(items)})"


class Changed(NamedTuple):
    """What a move has changed.

    Attributes:
        before: the rows as they were, where somebody wants to know.
        keys: of all rows that changed, came or went.
    """

    before: list[Row]
    keys: list[Any]


class Few(Table):
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
        held = self._held(plan, start, end) if isinstance(plan, Merge) else None
        if isinstance(plan, Merge) and held is not None and not noted:
            changed = self._move_each(plan, held, told=told)
            if changed is not None:
                return changed
        without = plan.fold.absent(_present(held.values())) if isinstance(plan, Merge) and held else frozenset()
        # With parameters, because the same text is parsed once: 2.0 ms for the fold of one event, and not 2.7.
        windows = (self.reader("$1", "$2"), self.reader(0, "$2"), self.dirty if noted else None)
        text = plan.reached(*windows, without) if isinstance(plan, Merge) else plan.reached(*windows)
        reads_events = isinstance(plan, Merge) or any(use.is_events for use in plan.uses)
        reached = self._run(text, [start, end] if reads_events else [])
        if isinstance(plan, Merge):
            names = list(plan.names.values())
            left = [name for base, name in plan.names.items() if base not in without] if without else names
            reached = [_whole(row, left, names) for row in reached] if without else reached
        else:
            names = list(plan.found_by)
        at = names.index(plan.found_by[0])
        if len(reached) > MOST or not _are_exact(reached) or any(row[at] is None for row in reached):
            return None
        if not reached:
            return Changed([], [])
        # Of a noted key, what is looked up has changed, and not what its events say.
        if isinstance(plan, Merge) and not noted and plan.fold.is_assignable:
            return self._merge_few(plan, reached, at, end, self._first(plan, held or {}), told=told)
        old, new = self.stored([row[at] for row in reached]), self._after(plan, names, reached, end)
        if not _are_exact(old) or not _are_exact(new) or not self._replace(names[at], old, new):
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
        states = {state.column: i for i, state in enumerate(plan.fold.states, len(plan.fold.keys))}
        new = {row[at]: {name: row[i] for name, i in states.items() if row[i] is not None} for row in reached}
        known = [row for row in reached if row[at] not in first]
        looking = [row for row in known if plan.looks_up(new[row[at]])]
        by_key = list(self._types).index(names[at])
        old = self.stored([row[at] for row in looking]) if looking else []
        there = {row[by_key] for row in old}
        again = [row for row in looking if row[at] in there]
        after = self._after(plan, names, again, end) if again else []
        if not _are_exact(old) or not _are_exact(after):
            return None
        before = self.stored([row[at] for row in known]) if told and known else []
        if not _are_exact(before):
            return None
        fresh = [row for row in reached if row[at] in first or (row in looking and row[at] not in there)]
        plain = [row for row in known if row not in looking]
        missing = self._update(plan, {row[at]: new[row[at]] for row in plain}) if plain else set()
        fresh += [row for row in plain if row[at] in missing]
        if again:
            self._replace(names[at], old, after)
        if fresh:
            values = _Values()
            kinds = {base: self._types[name] for base, name in plan.names.items()}
            given = f"{values.rows(kinds, [row[:-1] for row in fresh])} AS _states"
            self._run(f"INSERT INTO {self.table} {plan.fresh(given, self.reader(0, end))}", values.given)
        return Changed(before, keys)

    def _after(self, plan: Merge | Touch, names: list[str], reached: list[Row], end: int) -> list[Row]:
        """The rows of some reached keys, as they will be."""
        values = _Values()
        given, there = values.rows(self._typed(plan, names), reached), ""
        if isinstance(plan, Merge):
            keys = [row[names.index(plan.found_by[0])] for row in reached]
            there = f"(SELECT *, 0 AS _row FROM {self._there(values, keys)})"
        read = self._reader_to(values, end)
        return self._run(plan.after(there, given, read, nulls=False, few=True), values.given)

    def _reader_to(self, values: _Values, end: int) -> Callable[[Use], str]:
        """What reads a place up to a position, which is one of the statement's values."""
        return lambda use: self.reader(0, values.typed(end, "BIGINT") if use.is_events else end)(use)

    def _typed(self, plan: Merge | Touch, names: list[str]) -> dict[str, str]:
        """The columns of reached rows with their types."""
        found = {name: self._types[name] for name in names}
        return found | {"_folded": "BOOLEAN"} if isinstance(plan, Merge) else found

    def _held(self, plan: Merge, start: int, end: int) -> dict[int, Held] | None:
        """What memory knows of the events that are folded between two positions; None unless it knows all of them."""
        log, found = self._catalog.log, {}
        for position in range(start + 1, end + 1):
            held = log.heads.latest.get(position)
            if held is None:
                return None
            if f"{held.category}_events".lower() == plan.fold.use.name:
                if not log.is_current(held):  # it is lifted, and then has columns that are not stored with it
                    return None
                found[position] = held
        return found

    def _move_each(self, plan: Merge, held: dict[int, Held], *, told: bool) -> Changed | None:
        """Change rows of which each has one new event, without a fold; arguments and what is returned as of `move_few`.

        An event of a row that is there takes 1.4 ms and not 2.1 with its fold, the first one of a row 2.0 and not 3.7.

        Args:
            held: position -> the event, of all that are new.
        """
        ids = {one.id: position for position, one in held.items()}
        if not self._is_keyed_by_stream(plan) or len(ids) < len(held):
            return None
        first, before = self._first(plan, held), list[Row]()
        there = {position: one for position, one in held.items() if one.id not in first}
        new = [position for position in held if position not in there]
        if there:
            without = plan.fold.absent(_present(there.values()))
            kinds = {state: kind for state, kind in self._kinds(plan).items() if state not in without}
            before = self.stored([one.id for one in there.values()]) if told else []
            if plan.looks_up(kinds) or not _are_exact(before):
                return None
            new += [ids[id] for id in self._update_each(plan, there, kinds)]
        if new:
            values = _Values()
            empty = plan.fold.absent(_present(held[position] for position in new))
            # Where it does not know how few they are, DuckDB looks all customers up: 6 ms for five events, and not 3.
            most = f" LIMIT {len(new)}" if len(new) > 1 else ""
            events = f"{self._events(plan, values, new)}{most}"
            each = plan.fold.of_each(events, self._kinds(plan), empty)
            rows = plan.fresh(f"({each}\n) AS _states", self._reader_to(values, max(held)))
            self._run(f"INSERT INTO {self.table} {rows}", values.given)
        return Changed(before, list(ids))

    def _is_keyed_by_stream(self, plan: Merge) -> bool:
        """Whether a row is of one stream."""
        named_by = self._catalog.log.named_by(plan.fold.use.name)
        return named_by is not None and plan.fold.is_keyed_by(named_by)

    def _first(self, plan: Merge, held: dict[int, Held]) -> set[str]:
        """The keys of which some events are the first ones, so that there is no row of them: it need not be sought."""
        return {one.id for one in held.values() if one.version == 1} if self._is_keyed_by_stream(plan) else set()

    def _update_each(self, plan: Merge, held: dict[int, Held], kinds: Mapping[str, str]) -> list[str]:
        """Give rows what follows from some states of one new event each; return the keys of which there is no row.

        Args:
            held: position -> the event.
            kinds: state -> its type.
        """
        values, keys, key = _Values(), [one.id for one in held.values()], plan.found_by[0]
        each = plan.fold.of_each(self._events(plan, values, held), kinds)
        sets = plan.assigned({state: f"_new.{quote(state)}" for state in kinds})
        items = ", ".join(f"{quote(column)} = {text}" for column, text in sets.items())
        is_one = (
            f"_new.{quote(next(iter(plan.fold.keys)))}" if len(keys) > 1 else values.typed(keys[0], self._types[key])
        )
        update = f"UPDATE {self.table} AS _old SET {items} FROM ({each}) AS _new WHERE _old.{self.keys} = {is_one}"
        if sets and self._run(update, values.given) == [(len(keys),)]:
            return []
        at = list(self._types).index(key)
        stored = {row[at] for row in self.stored(keys)}
        return [id for id in keys if id not in stored]

    def _kinds(self, plan: Merge) -> dict[str, str]:
        """The states that rows keep, with their types."""
        return {state.column: self._types[plan.names[state.column]] for state in plan.fold.states}

    def _events(self, plan: Merge, values: _Values, positions: Collection[int]) -> str:
        """The SELECT of some events that are folded."""
        at, use = values.among(positions, "BIGINT"), plan.fold.use
        window = self._catalog.window(0, None, self.model, plan.fold.model, at=at, columns=use.named)
        return window(use.name)

    def _update(self, plan: Merge, new: Mapping[Any, Mapping[str, Any]]) -> set[Any]:
        """Give rows what follows from new states alone; return the keys of which there is no row.

        All by one statement: ten rows by 4 ms, and 13 one after the other.

        Args:
            new: key -> state -> its value.
        """
        names = {state: plan.names[state] for states in new.values() for state in states}
        values, key, types = _Values(), plan.found_by[0], self._types
        if len(new) == 1:  # without a join: 1.5 ms, and not 2.0
            ((one, states),) = new.items()
            sets = plan.assigned({state: values.typed(states[state], types[name]) for state, name in names.items()})
            behind = f"WHERE {self.keys} = {values.typed(one, types[key])}"
        else:
            sets = plan.assigned({state: f"_new.{quote(name)}" for state, name in names.items()})
            rows = [(one, *map(states.get, names)) for one, states in new.items()]
            given = values.rows({name: types[name] for name in (key, *names.values())}, rows)
            behind = f"FROM {given} AS _new WHERE _old.{self.keys} = _new.{quote(key)}"
        items = ", ".join(f"{quote(column)} = {text}" for column, text in sets.items())
        update = f"UPDATE {self.table} AS _old SET {items} {behind}"
        if sets and self._run(update, values.given) == [(len(new),)]:
            return set()
        at = list(self._types).index(plan.found_by[0])
        return new.keys() - {row[at] for row in self.stored(new)}

    def _replace(self, key: str, before: list[Row], after: list[Row]) -> bool:
        """Put some rows in the place of others; return whether it was done, for two of them must not have one key."""
        names = list(self._types)
        at = names.index(key)
        old, new = ({row[at]: row for row in rows} for rows in (before, after))
        if len(new) < len(after) or None in new:
            return False
        gone, inserts = [one for one in old if one not in new], [row for one, row in new.items() if one not in old]
        if gone:
            values = _Values()
            some = values.among(gone, self._types[key])
            self._run(f"DELETE FROM {self.table} WHERE {self.keys} IN ({some})", values.given)
        self._change([(old[one], new[one]) for one in new.keys() & old.keys()], at)
        if inserts:
            values = _Values()
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
            values, columns = _Values(), [names[i] for i in sorted(changed)]
            kinds = {names[i]: self._types[names[i]] for i in sorted({*changed, at})}
            given = values.rows(kinds, [tuple(row[i] for i in sorted({*changed, at})) for row in rows])
            items = ", ".join(f"{quote(column)} = _new.{quote(column)}" for column in columns if column != names[at])
            same = f"_old.{self.keys} = _new.{quote(names[at])}"
            self._run(f"UPDATE {self.table} AS _old SET {items} FROM {given} AS _new WHERE {same}", values.given)

    def changed_rows(self, changed: Changed) -> tuple[str, list[Any]]:
        """Return the SELECT of rows as they were and as they are now, and the values that it needs."""
        values = _Values()
        rows = f"SELECT * FROM {self._there(values, changed.keys)}"
        if changed.before:
            rows += f" UNION ALL SELECT * FROM {values.rows(self._types, changed.before)}"
        if len(changed.keys) <= _APART:
            return rows, values.given
        self._run(f"CREATE OR REPLACE TEMP TABLE _changed AS {rows}", values.given)  # looked up once for all who ask
        return "SELECT * FROM _changed", []

    def _there(self, values: _Values, keys: Collection[Any]) -> str:
        """The stored rows of some keys, as something to select from."""
        kinds = {name.lower(): kind for name, kind in self._types.items()}
        some = values.among(keys, kinds[self.model.keys[0].lower()])
        return f"(SELECT * FROM {self.table} WHERE {self.keys} IN ({some}))"

    def stored(self, keys: Collection[Any]) -> list[Row]:
        """Return the stored rows of some keys."""
        values = _Values()
        return self._run(f"FROM {self._there(values, keys)}", values.given)


def _present(events: Iterable[Held]) -> Present:
    return Present.of((one.type, one.columns) for one in events)


def _whole(row: Row, left: Collection[str], names: Iterable[str]) -> Row:
    """A reached row with NULL for the states that were left out."""
    found = dict(zip(left, row, strict=False))
    return (*(found.get(name) for name in names), row[-1])


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
