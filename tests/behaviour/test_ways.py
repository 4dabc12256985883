"""The way in which every read model moves, and all that the read side refuses, with the whole text of the reason.

The tables stand in `ways.py` and `refused_calls.py`. The last tests read the package's source: a refusal that somebody
adds without a row for it fails there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from refused_calls import AT_ONCE, CALLS, DECLARATIONS, PAID, PLACED, Call, by_hand
from support import append
from ways import (
    AS,
    DECLARED,
    FUNCTIONS,
    LAYERS,
    NOT_FUSED,
    NOT_SELECTS,
    SHOP,
    THEIRS,
    UNBOUND,
    WAYS,
    Moves,
    Refused,
)

import cqrs_lab
from cqrs_lab import Lab, ReadModel, errors, open_shop
from cqrs_lab.errors import NotServed, ReadModelRefused
from cqrs_lab.ivm import admission
from cqrs_lab.ivm.merge import Merge, look_ups_of
from cqrs_lab.ivm.shape import CannotPlan, Shape
from cqrs_lab.ivm.ways import ways_of
from cqrs_lab.read import catalog
from cqrs_lab.shop.read_models import READ_MODELS, daily_orders, order_facts
from cqrs_lab.sql import functions, places

EVERY_CALL = (*DECLARATIONS, *AT_ONCE, *CALLS)
BY_HAND = "handlers in Python take one event at a time; rows are stored after every 500"
BY_HAND_TOO = "handlers in Python make its rows"  # said by what refuses to keep a history of them


def assert_said(expected: str, said: str) -> None:
    """Compare a message with what is expected; `THEIRS` in it stands for any words of others."""
    if THEIRS in expected:
        assert re.fullmatch(".+".join(map(re.escape, expected.split(THEIRS))), said, re.DOTALL), said
    else:
        assert said == expected


def ids(rows: object) -> list[str]:
    """Return a name of each row for the list of tests."""
    return [f"{number}-{getattr(row, 'sql', '') or row.text:.60}" for number, row in enumerate(rows)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of the shop in which the rows of the tables are served."""
    with open_shop(threads=1) as shop:
        for layer in LAYERS:
            shop.serve(layer, as_="view")
        yield shop


@pytest.fixture(scope="module")
def bare() -> Iterator[Lab]:
    """A lab of the shop to which nothing is added."""
    with open_shop(threads=1) as shop:
        yield shop


@pytest.fixture(scope="module")
def asked() -> Iterator[Lab]:
    """A lab of the shop with one order, in which nothing is served."""
    with open_shop(threads=1) as shop:
        append(shop, [(PLACED, 0), (PAID, 1)])
        yield shop


# -- ways --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(WAYS)), ids=ids(WAYS))
def test_the_way_and_its_reason(lab: Lab, number: int) -> None:
    """explain() names the way in which a SELECT moves as a projection, and gives the whole reason."""
    row = WAYS[number]
    explained = lab.serve(ReadModel(f"row_{number}", row.key, row.sql)).explain()
    assert explained.way == row.way
    assert_said(row.reason, explained.reason)


@pytest.mark.parametrize("model", READ_MODELS, ids=lambda model: model.name)
def test_the_ways_of_the_shop(lab: Lab, model: ReadModel) -> None:
    """Every read model of the shop moves in the way that the table says."""
    explained = lab.serve(model).explain()
    assert (explained.way, explained.reason) == SHOP[model.name]
    assert str(explained).startswith(f"{model.name} as projection: {explained.way}, because {explained.reason}\n\n--")


def test_the_table_of_the_shop_is_whole() -> None:
    """The table names the read models of the shop and no others."""
    assert list(SHOP) == [model.name for model in READ_MODELS]


@pytest.mark.parametrize("as_", AS)
def test_the_ways_of_each_serving(lab: Lab, as_: str) -> None:
    """A view and a materialized table say what they do, however a projection of the same SELECT would move."""
    explained = lab.serve(daily_orders, as_=as_).explain()
    assert (explained.served_as, explained.way, explained.reason) == (as_, *AS[as_])


def test_the_way_of_handlers(lab: Lab) -> None:
    """A projection in Python says that handlers make its rows."""
    explained = lab.serve(by_hand("by_handlers")).explain()
    assert (explained.way, explained.reason) == ("handlers", BY_HAND)


@pytest.mark.parametrize("row", NOT_FUSED, ids=ids(NOT_FUSED))
def test_why_rows_are_not_merged_with_what_is_looked_up(lab: Lab, row: Moves) -> None:
    """What is built on a merging read model, and is not its rows with more columns, moves by touched keys."""
    side = lab._catalog
    model = ReadModel(f"not_fused_{NOT_FUSED.index(row)}", row.key, row.sql)
    explained = lab.serve(model).explain()
    assert explained.way == row.way
    assert row.reason not in explained.reason
    ways = ways_of(Shape(model, side.columns_of))
    base = side.plan(side.models[ways.shape.uses[0].name])
    assert isinstance(base, Merge)
    with pytest.raises(CannotPlan) as reason:
        look_ups_of(ways, base.fold, lambda use: side.models[use.name].keys if use.name in side.models else ())
    assert_said(row.reason, str(reason.value))


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", DECLARED + FUNCTIONS, ids=ids(DECLARED + FUNCTIONS))
def test_what_cannot_be_declared(row: Refused) -> None:
    """A SELECT that is not a function of the events is refused where it is declared, with all of its reasons."""
    with pytest.raises(ReadModelRefused) as refused:
        ReadModel("mine", row.key, row.sql)
    assert_said(f"read model 'mine' was refused: {'; '.join(row.reasons)}", str(refused.value))


def test_every_reason_in_the_list_of_functions_has_a_row() -> None:
    """Whatever the list of functions gives as a reason is what a SELECT of the table is refused with."""
    reasons = {*functions._REFUSED, *functions._REFUSED_FAMILIES.values()}
    said = [row.reasons[0] for row in FUNCTIONS]
    assert [reason for reason in reasons if not any(text.endswith(f": {reason}") for text in said)] == []


@pytest.mark.parametrize("row", NOT_SELECTS, ids=ids(NOT_SELECTS))
def test_what_is_not_one_select(row: Refused) -> None:
    """What does not parse, writes, or is more than one statement is refused where it is declared."""
    with pytest.raises(ReadModelRefused) as refused:
        ReadModel("mine", row.key, row.sql)
    assert_said(*row.reasons, str(refused.value))


@pytest.mark.parametrize("row", UNBOUND, ids=ids(UNBOUND))
def test_what_does_not_fit_the_lab(bare: Lab, row: Refused) -> None:
    """A SELECT over what is not there, over itself, or with sums of inexact numbers is refused by the lab."""
    with pytest.raises(ReadModelRefused) as refused:
        bare.serve(ReadModel("mine", row.key, row.sql))
    assert_said(*row.reasons, str(refused.value))
    assert "mine" not in bare._catalog.models


@pytest.mark.parametrize("row", DECLARATIONS, ids=ids(DECLARATIONS))
def test_declarations_that_do_not_fit_together(row: Call) -> None:
    """Names, keys, columns and queries that do not fit are refused where they are declared."""
    assert_refused(row)


@pytest.mark.parametrize("row", AT_ONCE, ids=ids(AT_ONCE))
def test_what_is_refused_before_anything_is_served(asked: Lab, row: Call) -> None:
    """A way to be served, a mode, a moment or a name that is none is refused, and nothing is built for it."""
    assert_refused(row, asked)
    assert asked.lag().dicts() == []


@pytest.mark.parametrize("row", CALLS, ids=ids(CALLS))
def test_what_is_refused_on_the_way(row: Call) -> None:
    """What cannot be built, moved, read or kept says what was asked, and what to do instead."""
    with open_shop(threads=1) as shop:
        append(shop, [(PLACED, 0), (PAID, 1)])
        assert_refused(row, shop)


def assert_refused(row: Call, *labs: Lab) -> None:
    """Make a call of a table, and compare the error and its message."""
    with pytest.raises(row.error) as refused:
        row.call(*labs)
    assert type(refused.value) is row.error
    assert_said(row.text, str(refused.value))


# -- what no user gets to see ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unseen:
    """A text in the source that no SELECT and no call of the public surface brings out; tested below all the same.

    Attributes:
        kind: as of `Template`.
        text: as of `Template`.
        why: why nobody is told.
    """

    kind: str
    text: str
    why: str


UNSEEN = (
    Unseen(
        "QueryFailed",
        "DuckDB writes this SELECT in another way than it reads it: {}",
        "no SELECT is known whose parse DuckDB writes otherwise; such a one would not be moved by its parse",
    ),
    Unseen(
        "ProjectionFailed",
        "another thread changed {} at once, so nothing was stored: {}. Ask again",
        "the locks of the servings keep two threads from that",
    ),
    Unseen("reason", "it is a {}, not a SELECT", "DuckDB's parser gives a SELECT for all that it can serialize"),
    Unseen(
        "ReadModelRefused",
        "read model {} could not be judged: {}\nWrite it without what DuckDB cannot show a plan of",
        "no SELECT is known that DuckDB binds and cannot show the plan of",
    ),
)


def test_a_text_that_is_not_its_parse_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where DuckDB would write an edited parse as something else, the rows are not moved by that text."""
    monkeypatch.setattr(places, "syntax_text", lambda tree: "SELECT 1 AS other FROM _place_0_0_")
    sql = "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id"
    with pytest.raises(errors.QueryFailed, match="in another way than it reads it"):
        places.template(ReadModel("mine", "order_id", sql).tree, sql)


def test_a_conflict_of_two_threads_is_no_duplicate_key() -> None:
    """Where DuckDB finds a conflict of two writers, nobody is told to look for two rows of one key."""
    with open_shop(threads=1) as shop:
        stored = shop.serve(order_facts).stored
        conflict = errors.ConstraintViolated("Catalog write-write conflict on create")
        with (
            pytest.raises(errors.ProjectionFailed, match="another thread changed order_facts"),
            stored.named_failures(),
        ):
            raise conflict


def test_what_parses_as_something_else_is_not_a_select() -> None:
    """A parse of another kind is refused by its name."""
    assert list(admission._column_reasons({"type": "VALUES_NODE"}, ())) == ["it is a VALUES_NODE, not a SELECT"]


def test_what_has_no_plan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SELECT that DuckDB binds, and shows no plan of, is not trusted."""

    def no_plan(database: object, select: str) -> None:
        raise errors.QueryFailed("no plan")

    monkeypatch.setattr(catalog, "bound_calls", no_plan)
    with open_shop(threads=1) as shop, pytest.raises(ReadModelRefused) as refused:
        shop.serve(ReadModel("mine", "order_id", "SELECT order_id, 1234567 AS n FROM order_events"))
    assert str(refused.value) == (
        "read model 'mine' could not be judged: no plan\nWrite it without what DuckDB cannot show a plan of"
    )


# -- mended faults ---------------------------------------------------------------------------------------------


def test_one_value_of_another_read_model_is_a_function_of_the_events() -> None:
    """A subquery for one value, from the row of another read model that has some key, is accepted."""
    kinds = ReadModel("kinds", "type", "SELECT type, count(*) AS n FROM order_events GROUP BY type")
    sql = "SELECT order_id, (SELECT n FROM kinds WHERE type = 'OrderPlaced') AS placed FROM order_facts"
    with open_shop(threads=1) as shop:
        assert shop.serve(ReadModel("mine", "order_id", sql, over=(kinds, order_facts))).explain().way


def test_a_description_is_no_source() -> None:
    """A SELECT over the description of a table asks the catalogue, and is refused."""
    with pytest.raises(ReadModelRefused), open_shop(threads=1) as shop:
        shop.serve(ReadModel("mine", "column_name", "SELECT column_name FROM (DESCRIBE order_events)"))


def test_a_circle_of_read_models_is_refused() -> None:
    """A read model that reads one which is built on it is refused, and the old one stays."""
    below = ReadModel("below", "order_id", "SELECT order_id FROM order_events GROUP BY 1")
    above = ReadModel("above", "order_id", "SELECT order_id FROM below GROUP BY 1")
    with open_shop(threads=1) as shop:
        shop.serve(below), shop.serve(above)
        with pytest.raises(ReadModelRefused):
            shop.serve(ReadModel("below", "order_id", "SELECT order_id FROM above GROUP BY 1"))
        assert shop.serve("above").rows().fetchall() == []


def test_a_history_that_cannot_be_kept_says_why_in_words() -> None:
    """A read model that moves by touched keys says why it does not merge."""
    sql = "SELECT order_id, count(DISTINCT type) AS kinds FROM order_events GROUP BY order_id"
    with open_shop(threads=1) as shop, pytest.raises(NotServed) as refused:
        shop.serve(ReadModel("mine", "order_id", sql), keep_history=True)
    assert str(refused.value) == (
        "no history of mine can be kept: count(DISTINCT …) needs all the values that a row has seen; as_of() folds "
        "the log instead"
    )


@pytest.mark.parametrize(
    ("select", "key"),
    [
        pytest.param("order_id, count(*) AS n FROM order_events GROUP BY order_id,", "order_id", id="a comma too many"),
        pytest.param(
            "order_id, count(*) AS n FROM order_events GROUP BY order_id WINDOW w AS (ORDER BY order_id)",
            "order_id",
            id="a window behind the groups",
        ),
        pytest.param("1 AS one, count(*) AS n FROM order_events", "one", id="one row for all"),
    ],
)
def test_what_merges_can_be_kept(select: str, key: str) -> None:
    """The history of a read model that merges is kept, however its SELECT ends."""
    with open_shop(threads=1) as shop:
        append(shop, [(PLACED, 0), (PAID, 1)])
        served = shop.serve(ReadModel("mine", key, f"SELECT {select}"), keep_history=True)
        assert shop.history(served.model, *served.rows().fetchall()[0][:1]).dicts()[-1]["n"] == 2


# -- the tables are whole ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Template:
    """A text of the source that is said when something is refused or explained.

    Attributes:
        kind: the class of the error or, of an explanation and of a declaration, "explained" and "reason".
        text: of it, with {} where something is filled in.
    """

    kind: str
    text: str

    @property
    def size(self) -> int:
        """How many of its characters are always the same."""
        return len(self.text.replace("{}", ""))

    def is_said_in(self, text: str) -> bool:
        """Return whether a text is one of its."""
        return bool(re.fullmatch(".*".join(map(re.escape, self.text.split("{}"))), text, re.DOTALL))


def texts(node: ast.expr | None) -> Iterator[str]:
    """Yield the texts that an expression can be, with {} for what is filled in; nothing when it has no words."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.Call):
        yield "{}"


def templates(source: str) -> set[Template]:
    """Return what a module says: by an error that it makes, by a reason that it yields, or by an explanation.

    An explanation's reason is what is given to a name `reason`.
    """
    found: set[Template] = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            if name.startswith("Cannot") or hasattr(errors, name):
                found |= {Template(name, text) for text in texts(node.args[0])}
        elif isinstance(node, ast.Yield) and not isinstance(node.value, ast.Call):
            found |= {Template("reason", text) for text in texts(node.value)}
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                for name, value in zip(names, values, strict=False):
                    if isinstance(name, ast.Name) and name.id == "reason" and not isinstance(value, ast.Call):
                        found |= {Template("explained", text) for text in texts(value)}
    return found


@cache
def of_the_package() -> frozenset[Template]:
    """Return what the read side and what judges SQL say."""
    folder = Path(cqrs_lab.__file__).parent
    files = [path for part in ("sql", "ivm", "read") for path in sorted((folder / part).glob("*.py"))]
    # Two judge no SELECT; what adopting refuses takes a sealed log to meet, as tests/behaviour/test_replaying.py does.
    files = [path for path in files if path.name not in ("names.py", "duck.py", "adopting.py")]
    return frozenset(found for file in files for found in templates(file.read_text(encoding="utf-8")))


def uttered() -> set[tuple[str, str]]:
    """Return the texts of the tables, each with its kind."""
    said = {("explained", row.reason) for row in WAYS}
    said |= {("explained", reason) for _, reason in (*SHOP.values(), *AS.values())}
    said |= {("explained", reason) for reason in (BY_HAND, BY_HAND_TOO)}
    for row in WAYS:
        if row.way != "merge":
            said |= {("CannotPlan", reason) for reason in row.reasons}
    said |= {("CannotPlan", reason) for row in NOT_FUSED for reason in row.reasons}
    for row in DECLARED + FUNCTIONS:
        said |= {("reason", reason) for reason in row.reasons}
        said |= {("ReadModelRefused", f"read model 'mine' was refused: {'; '.join(row.reasons)}")}
    for row in NOT_SELECTS:
        (text,) = row.reasons
        said |= {("ReadModelRefused", text), ("QueryFailed", text.removeprefix("read model 'mine': "))}
    for row in UNBOUND:
        (text,) = row.reasons
        said |= {("ReadModelRefused", text), ("reason", text.removeprefix("read model 'mine' was refused: "))}
    said |= {(row.error.__name__, row.text) for row in EVERY_CALL}
    return said


def covered(wanted: Set[Template], said: set[tuple[str, str]]) -> set[Template]:
    """Return the templates that texts are made of; each text tells for the one that has most of its words."""
    found = set()
    for kind, text in said:
        fit = [template for template in wanted if template.kind == kind and template.is_said_in(text)]
        found |= {template for template in fit if template.size == max(other.size for other in fit)}
    return found


def test_every_text_of_the_source_has_a_row() -> None:
    """Whatever the read side can refuse or explain stands in a table, or in the short list of what nobody sees."""
    wanted = of_the_package()
    unseen = {Template(row.kind, row.text) for row in UNSEEN}
    assert len(wanted) > 100
    assert unseen <= wanted, "no longer in the source"
    there = covered(wanted, uttered())
    assert not there & unseen, "seen after all"
    missing = wanted - there - unseen
    assert not missing, "\n".join(sorted(f"{template.kind}: {template.text}" for template in missing))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("raise CannotMerge('it is new')", Template("CannotMerge", "it is new")),
        ("raise CannotTouch(f'its {name!r} is new') from None", Template("CannotTouch", "its {} is new")),
        ("raise NotServed('one' if it else 'two')", Template("NotServed", "two")),
        ("error = ReadModelRefused(\n    'in two '\n    f'{parts}'\n)", Template("ReadModelRefused", "in two {}")),
        ("def _reasons(tree):\n    yield f'it reads {tree}'", Template("reason", "it reads {}")),
        ("way, reason = 'new', 'it moves sideways'", Template("explained", "it moves sideways")),
    ],
)
def test_a_refusal_without_a_row_would_be_missing(source: str, found: Template) -> None:
    """A text that is added to the source is found there, and no row of the tables tells for it."""
    assert found in templates(source)
    everything = of_the_package() | {found}
    assert found not in covered(everything, uttered())
