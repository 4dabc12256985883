"""What the package promises to the outside: its names, its errors, the exercises' solutions."""

from __future__ import annotations

import inspect
import re
import runpy
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from support import line, place, python

import cqrs_lab
from cqrs_lab import errors, shop, workbench
from cqrs_lab.workbench.checks import (
    check_break_even,
    check_cancellations,
    check_first_position,
    check_own_write,
    check_returns,
)
from cqrs_lab.workbench.course import early_shop, median_ms, medians_ms, repeatable, run_apart
from cqrs_lab.workbench.course.stage import exit_code
from cqrs_lab.workbench.measure import timing

ROOT = Path(__file__).parents[2]


def test_the_public_names_are_kept():
    """Programs and notebooks of others import these names: each there, once, sorted, and in cqrs_lab documented."""
    assert set(cqrs_lab.__all__) >= {
        "Command", "Decider", "Domain", "Event", "Lab", "Personal", "Query", "ReadModel", "Saga", "Service",
        "open_shop",
    }  # fmt: skip
    assert set(shop.__all__) >= {
        "CancelOrder", "ChangeCustomerEmail", "DeliverOrder", "OrderDetails", "OrderLine", "OrdersOfCustomer",
        "PayOrder", "PlaceOrder", "RefundOrder", "RegisterCustomer", "SalesByDay", "ShipOrder", "StockProduct",
        "customer_value", "daily_orders", "daily_sales", "delivery_times", "open_orders", "order_list", "order_summary",
        "product_demand",
    }  # fmt: skip
    assert set(workbench.__all__) >= {
        "Workload", "compare_latency", "events_from_milestones", "generate", "load_olist", "time_machine",
    }  # fmt: skip
    for module in (cqrs_lab, shop, workbench):
        assert list(module.__all__) == sorted(module.__all__, key=lambda name: (not name[0].isupper(), name))
        assert all(hasattr(module, name) for name in module.__all__)
        assert len(set(module.__all__)) == len(module.__all__)
    assert all(getattr(cqrs_lab, name).__doc__ for name in cqrs_lab.__all__)


def test_every_error_is_in_the_tree_that_the_docstring_draws():
    """Every error derives from CqrsLabError and is drawn, under its parent, with a docstring of its own."""
    drawn = errors.__doc__.splitlines()
    for name, error in vars(errors).items():
        if inspect.isclass(error):
            assert issubclass(error, errors.CqrsLabError)
            assert error.__doc__
            assert any(line.lstrip("│├└─ ").split(" ")[0] == name for line in drawn), name


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks" / "solutions").glob("*.py")), ids=lambda path: path.name)
def test_solutions_pass_their_checks(path):
    """Every solution of an exercise is run and found right by the check that learners use."""
    assert runpy.run_path(str(path))["result"].passed


def test_the_check_says_what_is_missing():
    """A check names each thing that does not hold yet, and survives functions that fail."""
    solution = runpy.run_path(str(ROOT / "notebooks" / "solutions" / "01_commands_and_events.py"))
    ask, event, right = solution["ReturnOrder"], solution["OrderReturned"], solution["my_orders"]

    def checked(**parts):
        kept = {name: getattr(right, name) for name in ("category", "key", "initial", "commands", "events")}
        functions = {"decide": right.decide, "evolve": right.evolve} | parts
        return check_returns(cqrs_lab.Decider(**kept, **functions), ask, event)

    assert checked().passed
    forgetful = checked(evolve=lambda order, e: order if isinstance(e, event) else right.evolve(order, e))
    assert not forgetful.passed
    assert "✗ evolve() remembers the return" in repr(forgetful)
    assert "✓ a delivered order can be returned" in repr(forgetful)
    eager = checked(decide=lambda command, order: [event(order_id="o-1", reason="x")])
    assert "✗ a shipped order cannot be returned yet" in repr(eager)
    assert "ZeroDivisionError" in repr(checked(decide=lambda command, order: 1 / 0))
    assert "a list of events" in repr(checked(decide=lambda command, order: None))


def test_the_check_of_reading_own_writes_says_what_is_missing():
    """It finds rows that are too old, patience that is not kept, and errors that are taken for a delay."""
    right = runpy.run_path(str(ROOT / "notebooks" / "solutions" / "06_eventual_consistency.py"))["read_own_write"]

    def hasty(lab, command, query, patience):
        lab.send(command)
        return {"state": "done", "row": lab.ask(query)}

    def twice(lab, command, query, patience):
        lab.send(shop.AddOrderLine(order_id="o-1", line=shop.OrderLine(product_id="p", quantity=1, unit_price="0")))
        return right(lab, command, query, patience)

    def stubborn(lab, command, query, patience):
        return right(lab, command, query, 4)

    def deaf(lab, command, query, patience):
        try:
            return right(lab, command, query, patience)
        except errors.CqrsLabError:
            return {"state": "working", "row": lab.ask(query), "position": 0, "of": 0}

    for wrong, said in [
        (hasty, "✗ what comes in time is waited for: it says 'done' and shows PENDING"),
        (twice, "✗ the command is sent, once: what it led to is ['OrderLineAdded', 'OrderPaid']"),
        (stubborn, "✗ patience is as long as it was told: 0.1 s became 4 s"),
        (deaf, "✗ a refusal is told"),
        (lambda *arguments: None, "a dict with"),
    ]:
        found = check_own_write(wrong)
        assert not found.passed
        assert said in repr(found)


def test_the_check_of_first_positions_says_what_is_missing():
    """It finds answers that are beside it, too many questions, and a search that does not end."""
    right = runpy.run_path(str(ROOT / "notebooks" / "solutions" / "05_time_travel.py"))["first_position"]

    def one_by_one(lab, holds):
        return next((p for p in range(lab.head + 1) if holds(lab.as_of(position=p))), None)

    def without_none(lab, holds):
        found = right(lab, holds)
        return lab.head if found is None else found

    def endless(lab, holds):
        while not holds(lab.as_of(position=1)):
            pass

    for wrong, said in [
        (lambda lab, holds: None, "✗ what holds from position 60 on is found: the answer is None; it should be 60"),
        (lambda lab, holds: max(1, right(lab, holds) or 0) - 1, "the answer is 59; it should be 60"),
        (lambda lab, holds: right(lab, holds) or None, "holds from position 0 on: the answer is None; it should be 0"),
        (one_by_one, "✗ few questions are asked: 61 questions for 100 positions"),
        (without_none, "✗ what never holds has no position: None: the answer is 100; it should be None"),
        (lambda lab, holds: 77 if right(lab, holds) == 78 else right(lab, holds), "✗ every other position is found"),
        (endless, "a thousand questions, and no end"),
    ]:
        found = check_first_position(wrong)
        assert not found.passed
        assert said in repr(found)


def test_the_check_of_breaking_even_says_what_is_missing():
    """It finds a formula without the table's own time, and savings that never come."""
    for wrong, said in [
        (lambda view, table, refresh: refresh / view, "break_even(10.0, 2.0, 40.0) is 4.0; it should be 5.0"),
        (lambda view, table, refresh: refresh / (view - table or 1), "✗ a table as slow as the view never pays"),
        (lambda view, table, refresh: None, "✗ small numbers are as good"),
    ]:
        found = check_break_even(wrong)
        assert not found.passed
        assert said in repr(found)


def test_the_median_of_an_action_is_taken(monkeypatch):
    """Each run is told its number; one slow run does not count."""
    seen, now = [], [0.0]

    def act(number):
        seen.append(number)
        now[0] += 0.5 if number == 1 else 0.02

    monkeypatch.setattr(timing, "perf_counter", lambda: now[0])
    assert median_ms(act, runs=5) == pytest.approx(20)
    assert seen == [0, 1, 2, 3, 4]
    assert medians_ms(act, runs=5) == {"act": pytest.approx(20)}


def test_a_function_runs_apart(tmp_path):
    """It ends, fails with what it said, or is killed with rows written and not committed."""

    def ends(path):
        from pathlib import Path

        Path(path).touch()

    def fails():
        raise ValueError("no such order")

    def moves(shop, said):
        from pathlib import Path

        from cqrs_lab import open_shop
        from cqrs_lab.store.database import Database
        from cqrs_lab.workbench.course import die_before_checkpoint

        lab, execute = open_shop(shop), Database.execute

        def noting(self, sql, params=()):
            rows = execute(self, sql, params)
            if sql.startswith(("INSERT", "UPDATE")) and "projection" in sql:
                Path(said).write_text(str(self.in_transaction))
            return rows

        Database.execute = noting
        die_before_checkpoint()
        lab.catch_up()

    assert run_apart(ends, str(tmp_path / "there")) == 0
    assert (tmp_path / "there").exists()
    with pytest.raises(RuntimeError, match="no such order"):
        run_apart(fails)
    path, said = tmp_path / "shop.duckdb", tmp_path / "said"
    with cqrs_lab.open_shop(path) as lab:
        lab.serve(shop.daily_orders)
        lab.send(place())
    assert run_apart(moves, str(path), str(said)) == -9
    assert [exit_code(9, "nt"), exit_code(9, "posix"), exit_code(-9, "posix"), exit_code(0, "nt")] == [-9, 9, -9, 0]
    assert said.read_text() == "True"
    with cqrs_lab.open_shop(path) as lab:
        served = lab.serve(shop.daily_orders)
        assert (served.position, len(served.rows())) == (0, 0)


def test_the_check_of_cancellations_says_what_is_missing():
    """It finds a total that is elsewhere, other columns and keys, a stale total, a refund, a reason told twice."""

    def checked(columns, source="order_events", rest="GROUP BY reason", key="reason"):
        sql = f"SELECT reason, {columns} FROM {source} {rest}"
        return repr(check_cancellations(cqrs_lab.ReadModel("cancellations", key, sql)))

    counted = "count(*) AS orders, sum(total)::DECIMAL(18, 2) AS value"

    def by_order(reason="max(reason) FILTER (type = 'OrderCancelled')", total="arg_max(total, position)"):
        inner = f"(SELECT order_id, {reason} AS reason, {total} AS total FROM order_events GROUP BY order_id)"
        return checked(counted, inner, "WHERE reason IS NOT NULL GROUP BY reason")

    only = "WHERE type = 'OrderCancelled' GROUP BY reason"
    assert by_order().endswith("All done.")
    assert "'changed my mind' is 10 orders worth None; it should be 10 orders worth 1001.00" in checked(
        counted, rest=only
    )
    assert "there is a row for None" in checked(counted)
    assert "✗ its columns are reason, orders, value: they are reason, orders" in checked(
        "count(*) AS orders", rest=only
    )
    assert "✗ its key is reason: it is orders" in checked(counted, rest=only, key="orders")
    assert "✗ more lines and more reasons are counted: 'takes too long' is 6 orders worth 776.40" in by_order(
        total="max(total) FILTER (type = 'OrderPlaced')"
    )
    assert "✗ it says what plain Python says: 'changed my mind' is 19 orders" in by_order(reason="max(reason)")
    assert "a reason has more than one row" in checked("orders, value", _TWICE, "")


# The right rows, each of them twice.
_TWICE = """(
    SELECT cancelled.reason, count(*) AS orders, sum(facts.total)::DECIMAL(18, 2) AS value
    FROM order_events AS cancelled JOIN order_facts AS facts ON facts.order_id = cancelled.order_id
    WHERE cancelled.type = 'OrderCancelled' GROUP BY cancelled.reason
), unnest([1, 2])"""


def test_the_early_shop_writes_version_1(tmp_path):
    """The shop of today reads what the shop of the first year wrote: names, freight and method of today."""
    path, two = tmp_path / "shop.duckdb", line("p-1", 2, "9.99")
    with early_shop(path) as early:
        early.send(place("o-1", two))
        early.send(shop.PayOrder(order_id="o-1", amount="24.88"))
        assert '"customer":"c-1"' in early.events().dicts()[0]["data"]
    with cqrs_lab.open_shop(path) as today:
        read = "SELECT customer_id, total, freight, method FROM order_events ORDER BY position"
        placed, paid = today.as_of(position=2).sql(read).fetchall()
        assert placed == ("c-1", Decimal("19.98"), Decimal("4.90"), None)
        assert paid == (None, None, None, "card")
        today.send(shop.ShipOrder(order_id="o-1", tracking_number="t-1"))


def test_a_repeatable_lab_is_the_same_at_every_run():
    """The course's clock and ids make two labs with the same commands equal to the last id."""
    logs = []
    for _ in range(2):
        with cqrs_lab.open_shop(**repeatable()) as lab:
            lab.send(shop.RegisterCustomer(customer_id="c-1", name="Ann", email="ann@example.com"))
            lab.send(shop.RegisterCustomer(customer_id="c-2", name="Ben", email="ben@example.com"))
            logs.append(lab.events().fetchall())
    assert logs[0] == logs[1]
    assert len({row[6] for row in logs[0]}) == 2


def test_the_code_in_the_readme_runs(tmp_path, monkeypatch):
    """The README's Python runs as it stands, in order, on a fresh store and a table of orders."""
    monkeypatch.chdir(tmp_path)
    moment = pl.Series([datetime(2025, 1, 1, 12, tzinfo=UTC)])
    names = {
        "orders": pl.DataFrame({"order_id": ["x-1"], "ordered_at": moment, "paid_at": moment, "shipped_at": moment})
    }
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(block, names)
    with names["lab"] as lab:
        assert lab.head == 12
        assert lab.events(stream="order/o-3").pl()["type"].to_list()[-1] == "OrderShipped"
        assert (tmp_path / "copy.duckdb").exists()
        assert "merge" in str(lab.serve("spent").explain())


def test_the_readme_lists_every_notebook():
    """Each notebook stands in the README's table, with what a learner ends able to do."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{notebook.name})" in text


def test_testing_needs_no_test_runner() -> None:
    """Importing cqrs_lab.testing imports no pytest, which is no dependency of the package."""
    code = "import sys, cqrs_lab.testing; sys.exit('pytest' in sys.modules)"
    assert python(code).returncode == 0
