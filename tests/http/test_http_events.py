"""Events over HTTP: streams that wait, resume and end, and batches of CloudEvents."""

from __future__ import annotations

import json
import threading

import pytest
from support.serving import TestClient, inside, order

from cqrs_lab import Lab, open_shop
from cqrs_lab.http import Limits
from cqrs_lab.shop import CustomerRegistered

BATCH = "application/cloudevents-batch+json"


def told(text: str) -> list[dict]:
    """The events of a stream."""
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def test_a_stream_tells_the_log_in_order(web: TestClient, lab: Lab) -> None:
    """Each event comes once, with its position as id and its type; behind a position, and of one category."""
    for n in range(5):
        web.post("/commands/PlaceOrder", json=order(f"o-{n}"))
    web.post("/commands/RegisterCustomer", json={"customer_id": "c-1", "name": "Ann", "email": "a@b.org"})
    answer = web.get("/events", params={"timeout": 0.1})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "id: 6\nevent: CustomerRegistered\n" in answer.text
    every = told(answer.text)
    assert [one["position"] for one in every] == [1, 2, 3, 4, 5, 6]
    assert every[0]["data"]["total"] == "19.98"
    assert every[0].keys() == {"data", *lab.events().columns}
    assert [e["position"] for e in told(web.get("/events", params={"timeout": 0.1, "after": 4}).text)] == [5, 6]
    only = web.get("/events", params={"timeout": 0.1, "category": "customer"})
    assert [e["position"] for e in told(only.text)] == [6]
    resumed = web.get("/events", params={"timeout": 0.1, "after": 1}, headers={"Last-Event-ID": "5"})
    assert [e["position"] for e in told(resumed.text)] == [6]


def test_a_stream_waits_for_what_is_to_come(web: TestClient, lab: Lab) -> None:
    """Events that are appended meanwhile, in any way and in large numbers, come once each and in order."""
    found: list[dict] = []
    follower = threading.Thread(
        target=lambda: found.extend(told(web.get("/events", params={"timeout": 3, "after": 3}).text))
    )
    follower.start()
    for n in range(50):
        lab.record(f"c-{n}", [CustomerRegistered(customer_id=f"c-{n}", name="x")] * (n + 1))
    follower.join()
    assert [one["position"] for one in found] == list(range(4, lab.head + 1))


def test_one_stream_too_many_is_sent_away(lab: Lab) -> None:
    """503 tells so; when another one has ended there is room again."""
    with inside(lab, limits=Limits(streams=3)) as web:
        statuses: list[int] = []

        def follow() -> None:
            statuses.append(web.get("/events", params={"timeout": 2}).status_code)

        threads = [threading.Thread(target=follow) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200] * 3 + [503] * 5
        assert web.get("/events", params={"timeout": 0.01}).status_code == 200


@pytest.mark.parametrize(
    ("params", "headers", "status"),
    [
        ({"after": "x"}, {}, 422),
        ({"category": "none"}, {}, 422),
        ({"timeout": "-1"}, {}, 422),
        ({"timeout": "1", "sql": "x"}, {}, 422),
        ({"timeout": "1"}, {"Last-Event-ID": "o-1"}, 422),
        ({"timeout": "1"}, {"Accept": "image/png"}, 406),
    ],
)
def test_a_wrong_question_for_events_is_refused(web: TestClient, params: dict, headers: dict, status: int) -> None:
    """What is wrong is named before the stream begins."""
    assert web.get("/events", params=params, headers=headers).status_code == status


def test_events_leave_and_enter_as_a_batch(web: TestClient, lab: Lab) -> None:
    """Taken page by page and given to an empty shop, the log is the same there; given again, nothing is appended."""
    for n in range(5):
        web.post("/commands/PlaceOrder", json=order(f"o-{n}"))
    pages, after = [], 0
    while page := (answer := web.get("/events", params={"after": after, "limit": 2}, headers={"Accept": BATCH})).json():
        assert answer.headers["content-type"].startswith(BATCH)
        pages += page
        after = int(answer.headers["events-position"])
    assert len(pages) == 5
    with open_shop() as other, inside(other) as there:
        body = json.dumps(pages)
        taken = there.post("/events", content=body, headers={"Content-Type": BATCH})
        assert (taken.status_code, taken.json()) == (200, {"appended": 5, "known": 0, "position": 5, "kept": True})
        assert other.events().arrow().equals(lab.events().arrow())
        again = there.post("/events", content=body, headers={"Content-Type": BATCH})
        assert again.json() == {"appended": 0, "known": 5, "position": 5, "kept": False}


def test_only_who_may_lets_events_enter(lab: Lab) -> None:
    """Events that enter ask no policy, so a token of another actor is not enough."""
    event = {"specversion": "1.0", "id": "1", "source": "/else", "type": "CustomerRegistered", "data": {}}
    event["data"] = {"customer_id": "c-1", "name": "Ann"}
    one = {"content": json.dumps(event), "headers": {"Content-Type": "application/cloudevents+json"}}
    with inside(lab, token="secret-of-ann") as ann:
        assert ann.post("/events", **one).status_code == 403
    with inside(lab, token="secret-of-ann", recorders=["ann"]) as ann:
        assert ann.post("/events", **one).json()["appended"] == 1
        assert ann.post("/events", **one).json()["known"] == 1
        assert ann.post("/events", content="[]", headers={"Content-Type": "text/csv"}).status_code == 415
        assert ann.post("/events", content="{}", headers={"Content-Type": BATCH}).status_code == 400
