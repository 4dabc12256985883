"""The lag monitor: how far each serving is behind the log, now and over the last while, with buttons to break things.

Owns what is shown of `lab.lag()`; what a button does is the notebook's. The page (see `Live`) asks again and again
while it can be seen, and ends when the lab is closed or the kernel is gone; there is no thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from cqrs_lab.app import Lab
from cqrs_lab.errors import DeclarationError
from cqrs_lab.workbench.show.live import Action, Live, Message
from cqrs_lab.workbench.show.pages import html, table


@dataclass(frozen=True, eq=False, repr=False)
class LagState:
    """How far each serving is behind; a notebook shows it as a table.

    Attributes:
        head: the last position in the log.
        rows: as `lab.lag()` has them.
    """

    head: int
    rows: pl.DataFrame

    def __repr__(self) -> str:
        return f"<lag: {self.rows.height} servings, head at {self.head}>"

    @property
    def behind(self) -> dict[str, int]:
        """How many events each serving is behind, by its name and how it is served."""
        return {f"{r['model']} ({r['served_as']})": r["events_behind"] for r in self.rows.to_dicts()}

    def _repr_html_(self) -> str:
        shown = [
            [
                html(row["model"]),
                html(f"{row['served_as']}, {row['mode']}"),
                f"{row['position']:,} of {self.head:,}",
                f"{row['events_behind']:,}",
                "" if row["seconds_behind"] is None else f"{row['seconds_behind']:,.1f}",
                f"<b>{html(row['state'])}</b>",
                html(_short(row["error"])),
            ]
            for row in self.rows.to_dicts()
        ]
        columns = ["read model or saga", "served as", "position", "events behind", "seconds behind", "state", "error"]
        return table(columns, shown, "How far each one is behind the log", columns[2:5])


def lag_state(lab: Lab) -> LagState:
    """Return how far each serving of a lab is behind its log.

    Raises:
        StoreClosed: the lab was closed.
    """
    return LagState(lab.head, lab.lag().pl())


class LagMonitor(Live):
    """The lag of a lab, live, with buttons; what `lag_monitor` returns.

    Attributes:
        actions: what each button does, by its label.
    """

    script = "lag_monitor.js"
    named = "lag monitor"

    def __init__(self, lab: Lab, actions: Mapping[str, Action], every: float) -> None:
        if every <= 0:
            raise DeclarationError(f"every={every!r} is no time to wait: give seconds above 0")
        self._lab, self.actions = lab, dict(actions)
        self._picture = lag_state(lab)._repr_html_()
        super().__init__({"actions": list(self.actions), "every": every})

    def __repr__(self) -> str:
        return f"<lag monitor at position {self._lab.head}>"

    def picture(self) -> str:
        """Return the table as it was when the monitor was made."""
        buttons = f"<p>Buttons stand here: {', '.join(map(html, self.actions))}.</p>\n" if self.actions else ""
        return buttons + self._picture

    def answer(self, question: Message) -> Message:
        """Return the lag now ("state"), after having done what a button says ("do").

        Args:
            question: ask, and the label of a button as do.
        """
        said: Message = {"quiet": True}
        if question["ask"] == "do":
            done = self.actions[question["do"]]()
            said = {"said": done if isinstance(done, str) else f"{question['do']}: done"}
        state = lag_state(self._lab)
        return {**said, "page": state._repr_html_(), "behind": state.behind}


def lag_monitor(lab: Lab, actions: Mapping[str, Action] | None = None, *, every: float = 0.5) -> LagMonitor:
    """Return how far each serving is behind the log, refreshed while it is looked at.

    Args:
        actions: label -> function without arguments, a button each; words that it returns are shown, what it raises is
            shown as well. None: no buttons.
        every: seconds between two looks.

    Raises:
        CqrsLabError: anywidget is not installed.
        DeclarationError: no time between two looks.
    """
    return LagMonitor(lab, actions or {}, every)


def _short(error: str | None) -> str:
    return "" if error is None else error.split(" LINE")[0].split("\n")[0][:100]
