"""What explain() says: how a serving works, why this way, and the SQL it runs, for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cqrs_lab.ivm.plan import AnyPlan, Recompute
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.ivm.reading import Use
from cqrs_lab.sql.names import quote


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
    plan: AnyPlan,
    text: str,
    table: str,
    by_key: str,
) -> Explanation:
    """Return how a serving works, with the SQL that it runs.

    Args:
        plan: how a projection of it moves.
        text: its SELECT, with layers and sources written out.
        table: the serving's table, quoted.
        by_key: the SELECT of one row.
    """
    if served_as == "view":
        way, reason, sql = "view", "a view runs the SELECT at every read", {"the view": text}
    elif served_as == "materialized":
        way, reason = "refresh", "a materialized table is built whole at every refresh"
        key = ", ".join(map(quote, model.keys))
        sql = {"refresh": f"CREATE TABLE {table} AS\n{text};\nALTER TABLE {table} ADD UNIQUE ({key})"}
    else:
        way, reason = plan.way, plan.reason
        rows = text if isinstance(plan, Recompute) else plan.rows(_all)
        key = ", ".join(map(quote, model.keys))
        sql = {"rebuild": f"CREATE TABLE {table} AS\n{rows};\nALTER TABLE {table} ADD UNIQUE ({key})"}
        if isinstance(plan, Recompute):
            sql["each batch"] = sql["rebuild"]
        else:
            for use in plan.uses:
                if use.name in plan.layers:
                    changed = f"SELECT * FROM {quote(f'changed rows of {use.name}')}"
                    sql[f"keys that {use.alias} reaches"] = plan.keys_of(use, changed, _all)
            noted = quote("noted keys") if plan.layers else None
            sql["reached"] = plan.reached(_new, _all, noted)
            sql["each batch"] = plan.after(quote("rows before"), quote("reached"), _all, nulls=False)
    reads = {"a read by key": by_key}
    for columns in model.indexes if served_as != "view" else ():
        same = " AND ".join(f"{quote(column)} = ?" for column in columns)
        named = ", ".join(columns)
        reads[f"a read by {named}, through an index"] = f"SELECT * FROM {table} WHERE {same}"
    return Explanation(model.name, served_as, way, reason, {**sql, **reads})


def _all(use: Use) -> str:
    return f"SELECT * FROM {quote(use.name)}"


def _new(use: Use) -> str:
    return f"SELECT * FROM {quote(f'new {use.name}')}"
