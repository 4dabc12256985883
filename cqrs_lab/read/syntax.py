"""What DuckDB itself says about SQL: its parse of a SELECT and its catalogue of functions.

Owns a database without tables, for such questions alone.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from cqrs_lab.database import MEMORY, Database
from cqrs_lab.errors import QueryFailed


@cache
def _scratch() -> Database:
    """A database without tables, for questions about SQL itself."""
    return Database.open(MEMORY, threads=1)


@cache
def syntax_tree(sql: str) -> Any:
    """Return DuckDB's own parse of one SELECT, as nested dicts and lists.

    Raises:
        QueryFailed: it does not parse, or is not one SELECT.
    """
    answer = json.loads(_scratch().execute("SELECT json_serialize_sql(?::VARCHAR)", [sql])[0][0])
    if answer["error"]:
        raise QueryFailed(f"{answer['error_message']}\nIn: {' '.join(sql.split())[:500]}")
    if len(answer["statements"]) != 1:
        raise QueryFailed(f"a SELECT was expected, and nothing beside it: {sql.strip()[:200]}")
    return answer["statements"][0]["node"]


def syntax_text(node: Any) -> str:
    """Return SQL for a parse as `syntax_tree` gives it."""
    statement = json.dumps({"error": False, "statements": [{"node": node}]})
    text: str = _scratch().execute("SELECT json_deserialize_sql(?::JSON)", [statement])[0][0]
    return text


@cache
def function_catalogue() -> dict[str, tuple[str, str | None, str | None]]:
    """Return DuckDB's functions: name to (kind, stability, definition of a macro).

    Where a name has several meanings, an aggregate counts first, then the least stable.
    """
    rows = _scratch().execute(
        """SELECT lower(function_name), function_type, stability, macro_definition FROM duckdb_functions()
           WHERE function_type IN ('scalar', 'macro', 'aggregate')
           ORDER BY function_type = 'aggregate', stability = 'VOLATILE', stability = 'CONSISTENT_WITHIN_QUERY'"""
    )
    return {name: (kind, stability, definition) for name, kind, stability, definition in rows}
