"""The workbench: workloads, importers, latency, figures and widgets over a lab."""

from cqrs_lab.workbench.advice import Advice, advice_widget, advise, load_costs
from cqrs_lab.workbench.crossovers import (
    Crossover,
    cheapest,
    check_claims,
    crossover_over_batches,
    crossover_over_history,
    crossover_over_reads,
)
from cqrs_lab.workbench.draws import digest
from cqrs_lab.workbench.driver import Driven, drive
from cqrs_lab.workbench.importers import OlistReport, events_from_milestones, load_olist
from cqrs_lab.workbench.latency import compare_latency, compare_sizes, time_steps
from cqrs_lab.workbench.polling import poll
from cqrs_lab.workbench.recorded import recorded_measurements, recorded_on
from cqrs_lab.workbench.widgets import TimeMachine, snapshot, time_machine
from cqrs_lab.workbench.workload import Generated, Workload, deliveries, generate, tables

__all__ = [
    "Advice",
    "Crossover",
    "Driven",
    "Generated",
    "OlistReport",
    "TimeMachine",
    "Workload",
    "advice_widget",
    "advise",
    "cheapest",
    "check_claims",
    "compare_latency",
    "compare_sizes",
    "crossover_over_batches",
    "crossover_over_history",
    "crossover_over_reads",
    "deliveries",
    "digest",
    "drive",
    "events_from_milestones",
    "generate",
    "load_costs",
    "load_olist",
    "poll",
    "recorded_measurements",
    "recorded_on",
    "snapshot",
    "tables",
    "time_machine",
    "time_steps",
]
