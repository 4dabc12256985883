"""Fields for a load, and the advice for it: the page around `advise`."""

from __future__ import annotations

from typing import Any

import polars as pl

from cqrs_lab.errors import QueryError
from cqrs_lab.workbench.measure.advice import advise, need
from cqrs_lab.workbench.measure.latency import QUESTIONS
from cqrs_lab.workbench.show.live import Live, Message


class AdviceWidget(Live):
    """Fields for a load and the advice for it; what `advice_widget` returns.

    Attributes:
        load: the load that the advice is for, as `advise` takes it.
    """

    script = "advice_widget.js"
    named = "advice"

    def __init__(self, frame: pl.DataFrame) -> None:
        need(frame, "refresh_ms")
        self._frame = frame
        asked = [question for question in QUESTIONS if question in set(frame["question"])]
        self.load: dict[str, Any] = {
            "reads": 10.0, "writes": 1.0, "events": int(frame["events"].max()), "staleness": 1.0, "question": asked[0],  # type: ignore[arg-type]
        }  # fmt: skip
        self._picture = self.page
        super().__init__({"load": self.load, "questions": asked})

    def __repr__(self) -> str:
        return "<advice: what each serving costs under a load, and which one to take>"

    @property
    def page(self) -> str:
        """The advice for the load, as HTML."""
        return advise(self._frame, **self.load)._repr_html_()

    def picture(self) -> str:
        """Return the advice for the load that the fields start with."""
        return self._picture

    def answer(self, question: Message) -> Message:
        """Return the advice for a load.

        Args:
            question: load, with the fields as they were typed.
        """
        given = question["load"]
        try:
            numbers = {name: float(given[name]) for name in ("reads", "writes", "staleness")}
            self.load = {**numbers, "events": int(given["events"]), "question": given["question"]}
        except ValueError as error:
            raise QueryError("a load is told in numbers; one of the fields is empty or holds none") from error
        return {"page": self.page}


def advice_widget(frame: pl.DataFrame) -> AdviceWidget:
    """Return fields for a load, with the advice for it below; a notebook shows them.

    Args:
        frame: of `compare_latency` or `compare_sizes`, with costs.

    Raises:
        CqrsLabError: anywidget is not installed.
        InvalidTable: the frame has no costs.
    """
    return AdviceWidget(frame)
