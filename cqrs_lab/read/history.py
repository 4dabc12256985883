"""History: how the rows of a read model became what they are, event by event.

Owns the versions of rows: each with the position that made it and the one that ended it. Of a read model that merges
they are running aggregates over what each event alone folds to. Any other is asked anew at every position at which one
of the rows that it is made of changes; which these are follows from its key through the equalities of its joins. It is
always a superset: a position too many costs time, and shows nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from cqrs_lab.database import literal, quote
from cqrs_lab.read.merge import COMBINE, CannotMerge, Merge
from cqrs_lab.read.models import Derived, ReadModel
from cqrs_lab.read.serving import as_stored
from cqrs_lab.read.touched import CannotTouch, Touched, Use, equalities, owner_of, touched_of
from cqrs_lab.rows import Rows
from cqrs_lab.syntax import Node, nodes, syntax_text, syntax_tree

if TYPE_CHECKING:
    from cqrs_lab.read.servings import Servings

EVER = 2**63 - 1
"""Where a row ends that has not ended yet."""

# How an aggregate over all events so far follows from those over each, by how those of two halves combine.
RUNNING = {
    COMBINE["sum"]: "sum({x})",
    COMBINE["min"]: "min({x})",
    COMBINE["max"]: "max({x})",
    COMBINE["bool_and"]: "bool_and({x})",
    COMBINE["bool_or"]: "bool_or({x})",
    COMBINE["bit_and"]: "bit_and({x})",
    COMBINE["bit_or"]: "bit_or({x})",
    COMBINE["arg_max"]: "last_value({x} IGNORE NULLS)",
    COMBINE["arg_min"]: "first_value({x} IGNORE NULLS)",
}
_AT_ONCE = 32  # positions asked about in one statement
_MOST = 5_000  # values that a source is narrowed to; above, all of it is looked at

Known = dict[str, list[Any]]
"""Column -> the only values that matter."""


def history(side: Servings, model: ReadModel | str, key: Sequence[Any]) -> Rows:
    """Return the history of one row (see `Lab.history`)."""
    found = side.find(model)
    found.expanded(side.models, side.log.source)  # one without a SELECT says that it has no past
    columns = side.columns(found)
    values = {name: [as_stored(value)] for name, value in side.keyed(found, tuple(key)).items()}
    versions = _Versions(side, side.log.head)
    try:
        rows = versions.of(found, values)
        tables = [category.table for category in side.log.categories.values()]
        events = " UNION ALL ".join(f"SELECT position, type, occurred_at, recorded_at FROM {quote(t)}" for t in tables)
        names = ", ".join(map(quote, columns))
        cases = ", ".join(
            f"CASE WHEN {quote(c)} IS DISTINCT FROM lag({quote(c)}) OVER _w THEN {literal(c)} END" for c in columns
        )
        table = side.log.database.arrow(
            f"""WITH _steps AS (
                SELECT _from AS _at, {names} FROM {rows} UNION ALL BY NAME
                SELECT _to AS _at FROM {rows} WHERE _to < {EVER} AND _to NOT IN (SELECT _from FROM {rows})),
            _changes AS (
                SELECT _at, {names}, list_filter([{cases}], lambda x: x IS NOT NULL) AS changed
                FROM _steps WINDOW _w AS (ORDER BY _at))
            SELECT _events.*, {", ".join(f"_changes.{quote(c)}" for c in columns)}, changed
            FROM _changes JOIN ({events}) AS _events ON position = _at WHERE len(changed) > 0 ORDER BY position"""
        )
    finally:
        versions.close()
    return Rows.of(side.log, table)


def by_event(merge: Merge) -> ReadModel:
    """Return the rows of a merging read model, states included, as each event alone folds to them.

    They say in `_at` which position it has.

    Raises:
        CannotMerge: its text could not be grouped by position.
    """
    source = merge.model.tree["from_table"]
    while source["type"] == "JOIN":
        source = source["left"]
    at = f"{quote(source['alias'] or source['table_name'])}.position"
    whole = merge.stored().sql
    end = merge.hidden_at + len(whole) - len(merge.model.sql)  # behind the last state
    tree = syntax_tree(whole)
    more = f"\n, {at}" if tree["group_expressions"] else ""  # GROUP BY ALL takes it by itself
    sql = f"{whole[:end]}, {at} AS _at{whole[end:]}{more}"
    made = syntax_tree(sql)
    if len(made["select_list"]) != len(tree["select_list"]) + 1 or bool(more) + len(tree["group_expressions"]) != len(
        made["group_expressions"]
    ):
        raise CannotMerge("its text could not be grouped by position")
    return Derived(merge.model.name, merge.model.key, sql)


def running(merge: Merge, folds: str, kinds: dict[str, str]) -> str:
    """Return the SELECT of the rows, states included, after each of the events that `folds` gives, with its `_at`.

    Args:
        kinds: column -> its type.
    """
    keys = ", ".join(map(quote, merge.model.keys))
    states = "".join(
        f", CAST({RUNNING[state.combine].format(x=quote(state.column))} OVER _w AS {kinds[state.column]})"
        f" AS {quote(state.column)}"
        for state in merge.states
    )
    window = f"WINDOW _w AS (PARTITION BY {keys} ORDER BY _at ROWS UNBOUNDED PRECEDING)"
    return merge.finished(f"SELECT {keys}{states}, _at FROM ({folds}) {window}", ", _at")


class _Versions:
    """Versions of rows, in temporary tables: their columns, `_from` and `_to`."""

    def __init__(self, side: Servings, head: int) -> None:
        self._side, self._head, self._run = side, head, side.log.database.execute
        self._window = side.window(0, head)
        self._number = count()
        self._tables: list[str] = []

    def close(self) -> None:
        for table in self._tables:
            self._run(f"DROP TABLE {table}")

    def of(self, model: ReadModel, known: Known) -> str:
        """Return a table of all versions of the rows that have one of the known values in each of these columns."""
        way = self._side.way(model)
        if isinstance(way, Merge):
            with suppress(CannotMerge):
                return self._merged(way, known)
        try:
            touched = touched_of(model, self._side._columns_of, "")
        except CannotTouch:
            return self._asked(model, known, self._positions(model), lambda p: self._past(model, p))
        return self._joined(touched, known)

    def _keep(self, select: str, params: Sequence[Any] = ()) -> str:
        table = f"temp._versions_{next(self._number)}"
        self._run(f"CREATE OR REPLACE TEMP TABLE {table.removeprefix('temp.')} AS {select}", params)
        self._tables.append(table)
        return table

    def _merged(self, merge: Merge, known: Known) -> str:
        model = merge.model
        folds = by_event(merge).expanded(self._side.models, self._window)
        kinds = self._side.log.database.columns(folds)
        keys = {key.lower() for key in model.keys}
        # In each event's own fold the key is known, all else only in the rows.
        inside, params = _among({c: v for c, v in known.items() if c.lower() in keys})
        rows = running(merge, f"SELECT * FROM ({folds}\n) WHERE {inside}", kinds)
        columns = ", ".join(map(quote, merge.columns))
        by_key = f"(PARTITION BY {', '.join(map(quote, model.keys))} ORDER BY _at)"
        changes = f"SELECT * FROM ({rows}) QUALIFY row({columns}) IS DISTINCT FROM lag(row({columns})) OVER {by_key}"
        whole = f"SELECT {columns}, _at AS _from, coalesce(lead(_at) OVER {by_key}, {EVER}) AS _to FROM ({changes})"
        outside, more = _among({c: v for c, v in known.items() if c.lower() not in keys}, len(params))
        return self._keep(f"SELECT * FROM ({whole}) WHERE {outside}", [*params, *more])

    def _joined(self, touched: Touched, known: Known) -> str:
        """Versions of rows that are made of others: asked anew whenever one of these others changes."""
        given: defaultdict[Use, list[tuple[Node, list[Any]]]] = defaultdict(list)
        for key, expression in touched.keys.items():
            owners = {owner_of(n, touched.uses) for n in nodes(expression) if n.get("class") == "COLUMN_REF"}
            values = next((v for name, v in known.items() if name.lower() == key.lower()), None)
            if len(owners) == 1 and (owner := owners.pop()) and values is not None:
                given[owner].append((expression, values))
        made: dict[Use, str] = {}
        tree = touched.model.tree
        edges = list(_edges(tree["from_table"], touched.uses))
        edges += _equal(tree["where_clause"], touched.uses)
        while len(made) < len(touched.uses):
            left = [use for use in touched.uses if use not in made]
            use = next((use for use in left if given[use]), left[0])
            made[use] = self._narrowed(use, given[use])
            for (one, column), (other, to) in edges:
                if one == use and other not in made:
                    values = self._run(f"SELECT DISTINCT {quote(column)} FROM {made[use]} LIMIT {_MOST + 1}")
                    if len(values) <= _MOST:
                        node = syntax_tree(f"SELECT {quote(to)}")["select_list"][0]
                        given[other].append((node, [value for (value,) in values]))
        moments = " UNION ".join(f"SELECT _from AS p FROM {t} UNION SELECT _to FROM {t}" for t in made.values())
        positions = [p for (p,) in self._run(f"SELECT p FROM ({moments}) WHERE p <= {self._head} ORDER BY p")]

        def at(position: int) -> str:
            tables = iter([made[use] for use in reversed(touched.uses)])  # as the text is replaced
            there = f"_from <= {position} AND _to > {position}"
            return touched.model.bound(lambda _: f"SELECT * EXCLUDE (_from, _to) FROM {next(tables)} WHERE {there}")

        return self._asked(touched.model, known, positions, at)

    def _narrowed(self, use: Use, given: list[tuple[Node, list[Any]]]) -> str:
        """Versions of the rows of one source for which expressions have one of the values."""
        alias = quote(use.alias)
        if self._side.is_events(use.name):
            rows = f"SELECT *, position AS _from, {EVER} AS _to FROM ({self._window(use.name)}\n)"
        else:
            known = {name: values for node, values in given if (name := _column(node, use))}
            rows = f"SELECT * FROM {self.of(self._side.models[use.name], known)}"
        conditions: list[str] = []
        params: list[Any] = []
        for node, values in given:
            alone = syntax_tree("SELECT 1") | {"select_list": [node | {"alias": ""}]}
            text = syntax_text(alone).removeprefix("SELECT ")
            marks = ", ".join(f"${len(params) + n}" for n in range(1, len(values) + 1))
            conditions.append(f"{text} IN ({marks})" if values else "false")
            params += values
        return self._keep(f"SELECT * FROM ({rows}) AS {alias} WHERE {' AND '.join(conditions) or 'true'}", params)

    def _asked(self, model: ReadModel, known: Known, positions: Iterable[int], at: Any) -> str:
        """Versions of rows, asked at every position at which they can change."""
        condition, params = _among(known)
        columns = ", ".join(map(quote, self._side.columns(model)))
        text = model.expanded(self._side.models, self._window)
        table = self._keep(f"SELECT {columns}, 0::BIGINT AS _from, 0::BIGINT AS _to FROM ({text}\n) LIMIT 0")
        todo = iter(positions)
        first = next(todo, None)
        while first is not None:
            some = [first, *islice(todo, _AT_ONCE)]
            first = some.pop() if len(some) > _AT_ONCE else None
            ends = [*some[1:], EVER if first is None else first]
            parts = [
                f"SELECT {columns}, {p}::BIGINT AS _from, {end}::BIGINT AS _to FROM ({at(p)}\n) WHERE {condition}"
                for p, end in zip(some, ends, strict=True)
            ]
            self._run(f"INSERT INTO {table} {' UNION ALL '.join(parts)}", params)
        return table

    def _past(self, model: ReadModel, position: int) -> str:
        return model.expanded(self._side.models, self._side.window(0, position))

    def _positions(self, model: ReadModel) -> list[int]:
        """All positions at which something was appended that a read model reads."""
        models = [self._side.models[name.lower()] for name in self._side.below(model)]
        tables = {s.name.lower() for m in models for s in m.sources() if self._side.is_events(s.name.lower())}
        each = " UNION ".join(f"SELECT position FROM {quote(t)} WHERE position <= {self._head}" for t in sorted(tables))
        return [p for (p,) in self._run(f"SELECT position FROM ({each}) ORDER BY position")]


def _edges(source: Node, uses: Sequence[Use]) -> Iterator[tuple[tuple[Use, str], tuple[Use, str]]]:
    """Yield columns of sources that are equal in every row: what the first has narrows the second."""
    if source["type"] != "JOIN":
        return
    yield from _edges(source["left"], uses)
    yield from _edges(source["right"], uses)
    left, right = (_inside(source[side], uses) for side in ("left", "right"))
    both = source["join_type"] == "INNER"  # a row goes on without its partner on the right of a LEFT JOIN
    for one, other in _equal(source.get("condition"), uses):
        if both or (one[0] in left and other[0] in right):
            yield one, other
    for column in source.get("using_columns") or ():
        owners = [next((u for u in part if column.lower() in u.columns), None) for part in (left, right)]
        if owners[0] and owners[1]:
            yield (owners[0], column), (owners[1], column)
            if both and not owners[0].is_optional:
                yield (owners[1], column), (owners[0], column)


def _inside(source: Node, uses: Sequence[Use]) -> list[Use]:
    names = {(n["alias"] or n["table_name"]).lower() for n in nodes(source) if n.get("type") == "BASE_TABLE"}
    return [use for use in uses if use.alias.lower() in names]


def _equal(condition: Node | None, uses: Sequence[Use]) -> Iterator[tuple[tuple[Use, str], tuple[Use, str]]]:
    """Yield columns of two sources that a condition says are equal."""
    for equal in equalities(condition):
        sides = [equal["left"], equal["right"]]
        if all(side["class"] == "COLUMN_REF" for side in sides):
            one, other = ((use, _column(side, use)) for side in sides for use in [owner_of(side, uses)])
            if one[0] and one[1] and other[0] and other[1] and one[0] != other[0]:
                yield (one[0], one[1]), (other[0], other[1])
                yield (other[0], other[1]), (one[0], one[1])


def _column(node: Node, use: Use | None) -> str | None:
    """The column of a source that an expression is, None when it is more, such as a part of one."""
    if use is None or node["class"] != "COLUMN_REF":
        return None
    *path, name = node["column_names"]
    is_whole = [part.lower() for part in path] in ([], [use.alias.lower()])
    return str(name) if is_whole and name.lower() in use.columns else None


def _among(known: Known, after: int = 0) -> tuple[str, list[Any]]:
    """The condition that columns have one of their values, and the values; a mark may stand in several places."""
    parts: list[str] = []
    params: list[Any] = []
    for column, values in known.items():
        marks = ", ".join(f"${after + len(params) + n}" for n in range(1, len(values) + 1))
        parts.append(f"{quote(column)} IN ({marks})" if values else "false")
        params += values
    return " AND ".join(parts) or "true", params
