"""Times of recording that hide what happened.

Owns the refusals: who asks for a time at which nothing was known yet, of something that had happened, mostly means the
time at which it happened, and an empty answer would not say so.
"""

from __future__ import annotations

from datetime import datetime

from cqrs_lab.errors import InvalidMoment
from cqrs_lab.read.catalog import Catalog
from cqrs_lab.read.projection import Model
from cqrs_lab.sql.names import quote
from cqrs_lab.store.categories import naive
from cqrs_lab.store.moments import Moment, moment


def check_nothing_happened(catalog: Catalog, by: datetime, when: str, instead: str) -> None:
    """Refuse a time of recording before everything that was recorded when something had happened by then.

    Raises:
        InvalidMoment: says when the first event was recorded, and what to write.
    """
    tables = [quote(f"{name}_events") for name in catalog.log.heads.tables]
    firsts = (f"SELECT min(occurred_at) AS t, min(recorded_at) AS r FROM {table}" for table in tables)
    happened = " UNION ALL ".join(firsts)
    first, recorded = catalog.log.database.execute(f"SELECT min(t), min(r) FROM ({happened})")[0]
    if first is not None and first <= naive(by):
        raise InvalidMoment(
            f"nothing had been recorded {when}: the first event was recorded at {recorded:%Y-%m-%d %H:%M:%S} UTC, as "
            f"an import is recorded when it is made. Say {instead} for what had happened by then"
        )


def check_not_hidden(catalog: Catalog, model: Model, before: Moment, after: Moment) -> None:
    """Refuse two times between which events happened that were all recorded at another time.

    Raises:
        InvalidMoment: says what to write.
    """
    first, last = sorted(naive(moment(time, "time")) for time in (before, after))
    for table in catalog.tables_of(model):
        events = catalog.log.window(table)
        between = f"SELECT 1 FROM ({events}) WHERE occurred_at > ? AND occurred_at <= ? LIMIT 1"
        if catalog.log.database.execute(between, [first, last]):
            raise InvalidMoment(
                f"nothing was recorded between {before} and {after}, while events of {table} happened then: an import "
                "is recorded when it is made. Say by='occurred' for what happened, or by='recorded' for what was learnt"
            )
