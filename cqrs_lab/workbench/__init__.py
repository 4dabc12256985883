"""The workbench over a lab: data that fill it, measurements of it, what shows them, and the course."""

from cqrs_lab.workbench.data.draws import digest
from cqrs_lab.workbench.data.generated import Generated, deliveries, generate, tables
from cqrs_lab.workbench.data.importers import OlistReport, events_from_milestones, load_olist
from cqrs_lab.workbench.data.logs import LogReport, guess_columns, open_log
from cqrs_lab.workbench.data.stores import open_store
from cqrs_lab.workbench.data.workload import Workload
from cqrs_lab.workbench.measure.advice import Advice, advise, load_costs
from cqrs_lab.workbench.measure.costs import time_steps
from cqrs_lab.workbench.measure.crossovers import (
    Crossover,
    cheapest,
    check_claims,
    crossover_over_batches,
    crossover_over_history,
    crossover_over_reads,
)
from cqrs_lab.workbench.measure.driver import Driven, drive
from cqrs_lab.workbench.measure.latency import compare_latency, compare_sizes
from cqrs_lab.workbench.measure.polling import poll
from cqrs_lab.workbench.measure.recorded import recorded_measurements, recorded_on
from cqrs_lab.workbench.show.advice_widget import advice_widget
from cqrs_lab.workbench.show.drawing import SvgPicture
from cqrs_lab.workbench.show.flow import FlowPicture, flow_picture, flows
from cqrs_lab.workbench.show.lag_monitor import LagMonitor, lag_monitor
from cqrs_lab.workbench.show.moments import Standing, belief_picture, poisoned_picture, standing, tipping_picture
from cqrs_lab.workbench.show.order_console import OrderConsole, order_console
from cqrs_lab.workbench.show.pictures import loop_picture, saga_picture, stream_picture
from cqrs_lab.workbench.show.rows import ShownRows, show_rows
from cqrs_lab.workbench.show.snapshots import snapshot
from cqrs_lab.workbench.show.time_machine import TimeMachine, time_machine

__all__ = [
    "Advice",
    "Crossover",
    "Driven",
    "FlowPicture",
    "Generated",
    "LagMonitor",
    "LogReport",
    "OlistReport",
    "OrderConsole",
    "ShownRows",
    "Standing",
    "SvgPicture",
    "TimeMachine",
    "Workload",
    "advice_widget",
    "advise",
    "belief_picture",
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
    "flow_picture",
    "flows",
    "generate",
    "guess_columns",
    "lag_monitor",
    "load_costs",
    "load_olist",
    "loop_picture",
    "open_log",
    "open_store",
    "order_console",
    "poisoned_picture",
    "poll",
    "recorded_measurements",
    "recorded_on",
    "saga_picture",
    "show_rows",
    "snapshot",
    "standing",
    "stream_picture",
    "tables",
    "time_machine",
    "time_steps",
    "tipping_picture",
]
