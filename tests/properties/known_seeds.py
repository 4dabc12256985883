"""The made-up cases in which servings disagree today, by the kind of fault.

Each is expected to fail, strictly: who mends a fault takes its seeds out of here. `python tests/properties/soak.py
--show SEED` prints one, made small.
"""

KNOWN: dict[str, tuple[int, ...]] = {
    "self-join": (42, 53, 196, 237),
    "outer-join ghost": (24, 37, 84, 151, 230, 233),
    "NULL key": (26, 68, 95, 168, 191, 202, 220),
    "column name": (6, 77, 78, 86, 140, 171, 174, 188, 194),
    "case of names": (0, 111, 116, 150, 248),
    "collation": (74, 105, 216),
    "reopened store": (54, 119, 125, 128, 185, 228),
    "apart": (15, 243),
}
"""Kind of fault -> the seeds of `selects.case_of`."""
