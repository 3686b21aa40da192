"""The interface of readers: a catalogue that came in, as chunks of rows for each role.

A reader knows one format. It turns lines (or rows) into ids, texts and label ids, and whatever it
cannot turn into faults; it judges nothing else. ``READERS`` lists the formats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol

from xcflow.artifact import sha256_file
from xcflow.config import CatalogueFormat
from xcflow.errors import DataError

Role = Literal["labels", "train", "test", "test_filter"]
# Characters of a row that are kept to show it.
EXCERPT_CHARS = 120


@dataclass(frozen=True)
class Fault:
    """A row that cannot be read.

    Attributes:
        file: Name of the file inside the catalogue.
        line: 1-based line.
        reason: What is wrong with it.
        excerpt: The beginning of the line, for the report.
    """

    file: str
    line: int
    reason: str
    excerpt: str = ""


@dataclass(frozen=True)
class Misstatement(Fault):
    """No row: a number of rows that is written somewhere and is not theirs."""


@dataclass
class Chunk:
    """Consecutive rows of one role; the lists of the rows' parts have equal lengths.

    Attributes:
        lines: 1-based line of each row in its file.
        ids: Id of each row, possibly empty.
        texts: Text of each row; an empty string throughout for the role ``test_filter``.
        labels: Label ids of each row; empty throughout for the role ``labels``.
        faults: What stands between these and cannot be read, or misstates their number.
    """

    lines: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: list[list[str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: list[int]) -> Chunk:
        """The given rows, without the faults."""
        return Chunk(
            [self.lines[i] for i in rows],
            [self.ids[i] for i in rows],
            [self.texts[i] for i in rows],
            [self.labels[i] for i in rows],
        )


class CatalogueReader(Protocol):
    """One format of catalogues.

    Attributes:
        folder: Where the catalogue stands.
        files: Role -> the file whose lines number its rows; ``test_filter`` is absent where the
            catalogue has none.
        parts: What is read, and how -> file. Two catalogues whose parts have the same names and
            bytes have the same rows.
    """

    folder: Path
    files: Mapping[Role, Path]
    parts: Mapping[str, Path]

    def __init__(self, folder: Path) -> None:
        """Find the files.

        Raises:
            DataError: A needed file is missing, or two files claim one role.
        """

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether the folder looks like this format."""

    @classmethod
    def description(cls) -> str:
        """The files of this format, in a few words for an error message."""

    def chunks(self, role: Role, rows: int) -> Iterator[Chunk]:
        """The rows of a role in the order of its file, at most ``rows`` with faults at a time.

        Memory is bounded by the chunk. Every row of the file is either in a chunk or a fault.

        Raises:
            DataError: The file as a whole cannot be read (further).
        """


# Format -> "module:class", loaded when tried.
READERS: Mapping[CatalogueFormat, str] = {
    "jsonl": "xcflow.catalogue.formats.jsonl:JsonLinesReader",
    "repository-json": "xcflow.catalogue.formats.repository_json:RepositoryJsonReader",
    "repository-text": "xcflow.catalogue.formats.repository_text:RepositoryTextReader",
    "repository-bow": "xcflow.catalogue.formats.repository_bow:RepositoryBowReader",
    "parquet": "xcflow.catalogue.formats.parquet_table:ParquetReader",
    "csv": "xcflow.catalogue.formats.csv_table:CsvReader",
}


def open_catalogue(folder: Path, format_: CatalogueFormat = "auto") -> CatalogueReader:
    """The reader for a catalogue.

    Args:
        folder: Where it stands.
        format_: Its format; ``auto`` finds it by the names of the files.

    Raises:
        DataError: No such folder; no format recognises it, or more than one; or it misses files.
    """
    return _load(READERS[find_format(folder, format_)])(Path(folder))


def find_format(folder: Path, format_: CatalogueFormat = "auto") -> CatalogueFormat:
    """The format of a catalogue, by the names of its files alone where none is given.

    Raises:
        DataError: No such folder; no format recognises it, or more than one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{what}: give the folder that holds the catalogue", folder)
    if format_ != "auto":
        return format_
    formats = {name: _load(reader) for name, reader in READERS.items()}
    found = [name for name, reader in formats.items() if reader.recognises(folder)]
    if not found:
        looked_for = "; or ".join(reader.description() for reader in formats.values())
        raise DataError(f"holds no catalogue: looked for {looked_for}", folder)
    if len(found) > 1:
        choices = " or ".join(f"--set data.format={name}" for name in found)
        raise DataError(f"holds files of several formats: name one with {choices}", folder)
    return found[0]


def catalogue_digest(folder: Path, format_: CatalogueFormat = "auto") -> str:
    """The identity of a catalogue's content: sha256 over each part and the sha256 of its file.

    Args:
        folder: Where it stands.
        format_: See ``open_catalogue``.

    Raises:
        DataError: See ``open_catalogue``; or a file cannot be read.
    """
    return digest_of_parts(part_digests(open_catalogue(folder, format_)))


def part_digests(reader: CatalogueReader) -> dict[str, str]:
    """Part -> sha256 of its file.

    Raises:
        DataError: A file cannot be read.
    """
    digests = {}
    for part, path in reader.parts.items():
        try:
            digests[part] = sha256_file(path)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}", path) from error
    return digests


def digest_of_parts(digests: Mapping[str, str]) -> str:
    """The identity of a catalogue by the sha256 of the file of each part."""
    lines = (f"{part} {digest}\n" for part, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _load(name: str) -> type[CatalogueReader]:
    module, _, cls = name.partition(":")
    reader: type[CatalogueReader] = getattr(import_module(module), cls)
    return reader
