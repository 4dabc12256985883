"""The course: what its notebooks need beside the package, and the checks of its exercises."""

from cqrs_lab.workbench.course.breakdown import Breakdown, breakdown
from cqrs_lab.workbench.course.served import ServedShop, served_shop
from cqrs_lab.workbench.course.stage import (
    PowerCut,
    Repeatable,
    die_before_checkpoint,
    early_shop,
    outcome,
    power_cut,
    repeatable,
    run_apart,
    stocked_shop,
)
from cqrs_lab.workbench.measure.beside import beside
from cqrs_lab.workbench.measure.polling import visible_ms
from cqrs_lab.workbench.measure.timing import median_ms, medians_ms

__all__ = [
    "Breakdown",
    "PowerCut",
    "Repeatable",
    "ServedShop",
    "beside",
    "breakdown",
    "die_before_checkpoint",
    "early_shop",
    "median_ms",
    "medians_ms",
    "outcome",
    "power_cut",
    "repeatable",
    "run_apart",
    "served_shop",
    "stocked_shop",
    "visible_ms",
]
