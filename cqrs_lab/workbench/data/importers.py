"""Importers: what other systems know about orders becomes events.

Owns reading foreign files and tables, strictly, and saying what in them is odd; the events go through
`Lab.append_table` and no other way. It judges nothing: a parcel that left before it was paid stays as it was found.
Everything is checked before the first event is stored.

Local times become UTC by one rule. A time that the clock skipped (spring) is read with the offset of the day before:
00:30 in a skipped hour is the moment called 01:30. Of a time that the clock showed twice (autumn) the first is taken.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import polars as pl

from cqrs_lab.app import Lab
from cqrs_lab.errors import ImportFailed, InvalidTable
from cqrs_lab.store.shown import html_of
from cqrs_lab.workbench.data.reading import FILES, TIMES, csv_name, read_folder
from cqrs_lab.write.sources import LINE, UTC, Problems, Source, as_frame, fail, instants, refuse

_PLACED, _PAID, _SHIPPED, _DELIVERED = map(pl.col, TIMES)
_STATUS = pl.col("order_status")
_STAGES = ("OrderPlaced", "OrderPaid", "OrderShipped", "OrderDelivered", "OrderCancelled")
_UNSHIPPED, _CANCELLED = ("created", "approved", "invoiced", "processing"), ("canceled", "unavailable")
_ODD_STATUS = {
    "delivered_without_date": (_STATUS == "delivered") & _DELIVERED.is_null(),
    "cancelled_after_shipping": _STATUS.is_in(_CANCELLED) & _SHIPPED.is_not_null(),
    "cancelled_after_delivery": _STATUS.is_in(_CANCELLED) & _DELIVERED.is_not_null(),
    "further_than_status": (_STATUS.is_in(_UNSHIPPED) & _SHIPPED.is_not_null())
    | (_STATUS.is_in((*_UNSHIPPED, "shipped")) & _DELIVERED.is_not_null()),
    "status_unknown": ~_STATUS.is_in((*_UNSHIPPED, "shipped", "delivered", *_CANCELLED)),
}


@dataclass(frozen=True, eq=False)
class OlistReport:
    """What an import stored, and what in the data is odd.

    Attributes:
        customers: people registered, without those whom the store knew already.
        orders: orders placed.
        units: units of products in the lines of these orders.
        events: event type -> number of events.
        position: the position of the last event.
        anomalies: Polars frame of kind, order_id and detail, all text; order_id is null where no order is concerned.
            Times: time_inferred, time_did_not_exist, time_was_ambiguous. Order of stages: paid_before_placed,
            shipped_before_placed, shipped_before_paid, delivered_before_placed, delivered_before_paid,
            delivered_before_shipped. Status: delivered_without_date, cancelled_after_shipping,
            cancelled_after_delivery, further_than_status, status_unknown. Money: order_without_lines,
            order_without_payment, payment_differs. Rows: duplicate_order, duplicate_customer, duplicate_line,
            duplicate_payment, line_without_order, payment_without_order, customer_without_order, customer_unknown,
            customer_moved, product_unknown.
    """

    customers: int
    orders: int
    units: int
    events: Mapping[str, int]
    position: int
    anomalies: pl.DataFrame

    @property
    def kinds(self) -> pl.DataFrame:
        """The anomalies counted: kind and count, the most frequent first."""
        counted = self.anomalies.group_by("kind").agg(pl.len().cast(pl.Int64).alias("count"))
        return counted.sort("count", "kind", descending=[True, False])

    def __repr__(self) -> str:
        return "\n".join([self._summary(), *(f"{count:>8,}  {kind}" for kind, count in self.kinds.rows())])

    def _repr_html_(self) -> str:
        return f"<p>{self._summary()}</p>{html_of(self.kinds.to_arrow(), title='Anomalies by kind')}"

    def _summary(self) -> str:
        events = ", ".join(f"{count:,} {name}" for name, count in self.events.items())
        return (
            f"{self.orders:,} orders of {self.units:,} units and {self.customers:,} new customers became "
            f"{sum(self.events.values()):,} events ({events}), up to position {self.position:,}; "
            f"{self.anomalies.height:,} anomalies"
        )


def load_olist(lab: Lab, folder: str | os.PathLike[str], zone: str = "UTC") -> OlistReport:
    """Append the orders of the public Olist folder, as downloaded, with their real times.

    A person is a customer_unique_id, registered at the time of their first order; without the customers file an order
    keeps its own customer_id and nobody is registered. Items of one product and price are one line. Each payment is
    one OrderPaid at the time of approval; without the payments file an approval is one of unknown amount. A fact
    without a time takes the last known time of its order. Of two orders with one id the first is kept; what belongs
    to no order is not stored. All of this is reported. The shop's own last word is `source_status` on the last event
    of each order.

    Args:
        lab: a lab over the example shop, such as `open_shop()`.
        folder: holds olist_orders_dataset.csv and, if wanted, those of customers, order_items, order_payments and
            products.
        zone: the time zone of the times in the files, such as "America/Sao_Paulo".

    Returns:
        A report with counts and `.anomalies`: kind, order_id, detail.

    Raises:
        ImportFailed: a file is missing, malformed (named with its line and column) or imported already; nothing was
            stored.
        DeclarationError: the lab has no orders or no customers.
        ReadOnlyStore, StoreFull.
    """
    files, odd = read_folder(Path(folder)), _Anomalies()
    orders = _timed(odd.once(files["orders"], "order_id", "duplicate_order"), zone, odd)
    orders, customers = _people(orders, files.get("customers"), odd)
    items = _of_orders(files.get("order_items"), orders, "line", "order_item_id", odd)
    payments = _of_orders(files.get("order_payments"), orders, "payment", "payment_sequential", odd)
    _judge(orders, items, payments, files.get("products"), odd)
    tables = {"customer": customers, "order": _order_events(orders, items, payments, odd)}

    with Lab(domain=lab.domain) as rehearsal:
        # All the log's rules, tried where it costs nothing: no customer may be stored when an order is refused.
        for category, table in tables.items():
            try:
                rehearsal.append_table(category, table)
            except InvalidTable as error:
                raise ImportFailed(f"{folder} does not become events of {category!r}: {error}") from error
    twice = _stored(lab, "order", orders["order_id"])
    if twice.len():
        raise ImportFailed(
            f"{twice.len():,} of the {orders.height:,} orders in {folder} are in the store already, such as "
            f"{twice.min()!r}; a second import would double them, so nothing was stored. Use a new store, or a folder "
            "with other orders"
        )
    # Two folders may share people, and an earlier import may have been killed between its two appends.
    known = _stored(lab, "customer", customers["id"])
    tables["customer"] = customers.filter(~pl.col("id").is_in(known.implode()))
    for category, table in tables.items():
        lab.append_table(category, table)
    counts = dict(pl.concat([table["type"] for table in tables.values()]).value_counts().rows())
    return OlistReport(
        customers=tables["customer"].height,
        orders=orders.height,
        units=0 if items is None else items.height,
        events={name: counts[name] for name in ("CustomerRegistered", *_STAGES) if name in counts},
        position=lab.head,
        anomalies=odd.frame(),
    )


def events_from_milestones(
    table: Source,
    key: str = "order_id",
    *,
    milestones: Mapping[str, str],
    fields: Mapping[str, Mapping[str, str]] | None = None,
    zone: str = "UTC",
) -> pl.DataFrame:
    """Turn a table with one row for each thing and a time for each milestone into events for `Lab.append_table`.

    A milestone without a time did not happen. Times may be aware (converted), naive (in `zone`, see the top of this
    module), dates (the start of that day in `zone`) or text in ISO 8601: 2017-03-23, 2017-03-23 12:21 or
    2017-03-23T12:21:05.25-03:00. CSV is read as text; a field whose column holds plain numbers only becomes numbers,
    exact ones, while 007 stays text.

    Args:
        table: Polars (also lazy), pandas, Arrow, a DuckDB relation, or the path of a CSV file (ending in .csv) or a
            Parquet file.
        key: the column that names the thing, text or whole numbers, different in each row.
        milestones: event type -> column with its time; their order decides between equal times.
        fields: event type -> {field of the event: column}.
        zone: the time zone of times that have none.

    Returns:
        A frame with id, type, occurred_at (UTC) and the fields, in order of occurred_at.

    Raises:
        ImportFailed: columns are missing or of another type, keys are missing or there twice, times cannot be read:
            all that is wrong is told at once.
    """
    fields = fields or {}
    made = {"id", "type", "occurred_at"}.intersection(name for mapping in fields.values() for name in mapping)
    for name in sorted({*fields, *made} - {*milestones}):
        fail(f"fields has {name!r}: give fields to milestones only, and none called id, type or occurred_at")
    sources = {column for mapping in fields.values() for column in mapping.values()}
    frame, file = as_frame(table, sources - {key, *milestones.values()})
    problems = Problems(file)
    problems.need(frame, [key, *milestones.values(), *sorted(sources)])
    if key in frame.columns:
        if frame[key].dtype.is_integer() or isinstance(frame[key].dtype, (pl.String, pl.Categorical, pl.Enum)):
            problems.check(frame, key, pl.col(key).is_null(), "names the thing")
            again = ~pl.col(key).is_first_distinct() & pl.col(key).is_not_null()
            problems.check(frame, key, again, "is in one row only")
        else:
            problems.add(f"the key is {frame[key].dtype}; cast it to text or a whole number first", None, key)
    times = {}
    for column in (name for name in milestones.values() if name in frame.columns):
        times[column] = instants(frame[column], zone, file)["at"]
        bad = times[column].is_null() & frame[column].is_not_null()
        problems.check(frame, column, bad, "is a time in ISO 8601")
    problems.tell()
    parts = []
    for number, (event, column) in enumerate(milestones.items()):
        part = frame.select(
            pl.col(key).cast(pl.String).alias("id"),
            pl.lit(event).alias("type"),
            times[column].alias("occurred_at"),
            *(pl.col(source).alias(name) for name, source in fields.get(event, {}).items()),
            pl.lit(number).alias(LINE),
        )
        parts.append(part.filter(pl.col("occurred_at").is_not_null()))
    try:
        events = pl.concat(parts, how="diagonal_relaxed")
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise ImportFailed(f"the columns of a field have different types, or there is no milestone: {error}") from error
    return events.sort("occurred_at", LINE, "id").drop(LINE)


# -- from rows to events -----------------------------------------------------------------------------------------------


def _timed(orders: pl.DataFrame, zone: str, odd: _Anomalies) -> pl.DataFrame:
    """Return the orders with their times in UTC, and `last_known`, the latest of them."""
    file = csv_name("orders")
    for name in TIMES:
        times = instants(orders[name], zone)
        bad = times["at"].is_null() & orders[name].is_not_null()
        refuse(orders, name, bad, "is a time such as 2017-03-23 12:21:00", file)
        for kind in ("time_did_not_exist", "time_was_ambiguous"):
            found = orders.with_columns(times["at"]).filter(times["rule"] == kind)
            odd.note(kind, found, f"{name} {{}} in {zone} became {{}}", name, "at")
        orders = orders.with_columns(times["at"].alias(name))
    orders = orders.with_columns(pl.max_horizontal(TIMES).alias("last_known"))
    refuse(orders, TIMES[0], pl.col("last_known").is_null(), "is there, or another time of the order", file)
    return orders


def _people(orders: pl.DataFrame, customers: pl.DataFrame | None, odd: _Anomalies) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the orders with the column `person`, and the events of the people."""
    person = pl.col("customer_unique_id")
    joined = orders.with_columns(pl.lit(None, pl.String).alias(name) for name in FILES["customers"][1:])
    if customers is not None:
        customers = odd.once(customers, "customer_id", "duplicate_customer")
        idle = customers.join(orders, on="customer_id", how="anti")
        odd.note("customer_without_order", idle, "{} has no order, so nobody was registered", "customer_id")
        joined = orders.join(customers.drop(LINE), on="customer_id", how="left", maintain_order="left")
        odd.note("customer_unknown", joined.filter(person.is_null()), "no {} in the customers file", "customer_id")
    named = joined.filter(person.is_not_null()).select(
        LINE,
        "order_id",
        person.alias("id"),
        pl.lit("CustomerRegistered").alias("type"),
        pl.coalesce(_PLACED, "last_known").alias("occurred_at"),
        pl.col("customer_city").alias("city"),
        pl.col("customer_state").alias("state"),
    )
    first = named.sort("occurred_at", "order_id").unique("id", keep="first", maintain_order=True)
    both = named.join(first, on="id", suffix="_first")
    moved = both.filter(pl.struct("city", "state") != pl.struct(city="city_first", state="state_first"))
    odd.note("customer_moved", moved, "{} is in {} here, registered in {}", "id", "city", "city_first")
    orders = joined.with_columns(pl.coalesce(person, "customer_id").alias("person"))
    return orders, first.drop(LINE, "order_id")


def _of_orders(
    rows: pl.DataFrame | None, orders: pl.DataFrame, what: str, number: str, odd: _Anomalies
) -> pl.DataFrame | None:
    """Return the rows that belong to an order, in order of their number; repeated ones are money too, so they stay."""
    if rows is None:
        return None
    lost = rows.join(orders, on="order_id", how="anti")
    odd.note(f"{what}_without_order", lost, "line {} was left out: the orders file has no such order", LINE)
    rows = rows.join(orders, on="order_id", how="semi").sort("order_id", number, LINE)
    again = rows.filter(~pl.struct("order_id", number).is_first_distinct())
    odd.note(f"duplicate_{what}", again, f"line {{}} repeats {number} {{}}; it was kept", LINE, number)
    return rows


def _order_events(
    orders: pl.DataFrame, items: pl.DataFrame | None, payments: pl.DataFrame | None, odd: _Anomalies
) -> pl.DataFrame:
    """Return the events of all orders, by time, then stage, order and payment."""
    placed, placed_fields = orders, [pl.col("person").alias("customer_id")]
    if items is not None:
        lines = (
            items.group_by("order_id", "product_id", pl.col("price").alias("unit_price"), maintain_order=True)
            .agg(pl.len().cast(pl.Int64).alias("quantity"))
            .group_by("order_id", maintain_order=True)
            .agg(pl.struct("product_id", "quantity", "unit_price").alias("lines"))
        )
        sums = items.group_by("order_id").agg(total=pl.col("price").sum(), freight=pl.col("freight_value").sum())
        placed = orders.join(lines, on="order_id", how="left").join(sums, on="order_id", how="left")
        placed_fields += [pl.col("lines"), pl.col("total").fill_null(0), pl.col("freight").fill_null(0)]
    paid, paid_fields = orders.filter(_PAID.is_not_null()), []
    if payments is not None:
        paid = payments.join(orders.drop(LINE), on="order_id")
        paid_fields = [pl.col("payment_value").alias("amount"), pl.col("payment_type").alias("method")]
        paid_fields += [pl.col("payment_sequential").alias("sequence")]
    stages: list[tuple[pl.DataFrame, pl.Expr, list[pl.Expr]]] = [
        (placed, _PLACED, placed_fields),
        (paid, _PAID, paid_fields),
        (orders.filter(_SHIPPED.is_not_null() | _STATUS.is_in(("shipped", "delivered"))), _SHIPPED, []),
        (orders.filter(_DELIVERED.is_not_null() | (_STATUS == "delivered")), _DELIVERED, []),
        (orders.filter(_STATUS.is_in(_CANCELLED)), pl.lit(None, UTC), [_STATUS.alias("reason")]),
    ]
    envelope = ["order_id", "order_status", "last_known", LINE]
    parts = [
        rows.select(*envelope, *more, at.alias("at"), stage=pl.lit(stage), type=pl.lit(_STAGES[stage]))
        for stage, (rows, at, more) in enumerate(stages)
    ]
    events = pl.concat([*parts, pl.DataFrame(schema={"sequence": pl.Int64})], how="diagonal")
    inferred = events.filter(pl.col("at").is_null())
    odd.note("time_inferred", inferred, "{} took the last known time of the order, {}", "type", "last_known")
    events = events.with_columns(pl.coalesce("at", "last_known").alias("occurred_at"))
    events = events.sort("occurred_at", "stage", "order_id", "sequence", LINE)
    last = pl.when(pl.col("order_id").is_last_distinct()).then(_STATUS)
    events = events.with_columns(last.alias("source_status"), pl.col("order_id").alias("id"))
    return events.drop(*envelope, "at", "stage", "sequence")


def _stored(lab: Lab, category: str, ids: pl.Series) -> pl.Series:
    """Return which of the ids have events in the store."""
    if not lab.head:
        return ids.clear()
    there = lab.as_of(position=lab.head).sql(f"SELECT DISTINCT {category}_id FROM {category}_events").pl().to_series()
    return there.filter(there.is_in(ids.implode()))


# -- what is odd -------------------------------------------------------------------------------------------------------


class _Anomalies:
    """What was found odd so far."""

    def __init__(self) -> None:
        self._found: list[pl.DataFrame] = []

    def note(self, kind: str, rows: pl.DataFrame, detail: str, *columns: str) -> None:
        """Add an anomaly for each row; its detail has the value of a column for each `{}`."""
        shown = []
        for name in columns:
            text = pl.col(name).cast(pl.String)
            if rows[name].dtype == UTC:
                text = pl.col(name).dt.strftime("%Y-%m-%d %H:%M:%S UTC")
            shown.append(text.fill_null("(unknown)"))
        order_id = pl.col("order_id") if "order_id" in rows.columns else pl.lit(None, pl.String)
        found = rows.select(LINE, kind=pl.lit(kind), order_id=order_id, detail=pl.format(detail, *shown))
        self._found.append(found.drop(LINE))

    def once(self, rows: pl.DataFrame, key: str, kind: str) -> pl.DataFrame:
        """Return the first row of each key; the others are noted."""
        first = rows[key].is_first_distinct()
        self.note(kind, rows.filter(~first), f"line {{}} repeats {key} {{}}; it was left out", LINE, key)
        return rows.filter(first)

    def frame(self) -> pl.DataFrame:
        """Return all of them: kind, order_id, detail."""
        return pl.concat(self._found).sort("kind", "order_id", "detail")


def _judge(
    orders: pl.DataFrame,
    items: pl.DataFrame | None,
    payments: pl.DataFrame | None,
    products: pl.DataFrame | None,
    odd: _Anomalies,
) -> None:
    """Note what is odd about the orders as the files have them."""
    stages = zip(("placed", "paid", "shipped", "delivered"), TIMES, strict=True)
    for (early, first), (late, then) in combinations(stages, 2):
        odd.note(f"{late}_before_{early}", orders.filter(pl.col(then) < pl.col(first)), "{} is before {}", then, first)
    for kind, condition in _ODD_STATUS.items():
        found = orders.filter(condition)
        odd.note(kind, found, "status {}, shipped at {}, delivered at {}", "order_status", *TIMES[2:])
    if items is not None:
        without = orders.join(items, on="order_id", how="anti")
        odd.note("order_without_lines", without, "status {}", "order_status")
    if payments is not None:
        without = orders.join(payments, on="order_id", how="anti")
        odd.note("order_without_payment", without, "status {}, approved at {}", "order_status", TIMES[1])
    if items is not None and products is not None:
        unknown = items.join(products, on="product_id", how="anti")
        odd.note("product_unknown", unknown, "no {} in the products file", "product_id")
    if items is not None and payments is not None:
        due = items.group_by("order_id").agg((pl.col("price") + pl.col("freight_value")).sum().alias("due"))
        paid = payments.group_by("order_id").agg(pl.col("payment_value").sum().alias("paid"), pl.col(LINE).first())
        differs = due.join(paid, on="order_id").filter(pl.col("due") != pl.col("paid"))
        odd.note("payment_differs", differs, "{} paid, {} due with freight", "paid", "due")
