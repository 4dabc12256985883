"""A solution of the exercise in notebook 05: the first position at which something holds."""

from cqrs_lab.workbench.checks import check_first_position


def first_position(lab, holds):
    """Return the first position at which holds(lab.as_of(position=…)) is true, None when it never is."""
    low, high = 0, lab.head
    if not holds(lab.as_of(position=high)):
        return None
    while low < high:
        middle = (low + high) // 2
        if holds(lab.as_of(position=middle)):
            high = middle
        else:
            low = middle + 1
    return low


result = check_first_position(first_position)
