"""Ctrl-C that reaches a running statement at once.

Owns one thread, which sleeps until a signal comes. Python runs a signal's handler only between two of its own
instructions, so a call into DuckDB has to ask for it from time to time; DuckDB 2.0 does, but with several threads it
happens to be late by more than 2 s in one of three interrupts (measured on 2 cores). The system's own handler can wake
a thread without Python's help, though, and that thread stops the statement.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class _Watcher:
    """The thread, and what it is to stop when a Ctrl-C comes."""

    def __init__(self) -> None:
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None
        self._before = -1
        threading.Thread(target=self._watch, name="cqrs_lab interrupts", daemon=True).start()

    def begin(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        if before != self._wake.fileno():
            self._before = before

    def end(self) -> None:
        signal.set_wakeup_fd(self._before)
        with self._lock:
            # A signal that came during this statement must not stop the next one.
            self._signals()
            self._stop = None

    def _watch(self) -> None:
        while True:
            select.select([self._woken], [], [])
            with self._lock:
                ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
                if signal.SIGINT in self._signals() and ours and self._stop is not None:
                    self._stop()

    def _signals(self) -> bytes:
        """Return the numbers of the signals that came, having told whoever wanted to be woken before."""
        try:
            came = self._woken.recv(4096)
        except BlockingIOError:
            return b""
        if self._before != -1:
            with suppress(OSError):
                os.write(self._before, came)
        return came


_watcher: _Watcher | None = None


def _forget() -> None:
    """Start over in a forked process, which has no such thread."""
    global _watcher
    _watcher = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def stoppable(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop`, from another thread, when Ctrl-C comes while the block runs in the main thread.

    Nothing happens in other threads, which Ctrl-C does not concern, nor where somebody else handles it.
    """
    global _watcher
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _watcher is None:
        _watcher = _Watcher()
    watcher = _watcher
    try:
        watcher.begin(stop)
        yield
    finally:
        watcher.end()
