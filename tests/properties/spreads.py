"""Replays made-up read models from a sealed log, and tells where their rows are not those of a rebuild.

Use: python tests/properties/spreads.py MODELS [--from SEED]
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from cases import Case, deciders, names_of  # noqa: E402
from selects import case_of  # noqa: E402

from cqrs_lab import Domain, Lab, ReadModel  # noqa: E402
from cqrs_lab.errors import CqrsLabError, ProjectionFailed, ReadModelRefused  # noqa: E402
from cqrs_lab.scale import Replayed, replay, seal  # noqa: E402
from cqrs_lab.sql.names import quote  # noqa: E402
from cqrs_lab.write.batch import Context  # noqa: E402

START = datetime(2025, 1, 1, tzinfo=UTC)
COPIES = 4  # of the history, each for streams of its own


@dataclass(frozen=True)
class Spreading:
    """What one read model showed: how it was spread, and what is wrong, "" when nothing is."""

    name: str
    spread: str
    reason: str
    wrong: str


def differences(lab: Lab, model: ReadModel, rows: Replayed) -> str:
    """Return how replayed rows differ from those of a rebuild, what rows keep for themselves included."""
    lab.serve(model).rebuild()
    database = lab._log.database
    kept = f"SELECT * FROM projection.{quote(model.name)}"
    with rows.attached(database) as select:
        kinds = database.columns(kept), database.columns(select)
        if [*kinds[0].items()] != [*kinds[1].items()]:
            return f"columns {kinds[1]} instead of {kinds[0]}"
        much = database.execute(f"({select}) EXCEPT ALL ({kept})")
        less = database.execute(f"({kept}) EXCEPT ALL ({select})")
        count = database.execute(f"SELECT count(*) FROM ({select})")[0][0]
    return f"too much {much[:3]}, missing {less[:3]}" if much or less or count != len(rows) else ""


def spreadings(case: Case, client: Any) -> Iterator[Spreading]:
    """Yield what each read model of a case shows over its history."""
    case = replace(case, is_file=False)
    seconds = itertools.count()
    key = names_of(case.naming)["k"]
    owners = deciders(case.naming, case.categories)
    domain = Domain(list(owners))
    with (
        tempfile.TemporaryDirectory() as folder,
        Lab(domain=domain, threads=1, clock=lambda: START + timedelta(seconds=next(seconds))) as lab,
    ):
        categories = {owner.category: owner.log_category for owner in owners}
        for copy in range(COPIES):
            for fact in (fact for step in case.steps for fact in step.facts):
                category = categories[fact.category]
                id = f"{fact.fields[key]}{copy or ''}"
                event = category.types[fact.type](**{**fact.fields, key: id})
                context = Context(occurred_at=START + timedelta(days=fact.day))
                lab._store.append(category, id, [event], context=context)
        seal(lab, folder, partitions=3)
        taken: list[ReadModel] = []
        for spec in case.models:
            try:
                model = ReadModel(spec.name, spec.key, spec.sql)
                lab.serve(model)
            except (ReadModelRefused, ProjectionFailed, CqrsLabError):
                continue
            try:
                rows = replay(folder, model, client, over=taken)
                yield Spreading(spec.name, rows.spread, rows.reason, differences(lab, model, rows))
            except Exception as error:
                yield Spreading(spec.name, "error", "", f"{type(error).__name__}: {error}")
            taken.append(model)


def main() -> None:
    """Replay so many read models and print what they showed."""
    from dask.distributed import Client, LocalCluster

    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=int)
    parser.add_argument("--from", dest="first", type=int, default=0)
    given = parser.parse_args()
    spreads: Counter[str] = Counter()
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        for seed in itertools.count(given.first):
            for one in spreadings(case_of(seed), client):
                spreads[one.spread] += 1
                if one.wrong:
                    sys.stdout.write(f"seed {seed} {one.name} {one.spread} ({one.reason}): {one.wrong}\n")
            if spreads.total() >= given.models:
                break
    sys.stdout.write(f"{spreads.total()} read models of seeds {given.first} to {seed}: {dict(spreads)}\n")


if __name__ == "__main__":
    main()
