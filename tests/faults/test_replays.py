"""Faults of a replay: workers that are killed, disks that are full, files that go."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask.distributed import Client, LocalCluster
from test_full_disks import on_a_small_disk, remount

from cqrs_lab import Lab, open_shop
from cqrs_lab.errors import ReplayFailed, StoreFull
from cqrs_lab.scale import replay, seal, verify
from cqrs_lab.scale.manifest import load
from cqrs_lab.shop import RegisterCustomer, customer_contacts, order_summary
from cqrs_lab.workbench import Workload, generate


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A shop of some orders."""
    with open_shop(threads=1) as made:
        generate(made, Workload(orders=400, seed=2))
        yield made


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster of two processes that is lost in the test."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=60) as made:
        yield made


class Killer(threading.Thread):
    """Kills workers of a cluster while they work: the first that has a task, or each as long as it is not stopped."""

    def __init__(self, cluster: Any, *, every: bool = False) -> None:
        super().__init__(daemon=True)
        self.killed: list[int] = []
        self._scheduler, self._every, self._over = cluster.scheduler, every, threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.001):
            busy = [worker.pid for worker in [*self._scheduler.workers.values()] if worker.processing]
            for pid in [pid for pid in busy if pid not in self.killed][: None if self._every else 1]:
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
            if self.killed and not self._every:
                return

    def stop(self) -> None:
        self._over.set()
        self.join()


def test_a_worker_that_is_killed_in_the_middle(lab: Lab, tmp_path: Path, cluster: Any) -> None:
    """The tasks of a worker that is killed are done by another one, and the rows are right."""
    seal(lab, tmp_path, partitions=16)
    with Client(cluster) as client:
        killer = Killer(cluster)
        killer.start()
        rows = replay(tmp_path, order_summary, client)
        killer.stop()
        assert len(killer.killed) == 1
        assert rows.arrow().equals(lab.serve(order_summary, "view").arrow())


def test_workers_that_are_killed_again_and_again(lab: Lab, tmp_path: Path, cluster: Any) -> None:
    """A replay whose workers are always killed ends in one error that says what may help, and leaves no rows behind."""
    import dask

    seal(lab, tmp_path, partitions=2)
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), Client(cluster) as client:
        killer = Killer(cluster, every=True)
        killer.start()
        began = time.monotonic()
        with pytest.raises(ReplayFailed, match="lost again and again"):
            replay(tmp_path, order_summary, client)
        killer.stop()
        assert time.monotonic() - began < 300
    assert [*(tmp_path / "replays").iterdir()] == []


def fill(lab: Lab, first: int, count: int) -> None:
    """Register customers with names that no compression makes small."""
    lab.send_many(
        [
            RegisterCustomer(
                customer_id=f"c-{number}", name=os.urandom(400).hex(), email=f"{os.urandom(8).hex()}@example.com"
            )
            for number in range(first, first + count)
        ]
    )


def disk_full_in_a_seal(folder: Path) -> None:
    """A seal without room is one error and leaves the one before; with room the next one is whole."""
    with open_shop(threads=1) as lab:
        fill(lab, 0, 100)
        first = seal(lab, folder, partitions=2)
        fill(lab, 100, 9000)
        with pytest.raises(StoreFull, match=r"nothing was sealed.*make room and seal again"):
            seal(lab, folder)
        assert load(folder)[1] == first
        assert verify(folder) == []
        remount(folder, "size=64m")
        assert seal(lab, folder).events == lab.head
        assert verify(folder) == []


def disk_full_in_a_replay(folder: Path) -> None:
    """A replay without room for its rows is one error, and leaves nothing; with room it is right."""
    log = folder.parent / "log"
    with open_shop(threads=1) as lab:
        fill(lab, 0, 9000)
        seal(lab, log, partitions=2)
        with Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as client:
            with pytest.raises(StoreFull, match="customer_contacts"):
                replay(log, customer_contacts, client, scratch=folder)
            assert [*folder.iterdir()] == []
            remount(folder, "size=64m")
            rows = replay(log, customer_contacts, client, scratch=folder)
            assert rows.arrow().equals(lab.serve(customer_contacts, "view").arrow())


@pytest.mark.parametrize("scene", [disk_full_in_a_seal, disk_full_in_a_replay])
def test_on_a_small_disk(scene: Any, tmp_path: Path) -> None:
    """Each scene holds in a process of its own, which alone sees that disk."""
    (tmp_path / "small").mkdir()
    on_a_small_disk(scene, tmp_path / "small")
