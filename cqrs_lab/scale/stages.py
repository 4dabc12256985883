"""Stages: the tasks of a replay, one stage after the other.

Owns what is asked of the partitions, of what they gave, and in which order; how a SELECT is spread
(`cqrs_lab.scale.spreading`) and what a task does (`cqrs_lab.scale.working`) stand elsewhere. Rows travel through files;
Dask carries the tasks and what they say of themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from tqdm.auto import tqdm

import cqrs_lab.errors as errors
from cqrs_lab.errors import CqrsLabError, ProjectionFailed, ReplayFailed
from cqrs_lab.ivm.merge import Merge
from cqrs_lab.ivm.parts import part_of, whole_of
from cqrs_lab.ivm.read_model import ReadModel
from cqrs_lab.scale.folders import Folder
from cqrs_lab.scale.manifest import Manifest, SealedCategory, SealedFile
from cqrs_lab.scale.reading import Files, described, read_events
from cqrs_lab.scale.spreading import Spread, Spreader, read_piece
from cqrs_lab.scale.working import Done, Failed, Pieces, Task, work
from cqrs_lab.sql.names import quote

_ROWS_AT_ONCE = 2_000_000  # that one task combines


def two_of_one_key(model: ReadModel, key: tuple[Any, ...]) -> ProjectionFailed:
    """Return the error that says which key two rows have."""
    told = ", ".join(f"{name} = {value!r}" for name, value in zip(model.keys, key, strict=True))
    return ProjectionFailed(
        f"two rows of {model.name} have the key {told}. Group by the key, or name as the key what tells rows apart",
        model.name,
    )


class Run:
    """One replay.

    Args:
        folder, manifest: the sealed log.
        spreader: how read models are spread.
        client: of Dask.
        scratch: where rows go.
        memory: DuckDB's limit in one task.
        progress: whether to show a bar.

    Attributes:
        tasks: how many were done.
    """

    def __init__(
        self,
        folder: Folder,
        manifest: Manifest,
        spreader: Spreader,
        client: Any,
        scratch: Folder,
        memory: str,
        progress: bool,
    ) -> None:
        self.folder, self.manifest, self.spreader, self.client = folder, manifest, spreader, client
        self.scratch, self.memory, self.progress = scratch, memory, progress
        self.tasks = 0
        self._rows: dict[str, tuple[tuple[str, ...], int]] = {}

    # -- rows of a read model ------------------------------------------------------------------------------------------

    def stored(self, spread: Spread) -> dict[str, str]:
        """Return the columns of a read model's rows as they are stored, with their types."""
        hidden = spread.plan.hidden
        shown = self.spreader.types(spread.model.id)
        if not isinstance(spread.plan, Merge) or not hidden:
            return shown
        with described(self.manifest) as database:
            database.execute("CREATE SCHEMA piece")
            for name in spread.plan.layers:
                text = self.spreader.text(self.spreader.models[name])
                database.execute(f"CREATE VIEW piece.{quote(name)} AS {text}")
            return database.columns(spread.plan.rows(self._read(spread.plan)))

    @staticmethod
    def _read(plan: Merge) -> Any:
        return lambda use: read_events(use.name) if use == plan.fold.use else read_piece(use.name)

    def rows(self, model: ReadModel) -> tuple[tuple[str, ...], int]:
        """Make the rows of a read model, once; return their files, and how many they are."""
        if model.id not in self._rows:
            spread = self.spreader.spread(model)
            make = {
                "by stream": self._by_stream,
                "merged": self._merged,
                "shuffled": self._shuffled,
                "whole": self._whole,
            }[spread.kind]
            done = make(spread)
            files = tuple(one.file for one in done if one.rows["rows"]) or (done[0].file,)
            self._rows[model.id] = (files, sum(one.rows["rows"] for one in done))
        return self._rows[model.id]

    def _by_stream(self, spread: Spread) -> list[Done]:
        select = self.spreader.within(spread)
        beside = self._beside(self.spreader.needs(spread))
        keys = spread.model.keys if self.spreader.is_apart(spread) else ()
        parts = self._parts(spread.category)
        return self._run(spread, [self._task(some, beside, {"rows": select}, keys) for some in parts])

    def _merged(self, spread: Spread) -> list[Done]:
        plan = spread.plan
        assert isinstance(plan, Merge)
        part = part_of(plan.fold)
        read = self._read(plan)
        folded = part.folded(read(plan.fold.use))
        kinds = self.spreader.describe(folded)
        keys = ", ".join(map(quote, plan.fold.keys))
        buckets, bucket = self.manifest.partitions, _free_name("_bucket", kinds)
        divided = f"SELECT *, hash({keys}) % {buckets} AS {quote(bucket)} FROM ({folded}\n) ORDER BY {quote(bucket)}"
        parts = self._run(
            spread, [self._task(some, [], {"parts": divided}) for some in self._parts(spread.category)], "fold"
        )
        beside = self._beside(self.spreader.needs(spread))
        rows = sum(one.rows["parts"] for one in parts)
        count = max(1, min(buckets, -(-rows // _ROWS_AT_ONCE)))
        tasks = []
        for number in range(count):
            first, last = (buckets * n // count for n in (number, number + 1))
            where = f"{quote(bucket)} BETWEEN {first} AND {last - 1}" if count > 1 else ""
            pieces = Pieces("_parts", tuple(kinds), tuple(one.file for one in parts), "parts", where)
            whole = whole_of(plan.fold, 'SELECT * FROM piece."_parts"', kinds)
            tasks.append(self._task([], [*beside, pieces], {"rows": plan.of_states(whole, read)}))
        return self._run(spread, tasks, "combine")

    def _shuffled(self, spread: Spread) -> list[Done]:
        """Bring the rows of each place together, and then ask the author's own text of each bucket."""
        shape = spread.plan.ways.shape  # type: ignore[union-attr]
        buckets = self.manifest.partitions
        moved: dict[int, list[Done]] = {}
        tasks: list[tuple[int, Task]] = []
        bucket = "_bucket"
        for number in spread.cuts:
            bucket = _free_name(bucket, self.spreader.types(shape.use(number).name))
        for number, cut in spread.cuts.items():
            use = shape.use(number)
            some = ", ".join(map(quote, self.spreader.named(spread.model, use.name)))
            by = f"SELECT {some}, hash({cut.text}) % {buckets} AS {quote(bucket)} FROM ({{}}\n) AS {quote(use.alias)}"
            by += f" ORDER BY {quote(bucket)}"
            layer = None if use.is_events else self.spreader.spread(self.spreader.models[use.name])
            if layer is None or layer.kind == "by stream":
                select = by.replace("{}", self.spreader.source(use.name), 1)
                category = layer.category if layer else self.spreader.category(use.name)
                beside = self._beside(self.spreader.needs(layer) if layer else ())
                tasks += [(number, self._task(part, beside, {"rows": select})) for part in self._parts(category)]
            else:
                columns, (files, _) = tuple(self.spreader.types(use.name)), self.rows(layer.model)
                select = by.replace("{}", "SELECT * FROM piece.moved", 1)
                for file in files:
                    tasks.append((number, self._task([], [Pieces("moved", columns, (file,))], {"rows": select})))
        for (number, _), done in zip(tasks, self._run(spread, [task for _, task in tasks], "shuffle"), strict=True):
            moved.setdefault(number, []).append(done)
        beside = self._beside(self.spreader.needs(spread))
        text = spread.model.bound(
            lambda place: read_piece(
                str(shape.at(place.number)[0].number)
                if shape.at(place.number)[0].number in spread.cuts
                else place.name.lower()
            )
        )
        asks = []
        for value in range(buckets):
            pieces = [
                Pieces(
                    str(number),
                    self.spreader.named(spread.model, shape.use(number).name),
                    tuple(one.file for one in done),
                    where=f"{quote(bucket)} = {value}",
                )
                for number, done in moved.items()
            ]
            asks.append(self._task([], [*beside, *pieces], {"rows": text}, spread.model.keys))
        return self._run(spread, asks, "ask")

    def _whole(self, spread: Spread) -> list[Done]:
        names = sorted(self.spreader.categories(spread.model))
        every = [(name, one, (one.files, one.personal_files)) for name, one in self._categories(names)]
        rows = {"rows": self.spreader.text(spread.model)}
        return self._run(spread, [self._task(every, [], rows, spread.model.keys)])

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _categories(self, names: Iterable[str]) -> list[tuple[str, SealedCategory]]:
        return [(name, self.manifest.categories[name]) for name in names]

    def _parts(self, name: str) -> list[list[tuple[str, SealedCategory, Files]]]:
        """The files of a category, partition by partition; one without files where there are none."""
        category = self.manifest.categories[name]
        parts = sorted({file.part for file in category.files}) or [0]
        return [[(name, category, (_of(category.files, part), _of(category.personal_files, part)))] for part in parts]

    def _beside(self, names: Iterable[str]) -> list[Pieces]:
        """The rows of layers that are read whole."""
        return [
            Pieces(name, tuple(self.spreader.types(name)), self.rows(self.spreader.models[name])[0])
            for name in sorted(names)
        ]

    def _task(
        self,
        events: Sequence[tuple[str, SealedCategory, Files]],
        pieces: Sequence[Pieces],
        outs: Mapping[str, str],
        keys: tuple[str, ...] = (),
    ) -> Task:
        return Task(
            self.folder.address,
            self.scratch.address,
            tuple((name, _bare(category), files) for name, category, files in events),
            tuple(pieces),
            tuple(outs.items()),
            self.memory,
            keys,
        )

    def _run(self, spread: Spread, tasks: list[Task], what: str = "replay") -> list[Done]:
        """Have tasks done, and return what they have done, in their order."""
        from dask.distributed import as_completed
        from distributed.scheduler import KilledWorker

        done: dict[str, Done] = {}
        futures: list[Any] = []
        try:
            futures += [self.client.submit(work, task, pure=False) for task in tasks]
            bar = tqdm(total=len(tasks), desc=f"{what} {spread.model.name}", unit="task", disable=not self.progress)
            with bar:
                for future in as_completed(futures):  # type: ignore[no-untyped-call]
                    done[future.key] = self._result(spread, future.result())
                    bar.update()
        except KilledWorker as error:
            raise ReplayFailed(
                f"the replay of {spread.model.name} was given up: workers that ran one of its tasks were lost again "
                "and again, most likely for want of memory. Seal with more partitions, or give workers more memory"
            ) from error
        except CqrsLabError:
            raise
        except (Exception, CancelledError) as error:
            raise ReplayFailed(
                f"the replay of {spread.model.name} did not come to its end: {type(error).__name__}: {error}. Look "
                "whether the cluster is there, and has this version of cqrs_lab everywhere"
            ) from error
        finally:
            with suppress(Exception):  # the cluster may be gone
                self.client.cancel(futures)
        found = [done[future.key] for future in futures]
        if len({one.duckdb for one in found}) > 1:
            versions = ", ".join(sorted({one.duckdb for one in found}))
            raise ReplayFailed(f"the workers have several versions of DuckDB ({versions}); install one everywhere")
        self.tasks += len(tasks)
        return found

    def _result(self, spread: Spread, result: Done | Failed) -> Done:
        if isinstance(result, Done):
            if result.twice is not None:
                raise two_of_one_key(spread.model, result.twice)
            return result
        kind = getattr(errors, result.kind, ReplayFailed)
        said = f"{result.reason} (in the replay of {spread.model.name})"
        if not issubclass(kind, errors.StoreError) or kind in (errors.StoreLocked, errors.StoreForked):
            kind = ReplayFailed
            said = f"the rows of {spread.model.name} could not be made: {result.reason}"
        told: CqrsLabError = kind(said)
        raise told


def _of(files: Iterable[SealedFile], part: int) -> list[SealedFile]:
    return [file for file in files if file.part == part]


def _bare(category: SealedCategory) -> SealedCategory:
    """A category without the list of its files, of which a task needs a few."""
    return SealedCategory(**{**vars(category), "files": [], "personal_files": []})


def _free_name(name: str, taken: Iterable[str]) -> str:
    """Return a name that none of some columns has."""
    there = {one.lower() for one in taken}
    while name in there:
        name = f"_{name}"
    return name
