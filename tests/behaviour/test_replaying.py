"""Replayed rows: their shapes, what is refused, and how a projection takes them over."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from dask.distributed import Client
from support import environment, line, place
from support.people import people

from cqrs_lab import Lab, ReadModel, open_shop
from cqrs_lab.errors import (
    NotServed,
    ProjectionFailed,
    ReadModelRefused,
    ReplayFailed,
    RowsRefused,
    SealDamaged,
    StoreError,
    StoreMissing,
)
from cqrs_lab.read.stored import Stored
from cqrs_lab.scale import replay, seal, verify
from cqrs_lab.scale.manifest import load, write
from cqrs_lab.scale.reading import described
from cqrs_lab.scale.spreading import Spreader
from cqrs_lab.shop import (
    CancelOrder,
    PayOrder,
    customer_value,
    daily_orders,
    delivery_times,
    order_facts,
    order_list,
    order_summary,
    product_demand,
)
from cqrs_lab.workbench import Workload, generate


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client whose workers are threads of this process."""
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as client:
        yield client


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A shop of some orders."""
    with open_shop(threads=1) as made:
        generate(made, Workload(orders=80, seed=2))
        yield made


@pytest.fixture
def sealed(lab: Lab, tmp_path: Path) -> Path:
    """The shop's log, sealed up to its middle."""
    seal(lab, tmp_path / "log", partitions=3, to=lab.head // 2)
    return tmp_path / "log"


def agrees(lab: Lab, model: ReadModel) -> bool:
    """Whether a projection says what the view says, and a rebuild would change nothing."""
    rows, view = lab.serve(model).arrow(), lab.serve(model, "view").arrow()
    return rows.equals(view) and not lab.serve(model).rehearse().fetchall()


# -- rows ------------------------------------------------------------------------------------------------------------


def test_rows_have_the_shapes_of_any_answer(lab: Lab, sealed: Path, client: Any, tmp_path: Path) -> None:
    """Polars, pandas, Arrow and Parquet hold the rows as of the position, and the rows say how they were made."""
    rows = replay(sealed, product_demand, client)
    then = lab.as_of(position=lab.head // 2).rows(product_demand)
    wanted = then.pl().sort("product_id")
    assert rows.pl().equals(wanted)
    assert rows.arrow().schema == then.arrow().schema
    assert len(rows.df()) == len(rows) == len(wanted)
    paths = rows.write(tmp_path / "rows")
    assert pl.read_parquet(paths).sort("product_id").equals(wanted)
    assert (rows.spread, rows.position, rows.tasks) == ("merged", lab.head // 2, 4)
    assert "merged: its key is not that of a stream" in repr(rows)


def test_rows_of_large_numbers_and_durations_are_written(lab: Lab, sealed: Path, client: Any, tmp_path: Path) -> None:
    """What Parquet has no type for is written as a decimal or as text, and stays exact."""
    model = ReadModel(
        "spans",
        "order_id",
        "SELECT order_id, sum(version) AS s, max(occurred_at) - min(occurred_at) AS d FROM order_events GROUP BY ALL",
    )
    written = pl.read_parquet(replay(sealed, model, client).write(tmp_path / "rows"))
    then = lab.as_of(position=lab.head // 2).rows(model)
    assert {str(key): int(s) for key, s, _ in written.iter_rows()} == {key: int(s) for key, s, _ in then.fetchall()}
    assert written.schema["d"] == pl.String


def test_nothing_is_left_of_rows_that_nobody_has(sealed: Path, client: Any, tmp_path: Path) -> None:
    """The files of rows go with them; a folder of one's own for them is left empty."""
    rows = replay(sealed, daily_orders, client, scratch=tmp_path / "scratch")
    assert [*(tmp_path / "scratch").rglob("*.duckdb")]
    del rows
    assert [*(tmp_path / "scratch").iterdir()] == []


def test_a_replay_from_where_files_have_to_be_fetched(lab: Lab, sealed: Path, client: Any, tmp_path: Path) -> None:
    """Sealed files that stand elsewhere are fetched by each task, and looked at before they are read."""
    address = f"simplecache::file://{sealed}"
    rows = replay(address, daily_orders, client, scratch=tmp_path / "scratch")
    assert rows.pl().equals(lab.as_of(position=lab.head // 2).rows(daily_orders).pl().sort("day"))


# -- what is refused -------------------------------------------------------------------------------------------------


def test_a_read_model_that_cannot_be_replayed(sealed: Path, client: Any) -> None:
    """What is not sealed, not given, not exact or not unique is refused with its name."""
    with pytest.raises(ReadModelRefused, match=r"reads 'box_events', which is neither sealed.*over="):
        replay(sealed, ReadModel("boxes", "box", "SELECT box FROM box_events GROUP BY box"), client)
    with pytest.raises(ReadModelRefused, match=r"no column|not found"):
        replay(sealed, ReadModel("odd", "odd", "SELECT odd FROM order_events GROUP BY odd"), client)
    inexact = "SELECT order_id, sum(total::DOUBLE) AS t FROM order_events GROUP BY order_id"
    with pytest.raises(ReadModelRefused, match="sum"):
        replay(sealed, ReadModel("inexact", "order_id", inexact), client)
    with pytest.raises(ProjectionFailed, match="two rows of events have the key order_id = 'o-"):
        replay(sealed, ReadModel("events", "order_id", "SELECT order_id, version FROM order_events"), client)


def test_what_a_seal_returns_can_be_replayed(lab: Lab, client: Any, tmp_path: Path) -> None:
    """The manifest stands for its folder, also when that has moved since and was opened again."""
    sealed = seal(lab, tmp_path / "log", partitions=2)
    told = replay(sealed, daily_orders, client).pl()
    assert told.equals(lab.serve(daily_orders).pl())
    assert verify(sealed) == []
    assert "in 2 partitions" in repr(sealed)
    (tmp_path / "log").rename(tmp_path / "moved")
    assert replay(tmp_path / "moved", daily_orders, client).pl().equals(told)


def test_what_is_no_select_cannot_be_replayed(sealed: Path, client: Any) -> None:
    """A name, or a projection in Python, is refused."""
    with pytest.raises(ReadModelRefused, match="'daily_orders' is no ReadModel"):
        replay(sealed, "daily_orders", client)  # type: ignore[arg-type]


def test_a_bar_shows_how_far_a_replay_is(sealed: Path, client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """With progress each stage has a bar; without, nothing is written."""
    replay(sealed, daily_orders, client)
    assert capsys.readouterr().err == ""
    replay(sealed, daily_orders, client, progress=True)
    shown = capsys.readouterr().err
    assert "fold daily_orders: 100%" in shown
    assert "combine daily_orders: 100%" in shown


def test_a_cluster_that_goes_is_one_error(sealed: Path) -> None:
    """A replay whose cluster is closed says so, and does not wait for ever."""
    with Client(n_workers=1, processes=False, dashboard_address=":0") as gone:
        pass
    with pytest.raises(ReplayFailed, match=r"Look\s+whether the cluster is there"):
        replay(sealed, daily_orders, gone, memory="500MB")


def test_a_failing_select_is_one_error(sealed: Path, client: Any) -> None:
    """A SELECT that fails on some event fails once, with DuckDB's reason, and leaves nothing behind."""
    wrong = ReadModel(
        "wrong", "order_id", "SELECT order_id, max(CAST(type AS INTEGER)) AS n FROM order_events GROUP BY 1"
    )
    with pytest.raises(Exception, match=r"the rows of wrong could not be made: Conversion Error") as told:
        replay(sealed, wrong, client)
    assert type(told.value).__name__ == "ReplayFailed"
    assert [*(sealed / "replays").iterdir()] == []


def test_a_damaged_partition_is_one_error(sealed: Path, client: Any) -> None:
    """A replay over a partition of which one bit has changed is refused with the file; others are not concerned."""
    _, manifest = load(sealed)
    file = sealed / manifest.categories["order"].files[1].name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(SealDamaged, match=file.name):
        replay(sealed, order_facts, client)
    file.unlink()
    with pytest.raises(SealDamaged, match="it is missing"):
        replay(sealed, product_demand, client)


def test_without_the_extra_sealing_works_and_a_replay_says_what_to_install(lab: Lab, tmp_path: Path) -> None:
    """Where Dask and fsspec are not installed, a log can be sealed and looked at; a replay names the extra."""
    code = """
import sys
for name in ("dask", "distributed", "fsspec"):
    sys.modules[name] = None
from cqrs_lab import open_shop
from cqrs_lab.read.stored import Stored
from cqrs_lab.scale import replay, seal, verify
from cqrs_lab.shop import daily_orders
with open_shop(threads=1) as lab:
    print(seal(lab, sys.argv[1]).position, verify(sys.argv[1]))
for ask in (lambda: replay(sys.argv[1], daily_orders), lambda: verify("s3://x")):
    try:
        ask()
    except Exception as error:
        print(type(error).__name__, error)
"""
    asked = [sys.executable, "-c", code, str(tmp_path / "log")]
    said = subprocess.run(asked, env=environment(), capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0] == "0 []"
    assert said[1].startswith("ExtraMissing a replay needs Dask")
    assert all('pip install "cqrs-lab[scale]"' in line for line in said[1:])


def test_a_plain_script_can_replay(tmp_path: Path) -> None:
    """A script starts workers of its own, though nothing in it is guarded, and each line of it runs once."""
    code = """
import sys
from cqrs_lab import open_shop
from cqrs_lab.read.stored import Stored
from cqrs_lab.scale import replay, seal
from cqrs_lab.shop import daily_orders
from cqrs_lab.workbench import Workload, generate
print("begun")
with open_shop(threads=1) as lab:
    generate(lab, Workload(orders=30, seed=1))
    rows = replay(seal(lab, sys.argv[1], partitions=2), daily_orders)
    print(rows.pl().equals(lab.serve(daily_orders).pl()), __file__ == sys.argv[0])
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    asked = [sys.executable, str(script), str(tmp_path / "log")]
    said = subprocess.run(asked, env=environment(), capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout.split() == ["begun", "True", "True"]


ORDER = "order_events"
SHUFFLED = [
    ("SELECT customer_id, median(total) AS m FROM order_events GROUP BY ALL", {"customer_id", "total"}),
    (
        "SELECT e.customer_id, count(*) AS n, median(E.TOTAL) AS m FROM order_events AS e GROUP BY 1",
        {"customer_id", "total"},
    ),
    (
        "SELECT o.customer_id, median(o.total) AS m, count(c.name) AS n FROM order_events AS o "
        "JOIN customer_events AS c USING (customer_id) GROUP BY ALL",
        {"customer_id", "total"},
    ),
    ("SELECT customer_id, median(total) AS m FROM (SELECT * FROM order_events) GROUP BY ALL", None),
    ("SELECT customer_id, median(total) AS m, max(e) AS row FROM order_events AS e GROUP BY ALL", None),
    ("SELECT k, median(p) AS m FROM order_events AS e(p, s, v, k) GROUP BY ALL", None),
    ("SELECT customer_id, median(total) AS m FROM order_events NATURAL JOIN customer_events GROUP BY ALL", None),
]


@pytest.mark.parametrize(("sql", "named"), SHUFFLED)
def test_columns_that_are_named_travel_alone(lab: Lab, sealed: Path, sql: str, named: set[str] | None) -> None:
    """What the text cannot name is not shuffled; where that cannot be told, all columns are."""
    model = ReadModel("some", "customer_id" if "AS e(p" not in sql else "k", sql)
    _, manifest = load(sealed)
    with described(manifest) as database:
        spreader = Spreader(manifest, {"some": model}, database.columns)
        every = tuple(spreader.types(ORDER))
        assert len(every) > 15
        assert spreader.named(model, ORDER) == tuple(c for c in every if named is None or c in named)


@pytest.mark.parametrize("sql", [sql for sql, named in SHUFFLED if named])
def test_rows_of_columns_that_travelled_alone(lab: Lab, sealed: Path, client: Any, sql: str) -> None:
    """They are the rows that a rebuild gives."""
    model = ReadModel("some", "customer_id", sql)
    rows = replay(sealed, model, client)
    assert rows.spread == "shuffled"
    with lab.fork(position=rows.position) as fork:
        assert sorted(rows.pl().rows(), key=repr) == sorted(fork.serve(model).pl().rows(), key=repr)


# -- adopting --------------------------------------------------------------------------------------------------------

MODELS = [order_facts, order_summary, order_list, customer_value, daily_orders, product_demand, delivery_times]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_projection_adopts_rows_and_moves_on(
    lab: Lab, sealed: Path, client: Any, model: ReadModel, tmp_path: Path
) -> None:
    """Rows of the middle of the log are taken over where the projection is new, behind or ahead, and it moves on."""
    half = lab.head // 2
    rows = replay(sealed, model, client)
    with lab.fork(position=half) as fork:
        assert fork.serve(model).adopt(rows) == half
        assert agrees(fork, model)
        order = fork.sql("SELECT order_id FROM order_facts WHERE status = 'PENDING' ORDER BY 1").fetchall()[0][0]
        fork.send(CancelOrder(order_id=order, reason="late"))
        fork.send(place("o-new", line(product="p-new")))
        fork.send(PayOrder(order_id="o-new", amount=line(product="p-new").unit_price))
        fork.catch_up()
        assert fork.serve(model).position == fork.head
        assert agrees(fork, model)
    assert lab.serve(model).position == lab.head  # built before, it is ahead, and so are its layers
    assert lab.serve(model).adopt(rows) == lab.head
    assert agrees(lab, model)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_new_projection_is_made_of_rows_and_not_built(
    lab: Lab, sealed: Path, client: Any, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Served from rows, it is at their position in the mode that is asked for; its layers alone are built."""
    rows = replay(sealed, model, client)
    built: list[str] = []
    build = Stored.build

    def noted(self: Stored, *given: Any, **more: Any) -> int:
        built.append(self.model.name)
        return build(self, *given, **more)

    monkeypatch.setattr(Stored, "build", noted)
    with lab.fork(position=rows.position) as fork:
        served = fork.serve(model, mode="inline", from_rows=rows)
        assert model.name not in built
        assert (served.position, served.mode) == (rows.position, "inline")
        assert agrees(fork, model)
        fork.send(place("o-new", line(product="p-new")))
        assert served.position == fork.head
        assert agrees(fork, model)
        assert fork.serve(model, mode="manual", from_rows=rows).mode == "manual"
        assert agrees(fork, model)


def test_rows_that_are_refused_serve_nothing(lab: Lab, sealed: Path, client: Any) -> None:
    """No projection is there afterwards that was not there before."""
    rows = replay(sealed, daily_orders, client)
    with lab.fork(position=5) as fork:
        with pytest.raises(RowsRefused, match="this one ends at 5"):
            fork.serve(daily_orders, from_rows=rows)
        assert fork.lag().dicts() == []
        with pytest.raises(NotServed, match=r"lab\.serve\(daily_orders\)\.adopt"):
            fork.serve(daily_orders, "view", from_rows=rows)


def test_rows_and_checkpoint_are_those_of_one_position(lab: Lab, sealed: Path, client: Any) -> None:
    """A projection that is ahead goes nowhere by rows that were changed on the way: they are really taken over."""
    rows = replay(sealed, daily_orders, client)
    with lab.fork(position=lab.head // 2) as fork:
        served = fork.serve(daily_orders)
        database = fork._log.database
        with database.transaction():
            database.execute("UPDATE projection.daily_orders SET orders = 1000")
        served.adopt(rows)
        assert agrees(fork, daily_orders)


def test_nothing_is_erased_while_rows_are_adopted(
    lab: Lab, sealed: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the look at the log until the rows are taken over an erasure waits, or it would not find what it erases."""
    real, kept_out = Stored.take, list[bool]()

    def take(self: Stored, rows: str, at: int) -> int:
        kept_out.append(self._memory._builders > 0)
        return real(self, rows, at)

    monkeypatch.setattr(Stored, "take", take)
    rows = replay(sealed, daily_orders, client)
    assert lab.serve(daily_orders).adopt(rows) == lab.head
    assert kept_out == [True]


def test_only_a_projection_adopts(lab: Lab, sealed: Path, client: Any) -> None:
    """A view or a materialized table cannot adopt rows."""
    rows = replay(sealed, daily_orders, client)
    for way in ("view", "materialized"):
        with pytest.raises(NotServed, match=r"lab\.serve\(daily_orders\)\.adopt"):
            lab.serve(daily_orders, way).adopt(rows)  # type: ignore[arg-type]


def test_rows_of_another_read_model_are_refused(lab: Lab, sealed: Path, client: Any) -> None:
    """Rows of another SELECT under the same name, or of another name, are refused; the old ones stay."""
    other = ReadModel("daily_orders", "day", daily_orders.sql.replace("count(*)", "count(total)"))
    served = lab.serve(daily_orders)
    before = served.arrow()
    for rows in (replay(sealed, other, client), replay(sealed, product_demand, client)):
        with pytest.raises(RowsRefused, match="the rows are those of another daily_orders"):
            served.adopt(rows)
    assert served.arrow().equals(before)
    assert served.position == lab.head


def test_rows_of_another_log_are_refused(lab: Lab, sealed: Path, client: Any) -> None:
    """Rows of a longer log, and of one in which one field of one event differs, are refused; the old ones stay."""
    rows = replay(sealed, daily_orders, client)
    first = lab.events(category="order", types=["OrderPlaced"], limit=1).dicts()[0]["position"]
    with lab.fork(edit={first: {"freight": 7}}) as fork:
        served = fork.serve(daily_orders)
        before = served.arrow()
        with pytest.raises(RowsRefused, match="the rows were made from another log"):
            served.adopt(rows)
        assert served.arrow().equals(before)
    with lab.fork(position=5) as fork, pytest.raises(RowsRefused, match="this one ends at 5"):
        fork.serve(daily_orders).adopt(rows)


def test_rows_of_other_columns_are_refused(
    lab: Lab, sealed: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a version that keeps other columns are refused with both; the old ones stay."""
    rows, served = replay(sealed, daily_orders, client), lab.serve(daily_orders)
    attached, before = rows.attached, served.arrow()

    @contextmanager
    def other(database: Any) -> Iterator[str]:
        with attached(database) as select:
            yield f"SELECT *, 1 AS more FROM ({select})"

    monkeypatch.setattr(rows, "attached", other)
    with pytest.raises(RowsRefused, match=r"other columns than daily_orders keeps here: .*more.* and not .*Replay it"):
        served.adopt(rows)
    assert served.arrow().equals(before)


def test_rows_with_what_was_erased_since_are_refused(sealed: Path, lab: Lab, client: Any) -> None:
    """Rows that may hold personal data that were erased since are refused; others are taken, and so is a new replay."""
    customer = lab.events(category="customer", limit=1).dicts()[0]["stream"].removeprefix("customer/")
    personal, other = replay(sealed, order_summary, client), replay(sealed, daily_orders, client)
    served = lab.serve(order_summary)
    lab.forget(customer)
    with pytest.raises(RowsRefused, match="personal data were erased since"):
        served.adopt(personal)
    lab.serve(daily_orders).adopt(other)
    seal(lab, sealed)
    served.adopt(replay(sealed, order_summary, client))
    assert agrees(lab, order_summary)


def test_rows_made_of_all_events_are_refused_where_some_are_set_aside(client: Any, tmp_path: Path) -> None:
    """A projection that has set an event aside does not take rows that were made of it."""
    with people(":memory:") as lab:
        lab.send(place("o-1"))
        lab.serve(daily_orders, on_error="dead letter")
        lab.send(place("o-2"))
        database = lab._log.database
        with database.transaction():
            database.execute(
                "INSERT INTO dead_letters VALUES ('daily_orders', ?, 'OrderPlaced', 'x', 1, now()::TIMESTAMP)",
                [lab.head],
            )
        lab._log.memory.read()
        seal(lab, tmp_path, partitions=1)
        rows = replay(tmp_path, daily_orders, client)
        with pytest.raises(RowsRefused, match="has set events aside"):
            lab.serve(daily_orders).adopt(rows)


def test_a_seal_by_another_version_of_duckdb(lab: Lab, sealed: Path, client: Any) -> None:
    """Digests of another version of DuckDB are made again out of the files, so that such a seal still serves."""
    folder, manifest = load(sealed)
    said = vars(manifest) | {"duckdb": "v1.0.0"}
    for one in said["categories"].values():
        object.__setattr__(one, "digest", type(one.digest)(one.digest.rows, 7))
    write(folder, type(manifest)(**said))
    lab.serve(daily_orders).adopt(replay(sealed, daily_orders, client))
    assert agrees(lab, daily_orders)
    assert seal(lab, sealed).events == lab.head


def test_rows_whose_files_are_gone(lab: Lab, sealed: Path, client: Any, tmp_path: Path) -> None:
    """Rows whose files somebody has removed say so, and so does a folder without a seal."""
    rows = replay(sealed, daily_orders, client, scratch=tmp_path / "scratch")
    for file in (tmp_path / "scratch").rglob("*.duckdb"):
        file.unlink()
    with pytest.raises(StoreError):
        rows.arrow()
    with pytest.raises(StoreMissing, match="holds no sealed log"):
        replay(tmp_path / "nothing", daily_orders, client)
