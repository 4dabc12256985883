"""Lists: a list in FROM, asked as one in SELECT.

Owns that one form. `FROM events, unnest(lines) AS item(line)` is a join to DuckDB, which makes it for each event: 1.1 s
for 62,000 events, where the same list in a SELECT takes 0.05 s. The rows are the same: none for a list that is empty or
NULL, one for each item otherwise.
"""

from __future__ import annotations

import copy
from typing import Any

from cqrs_lab.ivm.shape import Shape
from cqrs_lab.sql.parse import Node, columns_of, syntax_tree


def asked_in_select(tree: Node, shape: Shape) -> Node:
    """Return a SELECT over one place and one list of it, with the list in a SELECT; any other one as it is.

    What stands for the list is a struct under its alias, so that `item.line` is its field.

    Args:
        tree: the parse, with columns of the list under its alias, or as the author wrote them.
        shape: what it reads.
    """
    source = tree["from_table"]
    if source["type"] != "JOIN" or shape.is_nested or len(shape.uses) != 1 or len(shape.reading.unnests) != 1:
        return tree
    table, of = source["left"], source["right"]
    is_plain = source["ref_type"] == "CROSS" and table["type"] == "BASE_TABLE" and not table["column_name_alias"]
    if not is_plain or of["type"] != "TABLE_FUNCTION" or len(of["column_name_alias"]) != 1 or not of["alias"]:
        return tree
    use, (name,), alias = shape.uses[0], of["column_name_alias"], of["alias"]
    if of.get("with_ordinality") != "WITHOUT_ORDINALITY" or any(one["sample"] for one in (source, table, of)):
        return tree
    # A list under a name that DuckDB would take for something else there is left where it is.
    if {*shape.reading.unnests} != {alias.lower()} or alias.lower() in {*use.columns, use.alias.lower()}:
        return tree
    if any(one["column_names"][0].lower() == name.lower() != alias.lower() for one in columns_of(tree)):
        return tree
    return tree | {"from_table": _subquery(use.alias, table, alias, name, of["function"]["arguments"])}


def _subquery(place: str, table: Node, alias: str, name: str, arguments: list[Any]) -> Node:
    form = syntax_tree("SELECT 1 FROM (SELECT *, {'name': unnest(list)} AS alias FROM t) AS place")
    made: Node = copy.deepcopy(form["from_table"])
    made["alias"], inner = place, made["subquery"]["node"]
    inner["from_table"], item = table, inner["select_list"][1]
    item["alias"], item["arguments"][0]["name"] = alias, name
    item["arguments"][0]["expression"] |= {"alias": name, "arguments": arguments}
    return made
