"""What the time machine shows of any history: a fold up to a position, and the difference of two of them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from support import append, histories

from cqrs_lab import open_shop
from cqrs_lab.shop import orders
from cqrs_lab.shop.orders import STAGES
from cqrs_lab.workbench.show.snapshots import difference, snapshot


@given(history=histories, share=st.floats(0, 1))
@settings(max_examples=12, deadline=None)
def test_a_snapshot_is_a_fold_of_the_events_up_to_it(history, share):
    """At any position the counts, in the order of the stages, are those of a fold in plain Python."""
    with open_shop(threads=1) as lab:
        append(lab, history)
        position = round(share * lab.head)
        streams = {}
        for event, _ in history[:position]:
            streams.setdefault(event.order_id, []).append(event)
        statuses = Counter(orders.fold(events).status for events in streams.values())
        seen = snapshot(lab, position)
        assert seen.counts.rows() == [(status, statuses[status]) for status in STAGES if status in statuses]
        assert seen.position == position
        assert len(seen.latest) == min(len(streams), 5)


@given(history=histories, shares=st.tuples(st.floats(0, 1), st.floats(0, 1)), rows=st.integers(1, 6))
@settings(max_examples=12, deadline=None)
def test_a_difference_is_that_of_the_rows_at_two_positions(history, shares, rows):
    """Its counts are those of the rows at both positions, its first rows those of diff; order decides direction."""
    with open_shop(threads=1) as lab:
        append(lab, history)
        before, after = (round(share * lab.head) for share in shares)
        one, other = (
            {row["order_id"]: row for row in lab.as_of(position=position).rows("order_summary").dicts()}
            for position in (before, after)
        )
        seen = difference(lab, before, after, rows=rows)
        assert seen.counts == {
            "added": len(other.keys() - one.keys()),
            "removed": len(one.keys() - other.keys()),
            "changed": sum(one[key] != other[key] for key in one.keys() & other.keys()),
        }
        assert seen.first.equals(lab.diff("order_summary", before, after).pl().head(rows))
        back = difference(lab, after, before).counts
        assert back == seen.counts | {"added": seen.counts["removed"], "removed": seen.counts["added"]}
