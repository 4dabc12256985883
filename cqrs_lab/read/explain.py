"""Explaining: how a serving works, why this way, and the SQL it runs, for people to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cqrs_lab.database import quote
from cqrs_lab.read.fused import Fused
from cqrs_lab.read.merge import Merge
from cqrs_lab.read.models import ReadModel
from cqrs_lab.read.touched import Touched


@dataclass(frozen=True)
class Explanation:
    """How a serving works, for people to read.

    Attributes:
        way: "view", "refresh", "merge", "touched keys" or "recompute all".
        reason: why this way.
        sql: what is done -> a statement that does it; a batch is carried out in steps that do the same, and faster.
    """

    model: str
    served_as: str
    way: str
    reason: str
    sql: Mapping[str, str]

    def __str__(self) -> str:
        parts = [f"{self.model} as {self.served_as}: {self.way}, because {self.reason}"]
        parts += [f"-- {title}\n{text}" for title, text in self.sql.items()]
        return "\n\n".join(parts)

    __repr__ = __str__


def explain(
    model: ReadModel,
    served_as: str,
    moves: Merge | Fused | Touched | str,
    expanded: Callable[[ReadModel, str], str],
    table: str,
    by_key: str,
) -> Explanation:
    """Return how a serving works.

    Args:
        moves: how a projection of it moves; a text is the reason why all of it is made anew.
        expanded: (read model, condition on the events, empty for all) -> its text with layers and sources written out.
        table: the serving's table, quoted.
        by_key: the SELECT of one row.
    """
    text = expanded(model, "")
    if served_as == "view":
        way, reason, sql = "view", "a view runs the SELECT at every read", {"the view": text}
    elif served_as == "materialized":
        way, reason = "refresh", "a materialized table is built whole at every refresh"
        sql = {"refresh": f"CREATE TABLE {table} AS\n{text}"}
    else:
        stored = moves.stored() if isinstance(moves, Merge) else model
        keys = ", ".join(map(quote, model.keys))
        build = f"CREATE TABLE {table} AS\n{expanded(stored, '')};"
        sql = {"rebuild": f"{build}\nALTER TABLE {table} ADD PRIMARY KEY ({keys})"}
        if isinstance(moves, Merge):
            way, reason = "merge", "every column is made of aggregates whose halves combine"
            fold = expanded(stored, "«new events»")
            sql["each batch"] = f"INSERT OR REPLACE INTO {table}\n{moves.rows(table, fold)}"
        elif isinstance(moves, Fused):
            base = moves.base.model.name
            way, reason = "merge", f"its rows are those of {base}, whose aggregates they keep, with more looked up"
            fold = expanded(moves.base.stored(), "«new events»")
            sql[f"each batch, rows of {base}"] = moves.moved(table, fold)
            sql["each batch"] = f"INSERT OR REPLACE INTO {table}\n{moves.looked_up(quote('these rows'), _all)}"
            for number, use in enumerate(moves.uses):
                changed = f"SELECT * FROM {quote(f'changed rows of {use.name}')}"
                sql[f"keys that {use.name} reaches"] = moves.keys_of(number, changed, _all)
        elif isinstance(moves, Touched):
            way, reason = "touched keys", moves.reason
            for number, use in enumerate(moves.uses):
                changed = f"SELECT * FROM {quote(f'changed rows of {use.name}')}"
                sql[f"keys that {use.name} reaches"] = moves.keys_of(number, changed, _all)
            sql["rows of these keys"] = moves.rows_of(quote("these keys"), _all)
        else:
            way, reason = "recompute all", moves
            sql["each batch"] = sql["rebuild"]
    return Explanation(model.name, served_as, way, reason, {**sql, "a read by key": by_key})


def _all(source: str) -> str:
    return f"SELECT * FROM {quote(source)}"
