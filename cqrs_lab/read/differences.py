"""Differences: what is not the same in two relations that have a key.

Owns one SELECT, for two moments, for two worlds, and for the rows before and after a rebuild.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from cqrs_lab.sql.names import literal, quote
from cqrs_lab.store.database import Database

Columns = Mapping[str, str]
"""Name of a column -> its type."""


def columns_of(database: Database, select: str) -> dict[str, str]:
    """Return the columns of a SELECT with their types; not those that a projection keeps for itself."""
    return {name: kind for name, kind in database.columns(select).items() if not name.startswith("_")}


def differences(
    database: Database, keys: Sequence[str], before: tuple[str, Columns], after: tuple[str, Columns]
) -> pa.Table:
    """Return what is not the same in two relations.

    Args:
        keys: the columns that name a row, in both; when one lacks them, no row is the same as another.
        before, after: a SELECT and its columns.

    Returns:
        change ("added", "removed" or "changed"), the key, columns (those that differ), before and after (structs;
        NULL where there is no row).
    """
    (_, old_columns), (_, new_columns) = before, after
    is_keyed = set(keys) <= set(old_columns) & set(new_columns)
    same_kind = [key for key in keys if old_columns.get(key) == new_columns.get(key)]
    sides = []
    for select, columns in (before, after):
        packed = ", ".join(f"{quote(c)} := {quote(c)}" for c in columns)
        shown = [
            quote(key) if key in same_kind else f"{quote(key)}::VARCHAR" if key in columns else "NULL" for key in keys
        ]
        named = ", ".join(f"{text} AS {quote(key)}" for text, key in zip(shown, keys, strict=True))
        sides.append(f"(SELECT {named}, struct_pack({packed}) AS _row FROM ({select}\n))")
    same = " AND ".join(f"a.{quote(key)} IS NOT DISTINCT FROM b.{quote(key)}" for key in keys) if is_keyed else "false"
    whole = ", ".join(f"coalesce(b.{quote(key)}, a.{quote(key)}) AS {quote(key)}" for key in keys)
    differ = []
    for name in {**new_columns, **old_columns}:
        text = literal(name)
        if old_columns.get(name) != new_columns.get(name):
            differ.append(text)
        else:
            here, there = (f"{side}._row.{quote(name)}" for side in "ab")
            differ.append(f"CASE WHEN {here} IS DISTINCT FROM {there} THEN {text} END")
    # The key keeps its names; what is added here gives way.
    own = {key.lower() for key in keys}
    change, names, old, new = (f"diff_{n}" if n in own else n for n in ("change", "columns", "before", "after"))
    order = ", ".join(map(quote, keys))
    return database.arrow(
        f"""WITH _pairs AS (
                SELECT CASE WHEN a._row IS NULL THEN 'added' WHEN b._row IS NULL THEN 'removed' ELSE 'changed' END
                       AS _change, {whole}, list_filter([{", ".join(differ)}], lambda x: x IS NOT NULL) AS _columns,
                       a._row AS _before, b._row AS _after
                FROM {sides[0]} AS a FULL JOIN {sides[1]} AS b ON {same})
            SELECT _change AS {change}, {order},
                   CASE WHEN _change = 'changed' THEN _columns ELSE [] END AS {names},
                   _before AS {old}, _after AS {new}
            FROM _pairs WHERE _change <> 'changed' OR len(_columns) > 0 ORDER BY {order}, _change"""
    )
