"""The query bus: one query to the read model that answers it, in the serving that fits.

Owns the table of which queries there are and the chain of middleware that every query passes, in call-next style: a
step gets what is asked and `proceed`, which is everything further in, and returns the answer. A query changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cqrs_lab.errors import DeclarationError, UnknownQuery
from cqrs_lab.messages import Query
from cqrs_lab.read.cache import Cache
from cqrs_lab.read.runner import Running
from cqrs_lab.read.served import chosen, reach
from cqrs_lab.read.table import ServedAs
from cqrs_lab.store.times import Times


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A query on its way to its read model; the arguments of `Lab.ask`.

    Attributes:
        notes: what one step of the middleware tells those around it, such as "cached".
    """

    query: Query
    served_as: ServedAs | None = None
    at_least: int | None = None
    timeout: float = 5
    notes: dict[str, Any] = field(default_factory=dict)


ProceedAsking = Callable[[Asked], Any]
QueryMiddleware = Callable[[Asked, ProceedAsking], Any]


class QueryTimes(Times):
    """Notes how long each query took; an answer that was kept from before is told as "cached"."""

    def __call__(self, asked: Asked, proceed: ProceedAsking) -> Any:
        """Have the query answered and note how long that took."""

        def told() -> str:
            return "cached" if asked.notes.get("cached") else "done"

        return self.note(type(asked.query).__name__, lambda: proceed(asked), told)


class QueryBus:
    """Routes queries to servings.

    Args:
        servings: the read models and how they are served.
        queries: the query classes; each names its read model.
        middleware: what else happens around every query, outermost first.
        cache_seconds: how long answers are kept at most; None to keep none.

    Raises:
        DeclarationError: a query without a read model, or declared twice; or a cache for no time.

    Attributes:
        middleware: what every query passes, outermost first.
        times: how long queries took.
    """

    def __init__(
        self,
        running: Running,
        queries: Iterable[type[Query]],
        *,
        middleware: Sequence[QueryMiddleware] = (),
        cache_seconds: float | None = None,
    ) -> None:
        self.running = running
        self.queries: list[type[Query]] = []
        for query in queries:
            if getattr(query, "model", None) is None:
                raise DeclarationError(f"{query.__name__} names no read model; set model = … in its class")
            if query in self.queries:
                raise DeclarationError(f"{query.__name__} is declared twice")
            running.catalog.find(query.model)
            self.queries.append(query)
        if cache_seconds is not None and not cache_seconds > 0:
            raise DeclarationError(f"cache_seconds={cache_seconds!r} is no time above 0; None keeps no answers")
        self.times = QueryTimes()
        self.middleware: list[QueryMiddleware] = [self.times, *middleware, self._reached]
        if cache_seconds is not None:
            self._cache = Cache(cache_seconds, running.catalog.memory.answers)
            self.middleware.append(self._cached)
        self._answer: ProceedAsking = self._read
        for step in reversed(self.middleware):
            self._answer = _around(step, self._answer)

    def ask(
        self, query: Query, *, served_as: ServedAs | None = None, at_least: int | None = None, timeout: float = 5
    ) -> Any:
        """Answer a query (see `Lab.ask`)."""
        if type(query) not in self.queries:
            known = ", ".join(q.__name__ for q in self.queries) or "none"
            raise UnknownQuery(f"{type(query).__name__} is not a query of this domain; its queries are {known}")
        return self._answer(Asked(query=query, served_as=served_as, at_least=at_least, timeout=timeout))

    def _reached(self, asked: Asked, proceed: ProceedAsking) -> Any:
        """Wait until the serving tells the log up to the position that is asked for."""
        if asked.at_least is not None:
            reach(self.running, asked.query.model, asked.at_least, asked.timeout, asked.served_as)
        return proceed(asked)

    def _cached(self, asked: Asked, proceed: ProceedAsking) -> Any:
        """Answer as before when nothing has changed that the answer depended on."""
        if self.running.catalog.memory.open is not None:  # which sees the rows as they were when it began
            return proceed(asked)
        served = chosen(self.running, asked.query.model, asked.served_as)
        answer, asked.notes["cached"] = self._cache.answer(asked.query, served)
        return answer

    def _read(self, asked: Asked) -> Any:
        return asked.query.answer(chosen(self.running, asked.query.model, asked.served_as))


def _around(step: QueryMiddleware, inner: ProceedAsking) -> ProceedAsking:
    return lambda asked: step(asked, inner)
