"""Snapshots: what is read, what is not used, and what is forgotten."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from itertools import count

import pytest
from support import python
from support.sums import Add, Added, Tally, add, open_lab, snapshots, state_of, table

from cqrs_lab import Command, Domain, Event, Lab
from cqrs_lab.errors import DeclarationError, RuleViolated
from cqrs_lab.shop import ChangeCustomerEmail, RegisterCustomer, customers
from cqrs_lab.store.log import Log


@pytest.fixture
def read(monkeypatch):
    """How many events each look at a stream read."""
    counts, numbered = [], Log.read_numbered

    def counting(*given, **names):
        found = numbered(*given, **names)
        counts.append(len(found))
        return found

    monkeypatch.setattr(Log, "read_numbered", counting)
    return counts


@pytest.mark.parametrize(("every", "kept", "behind"), [(0, None, 30), (1, 29, 1), (3, 27, 3), (10, 20, 10)])
def test_only_what_is_behind_a_snapshot_is_read(every, kept, behind, read):
    """A snapshot is kept once so many events were folded, and a command then reads those behind it alone."""
    with open_lab(snapshot_every=every) as lab:
        add(lab, *[1] * 30)
        assert snapshots(lab) == ({} if kept is None else {"tally/a": kept})
        assert (state_of(lab).state.total, state_of(lab).version) == (30, 30)
        assert read[-1] == behind


def test_many_streams_get_their_snapshots_in_one_batch():
    """A batch keeps one snapshot for each stream, of its latest state, or none when it fails."""
    with open_lab(snapshot_every=2) as lab:
        batch = [Add(tally=f"t-{i}", n=n) for n in (1, 2, 1, 2, 1) for i in range(20)]
        with pytest.raises(RuleViolated):
            lab.send_many([*batch, Add(tally="a", n=-1)])
        assert snapshots(lab) == {}
        lab.send_many(batch)
        assert snapshots(lab) == {f"tally/t-{i}": 4 for i in range(20)}
        assert {state_of(lab, f"t-{i}").state.total for i in range(20)} == {7}


@pytest.mark.parametrize("damage", ["[]", '{"total": "many"}', "null", "7", '{"last": {}}'])
def test_a_damaged_snapshot_is_as_good_as_none(damage, read):
    """A state that cannot be read is folded from the events again, and the next snapshot replaces it."""
    with open_lab(snapshot_every=2) as lab:
        add(lab, 1, 1, 1)
        assert snapshots(lab) == {"tally/a": 2}
        lab._log.database.execute("UPDATE snapshots SET state = ?", [damage])
        assert (state_of(lab).state.total, read[-1]) == (3, 3)
        add(lab, 1)
        assert snapshots(lab) == {"tally/a": 3}
        assert (state_of(lab).state.total, read[-1]) == (4, 1)


MODULE = """
def evolve(total, event):
    return total + times(event.n)

def times(n):
    return {times} * n
"""


def module(folder, times, numbers=count()):  # noqa: B008
    """Return the evolve of a new module."""
    path = folder / f"evolving_{next(numbers)}.py"
    path.write_text(MODULE.replace("{times}", str(times)))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made.evolve


@pytest.mark.parametrize(("times", "total", "behind"), [(1, 5, 1), (10, 50, 5)])
def test_a_state_that_other_code_made_is_not_used(times, total, behind, tmp_path, read):
    """When anything in evolve's file changed the state follows the new code; the same code uses the snapshot."""
    simple = {"initial": 0, "decide": lambda command, state: [Added(tally="a", n=1)], "snapshot_every": 2}
    path = tmp_path / "lab.duckdb"
    with open_lab(path, evolve=module(tmp_path, 1), **simple) as lab:
        add(lab, *[1] * 5)
        assert snapshots(lab) == {"tally/a": 4}
    with open_lab(path, evolve=module(tmp_path, times), **simple) as lab:
        assert (state_of(lab).state, read[-1]) == (total, behind)


BESIDE = {
    "a function": ("from rates import worth", "return total + worth(event)"),
    "a module": ("import rates", "return total + rates.worth(event)"),
    "by another name": ("from rates import worth as w", "return total + w(event)"),
    "through another file": ("import middle", "return total + middle.worth(event)"),
    "in a package": ("from rules.rates import worth", "return total + worth(event)"),
    "an object": ("from rates import RATES", "return total + RATES.worth(event)"),
    "a partial": (
        "from functools import partial\nfrom rates import worth\nhow = partial(worth)",
        "return total + how(event)",
    ),
    "in the class": (
        "import rates\nclass Fold:\n    def __call__(self, total, event):\n        return total + rates.worth(event)",
        "return Fold()(total, event)",
    ),
}
PROGRAM = """
import sys
from cqrs_lab import Command, Decider, Domain, Event, Lab
{imports}

class Add(Command):
    k: str

class Added(Event):
    k: str

seen = []

def evolve(total, event):
    {body}

def decide(command, state):
    seen.append(state)
    return [Added(k=command.k)]

jars = Decider("jar", "k", 0, decide, evolve, [Add], [Added], snapshot_every=3)
with Lab("store.duckdb", domain=Domain([jars])) as lab:
    for _ in range(int(sys.argv[1])):
        lab.send(Add(k="a"))
    print(seen[-1], lab._log.database.execute("SELECT version FROM snapshots"))
"""
RATES = """
def worth(event):
    return {worth}

class Rates:
    def worth(self, event):
        return {worth}

RATES = Rates()
"""


@pytest.mark.parametrize("way", BESIDE)
def test_what_evolve_calls_in_other_files_counts_too(way, tmp_path):
    """When a file that evolve reaches is changed, no snapshot from before is used; when none is, it is."""
    imports, body = BESIDE[way]
    (tmp_path / "app.py").write_text(PROGRAM.replace("{imports}", imports).replace("{body}", body))
    (tmp_path / "middle.py").write_text("from rates import worth\n")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "__init__.py").write_text("")

    def run(worth, sends):
        for folder in (tmp_path, tmp_path / "rules"):
            (folder / "rates.py").write_text(RATES.replace("{worth}", str(worth)))
        command = [sys.executable, "-B", "app.py", str(sends)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60).stdout.strip()

    assert run(1, 5) == "4 [(3,)]"
    assert run(1, 1) == "5 [(3,)]"
    assert run(10, 1) == "60 [(6,)]"


def test_a_state_of_other_versions_of_events_is_not_used(tmp_path, read):
    """When an event's schema_version moves, or the initial state, snapshots from before are not used."""
    path, older = tmp_path / "lab.duckdb", Added
    with open_lab(path, snapshot_every=2) as lab:
        add(lab, *[1] * 5)
    newer = type(
        "Added",
        (Event,),
        {"__annotations__": dict(older.__annotations__), "__module__": __name__}
        | {"schema_version": 2, "upcasts": {1: {"n": "n * 10"}}},
    )
    newer.__pydantic_decorators__  # noqa: B018
    with open_lab(path, snapshot_every=2, events=[newer]) as lab:
        assert (state_of(lab).state.total, read[-1]) == (50, 5)
    with open_lab(path, snapshot_every=2, initial=Tally(total=100)) as lab:
        assert (state_of(lab).state.total, read[-1]) == (105, 5)
    with open_lab(path, snapshot_every=2) as lab:
        assert (state_of(lab).state.total, read[-1]) == (5, 1)


NOTEBOOK = """
import sys
from support.sums import Added, add, open_lab, snapshots, state_of
times = int(sys.argv[2])
simple = {"initial": 0, "decide": lambda command, state: [Added(tally="a", n=1)], "snapshot_every": 2}
exec(compile("def evolve(total, event): return total + times * event.n", "<cell>", "exec"))
with open_lab(sys.argv[1], evolve=evolve, **simple) as lab:
    add(lab, *[1] * 3)
    print(state_of(lab).state, snapshots(lab))
"""


def test_a_state_made_in_a_notebook_stays_there(tmp_path):
    """Where evolve has no source a snapshot is used by the decider that made it, and by no other process."""
    answers = [python(NOTEBOOK, tmp_path / "lab.duckdb", times).stdout.strip() for times in ("1", "10")]
    assert answers == ["3 {'tally/a': 2}", "60 {'tally/a': 5}"]


@pytest.mark.parametrize(
    "changes",
    [
        {"initial": {}, "evolve": lambda state, event: {**state, (1, 2): 3}},
        {"initial": {}, "evolve": lambda state, event: {**state, 1: 2}},
        {"initial": 0, "evolve": lambda state, event: state + 0.5},
        {"initial": None, "evolve": lambda state, event: 5},
        {"initial": Tally(), "evolve": lambda state, event: {1, 2}},
        {"initial": object(), "evolve": lambda state, event: object()},
        {"initial": 0.0, "evolve": lambda state, event: float("nan")},
    ],
    ids=["a tuple as key", "a number as key", "a fraction of an int", "nothing", "a set", "any object", "not a number"],
)
def test_a_state_that_json_cannot_keep_is_refused(changes):
    """A state that does not come back from JSON as it went is a DeclarationError, and nothing is stored."""
    simple = {"decide": lambda command, state: [Added(tally="a", n=1)], "snapshot_every": 1}
    with open_lab(**simple, **changes) as lab:
        lab.send(Add(tally="a", n=1))
        for act in (lab.send, lambda command: lab.send_many([command])):
            with pytest.raises(DeclarationError, match=r"state of 'tally'.*snapshot_every"):
                act(Add(tally="a", n=1))
        assert (lab.head, snapshots(lab)) == (1, {})


def add_in_place(state, event):
    """An evolve that is not pure: it changes the state that it is given."""
    if event.n == 13:
        raise ValueError("thirteen")
    state = state or []
    state.append(event.n)
    return state


@pytest.mark.parametrize("every", [0, 2])
def test_a_state_changed_in_place_does_not_outlive_a_failed_batch(every):
    """Even when evolve changes its state in place, what a failed command or batch did to it is forgotten."""
    seen = []

    def deciding(command, state):
        seen.append(list(state or ()))
        if command.n == 77:
            raise RuleViolated("nobody adds 77", state)
        return [Added(tally="a", n=command.n), *([Added(tally="a", n=13)] if command.n == 99 else [])]

    with open_lab(initial=[], evolve=add_in_place, decide=deciding, snapshot_every=every) as lab:
        lab.send(Add(tally="a", n=1))
        with pytest.raises(ValueError, match="thirteen"):
            lab.send(Add(tally="a", n=99))
        lab.send(Add(tally="a", n=7))
        assert seen[-1] == [1]
        for last, error in ((77, RuleViolated), (99, ValueError)):
            with pytest.raises(error):
                lab.send_many([Add(tally="a", n=n) for n in (2, 3, last)])
            lab.send(Add(tally="a", n=8))
            assert seen[-1] == [1, 7, 8][: 2 + (last == 99)]
        assert state_of(lab).state == [1, 7, 8, 8]


def test_what_is_remembered_follows_the_log():
    """A command is decided on what append_table and other labs added, whatever this lab remembers."""
    with open_lab() as lab:
        lab.send(Add(tally="a", n=1))
        lab.append_table("tally", table([("a", 4)]))
        assert lab.send(Add(tally="a", n=-5)).version == 3


def test_forgetting_forgets_states(tmp_path):
    """What was forgotten about somebody is in no snapshot and in no remembered state, of any lab over the file."""

    class DoNothing(Command):
        customer_id: str

    decide = lambda command, state: [] if isinstance(command, DoNothing) else customers.decide(command, state)  # noqa: E731
    kept = replace(customers, snapshot_every=1, commands=[*customers.commands, DoNothing], decide=decide)
    path, domain = tmp_path / "lab.duckdb", Domain(deciders=[kept])
    with Lab(path, domain=domain, threads=1) as lab, Lab(path, domain=domain, threads=1) as other:
        lab.send(RegisterCustomer(customer_id="c-1", name="Ann", email="ann@example.com"))
        change = ChangeCustomerEmail(customer_id="c-1", email="ann@example.com")
        assert (lab.send(change).events, other.send(change).events) == ((), ())
        assert "ann@example.com" in str(lab._log.database.execute("SELECT state FROM snapshots"))
        lab.forget("c-1")
        assert lab._log.database.execute("SELECT * FROM snapshots") == []
        lab.send(DoNothing(customer_id="c-1"))
        assert len(other.send(change).events) == 1  # nobody knows any longer that it is the same one
