"""The doctor by the name that notebooks import: is this machine able to run the lab, and is a store whole?

Owns the name alone; the checks of the machine are in `tools/doctor.py`, those of a store in `tools/scan.py`.
"""

from cqrs_lab.tools.doctor import FIRST_NOTEBOOK, Finding, Findings, check_environment, shop_models
from cqrs_lab.tools.scan import damaged_blocks, reading, scan, shop_categories

__all__ = [
    "FIRST_NOTEBOOK",
    "Finding",
    "Findings",
    "check_environment",
    "damaged_blocks",
    "reading",
    "scan",
    "shop_categories",
    "shop_models",
]
