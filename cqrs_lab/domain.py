"""The domain: what a lab is about, declared. Owns no behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.messages import Event, Query
from cqrs_lab.read.projection import Projection
from cqrs_lab.read.queries import QueryMiddleware
from cqrs_lab.write.decider import Decider, Service
from cqrs_lab.write.middleware import Middleware, Policy
from cqrs_lab.write.sagas import Saga


@dataclass(frozen=True)
class Domain:
    """What a lab is about.

    Args:
        deciders: the write side, one for each category of streams.
        read_models: the read side; a model that reads another one comes after it.
        projections: read models whose rows handlers in Python make.
        queries: the questions that can be asked.
        services: the world outside that commands can reach.
        sagas: processes over several streams; each is set to work by `Lab.follow`.
        policy: (command, who sends it) -> None when that is allowed, else the reason why not.
        middleware: what else happens around every command (see `cqrs_lab.write.middleware`), outermost first.
        query_middleware: what else happens around every query (see `cqrs_lab.read.queries`), outermost first.
    """

    deciders: Sequence[Decider] = ()
    read_models: Sequence[ReadModel] = ()
    projections: Sequence[Projection] = ()
    queries: Sequence[type[Query]] = ()
    services: Sequence[Service] = ()
    sagas: Sequence[Saga] = ()
    policy: Policy | None = None
    middleware: Sequence[Middleware] = ()
    query_middleware: Sequence[QueryMiddleware] = ()

    @classmethod
    def of_events(
        cls,
        category: str,
        *,
        key: str,
        events: Sequence[type[Event]],
        read_models: Sequence[ReadModel] = (),
        projections: Sequence[Projection] = (),
        queries: Sequence[type[Query]] = (),
    ) -> Self:
        """Return the domain of facts that are declared and not decided: a log that comes from elsewhere.

        They come in by `Lab.append_table` and `Lab.record`; no command is handled.

        Args:
            category: name of the category, such as "case"; its table is called case_events.
            key: the field of each event that names the thing, such as "case_id".
            events: the event classes.
            read_models, projections, queries: the read side.

        Raises:
            DeclarationError: an event lacks the key, or names collide.
        """
        facts = Decider(category, key, None, _decide_nothing, _keep, [], list(events))
        return cls([facts], read_models=read_models, projections=projections, queries=queries)


def _decide_nothing(command: Any, state: Any) -> list[Event]:
    return []


def _keep(state: Any, event: Any) -> Any:
    return state
