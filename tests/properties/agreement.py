"""Runs a made-up case on a lab and tells where servings disagree.

Owns what agreement means for a case: after every step projection, materialized and the past say what the view says; at
the end history, diff, rehearse, a fork, an inline serving and the store opened again do, too. The view is the author's
own text over the whole log, so it is what the others are held against.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

from cases import Case, Fact, Model, Step, deciders, without

from cqrs_lab import Domain, Lab, ReadModel
from cqrs_lab.errors import ReadModelRefused
from cqrs_lab.read.mover import Mover
from cqrs_lab.store.rows import Rows
from cqrs_lab.write.batch import Context

START = datetime(2025, 1, 1, tzinfo=UTC)
_LOOKED_AT = 1  # rows of a read model whose history is asked
Content = tuple[tuple[tuple[str, str], ...], Counter[str]]
"""Names and types of the columns, and the rows with their number."""


@dataclass(frozen=True)
class Disagreement:
    """One place where a serving does not say what the view says.

    Attributes:
        check: which serving, and when.
        model: the read model, empty when it is about all.
        kind: what it most likely comes from.
        detail: both sides, or the error.
    """

    check: str
    model: str
    kind: str
    detail: str


@dataclass
class Outcome:
    """What a case showed.

    Attributes:
        ways: how its projections move: "merge", "touched keys" or "recompute all" -> how many.
        refused: read model -> why it was refused.
        left_out: how many read models read one that was refused.
        moved: how many projections changed rows after they were built, and had some in the end.
        disagreements: every one found.
        features: read model -> what it and those below it have.
    """

    models: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    refused: dict[str, str] = field(default_factory=dict)
    left_out: int = 0
    moved: int = 0
    disagreements: list[Disagreement] = field(default_factory=list)
    features: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def kinds(self) -> list[str]:
        """The kinds of its disagreements."""
        return sorted({found.kind for found in self.disagreements})


def run(case: Case) -> Outcome:
    """Run a case and return what it showed."""
    with both_ways():
        if not case.is_file:
            return _Run(case, ":memory:").outcome()
        with tempfile.TemporaryDirectory() as folder:
            return _Run(case, str(Path(folder) / "net.duckdb")).outcome()


@contextmanager
def both_ways() -> Iterator[None]:
    """Have every third move of few rows go the long way: each way finds rows that the other one left."""
    turns, short = itertools.count(), Mover._move_few

    def taking_turns(self: Mover, *given: Any, told: bool) -> bool:
        return next(turns) % 3 < 2 and short(self, *given, told=told)

    with mock.patch.object(Mover, "_move_few", taking_turns):
        yield


def smaller(case: Case) -> Case:
    """Return a case with as little as possible that still fails in the same check."""

    def told(outcome: Outcome) -> set[tuple[str, str]]:
        return {(found.check, found.detail.split(":")[0] if "Error" in found.detail.split(":")[0] else "")
                for found in outcome.disagreements}  # fmt: skip

    wanted = sorted(told(run(case)))[:1]
    while True:
        for less in without(case):
            try:
                if set(wanted) <= told(run(less)):
                    case = less
                    break
            except Exception:  # what is no case any more is not a smaller one
                continue
        else:
            return case


def content(rows: Rows) -> Content:
    """Return what rows say, so that equal contents are equal in columns, types, rows and their number."""
    table = rows.arrow()
    columns = [column.to_pylist() for column in table.columns]
    return tuple((f.name, str(f.type)) for f in table.schema), Counter(map(repr, zip(*columns, strict=True)))


class _Run:
    def __init__(self, case: Case, path: str) -> None:
        self.case, self.path = case, path
        self.found = Outcome(models=len(case.models))
        self.specs = {model.name: model for model in case.models}
        self.models: dict[str, ReadModel] = {}
        self.said: dict[str, dict[int, Content]] = {}  # model -> position -> what its view said
        self.moved: set[str] = set()
        self.seconds = itertools.count()
        self.ids = itertools.count(1)
        self.lab: Lab
        self.other: Lab | None = None

    # -- what is asked ---------------------------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        with self.due("open", ""):
            with self.opened() as self.lab:
                self.declare()
                if self.case.hazard == "reopened store":  # another domain, over the same file at once
                    with self.opened([self.models[name] for name in self.known()]) as self.other:
                        self.live()
                else:
                    self.live()
            if self.case.is_file and len(self.models) and not self.found.disagreements:
                self.open_again()
        self.found.moved = len(self.moved)
        self.found.disagreements = list(dict.fromkeys(self.found.disagreements))
        return self.found

    def declare(self) -> None:
        """Declare the read models in their order by serving each as a view; note what is refused."""
        gone: set[str] = set()
        for spec in self.case.models:
            below = [self.specs[name] for name in spec.reads if name in self.specs]
            features = spec.features.union(*(self.found.features.get(one.name, frozenset()) for one in below))
            self.found.features[spec.name] = features
            if any(one.name in gone for one in below):
                self.found.left_out += 1
                gone.add(spec.name)
                continue
            try:
                model = ReadModel(spec.name, spec.key, spec.sql)
                self.lab.serve(model, "view")
                self.models[spec.name] = model
            except ReadModelRefused as error:
                gone.add(spec.name)
                self.found.refused[spec.name] = str(error)
                if self.case.hazard in ("case of names", "column name"):  # any name is the author's
                    self.note("declare", spec.name, _said(error))
            except Exception as error:
                gone.add(spec.name)
                self.note("declare", spec.name, _said(error))

    def live(self) -> None:
        for number, step in enumerate(self.case.steps):
            if number == self.case.born:
                self.serve()
            by_other = self.other is not None and number % 2 == 1
            self.append(step, self.other if by_other else None)
            if by_other:
                self.move_by_other()
            if number >= self.case.born:
                self.move(step)
                if self.other is not None and not by_other:
                    self.move_by_other()
            self.look(step, is_served=number >= self.case.born)
        if self.case.born >= len(self.case.steps):
            self.serve()
        if not self.found.disagreements:
            self.at_the_end()

    def serve(self) -> None:
        mode = "inline" if self.case.is_inline else None
        for name, model in self.models.items():
            with self.due("serve", name):
                served = self.lab.serve(model, mode=mode)
                self.found.ways[served.explain().way] += 1
                self.lab.serve(model, "materialized")

    def append(self, step: Step, lab: Lab | None = None) -> None:
        lab = lab or self.lab
        categories = {decider.category: decider.log_category for decider in self.deciders}
        with self.due("append", ""), lab._store.together() as batch:
            for fact in step.facts:
                category, event = categories[fact.category], _event(categories[fact.category], fact)
                context = Context(occurred_at=START + timedelta(days=fact.day))
                lab._store.append(category, getattr(event, category.key), [event], context=context, batch=batch)

    def move(self, step: Step) -> None:
        """Move projections: some in part, which must agree with that moment, then all to the head."""
        names = [model.name for model in self.case.models]
        before = self.lab.head - len(step.facts)
        for number, part in step.moves:
            if names[number] not in self.models:
                continue
            with self.due("apart", names[number]):
                self.lab.serve(self.models[names[number]]).catch_up(to=before + round(part * len(step.facts)))
            for name, model in self.models.items():
                with self.due("apart", name):
                    served = self.lab.serve(model)
                    then = self.lab.as_of(position=served.position)
                    self.compare("apart", name, content(served.rows()), content(then.rows(model)))
        for number in step.order:
            if names[number] in self.models:
                with self.due("catch up", names[number]):
                    self.lab.serve(self.models[names[number]]).catch_up()
        with self.due("catch up", ""):
            self.lab.catch_up()

    def move_by_other(self) -> None:
        """Have the other domain move what it knows, which others are built on that it does not know."""
        assert self.other is not None
        with self.due("other domain", ""):
            self.other.catch_up()

    def known(self) -> list[str]:
        """The read models that the other domain knows, in order."""
        return self.closed([self.case.models[number].name for number in self.case.known])

    def look(self, step: Step | None, *, is_served: bool = True, when: str = "") -> None:
        """Hold every serving against the view."""
        head = self.lab.head
        for name, model in self.models.items():
            said = self.said.setdefault(name, {})
            with self.due(f"view{when}", name):
                right = content(self.lab.serve(model, "view").rows())
                before = next(reversed(said.values()), None)
                said[head] = right
            if head not in said:
                continue
            if is_served:
                with self.due(f"projection{when}", name):
                    rows = content(self.lab.serve(model).rows())
                    self.compare(f"projection{when}", name, rows, right)
                    if before is not None and rows[1] and rows != before:
                        self.moved.add(name)
                with self.due(f"materialized{when}", name):
                    table = self.lab.serve(model, "materialized")
                    table.refresh()
                    self.compare(f"materialized{when}", name, content(table.rows()), right)
            if step is not None:
                position = sorted(said)[int(step.past * len(said))]
                with self.due(f"as of{when}", name):
                    past = content(self.lab.as_of(position=position).rows(model))
                    self.compare(f"as of{when}", name, past, said[position])

    def at_the_end(self) -> None:
        for name, model in self.models.items():
            self.history(name, model)
        if "diff" in self.case.ends:
            for name, model in self.models.items():
                self.diff(name, model)
        if "fork" in self.case.ends:
            with self.due("fork", ""), self.lab.fork(position=self.lab.head) as fork:
                for name, model in self.models.items():
                    with self.due("fork", name):
                        self.compare("fork", name, content(fork.serve(model).rows()), self.said[name][self.lab.head])
        if "inline" in self.case.ends and self.case.steps:
            for name, model in self.models.items():
                with self.due("inline", name):
                    self.lab.serve(model, mode="inline")
            self.append(self.case.steps[0])
            self.look(None, when=", inline")

    def history(self, name: str, model: ReadModel) -> None:
        """The last row of the history of some rows is the row."""
        spec = self.specs[name]
        rows = self.lab.serve(model, "view").rows().fetchall()
        names = [item.name.lower() for item in spec.items]
        places = [names.index(key.lower()) for key in spec.key]
        for row in rows[len(rows) // 2 :][:_LOOKED_AT]:
            with self.due("history", name):
                told = self.lab.history(model, *(row[place] for place in places)).fetchall()
                last = told[-1][4:-1] if told else None
                if repr(last) != repr(row):
                    self.note("history", name, f"{last} instead of {row}")

    def diff(self, name: str, model: ReadModel) -> None:
        """A diff says exactly what is different, and a rehearsal of a rebuild says nothing."""
        said = self.said[name]
        first, last = min(said), max(said)
        with self.due("diff", name):
            rows = self.lab.diff(model, first, last).fetchall()
            gone, come = (Counter(repr(tuple(r[at].values())) for r in rows if r[at] is not None) for at in (-2, -1))
            right = said[first][1] - said[last][1], said[last][1] - said[first][1]
            if (gone, come) != right:
                self.note("diff", name, f"{(gone, come)} instead of {right}")
        with self.due("rehearse", name):
            changes = self.lab.serve(model).rehearse().fetchall()
            if changes:
                self.note("rehearse", name, f"{changes[:3]} of a rebuild that changes nothing")

    def open_again(self) -> None:
        """Another domain opens the store, appends and moves what it knows; then the first one opens it again."""
        case = self.case
        if case.hazard == "reopened store":
            strange = [self.models[name] for name in self.known()]
        elif case.hazard == "case of names":
            strange = [
                ReadModel(name.swapcase(), model.key, self.specs[name].sql) for name, model in self.models.items()
            ]
        else:
            strange = list(self.models.values())
        for number, models in enumerate((strange, list(self.models.values()))):
            with self.due("reopened", ""), self.opened(models) as self.lab:
                if case.hazard == "case of names" and number == 0:
                    for model in models:
                        with self.due("reopened", model.name):
                            self.lab.serve(model)
                if number == 0:
                    self.append(Step(case.late, (), (), 0))
                if number:
                    for state in self.lab.lag().dicts():
                        if state["state"] == "rebuild needed":  # it says so, which is all that can be asked
                            self.lab.serve(self.models[state["model"]], state["served_as"]).rebuild()
                self.lab.catch_up()
                if number:
                    self.look(None, when=", reopened")
                    self.append(case.steps[-1])
                    self.lab.catch_up()
                    self.look(None, when=", reopened")

    def closed(self, names: Sequence[str]) -> list[str]:
        """Names with all that these are built on, in order."""
        wanted = set(names)
        for model in reversed(self.case.models):
            if model.name in wanted:
                wanted |= {name for name in model.reads if name in self.specs}
        return [name for name in self.models if name in wanted]

    # -- what helps ------------------------------------------------------------------------------------------------

    @property
    def deciders(self) -> tuple[Any, ...]:
        return deciders(self.case.naming, self.case.categories)

    @contextmanager
    def opened(self, models: Sequence[ReadModel] = ()) -> Iterator[Lab]:
        domain = Domain(list(self.deciders), list(models))
        with Lab(
            self.path,
            domain=domain,
            threads=1,
            clock=lambda: START + timedelta(seconds=next(self.seconds)),
            new_id=lambda: UUID(int=next(self.ids)),
        ) as lab:
            yield lab

    @contextmanager
    def due(self, check: str, model: str) -> Iterator[None]:
        """Take an error for a disagreement: none is due here."""
        try:
            yield
        except Exception as error:
            self.note(check, model, _said(error))

    def compare(self, check: str, model: str, one: Content, right: Content) -> None:
        if one != right:
            kinds = "" if one[0] == right[0] else f"columns {one[0]} instead of {right[0]}; "
            more, less = (sorted((a - b).elements()) for a, b in ((one[1], right[1]), (right[1], one[1])))
            self.note(check, model, f"{kinds}too much {more[:4]}, missing {less[:4]}")

    def note(self, check: str, model: str, detail: str) -> None:
        features = self.found.features.get(model)
        if features is None:
            features = frozenset().union(*self.found.features.values())
        hazard, is_error = self.case.hazard, ": " in detail and detail.split(":")[0].isidentifier()
        moves = ("apart", "catch up", "projection")
        where = {"case of names": True, "column name": True, "apart": check in moves, "reopened store": "reop" in check}
        kind = "error" if is_error else "other"
        if hazard and where.get(hazard, hazard in features):
            kind = hazard
        self.found.disagreements.append(Disagreement(check, model, kind, detail))


def _event(category: Any, fact: Fact) -> Any:
    return category.types[fact.type](**fact.fields)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def program(case: Case) -> str:
    """Return a case as text that can be read: its SELECTs and its batches."""
    lines = [f"# seed {case.seed}, hazard {case.hazard or 'none'}, categories {', '.join(case.categories)}"]
    for model in case.models:
        lines += [f"{model.name}, key {model.key}:", f"    {model.sql}", f"    # {', '.join(sorted(model.features))}"]
    for number, step in enumerate(case.steps):
        if number == case.born:
            lines.append(f"serve projections{' inline' if case.is_inline else ''}")
        for fact in step.facts:
            lines.append(f"{fact.category} {fact.type} {fact.fields} day {fact.day}")
        moves = [f"{case.models[n].name} to {part:.0%} of the batch" for n, part in step.moves]
        lines.append(f"move {', '.join([*moves, *(case.models[n].name for n in step.order), 'all'])}")
    if case.is_file:
        known = "all" if case.hazard != "reopened store" else ", ".join(case.models[n].name for n in case.known)
        lines.append(f"open again with {known or 'none'} of the models, append {case.late}, open again with all")
    lines.append(f"at the end: {', '.join(sorted(case.ends)) or 'history'}")
    return "\n".join(lines)


__all__ = ["Case", "Disagreement", "Model", "Outcome", "content", "program", "replace", "run", "smaller"]
