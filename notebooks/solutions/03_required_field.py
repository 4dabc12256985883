"""A solution of the second exercise in notebook 03: a field that is required, and that no old event has.

No default: new events must say it. The upcast says what is true of the old ones, also that it is not known.
"""

from cqrs_lab import Event
from cqrs_lab.workbench.checks import check_required_field


class ParcelReturned(Event):
    """A parcel came back; version 2."""

    schema_version = 2
    upcasts = {
        1: {"condition": "CASE WHEN reason = 'broken' THEN 'broken' ELSE 'unknown' END"},
    }

    return_id: str
    reason: str
    condition: str


result = check_required_field(ParcelReturned)
