"""Spreading: which parts of the log a read model's rows can be made of, each part alone.

Owns the choice; text in, plan out. It asks the plan by which the read model moves (`cqrs_lab.ivm`), and no data.

- by stream: every row is made of events of one stream, so that each partition gives its rows.
- merged: every partition is folded, and the folds combine.
- shuffled: what rows of one key are made of is brought together first. A place may be cut to some values of its own
  column when a change of its rows reaches keys of that value alone, which is the rule by which touched keys are found
  (`cqrs_lab.ivm.ways`): its other rows are then none of the keys' business.
- whole: one task reads everything.

A layer that is made by stream, of the same category, is made within its partition; any other layer comes first, and is
then read whole, or shuffled as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cqrs_lab.errors import ReadModelRefused
from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.orders import order_reasons
from cqrs_lab.ivm.plan import AnyPlan, Touch, plan_of
from cqrs_lab.ivm.read_model import ReadModel, written_out
from cqrs_lab.ivm.reading import Condition, Use
from cqrs_lab.ivm.shape import Part, Shape
from cqrs_lab.scale.manifest import Manifest
from cqrs_lab.scale.reading import read_events
from cqrs_lab.scale.working import Describe
from cqrs_lab.sql.names import names_events, quote
from cqrs_lab.sql.parse import Node, item_name, nodes
from cqrs_lab.sql.places import Place

Kind = Literal["by stream", "merged", "shuffled", "whole"]


@dataclass(frozen=True)
class Cut:
    """What the rows of a place are divided by.

    Attributes:
        text: SQL over the place's alias; "" when any division does.
        column: the same, in lower case, where it is a plain column.
    """

    text: str = ""
    column: str | None = None


Cuts = dict[int, Cut]
"""Number of a place that is divided -> by what; all other places are read whole."""


@dataclass(frozen=True)
class Spread:
    """How the rows of one read model are made.

    Attributes:
        model: the read model.
        plan: how it moves.
        kind: how it is spread.
        reason: why, in one sentence.
        category: whose streams; of those by stream and merged.
        stream: the columns, in lower case, that tell the stream of a row; of those by stream.
        inside: numbers of the places of the text that are read within a partition; of those by stream.
        beside: the layers, in lower case, that are read whole.
        cuts: what is shuffled, by what; of those shuffled.
    """

    model: ReadModel
    plan: AnyPlan
    kind: Kind
    reason: str
    category: str = ""
    stream: frozenset[str] = frozenset()
    inside: frozenset[int] = frozenset()
    beside: tuple[str, ...] = ()
    cuts: Cuts = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.model.name} is spread: {self.kind}, for {self.reason}"


class Spreader:
    """Spreads read models over a sealed log.

    Args:
        manifest: what is sealed.
        models: the read models, by name in lower case, with all that they are built on.
        describe: what tells the columns of a SELECT over the events.
    """

    def __init__(self, manifest: Manifest, models: Mapping[str, ReadModel], describe: Describe) -> None:
        self.manifest, self.models, self.describe = manifest, models, describe
        self._types: dict[str, dict[str, str]] = {}
        self._plans: dict[str, AnyPlan] = {}
        self._spreads: dict[str, Spread] = {}

    # -- what is known of a read model -------------------------------------------------------------------------------

    def check(self, model: ReadModel) -> None:
        """Refuse a read model over what is not there, or that picks rows by an order that is not total.

        Raises:
            ReadModelRefused: with the reason.
        """
        for source in model.sources():
            name = source.name.lower()
            if name in self.models:
                self.check(self.models[name])
            elif self.manifest.table(name) is None:
                tables = ", ".join(f"{category}_events" for category in self.manifest.categories)
                raise ReadModelRefused(
                    f"read model {model.name!r} reads {source.name!r}, which is neither sealed nor a read model that "
                    f"was given; sealed are {tables}. Name what it is built on: replay(…, over=[…])"
                )
        reasons = list(dict.fromkeys(order_reasons(model.tree, self.models)))
        if reasons:
            raise ReadModelRefused(f"read model {model.name!r} was refused: {'; '.join(reasons)}")

    def types(self, name: str) -> dict[str, str]:
        """Return the columns of a table of events, or of a read model, with their types; by name in lower case."""
        if name not in self._types:
            category = self.manifest.table(name) if names_events(name) else None
            self._types[name] = category.shown if category else self.describe(self.text(self.models[name]))
        return self._types[name]

    def text(self, model: ReadModel) -> str:
        """Return the author's text over the events, layers written out."""
        return written_out(model, self.models, lambda layer, table: read_events(table))

    def plan(self, model: ReadModel) -> AnyPlan:
        """Return how the rows of a read model move."""
        if model.id not in self._plans:
            self._plans[model.id] = plan_of(model, self.types, self.models, self.plan, self.types(model.id))
        return self._plans[model.id]

    def fingerprint(self, model: ReadModel) -> str:
        """Return what tells the read model, with its layers and upcasts, from another one; as a catalogue has it."""

        def meaning(table: str) -> str | None:
            category = self.manifest.table(table)
            return category.meaning if category else None

        return model.fingerprint(self.models, meaning)

    def categories(self, model: ReadModel) -> set[str]:
        """Return the categories whose events a read model is made of."""
        found: set[str] = set()
        for source in model.sources():
            layer = self.models.get(source.name.lower())
            found |= self.categories(layer) if layer else {self.category(source.name)}
        return found

    # -- how it is spread ----------------------------------------------------------------------------------------------

    def spread(self, model: ReadModel) -> Spread:
        """Return how a read model is spread."""
        if model.id not in self._spreads:
            plan = self.plan(model)
            if isinstance(plan, Merge):
                found = self._merged(model, plan)
            elif isinstance(plan, Touch):
                found = self._touched(model, plan)
            else:
                found = Spread(model, plan, "whole", plan.reason)
            self._spreads[model.id] = found
        return self._spreads[model.id]

    def _merged(self, model: ReadModel, plan: Merge) -> Spread:
        fold, beside = plan.fold, plan.layers
        category = self.category(fold.use.name)
        streams = self._streams(fold.use)
        keys = [plan.names[name] for name, key in fold.keys.items() if _column(key, fold.use) in streams]
        if not keys:
            told = f"its key is not that of a stream, and {plan.reason}{_whole(beside)}"
            return Spread(model, plan, "merged", told, category, beside=beside)
        first = plan.ways.shape.uses[0].place if plan.ways else fold.use.place
        stream = frozenset(key.lower() for key in keys)
        return self._by_stream(model, plan, category, stream, frozenset({first}), beside)

    def _by_stream(
        self,
        model: ReadModel,
        plan: AnyPlan,
        category: str,
        stream: frozenset[str],
        inside: frozenset[int],
        beside: tuple[str, ...],
    ) -> Spread:
        told = f"each row is made of events of one stream of {category}{_whole(beside)}"
        return Spread(model, plan, "by stream", told, category, stream, inside, beside)

    def _touched(self, model: ReadModel, plan: Touch) -> Spread:
        shape = plan.ways.shape
        if any(len(shape.at(use.place)) > 1 for use in shape.uses):
            return Spread(model, plan, "whole", "it reads one place of its text twice")
        shuffled = None
        for cuts in [*self._free(shape), *self._cut(plan)]:
            beside = tuple(dict.fromkeys(one.name for one in shape.uses if one.number not in cuts))
            if any(map(names_events, beside)):  # all of the events for each part of them would cost more than it gives
                continue
            category = self._one_category(shape, cuts)
            if category is not None:
                inside = frozenset(shape.use(number).place for number in cuts)
                return self._by_stream(model, plan, category, self._shown_streams(shape, cuts), inside, beside)
            by = next(iter(cuts.values())).text
            if by and shuffled is None:
                told = f"{plan.reason}; rows are brought together by {by}{_whole(beside)}"
                shuffled = Spread(model, plan, "shuffled", told, beside=beside, cuts=cuts)
        reason = "no part of its key tells which events of each place a row is made of"
        return shuffled or Spread(model, plan, "whole", reason)

    def _free(self, shape: Shape) -> Iterator[Cuts]:
        """The places that may be divided by anything: each row is made of one row of it, and of layers."""
        if all(scope.is_plain for scope in shape.scopes):
            for use in shape.uses:
                if not use.optional and not shape.reading.is_loose(use):
                    yield {use.number: Cut()}

    def _cut(self, plan: Touch) -> Iterator[Cuts]:
        """For each part of the key, what may be divided by its value."""
        for part in plan.ways.parts:
            if len(part.uses) == 1 and not part.unnests and not part.makes_rows:
                use = plan.ways.shape.use(next(iter(part.uses)))
                if not use.optional:
                    yield self._pinned(plan.ways.shape, use, part)

    def _pinned(self, shape: Shape, first: Use, part: Part) -> Cuts:
        """What is divided by the value of a part: its place, and each whose rows reach keys of their own value only."""
        cuts = {first.number: Cut(part.text, _column(part.expression, first))}
        while True:
            before = len(cuts)
            for use in shape.uses:
                for condition in shape.conditions:
                    if use.number not in cuts and use.number in condition.uses and len(condition.uses) == 2:
                        (number,) = condition.uses - {use.number}
                        column = self._joined(use, shape.use(number), cuts.get(number), condition)
                        if column is not None:
                            cuts[use.number] = Cut(f"{quote(use.alias)}.{quote(column)}", column)
            if len(cuts) == before:
                return cuts

    def _joined(self, use: Use, other: Use, cut: Cut | None, condition: Condition) -> str | None:
        """The column of a place that a condition lets equal what another place is divided by; None when it does not."""
        if cut is None or cut.column is None or not condition.is_equality or condition.scope != use.optional:
            return None
        if not set(other.optional) <= set(use.optional):
            return None
        sides = [condition.expression[side] for side in ("left", "right")]
        for mine, theirs in (sides, sides[::-1]):
            column = _column(mine, use)
            # Equal values of one type have one hash.
            is_one = column is not None and self._type(use, column) == self._type(other, cut.column)
            if is_one and _column(theirs, other) == cut.column:
                return column
        return None

    def _type(self, use: Use, column: str) -> str | None:
        types = {name.lower(): kind for name, kind in self.types(use.name).items()}
        return types.get(column)

    def _one_category(self, shape: Shape, cuts: Cuts) -> str | None:
        """The category, where all that is divided is made by its streams, and may be divided by stream."""
        found = set()
        for number, cut in cuts.items():
            use = shape.use(number)
            layer = None if use.is_events else self.spread(self.models[use.name])
            if layer is not None and layer.kind != "by stream":
                return None
            if cut.text and cut.column not in self._streams(use):
                return None
            found.add(layer.category if layer else self.category(use.name))
        return found.pop() if len(found) == 1 else None

    def _streams(self, use: Use) -> frozenset[str]:
        """The columns of a place, in lower case, that tell of which stream a row is made."""
        if not use.is_events:
            return self.spread(self.models[use.name]).stream
        category = self.manifest.categories[self.category(use.name)]
        return frozenset({"stream_no"} | ({category.key.lower()} if category.is_key_stored else set()))

    def _shown_streams(self, shape: Shape, cuts: Cuts) -> frozenset[str]:
        """The columns of the read model, in lower case, that show the stream of a place that is divided."""
        found = set()
        for part in shape.parts(item_name(item) for item in shape.tree["select_list"]):
            for number in part.uses & cuts.keys():
                if _column(part.expression, shape.use(number)) in self._streams(shape.use(number)):
                    found.add(part.name.lower())
        return frozenset(found)

    def category(self, table: str) -> str:
        """Return the category of a table of events."""
        return next(name for name in self.manifest.categories if f"{name}_events".lower() == table.lower())

    def is_apart(self, spread: Spread) -> bool:
        """Return whether rows of one key could only be made by one task, so that each looks at its own."""
        return spread.kind != "by stream" or any(key.lower() in spread.stream for key in spread.model.keys)

    def named(self, model: ReadModel, source: str) -> tuple[str, ...]:
        """Return the columns of a table of events, or of a layer, that the text of a read model could name.

        One too many costs bytes, one too few would be wrong: all of them, where the text has a star, a row as a value,
        a NATURAL JOIN, or columns by number or under other names.
        """
        columns, names = tuple(self.types(source)), set[str]()
        tables = [node for node in nodes(model.tree) if node.get("type") == "BASE_TABLE"]
        rows = {str(table[name]).lower() for table in tables for name in ("alias", "table_name")}
        if any(table["column_name_alias"] for table in tables):
            return columns
        for node in nodes(model.tree):
            if node.get("class") in ("STAR", "POSITIONAL_REFERENCE") or node.get("ref_type") == "NATURAL":
                return columns
            names |= {name.lower() for name in node.get("using_columns", ())}
            if node.get("class") == "COLUMN_REF":
                found = [name.lower() for name in node["column_names"]]
                if len(found) == 1 and found[0] in rows:
                    return columns
                names |= {*found}
        return tuple(column for column in columns if column.lower() in names) or columns[:1]

    # -- texts -------------------------------------------------------------------------------------------------------

    def within(self, spread: Spread) -> str:
        """Return the SELECT of the rows, as they are stored, that a partition gives of a read model by stream."""
        plan = spread.plan
        if isinstance(plan, Merge):
            return plan.rows(lambda use: read_events(use.name) if use == plan.fold.use else read_piece(use.name))
        return self.shown_within(spread)

    def shown_within(self, spread: Spread) -> str:
        """Return the same SELECT without the columns that rows keep for themselves."""

        def read(place: Place) -> str:
            name = place.name.lower()
            return self.source(name) if place.number in spread.inside else read_piece(name)

        return spread.model.bound(read)

    def source(self, name: str) -> str:
        """Return what is read within a partition: events, or the rows of a layer by stream."""
        return self.shown_within(self.spread(self.models[name])) if name in self.models else read_events(name)

    def needs(self, spread: Spread) -> set[str]:
        """Return the layers whose rows come first, those for layers inside it included."""
        found = set(spread.beside)
        for place in spread.model.sources():
            if place.number in spread.inside and place.name.lower() in self.models:
                found |= self.needs(self.spread(self.models[place.name.lower()]))
        return found


def read_piece(name: str) -> str:
    """Return the SELECT of rows that were made before."""
    return f"SELECT * FROM piece.{quote(name)}"


def _whole(layers: tuple[str, ...]) -> str:
    return f", with the rows of {' and '.join(layers)} read whole" if layers else ""


def _column(expression: Node, use: Use) -> str | None:
    """The column of a place, in lower case, that an expression in full names is; None when it is something else."""
    names = expression["column_names"] if expression.get("class") == "COLUMN_REF" else []
    return names[1].lower() if len(names) == 2 and names[0].lower() == use.alias.lower() else None
