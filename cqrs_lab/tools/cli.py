"""The command line, `cqrs-lab`: owns its arguments, what is printed, and the exit code.

What it prints is for people, or JSON alone with --json. An error is one message on stderr and exit code 1; wrong
arguments give exit code 2. Work is done elsewhere: by the doctor, the workbench, JupyterLab.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import runpy
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from cqrs_lab.app import open_shop
from cqrs_lab.errors import CqrsLabError
from cqrs_lab.store.dead_letters import DeadLetters
from cqrs_lab.tools import doctor as doctors
from cqrs_lab.tools.scan import reading, scan
from cqrs_lab.tools.status import status_of


class _Commands(TyperGroup):
    """The commands, with every expected error turned into one message."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (CqrsLabError, OSError) as error:
            _fail(str(error))


def _examples(*lines: str) -> str:
    # The \\b keeps the line breaks.
    return "\n".join(["\b", "Examples:", *(f"  cqrs-lab {line}" for line in lines)])


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_SHOWN = 20  # rows of a table that could be long

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]


def _fail(message: str) -> NoReturn:
    err = Console(stderr=True, highlight=False)
    # Words wrap on a terminal; a file or a pipe gets one line that can be searched.
    err.print(f"Error: {message}", style="red", markup=False, soft_wrap=not err.is_terminal)
    raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        ours, duckdb = (importlib.metadata.version(name) for name in ("cqrs-lab", "duckdb"))
        print(f"cqrs-lab {ours} (DuckDB {duckdb}, Python {platform.python_version()})")  # noqa: T201
        raise typer.Exit


@app.callback(
    epilog=_examples("notebooks", "import-olist data/olist --db shop.duckdb", "status --db shop.duckdb"),
)
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show versions.")
    ] = False,
) -> None:
    """CQRS and event sourcing on DuckDB: check, import, look, and open the notebooks."""


@app.command(epilog=_examples("doctor", "doctor --db shop.duckdb"))
def doctor(
    db: Annotated[
        Path | None, typer.Option("--db", metavar="FILE", help="A store to read whole; it is opened read-only.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine and, with --db, a store.

    The machine: interpreter, packages, kernel, a store on disk, a chart. The store: every value can be read, positions
    and versions have no holes, streams and commands lead to their events, served rows are what the events give.
    Each line is OK, FAIL with what to do next, or NOTE; the exit code is 1 when something FAILs.
    """
    with Console(stderr=True).status("Checking ..."):
        stored = scan(db) if db else []
        findings = [*doctors.check_environment(), *stored]
    failed = sum(finding.status == "FAIL" for finding in findings)
    if as_json:
        _print_json({"ok": not failed, "findings": [vars(finding) for finding in findings]})
    else:
        styles = {"OK": "green", "FAIL": "bold red", "NOTE": "yellow"}
        grid = Table.grid(padding=(0, 2, 0, 0))
        for finding in findings:
            lines = [f"{finding.check}: {finding.detail}", *([f"Next: {finding.next}"] if finding.next else [])]
            grid.add_row(Text(finding.status, styles[finding.status]), Text("\n".join(lines), overflow="fold"))
        _print(grid)
        count = len(findings)
        _print(f"{failed} of {count} checks failed." if failed else f"All {count} checks hold.")
    if failed:
        raise typer.Exit(1)


@app.command(
    context_settings={"allow_extra_args": True},
    epilog=_examples("notebooks --no-browser --port 9000", "notebooks -- --ip=0.0.0.0"),
)
def notebooks(
    context: typer.Context,
    browser: Annotated[bool, typer.Option(help="Open a browser, or only print the address.")] = True,
    port: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, max=65_535, help="Where to listen; 8888 if free.")
    ] = None,
) -> None:
    """Open JupyterLab at the first notebook of the course.

    What follows -- is handed to JupyterLab as it is.
    """
    first = doctors.FIRST_NOTEBOOK
    if not first.is_file():
        _fail(
            f"{first} is not there: the notebooks come with the source, not with the installed package. "
            "Get a copy of the repository and say: make lab"
        )
    if importlib.util.find_spec("jupyterlab") is None:
        _fail("JupyterLab is not installed in this environment. Say: make lab, or pip install 'cqrs-lab[lab]'")
    root = first.parents[1]
    arguments = [
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{first.relative_to(root).as_posix()}",
        *(["--no-browser"] if not browser else []),
        *([f"--port={port}"] if port else []),
        *context.args,
    ]
    os.chdir(root)
    sys.argv = ["jupyter-lab", *arguments]
    runpy.run_module("jupyterlab", run_name="__main__", alter_sys=True)


@app.command(epilog=_examples("generate --db shop.duckdb", "generate --db shop.duckdb --orders 5000 --seed 8"))
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
        _print_json({"store": str(db), "head": head, **counts, "digest": report.digest})
        return
    _print(f"{db}: {report.orders:,} orders of {report.customers:,} customers, {report.events:,} events.")
    _print(f"They occurred from {report.first_occurred_at:%Y-%m-%d} to {report.last_occurred_at:%Y-%m-%d}.")
    _print(f"Digest: {report.digest}")
    _print(f"Next: cqrs-lab status --db {db}")


@app.command(
    "import-olist",
    epilog=_examples("import-olist data/olist --db shop.duckdb --zone America/Sao_Paulo"),
)
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
        _fail(f"{folder} is not a folder; name the one that holds olist_orders_dataset.csv")
    with Console(stderr=True).status("Importing ..."), open_shop(db) as lab:
        report = load_olist(lab, folder, zone=zone)
        head = lab.head
    kinds = Counter(report.anomalies["kind"].to_list())
    if as_json:
        counts = {"orders": report.orders, "customers": report.customers, "units": report.units}
        _print_json({"store": str(db), "head": head, **counts, "events": report.events, "anomalies": dict(kinds)})
        return
    _print(f"{db}: {report.orders:,} orders, {report.customers:,} new customers, {report.units:,} units sold.")
    _table("Events stored", ["type", "events"], [[kind, count] for kind, count in report.events.items()])
    _table("Odd in the data", ["kind", "times"], [[kind, count] for kind, count in kinds.most_common()])
    _print(f"Next: cqrs-lab status --db {db}")


@app.command(epilog=_examples("status --db shop.duckdb", "status --db shop.duckdb --json"))
def status(
    db: Annotated[Path, typer.Option("--db", metavar="FILE", help="The store; it is opened read-only.")],
    as_json: Json = False,
) -> None:
    """Show what a store holds, and how far its servings are behind.

    Events and streams by category, when they occurred and were recorded, and for each serving its position and lag.
    """
    with reading(db) as log:
        seen = status_of(log)
    if as_json:
        _print_json({"store": str(db), **seen})
        return
    _print(f"{db}: {seen['head']:,} events in {sum(c['streams'] for c in seen['categories']):,} streams.")
    for what in ("recorded", "occurred"):
        if seen["head"]:
            _print(f"{what} from {_minute(seen[f'first_{what}'])} to {_minute(seen[f'last_{what}'])} UTC")
    _table(
        "Categories",
        ["category", "events", "streams", "first occurred", "last occurred"],
        [
            [c["category"], c["events"], c["streams"], _minute(c["first_occurred"]), _minute(c["last_occurred"])]
            for c in seen["categories"]
        ],
    )
    _table(
        "Servings",
        ["model", "served as", "mode", "position", "behind", "seconds", "state"],
        [list({**s, "seconds_behind": round(s["seconds_behind"])}.values()) for s in seen["servings"]],
    )


@app.command(epilog=_examples("trace story-1 --db shop.duckdb", "trace story-1 --db shop.duckdb --json"))
def trace(
    correlation_id: Annotated[str, typer.Argument(metavar="CORRELATION_ID", help="As a receipt or an event has it.")],
    db: Annotated[Path, typer.Option("--db", metavar="FILE", help="The store; it is opened read-only.")],
    as_json: Json = False,
) -> None:
    """Tell the story behind a correlation id.

    The commands, the events they led to, the steps of sagas, and the rows of read models that changed, in order.
    """
    with open_shop(db, read_only=True) as lab:
        story = lab.trace(correlation_id)
        if as_json:
            _print_json([{**row, "at": row["at"] and row["at"].isoformat()} for row in story.dicts()])
        elif len(story):
            print(repr(story))  # noqa: T201  as it is: wrapped lines would hide which belongs to which
        else:
            _fail(f"nothing in {db} carries the correlation id {correlation_id}; receipts and lab.events() show it")


@app.command("dead-letters", epilog=_examples("dead-letters --db shop.duckdb", "dead-letters --db shop.duckdb --json"))
def dead_letters(
    db: Annotated[Path, typer.Option("--db", metavar="FILE", help="The store; it is opened read-only.")],
    as_json: Json = False,
) -> None:
    """List the events that projections and sagas have set aside because they failed at them.

    Once what was wrong is mended, lab.retry_dead_letters() tries them again.
    """
    with reading(db) as log:
        letters = DeadLetters(log).rows().dicts()
    if as_json:
        times = ("occurred_at", "at")
        _print_json([{k: v.isoformat() if k in times else v for k, v in letter.items()} for letter in letters])
        return
    _print(f"{db}: {len(letters):,} dead letters.")
    columns = ["model", "position", "stream", "type", "error", "attempts"]
    _table("Dead letters", columns, [[letter[column] for column in columns] for letter in letters])


@app.command(epilog=_examples("rebuild order_summary --db shop.duckdb --dry-run"))
def rebuild(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A read model of the shop that the store serves.")],
    db: Annotated[Path, typer.Option("--db", metavar="FILE", help="The store.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
) -> None:
    """Make the stored rows of a read model anew from all events; the old ones serve until then."""
    known = doctors.shop_models()
    if model.lower() not in known:
        _fail(f"{model!r} is no read model of the shop; there are {', '.join(m.name for m in known.values())}")
    with reading(db) as log:  # before anything is made in a store of another domain
        found = "SELECT served_as FROM servings WHERE lower(model) = ? AND served_as IN ('materialized', 'projection')"
        ways = [way for (way,) in log.database.execute(found, [model.lower()])]
    if not ways:
        _fail(f"{db} keeps no rows of {model}; serve it there first with lab.serve({model!r})")
    with open_shop(db) as lab:
        for way in ways:
            served = lab.serve(model, way)
            if dry_run:
                changes = served.rehearse()
                _print(f"{model} as {way}: {len(changes):,} rows would change.")
                if len(changes):
                    rows = [[str(value) for value in row[:-2]] for row in changes.fetchall()[:_SHOWN]]
                    _table("The first that would", changes.columns[:-2], rows)
            else:
                position = served.rebuild(progress=sys.stderr.isatty())
                _print(f"{model} as {way}: made anew up to position {position:,}.")


# -- printing ------------------------------------------------------------------------------------------------------


def _print(what: Any) -> None:
    Console(highlight=False).print(what, markup=False)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def _minute(time: str | None) -> str:
    return time[:16].replace("T", " ") if time else "-"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if not rows:
        return
    table = Table(box=None, title=title, title_justify="left", title_style="bold", pad_edge=False, header_style="dim")
    for name, value in zip(columns, rows[0], strict=True):
        table.add_column(name, justify="right" if isinstance(value, int) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else Text(str(value)) for value in row))
    _print("")
    _print(table)
