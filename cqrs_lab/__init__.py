"""CQRS and event sourcing on DuckDB, to explore, to teach and to analyse with."""

from cqrs_lab.app import Lab, open_shop
from cqrs_lab.domain import Domain
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.messages import Command, Event, Personal, Query, Value
from cqrs_lab.read.projection import Projection
from cqrs_lab.write.decider import Decider, Service
from cqrs_lab.write.sagas import Saga

__all__ = [
    "Command",
    "Decider",
    "Domain",
    "Event",
    "Lab",
    "Personal",
    "Projection",
    "Query",
    "ReadModel",
    "Saga",
    "Service",
    "Value",
    "open_shop",
]
