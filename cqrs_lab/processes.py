"""Forked processes, in which what is open of DuckDB is left alone and never destroyed.

Owns what happens in the child of a fork, such as a worker of multiprocessing where that is its way to start. The child
has the memory of the parent, its files and none of its threads. DuckDB there would write what the parent writes; to
close it would fold a log into the file that is not the child's, and wait for threads that are not there; a lock that
another thread held will never be free.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Open(Protocol):
    """Something that a child must not use."""

    def parts(self) -> Iterable[object]:
        """Return what a child must not destroy."""

    def in_child(self) -> None:
        """Be left alone from now on: this is a forked process."""


class Weak(Generic[T]):
    """Things that others keep, as long as they do. No WeakSet: Python swallows a Ctrl-C that comes in its callback."""

    def __init__(self) -> None:
        self._references: list[weakref.ref[T]] = []

    def add(self, thing: T) -> None:
        """Take one in. The list is replaced, so that others may be going through it."""
        self._references = [*(one for one in self._references if one() is not None), weakref.ref(thing)]

    def living(self) -> list[T]:
        """Return those that are still there."""
        return [thing for one in self._references if (thing := one()) is not None]


_open: Weak[Open] = Weak()
_held: list[object] = []


def tell_in_child(thing: Open) -> None:
    """Have something kept, and told, when it finds itself in a forked process."""
    _open.add(thing)


def _before() -> None:
    """Hold what must stay: Python ends the other threads in the child, and with them what is theirs alone."""
    for thing in _open.living():
        _held.extend(thing.parts())


def _in_child() -> None:
    # A reference that nobody holds is the only one that the end of the interpreter does not take back. Without it the
    # end of a child destroyed DuckDB's instance: it crashed, and took the log with it.
    for part in _held:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(part))
    _held.clear()
    for thing in _open.living():
        thing.in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_held.clear, after_in_child=_in_child)
