"""A log from elsewhere: from a file or a frame to questions about its past."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from support import environment

from cqrs_lab import ReadModel
from cqrs_lab.errors import ImportFailed
from cqrs_lab.workbench import open_log

LOGS = Path(os.environ.get("CQRS_LAB_LOGS", Path(__file__).parents[3] / "shared" / "data" / "logs"))
ROWS = [
    ("c1", "register", "2026-01-05T10:00:00+01:00", "web", "3.50", "1", "Ann"),
    ("c1", "it's done; --", "2026-01-07T10:00:00+01:00", "web", "0.25", "2", ""),
    ("c2", "register", "2026-01-06T08:00:00Z", "phone", "7.00", "3", "Bea"),
    ("c2", "Ünïcode ☃", "2026-01-08T08:00:00Z", "phone", "1.00", "4", "Ann"),
]
HEAD = ("case id", "activity", "timestamp", "channel", "cost", "n", "org:resource")


def csv(path: Path, rows: list[tuple[str, ...]] = ROWS, head: tuple[str, ...] = HEAD) -> Path:
    """Write a CSV file."""
    pl.DataFrame(rows, schema=list(head), orient="row").write_csv(path)
    return path


def parquet(path: Path) -> Path:
    """The same as Parquet."""
    csv(path)
    pl.read_csv(path).write_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


WAYS: dict[str, Callable[[Path], Any]] = {
    "csv": csv,
    "text": lambda path: str(csv(path)),
    "parquet": parquet,
    "polars": lambda path: pl.read_csv(csv(path)),
    "lazy": lambda path: pl.scan_csv(csv(path)),
    "pandas": lambda path: pl.read_csv(csv(path)).to_pandas(),
    "arrow": lambda path: pl.read_csv(csv(path)).to_arrow(),
    "duckdb": lambda path: duckdb.connect().sql(f"FROM read_csv('{csv(path)}', all_varchar=true)"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_source_is_the_same_log(tmp_path: Path, way: str) -> None:
    """Activities become event types under their own text, columns become fields, and time is the order."""
    with open_log(WAYS[way](tmp_path / "log.csv")) as lab:
        assert lab.report.activities == {"register": 2, "it's done; --": 1, "Ünïcode ☃": 1}
        assert lab.report.columns == {
            "channel": "case_channel", "cost": "cost", "n": "n", "org:resource": "org_resource"
        }  # fmt: skip
        assert (lab.report.events, lab.report.cases) == (4, 2)
        columns = "case_id, type, occurred_at, case_channel, cost, n, org_resource"
        rows = lab.sql(f"SELECT {columns} FROM case_events ORDER BY position").fetchall()
        at = [datetime.fromisoformat(row[2].replace("Z", "+00:00")) for row in ROWS]
        told = [(r[0], r[1], t, r[3], Decimal(r[4]), int(r[5]), r[6] or None) for r, t in zip(ROWS, at, strict=True)]
        assert [(*r[:4], Decimal(str(r[4])), int(r[5]), r[6] or None) for r in rows] == [told[i] for i in (0, 2, 1, 3)]
        assert lab.events_table("case").pl()["type"].to_list() == [told[i][1] for i in (0, 2, 1, 3)]
        times = lab.sql("SELECT recorded_at = occurred_at FROM case_events").fetchall()
        assert times == [(True,)] * 4
        model = ReadModel("c", "case_id", "SELECT case_id, count(*) AS n FROM case_events GROUP BY 1")
        for as_ in ("view", "materialized", "projection"):
            assert lab.serve(model, as_).rows().fetchall() == [("c1", 2), ("c2", 2)]
        assert lab.as_of(recorded=at[2]).get(model, "c1") == {"case_id": "c1", "n": 1}
        assert "before an earlier one" in str(lab.report)


@pytest.mark.parametrize(
    ("times", "more"),
    [
        (["2026-01-05 10:00", "2026-01-05 11:30"], {"zone": "Europe/Amsterdam"}),
        (["2026-01-05T09:00:00Z", "2026-01-05T10:30:00.000+00:00"], {}),
        (["05.01.2026 10:00", "05.01.2026 11:30"], {"format": "%d.%m.%Y %H:%M", "zone": "Europe/Amsterdam"}),
        (["1767603600", "1767609000"], {}),
        (["1767603600000", "1767609000000"], {}),
        (["1767603600000000", "1767609000000000"], {}),
    ],
)
def test_times_are_read_as_they_are_said(tmp_path: Path, times: list[str], more: dict[str, Any]) -> None:
    """ISO text with and without offsets, other formats, and seconds to microseconds since 1970 are the same moments."""
    rows = [("a", "x", time) for time in times]
    with open_log(csv(tmp_path / "log.csv", rows, ("case", "activity", "time")), **more) as lab:
        first = datetime(2026, 1, 5, 9, tzinfo=UTC)
        assert lab.events_table("case").pl()["occurred_at"].to_list() == [first, first + timedelta(minutes=90)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"activity": "nothing"}, "no such column"),
        ({"case": "activity", "activity": "activity"}, "three columns"),
        ({"fields": ["nothing"]}, "no such column"),
        ({"recorded": "nothing"}, "no such column"),
        ({"rows": [("c1", "x", "yesterday")]}, "format="),
        ({"rows": [("c1", "x", "2026-01-05 10:00")]}, "zone="),
        ({"rows": [("", "x", "2026-01-05T10:00Z")]}, "names the case"),
        ({"rows": [("c1", "", "2026-01-05T10:00Z")]}, "says what happened"),
        ({"rows": [("c1", "x", "")]}, "says when"),
        ({"rows": [("c1", f"a{n}", "2026-01-05T10:00Z") for n in range(1_001)]}, "is it the activity"),
        ({"head": ("who", "activity", "timestamp")}, "case="),
        ({"zone": "Nowhere/At all"}, "not a time zone"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """A column that is missing, a time that is none, an empty case: one error that says what to do, and no store."""
    rows = change.pop("rows", [("c1", "x", "2026-01-05T10:00:00Z")])
    file = csv(tmp_path / "log.csv", rows, change.pop("head", ("case", "activity", "timestamp")))
    with pytest.raises(ImportFailed, match=said):
        open_log(file, path=tmp_path / "log.duckdb", **change)
    assert not (tmp_path / "log.duckdb").exists()


def test_the_future_is_recorded_now(tmp_path: Path) -> None:
    """An event dated far ahead dates none of the others, and is said; a store that has events is left alone."""
    rows = [("a", "x", "2099-01-01T00:00:00Z"), ("b", "x", "2026-01-01T00:00:00Z")]
    file = csv(tmp_path / "log.csv", rows, ("case", "activity", "time"))
    with open_log(file, path=tmp_path / "log.duckdb") as lab:
        assert "1 events are in the future" in str(lab.report)
        told = lab.sql("SELECT case_id, recorded_at < occurred_at FROM case_events ORDER BY position").fetchall()
        assert told == [("b", False), ("a", True)]
        assert lab.sql("SELECT max(recorded_at) FROM case_events").fetchall()[0][0] < datetime.now(UTC)
    with pytest.raises(ImportFailed, match="holds events already"):
        open_log(file, path=tmp_path / "log.duckdb")


def test_when_it_became_known_may_be_told(tmp_path: Path) -> None:
    """`recorded` names a column, or says now; positions follow it."""
    late, early = ("2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"), ("2026-01-01T00:00:00Z", "2026-01-05T00:00:00Z")
    rows = [("a", "x", *late), ("b", "x", *early)]
    file = csv(tmp_path / "log.csv", rows, ("case", "activity", "time", "known"))
    with open_log(file, recorded="known") as lab:
        assert lab.sql("SELECT case_id FROM case_events ORDER BY position").fetchall() == [("a",), ("b",)]
        assert lab.report.columns == {}
    with open_log(file, recorded="now", fields=[]) as lab:
        assert lab.sql("SELECT case_id FROM case_events ORDER BY position").fetchall() == [("b",), ("a",)]
        assert lab.sql("SELECT bool_and(recorded_at > '2026-01-06') FROM case_events").fetchall() == [(True,)]


XES = """<?xml version="1.0"?><log xes.version="1.0"><string key="creator" value="x"/><trace>
<string key="concept:name" value="c1"/><event>
<string key="concept:name" value="go"><string key="why" value="n"/></string>
<date key="time:timestamp" value="2026-01-05T10:00:00.000+01:00"/><int key="n" value="3"/><float key="f" value="0.5"/>
<boolean key="ok" value="true"/></event></trace></log>"""


@pytest.mark.parametrize("packed", [False, True])
def test_xes_is_read(tmp_path: Path, packed: bool) -> None:
    """A file of process mining, packed or not, gives cases, activities and typed attributes."""
    file = tmp_path / ("log.xes.gz" if packed else "log.xes")
    file.write_bytes(gzip.compress(XES.encode()) if packed else XES.encode())
    with open_log(file) as lab:
        assert lab.sql("SELECT case_id, type, occurred_at, n, f, ok FROM case_events").fetchall() == [
            ("c1", "go", datetime(2026, 1, 5, 9, tzinfo=UTC), 3, 0.5, True)
        ]


@pytest.mark.parametrize(
    "text",
    [
        XES[:300],
        XES.replace("2026-01-05T10", "2026-13-05T10"),
        XES.replace('value="3"', 'value="three"'),
        XES.replace(' value="3"', ""),
        XES.replace("<event>", "").replace("</event>", ""),
        "not XML at all",
        "",
        '<!DOCTYPE log [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>' + XES.replace('"go"', '"&b;"')[21:],
        '<!DOCTYPE log SYSTEM "file:///etc/passwd">' + XES[21:],
    ],
    ids=["cut", "no time", "no number", "no value", "no events", "no XML", "empty", "entities", "outside"],
)
def test_xes_that_is_wrong_is_one_error(tmp_path: Path, text: str) -> None:
    """A file that is cut, broken or full of entities is refused, and nothing is stored."""
    (tmp_path / "log.xes").write_text(text)
    with pytest.raises(ImportFailed, match=r"nothing was stored"):
        open_log(tmp_path / "log.xes", path=tmp_path / "log.duckdb")
    assert not (tmp_path / "log.duckdb").exists()
    (tmp_path / "log.xes.gz").write_bytes(gzip.compress(XES.encode())[:-40])
    with pytest.raises(ImportFailed, match=r"nothing was stored"):
        open_log(tmp_path / "log.xes.gz")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_xes_that_is_huge_in_one_place_is_refused_in_little_memory(tmp_path: Path) -> None:
    """An attribute of 600 MB, packed into a small file, is refused with memory below 500 MB."""
    program = f"""if True:
        import gzip, re
        from pathlib import Path
        from cqrs_lab.errors import ImportFailed
        from cqrs_lab.workbench import open_log
        start, end = {XES!r}.split("go", 1)
        with gzip.open({str(tmp_path / "log.xes.gz")!r}, "wb", 1) as file:
            file.write(start.encode())
            for _ in range(600):
                file.write(b"x" * 1_000_000)
            file.write(end.encode())
        try:
            open_log({str(tmp_path / "log.xes.gz")!r})
        except ImportFailed as error:
            # ru_maxrss would be that of the process which started this one.
            peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
            print(int(peak[1]) // 1024, error)
    """
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=120
    )
    memory, _, said = told.stdout.partition(" ")
    assert "larger than 16 MB" in said, told.stderr
    assert int(memory) < 500


@pytest.mark.skipif(not LOGS.is_dir(), reason="the logs lie elsewhere; name their folder by CQRS_LAB_LOGS")
def test_a_real_log_says_what_is_known_of_it() -> None:
    """Every value that is published of the receipt log, by every serving and as of its end."""
    with open_log(LOGS / "receipt.csv") as lab:
        assert (lab.report.events, lab.report.cases, len(lab.report.activities)) == (8_577, 1_434, 27)
        most = list(lab.report.activities.items())[:4]
        assert [count for _, count in most] == [1_434, 1_416, 1_368, 1_307]
        assert most[0][0] == "Confirmation of receipt"
        columns = "count(*) AS n, min(occurred_at) AS first, max(occurred_at) AS last"
        model = ReadModel("cases", "case_id", f"SELECT case_id, {columns} FROM case_events GROUP BY 1")
        seconds = "sum(floor(epoch(last - first))::BIGINT)::BIGINT, epoch(median(last - first))"
        cut = f"SELECT count(*), sum(n)::BIGINT, min(first), max(last), median(n), {seconds} FROM cases"
        expected = (1_434, 8_577, datetime(2010, 10, 2, 7, 20, 39, 266_000, tzinfo=UTC),
                    datetime(2012, 1, 23, 14, 42, 54, 644_000, tzinfo=UTC), 6.0, 670_055_777)  # fmt: skip
        for as_ in ("view", "materialized", "projection"):
            (row,) = lab.serve(model, as_).sql(cut).fetchall()
            assert row[:6] == expected
            assert row[6] == pytest.approx(47 * 60 + 48.58, abs=0.01)
        (row,) = lab.as_of(position=lab.head).sql(cut).fetchall()
        assert row[:6] == expected
    with open_log(LOGS / "running-example.xes") as lab:
        assert (lab.report.events, lab.report.cases, len(lab.report.activities)) == (42, 6, 8)
        assert {name: lab.report.activities[name] for name in ("check ticket", "decide")} == {
            "check ticket": 9,
            "decide": 9,
        }
