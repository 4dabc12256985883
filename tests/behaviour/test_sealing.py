"""Sealed logs: what is written, what is added, what is damaged, and whose log it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
from dask.distributed import Client

from cqrs_lab import Decider, Domain, Event, Lab, ReadModel, open_shop
from cqrs_lab.errors import InvalidMoment, RowsRefused, SealDamaged, StoreError, StoreFormatError, StoreMissing
from cqrs_lab.scale import replay, seal, verify
from cqrs_lab.scale.folders import Folder
from cqrs_lab.scale.manifest import load
from cqrs_lab.shop import RegisterCustomer
from cqrs_lab.workbench import Workload, generate


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A shop of some orders."""
    with open_shop(threads=1) as made:
        generate(made, Workload(orders=80, seed=2))
        yield made


def rows_of(folder: Path, table: str) -> list[Any]:
    """Return the rows of the files of a table, by position."""
    found = [row for file in (folder / table).glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    return sorted(found, key=lambda row: row["position"])


def test_every_event_is_in_one_file_of_its_stream(lab: Lab, tmp_path: Path) -> None:
    """A seal holds each event once, all events of a stream in one partition, and personal fields in files apart."""
    manifest = seal(lab, tmp_path, partitions=4)
    assert (manifest.position, manifest.events, manifest.partitions) == (lab.head, lab.head, 4)
    rows = rows_of(tmp_path, "order_events")
    told = lab.events(category="order").pl()
    assert [row["position"] for row in rows] == told["position"].to_list()
    homes: dict[int, set[str]] = {}
    for file in (tmp_path / "order_events").iterdir():
        for row in pq.read_table(file).to_pylist():
            homes.setdefault(row["stream_no"], set()).add(file.name)
    assert len(homes) == 80
    assert all(len(files) == 1 for files in homes.values())
    assert len(set.union(*homes.values())) == 4
    assert "name" not in rows_of(tmp_path, "customer_events")[0]
    assert set(rows_of(tmp_path, "customer_personal")[0]) == {"position", "name", "email"}
    assert verify(tmp_path) == []


def test_sealing_again_adds_what_is_new(lab: Lab, tmp_path: Path) -> None:
    """A second seal leaves the files of the first as they are, and together they hold what one seal of all does."""
    first = seal(lab, tmp_path / "twice", partitions=2, to=lab.head // 2)
    before = {file.name: (tmp_path / "twice" / file.name).read_bytes() for file in first.files}
    second = seal(lab, tmp_path / "twice")
    assert {name: (tmp_path / "twice" / name).read_bytes() for name in before} == before
    once = seal(lab, tmp_path / "once", partitions=2)
    assert second.digests == once.digests
    assert rows_of(tmp_path / "twice", "order_events") == rows_of(tmp_path / "once", "order_events")
    assert load(tmp_path / "twice")[1] == second
    assert seal(lab, tmp_path / "twice").digests == second.digests


def test_what_was_erased_goes_from_the_files_at_the_next_seal(lab: Lab, tmp_path: Path) -> None:
    """After forget a seal writes the personal files again without the erased fields, and the log keeps its digest."""
    before = seal(lab, tmp_path, partitions=2)
    gone = rows_of(tmp_path, "customer_personal")[0]
    customer = rows_of(tmp_path, "customer_events")[0]["customer_id"]
    lab.forget(customer)
    after = seal(lab, tmp_path)
    assert after.digests == before.digests
    assert after.personal_digests != before.personal_digests
    assert gone["position"] not in {row["position"] for row in rows_of(tmp_path, "customer_personal")}
    assert verify(tmp_path) == []


def test_a_position_that_cannot_be_sealed(lab: Lab, tmp_path: Path) -> None:
    """A position beyond the log, or before what is sealed, is refused with both ends."""
    with pytest.raises(InvalidMoment, match="cannot be sealed: the log has 1 to"):
        seal(lab, tmp_path, to=lab.head + 1)
    assert not tmp_path.joinpath("manifest.json").exists()
    seal(lab, tmp_path)
    with pytest.raises(InvalidMoment, match="is sealed up to"):
        seal(lab, tmp_path, to=5)
    with pytest.raises(StoreError, match="from 1 to 1024"):
        seal(lab, tmp_path / "other", partitions=0)


def test_a_folder_of_another_log_is_refused(lab: Lab, tmp_path: Path) -> None:
    """A seal into the folder of another log is refused, also when that differs in one field of one event."""
    seal(lab, tmp_path, partitions=2)
    before = (tmp_path / "manifest.json").read_bytes()
    with open_shop(threads=1) as other:
        generate(other, Workload(orders=90, seed=3))
        with pytest.raises(RowsRefused, match="holds another log"):
            seal(other, tmp_path)
    last = lab.events(category="order", types=["OrderPlaced"], limit=1, descending=True).dicts()[0]
    with (
        lab.fork(edit={last["position"]: {"customer_id": "c-999"}}) as fork,
        pytest.raises(RowsRefused, match="holds another log"),
    ):
        seal(fork, tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert verify(tmp_path) == []


def flip(file: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (flip, "its bytes have changed"),
    "cut": (lambda file: file.write_bytes(file.read_bytes()[:-7]), "bytes and was written with"),
    "missing": (lambda file: file.unlink(), "it is missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named(lab: Lab, tmp_path: Path, kind: str) -> None:
    """A file that is missing, cut or has one other bit is named, and no other one."""
    manifest = seal(lab, tmp_path, partitions=2)
    damage, said = DAMAGE[kind]
    damage(tmp_path / manifest.files[1].name)
    (told,) = verify(tmp_path)
    assert manifest.files[1].name in told
    assert said in told


def test_a_manifest_that_cannot_be_read(lab: Lab, tmp_path: Path) -> None:
    """No manifest, half of one, and one of another format each have an error of their own."""
    with pytest.raises(StoreMissing, match=r"holds no sealed log.*seal\(lab, folder\)"):
        verify(tmp_path)
    seal(lab, tmp_path, partitions=2)
    path = tmp_path / "manifest.json"
    whole = path.read_text()
    path.write_text(whole[:200])
    with pytest.raises(SealDamaged, match=r"manifest\.json is damaged"):
        verify(tmp_path)
    path.write_text(json.dumps(json.loads(whole) | {"format": 99}))
    with pytest.raises(StoreFormatError, match="has the format 99"):
        seal(lab, tmp_path)


@pytest.mark.parametrize("files", [0, 3, "manifest"])
def test_an_interrupted_seal_leaves_the_one_before(
    lab: Lab, tmp_path: Path, files: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever Ctrl-C comes in a seal, the one before is valid, and the next one is whole."""
    first = seal(lab, tmp_path, partitions=4, to=lab.head // 2)
    with monkeypatch.context() as patched:
        put, left = Folder.put, [files]

        def interrupted(self: Folder, file: Path, name: str) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1  # type: ignore[operator]
            put(self, file, name)

        def refused(self: Folder, name: str, content: bytes) -> None:
            raise KeyboardInterrupt

        patched.setattr(*((Folder, "write", refused) if files == "manifest" else (Folder, "put", interrupted)))
        with pytest.raises(KeyboardInterrupt):
            seal(lab, tmp_path)
    assert load(tmp_path)[1] == first
    assert verify(tmp_path) == []
    last = seal(lab, tmp_path)
    assert verify(tmp_path) == []
    there = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.parquet")}
    assert there == {file.name for file in last.files}


def test_an_address_that_fsspec_opens(lab: Lab, tmp_path: Path) -> None:
    """A seal goes wherever fsspec writes; an unknown protocol is an error of ours."""
    address = f"memory://{uuid4().hex}/log"
    first = seal(lab, address, partitions=2, to=lab.head // 2)
    assert seal(lab, address).digests == seal(lab, tmp_path, partitions=2).digests
    assert verify(address) == []
    Folder(address).remove(first.files[0].name)
    (told,) = verify(address)
    assert first.files[0].name in told
    with pytest.raises(StoreError, match="cannot be opened"):
        seal(lab, "nowhere://x")


class Moved(Event):
    """The first shape of an event."""

    box: str
    km: int


class Moved2(Event):
    """The second one."""

    schema_version: ClassVar[int] = 2
    upcasts: ClassVar[Any] = {1: {"metres": "km * 1000"}}
    box: str
    metres: int
    carrier: str = "van"


Moved2.__name__ = "Moved"


def boxes(event: type[Event]) -> Domain:
    """Return a domain of boxes."""
    return Domain([Decider("box", "box", 0, lambda c, s: [], lambda s, e: s, [], [event])])


def test_versions_are_sealed_as_they_are_and_lifted_as_declared(tmp_path: Path) -> None:
    """A manifest names the versions that the log holds, and the SELECT that lifts them; new fields are sealed anew."""
    with Lab(tmp_path / "boxes.duckdb", domain=boxes(Moved), threads=1) as lab:
        lab.record("box/b-1", Moved(box="b-1", km=2))
        first = seal(lab, tmp_path / "log", partitions=1)
    with Lab(tmp_path / "boxes.duckdb", domain=boxes(Moved2), threads=1) as lab:
        lab.record("box/b-1", Moved2(box="b-1", metres=70))
        second = seal(lab, tmp_path / "log")
        box = second.categories["box"]
        assert box.versions == [["Moved", 1], ["Moved", 2]]
        assert "km * 1000" in box.lifted
        assert [*box.shown] == [*lab.events_table("box").columns]
        assert [row["km"] for row in rows_of(tmp_path / "log", "box_events")] == [2, None]
        way = ReadModel("way", "box", "SELECT box, sum(metres) AS m, count(carrier) AS n FROM box_events GROUP BY box")
        with Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as client:
            rows = replay(tmp_path / "log", way, client)
        assert rows.pl().rows() == lab.serve(way).pl().rows() == [("b-1", 2070, 2)]
        lab.serve(way).adopt(rows)
    assert first.categories["box"].columns != box.columns
    assert verify(tmp_path / "log") == []


def test_a_seal_while_customers_come(lab: Lab, tmp_path: Path) -> None:
    """A seal up to a position does not see what is appended behind it."""
    head = lab.head
    lab.send(RegisterCustomer(customer_id="c-new", name="New", email="new@example.com"))
    manifest = seal(lab, tmp_path, partitions=2, to=head)
    assert manifest.events == head
    assert "c-new" not in {row["customer_id"] for row in rows_of(tmp_path, "customer_events")}
