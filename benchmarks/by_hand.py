"""The shop's read models, written by hand in bare DuckDB.

Owns the tables, keys and statements that somebody would write for this shop alone: the strongest that we know, so that
what is measured against them is not flattered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cqrs_lab import Lab

STATUS = ("PENDING", "PAID", "SHIPPED", "DELIVERED", "CANCELLED")
STAGES = {"OrderPaid": 1, "OrderShipped": 2, "OrderDelivered": 3, "OrderCancelled": 4}
FOLD = """
SELECT order_id, max(customer_id) AS customer_id,
       max(CASE type WHEN 'OrderCancelled' THEN 4 WHEN 'OrderDelivered' THEN 3 WHEN 'OrderShipped' THEN 2
                     WHEN 'OrderPaid' THEN 1 ELSE 0 END) AS stage,
       arg_max(total, position) AS total,
       sum(CASE WHEN type = 'OrderRefunded' THEN -amount ELSE amount END) AS paid,
       coalesce(sum(list_sum([line.quantity for line in lines])), 0)
       - coalesce(sum(list_sum([line.quantity for line in removed])), 0) AS item_count,
       max(version) AS version, max(CASE WHEN type = 'OrderPlaced' THEN occurred_at END) AS created_at,
       max(occurred_at) AS updated_at
FROM order_events WHERE position > {start} AND position <= {end} GROUP BY order_id
"""
ROWS = """
SELECT f.order_id, f.customer_id, c.customer_name, c.customer_email,
       (['PENDING', 'PAID', 'SHIPPED', 'DELIVERED', 'CANCELLED'])[f.stage + 1] AS status, f.stage, f.total,
       coalesce(f.paid, 0)::DECIMAL(18, 2) AS paid, f.item_count::BIGINT AS item_count, f.version, f.created_at,
       f.updated_at
FROM ({fold}) AS f LEFT JOIN {contacts} AS c ON c.customer_id = f.customer_id
"""
CONTACTS = """SELECT customer_id, arg_max(name, position) AS customer_name, arg_max(email, position) AS customer_email
              FROM (SELECT * FROM customer_events LEFT JOIN customer_personal USING (position) WHERE position <= {end})
              GROUP BY customer_id"""
# Keys unpacked, or DuckDB unpacks a block for each row that it takes out of an index; numbers and times in bits, for it
# goes through runs from their start for each row.
TABLES = (
    """CREATE OR REPLACE TABLE contacts_by_hand (customer_id VARCHAR USING COMPRESSION uncompressed PRIMARY KEY,
       customer_name VARCHAR, customer_email VARCHAR)""",
    """CREATE OR REPLACE TABLE by_hand (order_id VARCHAR USING COMPRESSION uncompressed PRIMARY KEY,
       customer_id VARCHAR, customer_name VARCHAR,
       customer_email VARCHAR, status VARCHAR, stage INTEGER USING COMPRESSION bitpacking,
       total DECIMAL(18, 2) USING COMPRESSION bitpacking, paid DECIMAL(18, 2) USING COMPRESSION bitpacking,
       item_count BIGINT USING COMPRESSION bitpacking, version INTEGER USING COMPRESSION bitpacking,
       created_at TIMESTAMP USING COMPRESSION bitpacking, updated_at TIMESTAMP USING COMPRESSION bitpacking)""",
    "CREATE OR REPLACE TABLE sales_by_hand (day DATE PRIMARY KEY, orders BIGINT, revenue DECIMAL(18, 2))",
    """CREATE OR REPLACE TABLE value_by_hand (customer_id VARCHAR USING COMPRESSION uncompressed PRIMARY KEY,
       customer_name VARCHAR, customer_email VARCHAR, orders BIGINT, revenue DECIMAL(18, 2), first_order_at TIMESTAMP,
       last_order_at TIMESTAMP)""",
    "CREATE OR REPLACE TABLE checkpoint_by_hand AS SELECT 0::BIGINT AS position",
)
SALES = """SELECT created_at::DATE AS day, count(*), sum(paid)::DECIMAL(18, 2) FROM by_hand
           WHERE paid > 0 AND stage < 4 AND created_at IS NOT NULL {only} GROUP BY 1"""
VALUE = """SELECT customer_id, max(customer_name), max(customer_email), count(*),
                  coalesce(sum(paid) FILTER (WHERE stage < 4), 0)::DECIMAL(18, 2), min(created_at), max(created_at)
           FROM by_hand WHERE customer_id IS NOT NULL {only} GROUP BY 1"""
# How the newer half goes into the older one: the merge, by hand.
MERGED = {
    "customer_id": "coalesce({new}.customer_id, {old}.customer_id)",
    "customer_name": "coalesce({new}.customer_name, {old}.customer_name)",
    "customer_email": "coalesce({new}.customer_email, {old}.customer_email)",
    "status": "CASE WHEN {new}.stage > {old}.stage THEN {new}.status ELSE {old}.status END",
    "stage": "greatest({new}.stage, {old}.stage)",
    "total": "coalesce({new}.total, {old}.total)",
    "paid": "{new}.paid + {old}.paid",
    "item_count": "{new}.item_count + {old}.item_count",
    "version": "greatest({new}.version, {old}.version)",
    "created_at": "coalesce({new}.created_at, {old}.created_at)",
    "updated_at": "greatest({new}.updated_at, {old}.updated_at)",
}

CHANGED = """stage = greatest(new.stage, old.stage), version = greatest(new.version, old.version),
             updated_at = greatest(new.updated_at, old.updated_at),
             status = (['PENDING', 'PAID', 'SHIPPED', 'DELIVERED', 'CANCELLED'])[greatest(new.stage, old.stage) + 1],
             paid = old.paid + coalesce(new.paid, 0), item_count = old.item_count + new.item_count"""


def rows(start: int, end: int, contacts: str = "contacts_by_hand") -> str:
    """Return the SELECT of the rows of the events between two positions, names looked up in `contacts`."""
    return ROWS.format(fold=FOLD.format(start=start, end=end), contacts=contacts)


class ByHand:
    """The same read models, written by hand, in the lab's own file."""

    def __init__(self, lab: Lab) -> None:
        self.database = lab._log.database
        self.run, self.position = self.database.execute, 0
        self.event: tuple[Any, ...] = ()

    def build(self, head: int) -> None:
        """Fold the whole log into the keyed tables."""
        with self.database.transaction():
            for table in TABLES:
                self.run(table)
            self.run(f"INSERT INTO contacts_by_hand {CONTACTS.format(end=head)}")
            self.run(f"INSERT INTO by_hand {rows(0, head)}")
            self.run(f"INSERT INTO sales_by_hand {SALES.format(only='')}")
            self.run(f"INSERT INTO value_by_hand {VALUE.format(only='')}")
        self.position = head

    @contextmanager
    def moving_to(self, head: int) -> Iterator[str]:
        """A transaction, with its checkpoint; yields the SELECT of the new events' rows."""
        with self.database.transaction():
            yield rows(self.position, head)
            self.run("UPDATE checkpoint_by_hand SET position = ?", [head])

    def look(self) -> None:
        """Read the next event into memory, where its writer has it already."""
        names = "order_id, type, version, occurred_at, amount"
        (self.event,) = self.run(f"SELECT {names} FROM order_events WHERE position > ?", [self.position])

    def one(self, head: int) -> None:
        """Move by one event that is in memory: the row's columns by its key, the checkpoint, one durable commit."""
        order, kind, version, at, amount = self.event
        sets, values = "version = ?, updated_at = ?", [version, at]
        if kind in STAGES:
            sets, values = f"status = ?, stage = ?, {sets}", [STATUS[STAGES[kind]], STAGES[kind], *values]
        if kind in ("OrderPaid", "OrderRefunded"):
            sets, values = f"paid = paid + ?, {sets}", [amount if kind == "OrderPaid" else -amount, *values]
        with self.moving_to(head) as fresh:
            if kind == "OrderPlaced":
                self.run(f"INSERT INTO by_hand {fresh}")
            else:
                self.run(f"UPDATE by_hand SET {sets} WHERE order_id = ?", [*values, order])

    def upsert(self, head: int) -> None:
        """Move by one upsert."""
        with self.moving_to(head) as fresh:
            sets = ", ".join(f"{c} = {text.format(new='excluded', old='by_hand')}" for c, text in MERGED.items())
            self.run(f"INSERT INTO by_hand {fresh} ON CONFLICT (order_id) DO UPDATE SET {sets}")

    def replace(self, head: int, *more: str) -> None:
        """Move by taking the old rows out and putting the new ones in."""
        with self.moving_to(head) as fresh:
            merged = ", ".join(
                f"CASE WHEN old.order_id IS NULL THEN new.{c} ELSE {text.format(new='new', old='old')} END AS {c}"
                for c, text in MERGED.items()
            )
            self.run(f"CREATE OR REPLACE TEMP TABLE fresh AS {fresh}")
            self.run(
                f"CREATE OR REPLACE TEMP TABLE merged AS SELECT order_id, {merged} "
                "FROM fresh AS new LEFT JOIN by_hand AS old USING (order_id)"
            )
            self.run("DELETE FROM by_hand USING merged WHERE by_hand.order_id = merged.order_id")
            self.run("INSERT INTO by_hand BY NAME SELECT * FROM merged")
            for sql in more:
                self.run(sql)

    def change(self, head: int, *, by_number: bool) -> None:
        """Move by an UPDATE of the columns that events change, and an INSERT of the orders that are placed.

        Args:
            by_number: whether under the INTEGER key.
        """
        fold = FOLD.format(start=self.position, end=head)
        fresh = ROWS.format(fold="FROM fresh WHERE created_at IS NOT NULL", contacts="contacts_by_hand")
        table, key = ("by_number", "stream_no") if by_number else ("by_hand", "order_id")
        if by_number:
            fold, fresh = self._numbered(fold), self._numbered(fresh)
        with self.moving_to(head):
            self.run(f"CREATE OR REPLACE TEMP TABLE fresh AS {fold}")
            self.run(
                f"UPDATE {table} AS old SET {CHANGED} "
                f"FROM (SELECT * FROM fresh WHERE created_at IS NULL) AS new WHERE old.{key} = new.{key}"
            )
            self.run(f"INSERT INTO {table} {fresh}")

    @staticmethod
    def _numbered(select: str) -> str:
        """A fold or its rows with the number of the stream, by which it is grouped."""
        select = select.replace("SELECT order_id,", "SELECT stream_no, any_value(order_id) AS order_id,")
        select = select.replace("GROUP BY order_id", "GROUP BY stream_no")
        return select.replace("SELECT f.order_id,", "SELECT f.stream_no, f.order_id,")

    def number(self) -> None:
        """Keep the same rows once more under an INTEGER key, the number of their stream, in its order."""
        with self.database.transaction():
            self.run(
                "CREATE OR REPLACE TABLE by_number AS SELECT stream_no, b.* FROM by_hand AS b "
                "JOIN streams ON stream = 'order/' || order_id ORDER BY stream_no"
            )
            self.run("ALTER TABLE by_number ADD PRIMARY KEY (stream_no)")

    def check(self, ours: str, *, by_number: bool) -> None:
        """Look whether it has the same rows as a projection: what leaves something out is no limit."""
        names = ", ".join(["order_id", *(column for column in MERGED if column != "stage")])
        own = f"SELECT {names} FROM {'by_number' if by_number else 'by_hand'}"
        ((other,),) = self.run(f"SELECT count(*) FROM (SELECT {names} FROM {ours} EXCEPT ALL {own})")
        assert other == 0, f"{other} rows of {ours} are others by hand"

    def by_number(self, head: int) -> None:
        """Move the rows under the INTEGER key: taken out and put in."""
        with self.moving_to(head):
            self.run(f"CREATE OR REPLACE TEMP TABLE fresh AS {self._numbered(rows(self.position, head))}")
            between = "BETWEEN (SELECT min(stream_no) FROM fresh) AND (SELECT max(stream_no) FROM fresh)"
            merged = ", ".join(
                f"CASE WHEN old.stream_no IS NULL THEN new.{c} ELSE {text.format(new='new', old='old')} END AS {c}"
                for c, text in MERGED.items()
            )
            old = f"(SELECT * FROM by_number WHERE stream_no {between}) AS old"
            self.run(
                f"CREATE OR REPLACE TEMP TABLE merged AS SELECT new.stream_no, new.order_id, {merged} "
                f"FROM fresh AS new LEFT JOIN {old} ON old.stream_no = new.stream_no"
            )
            self.run("DELETE FROM by_number WHERE stream_no IN (SELECT stream_no FROM merged)")
            self.run("INSERT INTO by_number BY NAME SELECT * FROM merged")

    def built_on_it(self, table: str, select: str, key: str, of: str) -> Callable[[int], None]:
        """Return what moves the orders, and then makes again the rows of a table that are built on those orders."""
        reached = f"(SELECT {of} FROM merged)"
        gone = f"DELETE FROM {table} WHERE {key} IN {reached}"
        return lambda head: self.replace(
            head, gone, f"INSERT INTO {table} {select.format(only=f'AND {of} IN {reached}')}"
        )
