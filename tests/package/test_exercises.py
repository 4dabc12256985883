"""The exercises: what is right is accepted however it is written, what is wrong is refused with a reason and a line.

Each answer is a solution of `notebooks/solutions` with some of its text replaced.
"""

# ruff: noqa: E501  what is replaced and what is said stand as they are, not in pieces

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from cqrs_lab.workbench.checks import Checked

SOLUTIONS = Path(__file__).parents[2] / "notebooks" / "solutions"

_RETURNED = "[OrderReturned(order_id=command.order_id, reason=command.reason)]"
_ONLY_DELIVERED = 'if order.status != "DELIVERED":'
_POINTS = "customer_id=placed.customer_id, order_id=placed.order_id, points=int(placed.total)"
_BINARY = (SOLUTIONS / "05_time_travel.py").read_text("utf-8").partition("    low, high")[2].partition("\n\nresult")[0]
_NOT_YET = (SOLUTIONS / "06_eventual_consistency.py").read_text("utf-8").partition("    receipt =")[2]
_NOT_YET = _NOT_YET.partition("\n\nresult")[0]
_JOINED = "JOIN order_facts AS facts ON facts.order_id = cancelled.order_id"
_CANCELLED = (
    (SOLUTIONS / "03_replay_and_read_models.py").read_text("utf-8").partition('sql="""\n')[2].partition('"""')[0]
)
_CAME_BACK = (SOLUTIONS / "09_your_own_events.py").read_text("utf-8").partition('sql="""\n')[2].partition('"""')[0]
_VOUCHER = "[VoucherIssued(voucher_id=command.voucher_id, amount=command.amount)]"
_CASE = "CASE WHEN reason = 'broken' THEN 'broken' ELSE 'unknown' END"

# exercise -> what is replaced in its solution by what, for another right answer
RIGHT = {
    "01_commands_and_events": [
        [
            (_ONLY_DELIVERED, 'if not order.status == "DELIVERED":'),
            ("[OrderReturned(", "(OrderReturned("),
            ("reason)]", "reason),)"),
        ],
        [
            ('replace(order, status="RETURNED")', 'replace(order, status="SENT BACK")'),
            (_RETURNED, "[OrderReturned(**dict(command))]"),
        ],
    ],
    "01_vouchers": [
        [(_VOUCHER, "(VoucherIssued(**dict(command)),)")],
        [
            ("return event.amount\n", "return (event.amount, 0)\n"),
            ("return left - event.amount", "return (left[0], left[1] + event.amount)"),
            ("command.amount > left:", "command.amount + left[1] > left[0]:"),
        ],
    ],
    "02_order_workloads": [
        [("sales(),", "sales().to_pandas(),")],
        [("sales(),", "sales().reverse(),"), ('"Europe/Lisbon"', '"Portugal"')],
    ],
    "03_replay_and_read_models": [
        [
            ("SELECT cancelled.reason, count(*) AS orders, ", "SELECT "),
            ("AS value\n", "AS value, count(*) AS orders, cancelled.reason\n"),
        ],
        [("::DECIMAL(18, 2)", ""), (_JOINED, _JOINED.replace("order_facts", "order_summary"))],
    ],
    "03_required_field": [
        [(_CASE, "if(reason = 'broken', 'broken', 'unknown')")],
        [
            (_CASE, "coalesce(nullif(regexp_extract(reason, '^broken$'), ''), 'unknown')"),
            (
                "    return_id: str\n    reason: str\n    condition: str",
                "    condition: str\n    reason: str\n    return_id: str",
            ),
        ],
    ],
    "04_view_materialized_projection": [
        [("return refresh_ms / saved", "return __import__('math').ceil(refresh_ms / saved)")],
        [("return refresh_ms / saved", "return int(refresh_ms // saved) + 1")],
        [
            (
                "refresh_ms / saved if saved > 0 else None",
                "None if table_ms >= view_ms else round(refresh_ms / saved, 12)",
            )
        ],
    ],
    "05_time_travel": [
        [
            (
                _BINARY,
                _BINARY.partition("\n")[0]
                + """
    if not holds(lab.as_of(position=high)):
        return None
    before = -1
    while high - before > 1:
        middle = (before + high) // 2
        before, high = (before, middle) if holds(lab.as_of(position=middle)) else (middle, high)
    return high
""",
            )
        ],
        [
            (
                _BINARY,
                _BINARY.partition("\n")[0]
                + """
    from bisect import bisect_left
    found = bisect_left(range(high + 1), True, key=lambda p: holds(lab.as_of(position=p)))
    return found if found <= high else None
""",
            )
        ],
    ],
    "06_eventual_consistency": [
        [
            (
                _NOT_YET,
                """ lab.send(command)
    try:
        row = lab.ask(query, at_least=receipt.position, timeout=patience)
    except NotYet as late:
        return dict(state="working", row=lab.ask(query), position=late.position, of=receipt.position)
    return dict(state="done", row=row)
""",
            )
        ],
        [
            (
                _NOT_YET,
                """ lab.send(command)
    import time
    end = time.monotonic() + patience
    while True:
        try:
            return {"state": "done", "row": lab.ask(query, at_least=receipt.position, timeout=0.01)}
        except NotYet as late:
            if time.monotonic() > end:
                return {"state": "working", "row": lab.ask(query), "position": late.position, "of": receipt.position}
""",
            )
        ],
    ],
    "07_failures_and_repair": [
        [("int(placed.total)", "__import__('math').floor(placed.total)")],
        [
            ("return event if isinstance(event, OrderPlaced) else placed", "return {**(placed or {}), **dict(event)}"),
            (_POINTS, "customer_id=placed['customer_id'], order_id=event.order_id, points=int(placed['total'] // 1)"),
        ],
    ],
    "07_specifications": [
        [("given([placed, *reserved]).when", "given(placed, *reserved).when"), ('"kept": 25}', '"kept": 25.0}')],
        [
            (
                "    given([placed, *reserved]).when(declined, saga=saga).then(",
                "    assert saga.react(saga.evolve(saga.initial, placed), declined) == [(",
            ),
            (
                'CancelOrder(order_id="o-1", reason="no cover")\n    )',
                'CancelOrder(order_id="o-1", reason="no cover")\n    )]',
            ),
        ],
    ],
    "08_do_you_need_cqrs": [
        [('"reads": 40_000 * 0.8 / (8 * 3600)', '"reads": 5'), ('"events": 11_000', '"events": 2_000')],
        [("*= 1.25", "*= 1.5")],
    ],
    "09_your_own_events": [
        [("SELECT agent, count(*) AS solved, count(*)", "SELECT count(*) AS solved, agent, count(*)")],
        [
            (
                "count(*) FILTER (WHERE next = 'Reopened')",
                "coalesce(sum(CASE WHEN next = 'Reopened' THEN 1 ELSE 0 END), 0)::BIGINT",
            )
        ],
    ],
}

# exercise -> what is replaced by what, for a wrong answer, and what is said about it
WRONG = {
    "01_commands_and_events": [
        (
            [(_RETURNED, '[OrderReturned(order_id="o-1", reason=command.reason)]')],
            "order_id of OrderReturned is 'o-1'; it should be 'o-7' (line 30: return [OrderReturned(",
        ),
        ([("reason=command.reason)", 'reason="too small")')], "✗ each return says its own order and reason: reason of"),
        (
            [(_ONLY_DELIVERED, 'if order.status == "PENDING":')],
            "the rule 'only a delivered order is returned' is missing",
        ),
        (
            [('replace(order, status="RETURNED")', "order")],
            "✗ evolve() remembers the return: the state is the same before and after OrderReturned (line 37: return order)",
        ),
        (
            [('replace(order, status="RETURNED")', "orders.initial")],
            "the rule 'an order is placed once' is missing: raise RuleViolated(rule, state). The state after OrderReturned has lost it (line 37: return orders.initial)",
        ),
        (
            [("    return orders.decide(command, order)", "    return []")],
            "✗ all other commands are left to the shop: decide() gave nothing",
        ),
        (
            [("if order.status", "if order.state")],
            "'Order' object has no attribute 'state' (line 28: if order.state != ",
        ),
    ],
    "01_vouchers": [
        ([(_VOUCHER, "VoucherIssued(**dict(command))")], "it gives a list (line"),
        (
            [(_VOUCHER, _VOUCHER.replace("amount=command.amount", "amount=50"))],
            "✗ step 1: a voucher of 20 is issued: amount of VoucherIssued is 50; it should be 20",
        ),
        (
            [("if left is not None:\n            raise", "if left:\n            raise")],
            "✗ step 3: an empty voucher is not issued again",
        ),
        ([("if command.amount > left:", "if left <= 0:")], "the rule 'no more is redeemed than is left' is missing"),
        ([("return left - event.amount", "return left")], "✗ step 3: evolve() takes away what was redeemed"),
        (
            [("order_id=command.order_id", 'order_id="o-1"')],
            "✗ step 3: the rest can be redeemed, to the last euro: order_id of VoucherRedeemed",
        ),
        (
            [("events=[VoucherIssued, VoucherRedeemed]", "events=[VoucherIssued]")],
            "events: VoucherIssued; it should be VoucherIssued, VoucherRedeemed",
        ),
    ],
    "02_order_workloads": [
        ([('"Europe/Lisbon"', '"UTC"')], "✗ created_at is right"),
        ([('        "OrderShipped": "left_us",\n', "")], "✗ status is right"),
        (
            [('"OrderPaid": "money_came"', '"OrderPaid": "ordered"')],
            "OrderPaid of order 1 is at 29 23:50 UTC; it should be at 30 00:10 UTC",
        ),
        ([('        "OrderCancelled": {"reason": "because"},\n', "")], "✗ it is known why: the reasons are [None]"),
    ],
    "03_replay_and_read_models": [
        ([(_JOINED, ""), ("facts.total", "cancelled.total")], "orders worth None"),
        ([("count(*) AS orders", "count(DISTINCT facts.customer_id) AS orders")], "✗ it says what plain Python says"),
        ([("sum(facts.total)", "sum(facts.paid)")], "✗ it says what plain Python says"),
        (
            [("WHERE cancelled.type = 'OrderCancelled'", "WHERE cancelled.reason IS NOT NULL")],
            "✗ it says what plain Python says",
        ),
    ],
    "03_required_field": [
        (
            [("condition: str", 'condition: str = "unknown"')],
            "✗ a new event must say the condition: an event without it is accepted",
        ),
        ([("condition: str", "condition: str | None")], "condition=None is accepted"),
        ([(_CASE, "'unknown'")], "of r-1, returned as 'broken', it is 'unknown'; it should be 'broken'"),
        ([('        1: {"condition": "' + _CASE + '"},\n', "        1: {},\n")], "returned as 'broken', it is None"),
        ([("    schema_version = 2\n", ""), ("1: {", "} and {1: {")], "✗ its schema_version is 2: it is 1"),
        ([(_CASE, "reason")], "of r-2, returned as 'too small', it is 'too small'; it should be 'unknown'"),
    ],
    "04_view_materialized_projection": [
        ([("view_ms - table_ms", "view_ms")], "is 4.0; it should be 5 (line"),
        ([("if saved > 0 else None", "if saved else None")], "✗ a slower table never pays either"),
        ([("refresh_ms / saved", "refresh_ms // saved")], "is 5.0; it should be 5.71429, or 6"),
        (
            [("return refresh_ms / saved if saved > 0 else None", "return refresh_ms / saved")],
            "ZeroDivisionError: float division by zero (line",
        ),
        ([("else None", "else float('inf')")], "is inf; it should be None"),
    ],
    "05_time_travel": [
        ([("middle + 1", "middle")], "a thousand questions, and no end"),
        (
            [("    if not holds(lab.as_of(position=high)):\n        return None\n", "")],
            "✗ what never holds has no position: None",
        ),
        (
            [("low, high = 0, lab.head", "low, high = 1, lab.head")],
            "✗ what held before the first event holds from position 0 on: the answer is 1; it should be 0 (line",
        ),
    ],
    "06_eventual_consistency": [
        (
            [("at_least=receipt.position, timeout=patience", "")],
            "it says 'done' and shows PENDING; it should be 'done' and PAID (line",
        ),
        ([("timeout=patience", "timeout=patience + 1")], "✗ patience is as long as it was told: 0.1 s became 1.1 s"),
        (
            [
                ("    receipt = lab.send(command)\n    try:\n", "    try:\n        receipt = lab.send(command)\n"),
                ("except NotYet as late:", "except Exception as late:"),
                ("late.position", "1"),
                ('"of": receipt.position', '"of": 2'),
            ],
            "✗ a refusal is told, not shown as a delay",
        ),
        ([('"position": late.position', '"position": 0')], "✗ and says how far it is"),
    ],
    "07_failures_and_repair": [
        (
            [("int(placed.total)", "round(placed.total)")],
            "the points given are 5 to c-2 for o-2, then 20 to c-1 for o-1; it should be",
        ),
        ([("customer_id=placed.customer_id", 'customer_id="c-1"')], "the points given are 5 to c-1 for o-2"),
        (
            [("isinstance(event, OrderDelivered)", "isinstance(event, OrderPlaced)")],
            "✗ nobody is thanked before the parcel is there",
        ),
        ([("    return []\n", "    return None\n")], "it gave None (line"),
        (
            [("return event if isinstance(event, OrderPlaced) else placed", "return event")],
            "'OrderDelivered' object has no attribute 'customer_id' (line",
        ),
    ],
    "07_specifications": [
        (
            [('reason="no cover")\n    )', 'reason="declined")\n    )')],
            "✗ the saga of the shop is accepted: your specification says: command 1: reason should be 'declined' and is 'no cover' (line",
        ),
        (
            [('\n        ReleaseStock(product_id="p-2", order_id="o-1", quantity=None),', "")],
            "✗ the saga of the shop is accepted: your specification says: command 2 is one too many (line",
        ),
        (
            [('        OrderRefunded(order_id="o-1", amount="5.00"),\n', ""), ('"kept": 25', '"kept": 30')],
            "✗ a read model that counts the largest refund only is found: your specification accepts it; give an order that was refunded twice",
        ),
        (
            [('        OrderPlaced(order_id="o-3", customer_id="c-3", total="9.00"),\n', "")],
            "✗ a read model that has a row for what was never paid is found",
        ),
        (
            [
                (".when(cancelled, saga=saga).then(", ".when(cancelled, saga=saga); ("),
            ],
            "✗ a saga that releases one product only is found: your specification accepts it; say what follows OrderCancelled",
        ),
    ],
    "08_do_you_need_cqrs": [
        ([("/ (8 * 3600)", "* 8")], "is it a day's number?"),
        (
            [
                ("my_choice = advise(recorded, **my_load).served_as", 'my_choice = "spreadsheet"'),
                ("== my_choice:", "== advise(recorded, **my_load).served_as:"),
            ],
            "'spreadsheet' is none of",
        ),
        ([("while advise", "while False and advise")], "✗ you know where the advice changes"),
        (
            [
                ('    "writes": 0.02,\n', ""),
                ("my_choice = advise(recorded, **my_load).served_as", 'my_choice = "view"'),
                ("while advise", "while False and advise"),
            ],
            "✗ your load is complete: writes is missing",
        ),
    ],
    "09_your_own_events": [
        ([("ORDER BY occurred_at, position", "ORDER BY position")], "✗ what was entered late stands where it happened"),
        (
            [("WHERE type IN ('Solved', 'Reopened')", "")],
            "✗ what is solved again counts for the agent who solved it: Bea has (1, 0); it should be (1, 1)",
        ),
        (
            [("count(*) AS solved", "count(DISTINCT next) AS solved")],
            "✗ what is solved again counts for the agent who solved it: Ann has (",
        ),
        ([("AS came_back\n", "AS reopened\n")], "✗ its columns are agent, solved, came_back: they are"),
    ],
}


def _answered(exercise: str, edits: list[tuple[str, str]], folder: Path) -> Checked:
    text = (SOLUTIONS / f"{exercise}.py").read_text("utf-8")
    for old, new in edits:
        assert old in text, f"{old!r} is not in the solution"
        text = text.replace(old, new)
    text = re.sub(r"\nof_saga\(fulfilment\)\nof_model\(.*\)\n", "\n", text)  # the check says it, too
    path = folder / "answer.py"
    path.write_text(text, "utf-8")
    return runpy.run_path(str(path))["result"]


def test_every_exercise_is_tried_with_three_wrong_and_two_other_right_answers() -> None:
    """No exercise is left out of this file."""
    names = {path.stem for path in SOLUTIONS.glob("*.py")}
    assert set(RIGHT) == set(WRONG) == names
    assert all(len(answers) >= 2 for answers in RIGHT.values())
    assert all(len(answers) >= 3 for answers in WRONG.values())


@pytest.mark.parametrize(
    ("exercise", "edits"), [(exercise, edits) for exercise, many in RIGHT.items() for edits in many]
)
def test_another_right_answer_is_accepted(exercise: str, edits: list[tuple[str, str]], tmp_path: Path) -> None:
    """What is right in another way than the solution passes."""
    found = _answered(exercise, edits, tmp_path)
    assert found.passed, found


@pytest.mark.parametrize(
    ("exercise", "edits", "said"),
    [(exercise, edits, said) for exercise, many in WRONG.items() for edits, said in many],
)
def test_a_wrong_answer_is_refused_with_the_reason(
    exercise: str, edits: list[tuple[str, str]], said: str, tmp_path: Path
) -> None:
    """What is wrong does not pass, and the check says what it is, with the line where one is to blame."""
    found = _answered(exercise, edits, tmp_path)
    assert not found.passed
    assert said in repr(found), found
