"""What tests of servings that move share: models that fail, how far a serving is behind, and what all must hold."""

from __future__ import annotations

from typing import Any

from cqrs_lab import Lab, ReadModel
from cqrs_lab.shop import CancelOrder
from support import assert_same, place

fragile = ReadModel(
    "fragile", "order_id", "SELECT order_id, max(CAST(reason AS INTEGER)) AS n FROM order_events GROUP BY order_id"
)


mended = ReadModel(
    "fragile", "order_id", "SELECT order_id, max(TRY_CAST(reason AS INTEGER)) AS n FROM order_events GROUP BY order_id"
)


def poison(lab: Lab, number: int = 1) -> int:
    """Place and cancel an order for a reason that is no number, and return the position of that."""
    lab.send(place(number))
    return lab.send(CancelOrder(order_id=f"o-{number}", reason="no number")).position


def lag(lab: Lab, model: ReadModel, served_as: str = "projection") -> dict[str, Any]:
    """Return what is said of how far one serving is behind."""
    return next(row for row in lab.lag().dicts() if (row["model"], row["served_as"]) == (model.name, served_as))


def assert_whole(lab: Lab, *models: ReadModel) -> None:
    """Assert that projections stand at the head and hold what the log says."""
    for model in models:
        served = lab.serve(model)
        assert served.position == lab.head
        text = f"SELECT * FROM ({model.expanded(lab._catalog.models, lab._log.source)})"
        assert_same(lab, served.select(), text)
