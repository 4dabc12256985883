"""The manifest: what a sealed log says of itself.

Owns its format. It is written last and in one piece, so that a folder without one holds no sealed log, and a folder
with one holds all that it names. Everything that a replay has to know stands in it: no store and no event class is
asked.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from cqrs_lab.errors import SealDamaged, StoreFormatError, StoreMissing
from cqrs_lab.scale.folders import Folder
from cqrs_lab.store.digests import Digest

NAME, FORMAT = "manifest.json", 1


@dataclass(frozen=True)
class SealedFile:
    """A Parquet file.

    Attributes:
        name: within the folder.
        part: number of the partition of streams that it holds.
        rows, bytes: how many.
        sha256: of its bytes.
    """

    name: str
    part: int
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SealedCategory:
    """The events of a category.

    Attributes:
        key: the field that names a stream.
        columns: of the events as they are stored: name -> type.
        personal: the personal fields among them, kept in files of their own: name -> type.
        versions: the (type, schema version) that the log held when it was sealed.
        lifted: the SELECT of the events as the domain declared them then, old versions lifted; it reads
            `stored."…_events"`.
        shown: the columns of that SELECT: name -> type.
        is_key_stored: whether the key is as it was stored, so that events of one key are of one stream.
        meaning: what tells how the events are read from another declaration (see `Log.meaning`).
        digest, personal_digest: of the events, and of what is personal in them.
        files, personal_files: where they are.
    """

    key: str
    columns: dict[str, str]
    personal: dict[str, str]
    versions: list[list[Any]]
    lifted: str
    shown: dict[str, str]
    is_key_stored: bool
    meaning: str | None
    digest: Digest = field(default_factory=Digest)
    personal_digest: Digest = field(default_factory=Digest)
    files: list[SealedFile] = field(default_factory=list)
    personal_files: list[SealedFile] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """What is sealed.

    Attributes:
        position: the last position.
        partitions: into how many the streams are divided.
        duckdb: the version that made the digests.
        seals: how often was sealed.
        categories: by name.
        folder: the path or address of the folder that it stands in.
    """

    position: int
    partitions: int
    duckdb: str
    seals: int
    categories: dict[str, SealedCategory]
    format: int = FORMAT
    folder: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return (
            f"<{self.events:,} events up to position {self.position:,}, sealed in {self.partitions} partitions: "
            f"{len(self.files)} files of {self.bytes:,} bytes>"
        )

    @property
    def events(self) -> int:
        """How many events there are."""
        return sum(category.digest.rows for category in self.categories.values())

    @property
    def bytes(self) -> int:
        """How many bytes the files have."""
        return sum(file.bytes for file in self.files)

    @property
    def files(self) -> list[SealedFile]:
        """All files."""
        return [file for one in self.categories.values() for file in (*one.files, *one.personal_files)]

    @property
    def digests(self) -> dict[str, Digest]:
        """Category -> the digest of its events."""
        return {name: category.digest for name, category in self.categories.items()}

    @property
    def personal_digests(self) -> dict[str, Digest]:
        """Category -> the digest of what is personal in its events."""
        return {name: category.personal_digest for name, category in self.categories.items()}

    def columns(self, *, personal: bool = False) -> dict[str, list[str]]:
        """Return, for each category, the columns that its digest counts."""
        return {
            name: ["position", *one.personal] if personal else list(one.columns)
            for name, one in self.categories.items()
            if one.personal or not personal
        }

    def table(self, name: str) -> SealedCategory | None:
        """Return the category of a table of events, by the table's name in whatever case."""
        return next((one for own, one in self.categories.items() if f"{own}_events".lower() == name.lower()), None)


def write(folder: Folder, manifest: Manifest) -> None:
    """Write a manifest into a folder, in the place of the one that is there."""
    said = asdict(manifest)
    del said["folder"]  # it may be moved
    folder.write(NAME, json.dumps(said, indent=1).encode())


def find(folder: Folder) -> Manifest | None:
    """Return the manifest in a folder, None when there is none.

    Raises:
        SealDamaged: it cannot be read.
        StoreFormatError: another version of this package wrote it.
    """
    content = folder.read(NAME)
    if content is None:
        return None
    try:
        said = json.loads(content)
        if said["format"] != FORMAT:
            raise StoreFormatError(
                f"{folder.place(NAME)} has the format {said['format']}; this version reads {FORMAT}. Read it with the "
                "version of cqrs_lab that wrote it, or seal the log again into a new folder"
            )
        categories = {name: _category(one) for name, one in said["categories"].items()}
        return Manifest(**{**said, "categories": categories, "folder": folder.address})
    except (ValueError, KeyError, TypeError) as error:
        raise SealDamaged(
            f"{folder.place(NAME)} is damaged: {error}. Put a copy of it back, or seal the log again into a new folder"
        ) from error


def load(address: str | os.PathLike[str] | Manifest) -> tuple[Folder, Manifest]:
    """Return a folder and the manifest in it; errors as of `find`.

    Args:
        address: of the folder, or a manifest that stands in it.

    Raises:
        StoreMissing: there is none.
    """
    if isinstance(address, Manifest):
        return Folder(address.folder), address
    folder = Folder(address)
    found = find(folder)
    if found is None:
        raise StoreMissing(f"{folder} holds no sealed log: there is no {NAME} in it. Make one with seal(lab, folder)")
    return folder, found


def _category(said: dict[str, Any]) -> SealedCategory:
    made = {name: Digest(**said[name]) for name in ("digest", "personal_digest")}
    files = {name: [SealedFile(**one) for one in said[name]] for name in ("files", "personal_files")}
    return SealedCategory(**{**said, **made, **files})
