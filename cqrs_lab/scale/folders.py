"""Folders: where sealed files are, on this machine or wherever fsspec reaches.

Owns all reading and writing of them. A local folder needs nothing but Python; an address such as s3://… needs fsspec,
of the extra `scale`, and the package for that protocol.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from cqrs_lab.errors import ExtraMissing, SealDamaged, StoreError, StoreFull

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class Folder:
    """A folder, by its path or its address.

    Args:
        address: a path, or an address that fsspec opens.

    Raises:
        ExtraMissing: it is an address, and fsspec is not installed.
        StoreError: fsspec knows no such protocol.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        self.address = str(address)
        self._fs: Any = None
        if "://" not in self.address and "::" not in self.address:
            self.address = self._root = os.path.abspath(self.address)
            return
        try:
            import fsspec
        except ModuleNotFoundError as error:
            raise ExtraMissing(
                f'{self.address} needs fsspec; install it with: pip install "cqrs-lab[scale]"'
            ) from error
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.address)
        except (ValueError, ImportError) as error:
            raise StoreError(f"{self.address} cannot be opened: {error}") from error

    def __repr__(self) -> str:
        return self.address

    @property
    def is_local(self) -> bool:
        """Whether its files can be read in place."""
        return self._fs is None

    def place(self, name: str) -> str:
        """Return where a file of it is."""
        return f"{self._root.rstrip('/')}/{name}" if self._fs is not None else os.path.join(self._root, name)

    def inside(self, name: str) -> Folder:
        """Return a folder inside it."""
        return Folder(f"{self.address.rstrip('/')}/{name}" if self._fs is not None else self.place(name))

    def read(self, name: str) -> bytes | None:
        """Return what a file holds, None when there is none."""
        try:
            if self._fs is None:
                return Path(self.place(name)).read_bytes()
            found: bytes = self._fs.cat_file(self.place(name))
            return found
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file whole: whoever reads it finds all of it, or what was there before."""
        with told(self.address):
            if self._fs is not None:
                self._fs.makedirs(self._root, exist_ok=True)
                self._fs.pipe_file(self.place(name), content)
                return
            part = Path(self.place(f".{name}.{uuid4().hex}"))
            part.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                part.replace(self.place(name))
            finally:
                part.unlink(missing_ok=True)

    def put(self, file: Path, name: str) -> None:
        """Move a finished local file into it."""
        with told(self.address):
            if self._fs is not None:
                self._fs.makedirs(os.path.dirname(self.place(name)), exist_ok=True)
                self._fs.put_file(str(file), self.place(name))
                file.unlink()
                return
            target = Path(self.place(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
            try:
                file.replace(target)
            except OSError:  # from another disk
                shutil.move(file, target)

    def fetch(self, name: str, into: Path) -> str:
        """Return the path of a file that can be read here: its own, or of a copy.

        Args:
            into: a local folder for the copy.

        Raises:
            FileNotFoundError: it is not there.
        """
        if self._fs is None:
            return self.place(name)
        copy = into / name.replace("/", "-")
        if not copy.exists():
            with told(str(into)):
                self._fs.get_file(self.place(name), str(copy))
        return str(copy)

    def names(self, below: str) -> list[str]:
        """Return the names of the files in a folder inside it."""
        with suppress(FileNotFoundError, NotADirectoryError):
            if self._fs is None:
                return sorted(f"{below}/{name}" for name in os.listdir(self.place(below)))
            return sorted(f"{below}/{os.path.basename(one)}" for one in self._fs.ls(self.place(below), detail=False))
        return []

    def remove(self, name: str) -> None:
        """Remove a file, where it is there."""
        with suppress(FileNotFoundError):
            if self._fs is None:
                os.unlink(self.place(name))
            else:
                self._fs.rm_file(self.place(name))

    def make(self) -> None:
        """Make it, where it is missing."""
        if self._fs is None:
            with told(self.address):
                os.makedirs(self._root, exist_ok=True)

    def clear(self) -> None:
        """Remove it and all that is in it."""
        if self._fs is None:
            shutil.rmtree(self._root, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                self._fs.rm(self._root, recursive=True)


class told:
    """Say of what the system refuses in the block what it means for a folder."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and is_full(error):
            raise StoreFull(f"there is no room left in {self._where}; make room and ask again") from error
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise StoreError(f"{self._where} cannot be used: {error.strerror or error}") from error


def is_full(error: OSError) -> bool:
    """Return whether the system says that there is no room left."""
    return error.errno in _FULL


def checksum(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a local file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetched(folder: Folder, name: str, size: int, digest: str, into: Path) -> str:
    """Return the path of a sealed file, once it was looked at whole.

    Raises:
        SealDamaged: it is missing, or not as it was written.
    """
    try:
        path = folder.fetch(name, into)
        found = os.path.getsize(path)
        if found == size and checksum(path) == digest:
            return path
        why = f"it has {found:,} bytes and was written with {size:,}" if found != size else "its bytes have changed"
    except OSError as error:
        why = "it is missing" if isinstance(error, FileNotFoundError) else f"it cannot be read: {error}"
    raise SealDamaged(
        f"{folder.place(name)} is damaged: {why}. Put a copy of the file back, or seal the log again into a new folder"
    )
