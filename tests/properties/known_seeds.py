"""The made-up cases in which servings disagree today, by the kind of fault.

Each is expected to fail, strictly: who mends a fault takes its seeds out of here. `python tests/properties/soak.py
--show SEED` prints one, made small.
"""

KNOWN: dict[str, tuple[int, ...]] = {}
"""Kind of fault -> the seeds of `selects.case_of`."""
