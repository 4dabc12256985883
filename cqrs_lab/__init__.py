"""CQRS and event sourcing on DuckDB, to explore, to teach and to analyse with."""

from cqrs_lab.app import Domain, Lab, open_shop
from cqrs_lab.messages import Command, Event, Query, Value
from cqrs_lab.read.models import ReadModel
from cqrs_lab.write.decider import Decider

__all__ = ["Command", "Decider", "Domain", "Event", "Lab", "Query", "ReadModel", "Value", "open_shop"]
