"""The query bus: one query to the read model that answers it, in the serving that fits.

Owns the table of which queries there are. A query changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cqrs_lab.errors import DeclarationError, UnknownQuery
from cqrs_lab.messages import Query
from cqrs_lab.read.moving import ServedAs
from cqrs_lab.read.servings import Servings


class QueryBus:
    """Routes queries to servings.

    Args:
        servings: the read models and how they are served.
        queries: the query classes; each names its read model.

    Raises:
        DeclarationError: a query without a read model, or declared twice.
    """

    def __init__(self, servings: Servings, queries: Iterable[type[Query]]) -> None:
        self.servings = servings
        self.queries: list[type[Query]] = []
        for query in queries:
            if getattr(query, "model", None) is None:
                raise DeclarationError(f"{query.__name__} names no read model; set model = … in its class")
            if query in self.queries:
                raise DeclarationError(f"{query.__name__} is declared twice")
            servings.find(query.model)
            self.queries.append(query)

    def ask(
        self, query: Query, *, served_as: ServedAs | None = None, at_least: int | None = None, timeout: float = 5
    ) -> Any:
        """Answer a query (see `Lab.ask`)."""
        if type(query) not in self.queries:
            known = ", ".join(q.__name__ for q in self.queries) or "none"
            raise UnknownQuery(f"{type(query).__name__} is not a query of this domain; its queries are {known}")
        if at_least is not None:
            self.servings.running.reach(query.model, at_least, timeout, served_as)
        return query.answer(self.servings.chosen(query.model, served_as))
