"""Folds: rows over events as aggregates whose halves combine.

Owns the question whether the aggregates of two halves of a log combine. Where a column is one aggregate, the column is
that state; where it is an expression over aggregates (a status from four flags), the aggregates are kept beside it in
columns `_1`, `_2`, ….
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cachetools import LRUCache

from cqrs_lab.errors import QueryFailed
from cqrs_lab.ivm.absent import Present
from cqrs_lab.ivm.lists import asked_in_select
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.ivm.reading import CannotPlan, Use
from cqrs_lab.ivm.shape import Shape, is_position
from cqrs_lab.ivm.states import COMBINE, EARLIEST, GREATEST, LATEST, LEAST, RUNNING, State, states_in
from cqrs_lab.sql.names import quote
from cqrs_lab.sql.parse import Node, columns_of, is_aggregate, item_name, nodes, same, syntax_tree, text_of
from cqrs_lab.sql.places import Template, template


@dataclass(frozen=True)
class Fold:
    """How the rows of a read model over events follow from aggregates whose halves combine.

    Attributes:
        shape: what it reads: one table of events, in one SELECT or through others that leave its rows as many.
        columns: its columns, in order.
        keys: column of the key -> its expression.
        states: the aggregates that its rows keep.
        outputs: column -> expression over the states, for columns that are not a state themselves.
        needs: the same column -> the states that it is made of, each as often as it stands there.
    """

    shape: Shape
    columns: tuple[str, ...]
    keys: dict[str, Node]
    states: tuple[State, ...]
    outputs: dict[str, str]
    needs: dict[str, tuple[str, ...]]

    @property
    def model(self) -> ReadModel:
        """The read model."""
        return self.shape.model

    @property
    def use(self) -> Use:
        """The place where it reads events."""
        return self.shape.uses[0]

    @property
    def is_one_row(self) -> bool:
        """Whether it puts all events into one row, which is there without any event, too."""
        return not self.shape.tree["group_expressions"] and self.shape.tree["aggregate_handling"] == "STANDARD_HANDLING"

    @property
    def kept(self) -> tuple[str, ...]:
        """The columns that rows are combined by: the key, and the states."""
        return (*self.keys, *(state.column for state in self.states))

    @property
    def hidden(self) -> tuple[str, ...]:
        """The states that are not among the read model's columns."""
        return tuple(state.column for state in self.states if state.column not in self.columns)

    def changed(self, states: Iterable[str]) -> set[str]:
        """Return the columns, hidden ones included, that follow from some states: no other one changes with them."""
        found = set(states)
        return found | {name for name, needed in self.needs.items() if not found.isdisjoint(needed)}

    @cached_property
    def _template(self) -> Template:
        return self._grouped({})

    @property
    def shows_position(self) -> bool:
        """Whether it can be asked for after each event: its SELECT sees the position of each."""
        return self.shape.position is not None

    @property
    def _position(self) -> Node:
        assert self.shape.position is not None, "ask shows_position first"
        return self.shape.position

    @cached_property
    def _by_event(self) -> Template:
        return self._grouped({"_at": self._position})

    @cached_property
    def _shorter(self) -> dict[frozenset[str], Template]:
        return {}

    def _grouped(self, more: dict[str, Node], without: Collection[str] = ()) -> Template:
        groups = {**self.keys, **more}
        items = [expression | {"alias": name} for name, expression in groups.items()]
        items += [s.expression | {"alias": s.column} for s in self.states if s.column not in without]
        by = [] if self.is_one_row and not more else [expression | {"alias": ""} for expression in groups.values()]
        grouped = {
            "select_list": items,
            "group_expressions": by,
            "group_sets": [list(range(len(by)))] if by else [],
            "aggregate_handling": "STANDARD_HANDLING",
        }
        return template(asked_in_select(self.shape.tree | grouped, self.shape), self.model.sql)

    def is_keyed_by(self, column: str) -> bool:
        """Return whether its key is a column of the events, as it is."""
        keys = [expression.get("column_names") for expression in self.keys.values()]
        return not self.shape.is_nested and keys == [[self.use.alias, column]]

    def taken_over(self, state: State) -> Node | None:
        """Return the expression of which a state shows the value that it has in one of the events; None for others."""
        name, given = state.expression["function_name"].lower(), state.expression["arguments"]
        is_taken = COMBINE.get(name) in (LEAST, GREATEST, LATEST, EARLIEST) and not self.shape.is_nested
        return given[0]["expression"] if is_taken and not self.shape.reading.unnests else None

    @cached_property
    def is_assignable(self) -> bool:
        """Whether states can be told apart from everything else in the text of what is made of them."""
        return all(states_in(self.outputs[name]) == sorted(needed) for name, needed in self.needs.items())

    def folded(self, new: str, without: frozenset[str] = frozenset()) -> str:
        """Return the SELECT of keys and states, over the events that `new` selects.

        Args:
            without: states that are left out.
        """
        found = self._template if not without else self._shorter.get(without)
        if found is None:
            found = self._shorter[without] = self._grouped({}, without)
        return found.filled(lambda _: new)

    def absent(self, present: Present) -> frozenset[str]:
        """Return states that are sure to be NULL over new events, given what these hold."""
        if self.shape.is_nested or self.shape.reading.has_lists or self.shape.reading.unnests:
            return frozenset()
        if present not in self._absent:
            alias = self.use.alias.lower()
            self._absent[present] = frozenset(
                state.column
                for state in self.states
                if all(column["column_names"][0].lower() == alias for column in columns_of(state.expression))
                and present.is_absent(state.expression)
            )
        return self._absent[present]

    @cached_property
    def _absent(self) -> LRUCache[Present, frozenset[str]]:
        return LRUCache(100)

    def of_each(self, new: str, kinds: Mapping[str, str], empty: frozenset[str] = frozenset()) -> str:
        """Return the SELECT of keys and states over events each of which is the only one of its key: without a fold.

        Args:
            new: the SELECT of the events.
            kinds: state -> its type, of those that are wanted.
            empty: states that are NULL.
        """
        given = (empty, *kinds.items())
        if given not in self._each:
            items = [f"{text_of(expression)} AS {quote(name)}" for name, expression in self.keys.items()]
            for state in self.states:
                if state.column in kinds:
                    text = "NULL" if state.column in empty else state.of_one
                    items.append(f"CAST({text} AS {kinds[state.column]}) AS {quote(state.column)}")
            self._each[given] = self._plain(f"SELECT {', '.join(items)}")
        return self._each[given].filled(lambda _: new)

    @cached_property
    def _each(self) -> LRUCache[Any, Template]:
        return LRUCache(100)

    def by_event(self, new: str) -> str:
        """Return the SELECT of keys and states over each event alone, with its position as `_at`."""
        return self._by_event.filled(lambda _: new)

    def finished(self, states: str, more: str = "") -> str:
        """Return the SELECT of rows with all their columns and hidden states, out of that of their keys and states."""
        return self.finished_from(f"({states}\n) AS _states", more)

    def finished_from(self, source: str, more: str = "") -> str:
        """Return the same out of what stands in FROM."""
        names = [*self.columns, *self.hidden]
        items = ",\n       ".join(_named(self.outputs.get(name, quote(name)), name) for name in names)
        return f"SELECT {items}{more}\nFROM {source}"

    def _ungrouped(self, more: Iterable[str]) -> Template:
        """What each event says, by itself: its position as `_at`, its keys, and more columns, as SQL."""
        keys = (f"{text_of(expression)} AS {quote(name)}" for name, expression in self.keys.items())
        return self._plain(f"SELECT DISTINCT {', '.join([f'{text_of(self._position)} AS _at', *keys, *more])}")

    def _plain(self, select: str) -> Template:
        """A SELECT of the events, without groups; its items are given as another one."""
        plain = {"group_expressions": [], "group_sets": [], "aggregate_handling": "STANDARD_HANDLING"}
        taken = {name: syntax_tree(select)[name] for name in ("select_list", "modifiers")}
        return template(self.shape.tree | plain | taken, self.model.sql)

    @cached_property
    def _keyed(self) -> Template:
        return self._ungrouped(())

    @cached_property
    def _windowed(self) -> Template:
        # Rows that a list makes of one event share its position, so the frame goes by value and takes them together.
        window = f"(PARTITION BY {{}} ORDER BY {text_of(self._position)} RANGE UNBOUNDED PRECEDING)"
        over = window.format(", ".join(f"({text_of(expression)})" for expression in self.keys.values()) or "NULL")
        return self._ungrouped(
            f"{text_of(state.expression)} OVER {over} AS {quote(state.column)}" for state in self.states
        )

    def windowed(self, events: str, inside: str) -> str:
        """Return the SELECT of the rows after each event, with its `_at`, by one window for each aggregate.

        Any aggregate does, also one whose halves do not combine; it takes a sort, so `running` is faster where it can.
        Only events of the keys that are asked for are sorted: 4,000 of 740,000 by 25 ms, and all by 230.

        Args:
            inside: the condition on keys.
        """
        those = f"SELECT _at FROM ({self._keyed.filled(lambda _: events)}\n) WHERE {inside}"
        some = f"SELECT * FROM ({events}\n) WHERE position IN ({those})"
        rows = self.finished(self._windowed.filled(lambda _: some), ", _at")
        return f"SELECT * FROM ({rows}\n) WHERE {inside}"

    def running(self, folds: str, kinds: dict[str, str]) -> str:
        """Return the SELECT of the rows, hidden states included, after each event, with its `_at`.

        Args:
            folds: what `by_event` gives.
            kinds: column -> its type.
        """
        keys = ", ".join(map(quote, self.keys))
        states = "".join(
            f", CAST({RUNNING[state.combine].format(x=quote(state.column))} OVER _w AS {kinds[state.column]})"
            f" AS {quote(state.column)}"
            for state in self.states
        )
        window = f"WINDOW _w AS (PARTITION BY {keys} ORDER BY _at ROWS UNBOUNDED PRECEDING)"
        return self.finished(f"SELECT {keys}{states}, _at FROM ({folds}) {window}", ", _at")


def _named(text: str, name: str) -> str:
    """A column of a SELECT under a name, which is said once where it is the column's own."""
    return text if text == quote(name) else f"{text} AS {quote(name)}"


def fold_of(shape: Shape, *, combines_too: bool = True) -> Fold:
    """Return how the aggregates of a read model combine.

    Args:
        combines_too: whether they have to; False for a fold that is asked after each event, and not moved.

    Raises:
        CannotPlan: with the reason.
    """
    tree, model = shape.tree, shape.model
    _check_shape(shape)
    keys: dict[str, Node] = {}
    visible: list[State] = []
    hidden: list[State] = []
    outputs: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    for item in tree["select_list"]:
        name = item_name(item)
        whole = shape.top.named(item) | {"alias": ""}
        aggregates = [node for node in nodes(whole) if is_aggregate(node)]
        is_key = name.lower() in {key.lower() for key in model.keys}
        if not aggregates:
            if not is_key:
                raise CannotPlan(f"its column {name!r} is neither part of the key nor an aggregate")
            keys[name] = whole
            continue
        if is_key:
            raise CannotPlan(f"its key {name!r} is an aggregate")
        _check_outside(whole, aggregates)
        combines = [_combine(node, shape) if combines_too else "" for node in aggregates]
        if aggregates[0] is whole:
            visible.append(State(name, whole, combines[0]))
            continue
        for node, combine in zip(aggregates, combines, strict=True):
            if not any(same(node, state.expression) for state in hidden):
                hidden.append(State(f"_{len(hidden) + 1}", node, combine))
        outputs[name] = text_of(_over_states(whole, hidden))
        needs[name] = tuple(_state_of(node, hidden) for node in aggregates)
    _check_groups(shape, keys)
    columns = tuple(item_name(item) for item in tree["select_list"])
    fold = Fold(shape, columns, keys, (*visible, *hidden), outputs, needs)
    try:
        assert fold._template
    except QueryFailed as error:
        raise CannotPlan(str(error)) from None
    return fold


def _check_shape(shape: Shape) -> None:
    tree = shape.tree
    if tree["modifiers"]:
        raise CannotPlan("it has DISTINCT or ORDER BY")
    if tree["having"] or tree["qualify"]:
        raise CannotPlan("it has HAVING or QUALIFY, which need the whole history of a row")
    if len(shape.uses) > 1:
        raise CannotPlan("it reads more than one table")
    if not shape.uses[0].is_events:
        raise CannotPlan(f"it reads the rows of {shape.uses[0].name}, which change; events only come")
    if not all(scope.is_plain for scope in shape.scopes[1:]):
        raise CannotPlan("it reads a SELECT that puts rows together or looks at several")
    if shape.uses[0].optional or shape.reading.has_optional_lists:
        raise CannotPlan("it reads a list on the right of a left join")
    if shape.top.windows:
        raise CannotPlan("it has a window")
    if not shape.top.is_grouped:
        raise CannotPlan("it is not grouped by its key")


def _combine(node: Node, shape: Shape) -> str:
    name = node["function_name"].lower()
    said = f"{name}()"
    arguments = [argument["expression"] for argument in node["arguments"]]
    if node["distinct"]:
        raise CannotPlan(f"{name}(DISTINCT …) needs all the values that a row has seen")
    if node["order_bys"]["orders"]:
        raise CannotPlan(f"{said} has an ORDER BY")
    if name not in COMBINE:
        raise CannotPlan(f"{said} of two halves does not follow from the {said} of each")
    arguments = [shape.top.full(argument) for argument in arguments]
    if any(part.get("class") == "COLLATE" for argument in arguments for part in nodes(argument)):
        raise CannotPlan(f"{said} compares texts under a collation")
    if COMBINE[name] in (LATEST, EARLIEST):
        if len(arguments) != 2 or not is_position(arguments[1], shape.uses[0]):
            raise CannotPlan(f"{said} is not by position alone")
    elif len(arguments) > 1:
        raise CannotPlan(f"{said} has more than one argument")
    return COMBINE[name]


def _check_outside(item: Node, aggregates: list[Node]) -> None:
    """Outside its aggregates an expression may use nothing of the events: one row stands for many."""
    inside = {id(node) for aggregate in aggregates for node in nodes(aggregate)}
    for column in columns_of(item):
        if id(column) not in inside:
            raise CannotPlan(f"{column['column_names'][-1]!r} stands outside an aggregate")


def _state_of(aggregate: Node, states: list[State]) -> str:
    return next(state.column for state in states if same(state.expression, aggregate))


def _over_states(expression: Node, states: list[State]) -> Node:
    """The expression with its aggregates replaced by the columns that keep them."""

    def change(node: object) -> object:
        if isinstance(node, list):
            return [change(item) for item in node]
        if not isinstance(node, dict):
            return node
        if is_aggregate(node):
            column = _state_of(node, states)
            place = {"query_location": 0, "query_location_length": 0}
            return {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", **place, "column_names": [column]}
        return {name: change(value) for name, value in node.items()}

    whole = change(expression)
    assert isinstance(whole, dict)
    return whole


def _check_groups(shape: Shape, keys: dict[str, Node]) -> None:
    tree = shape.tree
    found = set()
    for expression in tree["group_expressions"]:
        name = _key_named(shape, expression, keys)
        if name is None:
            raise CannotPlan("it is grouped by more than its key")
        found.add(name)
    if tree["group_expressions"] and found != set(keys):
        raise CannotPlan("it is grouped by less than its key")
    if not tree["group_expressions"] and tree["aggregate_handling"] == "STANDARD_HANDLING":
        assert not any(columns_of(key) for key in keys.values())  # DuckDB lets no column stand beside an aggregate


def _key_named(shape: Shape, expression: Node, keys: dict[str, Node]) -> str | None:
    """The column of the key that an expression of GROUP BY means: by number, by name, or by what it is."""
    literal = expression.get("literal", {}).get("text") if expression["class"] == "CONSTANT" else None
    if literal is not None and literal.isdigit():
        name = item_name(shape.tree["select_list"][int(literal) - 1])
        return name if name in keys else None
    try:
        whole = shape.top.named(expression)
    except CannotPlan:
        return None
    return next((name for name, key in keys.items() if same(whole, key)), None)
