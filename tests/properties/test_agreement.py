"""The one idea: a read model, declared once, says the same in every serving and as of any moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import START, append, as_table, assert_same, events, fold_summary, histories, minutes, place

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.errors import RuleViolated
from cqrs_lab.shop import (
    PayOrder,
    customer_contacts,
    daily_orders,
    order_facts,
    order_summary,
    shop_domain,
)

MERGED = [
    order_summary,
    daily_orders,
    ReadModel(
        "all_aggregates",
        "order_id",
        """SELECT order_id, count(*) AS n, count(total) AS totals, count_if(type = 'OrderPaid') AS paid,
                  sum(total) AS total, min(total) AS low, max(total) AS high,
                  bool_and(type <> 'OrderPaid') AS never, bool_or(total > 5000) AS big,
                  bit_and(version) AS a, bit_or(version) AS o,
                  arg_max(method, position) AS latest, arg_min(customer_id, position) AS first_customer,
                  max_by(type, position) FILTER (WHERE total IS NULL) AS last_type,
                  sum(total) FILTER (type = 'OrderPlaced' AND total < 100) AS small
           FROM order_events GROUP BY order_id""",
    ),
    ReadModel(
        "by_two_keys",
        ("day", "kind"),
        """SELECT date_trunc('day', occurred_at) AS day, type AS kind, count(*) AS n,
                  round(100 * sum(total) / count(*), 2) AS mean, max(position) - min(position) AS spread
           FROM order_events AS e WHERE e.version < 4 GROUP BY ALL""",
    ),
    ReadModel("by_number", "kind", "select type as kind, count(*) n from order_events group by 1"),
    ReadModel(
        "odd_text",
        "order_id",
        """/* naïve */ SELECT -- , FROM
             order_id, 'a, FROM (' || max(type) AS "quoted, name", max('FROM') from_
           FROM "order_events" "e" GROUP BY "e".order_id""",
    ),
    ReadModel(
        "commented",
        "kind",
        """SELECT type AS kind, -- what
                  count(*) AS n, /* how many, FROM ( */ coalesce(sum(total), 0) AS t -- how much
           FROM order_events -- all of them
           GROUP BY kind -- that is it""",
    ),
    ReadModel(
        "units",
        "product_id",
        """SELECT line.product_id AS product_id, sum(line.quantity) AS units
           FROM (SELECT unnest(lines) AS line FROM order_events) GROUP BY ALL""",
    ),
    ReadModel("only_keys", "order_id", "SELECT order_id FROM order_events GROUP BY order_id"),
]
RECOMPUTED = [
    ReadModel("medians", "order_id", "SELECT order_id, median(total) AS m FROM order_events GROUP BY order_id"),
    ReadModel("means", "order_id", "SELECT order_id, avg(total) AS m FROM order_events GROUP BY order_id"),
    ReadModel("distinct", "kind", "SELECT type AS kind, count(DISTINCT order_id) AS n FROM order_events GROUP BY type"),
    ReadModel(
        "having", "order_id", "SELECT order_id, count(*) AS n FROM order_events GROUP BY order_id HAVING count(*) > 1"
    ),
    ReadModel(
        "valid_time",
        "order_id",
        "SELECT order_id, arg_max(type, (occurred_at, position)) AS t FROM order_events GROUP BY order_id",
    ),
    ReadModel("layered", "status", "SELECT status, count(*) AS n, sum(total) AS t FROM order_summary GROUP BY status"),
    ReadModel(
        "layered_twice",
        "status",
        """WITH big AS (SELECT status, n FROM layered WHERE n > 1)
           SELECT status, big.n, s.orders FROM big
           JOIN (SELECT status, count(*) AS orders FROM order_summary AS o GROUP BY ALL) AS s USING (status)""",
    ),
    ReadModel(
        "subquery",
        "order_id",
        """SELECT order_id, count(*) AS n, (SELECT max(position) FROM order_events) AS last
           FROM order_events GROUP BY order_id""",
    ),
]


@pytest.mark.parametrize("model", MERGED + RECOMPUTED, ids=lambda model: model.name)
@given(history=histories, cuts=st.lists(st.integers(0, 30), max_size=4), at=st.integers(0, 30))
@settings(max_examples=4, deadline=None)
def test_every_serving_agrees_for_random_histories_and_cuts(model, history, cuts, at):
    """View, materialized after refresh, projection after catch-up in random cuts, and as of the head are equal."""
    with open_shop() as lab:
        for other in RECOMPUTED:
            lab._catalog.declare(other)
        append(lab, history[: len(history) // 3])
        view, kept = lab.serve(model, as_="view"), lab.serve(model, as_="materialized")
        moved = lab.serve(model, as_="projection")
        append(lab, history[len(history) // 3 :])
        for cut in sorted(cuts):
            moved.catch_up(to=cut)
            assert_same(lab, moved.select(), lab.as_of(position=moved.position)._text(model))
        lab.catch_up()
        kept.refresh()
        for serving in (kept, moved):
            assert serving.position == lab.head
            assert_same(lab, view.select(), serving.select())
        assert_same(lab, view.select(), lab.as_of(position=lab.head)._text(model))
        before = view.rows().fetchall()
        moved.rebuild()
        assert moved.rows().fetchall() == before
        past = min(at, lab.head)
        with open_shop() as young:
            for other in RECOMPUTED:
                young._catalog.declare(other)
            append(young, history[:past])
            fresh = young.serve(model, as_="view")
            assert lab.as_of(position=past).rows(model).fetchall() == fresh.rows().fetchall()


@pytest.fixture(scope="module")
def lab():
    """A shop without events that knows the read models."""
    with open_shop() as shop:
        for model in RECOMPUTED:
            shop._catalog.declare(model)
        yield shop


@pytest.mark.parametrize("model", MERGED, ids=lambda model: model.name)
def test_mergeable_models_are_merged(lab, model):
    """Models of combinable aggregates move by merge, so that the property above tests the merge."""
    assert lab.serve(model).explain().way == "merge"


@pytest.mark.parametrize("model", RECOMPUTED, ids=lambda model: model.name)
def test_other_models_are_recomputed_and_say_why(lab, model):
    """What cannot be merged is recomputed for the keys touched, else whole, and explain() gives the reason."""
    explanation = lab.serve(model).explain()
    assert explanation.way == ("recompute all" if model.name == "subquery" else "touched keys")
    assert len(explanation.reason) > 10


@given(history=histories)
@settings(max_examples=20, deadline=None)
def test_order_summary_is_the_fold_of_plain_python(history):
    """The SELECT of order_summary and a fold in Python give the same rows, appended singly or as a table."""
    expected = [fold_summary(history)[key] for key in sorted(fold_summary(history))]
    for single in (True, False):
        with open_shop() as lab:
            if single:
                append(lab, history)
            else:
                lab.append_table("order", as_table(history))
            rows = lab.serve(order_summary, as_="projection").rows().dicts()
            assert sorted(rows, key=lambda row: row["order_id"]) == expected


@given(history=histories, recorded=minutes, occurred=minutes)
@settings(max_examples=15, deadline=None)
def test_the_past_is_the_fold_of_the_events_that_count(history, recorded, occurred):
    """As of a recorded and an occurred time is the fold of the events recorded and occurred by then."""
    clock = [START]
    with open_shop(clock=lambda: clock[0]) as lab:
        for number, step in enumerate(history):
            clock[0] = START + timedelta(minutes=300 * number)
            append(lab, [step])
        known = [
            (event, minute) for n, (event, minute) in enumerate(history) if 300 * n <= recorded and minute <= occurred
        ]
        past = lab.as_of(recorded=START + timedelta(minutes=recorded), occurred=START + timedelta(minutes=occurred))
        rows = {row["order_id"]: row for row in past.rows(order_summary).dicts()}
        expected = fold_summary(known)
        versions = {key: {**row, "version": 0} for key, row in rows.items()}
        assert versions == {key: {**row, "version": 0} for key, row in expected.items()}
        for key, row in rows.items():
            assert past.get(order_summary, key) == row


BY_STATUS = ReadModel(
    "by_status", "status", "SELECT status, count(*) AS n FROM order_facts GROUP BY status", over=(order_facts,)
)


class Shop(RuleBasedStateMachine):
    """Anything that can be done to a store, in any order; after each step everything must still agree."""

    sent = Bundle("sent")

    @initialize()
    def open(self):
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "shop.duckdb"
        self.history: list = []
        self.lab = open_shop(self.path, threads=1)
        self.lab.serve(BY_STATUS)
        self.other: Lab | None = None  # another domain over the same file
        self.number = 0

    @rule(steps=st.lists(st.tuples(events, minutes), min_size=1, max_size=4))
    def append_facts(self, steps):
        append(self.lab, steps)
        self.history += steps

    @rule(steps=st.lists(st.tuples(events, minutes), min_size=1, max_size=6))
    def append_a_table(self, steps):
        self.lab.append_table("order", as_table(steps))
        self.history += steps

    @rule(target=sent)
    def send(self):
        self.number += 1
        command = place(f"sent-{self.number}")
        receipt = self.lab.send(command, command_id=f"command-{self.number}", occurred_at=START)
        self.history.append((receipt.events[0], 0))
        return command, f"command-{self.number}", receipt

    @rule(before=sent)
    def send_again(self, before):
        command, name, receipt = before
        again = self.lab.send(command, command_id=name)
        assert (again.position, again.version, again.events) == (receipt.position, receipt.version, receipt.events)

    @rule(before=sent)
    def send_what_a_rule_refuses(self, before):
        command, _, _ = before
        with pytest.raises(RuleViolated):
            self.lab.send(PayOrder(order_id=command.order_id, amount="1.00"))

    @rule(model=st.sampled_from([order_summary, daily_orders, BY_STATUS]), to=st.integers(0, 40))
    def move_a_projection(self, model, to):
        self.lab.serve(model).catch_up(to=to)

    @rule(model=st.sampled_from([order_summary, daily_orders]))
    def rebuild(self, model):
        self.lab.serve(model).rebuild()

    @rule(model=st.sampled_from([order_summary, daily_orders]))
    def refresh(self, model):
        self.lab.serve(model, as_="materialized").refresh()

    @precondition(lambda self: self.history)
    @rule()
    def reopen(self):
        self.close_the_other()
        self.lab.close()
        self.lab = open_shop(self.path, threads=1)

    def close_the_other(self):
        """Leave the file to the first lab."""
        if self.other is not None:
            self.other.close()
            self.other = None

    @rule()
    def open_another_domain(self):
        """It knows the layers alone, and nothing of what is built on them."""
        if self.other is None:
            domain = replace(shop_domain(), read_models=[customer_contacts, order_facts], queries=[])
            self.other = Lab(self.path, domain=domain, threads=1)
            self.other.serve(order_facts)

    @precondition(lambda self: self.other is not None)
    @rule()
    def another_domain_rebuilds_a_layer(self):
        self.other.serve(order_facts).rebuild()

    @rule(steps=st.lists(st.tuples(events, minutes), min_size=1, max_size=3), moves=st.booleans())
    def another_domain_appends(self, steps, moves):
        self.open_another_domain()
        append(self.other, steps)
        self.history += steps
        if moves:
            self.other.catch_up()

    @precondition(lambda self: self.history)
    @rule()
    def another_domain_has_it_alone(self):
        """One after the other: the first lab is closed meanwhile."""
        self.open_another_domain()
        self.lab.close()
        self.other.catch_up()
        self.lab = open_shop(self.path, threads=1)

    @rule(model=st.sampled_from([BY_STATUS, BY_STATUS, order_summary, order_facts]))
    def everything_agrees_at_the_head(self, model):
        """A projection at the head has the rows of its view, whichever lab moved its layers."""
        served = self.lab.serve(model)
        self.lab.catch_up()
        assert served.state == "ok"
        assert_same(self.lab, served.select(), self.lab.serve(model, as_="view").select())

    @rule(data=st.data())
    def ask_the_past(self, data):
        position = data.draw(st.integers(0, self.lab.head))
        rows = self.lab.as_of(position=position).rows(order_summary).dicts()
        assert {row["order_id"]: row for row in rows} == fold_summary(self.history[:position])

    @invariant()
    def positions_and_versions_have_no_holes(self):
        rows = self.lab.events().fetchall()
        assert [row[0] for row in rows] == list(range(1, len(self.history) + 1))
        versions: dict[str, int] = {}
        for _, stream, version, *_ in rows:
            assert version == versions.get(stream, 0) + 1
            versions[stream] = version

    @invariant()
    def stored_rows_are_those_of_their_position(self):
        for served in self.lab._servings.served():
            past = self.lab.as_of(position=served.position)
            assert_same(self.lab, served.select(), past._text(served.model))

    def teardown(self):
        self.close_the_other()
        self.lab.close()
        self.folder.cleanup()


Shop.TestCase.settings = settings(max_examples=15, stateful_step_count=14, deadline=None)
TestShop = Shop.TestCase
