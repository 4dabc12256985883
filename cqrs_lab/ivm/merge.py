"""Merge: rows that keep the aggregates they are made of, so that new events alone are folded into them.

Owns the SQL that combines stored rows with new events. A read model that looks up columns of others for the rows of one
that merges keeps the aggregates of that one, so one table is moved and not two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from cqrs_lab.errors import QueryFailed
from cqrs_lab.ivm.fold import Fold
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.ivm.reading import CannotPlan, Use
from cqrs_lab.ivm.states import State, over_states
from cqrs_lab.ivm.ways import Read, Ways
from cqrs_lab.sql.names import quote
from cqrs_lab.sql.parse import columns_of, is_aggregate, item_name, nodes
from cqrs_lab.sql.places import Template, template


@dataclass(frozen=True)
class Merge:
    """New events are folded and combined with the stored rows; what is looked up is looked up for the rows that move.

    Attributes:
        model: the read model.
        fold: how its rows are folded, or those of the read model that it looks up columns for.
        names: key or state of the fold -> the column that keeps it.
        copies: column of the fold -> the columns that show or keep it as it is.
        looks_at: columns of the fold, in lower case, from which it follows what is looked up or shown otherwise.
        ways: how rows are reached through what is looked up; None without look-ups.
        looked_up: the SELECT with the hidden states; None without look-ups.
        pairs: number of a place that is looked up -> its column and that of the fold which have to be equal.
    """

    model: ReadModel
    fold: Fold
    names: dict[str, str]
    copies: dict[str, tuple[str, ...]]
    looks_at: frozenset[str] = frozenset()
    reason: str = "every column is made of aggregates whose halves combine"
    ways: Ways | None = None
    looked_up: Template | None = None
    pairs: dict[int, tuple[str, str]] | None = None
    way: str = "merge"

    @property
    def uses(self) -> tuple[Use, ...]:
        """The places that are looked up."""
        return tuple(self.ways.shape.uses[1:]) if self.ways else ()

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the read models that are looked up, in lower case."""
        return tuple(dict.fromkeys(use.name for use in self.uses))

    @property
    def found_by(self) -> tuple[str, ...]:
        """The columns of the key."""
        return tuple(self.names[key] for key in self.fold.keys)

    @property
    def hidden(self) -> tuple[str, ...]:
        """The columns that rows keep for themselves."""
        return tuple(name for name in self.names.values() if name.startswith("_"))

    def rows(self, read: Read) -> str:
        """Return all rows, folded from all events."""
        return self.of_states(self.fold.folded(read(self.fold.use)), read)

    def of_states(self, states: str, read: Read) -> str:
        """Return all rows, out of the SELECT of their keys and states."""
        return self._seen(self.fold.finished(states), read)

    def reached(self, new: Read, read: Read, noted: str | None, without: frozenset[str] = frozenset()) -> str:
        """Return keys and states of the new events; a noted key without any has empty states.

        Args:
            without: states that are left out, for nothing is new of them.
        """
        names = {base: name for base, name in self.names.items() if base not in without}
        items = (quote(b) if b == name else f"{quote(b)} AS {quote(name)}" for b, name in names.items())
        folds = self.fold.folded(new(self.fold.use), without)
        folded = f"SELECT {', '.join(items)}, true AS _folded\nFROM ({folds}\n)"
        if not noted:
            return folded
        keys = ", ".join(map(quote, self.found_by))
        same_key = " AND ".join(f"_n.{quote(key)} IS NOT DISTINCT FROM _f.{quote(key)}" for key in self.found_by)
        return (
            f"WITH _f AS (\n{folded}\n)\nSELECT * FROM _f UNION ALL BY NAME "
            f"SELECT DISTINCT {keys} FROM {noted} AS _n WHERE NOT EXISTS (SELECT 1 FROM _f WHERE {same_key})"
        )

    def after(self, before: str, reached: str, read: Read, *, nulls: bool, few: bool = False) -> str:
        """Return the reached rows: their states combined with the stored ones, then finished and looked up."""
        equal = "IS NOT DISTINCT FROM" if nulls else "="
        join = " AND ".join(f"_new.{quote(key)} {equal} _old.{quote(key)}" for key in self.found_by)
        items = [f"_new.{quote(self.names[key])} AS {quote(key)}" for key in self.fold.keys]
        for state in self.fold.states:
            items.append(f"{self._whole(state, f'_new.{quote(self.names[state.column])}')} AS {quote(state.column)}")
        # A key that was noted, and of which there is neither a row nor a new event, has none.
        combined = (
            f"SELECT {f',{chr(10)}       '.join(items)}\nFROM {reached} AS _new LEFT JOIN {before} AS _old ON {join}\n"
            "WHERE _new._folded OR _old._row IS NOT NULL"
        )
        return self._seen(self.fold.finished(combined), read, some=not few)

    def fresh(self, states: str, read: Read) -> str:
        """Return the rows of keys of which there is none yet.

        Args:
            states: what stands in FROM for their keys and states, as the fold calls them.
        """
        return self._seen(self.fold.finished_from(states), read)

    def looks_up(self, states: Collection[str]) -> bool:
        """Return whether what is looked up may be another one, when of some states there is something new."""
        return self.looked_up is not None and not self.looks_at.isdisjoint(
            column.lower() for column in self.fold.changed(states)
        )

    def assigned(self, states: Mapping[str, str]) -> dict[str, str]:
        """Return what one stored row, `_old`, gets, when of some states alone there is something new.

        A state of which the new events say nothing, NULL, stays as it was, and so does what follows from it.

        Args:
            states: name of each that is new -> its value, as SQL.

        Returns:
            Column -> its value, as SQL.
        """
        whole = {state.column: self._whole(state, states.get(state.column)) for state in self.fold.states}
        found, changed = {}, self.fold.changed(states)
        for column in [column for column in self.copies if column in changed]:
            output = self.fold.outputs.get(column)
            text = whole[column] if output is None else over_states(output, whole)
            found.update(dict.fromkeys(self.copies[column], text))
        return found

    def _whole(self, state: State, new: str | None) -> str:
        old = f"_old.{quote(self.names[state.column])}"
        return state.combine.format(old=old, new=new) if new else old

    def keys_of(self, use: Use, changed: str, read: Read) -> str:
        """Return the keys that changed rows of what is looked up reach; place 0 reads `base_rows`."""
        assert self.ways is not None
        return self.ways.keys_of(use, changed, read)

    def versions(self, new: Read, inside: str) -> str | None:
        """Return the rows after each event, with its position as `_at`; None with look-ups, which change as well.

        Args:
            inside: the condition on keys that they meet.
        """
        is_own = self.looked_up is None and self.fold.shows_position
        return self.fold.windowed(new(self.fold.use), inside) if is_own else None

    def base_rows(self, table: str) -> str:
        """Return the rows that columns are looked up for, out of rows as they are stored here."""
        states = ", ".join(f"{quote(name)} AS {quote(base)}" for base, name in self.names.items())
        return self.fold.finished(f"SELECT {states} FROM {table}")

    def _seen(self, rows: str, read: Read, *, some: bool = False) -> str:
        """The rows with what is looked up for them; of that only what some of them need."""
        if self.looked_up is None or self.ways is None:
            return rows
        pairs = (self.pairs or {}) if some else {}

        def source(number: int) -> str:
            use = self.ways.shape.use(number)  # type: ignore[union-attr]
            if use == self.ways.shape.uses[0]:  # type: ignore[union-attr]
                return "SELECT * FROM _base" if some else rows
            if number not in pairs:
                return read(use)
            column, other = pairs[number]
            # Of 250,000 customers those of 1,000 rows: 10 ms, and 28 when all are joined.
            return f"SELECT * FROM ({read(use)}\n) WHERE {quote(column)} IN (SELECT {quote(other)} FROM _base)"

        seen = self.looked_up.filled(source)
        return f"WITH _base AS MATERIALIZED (\n{rows}\n)\n{seen}" if some else seen


_OWN = ("_row", "_folded", "_at", "_from", "_to")  # what the engine calls columns of its own beside these


def _hidden(name: str) -> str:
    """The column in which rows keep a state that they do not show."""
    return f"__{name}" if f"_{name}".lower() in _OWN else f"_{name}"


def merge_of(fold: Fold) -> Merge:
    """Return how a read model merges that is a fold of events itself."""
    whole = dict.fromkeys([*fold.columns, *fold.hidden])
    return Merge(fold.model, fold, {name: name for name in fold.kept}, {name: (name,) for name in whole})


def look_ups_of(ways: Ways, base: Fold, keys_of: Callable[[Use], Iterable[str]]) -> Merge:
    """Return how a read model merges that looks up columns for the rows of one that merges.

    Args:
        ways: of its SELECT.
        base: how the rows of its first place are folded.
        keys_of: a place -> the columns that name its rows; none of a table of events.

    Raises:
        CannotPlan: with the reason.
    """
    shape, model = ways.shape, ways.shape.model
    tree, first = shape.tree, shape.uses[0]
    if shape.is_nested:
        raise CannotPlan("it is more than one SELECT")
    if tree["where_clause"] or tree["having"] or tree["group_expressions"] or tree["modifiers"] or tree["qualify"]:
        raise CannotPlan("it leaves rows out or puts several together")
    if tree["aggregate_handling"] != "STANDARD_HANDLING" or any(is_aggregate(n) for n in nodes(tree)):
        raise CannotPlan("it puts several rows together")
    if any(n.get("class") == "WINDOW" for n in nodes(tree)) or shape.reading.has_lists:
        raise CannotPlan("it looks at several rows or makes several of one")
    if len(shape.uses) < 2 or first.optional or not all(use.optional for use in shape.uses[1:]):
        raise CannotPlan("it joins what it does not look up")
    pairs: dict[int, tuple[str, str]] = {}
    for use in shape.uses[1:]:
        wanted = {key.lower() for key in keys_of(use)}
        compared: dict[str, str | None] = {}
        for condition in shape.conditions:
            if condition.is_equality and condition.scope == use.optional:
                for side, other in (("left", "right"), ("right", "left")):
                    one, two = condition.expression[side], condition.expression[other]
                    if one["column_names"][0] == use.alias and len(one["column_names"]) == 2:
                        is_base = two["column_names"][0] == first.alias and len(two["column_names"]) == 2
                        is_other = two["column_names"][0] != use.alias
                        if is_other:
                            compared[one["column_names"][1].lower()] = two["column_names"][1] if is_base else None
        if not wanted or not wanted <= compared.keys():
            raise CannotPlan(f"it may find several rows of {use.alias!r} for one of its own")
        pair = next(((column, other) for column, other in compared.items() if other), None)
        if pair:
            pairs[use.number] = pair
    copies: dict[str, list[str]] = {}
    others = [condition.expression for condition in shape.conditions]
    for item in tree["select_list"]:
        whole = shape.top.full(item, is_item=True)
        if whole["class"] == "COLUMN_REF" and [n.lower() for n in whole["column_names"][:-1]] == [first.alias.lower()]:
            copies.setdefault(whole["column_names"][1].lower(), []).append(item_name(item))
        else:
            others.append(whole)
    shown = {column: items[0] for column, items in copies.items()}
    looks_at = {
        column["column_names"][1].lower()
        for expression in others
        for column in columns_of(expression)
        if column["column_names"][0].lower() == first.alias.lower()
    }
    keys = {key.lower() for key in model.keys}
    named = {shown[key.lower()].lower() for key in base.keys if key.lower() in shown}
    if named != keys or len(named) != len(base.keys) or {p.name.lower() for p in ways.parts} != keys:
        raise CannotPlan(f"its key is not that of {base.model.name}")
    names = {name: shown.get(name.lower(), _hidden(name)) for name in base.kept}
    more = [
        {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": column, "query_location": 0, "query_location_length": 0}
        | {"column_names": [first.alias, base_name]}
        for base_name, column in names.items()
        if column.startswith("_")
    ]
    try:
        looked_up = template(tree | {"select_list": [*tree["select_list"], *more]}, model.sql)
    except QueryFailed as error:
        raise CannotPlan(str(error)) from None
    reason = f"its rows are those of {base.model.name}, whose aggregates they keep, with more looked up"
    kept = {
        column: tuple(dict.fromkeys([*copies.get(column.lower(), ()), *([names[column]] if column in names else ())]))
        for column in dict.fromkeys([*base.columns, *base.hidden])
    }
    return Merge(model, base, names, kept, frozenset(looks_at), reason, ways, looked_up, pairs)
