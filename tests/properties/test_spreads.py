"""Replays on several processes: every read model has the rows that a rebuild on one machine gives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask.distributed import Client, LocalCluster
from selects import case_of
from spreads import differences, spreadings

from cqrs_lab import ReadModel, open_shop
from cqrs_lab.scale import replay, seal
from cqrs_lab.shop import shop_domain
from cqrs_lab.workbench import Workload, generate

MODELS = 25
"""So many made-up read models; `spreads.py` takes any other number."""

BY_STREAM = {"order_facts", "customer_contacts", "order_summary", "order_list", "open_orders"}
MERGED = {"daily_orders", "product_demand"}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of two processes."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_every_read_model_of_the_shop(client: Any, tmp_path: Path) -> None:
    """Replayed rows are those of a rebuild, whether a partition gives them, they combine, or they are shuffled."""
    with open_shop(threads=1) as lab:
        generate(lab, Workload(orders=300, seed=5))
        seal(lab, tmp_path, partitions=4)
        for model in shop_domain().read_models:
            rows = replay(tmp_path, model, client)
            assert differences(lab, model, rows) == ""
            wanted = "by stream" if model.name in BY_STREAM else "merged" if model.name in MERGED else "shuffled"
            assert rows.spread == wanted, rows


def test_made_up_read_models(client: Any) -> None:
    """Replayed rows of SELECTs that nobody wrote are those of a rebuild, and many of them are spread."""
    spreads: Counter[str] = Counter()
    seed = 0
    while spreads.total() < MODELS:
        for one in spreadings(case_of(seed), client):
            assert not one.wrong, f"seed {seed}: {one}"
            spreads[one.spread] += 1
        seed += 1
    assert spreads["by stream"] + spreads["merged"] + spreads["shuffled"] >= MODELS / 2, spreads
    assert spreads["by stream"] <= spreads.total() * 2 / 3, spreads
    assert min(spreads["merged"], spreads["shuffled"]) >= 2, spreads


PARTS = [
    ReadModel(
        "latest_of_day",
        "day",
        """SELECT occurred_at::DATE AS day, arg_max(total, position) AS last, arg_min(customer_id, position) AS first,
                  max_by(type, position) FILTER (total IS NULL) AS other, bool_or(total > 50) AS big,
                  bit_or(version) AS bits, max(version) - min(version) AS spread
           FROM order_events GROUP BY day""",
    ),
    ReadModel("all_in_one", "n", "SELECT 1 AS n, count(*) AS events, sum(version) AS versions FROM order_events"),
    ReadModel("by_null", "customer_id", "SELECT customer_id, count(*) AS n FROM order_events GROUP BY ALL"),
    ReadModel("of_none", "order_id", "SELECT order_id, count(*) AS n FROM payment_events GROUP BY order_id"),
    ReadModel("one_of_none", "n", "SELECT 1 AS n, count(*) AS events FROM payment_events"),
    ReadModel("medians", "day", "SELECT occurred_at::DATE AS day, median(total) AS m FROM order_events GROUP BY day"),
    ReadModel("every_event", "position", "SELECT position, type, total FROM order_events WHERE total > 20"),
    ReadModel(
        "steps",
        ("order_id", "position"),
        """SELECT order_id, position, lag(type) OVER (PARTITION BY order_id ORDER BY position) AS before
           FROM order_events""",
    ),
    ReadModel(
        "spans",
        "order_id",
        """SELECT order_id, max(occurred_at) - min(occurred_at) AS span, sum(version) AS s
           FROM order_events GROUP BY ALL""",
    ),
    ReadModel(
        "ranks",
        "order_id",
        """SELECT order_id, row_number() OVER (ORDER BY min(position), order_id) AS r
           FROM order_events GROUP BY order_id""",
    ),
]


@pytest.mark.parametrize("model", PARTS, ids=lambda model: model.name)
def test_what_partitions_make_difficult(client: Any, tmp_path: Path, model: ReadModel) -> None:
    """The latest by position of several streams, one row of all, NULL keys, no events, large and odd types agree."""
    with open_shop(threads=1) as lab:
        generate(lab, Workload(orders=60, seed=3))
        seal(lab, tmp_path, partitions=3)
        lab.serve(model)
        assert differences(lab, model, replay(tmp_path, model, client)) == ""
