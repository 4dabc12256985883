"""The figures by the name that notebooks import. Needs the extra `lab`; nothing else imports this module.

Owns the name alone; they are in `show/plots.py` and `show/described.py`.
"""

from cqrs_lab.workbench.show.described import describe
from cqrs_lab.workbench.show.plots import (
    Picture,
    crossover_chart,
    crossover_map,
    distribution_chart,
    lag_chart,
    latency_chart,
    orders_per_day_chart,
    show,
    staleness_chart,
    status_chart,
)

__all__ = [
    "Picture",
    "crossover_chart",
    "crossover_map",
    "describe",
    "distribution_chart",
    "lag_chart",
    "latency_chart",
    "orders_per_day_chart",
    "show",
    "staleness_chart",
    "status_chart",
]
