"""Code: what tells a function from what it was before its program was changed.

Owns the fingerprint of a function with all that it may call: its file, and the files of what these import, from module
to module. Of packages that are installed, and of Python's own, their versions count.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any
from uuid import uuid4

_INSTALLED = {Path(path) for name, path in sysconfig.get_paths().items() if name.endswith("lib")}


def fingerprint(function: Callable[..., Any], *more: object) -> str:
    """Return what tells a function from what it was before it, or something that it calls, was changed.

    What no file says is told by nothing else: where there is no source, as in a notebook, no two fingerprints are
    equal. What a function imports while it runs, reads from files, or finds in variables that somebody sets, is not
    seen.

    Args:
        more: of which a change counts, too; by what `repr` says of it.
    """
    said = [sys.version, *map(repr, more)]
    functions, modules = [function], []
    while functions:
        one = functions.pop()
        if isinstance(one, partial):
            functions.append(one.func)
            said.append(repr((one.args, one.keywords)))
        elif isinstance(one, MethodType):
            functions.append(one.__func__)
            modules.append(_home(type(one.__self__)))
        elif isinstance(one, FunctionType):
            modules.append(_home(one))
            held = [cell.cell_contents for cell in one.__closure__ or ()]
            functions += [value for value in held if isinstance(value, FunctionType | MethodType | partial)]
            said += [repr(value) for value in held if not callable(value)]
        else:
            modules.append(_home(type(one)))
    said += _sources(modules)
    return hashlib.blake2b("\n".join(said).encode(), digest_size=16).hexdigest()


def _sources(start: list[ModuleType | None]) -> Iterator[str]:
    """The text of modules and of all that they import, by name; a version where it is installed."""
    if None in start:
        yield str(uuid4())
    own = {module.__name__.split(".")[0] for module in start if module is not None}
    waiting, seen = [module for module in start if module is not None], set[str]()
    said: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        if module.__name__ in seen:
            continue
        seen.add(module.__name__)
        top = module.__name__.split(".")[0]
        if top in sys.stdlib_module_names and top not in own:
            continue
        if top not in own and _is_installed(module):
            said[top] = str(getattr(sys.modules.get(top), "__version__", ""))
            continue
        try:
            said["" if module in start else module.__name__] = inspect.getsource(module)
        except (OSError, TypeError):
            said[module.__name__] = str(uuid4())
        waiting += [found for value in list(vars(module).values()) if (found := _of(value)) is not None]
    yield from (f"{name}\n{text}" for name, text in sorted(said.items()))


def _of(value: object) -> ModuleType | None:
    """The module that something in a module comes from."""
    if isinstance(value, ModuleType):
        return value
    return _home(value if isinstance(value, type | FunctionType) else type(value))


def _home(thing: type | FunctionType) -> ModuleType | None:
    return sys.modules.get(thing.__module__) if isinstance(thing.__module__, str) else None


def _is_installed(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is None or any(folder in Path(file).parents for folder in _INSTALLED)
