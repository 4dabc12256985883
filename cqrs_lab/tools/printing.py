"""What the commands of the command line have in common: how they print, and how they fail.

Owns the looks of it: results on standard output, everything else on standard error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

SHOWN = 20  # rows of a table that could be long

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]


def examples(*lines: str) -> str:
    """Return the end of a command's help."""
    # The \\b keeps the line breaks.
    return "\n".join(["\b", "Examples:", *(f"  cqrs-lab {line}" for line in lines)])


def fail(message: str) -> NoReturn:
    """Print an error and end with exit code 1."""
    err = Console(stderr=True, highlight=False)
    # Words wrap on a terminal; a file or a pipe gets one line that can be searched.
    err.print(f"Error: {message}", style="red", markup=False, soft_wrap=not err.is_terminal)
    raise typer.Exit(1)


def say(what: Any) -> None:
    """Print for people."""
    Console(highlight=False).print(what, markup=False)


def print_json(value: Any) -> None:
    """Print JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def minute(time: str | None) -> str:
    """Return a time to the minute."""
    return time[:16].replace("T", " ") if time else "-"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; none when it has no rows."""
    if not rows:
        return
    table = Table(box=None, title=title, title_justify="left", title_style="bold", pad_edge=False, header_style="dim")
    for name, value in zip(columns, rows[0], strict=True):
        table.add_column(name, justify="right" if isinstance(value, int) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else Text(str(value)) for value in row))
    say("")
    say(table)
