"""The query bus: one query to the read model that answers it, in the serving that fits.

Owns the table of which queries there are. A query changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cqrs_lab.errors import DeclarationError, NotServed, UnknownQuery
from cqrs_lab.messages import Query
from cqrs_lab.read.serving import WAYS, Served, ServedAs, Servings


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

    def ask(self, query: Query, *, served_as: ServedAs | None = None) -> Any:
        """Answer a query.

        Args:
            served_as: which serving to read; the freshest there is when None.

        Raises:
            UnknownQuery: it is not among the domain's queries.
            NotServed: its read model is not served that way.
        """
        if type(query) not in self.queries:
            known = ", ".join(q.__name__ for q in self.queries) or "none"
            raise UnknownQuery(f"{type(query).__name__} is not a query of this domain; its queries are {known}")
        return query.answer(self._serving(query, served_as))

    def _serving(self, query: Query, served_as: ServedAs | None) -> Served:
        model = query.model
        if served_as is None:
            return self.servings.freshest(model)
        if served_as not in WAYS:
            raise NotServed(f"a read model is served as {', '.join(WAYS)}, not as {served_as!r}")
        if self.servings.checkpoint(model, served_as) is None:
            raise NotServed(
                f"{model.name} is not served as {served_as} here; call lab.serve({model.name}, as_={served_as!r}) first"
            )
        return Served(self.servings, model, served_as)
