"""Transactions that tell the truth, questions that only ask, and names that are nothing but names."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.stores import rows

from cqrs_lab.errors import ConstraintViolated, QueryFailed, ReadOnlyStore, StoreError, TransactionAborted
from cqrs_lab.sql.names import quote
from cqrs_lab.store.database import Database


def test_a_swallowed_error_is_not_success(database: Database) -> None:
    """A transaction in which a failed statement was ignored raises TransactionAborted and stores nothing."""
    with pytest.raises(TransactionAborted, match="nothing of it was"), database.transaction():  # noqa: PT012
        database.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(ConstraintViolated):
            database.execute("INSERT INTO t VALUES (1)")
    assert rows(database) == []
    with database.transaction():
        database.execute("INSERT INTO t VALUES (1)")
    assert rows(database) == [1]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_any_exception_rolls_back(database: Database, error: type[BaseException]) -> None:
    """Whatever is raised in the block reaches the caller, nothing is stored, and the next transaction works."""
    with pytest.raises(error), database.transaction():  # noqa: PT012
        database.execute("INSERT INTO t VALUES (1)")
        raise error
    assert not database.in_transaction
    with database.transaction():
        database.execute("INSERT INTO t VALUES (2)")
    assert rows(database) == [2]


def test_the_reason_is_not_hidden(database: Database) -> None:
    """When a statement over a registered table fails in a transaction, its own error comes out; the name is free."""
    table = pa.table({"i": [1, 1]})
    with (
        pytest.raises(ConstraintViolated, match=r"[Dd]uplicate|PRIMARY KEY"),
        database.transaction(),
        database.registered(table, "_table") as name,
    ):
        database.execute(f"INSERT INTO t SELECT i FROM {name}")
    with pytest.raises(QueryFailed, match="_table"):
        database.execute("SELECT * FROM _table")
    with database.registered(table.slice(1), "_table") as name, database.transaction():
        database.execute(f"INSERT INTO t SELECT i FROM {name}")
    assert rows(database) == [1]


def test_transactions_do_not_nest(database: Database) -> None:
    """A transaction inside a transaction is refused, and the outer one stores nothing."""
    with pytest.raises(StoreError, match="do not nest"), database.transaction():  # noqa: PT012
        database.execute("INSERT INTO t VALUES (1)")
        with database.transaction():
            pass
    assert rows(database) == []


@pytest.mark.parametrize(
    "sql",
    ["", "SELECT 1; SELECT 2", "DROP TABLE t", "INSERT INTO t VALUES (1)", "SELECT 1; DROP TABLE t", "PRAGMA version"],
)
def test_a_question_is_one_select(database: Database, sql: str) -> None:
    """Text that is not one SELECT is refused before any of it runs."""
    with pytest.raises(QueryFailed):
        database.arrow(sql, views={})
    assert rows(database) == []


def test_a_question_does_not_write(database: Database) -> None:
    """A SELECT that would write through a function of DuckDB's is refused, and leaves no views behind."""
    with database.transaction():
        database.execute("CREATE SEQUENCE s")
    with pytest.raises((QueryFailed, ReadOnlyStore)):
        database.arrow("SELECT nextval('s')", views={"v": "SELECT 1 AS a"})
    with pytest.raises(QueryFailed, match="v does not exist"):
        database.execute("SELECT * FROM v")


def test_a_wrong_question_says_where(database: Database) -> None:
    """An error of DuckDB's is QueryFailed with its message and the statement, and the cursor goes on working."""
    with pytest.raises(QueryFailed, match=r"nothing_like_it[\s\S]*In: SELECT nothing_like_it"):
        database.execute("SELECT nothing_like_it\nFROM t")
    with pytest.raises(QueryFailed, match="No files found"):
        database.execute("SELECT * FROM read_csv('nowhere.csv')")
    assert rows(database) == []


@pytest.mark.parametrize("name", ['x"; DROP TABLE t; --', "select", "Ordér 🛒", " ", "a.b"])
def test_quoted_names(database: Database, name: str) -> None:
    """A name that was quoted is nothing but a name."""
    with database.transaction():
        database.execute(f"CREATE TABLE {quote(name)} ({quote(name)} INTEGER)")
        database.execute(f"INSERT INTO {quote(name)} VALUES (1)")
    assert database.execute(f"SELECT {quote(name)} FROM {quote(name)}") == [(1,)]
    assert rows(database) == []


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_names_that_cannot_be(name: str) -> None:
    """An empty name and one with a NUL cannot be quoted."""
    with pytest.raises(QueryFailed, match="cannot name"):
        quote(name)
