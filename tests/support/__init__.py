"""What tests share: how an order is placed, facts are appended, a process is run and killed; histories and models.

`orders`: commands and facts; `histories`: random ones; `layers`: read models over read models; `processes`: children.
For some tests alone: `handlers`, `servings`, `dead_letters`, `queries`, `importing`.
"""

from support.histories import as_table, events, facts, fold_summary, histories, lines, maybe, minutes, money, names, who
from support.orders import START, append, assert_same, batch, line, pay, place, placed, tamper
from support.processes import Child, die, die_at, environment, python, say, wait_until

# Also here: `stores`, whether one is whole; `command_line`, how the program is called; `specs`, one order. Domains:
# `tallies` and `sums`, numbers added up; `paintings` and `things`, fields of every type; `people` and `crowds`,
# personal data; `ages`, earlier versions of the shop; `fulfilment`, its saga.

__all__ = [
    "START",
    "Child",
    "append",
    "as_table",
    "assert_same",
    "batch",
    "die",
    "die_at",
    "environment",
    "events",
    "facts",
    "fold_summary",
    "histories",
    "line",
    "lines",
    "maybe",
    "minutes",
    "money",
    "names",
    "pay",
    "place",
    "placed",
    "python",
    "say",
    "tamper",
    "wait_until",
    "who",
]
