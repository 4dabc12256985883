"""WITHs: what each of their names stands for, and where it is known.

Owns the scope of these names. The SELECT of a WITH knows the names before its own, so `WITH a AS (SELECT … FROM a)`
reads the table `a`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cqrs_lab.sql.parse import Node, nodes


@dataclass(frozen=True)
class Common:
    """What a WITH names.

    Attributes:
        node: its SELECT.
        columns: what the WITH calls its columns, the first of them or all; empty where it does not say.
        known: what names mean inside it, in lower case.
    """

    node: Node
    columns: list[str]
    known: Mapping[str, Common]


Known = Mapping[str, Common]
"""Name, in lower case -> what a WITH says that it is."""


def known_in(query: Node, known: Known) -> Known:
    """Return the names that are known in a query, its own WITH among them."""
    found = dict(known)
    if query.get("type") == "RECURSIVE_CTE_NODE":  # its own name is the rows so far
        found[query["cte_name"].lower()] = Common(query, query["aliases"], dict(found))
    for entry in (query.get("cte_map") or {"map": []})["map"]:
        value = entry["value"]
        found[entry["key"].lower()] = Common(value["query_node"], value["aliases"], dict(found))
    return found


def queries(tree: Any, known: Known) -> Iterator[tuple[Node, Known]]:
    """Yield every node of a parse with the names that are known there, parents first."""
    if isinstance(tree, list):
        for child in tree:
            yield from queries(child, known)
    if not isinstance(tree, dict):
        return
    own = known_in(tree, known)
    yield tree, own
    for entry in (tree.get("cte_map") or {"map": []})["map"]:
        yield from queries(entry["value"]["query_node"], own[entry["key"].lower()].known)
    for name, child in tree.items():
        if name != "cte_map":
            yield from queries(child, own)


def tables(tree: Any) -> Iterator[Node]:
    """Yield every table in a parse that is none of what a WITH names."""
    for node, known in queries(tree, {}):
        if node.get("type") == "BASE_TABLE" and node["table_name"].lower() not in known:
            yield node


def common_names(tree: Any) -> set[str]:
    """Return the names that a WITH gives anywhere in a parse, in lower case."""
    return {
        entry["key"].lower()
        for node in nodes(tree)
        if isinstance(node.get("cte_map"), dict)
        for entry in node["cte_map"]["map"]
    }
