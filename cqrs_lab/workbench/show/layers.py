"""A layered layout: boxes in ranks from top to bottom, and the ways of arrows between them.

Owns places, not looks: sizes in, coordinates out, with no text and no colour. The steps are those of Sugiyama, Tagawa
and Toda (1981): turn arrows around until no circle is left, rank the boxes, order each rank so that few arrows cross,
then place. A label is a place in a rank of its own, so that it covers no box and no other label.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

_SWEEPS = 24  # more changed no picture of up to 60 arrows
_BESIDE, _THIN = 26.0, 14.0  # between two boxes or labels; between two arrows
_ROOM, _SLOPE, _MOST = 22.0, 0.07, 70.0  # between two ranks: at least, for each point that an arrow goes aside, at most

_CENTRE = 0.05  # as the weight of an arrow

Point = tuple[float, float]


class Size(NamedTuple):
    """How far something reaches from its middle to the left and to the right, and how high it is."""

    left: float
    right: float
    height: float


class Arrow(NamedTuple):
    """From one box to another, by their numbers; a heavy one is more straight, and turned around last."""

    start: int
    end: int
    weight: int
    label: Size


@dataclass
class Layout:
    """Where everything is, in points from the upper left corner.

    Attributes:
        width, height: of the whole.
        boxes: the middle of each box.
        ways: for each arrow the points that it passes, from its start to its end.
        labels: the middle of each arrow's label.
        back: numbers of the arrows that lead up, against the order of the ranks.
    """

    width: float = 0.0
    height: float = 0.0
    boxes: list[Point] = field(default_factory=list)
    ways: list[list[Point]] = field(default_factory=list)
    labels: list[Point] = field(default_factory=list)
    back: set[int] = field(default_factory=set)


def layered(boxes: Sequence[Size], arrows: Sequence[Arrow], *, first: int | None, last: int | None) -> Layout:
    """Return where boxes and arrows are.

    Args:
        arrows: none leads from a box to itself.
        first, last: the boxes that stand alone in the uppermost and in the lowest rank; nothing leads to the first
            and nothing from the last. None: there is none.
    """
    back = _turned(len(boxes), arrows, first)
    down = [(a.end, a.start) if n in back else (a.start, a.end) for n, a in enumerate(arrows)]
    ranks = [2 * rank for rank in _ranks(len(boxes), down, first, last)]
    # Places: the boxes, then one for every rank that an arrow passes; the first numbers are those of the boxes.
    sizes, at, chains, label_of, labelled = list(boxes), list(ranks), [], [], defaultdict[int, float](float)
    for arrow, (start, end) in zip(arrows, down, strict=True):
        between = range(ranks[start] + 1, ranks[end])
        # The rank for labels that is the emptiest so far, of those that the arrow passes.
        chosen = min(between[::2], key=lambda rank: labelled[rank])
        labelled[chosen] += arrow.label.left + arrow.label.right
        places = range(len(at), len(at) + len(between))
        label_of.append(places[chosen - between[0]])
        at.extend(between)
        sizes.extend(arrow.label if rank == chosen else Size(0, 0, 0) for rank in between)
        chains.append([start, *places, end])
    heaviest = max((arrow.weight for arrow in arrows), default=1)
    links = [
        (one, other, (16.0 if one >= len(boxes) and other >= len(boxes) else 2.0) * (1 + 6 * arrow.weight / heaviest))
        for arrow, chain in zip(arrows, chains, strict=True)
        for one, other in pairwise(chain)
    ]
    order = _ordered(at, links)
    x = _across(order, sizes, links)
    y, height = _down(order, at, sizes, links, x)
    ways = []
    for number, chain in enumerate(chains):
        points = [(x[place], y[at[place]]) for place in chain]
        ways.append(points[::-1] if number in back else points)
    found = Layout(
        width=max((x[n] + size.right for n, size in enumerate(sizes)), default=0.0),
        height=height,
        boxes=[(x[n], y[at[n]]) for n in range(len(boxes))],
        ways=ways,
        labels=[(x[place], y[at[place]]) for place in label_of],
        back=back,
    )
    _spread(found, boxes, arrows)
    return found


def _turned(count: int, arrows: Sequence[Arrow], first: int | None) -> set[int]:
    """The arrows to turn around, so that there is no circle.

    Those by which each box is first reached stay as they are: its heaviest from what is reached already. The others
    are tried after these, the heaviest first.
    """
    after: list[set[int]] = [set() for _ in range(count)]
    heavy = sorted(range(len(arrows)), key=lambda number: -arrows[number].weight)
    reached, tree = set() if first is None else {first}, set[int]()
    while (
        grown := next((n for n in heavy if arrows[n].start in reached and arrows[n].end not in reached), None)
    ) is not None:
        reached.add(arrows[grown].end)
        tree.add(grown)
    back = set()
    for number in sorted(heavy, key=lambda number: number not in tree):
        if _leads(after, arrows[number].end, arrows[number].start):
            back.add(number)
        else:
            after[arrows[number].start].add(arrows[number].end)
    return back


def _leads(after: Sequence[set[int]], start: int, end: int) -> bool:
    seen, open_ = {start}, [start]
    while open_:
        place = open_.pop()
        if place == end:
            return True
        open_.extend(after[place] - seen)
        seen |= after[place]
    return False


def _ranks(count: int, down: Sequence[tuple[int, int]], first: int | None, last: int | None) -> list[int]:
    """The rank of each box: one more than the lowest that leads to it; one that nothing leads to is just above."""
    ranks = [0 if n == first else 1 for n in range(count)]
    for _ in range(count):
        for start, end in down:
            ranks[end] = max(ranks[end], ranks[start] + 1)
    reached = {end for _, end in down}
    for box in range(count):
        after = [ranks[end] for start, end in down if start == box]
        if box not in reached and box != first and after:
            ranks[box] = min(after) - 1
    if last is not None:
        ranks[last] = max(rank + 1 for n, rank in enumerate(ranks) if n != last)
    return [rank - min(ranks) for rank in ranks]


def _ordered(at: Sequence[int], links: Sequence[tuple[int, int, float]]) -> list[list[int]]:
    """The places of each rank from left to right: by the middle of their neighbours, up and down in turn."""
    order: list[list[int]] = [[] for _ in range(max(at) + 1)]
    for place, rank in enumerate(at):
        order[rank].append(place)
    above, below = _neighbours(links)
    best, fewest = order, _crossings(order, below)
    for sweep in range(_SWEEPS):
        near = above if sweep % 2 == 0 else below
        order = [list(rank) for rank in order]
        index = {place: n / max(len(rank) - 1, 1) for rank in order for n, place in enumerate(rank)}
        steps = range(1, len(order)) if sweep % 2 == 0 else range(len(order) - 2, -1, -1)
        for rank in steps:
            middle = {
                place: sum(index[n] * w for n, w in near[place]) / sum(w for _, w in near[place])
                if near[place]
                else index[place]
                for place in order[rank]
            }
            order[rank].sort(key=lambda place: middle[place])
            index |= {place: n / max(len(order[rank]) - 1, 1) for n, place in enumerate(order[rank])}
        if (found := _crossings(order, below)) < fewest:
            best, fewest = order, found
    return best


def _neighbours(
    links: Sequence[tuple[int, int, float]],
) -> tuple[Mapping[int, list[tuple[int, float]]], Mapping[int, list[tuple[int, float]]]]:
    above, below = defaultdict[int, list[tuple[int, float]]](list), defaultdict[int, list[tuple[int, float]]](list)
    for upper, lower, weight in links:
        below[upper].append((lower, weight))
        above[lower].append((upper, weight))
    return above, below


def _crossings(order: Sequence[Sequence[int]], below: Mapping[int, Sequence[tuple[int, float]]]) -> int:
    count = 0
    for rank, lower in pairwise(order):
        index = {place: n for n, place in enumerate(lower)}
        seen: list[int] = []
        for place in rank:
            ends = [index[end] for end, _ in below[place]]
            count += sum(len(seen) - bisect_left(seen, end + 1) for end in ends)
            for end in ends:
                insort(seen, end)
    return count


def _across(
    order: Sequence[Sequence[int]], sizes: Sequence[Size], links: Sequence[tuple[int, int, float]]
) -> dict[int, float]:
    """How far to the right each place is: as near to the middle of its neighbours as its rank has room for."""
    x: dict[int, float] = {}
    offsets: list[list[float]] = []
    for rank in order:
        offset, room = [0.0], 0.0
        for one, other in pairwise(rank):
            both_thin = not sizes[one].height and not sizes[other].height
            room += sizes[one].right + sizes[other].left + (_THIN if both_thin else _BESIDE)
            offset.append(room)
        offsets.append(offset)
        x |= {place: o - room / 2 for place, o in zip(rank, offset, strict=False)}
    above, below = _neighbours(links)
    for sweep in range(_SWEEPS):
        steps = range(len(order)) if sweep % 2 == 0 else range(len(order) - 1, -1, -1)
        for n in steps:
            wanted, weights = [], []
            for place, offset_ in zip(order[n], offsets[n], strict=False):
                near = [*above[place], *below[place]]
                if sweep < _SWEEPS - 4:
                    near = (above if sweep % 2 == 0 else below)[place] or near
                # What hangs together with nothing else is drawn to the middle, and all else hardly.
                weight = sum(w for _, w in near) + _CENTRE
                wanted.append(sum(x[p] * w for p, w in near) / weight - offset_)
                weights.append(weight)
            for place, offset_, value in zip(order[n], offsets[n], _rising(wanted, weights), strict=False):
                x[place] = value + offset_
    left = min((x[n] - size.left for n, size in enumerate(sizes)), default=0.0)
    return {place: value - left for place, value in x.items()}


def _rising(wanted: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The values nearest to those wanted, in squares, of which none is below the one before (pooled neighbours)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(wanted, weights, strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, w1, n1), (other, w2, n2) = pools[-2:]
            pools[-2:] = [((one * w1 + other * w2) / (w1 + w2), w1 + w2, n1 + n2)]
    return [value for value, _, count in pools for _ in range(count)]


def _down(
    order: Sequence[Sequence[int]],
    at: Sequence[int],
    sizes: Sequence[Size],
    links: Sequence[tuple[int, int, float]],
    x: Mapping[int, float],
) -> tuple[list[float], float]:
    """How far down the middle of each rank is, and how far the last one reaches; far arrows get more room."""
    aside = defaultdict[int, float](float)
    for one, other, _ in links:
        aside[at[one]] = max(aside[at[one]], abs(x[one] - x[other]))
    y, bottom = [], 0.0
    for rank, places in enumerate(order):
        height = max((sizes[place].height for place in places), default=0.0)
        y.append(bottom + height / 2)
        bottom += height + (min(_MOST, _ROOM + _SLOPE * aside[rank]) if rank < len(order) - 1 else 0)
    return y, bottom


def _spread(found: Layout, boxes: Sequence[Size], arrows: Sequence[Arrow]) -> None:
    """Let arrows leave and reach the edge of a box side by side, in the order in which they go on."""
    ends = defaultdict[tuple[int, bool], list[tuple[int, int]]](list)
    for number, arrow in enumerate(arrows):
        is_back = number in found.back
        ends[arrow.start, not is_back].append((number, 0))
        ends[arrow.end, is_back].append((number, -1))
    for (box, is_bottom), there in ends.items():
        middle, y = found.boxes[box]
        size = boxes[box]
        there.sort(key=lambda end: found.ways[end[0]][1 if end[1] == 0 else -2][0])
        step = min(18.0, (2 * size.left - 24) / max(len(there) - 1, 1))
        for place, (number, end) in enumerate(there):
            x = middle + (place - (len(there) - 1) / 2) * step
            found.ways[number][end] = (x, y + (size.height if is_bottom else -size.height) / 2)
