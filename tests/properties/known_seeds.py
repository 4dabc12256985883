"""The made-up cases in which servings disagree today, by the kind of fault: none.

A seed that is put here is expected to fail, strictly: who mends the fault takes it out again. `python
tests/properties/soak.py --show SEED` prints one, made small.
"""

KNOWN: dict[str, tuple[int, ...]] = {}
"""Kind of fault -> the seeds of `selects.case_of`."""
