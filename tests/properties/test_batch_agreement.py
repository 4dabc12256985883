"""A batch of commands does what its commands do one by one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from support.histories import CHARACTERS
from support.tallies import Add, Added, Call, Called, Spot, calls, log_of, open_lab

spots = st.builds(Spot, name=st.text(CHARACTERS, max_size=3), depth=st.none() | st.integers(-(2**63), 2**63 - 1))
adds = st.builds(
    Add,
    tally=st.sampled_from(["a", "b", "ö/'x", "\N{SNOWMAN}"]),
    n=st.integers(-2, 3) | st.sampled_from([2**62, 2**63 - 1]),
    note=st.none() | st.text(CHARACTERS, max_size=3),
    spot=st.none() | spots,
    spots=st.lists(spots, max_size=2),
)
histories = st.lists(adds | st.builds(Call, line=st.sampled_from("xy")), max_size=30)


@settings(max_examples=12)
@given(histories, st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_a_batch_equals_its_commands_one_by_one(commands, cuts):
    """Commands sent as batches lead to the events, versions and states of the same commands sent one by one."""
    never = lambda command, total: [Added(**dict(command))] if command.n else []  # noqa: E731
    call = calls(lambda command, key: [Called(line=command.line, key="k")])
    with open_lab(decide=never, service=call) as one, open_lab(decide=never, service=call) as many:
        sent = [one.send(command) for command in commands]
        batched, rest = [], list(commands)
        for cut in [*cuts, 99]:
            batched += many.send_many(rest[:cut])
            rest = rest[cut:]
        said = [(r.stream, r.version, r.events) for r in sent]
        assert [(r.stream, r.version, r.events) for r in batched] == said
        assert [r.position for r in batched if r.events] == [r.position for r in sent if r.events]
        assert log_of(many) == log_of(one)
        for id in {command.tally for command in commands if isinstance(command, Add)}:
            category = one._categories["tally"]
            assert [r.event for r in many._log.read(category, id)] == [r.event for r in one._log.read(category, id)]
            if f"tally/{id}" in one._store.loaded:
                loaded, other = one._store.loaded[f"tally/{id}"], many._store.loaded[f"tally/{id}"]
                assert (loaded.state, loaded.version) == (other.state, other.version)
