"""The drawing of a flow: boxes, arrows and labels as SVG text.

Owns the looks of a flow; places are those of `layers`, numbers those of `flow`, and what all pictures share is that of
`drawing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from html import escape
from itertools import pairwise
from typing import NamedTuple

from cqrs_lab.workbench.show.drawing import BLUE, FONT, GREY, LINE, ORANGE, SMALL, page, plain, width_of, wrapped
from cqrs_lab.workbench.show.layers import Arrow, Layout, Point, Size, layered

_WIDE, _LINES = 160.0, 3  # the text of a box: its width, and its lines at most
_LOOP = 30.0  # how far the arrow of an activity that follows itself reaches
_UNITS = {"d": 86_400.0, "h": 3_600.0, "min": 60.0, "s": 1.0}


class Step(NamedTuple):
    """One activity directly follows another; None: the start or the end of a stream."""

    start: str | None
    end: str | None
    times: int
    wait: timedelta | None


def readable(wait: timedelta) -> str:
    """Return a wait in its largest unit, such as "3.2 d"."""
    seconds = abs(wait.total_seconds())
    unit = next((unit for unit, size in _UNITS.items() if seconds >= size), "s" if not seconds else "ms")
    value = seconds / _UNITS.get(unit, 0.001)
    sign = "-" if wait < timedelta() else ""
    return f"{sign}{value:,.0f} {unit}" if value >= 99.95 or value == int(value) else f"{sign}{value:.1f} {unit}"


def drawn(steps: Sequence[Step], counts: Mapping[str, int], lines: Sequence[str], alt: str) -> tuple[str, int, int]:
    """Return the SVG of these steps, its width and its height in points.

    Args:
        steps: at least one; also says which activities there are.
        counts: how often there was each activity.
        lines: what stands above: a title, and sentences.
        alt: what it shows, for those who do not see it.
    """
    names = list(dict.fromkeys(end for step in steps for end in (step.start, step.end) if end is not None))
    number: dict[str | None, int] = {name: n for n, name in enumerate(names)}
    touched = {step.start is None for step in steps if None in (step.start, step.end)}
    first = len(names) if True in touched else None
    last = len(names) + (first is not None) if False in touched else None
    loops = {number[step.end]: step for step in steps if step.end is not None and step.start == step.end}
    boxes = [_box(name, f"{counts[name]:,}", counts[name] / max(counts.values())) for name in names]
    boxes += [_box("start", "", None)] * (first is not None) + [_box("end, so far", "", None)] * (last is not None)
    ways = [step for step in steps if step.start is None or step.start != step.end]
    arrows = []
    for step in ways:
        half = _label_width(step) / 2
        start, end = number.get(step.start, first), number.get(step.end, last)
        assert start is not None
        assert end is not None
        arrows.append(Arrow(start, end, step.times, Size(half, half, SMALL * 1.25 * len(_label(step)))))
    sizes = [box.size for box in boxes]
    for n, step in loops.items():
        sizes[n] = sizes[n]._replace(right=sizes[n].right + _LOOP + _label_width(step))
    layout = layered(sizes, arrows, first=first, last=last)
    heaviest = max(step.times for step in steps)
    parts = [
        *(_arrow(layout, n, step, heaviest) for n, step in enumerate(ways)),
        *(_loop(boxes[n].size, layout.boxes[n], step, heaviest) for n, step in loops.items()),
        *(_text_of(step, layout.labels[n]) for n, step in enumerate(ways)),
        *(box.drawn(at) for box, at in zip(boxes, layout.boxes, strict=True)),
    ]
    return page(parts, (layout.width, layout.height), lines, alt)


@dataclass(frozen=True)
class _Box:
    name: str
    lines: tuple[str, ...]
    count: str
    share: float | None  # of the most frequent activity; None: the start or the end
    size: Size

    def drawn(self, at: Point) -> str:
        (x, y), (left, _, height) = at, self.size
        # From white to a light blue, on which the text still has 14 to 1.
        fill, stroke, corner = ("#f2f2f2", GREY, height / 2) if self.share is None else (_mixed(self.share), BLUE, 5)
        look = f'rx="{corner:g}" fill="{fill}" stroke="{stroke}"'
        place = f'x="{x - left:.1f}" y="{y - height / 2:.1f}" width="{2 * left:.1f}" height="{height:.1f}"'
        rows = [(line, "normal") for line in self.lines] + ([(self.count, "bold")] if self.count else [])
        top = y - LINE * len(rows) / 2 + FONT * 0.95
        texts = (
            f'<text x="{x:.1f}" y="{top + n * LINE:.1f}" font-weight="{weight}">{escape(line)}</text>'
            for n, (line, weight) in enumerate(rows)
        )
        said = f"{self.name}: {self.count} times" if self.count else self.name
        return f'<g><title>{escape(said)}</title><rect {place} stroke-width="1.2" {look}/>{"".join(texts)}</g>'


def _box(name: str, count: str, share: float | None) -> _Box:
    lines = wrapped(plain(name), _WIDE / FONT, _LINES)
    width = max(40.0, *(width_of(line) * FONT for line in (*lines, count)))
    half = width / 2 + 9
    return _Box(plain(name), lines, count, share, Size(half, half, LINE * (len(lines) + bool(count)) + 8))


def _label(step: Step) -> list[str]:
    return [f"{step.times:,}", *([] if step.wait is None else [readable(step.wait)])]


def _label_width(step: Step) -> float:
    return max(width_of(line) for line in _label(step)) * SMALL + 6


def _text_of(step: Step, at: Point) -> str:
    """The label of an arrow, on a white ground, since the arrow goes on behind it."""
    lines, width, (x, y) = _label(step), _label_width(step), at
    height = SMALL * 1.25 * len(lines)
    ground = f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}"'
    texts = (
        f'<text x="{x:.1f}" y="{y - height / 2 + SMALL * (1 + 1.2 * n):.1f}" font-size="{SMALL}" '
        f'font-weight="{"normal" if n else "bold"}">{escape(line)}</text>'
        for n, line in enumerate(lines)
    )
    return f'<g>{ground} rx="3" fill="#ffffff" fill-opacity="0.9"/>{"".join(texts)}</g>'


def _arrow(layout: Layout, number: int, step: Step, heaviest: int) -> str:
    way, is_back = layout.ways[number], number in layout.back
    thick = _thick(step, heaviest)
    color = ORANGE if is_back else GREY if None in (step.start, step.end) else BLUE
    # The head ends at the box, and the line within the head.
    (x, y), sign = way[-1], -1 if is_back else 1
    head, half = 7 + thick, 3.5 + thick * 0.8
    points = [*way[:-1], (x, y - sign * head * 0.8)]
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        if f"{x0:.1f}" == f"{x1:.1f}":
            path.append(f"V{y1:.1f}")
            continue
        middle = (y0 + y1) / 2
        path.append(f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}")
    dash = ' stroke-dasharray="7 4"' if is_back else ""
    back = y - sign * head
    tip = f"M{x:.1f} {y:.1f}L{x - half:.1f} {back:.1f}L{x + half:.1f} {back:.1f}Z"
    return _line(step, "".join(path), tip, color, thick, dash)


def _loop(size: Size, at: Point, step: Step, heaviest: int) -> str:
    """The arrow of an activity that follows itself: out at the right, and back in."""
    x, y = at[0] + size.left, at[1]
    thick = min(_thick(step, heaviest), 4.0)
    head, half, high = 6 + thick, 3 + thick * 0.8, min(size.height / 2 - 6, 14)
    path = (
        f"M{x:.1f} {y - high:.1f}C{x + _LOOP:.1f} {y - high - 6:.1f} {x + _LOOP:.1f} {y + high + 6:.1f} "
        f"{x + head * 0.8:.1f} {y + high:.1f}"
    )
    tip = f"M{x:.1f} {y + high:.1f}l{head:.1f} {-half:.1f}v{2 * half:.1f}Z"
    label = _text_of(step, (x + _LOOP - 3 + _label_width(step) / 2, y))
    return _line(step, path, tip, BLUE, thick, "") + label


def _line(step: Step, path: str, tip: str, color: str, thick: float, dash: str) -> str:
    ends = f"{plain(step.start or 'start')} → {plain(step.end or 'end')}: {', '.join(_label(step))}"
    line = f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{thick:.1f}"{dash}/>'
    return f'<g><title>{escape(ends)}</title>{line}<path d="{tip}" fill="{color}"/></g>'


def _thick(step: Step, heaviest: int) -> float:
    return 1.2 + 5.8 * step.times / heaviest


def _mixed(share: float) -> str:
    light = (0xBF, 0xDF, 0xF2)
    return "#" + "".join(f"{round(255 + (part - 255) * share):02x}" for part in light)
