"""The checks of the exercises: each tries what a learner wrote and says in one line each what holds, what not yet.

Owns the name by which the notebooks import them; they are in `course/`.
"""

from cqrs_lab.workbench.course.answers import (
    check_break_even,
    check_decision,
    check_first_position,
    check_import,
    check_own_write,
    sales,
)
from cqrs_lab.workbench.course.checked import Checked
from cqrs_lab.workbench.course.deciders import check_returns, check_vouchers
from cqrs_lab.workbench.course.declarations import check_came_back, check_cancellations, check_thanks
from cqrs_lab.workbench.course.specifications import check_specifications, kept_money
from cqrs_lab.workbench.course.versions import check_required_field

__all__ = [
    "Checked",
    "check_break_even",
    "check_came_back",
    "check_cancellations",
    "check_decision",
    "check_first_position",
    "check_import",
    "check_own_write",
    "check_required_field",
    "check_returns",
    "check_specifications",
    "check_thanks",
    "check_vouchers",
    "kept_money",
    "sales",
]
