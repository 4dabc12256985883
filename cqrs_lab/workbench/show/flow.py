"""The flow of a log: which activity directly follows which, how often and after how long, as rows and as a picture.

Owns the counting, one question of DuckDB, and the words; `flow_svg` draws. Writes nothing. The picture is SVG within an
image: it needs no script, no font and no network, and JupyterLab shows it in a notebook that it does not trust, where
it takes out SVG that stands by itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import polars as pl

from cqrs_lab.app import Lab
from cqrs_lab.errors import DeclarationError, InvalidTable
from cqrs_lab.read.past import Past
from cqrs_lab.sql.names import quote
from cqrs_lab.workbench.show.drawing import SvgPicture, plain
from cqrs_lab.workbench.show.flow_svg import Step, drawn, readable

_STEPS = """
WITH steps AS (
    SELECT type, occurred_at, lag(type) OVER stream AS before, lag(occurred_at) OVER stream AS since,
           lead(position) OVER stream IS NULL AS is_last
    FROM {table} WINDOW stream AS (PARTITION BY stream_no ORDER BY occurred_at, position)
)
SELECT before AS from_activity, type AS to_activity, count(*) AS times,
       round(median(epoch_us(occurred_at) - epoch_us(since)))::BIGINT AS median_wait
FROM steps GROUP BY ALL
UNION ALL
SELECT type, NULL, count(*), NULL FROM steps WHERE is_last GROUP BY ALL
ORDER BY times DESC, from_activity NULLS FIRST, to_activity NULLS LAST
"""


def flows(of: Lab | Past, category: str | None = None) -> pl.DataFrame:
    """Return which activity directly follows which in the streams of a category.

    The events of a stream are taken in the order in which they occurred, those of one moment in that of the log: what
    became known late stands where it happened. Events of types that the domain no longer declares count, too.

    Args:
        of: a lab, or what its `as_of` returned: at a position, as recorded by a time, or as occurred by a time.
        category: whose events, such as "order"; may be left out where there is only one.

    Returns:
        A row for each pair, the most frequent first: from_activity (null: the stream starts), to_activity (null: it
        ends there, so far), times, and median_wait (a Duration; null for starts and ends). All times together are the
        number of events and streams, each event being reached once and each stream ending once.

    Raises:
        DeclarationError: there is no such category, or there are several and none is named.
    """
    past = of if isinstance(of, Past) else of.as_of(position=of.head)
    table = quote(past.catalog.log.categories[_category(past, category)].table)
    return past.sql(_STEPS.format(table=table)).pl().with_columns(pl.col("median_wait").cast(pl.Duration("us")))


@dataclass(frozen=True, eq=False, repr=False)
class FlowPicture(SvgPicture):
    """The flow of a log as a picture, with a text for those who do not see it; a notebook shows it.

    Attributes:
        rows: what was counted, as `flows` returns it, with the arrows that are not shown.
    """

    rows: pl.DataFrame

    def __repr__(self) -> str:
        return f"<flow picture: {self.alt}>"


def flow_picture(of: Lab | Past, category: str | None = None, *, most: int = 40) -> FlowPicture:
    """Return a picture of how streams flow: activities as boxes, arrows with counts and median waits.

    The thicker an arrow, the more often. Broken arrows lead back up. What is counted is said by `flows`.

    Args:
        of: a lab, or what its `as_of` returned.
        category: whose events, such as "order"; may be left out where there is only one.
        most: how many arrows to draw, the most frequent ones; the picture says how many there are besides.

    Raises:
        DeclarationError: there is no such category, or there are several and none is named.
        InvalidTable: it has no events at that moment, or `most` is no positive number.
    """
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InvalidTable(f"most={most!r} is no number of arrows; give 1 or more", column="most")
    past = of if isinstance(of, Past) else of.as_of(position=of.head)
    name = _category(past, category)
    rows = flows(past, name)
    if rows.is_empty():
        raise InvalidTable(f"{name} has no events up to that moment ({past!r}), so there is nothing to draw")
    steps = [Step(*row) for row in rows.iter_rows()]
    shown, rest = steps[:most], steps[most:]
    counts = Counter[str]()
    for step in steps:
        if step.end is not None:
            counts[step.end] += step.times
    streams = sum(step.times for step in steps if step.start is None)
    occurred = f", occurred by {past.occurred:%Y-%m-%d %H:%M} UTC" if past.occurred else ""
    title = f"{name}: {counts.total():,} events of {streams:,} streams, up to position {past.position:,}{occurred}"
    lines = [title, "An arrow tells how often and the median wait; a broken one leads back up."]
    if rest:
        hidden = len(counts.keys() - {end for step in shown for end in (step.start, step.end)})
        lines.append(
            f"Not shown: {len(rest):,} rarer arrows, {sum(step.times for step in rest):,} of "
            f"{counts.total() + streams:,} steps{f', and {hidden:,} of {len(counts):,} activities' if hidden else ''}."
        )
    often = "; ".join(_said(step) for step in shown[:10])
    alt = " ".join([f"{title}.", *lines[2:], f"The most frequent steps: {often}."])
    svg, width, height = drawn(shown, counts, lines, alt)
    return FlowPicture(svg, alt, width, height, rows)


def _category(past: Past, name: str | None) -> str:
    there = past.catalog.log.categories
    if name is None and len(there) == 1:
        return next(iter(there))
    if name is None:
        raise DeclarationError(f"say which category: category=…; there are {', '.join(there)}")
    if name not in there:
        raise DeclarationError(f"there is no category {name!r}; there are {', '.join(there)}")
    return name


def _said(step: Step) -> str:
    one, other = plain(step.start or "the start"), plain(step.end or "the end")
    wait = "" if step.wait is None else f", median wait {readable(step.wait)}"
    return f"{one} to {other}, {step.times:,} times{wait}"
