"""A log of one's own: its import, and every question of the recipes, beside plain DuckDB.

The limit of a question is the SELECT itself, its layers as views, over a table of a DuckDB file that holds the same
rows and nothing else: no envelope, no streams, no keys. Both sides are warm, use the same threads, and hand all rows
over as Arrow.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl

from benchmarks.harness import Result, take_turns
from cqrs_lab import Lab, ReadModel
from cqrs_lab.workbench import open_log
from cqrs_lab.workbench.data.desk import support_desk

_PAGE = Path(__file__).parents[1] / "notebooks" / "RECIPES.md"
_BLOCK = re.compile(r"```sql\n-- (\w+), key: ([\w, ]+)\n(.+?)```", re.DOTALL)
_IMPORT, _STORED, _VIEW = 1.5, 1.0, 3.0  # aims


def run(count: int) -> Iterator[Result]:
    """Measure a log of 2.7 times as many events as there are orders: 540,000 for 200,000."""
    frame = support_desk(tickets=count * 71_500 // 200_000).with_columns(pl.col("minutes").cast(pl.Int64))
    with tempfile.TemporaryDirectory() as folder:
        yield from importing(frame, Path(folder))
        with _read(frame, Path(folder) / "asked.duckdb") as lab:
            yield from asking(lab, Path(folder))


def _read(source: pl.DataFrame | Path, path: Path) -> Lab:
    columns = {"case": "ticket", "activity": "activity", "timestamp": "at"}
    return open_log(source, **columns, recorded="entered_at", category="ticket", path=path)


def importing(frame: pl.DataFrame, folder: Path) -> Iterator[Result]:
    """A log whose columns are to be understood, and the same rows as `append_table` takes them."""
    file = folder / "log.csv"
    frame.write_csv(file)
    with _read(frame, folder / "first.duckdb") as lab:
        domain, fields = lab.domain, [name for name in lab.report.columns.values() if name != "recorded_at"]
        names = ", ".join(f'"{name}"' for name in fields)
        rows = lab.sql(
            f"SELECT ticket_id AS id, type, occurred_at, recorded_at, {names} FROM ticket_events ORDER BY position"
        ).arrow()

    def bare(run: int) -> None:
        with Lab(folder / f"bare{run}.duckdb", domain=domain) as lab:
            lab.append_table("ticket", rows)

    ways = [
        lambda run: _read(frame, folder / f"frame{run}.duckdb").close(),
        lambda run: _read(file, folder / f"csv{run}.duckdb").close(),
        bare,
    ]
    from_frame, from_csv, limit = take_turns(*ways, runs=3)
    events = f"{rows.num_rows / from_frame / 1e6:.2f} M events/s"
    yield Result(
        "open_log of a frame / append_table of its rows", from_frame * 1000, limit * 1000, aim=_IMPORT, note=events
    )
    yield Result("open_log of a CSV file / the same", from_csv * 1000, limit * 1000, note="reading the text included")


def asking(lab: Lab, folder: Path) -> Iterator[Result]:
    """Every read model of the recipes, all rows."""
    threads = lab.sql("SELECT current_setting('threads')").fetchall()[0][0]
    plain = duckdb.connect(str(folder / "plain.duckdb"), config={"threads": threads})
    events = lab.sql("SELECT * FROM ticket_events ORDER BY position").arrow()
    plain.execute("SET TimeZone = 'UTC'")
    plain.register("given", events)
    columns = ", ".join(
        f"{name}::TIMESTAMP AS {name}" if name in ("occurred_at", "recorded_at") else f'"{name}"'
        for name in events.column_names
        if name
        not in ("stream_no", "version", "schema_version", "event_id", "correlation_id", "causation_id", "command_id")
    )
    plain.execute(f"CREATE TABLE ticket_events AS SELECT {columns} FROM given")
    plain.unregister("given")
    plain.execute("CHECKPOINT")
    for name, key, select in _BLOCK.findall(_PAGE.read_text("utf-8")):
        model = ReadModel(name, tuple(key.split(", ")), select)
        plain.execute(f"CREATE VIEW {name} AS {select}")
        stored, view = lab.serve(model), lab.serve(model, "view")
        ours = [stored.rows(), view.rows()]
        assert len(ours[0]) == len(ours[1]) == plain.sql(f"SELECT count(*) FROM {name}").fetchall()[0][0], name
        order = ", ".join(model.keys)
        from_rows, from_view, by_hand = take_turns(
            lambda _, stored=stored: stored.rows().arrow(),  # type: ignore[misc]
            lambda _, view=view: view.rows().arrow(),  # type: ignore[misc]
            lambda _, name=name, order=order: plain.sql(f"SELECT * FROM {name} ORDER BY {order}").to_arrow_table(),  # type: ignore[misc]
            runs=7,
        )
        yield Result(
            f"{name}, from its projection", from_rows * 1000, by_hand * 1000, aim=_STORED, note=f"{len(ours[0]):,} rows"
        )
        yield Result(f"{name}, as a view", from_view * 1000, by_hand * 1000, aim=_VIEW)
    plain.close()
