"""A solution of the exercise in notebook 08: a shop's own numbers, a serving, and where the advice would change.

The numbers are those of a small shop: 40,000 page views a day, four of five of them between nine and five; an order is
looked up by its number.
"""

import polars as pl

from cqrs_lab.workbench import advise, recorded_measurements
from cqrs_lab.workbench.checks import check_decision

ways = ["view", "materialized", "projection"]
recorded = recorded_measurements().filter(pl.col("served_as").is_in(ways))

my_load = {
    "reads": 40_000 * 0.8 / (8 * 3600),
    "writes": 0.02,
    "events": 11_000,
    "staleness": 0,
    "question": "point",
}
my_choice = advise(recorded, **my_load).served_as

# More and more readers, until the advice is another one.
my_tipping_point = my_load["reads"]
while advise(recorded, **(my_load | {"reads": my_tipping_point})).served_as == my_choice:
    my_tipping_point *= 1.25

result = check_decision(recorded, my_load, my_choice, my_tipping_point)
