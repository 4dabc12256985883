"""Tests of a domain or of a store: for people who test their own domain, or an event store of their own.

Owns the name alone; given, when, then are in `tools/specs.py`, what a store must keep in `tools/contract.py`. Needs no
test runner; pytest finds the contract.
"""

from cqrs_lab.tools.contract import CONTRACT, THREADS, EventStoreContract, LabStore, Noted, Part, Store
from cqrs_lab.tools.specs import START, Events, Given, Projected, Reaction, When, given, given_events

__all__ = [
    "CONTRACT",
    "START",
    "THREADS",
    "EventStoreContract",
    "Events",
    "Given",
    "LabStore",
    "Noted",
    "Part",
    "Projected",
    "Reaction",
    "Store",
    "When",
    "given",
    "given_events",
]
