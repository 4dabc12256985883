"""Snapshots change no answer."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.sums import Add, open_lab, snapshots, state_of, table

from cqrs_lab.errors import CqrsLabError

ids = st.sampled_from(["a", "b", "ö/'"])
adds = st.builds(Add, tally=ids, n=st.integers(-4, 4))
steps = st.one_of(
    adds,
    st.lists(adds, min_size=1, max_size=24),
    st.lists(st.tuples(ids, st.integers(-2, 3)), min_size=1, max_size=4).map(tuple),
    st.sampled_from(["reopen", "forget what is remembered"]),
)


def told(path, history, every):
    """Return what a lab answers to a history, and the states at its end."""
    answers, lab = [], open_lab(path, snapshot_every=every)
    try:
        for step in history:
            try:
                match step:
                    case "reopen":
                        lab.close()
                        lab = open_lab(path, snapshot_every=every)
                    case str():
                        lab._store.loaded.clear()
                    case tuple():
                        answers.append(lab.append_table("tally", table(step)))
                    case list():
                        answers.append([replace(r, command_id="", correlation_id="") for r in lab.send_many(step)])
                    case _:
                        answers.append(replace(lab.send(step), command_id="", correlation_id=""))
            except CqrsLabError as error:
                answers.append((str(error), getattr(error, "__notes__", None)))
        loaded = {id: (state_of(lab, id).state, state_of(lab, id).version) for id in ("a", "b", "ö/'")}
        return answers, loaded, [row[:4] for row in lab.events()], snapshots(lab)
    finally:
        lab.close()


@settings(max_examples=12)
@given(st.lists(steps, max_size=10), st.sampled_from([1, 2, 3, 10]))
# A refusal prints the state, with a time in it that came out of a snapshot.
@example([Add(tally="a", n=2), "reopen", Add(tally="a", n=1), "reopen", Add(tally="a", n=-4)], 1)
def test_snapshots_change_no_answer(tmp_path_factory, history, every):
    """Any history gives the same receipts, refusals, events and states with snapshots as without."""
    folder = tmp_path_factory.mktemp("snapshots")
    *without, none = told(folder / "without.duckdb", history, 0)
    *with_, _ = told(folder / "with.duckdb", history, every)
    assert with_ == without
    assert none == {}
