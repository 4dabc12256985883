"""The time machine: a slider over the whole log.

Owns what the page asks and what it is told (see `Live`); what is shown comes from `snapshot` and `difference`. It goes
by position and by day of recording (what was known then), or by the day on which events occurred (what was true). While
a handle is dragged the page moves the number and the date by itself and asks for the counts alone; rows and difference
follow when it rests.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from cqrs_lab.app import Lab
from cqrs_lab.errors import InvalidMoment
from cqrs_lab.read.projection import Model
from cqrs_lab.workbench.show.live import Live, Message
from cqrs_lab.workbench.show.snapshots import (
    days,
    difference,
    latest,
    latest_table,
    model_of,
    occurred_days,
    past_at,
    snapshot,
    where,
)


class TimeMachine(Live):
    """A read model at any position or day, and what differs from any other; what `time_machine` returns.

    Attributes:
        position: where the handle rests: a position, or the day by whose end events had occurred.
        compared: the position or day that is compared with it; None when that is off.
    """

    script = "time_machine.js"
    named = "time machine"

    def __init__(
        self,
        lab: Lab,
        model: Model | str | None = None,
        rows: int = 5,
        compare: int | date | None = None,
        position: int | date | None = None,
    ) -> None:
        self._lab, self._model, self._rows = lab, model_of(lab, model), rows
        self.position = self._checked(lab.head if position is None else position, compare)
        self.compared = compare
        self._picture = f"{self._counts(self.position)}\n{self._rows_at(self.position, compare)}"
        super().__init__({**self._handles(), **self._log()})

    def __repr__(self) -> str:
        of = f" of {self._lab.head}" if isinstance(self.position, int) else ""
        since = "" if self.compared is None else f", compared with {self.compared}"
        return f"<time machine: {self._model.name} {where(self.position)}{of}{since}>"

    def move(self, position: int | date, compare: int | date | None = None) -> None:
        """Move the handles.

        Args:
            position: from 0 to `lab.head`; or a day, by whose end events had occurred.
            compare: the position or day to compare with; None: that is off.

        Raises:
            InvalidMoment: there is no such position, or one is a position and the other a day.
        """
        self.position, self.compared = self._checked(position, compare), compare
        self.tell({**self._handles(), **self._log()})

    def _checked(self, position: int | date, compare: int | date | None) -> int | date:
        for one in (position, compare):
            if isinstance(one, datetime):
                raise InvalidMoment(f"the time machine goes by day: give {one.date()!r} instead of {one!r}")
            if one is not None:
                past_at(self._lab, one)
        if compare is not None and isinstance(position, int) != isinstance(compare, int):
            raise InvalidMoment(f"{position} and {compare} cannot be compared: give two positions, or two days")
        return position

    def _handles(self) -> Message:
        """Where the handles are, and by what they go; days as text."""
        by = "recorded" if isinstance(self.position, int) else "occurred"
        told = [one.isoformat() if isinstance(one, date) else one for one in (self.position, self.compared)]
        return {"by": by, "position": told[0], "compare": told[1]}

    def picture(self) -> str:
        """Return the page as it was when the time machine was made."""
        return self._picture

    def answer(self, question: Message) -> Message:
        """Return what is shown at a position.

        Args:
            question: ask ("counts" while the handle moves, "rows" where it rests), position, and compare for rows; each
                a position, or a day as text.
        """
        position, compare = _moment(question["position"]), _moment(question.get("compare"))
        if question["ask"] == "counts":
            return {"counts": self._counts(position)}
        found = self._rows_at(position, compare)
        self.position, self.compared = position, compare
        # What was appended since can be reached, too.
        return {"rows": found, **(self._log() if question.get("head") != self._lab.head else {})}

    def _counts(self, position: int | date) -> str:
        return snapshot(self._lab, position, model=self._model, rows=0)._repr_html_()

    def _rows_at(self, position: int | date, compare: int | date | None) -> str:
        parts = [latest_table(latest(self._lab, position, self._model, self._rows))]
        if compare is not None:
            found = difference(self._lab, compare, position, model=self._model, rows=self._rows)
            parts.append(found._repr_html_())
        return "\n".join(parts)

    def _log(self) -> Message:
        """The end of the log and its days, so that the page knows the date of each position without a question."""
        found = days(self._lab)
        return {
            "head": self._lab.head,
            "days": [day.isoformat() for day in found["day"]],
            "ends": found["position"].to_list(),
            "occurred": [day.isoformat() for day in occurred_days(self._lab)],
        }


def _moment(told: Any) -> Any:
    """A day that the page tells as text; a position as it is."""
    return date.fromisoformat(told) if isinstance(told, str) else told


def time_machine(
    lab: Lab,
    model: Model | str | None = None,
    *,
    rows: int = 5,
    compare: int | date | None = None,
    position: int | date | None = None,
) -> TimeMachine:
    """Return a slider over the whole log that shows a read model as it was at each position.

    Arrow keys move it by an event, Page Up and Page Down by a day, Home and End to the ends of the log. A choice above
    it says by what it goes: by when events were recorded, which shows what was known, or by when they occurred, which
    shows what was true; then arrow keys move it by a day, Page Up and Page Down by seven.

    Args:
        model: a read model, or the name of one; None: the shop's order_summary.
        rows: how many of its rows to show.
        compare: the position that a second handle starts at, to show what changed from there; None: it is off.
        position: where the handle starts; None: at the head. A day, here and in `compare`, means that it goes by when
            events occurred.

    Raises:
        CqrsLabError: anywidget is not installed.
        InvalidMoment: there is no such position, or one is a position and the other a day.
        UnknownReadModel, ReadModelRefused: there is no such read model.
    """
    return TimeMachine(lab, model, rows, compare, position)
