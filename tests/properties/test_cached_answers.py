"""Whatever happens to rows, an answer from the cache is that of a lab without one."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support import append, events
from support.layers import by_customer, listed
from support.queries import ByStatus, Counted, Everything, Listed, OfCustomer, shop_with

from cqrs_lab import Query, shop
from cqrs_lab.shop import OrderDetails, OrdersOfCustomer, order_summary
from cqrs_lab.store.rows import Rows

QUERIES: list[Query] = [
    *(OrderDetails(order_id=id) for id in ("o-1", "o-2", "ö/4")),
    *(OrdersOfCustomer(customer_id=id) for id in ("c-1", "c-2")),
    *(ByStatus(status=s, customer_id=c) for s in ("PENDING", "PAID", "CANCELLED") for c in ("c-1", None)),
    Everything(),
    Counted(),
    *(Listed(order_id=id) for id in ("o-1", "o-2")),
    *(OfCustomer(customer_id=id) for id in ("c-1", "c-2")),
]


people = st.tuples(st.sampled_from(["c-1", "c-2"]), st.sampled_from(["Ann", "Ben"]))


steps = st.lists(
    st.one_of(
        events.map(lambda event: ("append", event)),
        people.map(lambda who: ("register", who)),
        st.lists(st.sampled_from(QUERIES), min_size=1, max_size=4).map(lambda some: ("ask", some)),
        st.sampled_from([("catch up", None), ("rebuild", order_summary), ("rebuild", listed), ("forget", "c-1")]),
        st.sampled_from([order_summary, listed, by_customer]).map(lambda model: ("move", model)),
    ),
    min_size=5,
    max_size=20,
)


def told(answer: Any) -> Any:
    """An answer to compare."""
    return answer.dicts() if isinstance(answer, Rows) else answer


@given(steps=steps, mode=st.sampled_from(["manual", "inline"]))
@settings(max_examples=6, deadline=None)
def test_with_a_cache_every_answer_is_that_of_a_lab_without(steps, mode):
    """Whatever is appended, moved, rebuilt or erased in between, a cache changes no answer."""
    plain = shop_with(ByStatus, Everything, Counted, Listed, OfCustomer, cache_seconds=None)
    cached = shop_with(ByStatus, Everything, Counted, Listed, OfCustomer)
    with plain, cached:
        for lab in (plain, cached):
            for model in (order_summary, listed, by_customer):
                lab.serve(model, mode=mode)
        for number, (what, detail) in enumerate(steps):
            for lab in (plain, cached):
                if what == "append":
                    append(lab, [(detail, number)])
                elif what == "register":
                    event = shop.CustomerRegistered(customer_id=detail[0], name=detail[1], email=detail[1])
                    append(lab, [event])
                elif what == "catch up":
                    lab.catch_up()
                elif what == "rebuild":
                    lab.serve(detail).rebuild()
                elif what == "move":
                    lab.serve(detail).catch_up()
                elif what == "forget":
                    lab.forget(detail, "customer")
            asked = detail if what == "ask" else []
            for query in (*asked, *asked):
                assert told(cached.ask(query)) == told(plain.ask(query))
