"""Event logs from elsewhere: one row for each event, with its case, its activity and its time.

Owns what such a table means: an activity becomes an event type, every other column a field, and the order of time the
order of positions. What was renamed, left out or odd is reported.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC as UTC_ZONE
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from cqrs_lab.app import Lab
from cqrs_lab.domain import Domain
from cqrs_lab.store.categories import RESERVED
from cqrs_lab.store.connect import MEMORY
from cqrs_lab.workbench.data.stores import event_class
from cqrs_lab.workbench.data.xes import read_xes
from cqrs_lab.write.sources import LINE, UTC, Problems, Source, as_frame, fail, instants, moments, need_columns, refuse

XES_COLUMNS = {"case": "case:concept:name", "activity": "concept:name", "timestamp": "time:timestamp"}
_CLOCKS = {
    "time_was_ambiguous": "are in an hour that {zone} had twice, as the clocks went back; the first was taken",
    "time_did_not_exist": "are in an hour that {zone} did not have, as the clocks went forward; they were moved on",
}
_MOST = 1_000  # activities; a column with more is hardly one of activities
USUAL = {
    "case": (
        "case:concept:name",
        "case_id",
        "caseid",
        "case id",
        "case",
        "trace",
        "ticket_id",
        "ticket",
        "incident",
        "order_id",
        "order",
        "session_id",
        "session",
        "id",
    ),
    "activity": ("concept:name", "activity", "event", "event_type", "action", "step", "status", "type"),
    "timestamp": (
        "time:timestamp",
        "timestamp",
        "occurred_at",
        "time",
        "event_time",
        "date",
        "datetime",
        "created_at",
        "complete timestamp",
        "when",
        "at",
        "ts",
    ),
}


@dataclass
class LogReport:
    """What was read of a log, and what in it is odd.

    Attributes:
        events: that were stored.
        cases: how many things they are about.
        activities: event type -> number of events, the most frequent first.
        columns: columns of the source -> fields of the events.
        left_out: columns that hold nothing.
        notes: what somebody should know, a sentence each.
    """

    events: int = 0
    cases: int = 0
    activities: dict[str, int] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        renamed = [f"{old} is called {new}" for old, new in self.columns.items() if old != new]
        empty = [f"{name} is empty and was left out" for name in self.left_out]
        head = f"{self.events:,} events of {self.cases:,} cases, {len(self.activities)} activities"
        return "\n".join([head, *self.notes, *renamed, *empty])


def open_log(
    source: Source,
    case: str | None = None,
    activity: str | None = None,
    timestamp: str | None = None,
    *,
    category: str = "case",
    fields: Iterable[str] | None = None,
    zone: str | None = None,
    format: str | None = None,
    recorded: str | None = None,
    path: str | os.PathLike[str] = MEMORY,
) -> Lab:
    """Open a lab over a log from elsewhere.

    Args:
        source: one row for each event: as for `Lab.append_table`, or the path of a XES file (.xes, .xes.gz). CSV is
            read as text; a column of plain numbers becomes exact numbers.
        case: the column that names the thing; None: by its usual name, as of XES and many logs.
        activity: the column that says what happened; each becomes an event type under its own text. None: likewise.
        timestamp: the column that says when; None: likewise.
        category: what a thing is called; its events are in the table case_events, its key is case_id.
        fields: the other columns to keep; None: all that hold something. What never varies within a case is called
            case_….
        zone: the time zone of times that have none, such as "Europe/Amsterdam"; None refuses them.
        format: of times that are not ISO 8601 text, as `strptime` has it.
        recorded: the column that says when it became known, or "now"; None: as it happened, and no later than now.
        path: of a new store, which `open_store` opens later; in memory when left out.

    Returns:
        A lab; its `report` says what was read.

    Raises:
        ImportFailed: the source cannot be read, or a column is missing or breaks a rule; nothing was stored.
        InvalidTable: likewise, of the values of a field.
    """
    frame, file = _read(source)
    named = _named(frame, {"case": case, "activity": activity, "timestamp": timestamp}, file)
    case, activity, timestamp = named["case"], named["activity"], named["timestamp"]
    problems = Problems(file)
    for column, words in ((case, "names the case"), (activity, "says what happened"), (timestamp, "says when")):
        problems.check(frame, column, pl.col(column).is_null(), words)
    problems.tell()
    report, key = LogReport(), f"{category}_id"
    at = _times(frame, timestamp, zone, format, file, report)
    made = frame.select(LINE, id=pl.col(case).cast(pl.String), type=pl.col(activity).cast(pl.String), occurred_at=at)
    kinds = made["type"].value_counts(sort=True)
    if kinds.height > _MOST:
        fail(f"it holds {kinds.height:,} different texts; is it the activity?", file, None, activity)
    report.activities = dict(kinds.iter_rows())
    report.events, report.cases = made.height, made["id"].n_unique()
    taken = {key, *(name.lower() for name in RESERVED), "id", "type", LINE}
    declared: dict[str, Any] = {}
    others = [name for name in frame.columns if name not in (LINE, case, activity, timestamp, recorded)]
    if fields is not None:
        need_columns(frame, others := list(fields), file)
    for name in others:
        values = frame[name]
        if values.null_count() == values.len():
            report.left_out.append(name)
            continue
        values, kind = _typed(values, zone)
        safe = _safe(name, taken, of_case=_is_of_case(made["id"], values, report.cases))
        report.columns[name], declared[safe] = safe, kind
        made = made.with_columns(values.alias(safe))
    made = _ordered(made, frame, recorded, zone, file, report)
    events = [event_class(name, key, declared) for name in report.activities]
    lab = Lab(path, domain=Domain.of_events(category, key=key, events=events))
    try:
        if lab.head:
            fail(f"{path} holds events already; give a new path")
        lab.append_table(category, made.drop(LINE))
    except BaseException:
        lab.close()
        raise
    lab.report = report
    return lab


def _read(source: Source) -> tuple[pl.DataFrame, str | None]:
    if isinstance(source, (str, os.PathLike)) and str(source).lower().endswith((".xes", ".xes.gz")):
        return read_xes(Path(source)), Path(source).name
    frame, file = as_frame(source)
    if frame.height == 0:
        fail("it holds no events", file)
    return frame, file


def guess_columns(file: str | os.PathLike[str]) -> tuple[dict[str, str | None], list[str]]:
    """Return the columns that are likely the case, the activity and the timestamp of a file, and all that it has.

    Only the head of a CSV or Parquet file is read.

    Raises:
        ImportFailed: it cannot be read.
    """
    path = Path(file)
    if str(path).lower().endswith((".xes", ".xes.gz")):
        return dict(XES_COLUMNS), list(XES_COLUMNS.values())
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as lines:
                names = next(csv.reader(lines), [])
        else:
            names = list(pl.read_parquet_schema(path))
    except (OSError, UnicodeDecodeError, csv.Error, pl.exceptions.PolarsError) as error:
        fail(f"it cannot be read: {error}", path.name)
    found: dict[str, str | None] = {}
    for what in USUAL:
        found[what] = _usual(what, names, found.values())
    return found, names


def _usual(what: str, names: Iterable[str], taken: Collection[str | None]) -> str | None:
    lower = {name.lower(): name for name in names}
    return next((lower[one] for one in USUAL[what] if one in lower and lower[one] not in taken), None)


def _named(frame: pl.DataFrame, given: Mapping[str, str | None], file: str | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for what, name in given.items():
        if name is not None:
            need_columns(frame, [name], file)
            found[what] = name
            continue
        usual = _usual(what, frame.columns, found.values())
        if usual is None:
            there = ", ".join(column for column in frame.columns if column != LINE)
            fail(f"say which column is the {what}: {what}=…; there are {there}", file)
        found[what] = usual
    if len(set(found.values())) < len(found):
        fail(f"case, activity and timestamp are three columns, not {', '.join(found.values())}", file)
    return found


def _times(
    frame: pl.DataFrame,
    column: str,
    zone: str | None,
    format: str | None,
    file: str | None,
    report: LogReport | None = None,
) -> pl.Series:
    """The moments of a column; what is none is refused, and what a change of clocks made unsure is reported."""
    times = frame[column]
    if times.dtype.is_numeric():  # seconds since 1970, or milli-, micro- or nanoseconds, by their size
        whole = times.cast(pl.Float64)
        size = float(whole.abs().max() or 0)  # type: ignore[arg-type]
        scale = next((scale for most, scale in ((1e11, 1e6), (1e14, 1e3), (1e17, 1)) if size < most), 1e-3)
        micros = (whole * scale).round() if times.dtype.is_float() or scale < 1 else times.cast(pl.Int64) * int(scale)
        return micros.cast(pl.Int64).cast(UTC)
    if format is not None and times.dtype == pl.String:
        times = times.str.to_datetime(format, time_unit="us", strict=False)
    found, naive = moments(times, zone, file)
    words = "is a time in ISO 8601; give format= for others, such as '%d.%m.%Y %H:%M'"
    refuse(frame, column, found.is_null(), words, file)
    if zone is not None and report is not None and not times.dtype.is_numeric():
        rules = instants(times, zone, file)["rule"].drop_nulls().value_counts()
        for rule, count in sorted(rules.iter_rows()):
            report.notes.append(f"{count:,} times {_CLOCKS[rule].format(zone=zone)}")
    refuse(frame, column, naive, "names its time zone; give zone= for those that do not, such as 'UTC'", file)
    return found


def _typed(values: pl.Series, zone: str | None) -> tuple[pl.Series, Any]:
    """A column as its field keeps it, and the type of the field."""
    kind = values.dtype
    if kind == pl.String:
        first = values.drop_nulls().head(1)  # most texts are none at the first look
        if instants(first, zone or "UTC")["at"].has_nulls():
            return values, str
        times, naive = moments(values, zone)
        if times.null_count() == values.null_count() and not naive.any():
            return times.cast(UTC), datetime
        return values, str
    if kind.is_integer():
        return values.cast(pl.Int64), int
    if isinstance(kind, pl.Decimal):
        places = kind.scale or 0
        return values, Annotated[Decimal, Field(max_digits=38, decimal_places=places)]
    if kind.is_float():
        return values.fill_nan(None), float
    if kind == pl.Boolean:
        return values, bool
    if kind == pl.Date:
        return values, date
    if isinstance(kind, pl.Datetime):
        return instants(values, zone or "UTC")["at"], datetime
    return values.cast(pl.String, strict=False), str


def _is_of_case(ids: pl.Series, values: pl.Series, cases: int) -> bool:
    """Whether a value never varies within a case, and there are cases of several events."""
    # Distinct pairs, and not a count for each case: 0.05 s instead of 0.16 s for 540,000 events.
    return cases < len(ids) and pl.DataFrame({"id": ids, "value": values}).unique().height == cases


def _safe(name: str, taken: set[str], *, of_case: bool) -> str:
    """A name that a field may have and no other has, in lower case."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "column"
    plain = plain if plain[0].isalpha() else f"f_{plain}"
    if of_case and not plain.startswith("case_"):
        plain = f"case_{plain}"
    plain, number, found = plain[:55], 1, plain[:55]
    while found in taken:
        number += 1
        found = f"{plain}_{number}"
    taken.add(found)
    return found


def _ordered(
    made: pl.DataFrame, frame: pl.DataFrame, recorded: str | None, zone: str | None, file: str | None, report: LogReport
) -> pl.DataFrame:
    """The events in order of time, with the time at which each is said to have been recorded."""
    now = datetime.now(UTC_ZONE)
    future = made.filter(pl.col("occurred_at") > now).height
    if future:
        report.notes.append(f"{future:,} events are in the future; they are recorded as of now")
    if recorded is not None and (recorded != "now" or "now" in frame.columns):
        need_columns(frame, [recorded], file)
        made = made.with_columns(recorded_at=_times(frame, recorded, zone, None, file))
        late = made.filter(pl.col("recorded_at") > pl.col("occurred_at"))
        if late.height:
            longest = late.select((pl.col("recorded_at") - pl.col("occurred_at")).max().dt.to_string("polars")).item()
            known = f"{late.height:,} events became known after they occurred, by up to {longest}"
            report.notes.append(f"{known}; events are in the order in which they became known")
        return made.sort("recorded_at", "occurred_at", LINE)
    back = made.filter(pl.col("occurred_at").diff() < pl.duration(microseconds=0)).height
    if back:
        report.notes.append(f"{back:,} rows stood before an earlier one; events were put in order of time")
    made = made.sort("occurred_at", LINE)
    if recorded is not None:
        return made
    return made.with_columns(recorded_at=pl.min_horizontal("occurred_at", pl.lit(now).cast(UTC)))
