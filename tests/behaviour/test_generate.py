"""A workload in a lab: how it is stored, recorded and refused, and how a shop is described."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from cqrs_lab import Lab, open_shop
from cqrs_lab.errors import DeclarationError, InvalidMessage
from cqrs_lab.shop import customers, daily_orders, order_summary
from cqrs_lab.workbench import events_from_milestones
from cqrs_lab.workbench.checks import check_import, sales
from cqrs_lab.workbench.data import draws
from cqrs_lab.workbench.data import generated as module
from cqrs_lab.workbench.data.draws import digest
from cqrs_lab.workbench.data.generated import deliveries, generate, tables
from cqrs_lab.workbench.data.workload import Workload

TINY = Workload(orders=12, seed=1)
DATA = Path(__file__).parents[2] / "data"


def test_the_committed_workload_is_the_one_that_is_made():
    """The preset tiny has, wherever this runs, the content that lies in data/, whose README knows its columns."""
    made = tables(Workload.preset("tiny"))
    files = {name: DATA / f"tiny_{name}s.parquet" for name in made}
    kept = {name: pq.read_table(file) for name, file in files.items()}
    assert digest(*kept.values()) == digest(*made.values())
    said = (DATA / "README.md").read_text("utf-8")
    assert digest(*made.values()) in said
    for table in kept.values():
        assert all(f"| `{name}` |" in said for name in table.column_names)
    assert sum(file.stat().st_size for file in files.values()) < 200_000
    with open_shop(threads=1) as lab, open_shop(threads=1) as generated:
        for name, file in files.items():
            lab.append_table(name, file)
        generate(generated, Workload.preset("tiny"))
        envelope = pl.exclude("event_id")
        assert lab.events().pl().select(envelope).equals(generated.events().pl().select(envelope))


def test_parts_do_not_matter(monkeypatch):
    """A workload that is stored in parts holds the events, and has the digest, of the whole."""
    assert module.SLICE % draws.BLOCK == 0
    for place, size in ((draws, "BLOCK"), (module, "SLICE")):
        monkeypatch.setattr(place, size, 1 << 10)
    workload = Workload(orders=1_500, late=0.1, hot=10)
    with open_shop(threads=1) as parts, open_shop(threads=1) as whole:
        report = generate(parts, workload)
        made = tables(workload)
        for name, table in made.items():
            whole.append_table(name, table)
        assert report.digest == digest(*made.values())
        assert report.events == sum(table.num_rows for table in made.values()) > 2 << 10
        assert report.last_occurred_at == max(made["order"]["occurred_at"].to_pylist())
        assert parts.events().pl().drop("event_id").equals(whole.events().pl().drop("event_id"))


def test_copies_that_are_appended_count_twice():
    """The log takes facts as they come: with the copies, the shop has earned what it never got."""
    delivered = deliveries(Workload(orders=300, duplicates=0.1))
    events = pl.from_arrow(delivered)
    earned = []
    for rows in (events, events.unique("message_id", keep="first", maintain_order=True)):
        with open_shop(threads=1) as lab:
            lab.append_table("order", rows.drop("message_id").with_columns(recorded_at=rows["recorded_at"].cum_max()))
            earned.append(lab.serve(order_summary).pl()["paid"].sum())
    copies = events.filter(~pl.col("message_id").is_first_distinct())
    signed = pl.when(pl.col("type") == "OrderRefunded").then(-pl.col("amount")).otherwise("amount")
    assert earned[0] - earned[1] == copies.select(signed).sum().item() > 0


def test_an_empty_lab_gets_a_past():
    """The first workload was recorded as it happened, so that the shop can be asked what it knew at any time."""
    with open_shop(threads=1) as lab:
        report = generate(lab, Workload(orders=400, days=20))
        events = lab.events().pl()
        assert (events["recorded_at"] == events["occurred_at"]).all()
        assert (len(events), events["occurred_at"].min(), events["occurred_at"].max()) == (
            report.events, report.first_occurred_at, report.last_occurred_at,
        )  # fmt: skip
        placed = lab.as_of(recorded=date(2025, 1, 10)).rows(order_summary)
        assert 0 < len(placed) < len(lab.serve(order_summary).rows()) == 400


def test_a_second_workload_is_recorded_now():
    """With a prefix of its own, another workload joins the first; the store learns of it as it comes in."""
    with open_shop(threads=1) as lab:
        first = generate(lab, TINY)
        before = datetime.now(UTC)
        second = generate(lab, Workload(orders=12, seed=2, prefix="b-"))
        assert lab.head == first.events + second.events
        assert lab.events(after=first.events).pl()["recorded_at"].min() >= before - timedelta(milliseconds=1)
        assert len(lab.serve(order_summary).rows()) == 24
        assert first.digest != second.digest


@pytest.mark.parametrize("again", [TINY, Workload(orders=3, seed=2)])
def test_ids_that_are_there_are_refused(again):
    """A workload whose ids the lab has is refused with the way out, and nothing is stored."""
    with open_shop(threads=1) as lab:
        generate(lab, TINY)
        head = lab.head
        with pytest.raises(InvalidMessage, match=r"prefix: the lab has a customer 'c-000001'; .* such as 'b-'"):
            generate(lab, again)
        assert lab.head == head


def test_a_lab_without_orders_is_refused():
    """A domain of its own has nowhere to put orders, which is said before customers are stored."""
    with open_shop() as shop:
        domain = type(shop.domain)(deciders=[customers])
    with Lab(domain=domain) as lab:
        with pytest.raises(DeclarationError, match="no category 'order'"):
            generate(lab, TINY)
        assert lab.head == 0


def test_threads_do_not_matter():
    """Labs with one thread and with four hold the same events at the same positions."""
    held = []
    for threads in (1, 4):
        with open_shop(threads=threads) as lab:
            generate(lab, Workload(orders=1_000))
            held.append(lab.events().pl().drop("event_id"))
    assert held[0].equals(held[1])


def test_all_of_it_reaches_the_read_models():
    """What the read models add up is what the tables hold."""
    events = pl.from_arrow(tables(Workload(orders=300))["order"])
    with open_shop(threads=1) as lab:
        generate(lab, Workload(orders=300))
        daily, summary = lab.serve(daily_orders).pl(), lab.serve(order_summary).pl()
        assert daily["value"].sum() == summary["total"].sum() == events["total"].sum()
        signed = pl.when(pl.col("type") == "OrderRefunded").then(-pl.col("amount")).otherwise("amount")
        assert summary["paid"].sum() == events.select(signed).sum().item()
        units = events["lines"].drop_nulls().explode().struct.field("quantity")
        assert summary["item_count"].sum() == units.sum()


def test_only_large_workloads_show_a_bar(monkeypatch, capsys):
    """A small workload prints nothing; a large one says how far it is."""
    with open_shop(threads=1) as lab:
        generate(lab, TINY)
        assert capsys.readouterr() == ("", "")
        monkeypatch.setattr(module, "LARGE", 10)
        generate(lab, Workload(orders=10, prefix="b-"))
        assert "order events: 100%" in capsys.readouterr().err


def test_the_check_of_an_import_says_what_is_missing():
    """Each thing that an import of the bookshop lacks is named, and a table that the log refuses ends the check."""
    milestones = {"OrderPlaced": "ordered"}
    seen = check_import(events_from_milestones(sales(), key="number", milestones=milestones))
    assert not seen.passed
    assert "✓ three orders came in" in str(seen)
    assert "✗ status is right: of order 1 it is PENDING, not SHIPPED" in str(seen)
    assert "✗ created_at is right: of order 3 it is 2025-03-30 02:30" in str(seen)
    assert "✗ your code runs: InvalidTable" in str(check_import(sales()))
