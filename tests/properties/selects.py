"""Made-up read models: one integer seed gives one whole case, the same in every process.

Owns the generator and what it gives: a domain, SELECTs over its events and over each other, and a history in steps.
Pure: it opens no lab and asks no clock. What it must keep by construction: rows are unique by the declared key, every
order is total, and sums are of exact numbers, so that each SELECT is a function of the events.

Most cases hold no hazard; the others hold exactly one, named in `HAZARDS`. A hazard is something that an engine easily
gets wrong, so that a disagreement found in such a case names its kind. Everything else that is listed in the recipes
below may come in any case.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import nested
from cases import (
    ALIASES,
    COLUMNS,
    DEFAULT,
    HOSTILE,
    KINDS,
    MODELS,
    MONEY,
    NUMBERS,
    TEXTS,
    UNLIKE,
    Case,
    Column,
    Fact,
    Item,
    Model,
    Place,
    Step,
    Table,
    ident,
    names_of,
)

HAZARDS = {
    "": 66,
    "self-join": 6,  # a layer read in two places
    "outer-join ghost": 8,  # an inner join behind a left join, whose condition reads what that may lack
    "NULL key": 4,
    "column name": 5,  # columns, fields, aliases and models with names that an engine may use itself
    "case of names": 4,  # written in another case where they are used, and by the next release
    "collation": 4,
    "reopened store": 6,  # by a domain that declares a part of the read models
    "apart": 6,  # layers moved to different positions
}
"""Hazard -> its weight."""


def case_of(seed: int) -> Case:
    """Return the case of a seed."""
    return _Maker(seed).case()


class _Maker:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.hazard = self.rng.choices([*HAZARDS], [*HAZARDS.values()])[0]
        self.naming = self.rng.randint(0, len(HOSTILE)) if self.hazard == "column name" else 0
        self.names = names_of(self.naming)
        self.texts = UNLIKE if self.hazard == "collation" else TEXTS
        self.features: set[str] = set()
        self.withs: list[str] = []  # what the WITH of the read model names
        self.has_null = False  # whether a read model has NULL in its key

    # -- small choices ---------------------------------------------------------------------------------------------

    def chance(self, part: float) -> bool:
        return self.rng.random() < part

    def one(self, of: Sequence[Any]) -> Any:
        return of[self.rng.randrange(len(of))]

    def word(self) -> str:
        return f"'{self.one(self.texts)}'"

    def spelled(self, name: str) -> str:
        """A name as it is written where it is used."""
        if self.hazard == "case of names" and self.chance(0.4):
            self.features.add("case of names")
            return name.swapcase()
        return name

    def ref(self, place: Place, column: str) -> str:
        return f"{ident(self.spelled(place.alias))}.{ident(self.spelled(column))}"

    # -- the case --------------------------------------------------------------------------------------------------

    def case(self) -> Case:
        rng = self.rng
        categories = ("a", "b", "c")[: rng.choice([2] if self.hazard == "outer-join ghost" else [1, 2, 2, 3])]
        if self.hazard == "case of names" and self.chance(0.1):
            categories = tuple(name.upper() for name in categories)
        elif self.naming and self.chance(0.3):
            categories = ("select", "new", "old")[: len(categories)]
        is_apart = self.hazard == "apart"
        self.tables = [self.events(category) for category in categories]
        self.layers: list[Table] = []
        models = [self.model(number) for number in range(rng.choice([3, 4] if is_apart else [2, 3, 3, 4, 4, 5]))]
        count = len(models)
        size = rng.choice([3, 3, 4, 5])
        steps = tuple(self.step(categories, count, is_first=number == 0) for number in range(size))
        late = [self.fact(categories, what="Made") for _ in range(4)]
        is_file = self.hazard == "reopened store" or (self.hazard == "case of names" and self.chance(0.5))
        ends = frozenset(end for end, part in {"fork": 0.25, "inline": 0.3, "diff": 0.6}.items() if self.chance(part))
        return Case(
            seed=self.seed,
            hazard=self.hazard,
            naming=self.naming,
            categories=categories,
            models=tuple(models),
            steps=steps,
            born=rng.choice([0, 0, 1, 1, 2]),
            is_inline=self.chance(0.12) and not is_apart,
            is_file=is_file or self.chance(0.04),
            known=self.known(models),
            late=tuple(late),
            ends=ends,
        )

    def known(self, models: list[Model]) -> tuple[int, ...]:
        """Some of the models, or those that others read."""
        if self.chance(0.8):
            return tuple(n for n, m in enumerate(models) if any(m.name in other.reads for other in models))
        return tuple(sorted(self.rng.sample(range(len(models)), self.rng.randint(0, len(models) - 1))))

    def events(self, category: str) -> Table:
        columns = {name: Column(KINDS[f], null=f not in ("k", "tags")) for f, name in self.names.items()}
        columns |= {"type": Column("text", null=False), "version": Column("int", null=False)}
        return Table(f"{category}_events", columns, ("position",), is_events=True)

    def step(self, categories: Sequence[str], models: int, *, is_first: bool) -> Step:
        rng = self.rng
        # Few facts leave the other side of a self-join alone; several can be moved over in part.
        least, most = 3 if self.hazard == "apart" else 1, 2 if self.hazard == "self-join" else 4
        facts = tuple(self.fact(categories) for _ in range(rng.randint(3, 4) if is_first else rng.randint(least, most)))
        order = list(range(models))
        rng.shuffle(order)
        moves: tuple[tuple[int, float], ...] = ()
        if self.hazard == "apart":  # a layer to the head, then any to somewhere before it
            ahead = [(rng.randrange(min(2, models)), 1.0)]
            behind = [(rng.randrange(min(2, models - 1), models), rng.choice([0.34, 0.67])) for _ in range(2)]
            moves = tuple(ahead + behind)
        return Step(facts, moves, tuple(order) if self.chance(0.5) else (), rng.random())

    def fact(self, categories: Sequence[str], what: str = "") -> Fact:
        rng = self.rng
        number = rng.randrange(len(categories))
        if self.hazard == "outer-join ghost" and self.chance(0.3):
            number = 0  # so that a left join lacks something for some time
        what = what or rng.choices(["Made", "Changed", "Seen"], [7, 3, 1])[0]

        def maybe(values: Sequence[Any]) -> Any:
            return None if self.chance(0.2) else self.one(values)

        texts = (*self.texts, "v", "w") if self.hazard == "outer-join ghost" else self.texts
        drawn = {
            "ref": maybe(texts),
            "t": maybe(texts),
            "n": maybe(NUMBERS),
            "m": maybe(MONEY),
            "f": maybe((True, False)),
            "tags": tuple(self.one(self.texts) for _ in range(rng.choice([0, 1, 2, 3]))),
        }
        kept = {"Made": [*drawn], "Changed": ["t", "n"], "Seen": []}[what]
        fields = {self.names["k"]: self.one(self.texts[:3])} | {self.names[f]: drawn[f] for f in kept}
        return Fact(categories[number], f"{what}{number}", fields, rng.randrange(3))

    def model(self, number: int) -> Model:
        """Make a read model over what there is, and let later ones read it."""
        self.features, self.withs = set(), []
        recipes = {"group": 9, "rows": 7, "window": 2, "distinct": 1, "unnest": 1.5, "latest": 0.7, "union": 0.8}
        if self.hazard == "outer-join ghost" and self.chance(0.6):
            recipes = {"ghost": 1}
        elif number == 0:
            is_told = self.hazard in ("self-join", "collation", "reopened store", "apart", "column name")
            recipes = {"state": 1} if is_told else recipes | {"group": 16, "rows": 2, "state": 6}
        elif self.hazard == "self-join" and (number == 1 or self.chance(0.7)):
            recipes = {"lookup": 1} if number == 1 else {"group": 1, "rows": 1, "lookup": 4}
        elif self.hazard == "apart" and self.chance(0.6):
            recipes = {"state": 1} if number == 1 else {"group": 1, "rows": 1, "lookup": 3}
        elif self.hazard == "reopened store" and self.chance(0.7):
            recipes = {"lookup": 2, "group": 1}
        else:
            recipes |= {"lookup": 4, "state": 2, "nested": 5}
        recipe = self.rng.choices([*recipes], [*recipes.values()])[0]
        made: Model = getattr(self, f"_{recipe}")()
        name = f"m{number}"
        if self.hazard == "column name" and self.chance(0.4):
            name = f"{self.one(MODELS)}{number or ''}"
        elif self.hazard == "case of names":
            name = f"Model{number}"
        if self.chance(0.06):
            self.features.add("subquery")
            made = replace(made, wrap=self.one((
                "WITH w AS ({}) SELECT {names} FROM w", "SELECT {names} FROM ({}) AS s"
            )))  # fmt: skip
        if self.withs:
            made = replace(made, wrap=f"WITH {', '.join(self.withs)} {made.wrap.replace('WITH w AS', ', w AS')}")
            made = replace(made, wrap=made.wrap.replace(" , w AS", ", w AS"))
        key = made.key
        if self.hazard == "case of names" and self.chance(0.3):
            self.features.add("case of names")
            key = tuple(part.swapcase() for part in key)
        reads = tuple(t.name for t in [*self.tables, *self.layers] if t in self.read)
        made = replace(made, name=name, key=key, reads=reads, features=frozenset(self.features | {recipe}))
        columns = {item.name: item.column for item in made.items}
        self.layers.append(Table(name, columns, made.key, is_events=False))
        return made

    # -- FROM ------------------------------------------------------------------------------------------------------

    def table(self, *, layers: bool = True) -> Table:
        """Something to read, layers that nobody read yet first."""
        if layers and self.layers and self.chance(0.55):
            return self.layers[-1] if self.chance(0.5) else self.one(self.layers)
        return self.one(self.tables)

    def place(self, table: Table, number: int, *, is_optional: bool = False) -> Place:
        self.read.append(table)
        alias = f"{'xyz'[number]}"
        if self.hazard == "column name" and self.chance(0.3):
            alias = f"{self.one(ALIASES)}{number or ''}"
        return Place(table, alias, is_optional)

    def source(self, most: int = 3, *, events_only: bool = False) -> tuple[list[Place], str]:
        """Return places and the FROM that joins them."""
        self.read: list[Table] = []
        count = self.rng.choices(range(1, most + 1), [5, 4, 3][:most])[0]
        wants_twice = self.hazard == "self-join" and self.layers and most > 1 and self.chance(0.75)
        is_chain = self.hazard == "outer-join ghost" and most > 2 and self.chance(0.8)
        count = 3 if is_chain else max(count, 2) if wants_twice else count
        first = self.one(self.layers) if wants_twice else self.table(layers=not events_only)
        places = [self.place(first, 0)]
        text = f"FROM {self.written(places[0])}"
        for number in range(1, count):
            table = self.table()
            if wants_twice and number == count - 1:
                table = first
                self.features.add("self-join")
            elif not table.is_events and table in self.read:
                if self.hazard != "self-join":
                    table = self.one(self.tables)
                else:
                    self.features.add("self-join")
            is_left = number == 1 if is_chain else self.chance(0.45)
            place = self.place(table, number, is_optional=is_left)
            text += f" {'LEFT JOIN' if is_left else 'JOIN'} {self.written(place)}"
            text += self.condition(place, places, is_left, is_chain and number == 2)
            places.append(place)
        if len(places) > 1:
            self.features.add("join")
        return places, text

    def written(self, place: Place) -> str:
        name = self.spelled(place.table.name)
        if self.chance(0.09) and self.hazard not in ("column name", "case of names", "collation"):
            return nested.written(self, place, name)
        return f"{ident(name)} AS {ident(place.alias)}" if self.chance(0.9) else f"{ident(name)} {ident(place.alias)}"

    def condition(self, place: Place, earlier: list[Place], is_left: bool, is_chain: bool) -> str:
        sure = [p for p in earlier if not p.is_optional]
        with_whom = earlier if is_left else sure
        other = self.one(with_whom)
        parts = []
        if is_chain:
            self.features.add("outer-join ghost")
            lacking = next(p for p in earlier if p.is_optional)
            kind, mine = self.pick(place, ("text", "int"))
            one, two = self.pick_of(lacking, kind), self.pick_of(self.one(sure), kind)
            chosen = self.one(["coalesce({b}, {a}) = {c}", "{c} IS NOT DISTINCT FROM {b}", "{c} = coalesce({b}, {a})",
                               "{c} = {a} AND ({b} IS NULL OR {b} = {c})"])  # fmt: skip
            return " ON " + chosen.format(a=two, b=one, c=mine)
        common = [c for c, column in place.table.columns.items() if column.kind in ("text", "int")
                  and len(earlier) == 1
                  and earlier[0].table.columns.get(c, Column("")).kind == column.kind]  # fmt: skip
        if common and self.chance(0.12):
            self.features.add("USING")
            return f" USING ({ident(self.one(common))})"
        kind, mine = self.pick(place, ("text", "text", "text", "int", "dec", "bool", "date"))
        theirs = self.pick_of(other, kind)
        how = self.rng.choices(["=", "expression", "distinct", "<", "or"], [60, 18, 10, 4, 3])[0]
        if how == "expression":
            self.features.add("ON an expression")
            side = self.one(["coalesce({}, {})".format("{}", DEFAULT.get(kind, "'x'")),
                             {"text": "upper({})", "int": "{} + 1", "dec": "{} * 2"}.get(kind, "({})")])  # fmt: skip
            theirs = side.format(theirs)
            mine = side.format(mine) if self.chance(0.4) else mine
        left, right = (mine, theirs) if self.chance(0.5) else (theirs, mine)
        comparison = {"distinct": "IS NOT DISTINCT FROM", "<": "<="}.get(how, "=")
        parts.append(f"{left} {comparison} {right}")
        if how == "or":
            parts = [f"({parts[0]} OR {self.test(place)})"]
        if self.hazard == "collation" and kind == "text" and how == "=" and self.chance(0.3):
            self.features.add("collation")
            parts = [f"{left} COLLATE NOCASE = {right}"]
        while self.chance(0.2):
            more = self.one(["mine", "theirs", "both", "equal"])
            if more == "mine":
                parts.append(self.test(place))
            elif more == "theirs":
                parts.append(self.test(self.one(with_whom)))
            elif more == "both" and len(with_whom) > 1:
                one, two = self.rng.sample(with_whom, 2)
                kind, text = self.pick(one, ("text", "int"))
                parts.append(f"{text} {self.one(['=', '<>', '<=', 'IS NOT DISTINCT FROM'])} {self.pick_of(two, kind)}")
            else:
                kind, text = self.pick(place, ("text", "int"))
                parts.append(f"{text} {self.one(['=', '<=', 'IS NOT DISTINCT FROM'])} {self.pick_of(other, kind)}")
            self.features.add("ON more")
        return " ON " + " AND ".join(parts)

    # -- expressions -----------------------------------------------------------------------------------------------

    def pick(self, place: Place, kinds: Sequence[str]) -> tuple[str, str]:
        """A plain column of a place, of one of the kinds it has; its kind and text."""
        there = {column.kind for column in place.table.columns.values()}
        possible = [kind for kind in kinds if kind in there] or ["text"]
        kind = self.one(possible)
        return kind, self.pick_of(place, kind)

    def pick_of(self, place: Place, kind: str) -> str:
        """A column of a place as text of a kind; made of another one where there is none."""
        of = [c for c, column in place.table.columns.items() if column.kind == kind]
        if kind == "text" and place.table.is_events:
            of = [c for c in of if c not in ("type",)] or of
        if of:
            return self.ref(place, self.one(of))
        return DEFAULT.get(kind, "'x'")

    def other_than_key(self, place: Place, kind: str) -> str:
        """A column of a place that is no part of its key, where there is one of that kind."""
        keys = {part.lower() for part in place.table.key}
        of = [c for c, column in place.table.columns.items() if column.kind == kind and c.lower() not in keys]
        return self.ref(place, self.one(of)) if of and self.chance(0.7) else self.pick_of(place, kind)

    def test(self, place: Place) -> str:
        """A condition on one place alone."""
        kind, text = self.pick(place, ("text", "int", "bool", "dec"))
        if kind == "text":
            return self.one([f"{text} <> {self.word()}", f"{text} IN ({self.word()}, {self.word()})",
                             f"{text} IS NOT NULL", f"lower({text}) >= {self.word()}"])  # fmt: skip
        if kind == "int":
            return self.one([f"{text} > 0", f"{text} < 3", f"coalesce({text}, 1) <> 2", f"{text} IS NOT NULL"])
        if kind == "dec":
            return self.one([f"{text} > 0.75", f"{text} IS NOT NULL"])
        return self.one([text, f"{text} IS NOT TRUE", f"coalesce({text}, true)"])

    def expression(self, places: Sequence[Place], kinds: Sequence[str]) -> tuple[str, Column]:
        """An expression over one place, or now and then two."""
        place = self.one(places)
        usable = [kind for kind in kinds if any(c.kind == kind for c in place.table.columns.values())]
        if not usable:
            return f"{self.pick_of(place, 'text')}", Column("text")
        kind = self.one(usable)
        name = self.one([c for c, column in place.table.columns.items() if column.kind == kind])
        text, null = self.ref(place, name), place.table.columns[name].null or place.is_optional
        if self.chance(0.25):
            if kind == "text":
                other = self.pick_of(self.one(places), "text")
                how = self.one(["upper({})", "coalesce({}, 'x')", "{} || '!'", "other"])
                if how == "other":
                    return f"coalesce({text}, {other})", Column(kind)
                null = null and "coalesce" not in how
                return how.format(text), Column(kind, null)
            if kind == "int":
                how = self.one(["{} + 1", "coalesce({}, 0)", "{} % 2", "CASE WHEN {} > 1 THEN 7 ELSE 3 END"])
                return how.format(text), Column(kind, null and how.startswith("{"))
            if kind == "bool":
                return f"(NOT {text})", Column(kind, null)
        return text, Column(kind, null)

    def names_for(self, count: int, keys: Sequence[str] = ()) -> list[str]:
        """Names of columns, all different."""
        if self.hazard == "column name" and self.chance(0.75):
            self.features.add("column name")
            names = self.rng.sample(COLUMNS, count)
            if "rowid" not in names and self.chance(0.5):  # the name that every table has already
                names[-1] = "rowid"
            return names
        names = [*keys, "g", "h", "p", "q", "r", "s", "u", "v", "w", "c1", "c2", "c3"]
        return names[:count]

    def key_parts(self, places: Sequence[Place], count: int) -> tuple[list[tuple[str, Column]], list[str]]:
        """Expressions to group by, and the conditions that keep NULLs out of them."""
        sure = [p for p in places if not p.is_optional]
        parts, conditions = [], []
        for _ in range(count):
            chosen = places if self.chance(0.08) else sure
            if self.hazard == "NULL key" and not self.has_null and sure[0].table.is_events:
                self.has_null = True
                self.features.add("NULL key")
                parts.append((self.ref(sure[0], self.names[self.one(("ref", "t", "n", "f"))]), Column("text")))
                kind = KINDS[next(f for f, name in self.names.items() if parts[-1][0].endswith(ident(name)))]
                parts[-1] = (parts[-1][0], Column(kind))
                continue
            if self.chance(0.15) and any(p.table.is_events for p in sure):
                place = self.one([p for p in sure if p.table.is_events])
                parts.append((f"{self.ref(place, 'occurred_at')}::DATE", Column("date", null=False)))
                continue
            text, column = self.expression(chosen, ("text", "text", "text", "int", "bool"))
            if self.hazard == "collation" and column.kind == "text" and self.chance(0.3):
                self.features.add("collation")
                text = f"lower({text}) COLLATE NOCASE"
            if column.null and self.hazard == "NULL key" and self.chance(0.8):
                self.features.add("NULL key")
            elif column.null:
                if self.chance(0.5):
                    conditions.append(f"{text} IS NOT NULL")
                else:
                    text = f"coalesce({text}, {DEFAULT[column.kind]})"
                column = replace(column, null=False)
            parts.append((text, column))
        return parts, conditions

    def aggregate(self, places: Sequence[Place], *, by_position: bool) -> tuple[str, Column]:
        """One aggregate, or an expression over some, that does not depend on the order of rows."""
        kinds = ("text", "int", "int", "dec", "bool", "date")
        is_text = self.hazard == "collation" and self.chance(0.5)
        text, column = self.expression(places, ("text",) if is_text else kinds)
        number, exact = self.expression(places, ("int", "int", "dec"))
        exact = exact if exact.kind in ("int", "dec") else None
        options: list[tuple[str, Column]] = [
            ("count(*)", Column("int", null=False)),
            (f"count({text})", Column("int", null=False)),
            (f"min({text})", column),
            (f"max({text})", column),
            (f"count(DISTINCT {text})", Column("int", null=False)),
        ]
        if column.kind == "bool":
            options = [
                (f"bool_and({text})", Column("bool")),
                (f"bool_or({text})", Column("bool")),
                (f"count_if({text})", Column("int", null=False)),
            ]
        if exact:
            options += [
                (f"sum({number})", Column("sum")),
                (f"median({number})", Column("real")),
                (f"avg({number})", Column("real")),
                (f"coalesce(sum({number}), 0) + count(*)", Column("sum")),
                (f"max({number}) - min({number})", exact),
            ]
        if column.kind == "text":
            options += [(f"string_agg({text}, ',' ORDER BY {text})", Column("text")),
                        (f"list({text} ORDER BY {text})", Column("any"))]  # fmt: skip
            if self.hazard == "collation" and self.chance(0.7):
                self.features.add("collation")
                what = self.one(["min", "max", "count(DISTINCT"])
                options = [(f"{what}({text} COLLATE NOCASE)", column)]
                if "DISTINCT" in what:
                    options = [(f"count(DISTINCT {text} COLLATE NOCASE)", Column("int", null=False))]
        if by_position:
            position = self.ref(places[0], "position")
            options += 2 * [
                (f"arg_max({text}, {position})", column),
                (f"arg_min({text}, {position})", column),
                (f"max_by({text}, {position})", column),
                (f"list({text} ORDER BY {position})", Column("any")),
                (f"CASE WHEN max({position}) > 3 THEN 'late' ELSE 'early' END", Column("text", null=False)),
            ]
            if column.kind == "text":
                options.append((f"string_agg({text}, '/' ORDER BY {position})", Column("text")))
        chosen, column = self.one(options)
        if self.chance(0.2) and chosen.count("(") == 1 and chosen.endswith(")"):
            self.features.add("FILTER")
            return f"{chosen} FILTER (WHERE {self.test(self.one(places))})", replace(column, null=True)
        return chosen, replace(column, null=column.null or not chosen.startswith("count"))

    # -- recipes ---------------------------------------------------------------------------------------------------

    def where(self, places: Sequence[Place], conditions: Sequence[str], part: float = 0.25) -> str:
        found = [*conditions]
        if self.chance(part):
            found.append(self.test(self.one(places)))
            self.features.add("WHERE")
        if self.chance(0.03):
            self.features.add("subquery")
            other = self.one(self.tables)
            self.read.append(other)
            text = self.pick_of(places[0], "text")
            found.append(f"{text} IN (SELECT {ident(self.names['k'])} FROM {ident(other.name)})")
        return f" WHERE {' AND '.join(found)}" if found else ""

    def items(self, keys: Sequence[tuple[str, Column]], more: Sequence[tuple[str, Column]]) -> tuple[Item, ...]:
        names = self.names_for(len(keys) + len(more))
        return tuple(Item(text, name, column) for name, (text, column) in zip(names, [*keys, *more], strict=True))

    def _group(self) -> Model:
        """Rows grouped by their key."""
        is_alone = self.chance(0.25 if self.layers else 0.6)
        places, source = self.source(1 if is_alone else 3, events_only=is_alone)
        keys, conditions = self.key_parts(places, 1 if self.chance(0.75) else 2)
        by_position = len(places) == 1 and places[0].table.is_events
        more = [self.aggregate(places, by_position=by_position) for _ in range(self.rng.randint(1, 4))]
        items = self.items(keys, more)
        tail = f"{source}{self.where(places, conditions)} GROUP BY "
        # By number or expression, never by name: a source may have a column of that name.
        tail += ", ".join(str(n + 1) for n in range(len(keys))) if self.chance(0.4) else ", ".join(t for t, _ in keys)
        if self.chance(0.15):
            self.features.add("HAVING")
            tail += f" HAVING {self.one(['count(*) > 1', 'count(*) < 3', f'{more[0][0]} IS NOT NULL'])}"
        return Model("", tuple(item.name for item in items[: len(keys)]), items, tail)

    def _rows(self) -> Model:
        """Rows of a join, named by the keys of all its places."""
        places, source = self.source()
        keys: list[tuple[str, Column]] = []
        conditions = []
        for place in places:
            for part in place.table.key:
                column = Column("int", null=False) if part == "position" and place.table.is_events else (
                    next(c for name, c in place.table.columns.items() if name.lower() == part.lower())
                )  # fmt: skip
                text, null = self.ref(place, part), column.null or place.is_optional
                if null and self.hazard == "NULL key" and self.chance(0.8):
                    self.features.add("NULL key")
                elif null:
                    default = {"int": "-1", "text": "'-'", "date": "DATE '1999-01-01'"}.get(column.kind)
                    if default and self.chance(0.6):
                        # Not a value of it, or a row that lacks it would share its key.
                        text = f"coalesce({text}, {default})"
                    else:
                        conditions.append(f"{text} IS NOT NULL")
                    null = False
                keys.append((text, replace(column, null=null)))
        more = [self.expression(places, ("text", "int", "dec", "bool", "date")) for _ in range(self.rng.randint(1, 3))]
        if len(keys) + len(more) > 9:
            return self._group()
        items = self.items(keys, more)
        # A row that lacks a partner is one: its key is that of the others, where the partner is found by its whole key.
        return Model("", tuple(i.name for i in items[: len(keys)]), items, source + self.where(places, conditions))

    def _state(self) -> Model:
        """What is known of each thing: a layer as most stores have some."""
        places, source = self.source(1, events_only=True)
        key, ref, t, n = (self.ref(places[0], self.names[f]) for f in ("k", "ref", "t", "n"))
        position = self.ref(places[0], "position")
        text = Column("text")
        options = [
            (f"arg_max({ref}, {position})", text),
            (f"max({ref})", text),
            (f"max({t})", text),
            (f"arg_max({t}, {position})", text),
        ]
        if self.hazard == "collation":
            self.features.add("collation")
            options = [(f"{how}({what} COLLATE NOCASE)", text) for how in ("min", "max") for what in (ref, t)]
        more = [
            *self.rng.sample(options, self.rng.randint(1, 2)),
            *self.rng.sample([("count(*)", Column("int", null=False)), (f"max({n})", Column("int"))], 1),
        ]
        items = self.items([(key, Column("text", null=False))], more)
        tail = f"{source}{self.where(places, [], 0.1)} GROUP BY {key}"
        return Model("", (items[0].name,), items, tail)

    def _ghost(self) -> Model:
        """An inner join behind a left one, found by what the left join may lack."""
        self.read = []
        sources = [self.tables[0], self.tables[-1], self.tables[0]]
        if self.layers and self.chance(0.4):
            sources[0] = self.layers[0]
        x, y, z = (self.place(table, n, is_optional=n == 1) for n, table in enumerate(sources))
        self.features |= {"outer-join ghost", "join"}
        (mine,) = [self.ref(x, next(c for c in x.table.columns if c.lower() == x.table.key[0].lower()))
                   if not x.table.is_events else self.ref(x, self.names["k"])]  # fmt: skip
        theirs, last = self.ref(y, self.names[self.one(("ref", "t"))]), self.ref(z, self.names["k"])
        # Keys are text in events, and may be anything in layers.
        mine = mine if x.table.is_events else f"CAST({mine} AS VARCHAR)"
        how = self.one(["{z} = coalesce({y}, {x})", "coalesce({y}, {x}) = {z}",
                        "{z} IS NOT DISTINCT FROM coalesce({y}, {x})",
                        "({y} IS NULL AND {z} = {x} OR {z} = {y})"])  # fmt: skip
        source = (
            f"FROM {self.written(x)} LEFT JOIN {self.written(y)} ON {self.ref(y, self.names['k'])} = {mine} "
            f"JOIN {self.written(z)} ON {how.format(x=mine, y=theirs, z=last)}"
        )
        column = next((c for n, c in x.table.columns.items() if n.lower() == x.table.key[0].lower()), Column("text"))
        conditions = []
        if column.null and not x.table.is_events:
            conditions.append(f"{mine} IS NOT NULL")
        more = [("count(*)", Column("int", null=False)), self.aggregate([x, y, z], by_position=False)]
        items = self.items([(mine, Column("text", null=False))], more[: self.rng.randint(1, 2)])
        return Model("", (items[0].name,), items, f"{source}{self.where([x], conditions, 0.1)} GROUP BY {mine}")

    def _lookup(self) -> Model:
        """The rows of a layer with columns of others, found by their whole key."""
        self.read = []
        is_apart = self.hazard == "apart" and len(self.layers) > 1
        two = self.rng.sample(self.layers[:2], 2) if is_apart else []
        places = [self.place(two[0] if two else self.one(self.layers), 0)]
        text = f"FROM {self.written(places[0])}"
        for number in range(1, 2 if two else self.rng.choice([2, 2, 3])):
            table = two[1] if two else self.one(self.layers)
            if self.hazard == "self-join" and (number == 1 or self.chance(0.7)):
                table = places[0].table
            if table in self.read:
                if self.hazard != "self-join":
                    break
                self.features.add("self-join")
            place = self.place(table, number, is_optional=self.chance(0.8))
            sure = [p for p in places if not p.is_optional]
            equal = [f"{self.ref(place, name)} = {self.other_than_key(self.one(sure), table.columns[name].kind)}"
                     for part in table.key for name in table.columns if name.lower() == part.lower()]  # fmt: skip
            text += f" {'LEFT JOIN' if place.is_optional else 'JOIN'} {self.written(place)} ON {' AND '.join(equal)}"
            places.append(place)
        first = places[0]
        keys = [(self.ref(first, name), column) for part in first.table.key
                for name, column in first.table.columns.items() if name.lower() == part.lower()]  # fmt: skip
        kinds = ("text", "int", "dec", "bool", "date", "sum", "real")
        more = [self.expression([place], kinds) for place in [places[0], *places]]
        if any(column.null for _, column in keys):
            self.features.add("NULL key")
        items = self.items(keys, more)
        return Model("", tuple(i.name for i in items[: len(keys)]), items, text + self.where(places, [], 0.15))

    def _window(self) -> Model:
        """Rows of one source beside a window over them."""
        places, source = self.source(1)
        place = places[0]
        by, _ = self.expression(places, ("text", "int", "bool"))
        part = self.one([f"PARTITION BY {by}", f"PARTITION BY {by}", ""])
        number, exact = self.expression(places, ("int", "dec"))
        text, column = self.expression(places, ("text", "int"))
        options: list[tuple[str, Column]] = [
            (f"count(*) OVER ({part})", Column("int", null=False)),
            (f"max({text}) OVER ({part})", column),
            (f"rank() OVER ({part} ORDER BY {text})", Column("int", null=False)),
        ]
        if exact.kind in ("int", "dec"):
            options.append((f"sum({number}) OVER ({part})", Column("sum")))
        if place.table.is_events:
            order = f"{part} ORDER BY {self.ref(place, 'position')}"
            options += [
                (f"row_number() OVER ({order})", Column("int", null=False)),
                (f"lag({text}) OVER ({order})", column),
                (f"first_value({text}) OVER ({order})", column),
                (f"count({text}) OVER ({order} ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)", Column("int", null=False)),
                (f"lead({text}) OVER ({part} ORDER BY {text}, {self.ref(place, 'position')})", column),
            ]
            if exact.kind in ("int", "dec"):
                options.append((f"sum({number}) OVER ({order})", Column("sum")))
            keys = [(self.ref(place, "position"), Column("int", null=False))]
        else:
            keys = [(self.ref(place, p), c) for p in place.table.key
                    for n, c in place.table.columns.items() if n.lower() == p.lower()]  # fmt: skip
        conditions = []
        if any(column.null for _, column in keys):
            self.features.add("NULL key")
        more = [*self.rng.sample(options, self.rng.randint(1, 2)), self.expression(places, ("text", "int", "dec"))]
        items = self.items(keys, more)
        return Model("", tuple(i.name for i in items[: len(keys)]), items, source + self.where(places, conditions))

    def _latest(self) -> Model:
        """The latest event of each key, by QUALIFY."""
        places, source = self.source(1, events_only=True)
        keys, conditions = self.key_parts(places, 1)
        more = [self.expression(places, ("text", "int", "dec", "bool")) for _ in range(2)]
        items = self.items(keys, more)
        by = f"PARTITION BY {keys[0][0]} ORDER BY {self.ref(places[0], 'position')} DESC"
        tail = f"{source}{self.where(places, conditions)} QUALIFY row_number() OVER ({by}) = 1"
        return Model("", (items[0].name,), items, tail)

    def _distinct(self) -> Model:
        """The different values there are."""
        places, source = self.source(2)
        keys, conditions = self.key_parts(places, self.rng.randint(1, 2))
        items = self.items(keys, [])
        tail = source + self.where(places, conditions)
        return Model("", tuple(item.name for item in items), items, tail, head="SELECT DISTINCT")

    def _unnest(self) -> Model:
        """The items of the lists in events, grouped by item, and by a part of their event now and then."""
        places, source = self.source(1, events_only=True)
        keys: list[tuple[str, Column]] = [("tag", Column("text", null=False))]
        conditions: list[str] = []
        if self.chance(0.5):
            more_keys, conditions = self.key_parts(places, 1)
            keys += more_keys
        more = [self.aggregate(places, by_position=False) for _ in range(self.rng.randint(1, 2))]
        items = self.items(keys, more)
        tail = f"{source}, unnest({self.ref(places[0], self.names['tags'])}) AS u(tag){self.where(places, conditions)}"
        tail += f" GROUP BY {', '.join(text for text, _ in keys)}"
        return Model("", tuple(item.name for item in items[: len(keys)]), items, tail)

    def _nested(self) -> Model:
        """SELECTs inside SELECTs."""
        return nested.nested(self)

    def _union(self) -> Model:
        """Two groups under one another, told apart by a word."""
        self.read = []
        one, two = (self.place(self.one(self.tables), number) for number in (0, 1))
        names = self.names_for(3)
        columns = (Column("text", null=False), Column("text", null=False), Column("int", null=False))
        key = self.names["k"]
        items = tuple(
            Item(text, name, column)
            for text, name, column in zip(["'one'", self.ref(one, key), "count(*)"], names, columns, strict=True)
        )
        tail = (
            f"FROM {self.written(one)} GROUP BY {self.ref(one, key)} UNION ALL "
            f"SELECT 'two', {self.ref(two, key)}, count({self.ref(two, self.names['n'])}) "
            f"FROM {self.written(two)} GROUP BY {self.ref(two, key)}"
        )
        self.features.add("UNION")
        return Model("", (names[0], names[1]), items, tail)
