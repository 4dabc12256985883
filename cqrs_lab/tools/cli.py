"""The command line, `cqrs-lab`: owns its arguments, what is printed, and the exit code.

What it prints is for people, or JSON alone with --json. An error is one message on stderr and exit code 1; wrong
arguments give exit code 2. Work is done elsewhere: by the doctor, the workbench, JupyterLab.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import runpy
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from cqrs_lab.app import open_shop
from cqrs_lab.errors import CqrsLabError
from cqrs_lab.store.dead_letters import DeadLetters
from cqrs_lab.tools import cli_data, cli_http
from cqrs_lab.tools import doctor as doctors
from cqrs_lab.tools.learner import copy_course
from cqrs_lab.tools.printing import SHOWN, Json, examples, fail, minute, print_json, say, table
from cqrs_lab.tools.scan import reading, scan
from cqrs_lab.tools.status import status_of

LEARNERS = "cqrs-lab-course"


class _Commands(TyperGroup):
    """The commands, with every expected error turned into one message."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (CqrsLabError, OSError) as error:
            fail(str(error))


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        ours, duckdb = (importlib.metadata.version(name) for name in ("cqrs-lab", "duckdb"))
        print(f"cqrs-lab {ours} (DuckDB {duckdb}, Python {platform.python_version()})")  # noqa: T201
        raise typer.Exit


@app.callback(
    epilog=examples("notebooks", "import-olist data/olist --db shop.duckdb", "status --db shop.duckdb"),
)
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show versions.")
    ] = False,
) -> None:
    """CQRS and event sourcing on DuckDB: check, import, look, and open the notebooks."""


@app.command(epilog=examples("doctor", "doctor --db shop.duckdb"))
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
        print_json({"ok": not failed, "findings": [vars(finding) for finding in findings]})
    else:
        styles = {"OK": "green", "FAIL": "bold red", "NOTE": "yellow"}
        grid = Table.grid(padding=(0, 2, 0, 0))
        for finding in findings:
            lines = [f"{finding.check}: {finding.detail}", *([f"Next: {finding.next}"] if finding.next else [])]
            grid.add_row(Text(finding.status, styles[finding.status]), Text("\n".join(lines), overflow="fold"))
        say(grid)
        count = len(findings)
        say(f"{failed} of {count} checks failed." if failed else f"All {count} checks hold.")
    if failed:
        raise typer.Exit(1)


@app.command(
    context_settings={"allow_extra_args": True},
    epilog=examples("notebooks --learner my-course", "notebooks --no-browser --port 9000", "notebooks -- --ip=0.0.0.0"),
)
def notebooks(
    context: typer.Context,
    folder: Annotated[
        str | None, typer.Argument(metavar="[FOLDER]", show_default=False, help="With --learner; ./cqrs-lab-course.")
    ] = None,
    learner: Annotated[
        bool, typer.Option("--learner", help="Copy the course without outputs into FOLDER; your work there is kept.")
    ] = False,
    copy_only: Annotated[bool, typer.Option("--copy-only", help="With --learner: copy, and open nothing.")] = False,
    keep_kernels: Annotated[
        bool, typer.Option("--keep-kernels", help="Leave a notebook's kernel running when the next one starts.")
    ] = False,
    browser: Annotated[bool, typer.Option(help="Open a browser, or only print the address.")] = True,
    port: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, max=65_535, help="Where to listen; 8888 if free.")
    ] = None,
) -> None:
    """Open JupyterLab at the first notebook of the course, or at a learner's own copy of it.

    With --learner the copy comes without outputs, so that you predict before you see. A second call adds what is new
    and leaves every file that you changed. When the kernel of the next notebook starts, kernels that have nothing to do
    are shut down, since each takes some 300 MB. What follows -- is handed to JupyterLab as it is.
    """
    extra = list(context.args)
    if folder is not None and folder.startswith("-"):  # the first word behind --
        extra.insert(0, folder)
        folder = None
    if not learner and (folder is not None or copy_only):
        given, named = (folder, f" {folder}") if folder is not None else ("--copy-only", "")
        fail(f"{given} goes with --learner. Say: cqrs-lab notebooks --learner{named}")
    first = doctors.FIRST_NOTEBOOK
    if not first.is_file():
        fail(
            f"{first} is not there: the notebooks come with the source, not with the installed package. "
            "Get a copy of the repository and say: make lab"
        )
    root = first.parents[1]
    if learner:
        target = Path(folder or LEARNERS)
        copied = copy_course(root, target)
        say(f"{target}: {len(copied.added)} files added, {len(copied.renewed)} renewed, {len(copied.kept)} kept.")
        for name in copied.kept:
            say(f"kept, because you changed it: {name}")
        if copied.kept:
            say("To have one of them as it was, rename yours and say the same again.")
        if copy_only:
            return
        root = target.resolve()
        first = root / "notebooks" / first.name
    if importlib.util.find_spec("jupyterlab") is None:
        fail('JupyterLab is not installed in this environment. Say: make lab, or pip install -e ".[course]"')
    arguments = [
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{first.relative_to(root).as_posix()}",
        *([] if keep_kernels else ["--ServerApp.kernel_manager_class=cqrs_lab.tools.kernels.OneAtATime"]),
        *(["--no-browser"] if not browser else []),
        *([f"--port={port}"] if port else []),
        *extra,
    ]
    os.chdir(root)
    sys.argv = ["jupyter-lab", *arguments]
    runpy.run_module("jupyterlab", run_name="__main__", alter_sys=True)


cli_data.add_to(app)
cli_http.add_to(app)


@app.command(epilog=examples("status --db shop.duckdb", "status --db shop.duckdb --json"))
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
        print_json({"store": str(db), **seen})
        return
    say(f"{db}: {seen['head']:,} events in {sum(c['streams'] for c in seen['categories']):,} streams.")
    for what in ("recorded", "occurred"):
        if seen["head"]:
            say(f"{what} from {minute(seen[f'first_{what}'])} to {minute(seen[f'last_{what}'])} UTC")
    table(
        "Categories",
        ["category", "events", "streams", "first occurred", "last occurred"],
        [
            [c["category"], c["events"], c["streams"], minute(c["first_occurred"]), minute(c["last_occurred"])]
            for c in seen["categories"]
        ],
    )
    table(
        "Servings",
        ["model", "served as", "mode", "position", "behind", "seconds", "state"],
        [list({**s, "seconds_behind": round(s["seconds_behind"])}.values()) for s in seen["servings"]],
    )


@app.command(epilog=examples("trace story-1 --db shop.duckdb", "trace story-1 --db shop.duckdb --json"))
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
            print_json([{**row, "at": row["at"] and row["at"].isoformat()} for row in story.dicts()])
        elif len(story):
            print(repr(story))  # noqa: T201  as it is: wrapped lines would hide which belongs to which
        else:
            fail(f"nothing in {db} carries the correlation id {correlation_id}; receipts and lab.events() show it")


@app.command("dead-letters", epilog=examples("dead-letters --db shop.duckdb", "dead-letters --db shop.duckdb --json"))
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
        print_json([{k: v.isoformat() if k in times else v for k, v in letter.items()} for letter in letters])
        return
    say(f"{db}: {len(letters):,} dead letters.")
    columns = ["model", "position", "stream", "type", "error", "attempts"]
    table("Dead letters", columns, [[letter[column] for column in columns] for letter in letters])


@app.command(epilog=examples("rebuild order_summary --db shop.duckdb --dry-run"))
def rebuild(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A read model of the shop that the store serves.")],
    db: Annotated[Path, typer.Option("--db", metavar="FILE", help="The store.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
) -> None:
    """Rebuild the stored rows of a read model from all events; the old ones serve until then."""
    known = doctors.shop_models()
    if model.lower() not in known:
        fail(f"{model!r} is no read model of the shop; there are {', '.join(m.name for m in known.values())}")
    with reading(db) as log:  # before anything is made in a store of another domain
        found = "SELECT served_as FROM servings WHERE lower(model) = ? AND served_as IN ('materialized', 'projection')"
        ways = [way for (way,) in log.database.execute(found, [model.lower()])]
    if not ways:
        fail(f"{db} keeps no rows of {model}; serve it there first with lab.serve({model!r})")
    with open_shop(db) as lab:
        for way in ways:
            served = lab.serve(model, way)
            if dry_run:
                changes = served.rehearse()
                say(f"{model} as {way}: {len(changes):,} rows would change.")
                if len(changes):
                    rows = [[str(value) for value in row[:-2]] for row in changes.fetchall()[:SHOWN]]
                    table("The first that would", changes.columns[:-2], rows)
            else:
                position = served.rebuild(progress=sys.stderr.isatty())
                say(f"{model} as {way}: rebuilt up to position {position:,}.")
