"""Pictures of how the lab works: the loop, a stream in the log, a saga as a sequence.

Owns what they show and where it stands; `drawing` has the looks. Pure functions: they read a lab and write nothing.
Each returns a picture with a text for those who do not see it, which shows offline and in an exported page.
"""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

from cqrs_lab.app import Lab
from cqrs_lab.errors import InvalidTable
from cqrs_lab.store.shown import said
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

_LANES = 9  # of a sequence; more would be too narrow to read


def loop_picture() -> SvgPicture:
    """Return a picture of the whole loop: command, decider, event, log, read model, query, and the next command."""
    canvas, wide, high, step = Canvas(), 164.0, 76.0, 234.0
    top, low = 34.0, 206.0
    upper = [
        (("Command", "what somebody asks for", "PayOrder"), PALE_BLUE, BLUE),
        (("Decider", "decide: may it be?", "evolve: the state so far"), PALE_BLUE, BLUE),
        (("Event", "what happened", "OrderPaid"), PALE_ORANGE, ORANGE),
        (("Log", "all events, in order,", "only ever added to"), PALE_ORANGE, ORANGE),
    ]
    lower = [
        (("Person or program", "looks, and decides", "what to ask for next"), PALE_GREY, GREY),
        (("Query", "a question", "OrderDetails"), PALE_GREEN, GREEN),
        (("Read model", "rows made from events,", "for one kind of question"), PALE_GREEN, GREEN),
    ]
    canvas.text(0, 14, "Write side: may this happen?", color=BLUE, at="start", bold=True)
    canvas.text(0, low + high + 24, "Read side: what is so?", color=GREEN, at="start", bold=True)
    middle, under = top + high / 2, low + high / 2
    for n, name in enumerate(("sent to", "decides on", "appended to")):
        left, right = n * step + wide, (n + 1) * step
        canvas.arrow([(left, middle), (right, middle)], color=BLUE)
        canvas.text((left + right) / 2, middle - 7, name.split()[0], size=SMALL)
    # The log is read twice: by the decider of a stream, and by the read models.
    log = 3 * step + wide / 2
    state = step + wide / 2
    canvas.arrow(
        [(log - 30, top + high), (log - 30, top + high + 26), (state, top + high + 26), (state, top + high)], dash="6 4"
    )
    canvas.label((log + state) / 2, top + high + 30, "the events of this stream so far", size=SMALL)
    canvas.arrow([(log + 20, top + high), (log + 20, under), (2 * step + wide, under)], color=GREEN)
    canvas.label(log + 16, under - 32, "new events", size=SMALL)
    for n, name in ((2, "answers"), (1, "told")):
        left, right = (n - 1) * step + wide, n * step
        canvas.arrow([(right, under), (left, under)], color=GREEN)
        canvas.text((left + right) / 2, under - 7, name, size=SMALL)
    canvas.arrow([(wide / 2, low), (wide / 2, top + high)], color=GREY)
    canvas.label(wide / 2, (low + top + high) / 2 + 4, "the next command", size=SMALL)
    for n, (lines, fill, stroke) in enumerate(upper):
        canvas.box(n * step, top, wide, high, lines, fill=fill, stroke=stroke, small=SMALL)
    for n, (lines, fill, stroke) in enumerate(lower):
        canvas.box(n * step, low, wide, high, lines, fill=fill, stroke=stroke, small=SMALL)
    alt = (
        "The loop. Write side: a command, such as PayOrder, is sent to a decider, which looks at the events of the "
        "stream so far and decides on an event, such as OrderPaid; the event is appended to the log. Read side: new "
        "events of the log make the rows of a read model, a query is answered from them, and a person or program that "
        "is told sends the next command."
    )
    return canvas.picture(3 * step + wide, low + high + 30, ["The whole loop"], alt)


def stream_picture(lab: Lab, stream: str, *, most: int = 10) -> SvgPicture:
    """Return a picture of one stream: its events with their versions, and where each stands in the log.

    Args:
        stream: its name, such as "order/o-1".
        most: how many events to draw, the first ones; the picture says how many there are besides.

    Raises:
        InvalidTable: the stream has no events, or `most` is no positive number.
    """
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InvalidTable(f"most={most!r} is no number of events; give 1 or more", column="most")
    events = lab.events(stream=stream).dicts()
    if not events:
        raise InvalidTable(f"the stream {stream!r} has no events, so there is nothing to draw")
    shown, head = events[:most], lab.head
    canvas, wide, high, across, gap = Canvas(), 172.0, 108.0, 5, 22.0
    step, down = wide + gap, high + 92.0
    for n, event in enumerate(shown):
        x, y = (n % across) * step, (n // across) * down
        fields = json.loads(event["data"], parse_float=Decimal)
        about = [f"{name}: {said(value)}" for name, value in fields.items() if str(value) not in stream]
        lines = [*wrapped(plain(event["type"]), (wide - 12) / FONT, 1)]
        lines += [wrapped(one, (wide - 12) / SMALL, 1)[0] for one in about[:3]]
        canvas.box(x, y + 24, wide, high - 24, lines, fill=PALE_ORANGE, stroke=ORANGE, small=SMALL)
        canvas.box(x, y, 84, 20, (), fill=ORANGE, stroke=ORANGE, corner=3)
        canvas.text(x + 42, y + 15, f"version {event['version']}", size=SMALL, color="#ffffff", bold=True)
        if n % across and n:
            canvas.arrow([(x - gap, y + 24 + (high - 24) / 2), (x, y + 24 + (high - 24) / 2)], color=ORANGE)
        place = y + high + 20
        canvas.line([(x + wide / 2, y + high), (x + wide / 2, place)], color=ORANGE, dash="3 3")
        canvas.box(x + wide / 2 - 34, place, 68, 24, (), fill=PALE_ORANGE, stroke=ORANGE, corner=0)
        canvas.text(x + wide / 2, place + 17, f"{event['position']:,}", bold=True)
        before = shown[n - 1]["position"] if n else 0
        others = event["position"] - before - 1
        _strip(canvas, x - (gap + wide / 2 - 34 if n % across else 0), x + wide / 2 - 34, place, others)
        is_last = n == len(shown) - 1
        if is_last or (n + 1) % across == 0:
            # The rest of the log, at the end of the strip.
            rest = head - event["position"] if is_last else 0
            _strip(canvas, x + wide / 2 + 34, x + wide, place, rest)
            canvas.text(
                0, place + 42, "the log, by position; grey: events of other streams", size=11, color=GREY, at="start"
            )
        elif n + 1 < len(shown):
            _strip(canvas, x + wide / 2 + 34, x + wide, place, 0)
    more = len(events) - len(shown)
    lines = [f"{stream}: {len(events):,} events of {head:,} in the log"]
    lines += [f"Not shown: the {more:,} last ones."] if more else []
    told = "; ".join(f"version {e['version']}, {e['type']}, at position {e['position']:,}" for e in shown)
    rows = (len(shown) - 1) // across + 1
    return canvas.picture(min(len(shown), across) * step - gap, rows * down - 24, lines, f"{'. '.join(lines)}. {told}.")


def _strip(canvas: Canvas, left: float, right: float, top: float, others: int) -> None:
    """Draw a part of the log that belongs to other streams."""
    if right - left < 2:
        return
    if not others:
        canvas.line([(left, top + 12), (right, top + 12)], color="#bbbbbb")
        return
    canvas.box(left, top, right - left, 24, (), fill="#e8e8e8", stroke="#bbbbbb", corner=0)
    words = f"{others:,} other{'s' if others > 1 else ''}"
    fitting = words if width_of(words, 11) < right - left else f"+{others:,}"
    canvas.text((left + right) / 2, top + 16, fitting, size=11, color=GREY)


def saga_picture(lab: Lab, correlation_id: UUID | str) -> SvgPicture:
    """Return a sequence diagram of the story behind a correlation id: who asked whom for what, and what happened.

    Commands are full arrows, events broken ones; a command that led to nothing says so.

    Raises:
        InvalidTable: nothing carries that correlation id.
    """
    steps = [row for row in lab.trace(correlation_id).dicts() if row["kind"] != "row"]
    if not steps:
        raise InvalidTable(f"nothing carries the correlation id {str(correlation_id)!r}, so there is nothing to draw")
    sagas = list(dict.fromkeys(row["by"] for row in steps if row["by"]))
    streams = list(dict.fromkeys(row["about"] for row in steps if row["about"]))
    if len(streams) + len(sagas) >= _LANES:  # one lane for each category then
        streams = list(dict.fromkeys(name.split("/")[0] for name in streams))
    lanes = ["sender", *(f"saga {name}" for name in sagas), *streams]
    at = {name: n for n, name in enumerate(lanes)}
    canvas, lane, row_high, top = Canvas(), 128.0, 30.0, 52.0
    left = 40.0
    x = {name: left + lane / 2 + n * lane for name, n in at.items()}
    bottom = top + row_high * len(steps) + 14
    for name in lanes:
        canvas.line([(x[name], 40), (x[name], bottom)], color="#bbbbbb", dash="2 3")
        is_stream = name in streams
        fill, stroke = (
            (PALE_ORANGE, ORANGE) if is_stream else (PALE_GREY, GREY) if name == "sender" else (PALE_BLUE, BLUE)
        )
        canvas.box(
            x[name] - lane / 2 + 5,
            6,
            lane - 10,
            34,
            (wrapped(name, (lane - 18) / FONT, 1)[0],),
            fill=fill,
            stroke=stroke,
        )
    told = []
    hears = f"saga {sagas[0]}" if sagas else "sender"
    for n, (row, after) in enumerate(_pairs(steps)):
        y = top + row_high * (n + 0.75)
        where = row["about"] if row["about"] in x else row["about"].split("/")[0]
        by = f"saga {row['by']}" if row["by"] else "sender"
        if row["kind"] == "event":
            to = f"saga {after['by']}" if after and after["by"] else hears
            ends = (x.get(where, x[lanes[-1]]), x[to])
            # What happens last reaches nobody who acts on it, and so only the one who follows.
            _message(canvas, ends, y, row["name"], color=ORANGE, dash="6 4")
            canvas.text(left - 8, y + 4, f"{row['position']:,}", size=11, color=GREY, at="end")
            told.append(f"{row['name']} in {row['about']} (position {row['position']:,})")
        else:
            is_idle = row["position"] is None
            target = x.get(where, x[by] + lane * 0.9)
            name = f"{row['name']} (nothing)" if is_idle else row["name"]
            _message(canvas, (x[by], target), y, name, color=GREY if is_idle else BLUE, dash="")
            told.append(
                f"{by} sends {row['name']} to {row['about'] or 'no stream'}{', which led to nothing' * is_idle}"
            )
    lines = [
        f"What followed from {correlation_id}",
        "Full arrow: a command. Broken arrow: the event it led to, with its position.",
    ]
    if any(row["position"] is None for row in steps):
        lines.append("(nothing): the command led to no event.")
    return canvas.picture(left + lane * len(lanes), bottom, lines, f"{lines[0]}, in order: {'; '.join(told)}.")


def _pairs(steps: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    return [*pairwise(steps), (steps[-1], None)]


def _message(canvas: Canvas, ends: tuple[float, float], y: float, name: str, *, color: str, dash: str) -> None:
    start, end = ends
    if abs(start - end) < 1:  # to itself
        canvas.arrow(
            [(start, y - 8), (start + 26, y - 8), (start + 26, y + 4), (start + 3, y + 4)], color=color, dash=dash
        )
        canvas.label(start + 32, y + 2, name, at="start", color=color)
        return
    canvas.arrow([(start, y), (end, y)], color=color, dash=dash)
    near = (start + end) / 2
    wide = width_of(name, SMALL)
    canvas.label(near if abs(start - end) > wide else max(near, wide / 2), y - 6, name, color=color)
