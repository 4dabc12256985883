"""What tests share, one module for each thing; the names that most tests need stand here as well.

`orders`: how an order is placed and facts are appended; `histories`: random facts; `processes`: a child, killed or
waited for; `stores`: whether one is whole. `command_line`: how the program is called. Domains: `tallies` and `sums`,
numbers that are added up; `paintings` and `things`, fields of every type; `people` and `crowds`, personal data; `ages`,
earlier versions of the shop; `fulfilment`, its saga; `specs`, one order of it; `layers`, read models over read models.
"""

from support.histories import as_table, events, facts, fold_summary, histories, lines, maybe, minutes, money, names, who
from support.orders import START, append, assert_same, batch, line, pay, place, placed
from support.processes import Child, die, die_at, environment, python, say, wait_until

__all__ = [
    "START", "Child", "append", "as_table", "assert_same", "batch", "die", "die_at", "environment", "events",
    "facts", "fold_summary", "histories", "line", "lines", "maybe", "minutes", "money", "names", "pay", "place",
    "placed", "python", "say", "wait_until", "who",
]  # fmt: skip
