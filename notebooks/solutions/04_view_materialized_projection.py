"""A solution of the exercise in notebook 04: from how many reads per refresh on a materialized table pays.

With n reads between two refreshes the view costs n times its read, the table n times its own and one refresh. They are
equal where the refresh is what the reads have saved.
"""

from cqrs_lab.workbench.checks import check_break_even


def break_even(view_ms, table_ms, refresh_ms):
    """Return from how many reads per refresh on the table is the cheaper one, None when it never is."""
    saved = view_ms - table_ms
    return refresh_ms / saved if saved > 0 else None


result = check_break_even(break_even)
