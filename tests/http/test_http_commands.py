"""Commands over HTTP: what is accepted, what is refused and how, and what became of it."""

from __future__ import annotations

import threading

import pytest
from support.serving import TestClient, inside, order

from cqrs_lab import Lab, open_shop
from cqrs_lab.shop import order_summary


def test_a_command_is_accepted_with_its_receipt(web: TestClient, lab: Lab) -> None:
    """202 tells position, version, events and where to ask; the events are in the log, with the key as command id."""
    answer = web.post(
        "/commands/PlaceOrder",
        json=order("o-1"),
        headers={"Idempotency-Key": "key 1/?"},
    )
    assert answer.status_code == 202
    said = answer.json()
    assert (said["position"], said["stream"], said["version"]) == (1, "order/o-1", 1)
    assert [one["type"] for one in said["events"]] == ["OrderPlaced"]
    assert said["events"][0]["data"]["total"] == "19.98"
    assert answer.headers["location"] == said["status"]
    assert lab.events().dicts()[0]["command_id"] == said["command_id"]


def test_the_same_key_gives_the_first_receipt(web: TestClient, lab: Lab) -> None:
    """Sent again with its key, quoted or not, a command is not carried out again; without one a rule refuses it."""
    answers = [
        web.post("/commands/PlaceOrder", json=order("o-1"), headers={"Idempotency-Key": key})
        for key in ("k-1", '"k-1"', "k-1")
    ]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.json()["position"] for answer in answers}) == 1
    assert lab.head == 1
    again = web.post("/commands/PlaceOrder", json=order("o-1"))
    assert (again.status_code, again.json()["rule"], again.json()["state"]) == (
        409,
        "an order is placed once",
        "PENDING",
    )
    other = web.post("/commands/PlaceOrder", json=order("o-2"), headers={"Idempotency-Key": "k-1"})
    assert (other.status_code, other.json()["type"]) == (409, "urn:cqrs-lab:key-used-for-another-command")


def test_one_key_from_many_at_once_is_carried_out_once(web: TestClient, lab: Lab) -> None:
    """Eight requests with one key at the same time get one receipt."""
    found: list[int] = []

    def send() -> None:
        found.append(
            web.post("/commands/PlaceOrder", json=order("o-1"), headers={"Idempotency-Key": "k"}).json()["position"]
        )

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 8
    assert lab.head == 1


def test_the_version_that_was_seen_is_compared(web: TestClient) -> None:
    """If-Match holds the version of the stream; 409 tells the one it is at."""
    web.post("/commands/PlaceOrder", json=order("o-1"))
    pay = {"order_id": "o-1", "amount": "19.98"}
    old = web.post("/commands/PayOrder", json=pay, headers={"If-Match": '"0"'})
    assert (old.status_code, old.json()["expected"], old.json()["actual"]) == (409, 0, 1)
    assert web.post("/commands/PayOrder", json=pay, headers={"If-Match": '"1"'}).status_code == 202


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (order("o-1", lines=[{"product_id": "p", "quantity": 0, "unit_price": "1"}]), "lines[0].quantity"),
        (order("o-1", more=1), "more"),
        ({"order_id": "o-1"}, "customer_id"),
        (order("o-\0"), "order_id"),
        (order(7), "order_id"),
    ],
)
def test_a_field_that_breaks_its_rule_is_named(web: TestClient, lab: Lab, body: dict, field: str) -> None:
    """422 names each field at fault, and nothing is stored."""
    answer = web.post("/commands/PlaceOrder", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert lab.head == 0


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, {"content": b'{"order_id": '}),
        (400, {"content": b"\xff"}),
        (422, {"content": b"[]"}),
        (422, {"content": b"NaN"}),
        (415, {"content": b"a=1", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}),
        (422, {"json": order("o-1"), "headers": {"Idempotency-Key": "k" * 501}}),
        (422, {"json": order("o-1"), "headers": {"Idempotency-Key": ""}}),
        (422, {"json": order("o-1"), "headers": {"If-Match": '"one"'}}),
        (422, {"json": order("o-1"), "params": {"occurred_at": "2026-01-01"}}),
        (422, {"json": order("o-1"), "params": {"wait_for": "x"}}),
    ],
)
def test_what_cannot_be_read_is_refused(web: TestClient, lab: Lab, status: int, said: dict) -> None:
    """Each way to send nonsense has an answer, which is no error of the server."""
    answer = web.post("/commands/PlaceOrder", **said)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert lab.head == 0


def test_there_is_no_such_command(web: TestClient) -> None:
    """404 tells the commands that there are."""
    answer = web.post("/commands/PlaceOrders", json={})
    assert answer.status_code == 404
    assert "PlaceOrder," in answer.json()["detail"]


def test_the_policy_gets_the_actor_of_the_token() -> None:
    """What the policy refuses is 403 with its reason; another token's actor may do it."""
    only_owner = lambda command, actor: None if actor == "owner" else "only the owner places orders"  # noqa: E731
    with open_shop(policy=only_owner) as lab:
        with inside(lab, token="secret-of-ann") as ann:
            answer = ann.post("/commands/PlaceOrder", json=order("o-1"))
            assert answer.status_code == 403
            assert "ann may not send PlaceOrder: only the owner" in answer.json()["detail"]
            assert lab.head == 0
        with inside(lab) as owner:
            assert owner.post("/commands/PlaceOrder", json=order("o-1")).status_code == 202


def test_the_status_tells_each_read_model(lab: Lab) -> None:
    """Processing until the read models tell the command's events, then done; what was not carried out is unknown."""
    slow = lab.serve("daily_orders", mode="manual")
    with inside(lab) as web:
        status = web.post("/commands/PlaceOrder", json=order("o-1"), headers={"Idempotency-Key": "a/b c"}).json()[
            "status"
        ]
        found = web.get(status, params={"timeout": 10}).json()
        states = {one["model"]: one["state"] for one in found["read_models"]}
        assert (states["order_summary"], states["daily_orders"], found["state"]) == ("done", "processing", "processing")
        slow.catch_up()
        assert web.get(status).json()["state"] == "done"
        assert web.get("/commands/none").status_code == 404


def test_a_story_and_a_time_can_be_given(web: TestClient, lab: Lab) -> None:
    """correlation_id and occurred_at stand in the address."""
    given = {"correlation_id": "story-1", "occurred_at": "2026-01-05T10:00:00+01:00"}
    assert web.post("/commands/PlaceOrder", json=order("o-1"), params=given).json()["correlation_id"] == "story-1"
    assert lab.events(correlation_id="story-1").dicts()[0]["occurred_at"].isoformat() == "2026-01-05T09:00:00+00:00"


def test_nothing_of_an_error_inside_leaves(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is 500 without a word of it; what the store says of its files is not told either."""

    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of the inside")

    with inside(lab) as web:
        monkeypatch.setattr(lab, "send", fails)
        answer = web.post("/commands/PlaceOrder", json=order("o-1"))
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
    with open_shop() as other:
        other.serve(order_summary)
        with inside(other) as web:
            other.close()
            answer = web.post("/commands/PlaceOrder", json=order("o-1"))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert ":memory:" not in answer.text
            assert web.get("/health").status_code == 503
