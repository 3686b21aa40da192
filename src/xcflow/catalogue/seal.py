"""A catalogue's own manifest: what it holds, so that nobody has to read it to know.

``catalogue.json`` stands beside the files and is written last, so a catalogue that agrees with its
seal was written to its end. Its digest is that of the content, which is verified when the
catalogue is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from xcflow.catalogue.contents import document_hashes, label_hashes
from xcflow.catalogue.readers import (
    CatalogueReader,
    digest_of_parts,
    open_catalogue,
    part_digests,
)
from xcflow.config import DataConfig
from xcflow.errors import DataError
from xcflow.storage import read_file

NAME = "catalogue.json"
LAYOUT = 1


@dataclass(frozen=True)
class SealedFile:
    """A file of a catalogue.

    Attributes:
        name: Its name in the folder.
        size: Its bytes.
        sha256: The sha256 of its bytes, hexadecimal.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Seal:
    """What a catalogue holds.

    Attributes:
        parts: What is read from a file, and how -> the file; see ``CatalogueReader.parts``.
        labels: Labels with different ids.
        documents: Training and test documents with different ids.
    """

    parts: Mapping[str, SealedFile]
    labels: int
    documents: int

    @property
    def digest(self) -> str:
        """The identity of the content, as ``catalogue_digest`` finds it by reading."""
        return digest_of_parts({part: file.sha256 for part, file in self.parts.items()})

    @classmethod
    def of(cls, folder: Path, config: DataConfig) -> Self:
        """The seal of a catalogue on this machine; reads all of it.

        Raises:
            DataError: It cannot be read, or was changed meanwhile.
        """
        reader = open_catalogue(folder, config.format)
        before = _stamps(reader)
        digests = part_digests(reader)
        labels = len(label_hashes(reader, config.chunk_rows))
        documents = len(document_hashes(reader, config.chunk_rows))
        if _stamps(reader) != before:
            raise DataError("was changed while it was read: seal it when it is whole", folder)
        parts = {
            part: SealedFile(path.name, path.stat().st_size, digests[part])
            for part, path in reader.parts.items()
        }
        return cls(parts, labels, documents)

    @classmethod
    def parse(cls, content: bytes, where: str) -> Self:
        """A seal from the bytes of its file.

        Args:
            content: The bytes.
            where: The file, for the error.

        Raises:
            DataError: They are no seal of this layout, or not the seal that they claim to be.
        """
        again = "write it again (xcflow seal)"
        try:
            tree: dict[str, Any] = json.loads(content)
            layout, digest = tree["layout"], tree["digest"]
            if layout != LAYOUT:
                reason = f"has the layout {layout}, this version of xcflow reads {LAYOUT}: {again}"
                raise DataError(reason, where)
            parts = {str(part): SealedFile(**file) for part, file in tree["parts"].items()}
            seal = cls(parts, int(tree["labels"]), int(tree["documents"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"is no seal of a catalogue: {again}", where) from error
        if seal.digest != digest:
            raise DataError(f"was altered (its digest is another): {again}", where)
        return seal

    def to_bytes(self) -> bytes:
        """The content of its file; the same seal gives the same bytes."""
        tree = {
            "layout": LAYOUT,
            "digest": self.digest,
            "labels": self.labels,
            "documents": self.documents,
            "parts": {part: asdict(file) for part, file in sorted(self.parts.items())},
        }
        return (json.dumps(tree, indent=2, ensure_ascii=False) + "\n").encode()


def read_seal(uri: str) -> Seal | None:
    """The seal of the catalogue behind a URI, None where it has none.

    Raises:
        StorageError: It cannot be read.
        DataError: See ``Seal.parse``.
    """
    where = f"{uri.rstrip('/')}/{NAME}"
    content = read_file(where)
    return None if content is None else Seal.parse(content, where)


def require_seal_of(folder: Path, digest: str) -> None:
    """Refuse a catalogue that has a seal which is that of another content.

    Args:
        folder: The catalogue.
        digest: The digest of its content.

    Raises:
        DataError: The seal is another's, or none.
    """
    seal = read_seal(str(folder))
    if seal and seal.digest != digest:
        undone = "an upload is not finished, or it must be written again (xcflow seal)"
        raise DataError(f"is the seal of another content: {undone}", folder / NAME)


def _stamps(reader: CatalogueReader) -> list[tuple[int, int]]:
    """What of the files changes with their content."""
    facts = [path.stat() for path in reader.parts.values()]
    return [(fact.st_size, fact.st_mtime_ns) for fact in facts]
