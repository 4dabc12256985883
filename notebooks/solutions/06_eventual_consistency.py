"""A solution of the exercise in notebook 06: send, wait as long as patience lasts, else say how far it is."""

from cqrs_lab.errors import NotYet
from cqrs_lab.workbench.checks import check_own_write


def read_own_write(lab, command, query, patience):
    """Return what a page shows after a command: the row with it, or how far the row is from it."""
    receipt = lab.send(command)
    try:
        return {
            "state": "done",
            "row": lab.ask(query, at_least=receipt.position, timeout=patience),
        }
    except NotYet as late:
        return {
            "state": "working",
            "row": lab.ask(query),
            "position": late.position,
            "of": receipt.position,
        }


result = check_own_write(read_own_write)
