"""Scopes: what the names of a SELECT, and of those inside it, mean in the tables that all of them read.

Owns names. A subquery or a WITH is followed to its sources: its column is an expression over them where every row that
they make together has one value of it. Where it puts rows together, only what it groups by has; where a window looks at
other rows, only what all windows are partitioned by has; where it makes one row of all, nothing has.

Every expression is returned in full names (see `cqrs_lab.ivm.reading`), so that it means the same in another FROM.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from cqrs_lab.ivm.reading import CannotPlan, Reading, Source, Unnest, column_of, makes_rows
from cqrs_lab.sql.parse import (
    Node,
    arguments_of,
    conjuncts,
    equality,
    is_aggregate,
    item_name,
    lambda_names,
    left_out_of,
    nodes,
    own_nodes,
    same,
    syntax_text,
    syntax_tree,
)
from cqrs_lab.sql.places import places
from cqrs_lab.sql.withs import Known, known_in


def read(sql: str, tree: Node, columns_of: Callable[[str], Iterable[str]]) -> tuple[Reading, list[Scope]]:
    """Return what a SELECT reads, and its scopes, the outermost first.

    Args:
        sql: its text.
        tree: its parse.
        columns_of: name of a source, in lower case -> its columns, in order.

    Raises:
        CannotPlan: something in it is not a SELECT over tables, inner and left joins, and unnest.
    """
    reading = Reading(sql, columns_of)
    scopes: list[Scope] = []
    reading.taken |= lambda_names(tree)
    Scope(reading, scopes, tree, (), None, {})
    if not reading.uses:
        raise CannotPlan("it reads no events")
    if {place.number for place in places(sql)} - {use.place for use in reading.uses}:
        raise CannotPlan("it has a WITH that nothing reads; leave that out")
    return reading, scopes


class Scope:
    """One SELECT: what its FROM names, and what its own columns stand for.

    Args:
        reading: what is read altogether.
        scopes: those of all SELECTs, the outermost first.
        select: its parse.
        within: what lets rows go on without those of this SELECT, outermost first.
        parent: the SELECT around it, whose columns it may name.
        known: the names that WITHs around it give, in lower case.
    """

    def __init__(
        self,
        reading: Reading,
        scopes: list[Scope],
        select: Node,
        within: tuple[int, ...],
        parent: Scope | None,
        known: Known,
    ) -> None:
        if select["type"] == "RECURSIVE_CTE_NODE":
            raise CannotPlan("it has a recursive WITH")
        if select["type"] != "SELECT_NODE":
            raise CannotPlan("it has UNION, EXCEPT or INTERSECT; make each of their SELECTs a read model of its own")
        if len(select["group_sets"]) > 1:
            raise CannotPlan("it has grouping sets")
        self.select, self._reading, self._scopes, self._parent = select, reading, scopes, parent
        self._known = known_in(select, known)
        self.sources: list[Source] = []
        self.windows = [node for node in own_nodes(select) if node.get("class") == "WINDOW"]
        is_any = any(is_aggregate(node) for node in own_nodes([select["select_list"], select["having"]]))
        self.is_grouped = bool(select["group_expressions"]) or select["aggregate_handling"] != "STANDARD_HANDLING"
        self.is_one_row = is_any and not select["group_expressions"] and (not self.is_grouped or self._has_no_groups())
        self.is_grouped |= is_any
        self.within = (*within, reading.optional()) if self.is_one_row and scopes else within
        scopes.append(self)
        self._read(select["from_table"], self.within)
        for conjunct in conjuncts(select["where_clause"]):
            self._demand(conjunct, self.within, None)
        self._read_expressions()

    def _has_no_groups(self) -> bool:
        """Whether GROUP BY ALL finds nothing to group by."""
        return all(any(is_aggregate(node) for node in own_nodes(item)) for item in self.select["select_list"])

    @property
    def is_plain(self) -> bool:
        """Whether it gives one row for each row of its FROM and WHERE, and looks at no other."""
        select = self.select
        is_distinct = any(modifier["type"] != "ORDER_MODIFIER" for modifier in select["modifiers"])
        return not (self.is_grouped or self.windows or select["qualify"] or select["having"] or is_distinct)

    # -- FROM ------------------------------------------------------------------------------------------------------

    def _read(self, source: Node, within: tuple[int, ...]) -> None:
        kind = source["type"]
        if kind == "BASE_TABLE":
            self._table(source, within)
        elif kind == "SUBQUERY":
            self._inner(source["subquery"]["node"], source["alias"], source["column_name_alias"], within, self)
        elif kind == "JOIN":
            self._join(source, within)
        elif kind == "TABLE_FUNCTION" and source["function"]["function_name"].lower() == "unnest":
            self._list(source, within)
        elif kind != "EMPTY":
            raise CannotPlan(f"it reads a {kind.lower().replace('_', ' ')}")

    def _table(self, source: Node, within: tuple[int, ...]) -> None:
        alias = source["alias"] or source["table_name"]
        common = self._known.get(source["table_name"].lower())
        if common is not None:
            names = source["column_name_alias"] or common.columns
            self._inner(common.node, alias, names, within, None, common.known)
            return
        if source["column_name_alias"]:
            raise CannotPlan("it renames the columns of a source")
        use = self._reading.use(source, within)
        names = tuple(name.lower() for name in self._reading.columns_of(use.name))
        self.sources.append(Source(alias, names, use.alias))

    def _inner(
        self,
        node: Node,
        alias: str,
        names: list[str],
        within: tuple[int, ...],
        parent: Scope | None,
        known: Known | None = None,
    ) -> None:
        inner = Scope(self._reading, self._scopes, node, within, parent, self._known if known is None else known)
        columns = inner.columns()
        if names:
            if any(item["class"] == "STAR" for item in node["select_list"]):
                raise CannotPlan("it renames the columns of a SELECT *")
            found = [columns.get(item_name(item).lower()) for item in node["select_list"]]
            rest = {name: columns[name] for name in list(columns)[len(names) :]}
            columns = {name.lower(): column for name, column in zip(names, found, strict=False)} | rest
        if within != self.within:
            # A row without a partner has NULL in all of them, also in what does not come from the partner itself.
            places = {use.number for use in self._reading.uses if set(within) <= set(use.optional)}
            columns = {n: c if c and self._reading.uses_of(c) & places else None for n, c in columns.items()}
        self.sources.append(Source(alias, tuple(columns), None, columns))

    def _join(self, source: Node, within: tuple[int, ...]) -> None:
        kind, how = source["join_type"], source["ref_type"]
        if kind not in ("INNER", "LEFT") or how not in ("REGULAR", "CROSS", "NATURAL"):
            words = f"{how} {kind}".lower().removeprefix("regular ")
            article = "an" if words[0] in "aeiou" else "a"
            raise CannotPlan(f"it has {article} {words} join; write it as an inner or a left join")
        if how == "NATURAL":
            raise CannotPlan("it has a natural join, which new columns change; say USING")
        left = self._reading.optional(is_join=True) if kind == "LEFT" else None
        first = len(self.sources)
        self._read(source["left"], within)
        middle = len(self.sources)
        self._read(source["right"], within if left is None else (*within, left))
        for conjunct in conjuncts(source["condition"]):
            self._demand(conjunct, within, left)
        for column in source["using_columns"]:
            sides = (self.sources[first:middle], self.sources[middle:])
            having = [next((one for one in side if one.has(column)), None) for side in sides]
            with suppress(CannotPlan):
                one, two = (side.meaning([column]) for side in having if side is not None)
                self._reading.demand(equality(one, two), within, left)

    def _demand(self, condition: Node, within: tuple[int, ...], left: int | None) -> None:
        with suppress(CannotPlan):
            self._reading.demand(self.full(condition, is_item=True), within, left)

    def _list(self, source: Node, within: tuple[int, ...]) -> None:
        reading = self._reading
        is_optional = within != self.within
        reading.has_lists, reading.has_optional_lists = True, reading.has_optional_lists or is_optional
        alias = source["alias"] or "unnest"
        names = tuple(name.lower() for name in source["column_name_alias"] or ["unnest"])
        arguments = source["function"]["arguments"]
        lost = Source(alias, (*names, alias.lower()))
        try:
            whole = [argument | {"expression": self.full(argument["expression"])} for argument in arguments]
        except CannotPlan:
            self.sources.append(lost)
            return
        owners = {owner for argument in whole for owner in reading.uses_of(argument["expression"])}
        if is_optional or len(arguments) != 1 or arguments[0]["name"] or len(owners) != 1 or makes_rows(whole):
            self.sources.append(lost)
            return
        over = reading.unnests_of(whole[0]["expression"])
        full = reading.alias(alias)
        edited = copy.deepcopy(source) | {"alias": full}
        edited["function"]["arguments"] = whole
        # Of FROM only this; the rest of the SELECT is put round it later.
        text = syntax_text(syntax_tree("SELECT 1 FROM t") | {"from_table": edited}).split(" FROM ", 1)[1]
        reading.unnests[full.lower()] = Unnest(text, full, owners.pop(), over)
        self.sources.append(Source(alias, names, full))

    # -- subqueries in expressions ---------------------------------------------------------------------------------

    def _read_expressions(self) -> None:
        """Read the subqueries in expressions: each row may get another answer."""
        select = self.select
        if any(node.get("class") == "SUBQUERY" for node in own_nodes(select["from_table"])):
            raise CannotPlan("it has a subquery in the condition of a join; make that SELECT a read model of its own")
        tested = [id(conjunct) for conjunct in conjuncts(select["where_clause"])]
        for node in own_nodes({name: part for name, part in select.items() if name not in ("from_table", "cte_map")}):
            if node.get("class") != "SUBQUERY":
                continue
            within = (*self.within, self._reading.optional())
            inner = Scope(self._reading, self._scopes, node["subquery"]["node"], within, self, self._known)
            # WHERE x IN (SELECT y …) looks at rows whose y is x; anywhere else it matters whether there is a NULL, too.
            if id(node) in tested and node["subquery_type"] == "ANY" and node["comparison_type"] == "COMPARE_EQUAL":
                found: dict[str, Node | None] = {}
                for item in (item for item in inner.select["select_list"] if item["class"] != "STAR"):
                    inner._add(found, "", partial(inner.full, is_item=True), item)
                column = found.get("")  # None for several
                with suppress(CannotPlan):
                    if column is not None:
                        pair = equality(self.full(node["child"], is_item=True), column)
                        self._reading.demand(pair, inner.within, None)

    # -- names -----------------------------------------------------------------------------------------------------

    def columns(self) -> dict[str, Node | None]:
        """Return its columns, in lower case: what each stands for in full names, None where that cannot be told."""
        found: dict[str, Node | None] = {}
        for item in self.select["select_list"]:
            if item["class"] == "STAR":
                for source, name in self._all(item):
                    self._add(found, name, source.meaning, [name])
            elif item_name(item):
                self._add(found, item_name(item).lower(), partial(self.full, is_item=True), item)
        return found

    def _add(self, found: dict[str, Node | None], name: str, meaning: Callable[[Any], Node], what: object) -> None:
        """Add a column; of two with one name, DuckDB gives another to one."""
        whole = None
        with suppress(CannotPlan):
            whole = meaning(what) | {"alias": ""}
            if any(is_aggregate(n) or n.get("class") == "WINDOW" for n in nodes(whole)) or not self.is_partition(whole):
                whole = None
        found[name] = None if name in found else whole

    def _all(self, star: Node) -> Iterator[tuple[Source, str]]:
        """The columns that a `*` stands for, each with where it comes from."""
        left_out = left_out_of(star)
        if left_out is None:
            raise CannotPlan("it has a * with changes; name its columns")
        joins = own_nodes(self.select["from_table"])
        using = {column.lower() for join in joins for column in join.get("using_columns") or ()}
        seen: set[str] = set()
        for source in self.sources:
            if not star["relation_name"] or source.alias.lower() == star["relation_name"].lower():
                for name in source.names:
                    if name not in left_out and not (name in seen and name in using):
                        seen.add(name)
                        yield source, name

    def is_partition(self, expression: Node) -> bool:
        """Return whether all windows look only at rows that share the value of an expression in full names."""
        return not self._reading.uses_of(expression) or all(
            any(self._is(partition, expression) for partition in window["partitions"]) for window in self.windows
        )

    def _is(self, one: Node, expression: Node) -> bool:
        try:
            return same(self.full(one, is_item=True), expression)
        except CannotPlan:
            return False

    def full(self, expression: Node, *, is_item: bool = False) -> Node:
        """Return an expression of this SELECT in full names.

        Args:
            is_item: whether names may be those of columns that the SELECT makes.

        Raises:
            CannotPlan: a name cannot be followed to a table, or it asks a subquery.
        """
        return self._changed(expression, self._meaning, is_item=is_item)

    def named(self, expression: Node) -> Node:
        """Return an expression of this SELECT with its columns named by what its FROM calls them.

        Raises:
            CannotPlan: as of `full`.
        """
        return self._changed(expression, self._named, is_item=True)

    def _changed(
        self, expression: Node, meaning: Callable[[list[str], frozenset[str]], Node | None], *, is_item: bool
    ) -> Node:
        def change(node: object, bound: frozenset[str]) -> object:
            if isinstance(node, list):
                return [change(item, bound) for item in node]
            if not isinstance(node, dict):
                return node
            kind = node.get("class")
            if kind == "SUBQUERY":
                raise CannotPlan("it asks a subquery")
            if kind == "LAMBDA":  # its arguments are names in its body alone
                return node | {"expr": change(node["expr"], bound | arguments_of(node))}
            if kind == "COLUMN_REF" and node["column_names"][0].lower() not in bound:
                found = meaning(node["column_names"], bound)
                if found is None and is_item:
                    item = self._item(node["column_names"])
                    found = self._changed(item, meaning, is_item=True) if item is not None else None
                if found is None:
                    raise CannotPlan(f"{'.'.join(node['column_names'])!r} could not be followed to its source")
                return found | {"alias": node["alias"]}
            return {name: change(value, bound) for name, value in node.items()}

        whole: Any = change(expression, frozenset())
        return whole  # type: ignore[no-any-return]

    def _source(self, names: list[str]) -> tuple[Source, list[str]] | None:
        """The source that a column comes from, and its name there.

        A column that several have comes from the first: only USING allows that, and it means that one.
        """
        first, *rest = names
        if rest:
            for source in self.sources:
                if source.alias.lower() == first.lower() and source.has(rest[0]):
                    return source, rest
        return next(((source, names) for source in self.sources if source.has(first)), None)

    def _meaning(self, names: list[str], bound: frozenset[str] = frozenset()) -> Node | None:
        found = self._source(names)
        if found is not None:
            return found[0].meaning(found[1])
        if self._parent is not None and self._item(names) is None:
            return self._parent._meaning(names)
        return None

    def _named(self, names: list[str], bound: frozenset[str]) -> Node | None:
        found = self._source(names)
        if found is not None and found[0].alias.lower() in bound:  # a lambda has its argument of that name
            return column_of(names)
        return None if found is None else found[0].named(found[1])

    def _item(self, names: list[str]) -> Node | None:
        """The column of the SELECT that has a name."""
        items = (item for item in self.select["select_list"] if item["alias"].lower() == names[0].lower())
        return next(items, None) if len(names) == 1 else None
