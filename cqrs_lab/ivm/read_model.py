"""A read model: its SELECT, declared once.

Owns the declaration. The author's text is what runs in views, tables and the past; here it is only read, and its places
are filled where a serving needs a part of the log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cqrs_lab.errors import QueryFailed, ReadModelRefused
from cqrs_lab.ivm.admission import check_model_name, reasons_against
from cqrs_lab.sql.parse import Node, first_select, item_name, syntax_tree
from cqrs_lab.sql.places import Place, bare, places, replaced

_LAYOUT = 2


class Named:
    """What has a name and a key, a SELECT or handlers making its rows."""

    name: str
    key: str | tuple[str, ...]

    @property
    def id(self) -> str:
        """The name in lower case: names are one when they differ in case only."""
        return self.name.lower()

    @property
    def keys(self) -> tuple[str, ...]:
        """The key's columns."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)


@dataclass(frozen=True)
class ReadModel(Named):
    """A read model, declared once as a SELECT over the tables of events or over other read models.

    Args:
        name: what queries call it.
        key: the column that names a row, or a tuple of columns. A key may be NULL.
        sql: the SELECT. Every column has a name; it reads nothing but the log (`order_events`, …) and other read
            models, calls no function that could answer differently tomorrow, and picks rows by a total order where it
            picks by order.
        over: read models that the SELECT names; a lab that knows none of that name takes them in with this one.
        indexes: columns, or tuples of columns, by which rows are often looked up in a projection or a materialized
            table. Each costs at every batch that changes them, and when rows are built.

    Raises:
        ReadModelRefused: with the reason.
    """

    name: str
    key: str | tuple[str, ...]
    sql: str
    over: tuple[ReadModel, ...] = field(default=(), compare=False, repr=False)
    indexes: tuple[str | tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        check_model_name("read model", self.name)
        try:
            tree = syntax_tree(self.sql)
        except QueryFailed as error:
            raise ReadModelRefused(f"read model {self.name!r}: {error}") from None
        object.__setattr__(self, "sql", bare(self.sql))
        spelled = {item_name(item).lower(): item_name(item) for item in first_select(tree).get("select_list", ())}
        keys = tuple(spelled.get(key.lower(), key) for key in self.keys)
        object.__setattr__(self, "key", keys[0] if isinstance(self.key, str) else keys)  # as the SELECT spells it
        given: object = self.indexes
        if isinstance(given, str):  # which is a tuple of its letters, too
            raise ReadModelRefused(f"read model {self.name!r}: indexes={self.indexes!r} is not a tuple of columns")
        indexes = tuple((one,) if isinstance(one, str) else tuple(one) for one in self.indexes)
        object.__setattr__(self, "indexes", tuple(dict.fromkeys(indexes)))
        reasons = reasons_against(tree, self.keys, {model.name.lower(): model for model in self.over})
        if reasons:
            raise ReadModelRefused(f"read model {self.name!r} was refused: {'; '.join(reasons)}")

    @property
    def tree(self) -> Node:
        """DuckDB's parse of the SELECT."""
        tree: Node = syntax_tree(self.sql)
        return tree

    def sources(self) -> tuple[Place, ...]:
        """Return the places where the SELECT reads the log or another read model, in order of the text."""
        return places(self.sql)

    def bound(self, read: Callable[[Place], str | None]) -> str:
        """Return the author's text with its sources replaced.

        Args:
            read: a place -> the SELECT to read there instead, or None to leave the name.
        """
        return replaced(self.sql, read)

    def expanded(self, models: Mapping[str, ReadModel], window: Callable[[str], str | None]) -> str:
        """Return the text with layers written out and every table of events cut to a window.

        Args:
            models: the read models that it may be built on, by lower-case name.
            window: name of a table of events -> the SELECT that reads the wanted part, None for all of it.
        """
        return written_out(self, models, lambda layer, table: window(table))

    def fingerprint(self, models: Mapping[str, ReadModel], source: Callable[[str], str | None]) -> str:
        """Return what tells this SELECT, with its layers and sources, from another one; arguments as of `expanded`."""
        # The number counts the ways in which rows are laid out: rows of an earlier version have to be rebuilt.
        said = f"{_LAYOUT}\n{self.keys}\n{self.expanded(models, source)}"
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()

    def __str__(self) -> str:
        return f"{self.name} (key {', '.join(self.keys)})\n{self.sql.strip()}"


def written_out(model: ReadModel, models: Mapping[str, ReadModel], read: Callable[[ReadModel, str], str | None]) -> str:
    """Return the text of a read model with its layers written out.

    Args:
        models: the read models that it may be built on, by lower-case name.
        read: the model that reads, the name of a table of events -> the SELECT to read instead, None to leave the name.
    """

    def replace(place: Place) -> str | None:
        layer = models.get(place.name.lower())
        return read(model, place.name) if layer is None else written_out(layer, models, read)

    return model.bound(replace)
