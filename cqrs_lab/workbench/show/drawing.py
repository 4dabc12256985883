"""Drawing as SVG: text that fits, boxes, arrows, and a page with a title and words for those who do not see it.

Owns the looks that all pictures share. What it returns is well-formed whatever a text holds, names no id and no
address, and stands on white, also on a dark page. Sizes of text are estimated, on the safe side: there is no font to
measure.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from math import atan2, cos, sin
from typing import Any

from cqrs_lab.store.shown import clean

BLUE, ORANGE, GREEN, GREY, TEXT = "#0072B2", "#B34700", "#00664B", "#555555", "#111111"  # each 4.5 to 1 on white
PALE_BLUE, PALE_ORANGE, PALE_GREEN, PALE_GREY = "#dceefa", "#fbe4d4", "#d6f0e7", "#f2f2f2"
FONT, SMALL, LINE = 13, 12, 17.0  # points: a text, a label, and the height of a line
MARGIN = 16.0


@dataclass(frozen=True, eq=False, repr=False)
class SvgPicture:
    """A picture with a text for those who do not see it; a notebook shows it.

    Attributes:
        svg: the picture, a document of its own.
        alt: what it shows, in words.
        width, height: in points.
    """

    svg: str
    alt: str
    width: int
    height: int

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        # Within an image SVG runs no script, and the sanitizer of an untrusted notebook leaves it.
        data = base64.b64encode(self.svg.encode()).decode()
        return f'<img alt="{escape(self.alt)}" width="{self.width}" src="data:image/svg+xml;base64,{data}">'

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {"text/html": self._repr_html_(), "image/svg+xml": self.svg, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<picture: {self.alt}>"


def plain(text: str) -> str:
    """Return a text as it can be shown in one line."""
    return " ".join(clean(text).split()) or "(blank)"


def width_of(text: str, size: float = 1.0) -> float:
    """Return about how wide a text is, in the unit of its size."""
    wide = 0.0
    for sign in text:
        if unicodedata.category(sign) in ("Mn", "Me", "Cf"):
            continue
        if unicodedata.east_asian_width(sign) in "WF" or sign in "mwMW@%—…":
            wide += 1.02 if ord(sign) > 127 else 0.88
        elif sign in "iljI.,:;'|!()[] ft":
            wide += 0.36
        else:
            wide += 0.72 if sign.isupper() or ord(sign) > 0x2000 else 0.58
    return wide * size


def wrapped(text: str, most: float, lines_most: int) -> tuple[str, ...]:
    """Return a text as a few lines; what is too long for them ends in an ellipsis.

    Args:
        most: the width of a line, in the size of the text.
        lines_most: how many lines there are at most.
    """
    lines, line = [], ""
    for word in text.split(" "):
        while width_of(word) > most:  # a word of its own that fits no line
            fits = next((n for n in range(len(word), 0, -1) if width_of(word[:n]) <= most), 1)
            lines += [line, word[:fits]] if line else [word[:fits]]
            line, word = "", word[fits:]
        if line and width_of(f"{line} {word}") > most:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    lines += [line] if line else []
    if len(lines) > lines_most:
        end = lines[lines_most - 1]
        while end and width_of(end + "…") > most:
            end = end[:-1]
        lines = [*lines[: lines_most - 1], end + "…"]
    return tuple(lines)


def page(parts: Sequence[str], size: tuple[float, float], lines: Sequence[str], alt: str) -> tuple[str, int, int]:
    """Return an SVG document, its width and its height in points.

    Args:
        parts: what is drawn, from the upper left corner of its own place on.
        size: of what is drawn.
        lines: what stands above: a title, and sentences.
        alt: what it shows, for those who do not see it.
    """
    shown = [plain(line) for line in lines]
    head = MARGIN + 20 * len(shown) + 8
    sizes = [16, *[FONT] * (len(shown) - 1)]
    wide = max(width_of(line) * size for line, size in zip(shown, sizes, strict=True))
    width = round(max(size[0], wide) + 2 * MARGIN)
    height = round(head + size[1] + MARGIN)
    left = (width - size[0]) / 2
    texts = (
        f'<text x="{MARGIN:g}" y="{MARGIN + 12 + 20 * n:g}" text-anchor="start" font-size="{size}" '
        f'font-weight="{"normal" if n else "bold"}">{escape(line)}</text>'
        for n, (line, size) in enumerate(zip(shown, sizes, strict=True))
    )
    said = escape(plain(alt))
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{said}" font-family="Helvetica, Arial, sans-serif" font-size="{FONT}" '
        f'text-anchor="middle" fill="{TEXT}">',
        f"<title>{escape(shown[0])}</title><desc>{said}</desc>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *texts,
        f'<g transform="translate({left:.1f} {head:g})">',
        *parts,
        "</g>",
        "</svg>",
    ]
    return "\n".join(svg), width, height


@dataclass
class Canvas:
    """What is drawn, part by part; later parts lie on earlier ones."""

    parts: list[str] = field(default_factory=list)

    def text(
        self, x: float, y: float, text: str, *, size: float = FONT, bold: bool = False, color: str = TEXT, at: str = ""
    ) -> None:
        """Write a line; y is its base line, at is "start", "end" or the middle."""
        anchor = f' text-anchor="{at}"' if at else ""
        weight = ' font-weight="bold"' if bold else ""
        look = f'font-size="{size:g}" fill="{color}"{anchor}{weight}'
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(plain(text))}</text>')

    def label(self, x: float, y: float, text: str, *, size: float = SMALL, color: str = TEXT, at: str = "") -> None:
        """Write a line on a white ground, so that what goes on behind it does not cross it."""
        wide = width_of(text, size) + 6
        left = x - wide / 2 if not at else x - 3 if at == "start" else x - wide + 3
        place = f'x="{left:.1f}" y="{y - size:.1f}" width="{wide:.1f}" height="{size * 1.35:.1f}"'
        self.parts.append(f'<rect {place} fill="#ffffff" fill-opacity="0.92"/>')
        self.text(x, y, text, size=size, color=color, at=at)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        lines: Sequence[str] = (),
        *,
        fill: str = "#ffffff",
        stroke: str = GREY,
        thick: float = 1.2,
        corner: float = 5,
        dash: str = "",
        small: float = SMALL,
    ) -> None:
        """Draw a box from its upper left corner on; its first line is bold, the others are small."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{corner:g}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="{thick:g}"{dashed}/>'
        )
        top = y + height / 2 - LINE * len(lines) / 2 + FONT * 0.95
        for n, line in enumerate(lines):
            self.text(x + width / 2, top + n * LINE, line, size=small if n else FONT, bold=not n)

    def line(
        self, points: Sequence[tuple[float, float]], *, color: str = GREY, thick: float = 1.5, dash: str = ""
    ) -> None:
        """Draw a line through points."""
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{thick:g}"{dashed}/>')

    def arrow(
        self, points: Sequence[tuple[float, float]], *, color: str = GREY, thick: float = 1.8, dash: str = ""
    ) -> None:
        """Draw a line through points with a head at its end."""
        (x0, y0), (x, y) = points[-2:]
        turn, head, half = atan2(y - y0, x - x0), 10.0, 4.5
        back = (x - head * cos(turn), y - head * sin(turn))
        self.line(
            [*points[:-1], (x - head * 0.8 * cos(turn), y - head * 0.8 * sin(turn))],
            color=color,
            thick=thick,
            dash=dash,
        )
        one = (back[0] - half * sin(turn), back[1] + half * cos(turn))
        other = (back[0] + half * sin(turn), back[1] - half * cos(turn))
        tip = f"M{x:.1f} {y:.1f}L{one[0]:.1f} {one[1]:.1f}L{other[0]:.1f} {other[1]:.1f}Z"
        self.parts.append(f'<path d="{tip}" fill="{color}"/>')

    def dot(self, x: float, y: float, *, color: str = BLUE, radius: float = 5, fill: str = "") -> None:
        """Draw a point; with a fill of its own it is a ring."""
        look = f'fill="{fill or color}" stroke="{color}" stroke-width="1.8"'
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" {look}/>')

    def diamond(self, x: float, y: float, *, color: str = TEXT, radius: float = 5) -> None:
        """Draw a mark that is no letter, since fonts lack some."""
        path = f"M{x:.1f} {y - radius:.1f}l{radius:g} {radius:g}l{-radius:g} {radius:g}l{-radius:g} {-radius:g}Z"
        self.parts.append(f'<path d="{path}" fill="{color}"/>')

    def picture(self, width: float, height: float, lines: Sequence[str], alt: str) -> SvgPicture:
        """Return what was drawn as a picture with a title."""
        svg, wide, high = page(self.parts, (width, height), lines, alt)
        return SvgPicture(svg, plain(alt), wide, high)
