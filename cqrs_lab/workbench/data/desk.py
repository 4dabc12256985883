"""A made-up support desk: its log as such systems export it, one row for each event, ordered by ticket.

Owns what is odd in that log on purpose: steps that were entered hours after they were done, tickets that were opened
again, a night in which the clocks went back, and tickets that were still open in the end. Touches no lab.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from cqrs_lab.workbench.data.draws import uniform

COLUMNS = ("ticket", "activity", "at", "entered_at", "customer", "channel", "priority", "agent", "minutes")
ZONE = ZoneInfo("Europe/Amsterdam")
START = datetime(2025, 9, 1, tzinfo=ZONE).astimezone(UTC)
END = datetime(2026, 1, 1, tzinfo=ZONE).astimezone(UTC)  # when the log was exported
NIGHT = datetime(2025, 10, 26, tzinfo=ZONE).astimezone(UTC)  # at three o'clock it was two again
AGENTS = ("Amira", "Bram", "Chloe", "Daan", "Elif")
DELAYS = {"mail": (20, 600), "phone": (5, 90), "chat": (2, 25), "night": (3, 25)}  # minutes, between two steps
_TICKETS, _CUSTOMERS, _MOST = 560, 90, 80  # _MOST: numbers that a ticket draws; each has a stream of its own
_MINUTE = timedelta(minutes=1)
_CLOSES = timedelta(days=3)  # after it was solved, unless it is opened again before


class _Step(NamedTuple):
    activity: str
    at: datetime
    agent: str = ""
    minutes: str = ""


def support_desk(seed: int = 9, *, tickets: int = _TICKETS) -> pl.DataFrame:
    """Return the log of four months as it stands in the file: all text, times local with their offset from UTC.

    Args:
        seed: of all that is drawn.
        tickets: how many; a ticket has seven to eight events. The customers grow with them.

    Returns:
        ticket, activity, at (when it happened), entered_at (when it was entered), customer, channel, priority (rises
        when a ticket is escalated), agent (empty where nobody of the desk acted) and minutes (bought by the customer,
        or worked for an answer).
    """
    span = (END - START) // _MINUTE
    minutes = [int(u * span) for u in uniform(seed, "opened", tickets)]
    minutes += [(NIGHT - START) // _MINUTE + minute for minute in (140, 165, 190)]  # 02:20, 02:45, and 02:10 again
    customers = _CUSTOMERS * tickets // _TICKETS
    rows: list[tuple[str | None, ...]] = []
    for number, minute in enumerate(sorted(minutes), 1):
        draw = iter(uniform(seed, f"ticket {number}", _MOST).tolist())
        rows += _rows(f"T-{number:04}", START + minute * _MINUTE, minute / span, customers, draw)
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")


def _rows(
    ticket: str, opened: datetime, share: float, customers: int, draw: Iterator[float]
) -> Iterator[tuple[str | None, ...]]:
    """One ticket; share: how much of the four months is over, and with it of the customers that there will be."""
    customer = f"C-{1 + int((0.4 + 0.6 * share) * customers * next(draw) * next(draw)):03}"
    kind = "night" if NIGHT <= opened < NIGHT + timedelta(hours=5) else _one(("mail", "phone", "chat"), draw)
    channel = "phone" if kind == "night" else kind
    priority = _one(("low", "normal", "normal", "high"), draw)
    for step in _steps(kind, opened, draw):
        priority = "urgent" if step.activity == "Escalated" else priority
        entered, late = step.at, next(draw)
        if step.agent and late < (0.25 if channel == "phone" else 0.04):
            entered += (60 + int(late * 40_000) % 2_700) * _MINUTE
        if entered < END:
            yield (ticket, step.activity, _text(step.at), _text(entered), customer, channel, priority,
                   step.agent or None, step.minutes or None)  # fmt: skip


def _steps(kind: str, at: datetime, draw: Iterator[float]) -> Iterator[_Step]:
    """What happens to one ticket, in order of time."""
    least, most = DELAYS[kind]

    def after(most: int = most, *, by_customer: bool = False) -> datetime:
        u = next(draw)
        later = at + (least + int(u * u * (most - least))) * _MINUTE
        return later if kind == "night" or (by_customer and kind == "mail") else _at_work(later, int(u * 90))

    def answer() -> _Step:
        return _Step("Answered", at, agent, str(5 + 5 * int(next(draw) * 9)))

    agent = _one(AGENTS, draw)
    at = at if kind in ("mail", "night") else _at_work(at, int(next(draw) * 90))
    yield _Step("Ticket opened", at)
    at = after()
    yield _Step("Assigned", at, agent)
    if next(draw) < 0.08:
        at = after(by_customer=True)
        yield _Step("Withdrawn", at)
        return
    at = after()
    yield answer()
    for _ in range(4):
        if next(draw) > 0.45:
            break
        at = after(by_customer=True)
        yield _Step("Customer replied", at)
        at = after()
        yield answer()
    if next(draw) < 0.12:
        at = after()
        yield _Step("Escalated", at, agent)
        agent = AGENTS[0]
        at = after()
        yield answer()
    if next(draw) < 0.3:
        at = after()
        yield _Step("Minutes bought", at, agent, _one(("120", "180", "240"), draw))
    at = after()
    yield _Step("Solved", at, agent)
    for chance in (0.18, 0.3, 0.3):
        if next(draw) > chance:
            break
        closes = at + _CLOSES
        at = after(by_customer=True) + int(next(draw) * 10_000) * _MINUTE
        if closes < at:
            yield _Step("Closed", closes)
        yield _Step("Reopened", at)
        at = after(4 * most)
        yield answer()
        at = after()
        yield _Step("Solved", at, agent)
    yield _Step("Closed", at + _CLOSES)


def _one(of: tuple[str, ...], draw: Iterator[float]) -> str:
    return of[int(next(draw) * len(of))]


def _at_work(at: datetime, late: int) -> datetime:
    """The same moment when the desk is open, otherwise so many minutes after it opens next."""
    local = at.astimezone(ZONE)
    if local.weekday() < 5 and 8 <= local.hour < 18:
        return at
    opens = local.replace(hour=8, minute=0)  # arithmetic of local times is by the clock on the wall
    opens += timedelta(days=0 if local.hour < 8 else 1)
    while opens.weekday() > 4:
        opens += timedelta(days=1)
    return opens.astimezone(UTC) + late * _MINUTE


def _text(at: datetime) -> str:
    return at.astimezone(ZONE).isoformat(timespec="minutes")


if __name__ == "__main__":
    support_desk().write_csv(Path(sys.argv[1]))
