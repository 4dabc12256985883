"""A serving: one read model, served one way, and the questions that it answers.

Owns the text of each question; what moves the rows is in `moving.py`, which servings there are in `servings.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars
import pyarrow as pa
from tqdm.auto import tqdm

from cqrs_lab.errors import NotServed, ProjectionFailed, RebuildNeeded, RebuildRefused
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.read.explain import Explanation, explain
from cqrs_lab.read.moving import SERVINGS, Check, ServedAs, Tell
from cqrs_lab.read.projection import Projection
from cqrs_lab.sql.names import quote
from cqrs_lab.store.categories import aware_value, naive
from cqrs_lab.store.database import Row
from cqrs_lab.store.followers import pause_after
from cqrs_lab.store.rows import Rows

if TYPE_CHECKING:
    from cqrs_lab.read.servings import Servings


class Served:
    """One read model, served one way: what `lab.serve` returns."""

    def __init__(self, side: Servings, model: ReadModel, as_: ServedAs, mode: str = "manual") -> None:
        self.model, self.as_, self.mode = model, as_, mode
        self._side = side
        self._database = side.log.database
        self._table = f"{quote(as_)}.{quote(model.name)}"
        self.stored = side.kept(model, as_, mode)
        self._columns = side.columns(model)

    def __repr__(self) -> str:
        return f"<{self.model.name} as {self.as_}, at position {self.position} of {self._side.log.head}>"

    @property
    def _fingerprint(self) -> str:
        return self._side.fingerprint(self.model)

    # -- questions -------------------------------------------------------------------------------------------------

    def get(self, *key: Any) -> dict[str, Any] | None:
        """Return the row with that key as a dict, None when there is none."""
        equals = self._side.keyed(self.model, key)
        if None in key:
            rows = self.where(**equals).fetchall()
            return _as_dict(self._columns, rows[0]) if rows else None
        values = equals.values()
        rows = self._database.execute(self._select_by_key(), [as_stored(value) for value in values])
        return _as_dict(self._columns, rows[0]) if rows else None

    def where(self, **equals: Any) -> Rows:
        """Return the rows whose columns equal the given values (None: is empty), ordered by key."""
        condition, params = self._side.conditions(self.model, equals)
        return Rows(self._side.log, f"{self._select()} WHERE {condition} ORDER BY {self._order()}", params)

    def sql(self, question: str, params: Sequence[Any] = ()) -> Rows:
        """Return the answer to a SELECT that names this read model.

        Other read models that it names are read from their freshest serving.

        Args:
            params: a value for each ? in it.

        Raises:
            QueryFailed: DuckDB refused it, or it is not one SELECT.
        """
        views = {self.model.name: self._select()}
        for model in self._side.mentioned(question):
            if model.name != self.model.name:
                views[model.name] = self._side.freshest(model)._select()
        return Rows(self._side.log, question, [as_stored(value) for value in params], views=views)

    def rows(self) -> Rows:
        """Return all rows, ordered by key."""
        return Rows(self._side.log, f"{self._select()} ORDER BY {self._order()}")

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
            return self._side.log.head
        found = self._side.checkpoint(self.model, self.as_)
        return found.position if found else 0

    @property
    def text(self) -> str:
        """The SELECT with its layers written out and its sources as they read now."""
        return self.model.expanded(self._side.models, self._side.log.source)

    @property
    def state(self) -> str:
        """Whether the rows are usable: "ok", or "rebuild needed" when another SELECT made them."""
        found = self._side.checkpoint(self.model, self.as_)
        return "ok" if found is None or found.fingerprint == self._fingerprint else "rebuild needed"

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
            return self._side.log.head
        if self.as_ == "materialized":
            raise NotServed(f"{self.model.name} is materialized: it is refreshed whole; call refresh()")
        running, attempts = self._side.running, self._side.dead.attempts(self.model.name, attempts)
        with self._database.lock(SERVINGS):
            running.failures.pop((self.model.id, self.as_), None)  # counted from now
        while True:
            try:
                with self._database.lock(SERVINGS):
                    self._check_fresh_text()
                    return running.forward(self.stored, to, attempts)
            except ProjectionFailed:
                tried = running.attempts(self.stored)
                if not 0 < tried < attempts:
                    raise
                time.sleep(pause_after(tried))  # and others go on meanwhile

    def refresh(self) -> int:
        """Build a materialized table anew and return the position it is fresh to; the old rows serve until then."""
        if self.as_ != "materialized":
            raise NotServed(f"{self.model.name} is served as {self.as_}; refresh() is for materialized tables")
        return self.rebuild()

    def rebuild(self, *, check: Check | None = None, to: int | None = None, progress: bool = False) -> int:
        """Fold the log anew, beside the old rows, which serve until the new ones take their place.

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
            stack.enter_context(self._database.lock(SERVINGS))
            if self.as_ != "view":
                return self._side.running.rebuild(self.stored, to, check, tell)
            self.stored.create_view()
            return self._side.log.head

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
        return self._side.lag([self])

    def explain(self) -> Explanation:
        """Return how this serving works and the SQL it runs."""
        if isinstance(self.model, Projection):
            return self.model.explain()
        plan = self._side.plan(self.model)
        return explain(self.model, self.as_, plan, self.text, self._table, self._select_by_key())

    # -- making ----------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Build the serving when it is not there yet."""
        if self._side.checkpoint(self.model, self.as_) is None:
            if self.as_ == "view" and self._database.read_only:
                return  # a view needs nothing stored: its text is asked instead
            if isinstance(self.model, Projection) and self.model.side_effect:
                with self.stored.moving_to(self._side.log.head):
                    return  # what happened before has had its effects
            try:
                if not isinstance(self.model, Projection):
                    self.rebuild()
                    return
            except ProjectionFailed:
                if not self._side.dead.is_told(self.model.name):
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

    def _select(self) -> str:
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
        return f"{self._select()} WHERE {' AND '.join(f'{quote(key)} = ?' for key in self.model.keys)}"

    def _order(self) -> str:
        return ", ".join(map(quote, self.model.keys))


@contextmanager
def progress_bar(name: str) -> Iterator[Tell]:
    """Show a progress bar; yields what moves it to a part of the work, from 0 to 1."""
    with tqdm(total=100, desc=name, unit="%", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}") as bar:

        def tell(part: float) -> None:
            bar.n = round(100 * part)
            bar.refresh()

        yield tell


def as_stored(value: Any) -> Any:
    """Return a value as the store keeps it: times in UTC, without their zone."""
    return naive(value) if isinstance(value, datetime) else value


def _as_dict(columns: Iterable[str], row: Row) -> dict[str, Any]:
    return {name: aware_value(value) for name, value in zip(columns, row, strict=True)}
