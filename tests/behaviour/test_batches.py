"""send_many: a batch is stored whole or not at all, and gives each command its receipt."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest
from support import pay, place
from support.tallies import Add, Added, Spot, assert_there, open_lab

from cqrs_lab import open_shop
from cqrs_lab.errors import InvalidMessage, RuleViolated
from cqrs_lab.shop import RegisterCustomer, StockProduct, TakePayment
from cqrs_lab.write.insertion import _FEW

STOCK = StockProduct(product_id="p-1", quantity=5)


@pytest.mark.parametrize("before", [0, 1, 40])
def test_a_batch_is_stored_whole_or_not_at_all(before):
    """When a rule refuses command k nothing is stored, the heads stay, and a note says which command it was."""
    with open_lab() as lab:
        lab.send(Add(tally="a", n=5))
        heads = replace(lab._log.heads, streams=dict(lab._log.heads.streams.items()))
        batch = [*(Add(tally=f"t-{i % 3}", n=1) for i in range(before)), Add(tally="a", n=-4), Add(tally="a", n=-2)]
        with pytest.raises(RuleViolated) as refused:
            lab.send_many([*batch, Add(tally="a", n=9)], command_ids=[f"c-{i}" for i in range(before + 3)])
        assert refused.value.state == 1  # what the command before it left
        (note,) = refused.value.__notes__
        assert note.startswith(f"It was command {before + 2} of {before + 3}, Add(tally='a', n=-2")
        assert replace(lab._log.heads, streams=dict(lab._log.heads.streams.items())) == heads
        assert lab.head == 1
        assert lab.send(Add(tally="a", n=-5), command_id="c-0").version == 2  # its ids are not used up


def test_receipts_of_a_mixed_batch():
    """A batch over categories and services gives each command its receipt; an empty one gives none."""
    with open_shop(threads=1) as lab:
        assert lab.send_many([]) == []
        register = RegisterCustomer(customer_id="c-1", name="Ann", email="ann@example.com")
        take = TakePayment(order_id="o-1", amount="5.00")
        batch = [STOCK, place(), register, take, pay(), STOCK]
        receipts = lab.send_many(
            iter(batch), correlation_id="story", command_ids=[None, "mine", uuid4(), None, None, None]
        )
        assert [(r.position, r.stream, r.version) for r in receipts] == [
            (1, "product/p-1", 1),
            (2, "order/o-1", 1),
            (3, "customer/c-1", 1),
            (4, "payment/o-1", 1),
            (5, "order/o-1", 2),
            (6, "product/p-1", 2),
        ]
        assert receipts[1].command_id == "mine"
        assert {r.correlation_id for r in receipts} == {"story"}
        assert_there(lab, receipts)
        with pytest.raises(InvalidMessage, match="1 for 2 commands"):
            lab.send_many([STOCK, STOCK], command_ids=["one"])


@pytest.mark.parametrize("count", [_FEW, _FEW + 1])
def test_few_and_many_rows_are_the_same_rows(count):
    """Rows that go as values and rows that go as a table read back alike, whatever they hold."""
    spot = Spot(name="ü\N{SNOWMAN}'\"\n", depth=-(2**63))
    odd = [
        Add(tally="a", n=2**63 - 1),
        Add(tally="a", n=-(2**63), note="", spot=spot, spots=[spot, Spot(name="")]),
        Add(tally="\N{SNOWMAN}/'", n=1, note="\N{PILE OF POO}\t\\", spot=Spot(name="x")),
    ]
    batch = [*odd, *(Add(tally="b", n=1) for _ in range(count - len(odd)))]
    with open_lab(decide=lambda command, total: [Added(**dict(command))]) as lab:
        receipts = lab.send_many(batch)
        assert_there(lab, receipts)
        read = [r for id in ("a", "\N{SNOWMAN}/'", "b") for r in lab._log.read(lab._categories["tally"], id)]
        assert [r.event for r in read] == [Added(**dict(command)) for command in batch]
        assert [r.command_id for r in read] == [str(r.command_id) for r in receipts]
