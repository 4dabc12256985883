"""A list in FROM: its rows are those of the author's text, and DuckDB is asked for them in the form it is quick at."""

from __future__ import annotations

from typing import Any

import pytest

from cqrs_lab import Domain, Event, Lab, ReadModel
from cqrs_lab.ivm.merge import Merge


class Noted(Event):
    thing_id: str
    tags: tuple[str, ...] | None = None
    others: tuple[str, ...] | None = None
    item: int = 0


GROUPED = "SELECT {} AS tag, count(*) AS n, sum(length({})) AS size, max(position) AS last FROM {} GROUP BY ALL"


def grouped(source: str, tag: str = "u.tag") -> str:
    """A SELECT that groups the items of a list."""
    return GROUPED.format(tag, tag, source)


CASES = [
    (grouped("thing_events, unnest(tags) AS u(tag)"), True),
    (grouped("thing_events, unnest(tags) AS u(tag)", "tag"), True),
    (grouped("thing_events AS e, unnest(e.tags) AS u(tag) WHERE e.item <> 1"), True),
    (grouped("thing_events CROSS JOIN unnest(coalesce(tags, others)) AS U(Tag)"), True),
    (grouped("thing_events, unnest(list_concat(tags, others)) AS u(tag) WHERE item >= 0"), True),
    (grouped("thing_events, unnest(tags) AS u(item)", "u.item"), True),
    (grouped("thing_events, unnest(tags) AS item(tag)", "item.tag"), False),
    (grouped("thing_events, unnest(tags) AS u(tag) WHERE tag <> 'a'"), False),  # without the name of the list
    (grouped("thing_events, unnest(tags) AS u(tag), unnest(others) AS v(other)"), False),
    (grouped("thing_events, unnest(tags) AS u(tag, tag_2)"), False),
]


@pytest.mark.parametrize(("sql", "is_in_select"), CASES)
def test_rows_of_a_list_are_those_of_the_text(sql: str, is_in_select: bool) -> None:
    """Items of lists that are long, short, empty or NULL are counted as by the author's text, built and moved on."""
    model = ReadModel("tagged", "tag", sql)
    domain = Domain.of_events("thing", key="thing_id", events=[Noted])
    with Lab(domain=domain, threads=1) as lab:

        def note(n: int, **lists: Any) -> None:
            lab.record(f"t-{n % 3}", Noted(thing_id=f"t-{n % 3}", item=n % 4, **lists))

        def agree() -> None:
            rows = [sorted(lab.serve(model, way).rows(), key=repr) for way in ("projection", "view")]
            assert rows[0] == rows[1]
            assert rows[0]

        lab.serve(model)
        plan = lab._catalog.plan(model)
        assert isinstance(plan, Merge)
        assert ("struct_pack" in plan.fold.folded("SELECT * FROM thing_events")) is is_in_select
        for n in range(12):
            note(n, tags=("a", "bb", "a")[: n % 4], others=("a", "ccc") if n % 2 else None)
            note(n, others=("c",) * (n % 3))
        lab.serve(model).rebuild()
        agree()
        note(1, tags=("new", "a"), others=("b",))
        note(2, tags=())
        note(3)
        lab.catch_up()
        agree()
