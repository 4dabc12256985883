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
import pyarrow as pa

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
    """A log to be understood, and the same rows as `append_table` takes them: times text, or typed."""
    file = folder / "log.csv"
    frame.write_csv(file)
    with _read(frame, folder / "first.duckdb") as lab:
        domain, fields = lab.domain, [name for name in lab.report.columns.values() if name != "recorded_at"]
        names = ", ".join(f'"{name}"' for name in fields)
        rows = lab.sql(
            f"SELECT ticket_id AS id, type, occurred_at, recorded_at, {names} FROM ticket_events ORDER BY position"
        ).arrow()

    known = frame.select(pl.col("ticket").alias("id"), "at", "entered_at").with_row_index("line")
    texts = known.sort(pl.col("entered_at").str.to_datetime("%Y-%m-%dT%H:%M%:z"), pl.col("at").str.to_datetime(
        "%Y-%m-%dT%H:%M%:z"), "line")  # fmt: skip
    as_text = rows.set_column(2, "occurred_at", texts["at"].to_arrow())
    as_text = as_text.set_column(3, "recorded_at", texts["entered_at"].to_arrow())

    def bare(run: int, rows: pa.Table, name: str) -> None:
        with Lab(folder / f"{name}{run}.duckdb", domain=domain) as lab:
            lab.append_table("ticket", rows)

    ways = [
        lambda run: _read(frame, folder / f"frame{run}.duckdb").close(),
        lambda run: _read(file, folder / f"csv{run}.duckdb").close(),
        lambda run: bare(run, as_text, "text"),
        lambda run: bare(run, rows, "typed"),
    ]
    from_frame, from_csv, text, typed = (taken * 1000 for taken in take_turns(*ways, runs=3))
    note = f"{rows.num_rows / from_frame / 1e3:.2f} M events/s"
    yield Result("open_log of a frame / append_table of its rows, times text", from_frame, text, aim=_IMPORT, note=note)
    yield Result("the same / append_table of its rows, times typed", from_frame, typed)
    yield Result("open_log of a CSV file / the same", from_csv, typed, note="reading the text included")


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
