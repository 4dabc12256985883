"""The catalogue: which read models a lab knows, and what follows from their SELECTs alone.

Owns the names of read models, their columns, plans and fingerprints. It moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from cqrs_lab.errors import CqrsLabError, QueryFailed, ReadModelRefused, UnknownEventType, UnknownReadModel
from cqrs_lab.ivm.orders import order_reasons
from cqrs_lab.ivm.plan import AnyPlan, Recompute, plan_of
from cqrs_lab.ivm.read_model import ReadModel, written_out
from cqrs_lab.read.projection import Model, Projection
from cqrs_lab.sql.bound import bound_calls, bound_reasons
from cqrs_lab.sql.names import names_events, quote
from cqrs_lab.sql.places import places
from cqrs_lab.store.bounds import Bound
from cqrs_lab.store.categories import ENVELOPE, as_stored
from cqrs_lab.store.dead_letters import DeadLetters
from cqrs_lab.store.log import Log
from cqrs_lab.store.memory import Checkpoint, Text

# Columns of a SELECT over tables of a shape, once they were checked: ten read models bind in 60 ms.
_COLUMNS: dict[tuple[str, str], tuple[str, ...]] = {}


class Catalog:
    """The read models of one lab.

    Args:
        log: the log that they read.
        models: those that the domain declares.

    Attributes:
        models: by name in lower case.
        memory: what is known of the store.
        dead: the events that were set aside.
    """

    def __init__(self, log: Log, models: Iterable[Model]) -> None:
        self.log, self.memory, self.dead = log, log.memory, DeadLetters(log)
        self.models: dict[str, Model] = {}
        self._bound: dict[Model, tuple[str, ...]] = {}
        self._plans: dict[Model, AnyPlan] = {}
        self._fingerprints: dict[Model, str] = {}
        self._types: dict[Model, dict[str, str]] = {}
        self._texts: Mapping[str, Text] = {}  # those that the world is made of
        self._strangers: dict[str, ReadModel] = {}
        for model in models:
            if model.name.lower() in self.models:
                raise ReadModelRefused(f"two read models are called {model.name!r}; names differ in more than case")
            self.declare(model)

    def declare(self, model: Model) -> Model:
        """Take a read model in, replacing one of the same name.

        Raises:
            ReadModelRefused: it reads what is not there, or sums inexact numbers.
        """
        tables = self._tables()
        for layer in model.over:
            if layer.name.lower() not in self.models:
                self.declare(layer)
        for source in model.sources():
            name = source.name.lower()
            if name == model.id:
                raise ReadModelRefused(f"read model {model.name!r} reads itself")
            if name in self.models and model.id in {other.lower() for other in self.below(self.models[name])}:
                raise ReadModelRefused(f"read model {model.name!r} reads {source.name!r}, which is built on it")
            if name not in map(str.lower, tables) and name not in self.models:
                known = ", ".join([*tables, *(m.name for m in self.models.values())])
                raise ReadModelRefused(
                    f"read model {model.name!r} reads {source.name!r}, which is neither a table of events nor a read "
                    f"model declared before it; there are {known}"
                )
            if isinstance(self.models.get(name), Projection):
                raise ReadModelRefused(f"read model {model.name!r} reads {name!r}, which handlers in Python make")
        if isinstance(model, Projection):
            model.check(self.log.categories.values())
        else:  # again, because now it is known what the layers are
            reasons = list(dict.fromkeys(order_reasons(model.tree, self.known)))
            if reasons:
                raise ReadModelRefused(f"read model {model.name!r} was refused: {'; '.join(reasons)}")
        with suppress(UnknownEventType):  # said when it is asked; the store must open for other questions
            self.columns(model)  # before it takes a name: what is refused must not stand in the way of what was there
        self.models[model.name.lower()] = model
        self._fingerprints.clear()  # a model built on this one is another one now
        self._plans.clear()
        self._types.clear()
        return model

    def find(self, model: Model | str, *, stored: bool = False) -> Model:
        """Return the read model of that name.

        Args:
            stored: take in one that the store knows because it was served before.
        """
        if not isinstance(model, str):
            return model if self.models.get(model.name.lower()) == model else self.declare(model)
        found = self.models.get(model.lower())
        if found is None:
            known = self.known.get(model.lower()) if stored else None
            if known is not None:  # served in this store before, by another domain
                for source in known.sources() if isinstance(known, ReadModel) else ():
                    if source.name.lower() in self.known and source.name.lower() not in self.models:
                        self.find(source.name, stored=True)  # what it is built on comes first
                return self.declare(known)
            there = ", ".join(m.name for m in self.models.values()) or "none"
            raise UnknownReadModel(f"no read model is called {model!r}; there are {there}")
        return found

    def below(self, model: Model) -> set[str]:
        """Return the names of a read model and of all that it is built on."""
        names = {model.name}
        for source in model.sources():
            layer = self.models.get(source.name.lower())
            names |= self.below(layer) if layer else set()
        return names

    def reads(self, model: Model, table: str) -> bool:
        """Return whether the rows of a read model follow from a table of events, by its name."""
        if isinstance(model, Projection):
            categories = (
                category for category in self.log.categories.values() if category.table.lower() == table.lower()
            )
            return not model.side_effect and any(model.handlers.keys() & set(c.types.values()) for c in categories)
        names = {source.name.lower() for source in model.sources()}
        return table.lower() in names or any(
            self.reads(self.models[name], table) for name in names if name in self.models
        )

    def tables_of(self, model: Model) -> list[str]:
        """Return the tables of events that the rows of a read model follow from."""
        return [table for table in self._tables() if self.reads(model, table)]

    def mentioned(self, sql: str) -> Iterator[Model]:
        """Yield the read models whose names occur in a text."""
        folded = sql.lower()
        return (model for name, model in self.models.items() if name in folded)

    def columns(self, model: Model) -> tuple[str, ...]:
        """Return the read model's columns, checking on the way that its SELECT fits the log."""
        if isinstance(model, Projection):
            return tuple(model.columns)
        if model not in self._bound:
            text = model.expanded(self.known, self.log.source)
            known = (text, self.log.shape)
            if known not in _COLUMNS:
                try:
                    columns = tuple(self.log.database.columns(text))
                    self._check_calls(model, text)
                except QueryFailed as error:
                    raise ReadModelRefused(f"read model {model.name!r}: {error}") from error
                _COLUMNS[known] = columns
            there = {column.lower() for column in _COLUMNS[known]}
            for name in (name for index in model.indexes for name in index):
                if name.lower() not in there:
                    told = ", ".join(_COLUMNS[known])
                    raise ReadModelRefused(f"read model {model.name!r} has no column {name!r} to index; it has {told}")
            self._bound[model] = _COLUMNS[known]
        return self._bound[model]

    def keyed(self, model: Model, key: tuple[Any, ...]) -> dict[str, Any]:
        """Return the key's columns with their values, refusing too few or too many."""
        if len(key) != len(model.keys):
            raise QueryFailed(f"{model.name} has the key {', '.join(model.keys)}; {len(key)} values were given")
        return dict(zip(model.keys, key, strict=True))

    def conditions(self, model: Model, equals: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """Return the SQL condition, and its values, that columns equal values (None: is empty)."""
        columns = {name.lower() for name in self.columns(model)}
        parts, params = [], []
        for name, value in equals.items():
            if name.lower() not in columns:
                raise QueryFailed(f"{model.name} has no column {name!r}; it has {', '.join(self.columns(model))}")
            if value is None:
                parts.append(f"{quote(name)} IS NULL")
            else:
                parts.append(f"{quote(name)} = ?")
                params.append(as_stored(value))
        return " AND ".join(parts) or "true", params

    def fingerprint(self, model: Model) -> str:
        """Return what tells the read model's SELECT, with its layers and the upcasts below them, from another one."""
        if isinstance(model, Projection):  # its handlers may come later
            return model.fingerprint
        if model not in self._fingerprints:
            self._fingerprints[model] = model.fingerprint(self.known, self.log.meaning)
        return self._fingerprints[model]

    def window(
        self, start: Bound, end: Bound | None, *models: Model, columns: Iterable[str] | None = None, at: str = ""
    ) -> Callable[[str], str]:
        """Return what reads, of a table of events, those after `start` up to `end`.

        Args:
            models: whose dead letters are left out.
            columns, at: as of `Log.window`.
        """
        without = "".join(self.dead.without(name) for name in dict.fromkeys(model.name for model in models))
        # Which ends with its WHERE.
        return lambda table: f"{self.log.window(table, after=start, to=end, columns=columns, at=at)}{without}"

    def expanded(self, model: ReadModel, start: int, end: int) -> str:
        """Return a read model's text over a window of the log, for each of its layers without its dead letters."""
        return written_out(model, self.known, lambda layer, table: self.window(start, end, layer)(table))

    def types(self, model: Model, table: str) -> dict[str, str]:
        """Return the columns of a read model's rows as they are stored, with their types; they follow from its text."""
        if model not in self._types:
            # An earlier version spelled the columns of a table as the SELECT does, and not as its source.
            spelled = {name.lower(): name for name in (*self.columns(model), *self.plan(model).hidden)}
            stored = self.log.database.columns(f"FROM {table}")
            self._types[model] = {spelled.get(name.lower(), name): kind for name, kind in stored.items()}
        return self._types[model]

    def plan(self, model: Model) -> AnyPlan:
        """Return how the rows of a read model move."""
        if model not in self._plans:
            if isinstance(model, Projection):
                self._plans[model] = Recompute(model, "handlers in Python make its rows")
            else:
                self._plans[model] = plan_of(model, self.columns_of, self.known, self.plan, self.columns(model))
        return self._plans[model]

    def checkpoint(self, model: Model, kind: str) -> Checkpoint | None:
        """Return what a serving of a read model says of itself, None when there is none."""
        return self.memory.checkpoint((model.id, kind))

    def readers(self, model: Model) -> tuple[list[ReadModel], list[str]]:
        """Return the projections in the store that read another one's rows, and those of which that is not known.

        A store knows the text of what was served in it, so that a lab which does not declare a projection can tell all
        the same which of its rows a change reaches.

        Returns:
            The read models whose rows move with it; the names in lower case of those that need a rebuild after it.
        """
        found, unknown = [], []
        for (name, kind), checkpoint in self.memory.checkpoints.items():
            if kind != "projection" or name == model.id or isinstance(self.models.get(name), Projection):
                continue
            other = self._as_served(name, checkpoint)
            if other is not None:
                if model.id in self.plan(other).layers:
                    found.append(other)
            elif checkpoint.fingerprint and self._may_read(name, model):
                unknown.append(name)
        return found, unknown

    def _as_served(self, name: str, checkpoint: Checkpoint) -> ReadModel | None:
        """The read model that made the rows of a projection: the one declared here, or the one that the store knows."""
        declared = self.models.get(name)
        if isinstance(declared, ReadModel) and self.fingerprint(declared) == checkpoint.fingerprint:
            return declared
        self._look()
        stranger = self._strangers.get(name)
        with suppress(CqrsLabError):  # it reads what this domain cannot
            if stranger is not None and self.fingerprint(stranger) == checkpoint.fingerprint and self.columns(stranger):
                return stranger
        return None

    def _may_read(self, name: str, model: Model) -> bool:
        """Whether a projection of the store, of which no more is known, may read the rows of another one."""
        text = self.memory.texts.get(name)
        if text is None:
            return True
        try:  # one in Python has no SELECT and reads none
            return bool(text.sql) and model.id in {place.name.lower() for place in places(text.sql)}
        except QueryFailed:
            return True

    def _look(self) -> None:
        """Take in the texts of read models that were served in the store, by whatever domain."""
        if self._texts is self.memory.texts:
            return
        self._texts, self._strangers = self.memory.texts, {}
        for name, text in self._texts.items():
            if text.sql:
                with suppress(CqrsLabError):  # another version of this package may allow what this one refuses
                    self._strangers[name] = ReadModel(text.name, text.key, text.sql)
        self._plans.clear()
        self._fingerprints.clear()
        self._types.clear()

    @property
    def known(self) -> dict[str, ReadModel]:
        """The read models of this lab, and those that the store knows beside them."""
        self._look()
        declared = {name: model for name, model in self.models.items() if isinstance(model, ReadModel)}
        return {**self._strangers, **declared}

    def columns_of(self, name: str) -> Iterable[str]:
        """Return the columns of a table of events or of a read model, by its name in lower case."""
        category = next((c for c in self.log.categories.values() if c.table.lower() == name), None)
        if category is not None:
            return [*ENVELOPE, *category.columns]
        tables = {f"{category}_events".lower(): columns for category, columns in self.log.heads.tables.items()}
        return [*ENVELOPE, *tables[name]] if names_events(name) else self.columns(self.known[name])

    def _tables(self) -> list[str]:
        return [category.table for category in self.log.categories.values()]

    def _check_calls(self, model: Model, text: str) -> None:
        """Refuse calls that are no functions of the events once DuckDB has bound them, such as a sum of DOUBLE."""
        try:
            reasons = dict.fromkeys(bound_reasons(bound_calls(self.log.database.execute, text)))
        except QueryFailed as error:
            raise ReadModelRefused(
                f"read model {model.name!r} could not be judged: {error}\nWrite it without what DuckDB cannot show a "
                "plan of"
            ) from error
        if reasons:
            raise ReadModelRefused(f"read model {model.name!r} was refused: {'; '.join(reasons)}")
