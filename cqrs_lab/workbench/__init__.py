"""The workbench: workloads, importers, latency, figures and widgets over a lab."""

from cqrs_lab.workbench.importers import OlistReport, events_from_milestones, load_olist
from cqrs_lab.workbench.latency import compare_latency
from cqrs_lab.workbench.polling import poll
from cqrs_lab.workbench.widgets import TimeMachine, snapshot, time_machine
from cqrs_lab.workbench.workload import Generated, Workload, digest, generate, tables

__all__ = [
    "Generated",
    "OlistReport",
    "TimeMachine",
    "Workload",
    "compare_latency",
    "digest",
    "events_from_milestones",
    "generate",
    "load_olist",
    "poll",
    "snapshot",
    "tables",
    "time_machine",
]
