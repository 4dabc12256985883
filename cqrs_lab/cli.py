"""The command line by the name that people and scripts call: `python -m cqrs_lab.cli`.

Owns the name alone; the commands are in `tools/cli.py`.
"""

from cqrs_lab.tools.cli import app

__all__ = ["app"]

if __name__ == "__main__":
    app()
