"""Ctrl-C that reaches a running statement at once.

Owns one thread, which sleeps until a signal comes. Python runs a signal's handler only between two of its own
instructions, so a call into DuckDB has to ask for it from time to time; DuckDB 2.0 does, but with several threads it
happens to be late by more than 2 s in one of three interrupts (measured on 2 cores). The system's own handler can wake
a thread without Python's help, though, and that thread stops the statement.

There is no lock, so that a garbage collection or a second Ctrl-C in here has nothing to wait for. Whose signal it was
follows from the order of steps alone: who begins a statement first takes away what came before it, and says what runs
only then; the thread looks at what runs before it takes what came.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class _Watcher:
    """The thread, and what it is to stop when a Ctrl-C comes."""

    def __init__(self) -> None:
        self._woken, wake = socket.socketpair()
        self._woken.setblocking(False)
        wake.setblocking(False)
        self.wake, self.descriptor = wake, wake.fileno()
        self.running: stoppable | None = None
        self.elsewhere = -1  # who wanted to be woken by signals before us
        self._thread = threading.Thread(target=self._watch, name="cqrs_lab interrupts", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                selector.select()
                running = self.running
                ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
                if signal.SIGINT in self.take() and ours and running is not None and running is self.running:
                    running.stop()

    def take(self) -> bytes:
        """Return the numbers of the signals that came, having told whoever wanted to be woken before."""
        try:
            came = self._woken.recv(4096)
        except BlockingIOError:
            return b""
        if self.elsewhere != -1:
            with suppress(OSError):
                os.write(self.elsewhere, came)
        return came


_watcher: _Watcher | None = None


class stoppable:
    """Call `stop`, from another thread, when Ctrl-C comes while the block runs in the main thread.

    Nothing happens in other threads, which Ctrl-C does not concern, nor where somebody else handles it.
    """

    __slots__ = ("_watcher", "stop")

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self._watcher: _Watcher | None = None

    def __enter__(self) -> None:
        global _watcher
        if threading.current_thread() is not threading.main_thread():
            return
        if _watcher is None or not _watcher.is_alive:  # a forked process has no such thread
            _watcher = _Watcher()
        watcher = self._watcher = _watcher
        watcher.take()
        watcher.running = self
        # Set again for each statement: others, such as an event loop, may have set their own in between.
        before = signal.set_wakeup_fd(watcher.descriptor, warn_on_full_buffer=False)
        if before != watcher.descriptor:  # a Ctrl-C may have left ours there
            watcher.elsewhere = before

    def __exit__(self, *error: object) -> None:
        if self._watcher is not None:
            self._watcher.running = None
            signal.set_wakeup_fd(self._watcher.elsewhere)
