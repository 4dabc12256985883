"""The time machine: a slider over the whole log.

Owns what the page asks and what it is told (see `Live`); what is shown comes from `snapshot` and `difference`. While a
handle is dragged the page moves the number and the date by itself and asks for the counts alone; rows and difference
follow when it rests.
"""

from __future__ import annotations

from cqrs_lab.app import Lab
from cqrs_lab.read.projection import Model
from cqrs_lab.workbench.show.live import Live, Message
from cqrs_lab.workbench.show.snapshots import days, difference, latest, latest_table, model_of, snapshot


class TimeMachine(Live):
    """A read model at any position, and what differs from any other; what `time_machine` returns.

    Attributes:
        position: where the handle rests.
        compared: the position that is compared with it; None when that is off.
    """

    script = "time_machine.js"
    named = "time machine"

    def __init__(
        self,
        lab: Lab,
        model: Model | str | None = None,
        rows: int = 5,
        compare: int | None = None,
        position: int | None = None,
    ) -> None:
        self._lab, self._model, self._rows = lab, model_of(lab, model), rows
        self.position = lab.head if position is None else position
        self.compared = compare
        self._picture = f"{self._counts(self.position)}\n{self._rows_at(self.position, compare)}"
        super().__init__({"position": self.position, "compare": compare, **self._log()})

    def __repr__(self) -> str:
        since = "" if self.compared is None else f", compared with {self.compared}"
        return f"<time machine: {self._model.name} at position {self.position} of {self._lab.head}{since}>"

    def move(self, position: int, compare: int | None = None) -> None:
        """Move the handles.

        Args:
            position: from 0 to `lab.head`.
            compare: the position to compare with; None: that is off.

        Raises:
            InvalidMoment: there is no such position.
        """
        for one in (position, compare):
            if one is not None:
                self._lab.as_of(position=one)
        self.position, self.compared = position, compare
        self.tell({"position": position, "compare": compare, **self._log()})

    def picture(self) -> str:
        """Return the page as it was when the time machine was made."""
        return self._picture

    def answer(self, question: Message) -> Message:
        """Return what is shown at a position.

        Args:
            question: ask ("counts" while the handle moves, "rows" where it rests), position, and compare for rows.
        """
        position, compare = question["position"], question.get("compare")
        if question["ask"] == "counts":
            return {"counts": self._counts(position)}
        found = self._rows_at(position, compare)
        self.position, self.compared = position, compare
        # What was appended since can be reached, too.
        return {"rows": found, **(self._log() if question.get("head") != self._lab.head else {})}

    def _counts(self, position: int) -> str:
        return snapshot(self._lab, position, model=self._model, rows=0)._repr_html_()

    def _rows_at(self, position: int, compare: int | None) -> str:
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
        }


def time_machine(
    lab: Lab,
    model: Model | str | None = None,
    *,
    rows: int = 5,
    compare: int | None = None,
    position: int | None = None,
) -> TimeMachine:
    """Return a slider over the whole log that shows a read model as it was at each position.

    Arrow keys move it by an event, Page Up and Page Down by a day, Home and End to the ends of the log.

    Args:
        model: a read model, or the name of one; None: the shop's order_summary.
        rows: how many of its rows to show.
        compare: the position that a second handle starts at, to show what changed from there; None: it is off.
        position: where the handle starts; None: at the head.

    Raises:
        CqrsLabError: anywidget is not installed.
        InvalidMoment: there is no such position.
        UnknownReadModel, ReadModelRefused: there is no such read model.
    """
    return TimeMachine(lab, model, rows, compare, position)
