"""The recording by the name that people call: `python -m cqrs_lab.workbench.recording`, on a quiet machine.

Owns the name alone; what is measured is in `measure/recording.py`.
"""

from cqrs_lab.workbench.measure.recording import record

__all__ = ["record"]


if __name__ == "__main__":
    record()
