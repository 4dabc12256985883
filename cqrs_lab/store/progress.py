"""Progress of a statement.

Owns the thread that looks how far it is, and the bar that shows it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

from cqrs_lab.store.database import Database

_GLANCE = 0.1  # seconds between two looks


@contextmanager
def telling(database: Database, tell: Callable[[float], None] | None) -> Iterator[None]:
    """Tell, while the block's statements run on this thread, how much of the one at work is done, from 0 to 1."""
    if tell is None:
        yield
        return
    part, done = database.progress(), threading.Event()

    def watch() -> None:
        while not done.wait(_GLANCE):
            if (now := part()) >= 0:
                tell(now)

    watcher = threading.Thread(target=watch, name="cqrs_lab progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    database.execute("SET enable_progress_bar = false")
    tell(1.0)


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[float], None]]:
    """Show a progress bar; yields what moves it to a part of the work, from 0 to 1."""
    with tqdm(total=100, desc=name, unit="%", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}") as bar:

        def tell(part: float) -> None:
            bar.n = round(100 * part)
            bar.refresh()

        yield tell
