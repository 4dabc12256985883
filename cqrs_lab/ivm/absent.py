"""What new events leave out: aggregates of which they say nothing.

Owns the proof that an aggregate is NULL over events of which the types, and the columns that are not NULL, are known. A
state that is NULL over what is new stays as it was, so it need not be asked: a payment says something of four of the
ten states of an order, and their fold is planned in half the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cqrs_lab.sql.parse import Node

# NULL as soon as the first argument is, or for operators one of them; and aggregates that are NULL over nothing.
_STRICT = {
    "list_sum",
    "list_apply",
    "list_transform",
    "array_transform",
    "abs",
    "len",
    "lower",
    "upper",
    "trim",
    "round",
}
_OPERATORS = {"+", "-", "*", "/", "//", "%", "||"}
_EMPTY_IS_NULL = {
    "max",
    "min",
    "sum",
    "arg_max",
    "argmax",
    "max_by",
    "arg_min",
    "argmin",
    "min_by",
    "bool_and",
    "bool_or",
}


@dataclass(frozen=True)
class Present:
    """What some events of one category hold.

    Attributes:
        types: of the events.
        columns: those in lower case, of the envelope too, that are not NULL in one of them.
    """

    types: frozenset[str]
    columns: frozenset[str]

    @classmethod
    def of(cls, events: Iterable[tuple[str, frozenset[str]]]) -> Present:
        """Return what events hold, given the type and the columns of each."""
        told = set(events)
        columns = frozenset(column.lower() for _, names in told for column in names)
        return cls(frozenset(kind for kind, _ in told), columns)

    def is_absent(self, aggregate: Node) -> bool:
        """Return whether an aggregate over a table of events is sure to be NULL.

        Args:
            aggregate: each of its columns stands behind the name of the table.
        """
        if aggregate["function_name"].lower() not in _EMPTY_IS_NULL or not aggregate["arguments"]:
            return False
        if aggregate["filter"] is not None and self._holds(aggregate["filter"]) is False:
            return True
        return self._is_null(aggregate["arguments"][0]["expression"])

    def _is_null(self, node: Node) -> bool:
        """Whether an expression is sure to be NULL for each of the events."""
        kind = node["class"]
        if kind == "COLUMN_REF":
            return _column(node) not in self.columns
        if kind == "CONSTANT":
            return bool(node["literal"]["kind"] == "NULL_LITERAL")
        if kind == "CAST":
            return self._is_null(node["child"])
        if kind == "CASE":
            for check in node["case_checks"]:
                holds = self._holds(check["when_expr"])
                if holds is not False and not self._is_null(check["then_expr"]):
                    return False
                if holds:
                    return True
            return self._is_null(node["else_expr"])
        if kind == "FUNCTION":
            given = [argument["expression"] for argument in node["arguments"]]
            name = node["function_name"].lower()
            if name in _OPERATORS:
                return any(map(self._is_null, given))
            return name in _STRICT and bool(given) and self._is_null(given[0])
        return False

    def _holds(self, node: Node) -> bool | None:
        """Whether a condition holds for each of the events, or for none; None when that is not known."""
        kind = node["type"]
        if kind in ("CONJUNCTION_AND", "CONJUNCTION_OR"):
            parts: list[bool | None] = [self._holds(child) for child in node["children"]]
            if kind == "CONJUNCTION_OR":
                return True if True in parts else None if None in parts else False
            return False if False in parts else None if None in parts else True
        if kind == "COMPARE_EQUAL":
            sides = [node["left"], node["right"]]
        elif kind == "COMPARE_IN":
            sides = node["children"]
        else:
            return None
        if self._is_null(sides[0]):
            return False
        texts = {str(side["literal"]["text"]) for side in sides[1:] if side["class"] == "CONSTANT"}
        is_type = sides[0]["class"] == "COLUMN_REF" and _column(sides[0]) == "type"
        if not is_type or len(texts) < len(sides) - 1:
            return None
        if self.types <= texts:
            return True
        return False if self.types.isdisjoint(texts) else None


def _column(node: Node) -> str:
    """The column that is meant, behind the name of its table; of a field its column."""
    return str(node["column_names"][1]).lower()
