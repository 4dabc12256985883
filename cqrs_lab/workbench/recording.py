"""The recording by the name that people call: `python -m cqrs_lab.workbench.recording`, on a quiet machine.

Names after it make those recordings alone: `python -m cqrs_lab.workbench.recording calls driven`. Owns which there are;
what is measured is in `measure/recording.py` and `course/measured.py`.
"""

import sys

from cqrs_lab.workbench.course.measured import calls, driven
from cqrs_lab.workbench.measure.recording import record

__all__ = ["record"]


if __name__ == "__main__":
    record({"calls": calls, "driven": driven}, only=sys.argv[1:])
