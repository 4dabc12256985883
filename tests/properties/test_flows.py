"""What directly follows what, of any history: counted by DuckDB and by plain Python."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from statistics import median

from hypothesis import given, settings
from hypothesis import strategies as st
from support import append, histories

from cqrs_lab import open_shop
from cqrs_lab.workbench import flow_picture, flows


@given(history=histories, share=st.floats(0, 1), most=st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_arrows_are_those_of_a_plain_count(history, share, most):
    """At any position the pairs, counts and medians are Python's, and all arrows together are events and streams."""
    with open_shop(threads=1) as lab:
        append(lab, history)
        position = round(share * lab.head)
        streams = defaultdict(list)
        for recorded in lab.events(category="order", up_to=position).dicts():
            streams[recorded["stream"]].append((recorded["type"], recorded["occurred_at"]))
        for events in streams.values():
            events.sort(key=lambda event: event[1])  # which leaves those of one moment in the order of the log
        waits = defaultdict(list)
        for events in streams.values():
            for (one, since), (other, at) in zip([(None, None), *events], [*events, (None, None)], strict=True):
                waits[one, other].append((at - since) / timedelta(microseconds=1) if at and since else None)
        seen = flows(lab.as_of(position=position), "order")
        assert {(one, other): times for one, other, times, _ in seen.iter_rows()} == {
            pair: len(found) for pair, found in waits.items()
        }
        for one, other, _, wait in seen.iter_rows():
            known = [found for found in waits[one, other] if found is not None]
            assert (wait is None) == (None in (one, other))
            assert wait is None or abs(wait / timedelta(microseconds=1) - median(known)) <= 1
        assert seen["times"].sum() == position + len(streams)
        if position:
            picture = flow_picture(lab.as_of(position=position), "order", most=most)
            assert picture.rows.equals(seen)
