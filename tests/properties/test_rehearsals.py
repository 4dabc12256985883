"""A rehearsal of a rebuild tells exactly what is wrong with stored rows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from support import append, histories, tamper

from cqrs_lab import open_shop
from cqrs_lab.shop import order_facts


@given(history=histories, data=st.data(), as_=st.sampled_from(["projection", "materialized"]))
@settings(max_examples=10, deadline=None)
def test_a_rehearsal_tells_exactly_what_is_wrong(history, data, as_) -> None:
    """Rows spoilt, lost and made up are all that a rehearsal tells, and a rebuild leaves nothing to tell."""
    with open_shop(threads=1) as lab:
        append(lab, history)
        served = lab.serve(order_facts, as_=as_)
        assert len(served.rehearse()) == 0
        known = sorted(row["order_id"] for row in served.rows().dicts())
        fate = {order: data.draw(st.sampled_from(["kept", "spoilt", "lost"])) for order in known}
        for order, what in fate.items():
            if what == "lost":
                tamper(lab, f"DELETE FROM {as_}.order_facts WHERE order_id = ?", order)
            elif what == "spoilt":
                tamper(lab, f"UPDATE {as_}.order_facts SET paid = paid + 1, version = 0 WHERE order_id = ?", order)
        more = f"SELECT * REPLACE ('made up' AS order_id) FROM {as_}.order_facts LIMIT 1"
        tamper(lab, f"INSERT INTO {as_}.order_facts {more}")
        told = {row["order_id"]: (row["change"], row["columns"]) for row in served.rehearse().dicts()}
        expected = {o: ("changed", ["paid", "version"]) for o, what in fate.items() if what == "spoilt"}
        expected |= {o: ("added", []) for o, what in fate.items() if what == "lost"}
        if any(what != "lost" for what in fate.values()):
            expected["made up"] = ("removed", [])
        assert told == expected
        served.rebuild()
        assert len(served.rehearse()) == 0
