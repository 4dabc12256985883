"""History: how the rows of a read model became what they are, event by event.

Owns the versions of rows: each with the position that made it and the one that ended it. Of a read model that merges
they are running aggregates over what each event alone folds to. Any other is asked again at every position at which one
of the rows that it is made of changes; which these are follows from its key through the equalities of its joins. It is
always a superset: a position too many costs time, and shows nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from itertools import count
from typing import Any

from tqdm.auto import tqdm

from cqrs_lab.errors import InvalidMoment, QueryFailed
from cqrs_lab.ivm.fold import Fold
from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.ivm.reading import CannotPlan, Use
from cqrs_lab.ivm.shape import Shape
from cqrs_lab.read.catalog import Catalog
from cqrs_lab.read.changes import History
from cqrs_lab.read.projection import Model, Projection
from cqrs_lab.sql.names import literal, names_events, quote
from cqrs_lab.sql.parse import Node, text_of
from cqrs_lab.sql.places import Place
from cqrs_lab.store.categories import as_stored
from cqrs_lab.store.moments import Moment, moment
from cqrs_lab.store.rows import Rows

EVER = 2**63 - 1
"""Where a row ends that has not ended yet."""

_LOOKED_AT = 10_000_000  # rows that one statement looks at for all of its positions together
_MOST = 5_000  # values that a source is narrowed to; above, all of it is looked at

Known = dict[str, list[Any]]
"""Column -> the only values that matter."""


def history(
    catalog: Catalog,
    model: Model | str,
    key: Sequence[Any],
    limit: int | None = None,
    since: int | Moment | None = None,
) -> Rows:
    """Return the history of one row (see `Lab.history`)."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise QueryFailed(f"limit={limit!r} is not a number of changes from 1 on")
    first = _position_of(catalog, since)
    found = catalog.find(model)
    if isinstance(found, Projection):
        found.expanded(catalog.known, catalog.log.source)  # it has no SELECT, and says that it has no past
    columns = catalog.columns(found)
    values = {name: [as_stored(value)] for name, value in catalog.keyed(found, tuple(key)).items()}
    versions = _Versions(catalog, catalog.log.head)
    try:
        rows = versions.of(found, values)
        tables = [category.table for category in catalog.log.categories.values()]
        envelope = ("position", "type", "occurred_at", "recorded_at")
        own = {column.lower() for column in columns}
        # The row's columns keep their names; what the history adds gives way.
        shown = {name: f"event_{name}" if name in own else name for name in (*envelope, "changed")}
        stamps = ", ".join(f"{name} AS _{name}" for name in envelope)
        events = " UNION ALL ".join(f"SELECT {stamps} FROM {quote(table)}" for table in tables)
        names = ", ".join(map(quote, columns))
        cases = ", ".join(
            f"CASE WHEN {quote(c)} IS DISTINCT FROM lag({quote(c)}) OVER _w THEN {literal(c)} END" for c in columns
        )
        table = catalog.log.database.arrow(
            f"""WITH _steps AS (
                SELECT _from AS _at, true AS _there, {names} FROM {rows} UNION ALL BY NAME
                SELECT _to AS _at FROM {rows} WHERE _to < {EVER} AND _to NOT IN (SELECT _from FROM {rows})),
            _changes AS (
                SELECT _at, {names}, list_filter([{cases}], lambda x: x IS NOT NULL) AS _changed,
                       _there IS DISTINCT FROM lag(_there) OVER _w AS _came
                FROM _steps WINDOW _w AS (ORDER BY _at))
            SELECT {", ".join(f"_{name} AS {shown[name]}" for name in envelope)},
                   {names}, _changed AS {shown["changed"]}
            FROM _changes JOIN ({events}) AS _events ON _position = _at
            WHERE (_came OR len(_changed) > 0) AND _position >= {first}
            QUALIFY row_number() OVER (ORDER BY _position DESC) <= {EVER if limit is None else limit}
            ORDER BY _position"""
        )
    finally:
        versions.close()
    return History.of(catalog.log, table)


def _position_of(catalog: Catalog, since: int | Moment | None) -> int:
    """The first position that counts: of a time the first one recorded at or after it."""
    if since is None:
        return 0
    if isinstance(since, int) and not isinstance(since, bool):
        return since
    if isinstance(since, date) and not isinstance(since, datetime):
        since = datetime.combine(since, time.min, UTC)
    if isinstance(since, bool) or not isinstance(since, datetime):
        raise InvalidMoment(f"since={since!r} is neither a position nor a time")
    return catalog.log.position_recorded_by(moment(since, "since") - timedelta(microseconds=1)) + 1


class _Versions:
    """Versions of rows, in temporary tables: their columns, `_from` and `_to`."""

    def __init__(self, catalog: Catalog, head: int) -> None:
        self._catalog, self._head, self._run = catalog, head, catalog.log.database.execute
        self._window = catalog.window(0, head)
        self._number = count()
        self._tables: list[str] = []

    def close(self) -> None:
        for table in self._tables:
            self._run(f"DROP TABLE {table}")

    def of(self, model: ReadModel, known: Known) -> str:
        """Return a table of all versions of the rows that have one of the known values in each of these columns."""
        plan = self._catalog.plan(model)
        if isinstance(plan, Merge) and plan.looked_up is None and plan.fold.shows_position:
            return self._kept_versions(model, *self._running(plan.fold, known), known)
        inside, params = self._inside(model, known)
        rows = plan.versions(lambda use: self._window(use.name), inside)
        if rows is not None:
            return self._kept_versions(model, rows, params, known)
        with suppress(CannotPlan):
            shape = Shape(model, self._catalog.columns_of)
            is_read_twice = len({use.place for use in shape.uses}) < len(shape.uses)  # each time for other rows
            if not is_read_twice:
                return self._joined(shape, known)
        positions = self._positions(model)
        return self._asked(model, known, positions, lambda p: self._past(model, p), len(positions))

    def _keep(self, select: str, params: Sequence[Any] = ()) -> str:
        table = f"temp._versions_{next(self._number)}"
        self._run(f"CREATE OR REPLACE TEMP TABLE {table.removeprefix('temp.')} AS {select}", params)
        self._tables.append(table)
        return table

    def _inside(self, model: ReadModel, known: Known) -> tuple[str, list[Any]]:
        """What is known of the key: in each event it is known, all else only in the rows."""
        keys = {key.lower() for key in model.keys}
        return _among({c: v for c, v in known.items() if c.lower() in keys})

    def _with_keys(self, fold: Fold, known: Known) -> Known:
        """What is known, and the keys that follow: a column that takes one of the values of its events over has it."""
        keys = list(fold.keys)
        for state in fold.states:
            values = next((v for name, v in known.items() if name.lower() == state.column.lower()), None)
            taken = fold.taken_over(state)
            if values is None or None in values or taken is None or len(keys) != 1 or keys[0] in known:
                continue
            condition, params = _is_one_of(text_of(taken), values, 0)
            key = f"SELECT DISTINCT {text_of(fold.keys[keys[0]])} FROM ({self._window(fold.use.name)}\n) AS "
            found = self._run(f"{key}{quote(fold.use.alias)} WHERE {condition} LIMIT {_MOST + 1}", params)
            if len(found) <= _MOST:
                return {**known, keys[0]: [value for (value,) in found]}
        return known

    def _running(self, fold: Fold, known: Known) -> tuple[str, list[Any]]:
        """Rows after each event as running aggregates over what each event alone folds to: no sort of all of them."""
        inside, params = self._inside(fold.model, self._with_keys(fold, known))
        folds = fold.by_event(self._window(fold.use.name))
        kinds = self._catalog.log.database.columns(folds)
        return fold.running(f"SELECT * FROM ({folds}\n) WHERE {inside}", kinds), params

    def _kept_versions(self, model: ReadModel, rows: str, params: list[Any], known: Known) -> str:
        """Keep versions of rows, out of the rows after each event."""
        keys = {key.lower() for key in model.keys}
        columns = ", ".join(map(quote, self._catalog.columns(model)))
        by_key = f"(PARTITION BY {', '.join(map(quote, model.keys))} ORDER BY _at)"
        changes = f"SELECT * FROM ({rows}) QUALIFY row({columns}) IS DISTINCT FROM lag(row({columns})) OVER {by_key}"
        whole = f"SELECT {columns}, _at AS _from, coalesce(lead(_at) OVER {by_key}, {EVER}) AS _to FROM ({changes})"
        outside, more = _among({c: v for c, v in known.items() if c.lower() not in keys}, len(params))
        return self._keep(f"SELECT * FROM ({whole}) WHERE {outside}", [*params, *more])

    def _joined(self, shape: Shape, known: Known) -> str:
        """Versions of rows that are made of others: asked again at every change of one of them."""
        given: defaultdict[int, list[tuple[Node, list[Any]]]] = defaultdict(list)
        for part in shape.parts(known):
            values = next(v for name, v in known.items() if name.lower() == part.name.lower())
            if len(part.uses) == 1 and not part.unnests and not part.makes_rows:
                given[next(iter(part.uses))].append((part.expression, values))
        made: dict[int, str] = {}  # by number of a place
        while len(made) < len(shape.uses):
            left = [use for use in shape.uses if use.number not in made]
            use = next((use for use in left if given[use.number]), left[0])
            made[use.number] = self._narrowed(use, given[use.number])
            for column, other, node in _narrowing(shape, use):
                if other.number not in made:
                    values = self._run(f"SELECT DISTINCT {quote(column)} FROM {made[use.number]} LIMIT {_MOST + 1}")
                    if len(values) <= _MOST:
                        given[other.number].append((node, [value for (value,) in values if value is not None]))
        plan = self._catalog.plan(shape.model)
        found = self._looked_up(plan, shape, made, known) if isinstance(plan, Merge) else None
        if found is not None:
            return found
        moments = " UNION ".join(f"SELECT _from AS p FROM {t} UNION SELECT _to FROM {t}" for t in made.values())
        positions = [p for (p,) in self._run(f"SELECT p FROM ({moments}) WHERE p <= {self._head} ORDER BY p")]

        def at(position: str) -> str:
            there = f"EXCLUDE (_from, _to) FROM {{}} WHERE _from <= {position} AND _to > {position}"
            return shape.model.bound(lambda place: f"SELECT * {there.format(made[shape.at(place.number)[0].number])}")

        rows = self._run(f"SELECT {' + '.join(f'(SELECT count(*) FROM {table})' for table in made.values())}")[0][0]
        return self._asked(shape.model, known, positions, at, rows)

    def _looked_up(self, plan: Merge, shape: Shape, made: dict[int, str], known: Known) -> str | None:
        """Versions of rows for which columns are looked up: each is asked at the changes that concern it, and no other.

        The value of a customer with 1,500 orders has its 3,100 versions in 0.4 s, and in 10 s where all of these orders
        are asked at each change of one.

        Returns:
            None where it cannot be told which changes those are.
        """
        pairs, (first, *others) = plan.pairs or {}, shape.uses
        if any(use.number not in pairs for use in others):
            return None
        columns, keys = [quote(c) for c in self._catalog.columns(plan.model)], [quote(key) for key in plan.fold.keys]
        names = ", ".join(f"_b.{key} AS _k{number}" for number, key in enumerate(keys))
        base = made[first.number]
        parts = [f"SELECT {names}, unnest([_b._from, _b._to]) AS _p FROM {base} AS _b"]
        for use in others:
            column, other = map(quote, pairs[use.number])
            joined = f"FROM {base} AS _b JOIN {made[use.number]} AS _c ON _c.{column} = _b.{other}"
            parts.append(f"SELECT {names}, unnest([_c._from, _c._to]) AS _p {joined}")
        by_key = f"(PARTITION BY {', '.join(f'_k{number}' for number in range(len(keys)))} ORDER BY _p)"
        ends = f"SELECT *, coalesce(lead(_p) OVER {by_key}, {EVER}) AS _end FROM ({' UNION '.join(parts)})"
        same = "".join(f" AND {key} IS NOT DISTINCT FROM _m._k{number}" for number, key in enumerate(keys))

        def at(place: Place) -> str:
            number = shape.at(place.number)[0].number
            there = f"SELECT * EXCLUDE (_from, _to) FROM {made[number]} WHERE _from <= _m._p AND _to > _m._p"
            return there + (same if number == first.number else "")

        condition, params = _among(known)
        rows = f"LATERAL (SELECT * FROM ({plan.model.bound(at)}\n) WHERE {condition}) AS _row"
        each = ", ".join(f"_row.{column}" for column in columns)
        select = (
            f"SELECT {each}, _m._p AS _from, _m._end AS _to FROM ({ends}) AS _m, {rows} WHERE _m._p <= {self._head}"
        )
        try:
            return self._together(plan.model, self._keep(select, params))
        except QueryFailed:  # DuckDB cannot put it behind another one
            return None

    def _narrowed(self, use: Use, given: list[tuple[Node, list[Any]]]) -> str:
        """Versions of the rows of one source for which expressions have one of the values."""
        if use.is_events:
            rows = f"SELECT *, position AS _from, {EVER} AS _to FROM ({self._window(use.name)}\n)"
        else:
            known = {n["column_names"][1]: v for n, v in given if len(n.get("column_names", ())) == 2}
            rows = f"SELECT * FROM {self.of(self._catalog.known[use.name], known)}"
        conditions: list[str] = []
        params: list[Any] = []
        for node, values in given:
            condition, more = _is_one_of(text_of(node), values, len(params))
            conditions.append(condition)
            params += more
        where = " AND ".join(conditions) or "true"
        return self._keep(f"SELECT * FROM ({rows}) AS {quote(use.alias)} WHERE {where}", params)

    def _asked(self, model: ReadModel, known: Known, positions: list[int], at: Callable[[str], str], rows: int) -> str:
        """Versions of rows, asked at every position at which they can change.

        All positions at once, the SELECT standing behind each of them: 200 of them by 5 ms, and by 220 ms one by one.

        Args:
            at: what stands for a position -> the rows there.
            rows: how many are looked at for each position.
        """
        condition, params = _among(known, 2)
        columns = list(map(quote, self._catalog.columns(model)))
        text = model.expanded(self._catalog.known, self._window)
        table = self._keep(f"SELECT {', '.join(columns)}, 0::BIGINT AS _from, 0::BIGINT AS _to FROM ({text}\n) LIMIT 0")
        ends = [*positions[1:], EVER]
        some = max(1, _LOOKED_AT // max(1, rows))
        each = f"SELECT {', '.join(f'_row.{column}' for column in columns)}, _m._p, _m._end"
        moments = "(SELECT unnest(CAST($1 AS BIGINT[])) AS _p, unnest(CAST($2 AS BIGINT[])) AS _end) AS _m"
        select = f"{each} FROM {moments}, LATERAL (SELECT * FROM ({at('_m._p')}\n) WHERE {condition}) AS _row"
        for first in tqdm(range(0, len(positions), some), desc=f"history of {model.name}", delay=1, leave=False):
            given = [positions[first : first + some], ends[first : first + some], *params]
            try:
                self._run(f"INSERT INTO {table} {select}", given)
            except QueryFailed:  # a SELECT that DuckDB cannot put behind another one is asked by itself
                for position, end in zip(given[0], given[1], strict=True):
                    own, values = _among(known)
                    one = f"SELECT {', '.join(columns)}, {position}, {end} FROM ({at(str(position))}\n) WHERE {own}"
                    self._run(f"INSERT INTO {table} {one}", values)
        return self._together(model, table)

    def _together(self, model: ReadModel, table: str) -> str:
        """Versions of rows, those put together that follow each other and say the same."""
        columns = ", ".join(map(quote, self._catalog.columns(model)))
        same_key = f"PARTITION BY {', '.join(map(quote, model.keys))}"
        in_order = f"({same_key} ORDER BY _from)"
        other = (
            f"row({columns}) IS DISTINCT FROM lag(row({columns})) OVER {in_order} OR _from <> lag(_to) OVER {in_order}"
        )
        first = f"SELECT *, ({other}) AS _is_first FROM {table}"
        run = f"SELECT *, count(*) FILTER (_is_first) OVER {in_order} AS _run FROM ({first})"
        whole = f"SELECT *, max(_to) OVER ({same_key}, _run) AS _until FROM ({run})"
        return self._keep(f"SELECT {columns}, _from, _until AS _to FROM ({whole}) WHERE _is_first")

    def _past(self, model: ReadModel, position: str) -> str:
        return model.expanded(self._catalog.known, self._catalog.window(0, position))

    def _positions(self, model: ReadModel) -> list[int]:
        """All positions at which something was appended that a read model reads."""
        models = [self._catalog.known[name.lower()] for name in self._catalog.below(model)]
        tables = {s.name.lower() for m in models for s in m.sources() if names_events(s.name)}
        each = " UNION ".join(f"SELECT position FROM {quote(t)} WHERE position <= {self._head}" for t in sorted(tables))
        return [p for (p,) in self._run(f"SELECT position FROM ({each}) ORDER BY position")]


def _narrowing(shape: Shape, use: Use) -> Iterator[tuple[str, Use, Node]]:
    """Yield columns of a place, each with another place that needs only rows where an expression has one of its values.

    These are the equalities of joins; a row on the left of a LEFT JOIN goes on without its partner, so nothing on the
    right narrows it.
    """
    for condition in shape.conditions:
        if not condition.is_equality or use.number not in condition.uses or len(condition.uses) != 2:
            continue
        other = shape.use(next(number for number in condition.uses if number != use.number))
        if not set(condition.scope) <= set(other.optional):
            continue
        sides = [condition.expression["left"], condition.expression["right"]]
        one, two = sides if sides[0]["column_names"][0] == use.alias else reversed(sides)
        is_plain = all(len(side["column_names"]) == 2 for side in sides)
        if is_plain and one["column_names"][0] == use.alias and two["column_names"][0] == other.alias:
            yield one["column_names"][1], other, two


def _is_one_of(text: str, values: list[Any], after: int) -> tuple[str, list[Any]]:
    """The condition that an expression has one of some values, NULL among them, and the values."""
    there = [value for value in values if value is not None]
    marks = ", ".join(f"${after + n}" for n in range(1, len(there) + 1))
    parts = [f"({text}) IN ({marks})"] if there else []
    parts += [f"({text}) IS NULL"] if len(there) < len(values) else []
    return f"({' OR '.join(parts)})" if parts else "false", there


def _among(known: Known, after: int = 0) -> tuple[str, list[Any]]:
    """The condition that columns have one of their values, and the values; a mark may stand in several places."""
    parts: list[str] = []
    params: list[Any] = []
    for column, values in known.items():
        condition, there = _is_one_of(quote(column), values, after + len(params))
        parts.append(condition)
        params += there
    return " AND ".join(parts) or "true", params
