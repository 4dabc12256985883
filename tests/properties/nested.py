"""Made-up SELECTs inside SELECTs: subqueries in FROM, WITHs, subqueries in expressions, lateral ones.

Owns two things. A source may be written as a SELECT over it that has its columns and keeps its key, so that every
recipe meets subqueries. And there are recipes of their own, for SELECTs that put rows together before others look at
them.
"""

from __future__ import annotations

from typing import Any, Protocol

from cases import Column, Item, Model, Place, Table, ident


class Maker(Protocol):
    """What is drawn from: the maker of `selects`."""

    names: dict[str, str]
    features: set[str]
    withs: list[str]
    read: list[Table]
    tables: list[Table]
    rng: Any
    one: Any
    chance: Any
    test: Any
    pick_of: Any
    expression: Any
    items: Any


TEXT, COUNT, NUMBER = ("text", True), ("int", False), ("int", True)


def written(maker: Maker, place: Place, plain: str) -> str:
    """Return a source of FROM as a subquery or a WITH that gives the same columns, and perhaps fewer rows."""
    maker.features.add("subquery")
    inner = Place(place.table, "q")
    table = ident(place.table.name)
    every = ", ".join(_all(place.table))
    where = f" WHERE {maker.test(inner)}"
    other = maker.one(maker.tables)
    one, two = maker.pick_of(inner, "text"), f"o.{ident(maker.names[maker.one(('k', 'ref', 't'))])}"
    key = [f"q.{ident(part)}" for part in place.table.key]
    by = maker.expression([inner], ("text", "int", "bool"))[0]
    order = ", ".join(key)
    ways = {
        f"SELECT * FROM {table} AS q": 2,
        f"SELECT * FROM {table} AS q{where}": 4,
        f"SELECT {every} FROM {table} AS q{where}": 3,
        f"SELECT q.* FROM {table} AS q WHERE {one} IN (SELECT {two} FROM {ident(other.name)} AS o)": 2,
        f"SELECT * FROM {table} AS q WHERE EXISTS (SELECT 1 FROM {ident(other.name)} AS o WHERE {two} = {one})": 2,
        f"SELECT * FROM {table} AS q WHERE {one} NOT IN (SELECT {two} FROM {ident(other.name)} AS o "
        f"WHERE {two} IS NOT NULL)": 1,
        f"SELECT * FROM {table} AS q WHERE (SELECT count(*) FROM {ident(other.name)} AS o WHERE {two} = {one}) < 2": 2,
        f"SELECT * FROM (SELECT * FROM {table} AS q{where}) AS p": 2,
        f"SELECT * EXCLUDE (rn) FROM (SELECT *, row_number() OVER (PARTITION BY {by} ORDER BY {order}) AS rn "
        f"FROM {table} AS q) WHERE rn < 3": 3,
        f"SELECT * FROM {table} AS q QUALIFY row_number() OVER (PARTITION BY {by} ORDER BY {order} DESC) = 1": 2,
    }
    if "list" not in {column.kind for column in place.table.columns.values()}:
        ways[f"SELECT DISTINCT * FROM {table} AS q"] = 2
    select = maker.rng.choices([*ways], [*ways.values()])[0]
    if f" {ident(other.name)} AS o" in select:
        maker.read.append(other)
    if maker.chance(0.5):
        return f"({select}) AS {ident(place.alias)}"
    name = f"w{len(maker.withs) + 1}"
    maker.withs.append(f"{name} AS {maker.one(['', '', 'MATERIALIZED ', 'NOT MATERIALIZED '])}({select})")
    return f"{name} AS {ident(place.alias)}"


def _all(table: Table) -> list[str]:
    names = [*table.columns]
    if table.is_events:
        names += ["position", "occurred_at"]
    return [f"q.{ident(name)}" for name in names]


def nested(maker: Maker) -> Model:
    """Return a SELECT over SELECTs that put rows together."""
    a, b = (maker.one(maker.tables) for _ in range(2))
    maker.read = [a, b]
    maker.features.add("subquery")
    of = {f: ident(name) for f, name in maker.names.items()}
    k, ref, t, n, tags = of["k"], of["ref"], of["t"], of["n"], of["tags"]
    one, two = ident(a.name), ident(b.name)
    test = maker.one(["", f" WHERE {n} > 0", f" WHERE {t} <> 'x'", f" WHERE {ref} IS NOT NULL"])
    by = maker.one([k, ref, f"coalesce({ref}, {k})", f"upper({k})"])
    column = maker.one([k, k, ref])
    # name -> (key, text of key, other columns, FROM and what follows, WITH)
    recipes: dict[str, tuple[str, list[tuple[str, tuple[str, bool]]], str, str]] = {
        "group of groups": (
            "s.g",
            [("count(*)", COUNT), ("sum(s.c)", ("sum", True)), ("max(s.m)", NUMBER)],
            f"FROM (SELECT {by} AS g, {ref} AS r, count(*) AS c, max({n}) AS m FROM {one}{test} GROUP BY ALL) AS s "
            "WHERE s.g IS NOT NULL GROUP BY s.g",
            "",
        ),
        "by what a group chose": (
            "s.r",
            [("count(*)", COUNT), ("min(s.k)", TEXT)],
            f"FROM (SELECT {k} AS k, arg_max({ref}, position) AS r FROM {one} GROUP BY {k}) AS s "
            "WHERE s.r IS NOT NULL GROUP BY 1",
            "",
        ),
        "two groups side by side": (
            "p.k",
            [("p.c", COUNT), ("q.m", TEXT), ("coalesce(q.c, 0)", COUNT)],
            "FROM p LEFT JOIN q ON q.k = p.k",
            f"WITH p AS (SELECT {k} AS k, count(*) AS c FROM {one}{test} GROUP BY 1), "
            f"q AS (SELECT {ref} AS k, max({t}) AS m, count(*) AS c FROM {two} GROUP BY ALL) ",
        ),
        "running, then grouped": (
            "s.k",
            [("max(s.run)", COUNT), ("min(s.before)", TEXT)],
            f"FROM (SELECT {k} AS k, count({n}) OVER w AS run, lag({t}) OVER w AS before FROM {one}{test} "
            f"WINDOW w AS (PARTITION BY {column} ORDER BY position)) AS s GROUP BY s.k",
            "",
        ),
        "beside a total": (
            "x.k",
            [("count(*)", COUNT), ("max(total.m)", NUMBER), ("max(total.c)", COUNT)],
            "FROM x, total GROUP BY x.k",
            f"WITH total AS (SELECT max({n}) AS m, count(*) AS c FROM {two}{test}), "
            f"x AS (SELECT {k} AS k, {n} AS n FROM {one}) ",
        ),
        "one WITH twice": (
            "x.k",
            [("count(y.r)", COUNT), ("max(y.n)", NUMBER)],
            f"FROM w AS x LEFT JOIN w AS y ON y.{maker.one(['r', 'k'])} = x.{maker.one(['r', 'k'])} GROUP BY x.k",
            f"WITH w AS (SELECT {k} AS k, {ref} AS r, {n} AS n FROM {one}{test}) ",
        ),
        "lateral": (
            f"x.{k}",
            [("sum(s.c)", ("sum", True)), ("count(*)", COUNT)],
            f"FROM {one} AS x, (SELECT count(*) AS c FROM {two} AS q WHERE q.{k} = x.{ref}) AS s GROUP BY x.{k}",
            "",
        ),
        "left lateral": (
            "coalesce(s.r, '-')",
            [("count(*)", COUNT), ("max(s.n)", NUMBER)],
            f"FROM {one} AS x LEFT JOIN LATERAL (SELECT x.{ref} AS r, q.{n} AS n FROM {two} AS q "
            f"WHERE q.{k} = x.{ref}) AS s ON true GROUP BY 1",
            "",
        ),
        "a flag that may lack": (
            "coalesce(s.flag, 0)",
            [("count(*)", COUNT), (f"max(x.{t})", TEXT)],
            f"FROM {one} AS x LEFT JOIN (SELECT DISTINCT {k} AS k, 1 AS flag FROM {two}{test}) AS s "
            f"ON s.k = x.{ref} GROUP BY 1",
            "",
        ),
        "a value for each group": (
            f"x.{k}",
            [("count(*)", COUNT), (f"(SELECT count(*) FROM {two} AS q WHERE q.{ref} = x.{k})", COUNT)],
            f"FROM {one} AS x GROUP BY x.{k}",
            "",
        ),
        "a value for all": (
            f"x.{k}",
            [("count(*)", COUNT), (f"count(*) FILTER (WHERE x.{n} >= (SELECT max(q.{n}) FROM {two} AS q))", COUNT)],
            f"FROM {one} AS x GROUP BY x.{k}",
            "",
        ),
        "items": (
            "s.tag",
            [("count(*)", COUNT), ("max(s.k)", TEXT)],
            f"FROM (SELECT {k} AS k, unnest({tags}) AS tag FROM {one}{test}) AS s GROUP BY s.tag",
            "",
        ),
        "items that meet": (
            "x.tag",
            [("count(*)", COUNT), ("count(y.k)", COUNT)],
            "FROM w AS x JOIN w AS y ON y.tag = x.tag GROUP BY x.tag",
            f"WITH w AS (SELECT {k} AS k, unnest({tags}) AS tag FROM {one}) ",
        ),
        "pairs of items": (
            "x.tag",
            [("count(*)", COUNT), ("max(y.k)", TEXT)],
            "FROM w AS x, w AS y WHERE x.k = y.k GROUP BY x.tag",
            f"WITH w AS (SELECT {k} AS k, unnest({tags}) AS tag FROM {one}) ",
        ),
        "list of a subquery": (
            "u.tag",
            [("count(*)", COUNT), ("max(s.k)", TEXT)],
            f"FROM (SELECT {k} AS k, {tags} AS list FROM {one}{test}) AS s, unnest(s.list) AS u(tag) GROUP BY u.tag",
            "",
        ),
        "chosen, then joined": (
            "s.k",
            [("max(s.r)", TEXT), (f"count(y.{t})", COUNT)],
            f"FROM (SELECT {k} AS k, arg_max({ref}, position) AS r FROM {one} GROUP BY ALL HAVING count(*) > 1) AS s "
            f"JOIN {two} AS y ON y.{k} = {maker.one(['s.k', 's.r'])} GROUP BY s.k",
            "",
        ),
        "a left join inside": (
            "s.k",
            [("count(*)", COUNT), ("max(s.t)", TEXT)],
            f"FROM (SELECT x.{k} AS k, y.{t} AS t, y.{k} AS r FROM {one} AS x LEFT JOIN {two} AS y ON y.{k} = x.{ref}) "
            f"AS s {maker.one(['', 'WHERE s.r IS NOT NULL ', 'WHERE s.t = s.r ', 'WHERE s.r = s.k '])}GROUP BY s.k",
            "",
        ),
        "named by what may lack": (
            "coalesce(s.r, '-')",
            [("count(*)", COUNT)],
            f"FROM (SELECT x.{k} AS k, y.{k} AS r FROM {one} AS x LEFT JOIN {two} AS y ON y.{ref} = x.{ref}) AS s "
            "GROUP BY 1",
            "",
        ),
    }
    name = maker.one([*recipes])
    key, more, tail, head = recipes[name]
    maker.features.add(name)
    some: list[tuple[str, Any]] = maker.rng.sample(more, maker.rng.randint(1, len(more)))
    items: tuple[Item, ...] = maker.items(
        [(key, Column("text", null=False))], [(text, Column(kind, null=null)) for text, (kind, null) in some]
    )
    if key == "coalesce(s.flag, 0)":
        first = items[0]
        items = (Item(first.text, first.name, Column("int", null=False)), *items[1:])
    return Model("", (items[0].name,), items, tail, head=f"{head}SELECT")
