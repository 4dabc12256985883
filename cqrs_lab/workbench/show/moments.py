"""Pictures of moments and loads: what was believed when, a projection that stopped, where a decision tips.

Owns what they show and where it stands; `drawing` has the looks. Pure functions: they read a lab, or what was noted of
one, and write nothing. Each returns a picture with a text for those who do not see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

import polars as pl

from cqrs_lab.app import Lab
from cqrs_lab.errors import InvalidTable, NotServed, QueryError
from cqrs_lab.read.projection import Model
from cqrs_lab.store.moments import Moment
from cqrs_lab.store.shown import said
from cqrs_lab.workbench.measure.advice import advise, load_costs
from cqrs_lab.workbench.show.drawing import (
    BLUE,
    FONT,
    GREEN,
    GREY,
    ORANGE,
    PALE_BLUE,
    PALE_GREEN,
    PALE_GREY,
    PALE_ORANGE,
    SMALL,
    Canvas,
    SvgPicture,
    plain,
    width_of,
    wrapped,
)

_GROUNDS = ("#ffffff", PALE_BLUE, PALE_ORANGE, PALE_GREEN, "#f3e5f5", "#fff8d6")
_NO_ROW = "no row"
_LOOKS = {  # of a serving: colour, and how its line is broken
    "view": (ORANGE, ""),
    "materialized": (BLUE, "9 4"),
    "projection": (GREEN, "2 4"),
    "cached projection": ("#8a3f75", "12 3 2 3"),
    "row by row": (GREY, "5 2"),
}
_STEPS = 49  # loads that are looked at


def belief_picture(
    lab: Lab,
    model: Model | str,
    key: Any,
    column: str,
    *,
    recorded: Sequence[Moment],
    occurred: Sequence[Moment],
) -> SvgPicture:
    """Return a matrix of beliefs: what was known of a row at each moment, about each moment.

    A row of the matrix is asked on a day (what was recorded by then), a column is about a day (what had occurred by
    then). Where a later day knows otherwise than the day before, the cell has a thick frame and a
    diamond.

    Args:
        model: a read model, or its name.
        key: of the row; a tuple when it has several columns.
        column: whose value to show.
        recorded, occurred: aware times, or dates, which mean the end of that day in UTC.

    Raises:
        InvalidTable: there are no moments, or the read model has no such column.
        InvalidMoment, UnknownReadModel: as `lab.as_of`.
    """
    if not recorded or not occurred:
        raise InvalidTable("give at least one moment each: recorded=[…], occurred=[…]")
    keys = key if isinstance(key, tuple) else (key,)
    name = lab.model(model).name
    values: list[list[str]] = []
    for known in recorded:
        rows = [lab.as_of(recorded=known, occurred=about).get(model, *keys) for about in occurred]
        if wrong := next((row for row in rows if row is not None and column not in row), None):
            raise InvalidTable(f"{name} has no column {column!r}; it has {', '.join(wrong)}", column=column)
        values.append([_NO_ROW if row is None else said(row[column]) for row in rows])
    asked, about = [_day(one) for one in recorded], [_day(one) for one in occurred]
    canvas, high = Canvas(), 38.0
    texts = [*about, *(text for row in values for text in row)]
    wide = min(max(84.0, *(width_of(text, FONT) + 34 for text in texts)), 170.0)
    side = max(width_of(text, FONT) for text in asked) + 24
    canvas.text(side + wide * len(about) / 2, 12, "about the end of … (occurred)", color=GREY, size=SMALL)
    canvas.text(0, 34, "asked at the end of …", color=GREY, size=SMALL, at="start")
    canvas.text(0, 49, "(recorded)", color=GREY, size=SMALL, at="start")
    side = max(side, width_of("asked at the end of …", SMALL) + 14)
    seen = list(dict.fromkeys(text for row in values for text in row if text != _NO_ROW))
    grounds = {text: _GROUNDS[1 + n % (len(_GROUNDS) - 1)] for n, text in enumerate(seen)} | {_NO_ROW: PALE_GREY}
    changed = []
    for n, text in enumerate(about):
        canvas.text(side + wide * (n + 0.5), 44, text, bold=True)
    for at, row in enumerate(values):
        top = 58 + at * high
        canvas.text(side - 14, top + high / 2 + 5, asked[at], bold=True, at="end")
        for n, text in enumerate(row):
            is_new = at > 0 and text != values[at - 1][n] != _NO_ROW
            look = {"stroke": "#111111", "thick": 2.6} if is_new else {"stroke": "#999999", "thick": 1.0}
            x = side + n * wide + 2
            canvas.box(x, top + 2, wide - 4, high - 4, (), fill=grounds[text], corner=3, **look)  # type: ignore[arg-type]
            shown = wrapped(plain(text), (wide - 26) / FONT, 1)[0]
            canvas.text(x + wide / 2 - 2 + 6 * is_new, top + high / 2 + 5, shown)
            if is_new:
                canvas.diamond(x + 12, top + high / 2)
            changed += [f"on {asked[at]} about {about[n]}: {values[at - 1][n]} became {text}"] if is_new else []
    lines = [f"{column} of {', '.join(map(str, keys))} in {name}: what was known when, about when"]
    lines.append("A thick frame with a diamond: known otherwise than in the line above.")
    told = ". ".join(
        f"Asked at the end of {day}: {', '.join(f'{text} about {of}' for of, text in zip(about, row, strict=True))}"
        for day, row in zip(asked, values, strict=True)
    )
    more = f" Changed: {'; '.join(changed)}." if changed else ""
    return canvas.picture(side + wide * len(about), 60 + high * len(values), lines, f"{lines[0]}. {told}.{more}")


def _day(moment: Moment) -> str:
    return f"{moment:%a %d %b %H:%M}" if hasattr(moment, "hour") else f"{moment:%a %d %b}"


@dataclass(frozen=True)
class Standing:
    """Where a projection stood at one step of a story; what `standing` notes.

    Attributes:
        label: the step, in a few words.
        model: the projection's name.
        position, head: how far it had come, and how far the log.
        state: as `lab.lag()` says it, "ok" or "stopped" among others.
        dead: positions that it had set aside.
    """

    label: str
    model: str
    position: int
    head: int
    state: str
    dead: tuple[int, ...] = ()


def standing(lab: Lab, model: Model | str, label: str) -> Standing:
    """Note where a projection stands now, for `poisoned_picture`.

    Raises:
        NotServed: it is not served as a projection.
    """
    name = lab.model(model).name
    rows = [row for row in lab.lag().dicts() if (row["model"], row["served_as"]) == (name, "projection")]
    if not rows:
        raise NotServed(f"{name} is not served as a projection; serve it first: lab.serve({name})")
    (row,) = rows
    dead = tuple(letter["position"] for letter in lab.dead_letters().dicts() if letter["model"] == name)
    return Standing(label, name, row["position"], row["head"], row["state"], dead)


def poisoned_picture(noted: Iterable[Standing]) -> SvgPicture:
    """Return the time line of a projection: how far it was at each step, where it stopped, what it set aside.

    Args:
        noted: what `standing` noted, in order.

    Raises:
        InvalidTable: there is nothing noted.
    """
    steps = list(noted)
    if not steps:
        raise InvalidTable(
            "nothing was noted, so there is nothing to draw; note steps with standing(lab, model, label)"
        )
    canvas, wide, high, left = Canvas(), 150.0, 200.0, 60.0
    top = 12.0
    positions = [step.position for step in steps] + [step.head for step in steps]
    low, most = min(positions), max(positions)
    span = max(most - low, 1)

    def y(position: int) -> float:
        return top + high * (1 - (position - low) / span)

    x = [left + wide * (n + 0.5) for n in range(len(steps))]
    every = ceil((span + 1) / 8)
    for position in [*range(low, most, every), most]:
        if position == most or y(position) - y(most) > 14:
            canvas.line([(left, y(position)), (left + wide * len(steps), y(position))], color="#e5e5e5", thick=1)
            canvas.text(left - 8, y(position) + 4, f"{position:,}", size=SMALL, color=GREY, at="end")
    canvas.line([(at, y(step.head)) for at, step in zip(x, steps, strict=True)], color=GREY, dash="6 4")
    canvas.line([(at, y(step.position)) for at, step in zip(x, steps, strict=True)], color=BLUE, thick=3)
    told = []
    for at, step in zip(x, steps, strict=True):
        behind, is_ok = step.head - step.position, step.state.startswith("ok")
        canvas.dot(at, y(step.head), color=GREY, radius=4, fill="#ffffff")
        if is_ok:
            canvas.dot(at, y(step.position), color=BLUE, radius=6)
        else:
            place = y(step.position)
            canvas.box(at - 7, place - 7, 14, 14, (), fill=ORANGE, stroke=ORANGE, corner=1)
        words = "at the head" if not behind else f"{behind:,} behind"
        dead = f"{len(step.dead)} dead letter{'s' * (len(step.dead) > 1)}" if step.dead else ""
        says = ["ok" if is_ok else step.state, words, *([dead] if dead else [])]
        for n, line in enumerate(wrapped(plain(step.label), (wide - 14) / FONT, 3)):
            canvas.text(at, top + high + 30 + n * 16, line, bold=True)
        for n, line in enumerate(says):
            shown = wrapped(line, (wide - 10) / SMALL, 1)[0]
            canvas.text(
                at, top + high + 84 + n * 16, shown, size=SMALL, color=(GREEN if is_ok else ORANGE) if not n else GREY
            )
        for position in step.dead:
            if low <= position <= most:
                canvas.label(at + 16, y(position) + 5, f"set aside: {position:,}", color=ORANGE, at="start")
        at_ = f", set aside: position {', '.join(map(str, step.dead))}" if step.dead else ""
        told.append(f"{step.label}: at position {step.position:,} of {step.head:,}, {step.state}{at_}")
    lines = [f"{steps[0].model}: how far it is, step by step"]
    lines.append("Full line: the projection's position. Broken line: the head of the log. Square: stopped.")
    return canvas.picture(left + wide * len(steps), top + high + 130, lines, f"{lines[0]}. {'. '.join(told)}.")


def tipping_picture(
    frame: pl.DataFrame,
    *,
    writes: float,
    events: int,
    staleness: float = 0,
    question: str = "point",
    reads: tuple[float, float] = (0.1, 1_000),
) -> SvgPicture:
    """Return what each serving costs as reads grow, and above which of them is advised: where that changes it tips.

    Args:
        frame: of `compare_latency` or `compare_sizes`, with costs.
        writes, events, staleness, question: as `advise` takes them.
        reads: the fewest and the most reads a second.

    Raises:
        QueryError, InvalidTable: as `advise`; or there are no such loads.
    """
    fewest, most = reads
    if not 0 < fewest < most:
        raise QueryError(f"reads={reads!r} are no two numbers above 0, the first the smaller one")
    across = [fewest * (most / fewest) ** (n / (_STEPS - 1)) for n in range(_STEPS)]
    load: dict[str, Any] = {"writes": writes, "events": events, "staleness": staleness, "question": question}
    costs = [dict(load_costs(frame, reads=r, **load).select("served_as", "ms").iter_rows()) for r in across]
    advised = [advise(frame, reads=r, **load).served_as for r in across]
    ways = [way for way in _LOOKS if way in costs[0]]
    low = floor(log10(max(min(ms for cost in costs for ms in cost.values()), 1e-4)))
    top_power = ceil(log10(max(max(ms for cost in costs for ms in cost.values()), 10.0 ** (low + 1))))
    canvas, wide, high, left, top = Canvas(), 560.0, 270.0, 74.0, 66.0

    def x(value: float) -> float:
        return left + wide * log10(value / fewest) / log10(most / fewest)

    def y(ms: float) -> float:
        return top + high * (1 - (log10(max(ms, 10.0**low)) - low) / (top_power - low))

    for power in range(low, top_power + 1):
        canvas.line([(left, y(10.0**power)), (left + wide, y(10.0**power))], color="#e5e5e5", thick=1)
        canvas.text(left - 8, y(10.0**power) + 4, f"{10.0**power:,.10g} ms", size=SMALL, color=GREY, at="end")
    for power in range(ceil(log10(fewest)), floor(log10(most)) + 1):
        canvas.line([(x(10.0**power), top), (x(10.0**power), top + high)], color="#e5e5e5", thick=1)
        canvas.text(x(10.0**power), top + high + 18, f"{10.0**power:,.10g}", size=SMALL, color=GREY)
    canvas.text(left + wide / 2, top + high + 38, "reads a second; each line is ten times the one before", size=SMALL)
    if low <= 3 <= top_power:
        canvas.line([(left, y(1000)), (left + wide, y(1000))], color="#111111", thick=1, dash="2 3")
        canvas.label(left + 4, y(1000) - 5, "all that one core can do", at="start")
    spans, tips = _spans(across, advised)
    # From one stored serving to another one there is little to decide.
    of_view = [tip for tip in tips if "view" in tip]
    for way, start, end in spans:
        color, _ = _LOOKS[way]
        canvas.box(x(start), 22, x(end) - x(start), 26, (), fill=color, stroke="#ffffff", corner=0)
        if width_of(way, SMALL) + 6 < x(end) - x(start):
            canvas.text((x(start) + x(end)) / 2, 40, way, size=SMALL, color="#ffffff", bold=True)
    canvas.text(left - 8, 40, "advised", size=SMALL, color=GREY, at="end")
    for tip, *_ in of_view:
        canvas.line([(x(tip), 16), (x(tip), top + high)], color="#111111", thick=1.5, dash="5 3")
        canvas.label(x(tip), 12, _few(tip))
    ends = sorted((y(costs[-1][way]), way) for way in ways)
    last = 0.0
    for height, way in ends:
        color, dash = _LOOKS[way]
        canvas.line([(x(r), y(c[way])) for r, c in zip(across, costs, strict=True)], color=color, thick=2.4, dash=dash)
        last = max(height, last + 16)
        canvas.line([(left + wide, height), (left + wide + 10, last)], color=color, thick=1)
        canvas.text(left + wide + 14, last + 4, way, color=color, bold=True, at="start")
    told = "; ".join(f"from {_few(tip)} reads a second on {now}, before {was}" for tip, was, now in tips)
    loads = f"{writes:.3g} write{'' if writes == 1 else 's'} a second, {events:,} events, question {question}"
    loads += f", answers up to {staleness:g} s old" if staleness else ""
    lines = ["Where the decision tips: milliseconds of work a second, by reads", f"{loads}."]
    if of_view:
        turns = "; ".join(f"from {_few(tip)} reads a second on {now}, and no longer {was}" for tip, was, now in of_view)
        lines.append(f"The tipping point: {turns}.")
    first = f"Advised: {advised[0]} at {fewest:g} reads a second"
    alt = f"{lines[0]}. {loads}. {first}{f'; {told}' if told else ' and up to the most'}."
    right = left + wide + 14 + max(width_of(way, FONT) for way in ways)
    return canvas.picture(right, top + high + 44, lines, alt)


def _few(value: float) -> str:
    """A number of which two digits count."""
    return f"{float(f'{value:.1e}'):,.10g}"


def _spans(
    across: Sequence[float], advised: Sequence[str]
) -> tuple[list[tuple[str, float, float]], list[tuple[float, str, str]]]:
    """The stretches of one advice, and where it changes: (reads, before, from there on)."""
    spans, tips, start = [], [], across[0]
    for n in range(1, len(across)):
        if advised[n] != advised[n - 1]:
            at = (across[n - 1] * across[n]) ** 0.5
            spans.append((advised[n - 1], start, at))
            tips.append((at, advised[n - 1], advised[n]))
            start = at
    return [*spans, (advised[-1], start, across[-1])], tips
