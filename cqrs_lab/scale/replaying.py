"""Replaying: a read model's rows from a sealed log, on several processors or machines.

Owns the call, the cluster, and what is refused before anything is done.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from cqrs_lab.errors import ExtraMissing, QueryFailed, ReadModelRefused
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.scale.folders import Folder
from cqrs_lab.scale.manifest import Manifest, load
from cqrs_lab.scale.reading import described
from cqrs_lab.scale.rows import Replayed
from cqrs_lab.scale.spreading import Spreader
from cqrs_lab.scale.stages import Run, two_of_one_key
from cqrs_lab.sql.bound import bound_calls, bound_reasons
from cqrs_lab.store.database import Database

_SHARE = 0.6  # of a worker's memory that DuckDB may take; the rest is Python's, and what DuckDB does not count
_LEAST, _MOST = 256, 4096  # MB


def replay(
    sealed: str | os.PathLike[str] | Manifest,
    model: ReadModel,
    client: Any = None,
    *,
    over: Iterable[ReadModel] = (),
    scratch: str | os.PathLike[str] | None = None,
    memory: str | None = None,
    progress: bool = False,
) -> Replayed:
    """Make the rows of a read model from a sealed log, its partitions side by side.

    Args:
        sealed: what `seal` returned, or the folder of a sealed log, or its address.
        model: the read model.
        client: a `dask.distributed.Client`; None starts a worker for each processor of this machine, and ends them.
        over: read models that it is built on, where it does not name them itself.
        scratch: a folder, or an address, for rows on their way: every worker has to reach it. None: a temporary folder
            here, with a client of your own one in the sealed folder. It is emptied when the rows are no longer used.
        memory: how much DuckDB may take in one task, such as "2GB"; None: a share of what the worker has.
        progress: show a progress bar for each stage, in a notebook or a terminal.

    Returns:
        The rows: `.pl() .df() .arrow() .write(folder)`; `.spread` and `.reason` say how the work was spread.

    Raises:
        ExtraMissing: Dask is not installed.
        ReadModelRefused: the read model reads what is not sealed, or is not a function of the events.
        SealDamaged: a file is not as it was written.
        StoreFull: there is no room for the rows.
        ProjectionFailed: two rows have one key.
        ReplayFailed: workers were lost again and again, or do not fit together.
    """
    if not isinstance(model, ReadModel):
        raise ReadModelRefused(f"{model!r} is no ReadModel; a replay makes the rows of a SELECT, in no other way")
    folder, manifest = load(sealed)
    began = time.perf_counter()
    models: dict[str, ReadModel] = {}
    _take_in(models, [*over, model])
    with described(manifest) as database:
        spreader = Spreader(manifest, models, database.columns)
        spreader.check(model)
        _check_calls(database, spreader, model)
        with connected(client) as running:
            space = _scratch(folder, scratch, is_ours=client is None)
            try:
                run = Run(folder, manifest, spreader, running, space, memory or _memory(running), progress)
                files, tables = run.rows(model)
                spread = spreader.spread(model)
                rows = Replayed(
                    model=model,
                    columns=spreader.types(model.id),
                    stored=run.stored(spread),
                    spread=spread.kind,
                    reason=spread.reason,
                    fingerprint=spreader.fingerprint(model),
                    sealed=folder,
                    manifest=manifest,
                    categories=frozenset(spreader.categories(model)),
                    scratch=space,
                    files=files,
                    count=tables,
                    seconds=time.perf_counter() - began,
                    tasks=run.tasks,
                )
            except BaseException:
                space.clear()
                raise
    if not spreader.is_apart(spread) and (twice := rows.twice()):
        raise two_of_one_key(model, twice)
    return rows


def _take_in(models: dict[str, ReadModel], some: Iterable[ReadModel]) -> None:
    for model in some:
        _take_in(models, model.over)
        models[model.id] = model


def _check_calls(database: Database, spreader: Spreader, model: ReadModel) -> None:
    """Refuse what is not a function of the events once DuckDB has bound it, as a lab does."""
    try:
        reasons = dict.fromkeys(bound_reasons(bound_calls(database.execute, spreader.text(model))))
    except QueryFailed as error:
        raise ReadModelRefused(f"read model {model.name!r}: {error}") from error
    if reasons:
        raise ReadModelRefused(f"read model {model.name!r} was refused: {'; '.join(reasons)}")


def _scratch(sealed: Folder, given: str | os.PathLike[str] | None, *, is_ours: bool) -> Folder:
    if given is not None:
        space = Folder(given).inside(f"replay-{uuid4().hex[:12]}")
    elif is_ours:
        space = Folder(tempfile.mkdtemp(prefix="cqrs_lab-replay-"))
    else:
        space = sealed.inside(f"replays/{uuid4().hex[:12]}")
    space.make()
    return space


# -- Dask ------------------------------------------------------------------------------------------------------------


@contextmanager
def connected(client: Any) -> Iterator[Any]:
    """Have a client of Dask: the one that is given, or one of a cluster on this machine that ends with the block."""
    try:
        from dask.distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            'a replay needs Dask, which is not installed; install it with: pip install "cqrs-lab[scale]"'
        ) from error
    if client is not None:
        yield client
        return
    with (
        _without_main(),
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=os.cpu_count() or 1, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as cluster,
        Client(cluster) as own,  # type: ignore[no-untyped-call]
    ):
        yield own


@contextmanager
def _without_main() -> Iterator[None]:
    """Have processes started that do not import the program which starts them: tasks need nothing of it.

    Each of them would otherwise run a script again that has no `if __name__ == "__main__"`, up to this very call.
    """
    main = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main.pop("__file__", None)
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


def _memory(client: Any) -> str:
    """How much DuckDB may take in one task."""
    shares = [
        worker["memory_limit"] / worker["nthreads"] / 2**20
        for worker in client.scheduler_info(n_workers=-1)["workers"].values()
        if worker["memory_limit"]
    ]
    return f"{int(max(_LEAST, min([_MOST, *(share * _SHARE for share in shares)])))}MB"
