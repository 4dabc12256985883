"""The layout of a store: what its tables refuse, whoever writes into them."""

from __future__ import annotations

import pytest
from support import place

from cqrs_lab import Lab, open_shop
from cqrs_lab.errors import ConstraintViolated
from cqrs_lab.shop import RegisterCustomer, order_summary

# Every table of a store of the shop -> the columns that hold something in every row, and what is there once.
FILLED = {
    "store": ["name", "value"],
    "categories": ["category", "key"],
    "streams": ["stream", "stream_no", "category", "id"],
    "commands": ["command_id", "type", "digest"],
    "snapshots": ["stream_no", "version", "position", "code", "state"],
    "servings": ["model", "served_as", "mode", "fingerprint", "position"],
    "dead_letters": ["model", "position", "type", "error", "attempts", "at"],
    "read_models": ["model", "key", "sql"],
    "order_events": ["position", "stream_no", "version", "type", "schema_version", "event_id", "occurred_at",
                     "recorded_at", "order_id"],
    "customer_events": ["position", "stream_no", "version", "type", "schema_version", "event_id", "occurred_at",
                        "recorded_at", "customer_id"],
    "customer_personal": ["position"],
}  # fmt: skip
ONCE = {
    "store": ["name"], "categories": ["category"], "streams": ["stream"], "commands": ["command_id"],
    "snapshots": ["stream_no"], "servings": ["model", "served_as"], "dead_letters": ["model", "position"],
    "read_models": ["model"], "order_events": ["position"], "customer_events": ["position"],
    "customer_personal": ["position"],
}  # fmt: skip


@pytest.fixture
def lab() -> Lab:
    """A shop with something in every table."""
    lab = open_shop()
    lab.send(RegisterCustomer(customer_id="c-1", name="Ann", email="a@b.org"))
    lab.send(place("o-1"))
    lab.serve(order_summary)
    run = lab._log.database.execute
    run("INSERT INTO snapshots VALUES (1, 1, 1, 'x', '{}')")
    run("INSERT INTO dead_letters VALUES ('m', 1, 'T', 'e', 1, now()::TIMESTAMP)")
    return lab


def columns(lab: Lab, table: str) -> list[str]:
    """The columns of a table."""
    return list(lab._log.database.columns(f"FROM {table}"))


@pytest.mark.parametrize("table", FILLED)
def test_what_is_always_there_cannot_be_left_out(lab: Lab, table: str) -> None:
    """A row that lacks one of them is refused."""
    there = columns(lab, table)
    keys = {name: f"{name} || 'x'" for name in ONCE[table]}
    keys |= {name: f"{name} + 1000" for name in ("position", "stream_no", "version") if name in there}
    for left_out in FILLED[table]:
        made = {name: keys.get(name, f'"{name}"') for name in there} | {left_out: "NULL"}
        with pytest.raises(ConstraintViolated):
            lab._log.database.execute(f"INSERT INTO {table} SELECT {', '.join(made.values())} FROM {table} LIMIT 1")


@pytest.mark.parametrize("table", ONCE)
def test_what_is_there_once_cannot_come_twice(lab: Lab, table: str) -> None:
    """A second row under the same key is refused."""
    made = {name: f'"{name}"' for name in columns(lab, table)}
    if "events" in table:
        made["version"] = "version + 1000"
    with pytest.raises(ConstraintViolated):
        lab._log.database.execute(f"INSERT INTO {table} SELECT {', '.join(made.values())} FROM {table} LIMIT 1")


@pytest.mark.parametrize("table", ["order_events", "customer_events"])
def test_a_version_of_a_stream_is_given_once(lab: Lab, table: str) -> None:
    """Two events of one stream cannot have one version, at whatever positions."""
    made = {name: f'"{name}"' for name in columns(lab, table)} | {"position": "position + 1000"}
    with pytest.raises(ConstraintViolated):
        lab._log.database.execute(f"INSERT INTO {table} SELECT {', '.join(made.values())} FROM {table} LIMIT 1")
