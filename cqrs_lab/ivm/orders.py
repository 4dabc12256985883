"""Orders: whether what a SELECT picks by order would be picked again.

Owns one rule for everything that picks by order (`first`, `arg_max`, windows, ASOF joins): the order has to be total.
It is total when it says, for each place that the SELECT reads, which row is meant: by `position` for a table of events,
by the whole key for a read model. A column that merely is called `position` proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cqrs_lab.sql.functions import BY_ARGUMENT, BY_ORDER, ORDERLESS, RANKS
from cqrs_lab.sql.names import names_events
from cqrs_lab.sql.parse import (
    Node,
    conjuncts,
    first_select,
    is_aggregate,
    item_name,
    left_out_of,
    nodes,
    own_nodes,
    same,
    text_of,
)
from cqrs_lab.sql.withs import Known, known_in, queries


class Layer(Protocol):
    """What is to be known of a read model that another one reads."""

    @property
    def keys(self) -> tuple[str, ...]:  # noqa: D102
        ...

    @property
    def tree(self) -> Node:  # noqa: D102
        ...


@dataclass(frozen=True)
class _From:
    """One thing that FROM names.

    Attributes:
        alias: what it is called, in lower case.
        identity: columns that say which of its rows is meant, in lower case; empty when nothing does, None when it is
            not known here.
        columns: all that it has, in lower case; None when they are not known here.
    """

    alias: str
    identity: frozenset[str] | None
    columns: frozenset[str] | None


class _Scope:
    """What FROM of one SELECT names, for the question whether an order over its rows is total."""

    def __init__(self, select: Node, layers: Mapping[str, Layer], known: Known) -> None:
        self.select, self._layers, self._known = select, layers, known
        self.found: list[_From] = []
        self.single: set[str] = set()  # aliases of what is looked up: one row for each of the others
        self._read(select["from_table"])
        items = select["select_list"]
        self._grouped = bool(select["group_expressions"]) or select["aggregate_handling"] != "STANDARD_HANDLING"
        self._grouped = self._grouped or any(is_aggregate(n) for item in items for n in own_nodes(item))

    def _read(self, source: Node) -> None:
        kind = source["type"]
        if kind == "JOIN":
            self._read(source["left"])
            before = len(self.found)
            self._read(source["right"])
            for one in self.found[before:]:
                if self._is_looked_up(one, source, alone=len(self.found) == before + 1):
                    self.single.add(one.alias)
        elif kind == "BASE_TABLE":
            self.found.append(self._table(source))
        elif kind == "SUBQUERY":
            self.found.append(
                self._select(source["subquery"]["node"], source["alias"], source["column_name_alias"], self._known)
            )
        elif kind == "TABLE_FUNCTION":
            self.found.append(self._list(source))
        elif kind != "EMPTY":
            self.found.append(_From((source.get("alias") or "").lower(), frozenset(), None))

    def _table(self, source: Node) -> _From:
        name = source["table_name"].lower()
        alias = (source["alias"] or source["table_name"]).lower()
        common = self._known.get(name)
        if common is not None:
            return self._select(common.node, alias, source["column_name_alias"] or common.columns, common.known)
        if source["column_name_alias"]:
            return _From(alias, frozenset(), None)
        if names_events(name):
            return _From(alias, frozenset(["position"]), None)
        layer = self._layers.get(name)
        if layer is None:
            return _From(alias, None, None)
        columns = frozenset(item_name(item).lower() for item in first_select(layer.tree)["select_list"])
        return _From(alias, frozenset(key.lower() for key in layer.keys), columns)

    def _select(self, node: Node, alias: str, names: list[str], known: Known) -> _From:
        """A subquery or what a WITH names: known by what its own rows are known by, where it shows that."""
        stars = [item for item in node.get("select_list", ()) if item["class"] == "STAR"]
        if node["type"] != "SELECT_NODE" or (names and stars):
            return _From(alias.lower(), frozenset(), None)
        inner = _Scope(node, self._layers, known_in(node, known))
        items = [item for item in node["select_list"] if item not in stars]
        called = [*names, *map(item_name, items[len(names) :])]
        shown = {name.lower(): item for name, item in zip(called, items, strict=False)}
        columns = None if stars else frozenset(shown)
        if columns and any(modifier["type"] == "DISTINCT_MODIFIER" for modifier in node["modifiers"]):
            return _From(alias.lower(), columns, columns)
        identity: set[str] = set()
        wanted = inner.identity()
        if wanted is None:
            return _From(alias.lower(), None, columns)
        for expression in wanted:
            found = next((name for name, item in shown.items() if inner.means(item, expression)), None)
            if found is None and isinstance(expression, tuple) and any(_gives(star, *expression) for star in stars):
                found = expression[1]
            if found is None:
                return _From(alias.lower(), frozenset(), columns)
            identity.add(found)
        return _From(alias.lower(), frozenset(identity), columns)

    def _list(self, source: Node) -> _From:
        names = [name.lower() for name in source["column_name_alias"]]
        is_numbered = source.get("with_ordinality") == "WITH_ORDINALITY"
        number = names[-1] if is_numbered and len(names) > 1 else "ordinality" if is_numbered else None
        alias = (source["alias"] or source["function"]["function_name"]).lower()
        columns = frozenset(names or [source["function"]["function_name"].lower(), *([number] if number else [])])
        return _From(alias, frozenset([number] if number else []), columns)

    def _is_looked_up(self, one: _From, join: Node, *, alone: bool) -> bool:
        """Whether a join finds at most one row of its right side: ASOF, or by the whole key with =."""
        if not alone:
            return False
        if join["ref_type"] == "ASOF":
            return True
        if join["ref_type"] != "REGULAR" or join["join_type"] not in ("INNER", "LEFT") or not one.identity:
            return False
        equal = {column.lower() for column in join["using_columns"]}
        for conjunct in conjuncts(join["condition"]):
            if conjunct["type"] == "COMPARE_EQUAL":
                sides = [self._resolved(conjunct[side]) for side in ("left", "right")]
                for side, other in (sides, sides[::-1]):
                    if side and side[0] == one.alias and (other is None or other[0] != one.alias):
                        equal.add(side[1])
        return one.identity <= equal

    def _resolved(self, column: Node) -> tuple[str, str] | None:
        """The alias and the name of a plain column."""
        if column.get("class") != "COLUMN_REF":
            return None
        *path, name = [part.lower() for part in column["column_names"]]
        if len(path) == 1 and any(one.alias == path[0] for one in self.found):
            return path[0], name
        if path:
            return None
        having = [one for one in self.found if one.columns is not None and name in one.columns]
        having = having or [one for one in self.found if one.columns is None and name in (one.identity or ())]
        if not having and len(self.found) == 1:
            having = self.found
        return (having[0].alias, name) if len(having) == 1 or (having and name in _using(self.select)) else None

    def identity(self) -> list[Any] | None:
        """What says which row of the SELECT is meant: expressions, or (alias, column); None when it is not known.

        An empty list in a list says that nothing does.
        """
        if self._grouped:
            return [self._grouping(expression) for expression in self._groups()]
        wanted: list[Any] = []
        for one in self.found:
            if one.alias in self.single:
                continue
            if one.identity is None:
                return None
            if not one.identity:
                return [[]]
            wanted += [(one.alias, column) for column in sorted(one.identity)]
        return wanted

    def _groups(self) -> list[Node]:
        select = self.select
        if select["group_expressions"]:
            return list(select["group_expressions"])
        if select["aggregate_handling"] != "STANDARD_HANDLING":
            return [item for item in select["select_list"] if not any(is_aggregate(n) for n in own_nodes(item))]
        return []

    def _grouping(self, expression: Node) -> Node:
        """What a GROUP BY means by a number or by the name of a column of the SELECT."""
        literal = expression.get("literal", {}).get("text") if expression["class"] == "CONSTANT" else None
        if literal is not None and literal.isdigit() and 0 < int(literal) <= len(self.select["select_list"]):
            return self.select["select_list"][int(literal) - 1]  # type: ignore[no-any-return]
        if expression["class"] == "COLUMN_REF" and len(expression["column_names"]) == 1:
            named = [
                i for i in self.select["select_list"] if i["alias"].lower() == expression["column_names"][0].lower()
            ]
            if named and not any(one.columns and named[0]["alias"].lower() in one.columns for one in self.found):
                return named[0]  # type: ignore[no-any-return]
        return expression

    def means(self, expression: Node, wanted: Any) -> bool:
        """Whether an expression is what `identity` wants; one by its name in the SELECT is, too."""
        if isinstance(wanted, tuple):
            return self._resolved(expression) == wanted
        if not wanted:
            return False
        if (
            expression.get("class") == "COLUMN_REF"
            and expression["column_names"][-1].lower() == item_name(wanted).lower()
        ):
            return True
        return same(expression, wanted)

    def lacks(self, order: Iterable[Node]) -> list[str] | None:
        """Return what an order has to be ended with to be total; None when it is, or when it cannot be judged here."""
        wanted = self.identity()
        if wanted is None:
            return None
        order = list(order)
        missing = [one for one in wanted if not any(self.means(expression, one) for expression in order)]
        return [self._said(one) for one in missing] or None

    def _said(self, wanted: Any) -> str:
        if isinstance(wanted, tuple):
            alias, column = wanted
            spelled = next((n for n in _spelled(self.select) if n.lower() == column), column)
            return spelled if len(self.found) == 1 else f"{_alias(self.select, alias)}.{spelled}"
        return item_name(wanted) or _text(wanted) if wanted else ""


def order_reasons(tree: Node, layers: Mapping[str, Layer]) -> Iterator[str]:
    """Yield why what a SELECT picks by order may be picked differently another time."""
    for select, known in queries(tree, {}):
        if select.get("type") != "SELECT_NODE":
            continue
        scope = _Scope(select, layers, known)
        yield from _collation_reasons(select)
        for join in _joins(select["from_table"]):
            if join["ref_type"] == "ASOF":
                yield from _asof_reasons(join, scope)
        parts = [select["select_list"], select.get("having"), select.get("qualify"), select["modifiers"]]
        for node in own_nodes(parts):
            if node.get("class") == "FUNCTION":
                yield from _picking_reasons(node, scope)
            elif node.get("class") == "WINDOW":
                yield from _window_reasons(node, scope)


def _picking_reasons(node: Node, scope: _Scope) -> Iterator[str]:
    name = node["function_name"].lower()
    arguments = [argument["expression"] for argument in node["arguments"]]
    if name in BY_ORDER:
        by = [order["expression"] for order in node["order_bys"]["orders"]]
    elif name in BY_ARGUMENT:
        by = arguments[1:2]
        by = [*by, *([a["expression"] for a in by[0]["arguments"]] if by and _is_row(by[0]) else [])]
    else:
        return
    if not arguments or any(same(arguments[0], part) for part in by):
        return  # rows of equal order have an equal value
    missing = _lack(scope, by, is_grouped=False)
    if node["distinct"]:
        yield f"{name}(DISTINCT …) has to be ordered by what it lists"
    elif missing is not None:
        plain = [part for part in by if not _is_row(part)]
        yield _said(f"{name}()", name, arguments[0], plain, missing, scope)


def _said(what: str, name: str, argument: Node, by: list[Node], missing: list[str], scope: _Scope) -> str:
    """The sentence: the author's own order, and what to add to it."""
    if "" in missing:
        return (
            f"{what} picks among rows without a total order, and several of them share what there is to order by; "
            "number the rows of a list WITH ORDINALITY, or pick in a read model of its own before they are multiplied"
        )
    order = ", ".join([*map(_text, by), *missing])
    if name in BY_ORDER:
        use = f"{name}({_text(argument)} ORDER BY {order})"
    elif name in BY_ARGUMENT:
        use = f"{name}({_text(argument)}, {order if len(by) + len(missing) == 1 else f'({order})'})"
    else:
        use = f"ORDER BY {order}"
    return f"{what} picks among rows without a total order; say {use}"


def _window_reasons(node: Node, scope: _Scope) -> Iterator[str]:
    name = node["function_name"].lower()
    if name in RANKS:
        return  # rows of equal order have an equal rank
    orders = [order["expression"] for order in node["orders"]]
    frame = (node["start"], node["end"])
    by_rows = any(str(end).endswith("_ROWS") for end in frame)
    is_whole = frame == ("UNBOUNDED_PRECEDING", "UNBOUNDED_FOLLOWING")
    if name in ORDERLESS and (not orders or not by_rows or is_whole):
        return  # rows of equal order see the same rows
    inner = [order["expression"] for order in node.get("arg_orders") or ()]
    missing = _lack(scope, [*node["partitions"], *(inner or orders)], is_grouped=True)
    if missing is not None:
        yield _said(f"{name}() OVER (…)", "", node, inner or orders, missing, scope)


def _asof_reasons(join: Node, scope: _Scope) -> Iterator[str]:
    right = _Scope(scope.select | {"from_table": join["right"]}, scope._layers, scope._known).found
    if len(right) != 1:
        yield "ASOF JOIN picks among the rows of a join; make the right side a read model of its own"
        return
    (one,) = right
    if one.identity is None:
        return
    compared = {column.lower() for column in join["using_columns"]}
    by = ""
    for conjunct in conjuncts(join["condition"]):
        for side in ("left", "right"):
            found = scope._resolved(conjunct.get(side) or {})
            if found and found[0] == one.alias:
                compared.add(found[1])
                by = by if conjunct["type"] == "COMPARE_EQUAL" else _text(conjunct[side])
    if not one.identity or not one.identity <= compared:
        columns = ", ".join(f"{_alias(scope.select, one.alias)}.{column}" for column in sorted(one.identity))
        yield (
            f"ASOF JOIN picks among rows that have the same {by or 'value'}; "
            + (f"compare {columns} in its inequality" if columns else "compare by the key of a read model")
        )


def _collation_reasons(select: Node) -> Iterator[str]:
    is_distinct = any(modifier.get("type") == "DISTINCT_MODIFIER" for modifier in select["modifiers"])
    scope_items = select["select_list"] if is_distinct or select["aggregate_handling"] != "STANDARD_HANDLING" else []
    grouped = [*select["group_expressions"], *(i for i in scope_items if not any(is_aggregate(n) for n in nodes(i)))]
    named = {name.lower() for e in grouped if e["class"] == "COLUMN_REF" for name in e["column_names"][-1:]}
    grouped += [i for i in select["select_list"] if i["alias"].lower() in named]
    for expression in grouped:
        if any(node.get("class") == "COLLATE" for node in nodes(expression)):
            yield (
                f"{_text(expression)} puts texts that differ into one group, and which of them is shown depends on the "
                "order of rows; group by lower(…)"
            )


def _lack(scope: _Scope, order: list[Node], *, is_grouped: bool) -> list[str] | None:
    """What an order lacks; an aggregate looks at rows before they are grouped, a window at those after it."""
    if is_grouped or not scope._grouped:
        return scope.lacks(order)
    before = _Scope.__new__(_Scope)
    before.__dict__ = scope.__dict__ | {"_grouped": False}
    return before.lacks(order)


def _is_row(node: Node) -> bool:
    return node.get("class") == "FUNCTION" and node["function_name"].lower() in ("row", "struct_pack")


def _gives(star: Node, alias: str, column: str) -> bool:
    """Whether a `*` gives a column of a source as it is."""
    left_out = left_out_of(star)
    return left_out is not None and star["relation_name"].lower() in ("", alias) and column not in left_out


def _joins(source: Node) -> Iterator[Node]:
    if source["type"] == "JOIN":
        yield from _joins(source["left"])
        yield from _joins(source["right"])
        yield source


def _using(select: Node) -> set[str]:
    return {column.lower() for join in _joins(select["from_table"]) for column in join["using_columns"]}


def _spelled(select: Node) -> Iterator[str]:
    return (name for node in nodes(select) if node.get("class") == "COLUMN_REF" for name in node["column_names"][-1:])


def _alias(select: Node, alias: str) -> str:
    """An alias as the author spells it."""
    for node in nodes(select["from_table"]):
        for name in (node.get("alias"), node.get("table_name")):
            if name and name.lower() == alias:
                return str(name)
    return alias


def _text(expression: Node) -> str:
    """An expression as people write it: DuckDB quotes names such as position, which need no quotes."""
    return re.sub(r'"(position|type|version|names?|day|month|year|value|key)"', r"\1", text_of(expression))
