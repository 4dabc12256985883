"""A serving: one read model, served one way, and the questions that it answers.

Owns the text of each question, and the choice among the servings of a read model.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any

import pandas as pd
import polars
import pyarrow as pa

from cqrs_lab.errors import NotServed, NotYet, ProjectionFailed, RebuildNeeded, RebuildRefused
from cqrs_lab.read.adopting import Replayed
from cqrs_lab.read.explain import Explanation, explain
from cqrs_lab.read.handled import stored_of
from cqrs_lab.read.projection import Model, Projection
from cqrs_lab.read.runner import Failure, Running
from cqrs_lab.read.stored import Check
from cqrs_lab.read.table import WAYS, ServedAs
from cqrs_lab.sql.names import quote
from cqrs_lab.store.categories import as_stored, aware_value
from cqrs_lab.store.database import Row
from cqrs_lab.store.followers import Standing, lag, pause_after
from cqrs_lab.store.progress import progress_bar
from cqrs_lab.store.rows import Rows


class Served:
    """One read model, served one way: what `lab.serve` returns."""

    def __init__(self, running: Running, model: Model, as_: ServedAs, mode: str = "manual") -> None:
        self.model, self.as_, self.mode = model, as_, mode
        self.running, self._catalog, self._log = running, running.catalog, running.catalog.log
        self._table = f"{quote(as_)}.{quote(model.name)}"
        self.stored = stored_of(self._catalog, model, as_, mode)
        self._columns = self._catalog.columns(model)

    def __repr__(self) -> str:
        return f"<{self.model.name} as {self.as_}, at position {self.position} of {self._log.head}>"

    # -- questions -------------------------------------------------------------------------------------------------

    def get(self, *key: Any) -> dict[str, Any] | None:
        """Return the row with that key as a dict, None when there is none."""
        equals = self._catalog.keyed(self.model, key)
        if None not in key:
            values = [as_stored(value) for value in equals.values()]
            rows = self._log.database.execute(self._select_by_key(), values)
            # DuckDB hands out intervals and maps in other shapes than Arrow does; those of Arrow are ours.
            if not rows or not any(isinstance(value, timedelta | dict | list) for value in rows[0]):
                return _as_dict(self._columns, rows[0]) if rows else None
        return next(iter(self.where(**equals).dicts()), None)

    def where(self, **equals: Any) -> Rows:
        """Return the rows whose columns equal the given values (None: is empty), ordered by key."""
        condition, params = self._catalog.conditions(self.model, equals)
        return Rows(self._log, f"{self.select()} WHERE {condition} ORDER BY {self._order()}", params)

    def sql(self, question: str, params: Sequence[Any] = ()) -> Rows:
        """Return the answer to a SELECT that names this read model.

        Other read models that it names are read from their freshest serving.

        Args:
            params: a value for each ? in it.

        Raises:
            QueryFailed: DuckDB refused it, or it is not one SELECT.
        """
        views = views_of(self.running, question, but=self.model.name) | {self.model.name: self.select()}
        return Rows(self._log, question, [as_stored(value) for value in params], views=views)

    def rows(self) -> Rows:
        """Return all rows, ordered by key."""
        return Rows(self._log, f"{self.select()} ORDER BY {self._order()}")

    def pl(self) -> polars.DataFrame:
        """Return all rows as a Polars frame, ordered by key."""
        return self.rows().pl()

    def df(self) -> pd.DataFrame:
        """Return all rows as a pandas frame, ordered by key."""
        return self.rows().df()

    def arrow(self) -> pa.Table:
        """Return all rows as an Arrow table, ordered by key."""
        return self.rows().arrow()

    # -- moving ----------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The position up to which the rows tell the log; a view's is the head."""
        if self.as_ == "view":
            return self._log.head
        found = self._catalog.checkpoint(self.model, self.as_)
        return found.position if found else 0

    @property
    def text(self) -> str:
        """The SELECT with its layers written out and its sources as they read now."""
        return self.model.expanded(self._catalog.known, self._log.source)

    @property
    def state(self) -> str:
        """Whether the rows are usable: "ok", or "rebuild needed" when another SELECT made them; a view keeps none."""
        if self.as_ == "view":
            return "ok"
        found = self._catalog.checkpoint(self.model, self.as_)
        return "ok" if found is None or found.fingerprint == self._catalog.fingerprint(self.model) else "rebuild needed"

    def catch_up(self, *, to: int | None = None, attempts: int | None = None) -> int:
        """Move a projection forward to the head, or to a position before it, and return where it is.

        A view is always there. A materialized table moves by `refresh`.

        Args:
            attempts: how often what fails is tried, with pauses that grow; None: 3 times when the event is then set
                aside as a dead letter, once when it is not.

        Raises:
            ProjectionFailed: its rows could not be written; rows and checkpoint stay as they were.
        """
        if self.as_ == "view":
            return self._log.head
        if self.as_ == "materialized":
            raise NotServed(f"{self.model.name} is materialized: it is refreshed whole; call refresh()")
        running, attempts = self.running, self._catalog.dead.attempts(self.model.name, attempts)
        running.failures.pop(self.stored.place, None)  # counted from now
        while True:
            try:
                self._check_fresh_text()
                return running.forward(self.stored, to, attempts)
            except ProjectionFailed:
                tried = running.attempts(self.stored)
                if not 0 < tried < attempts:
                    raise
                time.sleep(pause_after(tried))  # and others go on meanwhile

    def refresh(self) -> int:
        """Build a materialized table again and return the position it is fresh to; the old rows serve until then."""
        if self.as_ != "materialized":
            raise NotServed(f"{self.model.name} is served as {self.as_}; refresh() is for materialized tables")
        return self.rebuild()

    def rebuild(self, *, check: Check | None = None, to: int | None = None, progress: bool = False) -> int:
        """Fold the log again, beside the old rows, which serve until the new ones take their place.

        Args:
            check: looks at what the new rows change (Rows as `rehearse` returns them) and says whether they may.
            to: the position to fold up to; the head when None.
            progress: show a progress bar.

        Returns:
            The position reached.

        Raises:
            ProjectionFailed: the new rows could not be written; the old ones keep serving.
            RebuildRefused: `check` said no, or the rows would tell less of the log than the old ones.
        """
        with ExitStack() as stack:
            tell = stack.enter_context(progress_bar(f"rebuild {self.model.name}")) if progress else None
            if self.as_ != "view":
                return self.running.rebuild(self.stored, to, check, tell)
            self.stored.create_view()
            return self._log.head

    def adopt(self, rows: Replayed) -> int:
        """Take rows over that were made elsewhere from a copy of this log, such as by `cqrs_lab.scale.replay`.

        Rows and checkpoint are stored in one transaction; the projection then moves on from there by itself. Every
        event up to there is looked at once, to tell that it is the same log.

        Returns:
            The position reached: that of the rows, or a later one where the old rows, or the layers, are.

        Raises:
            RowsRefused: they are those of another read model or another log, or hold what was erased since.
            NotServed: this is no projection.
        """
        return self.running.adopt(self.stored, rows)

    def rehearse(self) -> Rows:
        """Return what rebuild() would change, and change nothing; nothing when the rows are what they should be.

        Old and new rows are compared as of the position that the old ones tell: what only happened since is no
        difference.

        Returns:
            Rows with change ("added", "removed" or "changed"), the key, columns (names of those that differ), before
            and after (structs, NULL where there is no row).
        """
        if self.as_ == "view" or not self._columns:
            raise NotServed(f"{self.model.name} as {self.as_} keeps no rows that could differ from its SELECT")
        seen: list[Rows] = []

        def look(changes: Rows) -> bool:
            seen.append(changes)
            return False

        with suppress(RebuildRefused):
            self.rebuild(check=look)
        return seen[0]

    def lag(self) -> Rows:
        """Return one row as `lab.lag()` has it: how far this serving is behind the log."""
        return lag(self._log, [standing(self)])

    def explain(self) -> Explanation:
        """Return how this serving works and the SQL it runs."""
        if isinstance(self.model, Projection):
            return self.model.explain()
        plan = self._catalog.plan(self.model)
        return explain(self.model, self.as_, plan, self.text, self._table, self._select_by_key())

    # -- making ----------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Build the serving when it is not there yet; a view is made again when it has another text."""
        if self.as_ == "view" and not self.stored.is_fit and not self._log.database.read_only:
            self.rebuild()
        if self._catalog.checkpoint(self.model, self.as_) is None:
            if self.as_ == "view":
                return  # read-only: a view needs nothing stored: its text is asked instead
            if isinstance(self.model, Projection) and self.model.side_effect:
                with self.stored.moving_to(self._log.head):
                    return  # what happened before has had its effects
            try:
                if not isinstance(self.model, Projection):
                    self.rebuild()
                    return
            except ProjectionFailed:
                if not self._catalog.dead.is_told(self.model.name):
                    raise
            self.stored.build(0)
            self.catch_up()

    def _check_fresh_text(self) -> None:
        if self.state != "ok":
            what = "by other columns or handlers" if isinstance(self.model, Projection) else "from another SELECT"
            raise RebuildNeeded(
                f"{self.model.name} as {self.as_} was built {what} than the one declared now; "
                "its rows were kept. Call rebuild() on it"
            )

    # -- text ------------------------------------------------------------------------------------------------------

    def select(self) -> str:
        """Return the SELECT of its rows."""
        self._check_fresh_text()
        if not self._columns:
            raise NotServed(f"{self.model.name} is there for its side effects and has no rows to read")
        columns = ", ".join(map(quote, self._columns))
        source = self._table
        if self.as_ == "view":
            # What DuckDB keeps of it is for other programs: here its text is asked as it reads now, because a version
            # of an event may have come since that has to be lifted.
            source = f"({self.text}\n)"
        return f"SELECT {columns} FROM {source}"

    def _select_by_key(self) -> str:
        return f"{self.select()} WHERE {' AND '.join(f'{quote(key)} = ?' for key in self.model.keys)}"

    def _order(self) -> str:
        return ", ".join(map(quote, self.model.keys))


def chosen(running: Running, model: Model, served_as: ServedAs | None) -> Served:
    """Return the serving that is asked for, the freshest when None.

    Raises:
        NotServed: the read model is not served that way.
    """
    if served_as is None:
        return freshest(running, model)
    if served_as not in WAYS:
        raise NotServed(f"a read model is served as {', '.join(WAYS)}, not as {served_as!r}")
    found = running.catalog.checkpoint(model, served_as)
    if found is None:
        raise NotServed(
            f"{model.name} is not served as {served_as} here; call lab.serve({model.name}, as_={served_as!r}) first"
        )
    return Served(running, model, served_as, found.mode)


def freshest(running: Running, model: Model) -> Served:
    """Return the serving that tells most of the log; among equals the one that is cheapest to read.

    A read model that is not served at all is read through its SELECT, as a view would.
    """
    cheapest = {"projection": 2, "materialized": 1, "view": 0}
    ways = [(way, found.mode) for way in WAYS if (found := running.catalog.checkpoint(model, way)) is not None]
    there = [served for way, mode in ways if (served := Served(running, model, way, mode)).state == "ok"]
    if not there:
        return Served(running, model, "view")
    return max(there, key=lambda served: (served.position, cheapest[served.as_]))


def views_of(running: Running, question: str, but: str = "") -> dict[str, str]:
    """Return the SELECTs of the read models that a question names, each from its freshest serving, by name.

    Args:
        but: the name of one that is left out.
    """
    return {m.name: freshest(running, m).select() for m in running.catalog.mentioned(question) if m.name != but}


def reach(running: Running, model: Model, position: int, timeout: float, served_as: ServedAs | None = None) -> None:
    """Return once a serving of a read model tells the log up to a position.

    What does not move by itself is moved.

    Raises:
        NotYet: it did not get there in time, or it fails; says how far it got and why.
        NotServed: the position is not in the log.
    """
    log, moved = running.catalog.log, running.catalog.memory.moved
    if position > log.head:
        raise NotServed(f"position {position:,} is not in the log, which ends at {log.head:,}")
    until = time.monotonic() + timeout
    served = chosen(running, model, served_as)
    while served.position < position:
        stored = served.stored
        if stored.mode == "manual":
            served.catch_up() if stored.as_ == "projection" else running.forward(stored)
            return
        failure = running.failures.get(stored.place)
        left = until - time.monotonic()
        if left <= 0 or (failure is not None and failure.again_at is None):
            why = f"; it fails: {failure.error}" if failure else ""
            raise NotYet(
                f"{model.name} as {stored.as_} ({stored.mode}) is at position {served.position:,} and not yet at "
                f"{position:,} after {timeout:g} s{why}. Wait longer, or look at lab.lag()",
                served.position,
            )
        with moved:
            if served.position < position:
                moved.wait(min(left, 0.5))


def standing(served: Served) -> Standing:
    """Return how far a serving has come, and whether it goes on."""
    failure = served.running.failures.get(served.stored.place)
    error = failure.error if failure else None
    return served.model.name, served.as_, served.mode, served.position, _state(served, failure), error


def _state(served: Served, failure: Failure | None) -> str:
    if served.state != "ok":
        return served.state
    if failure is not None:
        return "stopped" if failure.again_at is None or served.mode in ("manual", "inline") else "failing"
    catalog = served.running.catalog
    letters = catalog.dead.state(served.model.name) if served.as_ == "projection" else "ok"
    by_thread = served.mode not in ("manual", "inline") and not catalog.log.database.read_only
    return "stopped: its thread does not run" if by_thread and not served.running.is_alive else letters


def _as_dict(columns: Iterable[str], row: Row) -> dict[str, Any]:
    return {name: aware_value(value) for name, value in zip(columns, row, strict=True)}
