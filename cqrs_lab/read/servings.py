"""Servings: which read models of a lab are served, and what is asked of all of them together.

Owns the making of servings, waiting for them, and what happens to them when something in the past of the log changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from cqrs_lab.errors import CqrsLabError, NotServed, QueryError, StoreError, UnknownEventType
from cqrs_lab.read.adopting import Replayed
from cqrs_lab.read.catalog import Catalog
from cqrs_lab.read.kept import keep, remade
from cqrs_lab.read.projection import Model, Projection
from cqrs_lab.read.runner import Running
from cqrs_lab.read.served import Served, standing
from cqrs_lab.read.table import STORED, WAYS, ServedAs, drop_unfinished, mode_of
from cqrs_lab.sql.names import quote
from cqrs_lab.store.answers import Key
from cqrs_lab.store.dead_letters import OnError
from cqrs_lab.store.followers import Follower, lag
from cqrs_lab.store.move import SERVINGS, moving
from cqrs_lab.store.rows import Rows


class Servings:
    """The servings of one lab.

    Args:
        catalog: its read models.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.running = catalog, Running(catalog)
        self._log, self._memory = catalog.log, catalog.memory
        self._fitted: dict[tuple[str, str], Model] = {}
        modes = {checkpoint.mode.split(" ")[0] for checkpoint in self._memory.checkpoints.values()}
        if not self._log.database.read_only and modes & {"background", "every"}:
            self.running.start()

    def serve(
        self,
        model: Model | str,
        as_: ServedAs,
        mode: str | None = None,
        refresh_every: int | timedelta | None = None,
        on_error: OnError | None = None,
        keep_history: bool | None = None,
        *,
        rebuild: bool = False,
        from_rows: Replayed | None = None,
    ) -> Served:
        """Build a serving up to the head when it is new, attach to it when it is there (see `Lab.serve`)."""
        if as_ not in WAYS:
            raise NotServed(f"a read model is served as {', '.join(WAYS)}, not as {as_!r}")
        wanted = mode_of(mode, as_, refresh_every)
        found = self.catalog.find(model, stored=True)
        if isinstance(found, Projection):
            found.check_served(as_, wanted)
        if keep_history and as_ != "projection":
            raise NotServed(f"the history of a projection is kept; {found.name} as {as_} has none that moves with it")
        if on_error is not None and as_ != "projection":
            raise NotServed(f"on_error is for projections; {found.name} as {as_} has no events to set aside")
        with self._log.database.lock(f"serve {found.id} as {as_}"):  # two threads make one serving
            if on_error is not None:
                self.catalog.dead.tell(found.name, on_error)
            there = self.catalog.checkpoint(found, as_)
            served = Served(self.running, found, as_, wanted or (there.mode if there else "manual"))
            if from_rows is not None:
                self.running.adopt(served.stored, from_rows)
            elif there is None or as_ == "view":
                served.make()
            if there is not None and there.mode != served.mode and as_ != "view":
                with self._log.database.lock(SERVINGS):
                    served.stored.write_mode()
            if rebuild and served.state != "ok":
                served.rebuild()
            if as_ in STORED and self._fitted.get((found.id, as_)) is not found and not self._log.database.read_only:
                with self._log.database.lock(SERVINGS):
                    if served.stored.is_fit:  # a rebuild makes them, too
                        served.stored.fit_indexes()
                self._fitted[found.id, as_] = found
            if keep_history is not None:
                keep(self.catalog, found, wanted=keep_history)
        if served.mode not in ("manual", "inline"):
            self.running.start()
        return served

    def served(self) -> list[Served]:
        """Return every serving in the store whose read model is declared here."""
        return [
            Served(self.running, self.catalog.models[name], as_, checkpoint.mode)
            for (name, as_), checkpoint in sorted(self._memory.checkpoints.items())
            if name in self.catalog.models and as_ in WAYS
        ]

    def erase(self, table: str, forget: Callable[[Callable[[], None], Iterable[Key]], int]) -> int:
        """Erase something in the past of a table of events, and in all that was made of it, as one move.

        No read model keeps it from that: one that cannot be made again is left without rows, and says why in `lag`.

        Args:
            forget: erases it in the log; given what makes all rows again that read the table, to be called in its move,
                and the servings (model, served_as) of which nobody here knows what they read.

        Returns:
            What `forget` returns.
        """
        unmade: set[Key] = set()
        while True:
            known = len(unmade)
            try:
                with (
                    self._memory.erasing(),
                    self._log.append_lock(),
                    self._remaking(table, unmade) as (remake, strange),
                ):
                    return forget(remake, strange)
            except (QueryError, UnknownEventType):  # it undid all of the move, so that it is begun again
                if len(unmade) == known:
                    raise

    @contextmanager
    def _remaking(self, table: str, unmade: set[Key]) -> Iterator[tuple[Callable[[], None], list[Key]]]:
        """Hold all servings while something changes in the past of a table of events.

        Args:
            unmade: those that could not be made again; one that fails is added.

        Yields:
            What makes all rows again that read it, to be called in the move of the change, and the servings (model,
            served_as) of which nobody here knows what they read.
        """

        def concerned(model: Model) -> bool:
            return self.catalog.reads(model, table)

        with self._log.database.lock(SERVINGS), remade(self.catalog, concerned) as drop_histories:
            drop_unfinished(self._memory)
            reading = [s for s in self.served() if s.as_ != "view" and concerned(s.model)]
            # What is built on another one comes after it, so that nothing is noted for what is made again anyway.
            reading.sort(key=lambda s: list(self.catalog.models).index(s.model.id))
            kinds = (*STORED, "history")
            strange = [key for key in self._memory.checkpoints if key[0] not in self.catalog.models and key[1] in kinds]

            def remake() -> None:
                with moving(self._memory) as move:
                    move.change(None)
                    self._memory.answers.drop(None)  # what was erased must not live on in an answer
                    # What an error says may be what is to be erased; its kind is kept.
                    self._log.database.execute(
                        "UPDATE dead_letters SET error = split_part(error, ':', 1) "
                        f"WHERE position IN (SELECT position FROM {quote(table)})"
                    )
                    drop_histories()
                    for served in reading:
                        if served.stored.place in unmade:
                            served.stored.empty()
                            continue
                        try:
                            served.rebuild()
                        except (QueryError, UnknownEventType):
                            unmade.add(served.stored.place)
                            raise

            yield remake, strange
            self._log.database.checkpoint()

    def catch_up(self) -> int:
        """Move every projection to the head and return the head; one that fails does not keep the others from moving.

        Raises:
            CqrsLabError: the first that failed, after all have been tried.
        """
        errors: list[CqrsLabError] = []
        order = list(self.catalog.models)  # each after those that it is built on
        for served in sorted(self.served(), key=lambda served: order.index(served.model.id)):
            if served.as_ == "projection":
                try:
                    served.catch_up()
                except StoreError:
                    raise
                except CqrsLabError as error:
                    errors.append(error)
        if errors:
            raise errors[0]
        return self._log.head

    def lag(self, followers: Iterable[Follower] = ()) -> Rows:
        """Return how far servings and followers are behind the log (see `Lab.lag`)."""
        told = [standing(served) for served in self.served()]
        for one in followers:
            state = "stopped" if one.error else one.dead.state(one.name)
            told.append((one.name, one.kind, "manual", one.position, state, one.error))
        return lag(self._log, told)
