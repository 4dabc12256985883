"""The commands that fill a store: a made-up shop, the Olist orders, any event log.

Owns what they ask for and what they say; the work is done by the workbench, which is imported when it is needed.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cqrs_lab.app import open_shop
from cqrs_lab.tools.printing import SHOWN, Json, examples, fail, print_json, say, table


def generate(
    db: Annotated[Path, typer.Option("--db", metavar="FILE", help="The store; made when it is missing.")],
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="tiny, workshop (20,000 orders), million or ten_million events.")
    ] = "workshop",
    orders: Annotated[int | None, typer.Option(metavar="NUMBER", help="How many orders instead.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="NUMBER", help="Another shop of that size.")] = None,
    prefix: Annotated[str | None, typer.Option(metavar="TEXT", help="What ids begin with, for a second one.")] = None,
    as_json: Json = False,
) -> None:
    """Fill a store with a made-up shop: customers, orders, and what became of them.

    The same preset, orders and seed give the same events on every machine; the digest proves it.
    """
    from cqrs_lab.workbench import Workload  # the shop is declared here, and not before `--help` is answered
    from cqrs_lab.workbench import generate as fill

    told = {"orders": orders, "seed": seed, "prefix": prefix}
    changes = {name: value for name, value in told.items() if value is not None}
    workload = Workload(**{**dict(Workload.preset(preset)), **changes})
    with open_shop(db) as lab:
        report = fill(lab, workload)
        head = lab.head
    if as_json:
        counts = {"orders": report.orders, "customers": report.customers, "events": report.events}
        print_json({"store": str(db), "head": head, **counts, "digest": report.digest})
        return
    say(f"{db}: {report.orders:,} orders of {report.customers:,} customers, {report.events:,} events.")
    say(f"They occurred from {report.first_occurred_at:%Y-%m-%d} to {report.last_occurred_at:%Y-%m-%d}.")
    say(f"Digest: {report.digest}")
    say(f"Next: cqrs-lab status --db {db}")


def import_olist(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The Olist CSV files as downloaded.")],
    db: Annotated[Path, typer.Option("--db", metavar="FILE", help="The store; made when it is missing.")],
    zone: Annotated[str, typer.Option(metavar="NAME", help="Time zone of the times in the files.")] = "UTC",
    as_json: Json = False,
) -> None:
    """Import a real shop: the public Olist orders.

    Every order becomes events with their real times. Nothing is dropped: what is odd in the data, such as an order
    shipped before it was paid, is counted by kind.
    """
    from cqrs_lab.workbench import load_olist

    if not folder.is_dir():
        fail(f"{folder} is not a folder; name the one that holds olist_orders_dataset.csv")
    with Console(stderr=True).status("Importing ..."), open_shop(db) as lab:
        report = load_olist(lab, folder, zone=zone)
        head = lab.head
    kinds = Counter(report.anomalies["kind"].to_list())
    if as_json:
        counts = {"orders": report.orders, "customers": report.customers, "units": report.units}
        print_json({"store": str(db), "head": head, **counts, "events": report.events, "anomalies": dict(kinds)})
        return
    say(f"{db}: {report.orders:,} orders, {report.customers:,} new customers, {report.units:,} units sold.")
    table("Events stored", ["type", "events"], [[kind, count] for kind, count in report.events.items()])
    table("Odd in the data", ["kind", "times"], [[kind, count] for kind, count in kinds.most_common()])
    say(f"Next: cqrs-lab status --db {db}")


def import_log(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, Parquet or XES (.xes, .xes.gz); a row an event.")],
    db: Annotated[Path, typer.Option("--db", metavar="FILE", help="The store; it must be a new one.")],
    case: Annotated[str | None, typer.Option(metavar="COLUMN", help="What names the thing.")] = None,
    activity: Annotated[str | None, typer.Option(metavar="COLUMN", help="What happened to it.")] = None,
    timestamp: Annotated[str | None, typer.Option(metavar="COLUMN", help="When it happened.")] = None,
    category: Annotated[str, typer.Option(metavar="NAME", help="What a thing is called.")] = "case",
    zone: Annotated[str | None, typer.Option(metavar="NAME", help="Time zone of times that have none.")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", metavar="TEXT", help="Of times that are not ISO 8601: %d.%m.%Y %H:%M")
    ] = None,
    recorded: Annotated[
        str | None, typer.Option(metavar="COLUMN", help='When it became known, or "now"; as it happened if left out.')
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take the usual columns without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Read an event log into a new store: one row for each event.

    Columns that are not named are found by their usual names, and on a terminal you are asked whether they are right.
    Each activity becomes an event type, every other column a field.
    """
    from cqrs_lab.workbench import guess_columns, open_log

    if not file.is_file():
        fail(f"{file} is not a file; name a CSV, Parquet or XES file")
    if db.exists():
        fail(f"{db} exists; name a new store")
    guessed, names = guess_columns(file)
    given = {"case": case, "activity": activity, "timestamp": timestamp}
    told = {what: name or guessed[what] for what, name in given.items()}
    missing = [what for what, name in told.items() if name is None]
    if missing:
        fail(f"say which column is the {missing[0]}, as --{missing[0]} NAME; {file.name} has {', '.join(names)}")
    if None in given.values():
        text = ", ".join(f"{what}: {name}" for what, name in told.items() if given[what] is None)
        if sys.stdin.isatty() and not (yes or as_json):
            typer.confirm(f"{text}. Is that right?", default=True, abort=True, err=True)
        else:
            said = f"Taken by their usual names: {text}"
            Console(stderr=True, highlight=False).print(said, markup=False, soft_wrap=True)
    more = {"category": category, "zone": zone, "format": format_, "recorded": recorded}
    with (
        Console(stderr=True).status("Importing ..."),
        open_log(file, told["case"], told["activity"], told["timestamp"], path=db, **more) as lab,  # type: ignore[arg-type]
    ):
        report, head = lab.report, lab.head
    if as_json:
        print_json({"store": str(db), "head": head, **vars(report)})
        return
    say(f"{db}: {report}")
    table("Activities", ["activity", "events"], [[kind, count] for kind, count in report.activities.items()][:SHOWN])
    say(f'Next: from cqrs_lab.workbench import open_store; lab = open_store("{db}"); lab.tables()')


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=examples("generate --db shop.duckdb", "generate --db shop.duckdb --orders 5000 --seed 8"))(
        generate
    )
    app.command(
        "import-olist",
        epilog=examples("import-olist data/olist --db shop.duckdb --zone America/Sao_Paulo"),
    )(import_olist)
    app.command(
        "import-log",
        epilog=examples(
            "import-log tickets.csv --db tickets.duckdb",
            "import-log log.xes --db log.duckdb --category order",
            "import-log t.csv --db t.duckdb --case ticket --activity what --timestamp at --zone Europe/Amsterdam",
        ),
    )(import_log)
