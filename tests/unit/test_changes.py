"""What a change of rows can reach among the answers that a cache keeps."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from cqrs_lab.store.answers import _Changed as Changed


@pytest.mark.parametrize(
    ("value", "row", "reached"),
    [("a", "a", True), ("a", "b", False), (1, 2, False), (1, True, True), (1, 1.0, True), (1.5, 2.5, True),
     (None, None, True), (None, 1, False), ("a", None, False), (1, [1], True), ([1], None, True),
     (date(2025, 1, 1), date(2025, 1, 2), False), (date(2025, 1, 1), datetime(2025, 1, 1), True),
     (datetime(2025, 1, 1), datetime(2025, 1, 1, tzinfo=UTC), True), (Decimal("1.0"), Decimal("1.00"), True),
     ("x", UUID(int=1), True), (b"x", b"y", False)],
    ids=repr,
)  # fmt: skip
def test_a_change_reaches_what_it_could_equal(value, row, reached):
    """Values of one plain kind are compared; of two kinds, or of another one, they might be equal."""
    assert Changed(["K", "other"], [(row, 1)]).reaches((("k", value),)) is reached
    assert Changed(["k"], [(row,)]).reaches(())
    assert not Changed(["k"], []).reaches((("k", "a"),))
