"""What the package promises to the outside: its names, its errors, the exercises' solutions."""

from __future__ import annotations

import inspect
import re
import runpy
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

import cqrs_lab
from cqrs_lab import errors, shop, workbench
from cqrs_lab.workbench.course import check_returns, repeatable

ROOT = Path(__file__).parent.parent


def test_the_public_names_are_kept():
    """Programs and notebooks of others import these names."""
    assert set(cqrs_lab.__all__) >= {
        "Command", "Decider", "Domain", "Event", "Lab", "Personal", "Query", "ReadModel", "Saga", "Service",
        "open_shop",
    }  # fmt: skip
    assert set(shop.__all__) >= {
        "CancelOrder", "ChangeCustomerEmail", "DeliverOrder", "OrderDetails", "OrderLine", "OrdersOfCustomer",
        "PayOrder", "PlaceOrder", "RefundOrder", "RegisterCustomer", "ShipOrder", "StockProduct", "daily_orders",
        "order_summary",
    }  # fmt: skip
    assert set(workbench.__all__) >= {
        "Workload", "compare_latency", "events_from_milestones", "generate", "load_olist", "time_machine",
    }  # fmt: skip
    for module in (cqrs_lab, shop, workbench):
        assert list(module.__all__) == sorted(module.__all__, key=lambda name: (not name[0].isupper(), name))
        assert all(hasattr(module, name) for name in module.__all__)


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
    assert len(blocks) == 3
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
