"""The commands by which a store meets the world outside: serve it over HTTP, let events leave and enter as CloudEvents.

Owns what they ask for and what they say; the work is done by `cqrs_lab.http`, which is imported when it is needed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cqrs_lab import http
from cqrs_lab.app import open_shop
from cqrs_lab.tools.printing import Json, examples, fail, print_json, say


def serve(
    db: Annotated[Path, typer.Option("--db", metavar="FILE", help="The store; made when it is missing.")],
    port: Annotated[int, typer.Option(metavar="NUMBER", min=0, max=65_535, help="0 for any that is free.")] = 8765,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; this machine alone.")] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="On each line: TOKEN ACTOR. Made if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve a shop over HTTP: commands, queries, events.

    It says where it listens, and the token to show; /docs at that address tells the rest. Ctrl-C stops it: what it has
    acknowledged is finished and kept.
    """
    server, security = http.part("server"), http.part("security")
    tokens = security.Tokens.of_file(token_file) if token_file else None
    if token_file and sys.platform != "win32" and token_file.stat().st_mode & 0o077:
        _note(f"Others on this machine can read {token_file}; say: chmod 600 {token_file}")
    if not server.is_loopback(host):
        _note(f"{host} can be reached from elsewhere, and nothing is encrypted: put a server in front that does so.")

    def ready(address: str, token: str | None) -> None:
        if as_json:
            print(json.dumps({"address": address, "token": token}))  # noqa: T201  one line: the program goes on
        else:
            say(f"{db}: listening on {address} (docs: {address}/docs)")
            if token:
                print(f"Token: {token}")  # noqa: T201  not wrapped
            say("Stop it with Ctrl-C.")
        sys.stdout.flush()

    with open_shop(db) as lab:
        server.serve(lab, host=host, port=port, tokens=tokens, ready=ready)
    if not as_json:
        say("Stopped.")


def export(
    db: Annotated[Path, typer.Option("--db", metavar="FILE", help="The store; it is opened read-only.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Standard output when left out.")] = None,
    after: Annotated[int, typer.Option(metavar="POSITION", min=0, help="Only events behind this position.")] = 0,
    category: Annotated[str | None, typer.Option(metavar="NAME", help="Only this category.")] = None,
) -> None:
    """Write the events of a shop as CloudEvents 1.0, one on each line.

    They hold all that the log knows, what is personal included.
    """
    cloud = http.part("cloud")
    if to is not None and to.exists():
        fail(f"{to} exists; name a new file")
    count = 0
    with open_shop(db, read_only=True) as lab:
        lines = cloud.export(lab, after, category)
        with open(to, "xb") if to is not None else open(sys.stdout.fileno(), "wb", closefd=False) as file:
            for line in lines:
                file.write(line)
                count += 1
    _note(f"{count:,} events written{f' to {to}' if to else ''}.")


def import_events(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines: a CloudEvent on each line.")],
    db: Annotated[Path, typer.Option("--db", metavar="FILE", help="The store; made when it is missing.")],
    as_facts: Annotated[
        bool, typer.Option("--as-facts", help="Give out positions and versions again, also in an empty store.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Append CloudEvents to a shop: all of them, or none.

    A whole log enters an empty store as it was. Into a store that has events they come as facts: positions, versions
    and times of recording are its own, and an event that came before is left out.
    """
    cloud = http.part("cloud")
    if not file.is_file():
        fail(f"{file} is not a file; name one with a CloudEvent on each line")
    with Console(stderr=True).status("Importing ..."), open_shop(db) as lab, file.open("rb") as lines:
        report = cloud.take_in(lab, cloud.read_lines(lines), as_facts=as_facts)
    if as_json:
        print_json({"store": str(db), **vars(report)})
        return
    how = "as they were" if report.kept else "as facts"
    again = f" {report.known:,} had come before." if report.known else ""
    say(f"{db}: {report.appended:,} events appended, {how}, up to position {report.position:,}.{again}")


def _note(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=examples("serve --db shop.duckdb", "serve --db shop.duckdb --port 0 --token-file tokens"))(serve)
    app.command(epilog=examples("export --db shop.duckdb --to events.jsonl"))(export)
    app.command("import-events", epilog=examples("import-events events.jsonl --db copy.duckdb"))(import_events)
