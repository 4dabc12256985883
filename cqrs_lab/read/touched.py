"""Touched keys: which rows of a read model a change can reach, and the SQL that makes these rows anew.

Owns the analysis of a SELECT that does not merge. When one of its sources changes, the rows that came, went or changed
are put in the place of that source; the keys that the SELECT then gives are all that can have changed. It is always a
superset: a key too many costs time, a key too few would be wrong, so where the analysis is not sure it gives up with
the reason. After A. Gupta and I. S. Mumick, "Maintenance of Materialized Views" (1995).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from cqrs_lab.database import quote
from cqrs_lab.read.models import ReadModel, item_name
from cqrs_lab.syntax import Node, is_aggregate, nodes, syntax_text, syntax_tree


class CannotTouch(Exception):
    """The reason why the keys that a change reaches cannot be told."""


@dataclass(frozen=True)
class Use:
    """One place where a SELECT reads a table of events or another read model.

    Attributes:
        name: of the source, in lower case.
        alias: what the SELECT calls it.
        columns: that it has, in lower case.
        is_optional: whether rows go on without it, on the right of a LEFT JOIN.
    """

    name: str
    alias: str
    columns: frozenset[str]
    is_optional: bool


@dataclass(frozen=True)
class Touched:
    """How a read model's rows are made anew for the keys that a change can reach.

    Attributes:
        model: the read model.
        uses: its sources, in order of the text.
        keys: column of the key -> its expression.
        reason: why it does not merge.
    """

    model: ReadModel
    uses: tuple[Use, ...]
    keys: dict[str, Node]
    reason: str

    def keys_of(self, use: int, changed: str, read: Callable[[str], str]) -> str:
        """Return the SELECT of the keys that rows of one source reach.

        Args:
            use: number of the source.
            changed: the SELECT of its rows that came, went or changed.
            read: name of another source -> the SELECT of its rows.
        """
        tree = copy.deepcopy(self.model.tree)
        optional = self.uses[use].is_optional
        number = iter(range(len(self.uses)))

        def replaced(source: Node) -> tuple[Node, bool]:
            """The source with its tables read anew, and whether it holds the changed one."""
            if source["type"] == "BASE_TABLE":
                at = next(number)
                select = changed if at == use else read(self.uses[at].name)
                return _subquery(select, self.uses[at].alias), at == use
            if source["type"] != "JOIN":
                return source, False
            left, in_left = replaced(source["left"])
            right, in_right = replaced(source["right"])
            # Rows that found no partner are not reached through the partner; those that did, before or now, are.
            kind = "INNER" if in_right else source["join_type"]
            return source | {"left": left, "right": right, "join_type": kind}, in_left or in_right

        source, _ = replaced(tree["from_table"])
        where = None if optional else tree["where_clause"]  # it may have asked for rows without a partner
        items = [expression | {"alias": name} for name, expression in self.keys.items()]
        distinct = {"type": "DISTINCT_MODIFIER", "distinct_on_targets": []}
        return syntax_text(
            tree
            | {
                "select_list": items,
                "from_table": source,
                "where_clause": where,
                "modifiers": [distinct],
                "group_expressions": [],
                "group_sets": [],
                "aggregate_handling": "STANDARD_HANDLING",
                "having": None,
                "qualify": None,
            }
        )

    def rows_of(self, keys: str, read: Callable[[str], str]) -> str:
        """Return the author's SELECT, its sources cut to what the keys need, its rows to those of the keys.

        Args:
            keys: a table of keys.
            read: name of a source -> the SELECT of its rows.
        """
        uses = iter(self.uses)

        def cut(name: str) -> str:
            use = next(uses)
            select = read(name)
            conditions = [
                f"{_text(_qualified(expression, use))} IN (SELECT {quote(key)} FROM {keys})"
                for key, expression in self.keys.items()
                if not use.is_optional and self._owner(expression) == use
            ]
            if not conditions:
                return select
            return f"SELECT * FROM ({select}) AS {quote(use.alias)} WHERE {' AND '.join(conditions)}"

        # From the last to the first, as the text is replaced.
        uses = iter(reversed(self.uses))
        text = self.model.bound(cut)
        names = ", ".join(quote(key) for key in self.keys)
        return f"SELECT * FROM ({text}\n) WHERE ({names}) IN (SELECT ({names}) FROM {keys})"

    def _owner(self, expression: Node) -> Use | None:
        """The one source whose columns an expression reads, None when there are several or none."""
        owners = {owner_of(column, self.uses) for column in _columns(expression)}
        return owners.pop() if len(owners) == 1 else None


def touched_of(model: ReadModel, columns: Callable[[str], Iterable[str]], reason: str) -> Touched:
    """Return how the keys of a read model are reached.

    Args:
        columns: name of a source -> its columns.
        reason: why it does not merge.

    Raises:
        CannotTouch: with the reason.
    """
    tree = model.tree
    if tree["type"] != "SELECT_NODE" or tree["cte_map"]["map"]:
        raise CannotTouch("it is more than one SELECT; make the parts read models of their own")
    if any(node.get("class") == "WINDOW" for node in nodes(tree)):
        raise CannotTouch("it has a window, which looks at rows of other keys")
    if any("SUBQUERY" in (node.get("class"), node.get("type")) for node in nodes(tree)):
        raise CannotTouch("it has a subquery; make the inner SELECT a read model of its own")
    if len(tree["group_sets"]) > 1:
        raise CannotTouch("it has grouping sets")
    uses = tuple(_uses(tree["from_table"], columns, is_optional=False))
    if not uses:
        raise CannotTouch("it reads no events")
    if [use.name for use in uses] != [source.name.lower() for source in model.sources()]:
        raise CannotTouch("its sources could not be told apart in the text")
    keys: dict[str, Node] = {}
    for item in tree["select_list"]:
        name = item_name(item)
        if name.lower() in {key.lower() for key in model.keys}:
            if any(is_aggregate(node) for node in nodes(item)):
                raise CannotTouch(f"its key {name!r} is an aggregate")
            keys[name] = item
    for expression in keys.values():
        for column in _columns(expression):
            owner = owner_of(column, uses)
            if owner is not None and owner.is_optional:
                raise CannotTouch(f"its key comes from {owner.alias!r}, which rows may lack")
    return Touched(model, uses, keys, reason)


def owner_of(column: Node, uses: Iterable[Use]) -> Use | None:
    """Return the source that a column comes from; None when it is not one of a source.

    A column that several sources have comes from the first: only USING allows that, and it means that one.
    """
    first, *rest = (name.lower() for name in column["column_names"])
    if rest:
        for use in uses:
            if use.alias.lower() == first:
                return use
    return next((use for use in uses if first in use.columns), None)


def equalities(condition: Node | None) -> Iterator[Node]:
    """Yield the comparisons with = that a condition demands."""
    if condition and condition.get("type") == "COMPARE_EQUAL":
        yield condition
    elif condition and condition.get("type") == "CONJUNCTION_AND":
        for child in condition["children"]:
            yield from equalities(child)


def _uses(source: Node, columns: Callable[[str], Iterable[str]], *, is_optional: bool) -> Iterator[Use]:
    if source["type"] == "BASE_TABLE":
        name = source["table_name"].lower()
        if source.get("column_name_alias"):
            raise CannotTouch("it renames the columns of a source")
        found = frozenset(column.lower() for column in columns(name))
        yield Use(name, source["alias"] or source["table_name"], found, is_optional)
    elif source["type"] == "JOIN":
        kind, how = source["join_type"], source["ref_type"]
        if kind not in ("INNER", "LEFT") or how not in ("REGULAR", "CROSS", "NATURAL"):
            raise CannotTouch(f"it has a {how.lower()} {kind.lower()} join; write it as an inner or a left join")
        if how == "NATURAL":
            raise CannotTouch("it has a natural join, which new columns change; say USING")
        yield from _uses(source["left"], columns, is_optional=is_optional)
        yield from _uses(source["right"], columns, is_optional=is_optional or kind == "LEFT")
    elif source["type"] == "TABLE_FUNCTION" and source["function"]["function_name"].lower() == "unnest":
        if is_optional:
            raise CannotTouch("it unnests on the right of a left join")
    else:
        raise CannotTouch(f"it reads a {source['type'].lower().replace('_', ' ')}")


def _columns(expression: Node) -> list[Node]:
    return [node for node in nodes(expression) if node.get("class") == "COLUMN_REF"]


def _subquery(select: str, alias: str) -> Node:
    source: Node = syntax_tree(f"SELECT * FROM ({select}\n) AS {quote(alias)}")["from_table"]
    return source


def _qualified(expression: Node, use: Use) -> Node:
    """The expression with its columns named in full, to stand where other columns of these names may be."""
    whole = copy.deepcopy(expression)
    for column in _columns(whole):
        names = column["column_names"]
        if len(names) == 1 or names[0].lower() != use.alias.lower():
            column["column_names"] = [use.alias, *names]
            column.pop("qualified_name", None)
    return whole


def _text(expression: Node) -> str:
    tree = syntax_tree("SELECT 1") | {"select_list": [expression | {"alias": ""}]}
    return syntax_text(tree).removeprefix("SELECT ")
