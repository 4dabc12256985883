"""CloudEvents: out and in again is the same log; what breaks a rule is refused whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from support import pay, place
from support.command_line import call, run

from cqrs_lab import Domain, Event, Lab, open_shop
from cqrs_lab.errors import IdempotencyConflict, InvalidMessage, UnknownEventType
from cqrs_lab.http import cloud
from cqrs_lab.shop import RegisterCustomer, order_summary
from cqrs_lab.workbench import Workload, generate
from cqrs_lab.workbench.course import early_shop


def filled(path: Any = ":memory:") -> Lab:
    """A shop with a made-up past, and a few commands of its own."""
    lab = open_shop(path)
    generate(lab, Workload(orders=50, seed=7))
    lab.send(RegisterCustomer(customer_id="c/ü 1", name="Ann", email="a@b.org"), correlation_id="story")
    lab.send(place("mine"), occurred_at=datetime(2026, 1, 5, 9, 0, 0, 123456, tzinfo=UTC))
    lab.send(pay("mine"), command_id="key-1")
    return lab


def taken_in(lab: Lab, lines: list[bytes], **options: Any) -> Any:
    """What came of letting lines enter."""
    return cloud.take_in(lab, cloud.read_lines(lines), **options)


def event(**more: Any) -> bytes:
    """A CloudEvent of another program."""
    data = {"customer_id": "c-1", "name": "Ann"}
    return json.dumps(
        {"specversion": "1.0", "id": "1", "source": "/x", "type": "CustomerRegistered", "data": data} | more
    ).encode()


def test_out_and_in_again_is_the_same_log() -> None:
    """Positions, versions, ids, times and fields are the same, and so are read models; the store goes on from there."""
    with filled() as one, open_shop() as other:
        lines = list(cloud.export(one))
        report = taken_in(other, lines)
        assert (report.appended, report.known, report.kept) == (one.head, 0, True)
        assert other.events().arrow().equals(one.events().arrow())
        assert list(cloud.export(other)) == lines
        for lab in (one, other):
            lab.serve(order_summary)
        assert sorted(other.serve(order_summary).rows()) == sorted(one.serve(order_summary).rows())
        receipts = [lab.send(place("after")) for lab in (one, other)]
        assert receipts[0].position == receipts[1].position


def test_a_key_that_was_used_stays_used() -> None:
    """In a log that enters as it was no command is carried out twice, and no key stands for another command."""
    with filled() as one, open_shop() as other:
        one.send(RegisterCustomer(customer_id="gone", name="Eve", email="e@b.org"), command_id="key-2")
        one.forget("gone")
        first = one.send(pay("mine"), command_id="key-1")
        taken_in(other, list(cloud.export(one)))
        told = "SELECT * EXCLUDE (stream_no) FROM commands WHERE first_position <= last_position ORDER BY ALL"
        rows = [lab._log.database.execute(told) for lab in (one, other)]
        assert len(rows[0]) == 4
        assert rows[0] == rows[1]
        again = other.send(pay("mine"), command_id="key-1")
        assert (again.position, again.version, again.events) == (first.position, first.version, first.events)
        with pytest.raises(IdempotencyConflict):
            other.send(place("another"), command_id="key-1")
        assert other.send(RegisterCustomer(customer_id="gone", name="?", email="?@b"), command_id="key-2").events
        assert other.head == one.head


def test_events_that_enter_as_facts_use_no_key() -> None:
    """A key of another log says nothing here: the command of that id is still to be carried out."""
    with filled() as one, open_shop() as other:
        taken_in(other, list(cloud.export(one)), as_facts=True)
        head = other.head
        other.send(place("new"), command_id="key-1")
        assert other.head == head + 1


def test_each_line_is_a_cloudevent_for_others() -> None:
    """The package that others read them with takes each, and finds what the envelope holds."""
    with filled() as lab:
        for line, row in zip(cloud.export(lab), lab.events().dicts(), strict=True):
            read = JSONFormat().read(CloudEvent, line)
            assert (read.get_id(), read.get_type(), read.get_time()) == (
                str(row["event_id"]),
                row["type"],
                row["occurred_at"],
            )
            assert f"{read.get_source().split('/')[1]}/{read.get_subject()}" == row["stream"]
            assert int(read.get_extension("position")) == row["position"]


def test_facts_enter_a_log_that_has_events() -> None:
    """What they say, when it happened, ids and story are kept; places are this log's; what came before is left out."""
    with filled() as one, open_shop() as other:
        other.send(place("first"))
        lines = list(cloud.export(one))
        assert taken_in(other, lines[:20]).appended == 20
        report = taken_in(other, [*lines, *lines])
        assert (report.appended, report.known, report.kept) == (one.head - 20, one.head + 20, False)
        assert other.head == one.head + 1
        kept = ["stream", "version", "type", "occurred_at", "event_id", "correlation_id", "causation_id", "data"]
        assert other.events(after=1).pl().select(kept).equals(one.events().pl().select(kept))
        assert other.events(limit=2).dicts()[1]["recorded_at"] > one.events(limit=1).dicts()[0]["recorded_at"]


def test_events_of_other_programs_enter() -> None:
    """An id that is no UUID is the same one each time; without a time they happened now."""
    with open_shop() as lab:
        assert taken_in(lab, [event(), event(id="2", time="2026-01-05T10:00:00+01:00")]).appended == 2
        assert taken_in(lab, [event()]).known == 1
        rows = lab.events().dicts()
        assert [row["version"] for row in rows] == [1, 2]
        assert rows[0]["occurred_at"] == rows[0]["recorded_at"]
        assert rows[1]["occurred_at"] == datetime(2026, 1, 5, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"1", "an object"),
        (event(specversion="0.3"), "specversion"),
        (event(id=""), "id"),
        (event(type="CustomerExploded"), "is no event type"),
        (event(data={"customer_id": "c-1", "name": "Ann", "more": 1}), "more: there is no such field"),
        (event(data={"customer_id": 7, "name": "Ann"}), "customer_id"),
        (event(data=None), "data"),
        (event(subject="c-2"), "subject"),
        (event(time="2026-01-05T10:00:00"), "time"),
        (event(time="yesterday"), "no CloudEvent"),
        (event(schemaversion=9), "schemaversion"),
        (event(version="x"), "version"),
        (event(position=-1), "position"),
        (event(correlationid=""), "correlationid"),
        (event(recordedat="then"), "recordedat"),
        (event(Upper=1), "upper|Upper"),
    ],
)
@pytest.mark.parametrize("is_empty", [True, False])
def test_what_breaks_a_rule_is_refused_whole(bad: bytes, said: str, is_empty: bool) -> None:
    """The error names the event, and nothing of the file is stored, whatever came before it."""
    with open_shop() as lab:
        if not is_empty:
            lab.send(place("o-1"))
        before = lab.head
        with pytest.raises(InvalidMessage, match=rf"(?s)line 2.*({said})"):
            taken_in(lab, [event(), bad])
        assert lab.head == before
        assert taken_in(lab, [event()]).appended == 1


def test_part_of_a_log_is_not_taken_for_the_whole() -> None:
    """A log with a hole is refused; as facts it enters with new numbers. A part without a beginning enters as facts."""
    with filled() as one, open_shop() as other, open_shop() as third:
        lines = list(cloud.export(one))
        with pytest.raises(InvalidMessage, match="part of a log"):
            taken_in(other, lines[:5] + lines[6:])
        with pytest.raises(InvalidMessage, match=r"line 2.*came before"):
            taken_in(other, [lines[0], lines[0]])
        assert other.head == 0
        assert taken_in(other, lines[:5] + lines[6:], as_facts=True).kept is False
        assert taken_in(third, list(cloud.export(one, category="order"))).appended > 0
        assert [row["position"] for row in third.events().dicts()] == list(range(1, third.head + 1))


@pytest.mark.parametrize("moment", ["1999-12-31T23:59:59Z", "2999-01-01T00:00:00Z"])
def test_a_log_is_recorded_in_one_order(moment: str) -> None:
    """An event that was recorded before the one above it, or far in the future, is refused with its whole log."""
    with filled() as one, open_shop() as other:
        lines = list(cloud.export(one))
        lines[2] = json.dumps(json.loads(lines[2]) | {"recordedat": moment}).encode()
        with pytest.raises(InvalidMessage, match=r"line 3.*recorded at .*before the one above it or far in the future"):
            taken_in(other, lines)
        assert other.head == 0


def test_an_id_that_stands_for_another_event_is_refused() -> None:
    """The same source and id with another stream is no repetition."""
    with open_shop() as lab:
        taken_in(lab, [event()])
        with pytest.raises(InvalidMessage, match="another event"):
            taken_in(lab, [event(data={"customer_id": "c-2", "name": "Bob"})])


def test_old_versions_leave_as_the_domain_has_them_now(tmp_path: Path) -> None:
    """An event of an earlier version is lifted as it leaves, so that others need to know one version only."""
    with early_shop(tmp_path / "shop.duckdb") as early:
        early.send(place("o-1"))
    with open_shop(tmp_path / "shop.duckdb") as lab, open_shop() as other:
        (line,) = cloud.export(lab)
        assert json.loads(line)["schemaversion"] > 1
        assert json.loads(line)["data"]["customer_id"] == "c-1"
        taken_in(other, [line])
        (one,), (two,) = (list(each.subscribe(timeout=0)) for each in (lab, other))
        assert one == two


def test_events_that_are_not_declared_are_not_left_out(tmp_path: Path) -> None:
    """A log with types that the domain does not know does not leave without them."""

    class Happened(Event):
        thing_id: str

    with Lab(tmp_path / "t.duckdb", domain=Domain.of_events("thing", key="thing_id", events=[Happened])) as lab:
        lab.record("t-1", Happened(thing_id="t-1"))
    with open_shop(tmp_path / "t.duckdb") as shop, pytest.raises(UnknownEventType, match="Happened"):
        list(cloud.export(shop))


def test_the_commands_do_the_same_with_files(tmp_path: Path) -> None:
    """Export writes JSON Lines, import-events reads them; what is wrong ends with exit code 1 and one message."""
    filled(tmp_path / "shop.duckdb").close()
    lines, copy = tmp_path / "events.jsonl", tmp_path / "copy.duckdb"
    assert call("export", "--db", tmp_path / "shop.duckdb", "--to", lines).exit_code == 0
    said = call("import-events", lines, "--db", copy, "--json")
    assert (said.exit_code, json.loads(said.stdout)["kept"]) == (0, True)
    with open_shop(tmp_path / "shop.duckdb") as one, open_shop(copy) as other:
        assert other.events().arrow().equals(one.events().arrow())
    assert run("export", "--db", copy).stdout == lines.read_text()
    assert call("export", "--db", copy, "--to", lines).exit_code == 1
    assert "as facts" in call("import-events", lines, "--db", copy).stdout
    lines.write_bytes(lines.read_bytes() + b"{}\n")
    refused = call("import-events", lines, "--db", tmp_path / "new.duckdb")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "Error: line" in refused.stderr
