"""What is known of a catalogue without reading its documents, first of all which one it is.

The cheapest statement that holds is taken: the catalogue's seal, else on this machine the content
of its files, else the listing of the store, names with sizes and ETags. The first two are the
digest of the content, by which models know the catalogue that they were trained on. A listing
changes whenever a file is written again, also with the same content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from xcflow.artifact import json_digest
from xcflow.catalogue.contents import LabelTable, document_hashes, read_labels
from xcflow.catalogue.hashing import Hashes
from xcflow.catalogue.readers import (
    CatalogueReader,
    catalogue_digest,
    find_format,
    open_catalogue,
)
from xcflow.catalogue.seal import NAME, Seal, read_seal
from xcflow.config import CatalogueFormat, DataConfig
from xcflow.errors import DataError
from xcflow.storage import Listed, copy_name, fetch_file, is_remote, listing

Basis = Literal["seal", "content", "listing"]
# In these formats a label's id and text stand in the file of the labels; in the others the number
# of labels, at least, stands among the documents.
_LABELS_ALONE: frozenset[CatalogueFormat] = frozenset(
    {"jsonl", "parquet", "csv", "repository-json"}
)
_LONGEST_NAME = 255
# A larger file of labels is not fetched only to tell what is new.
LARGEST_LABELS = 256 << 20


@dataclass(frozen=True)
class Outline:
    """A catalogue from outside.

    Attributes:
        uri: Where it stands.
        basis: By what it is known.
        digest: Which one it is.
        content: The digest of its content, empty where that is not known without reading it.
        seal: Its seal, where it has one.
        files: Name -> file of the folder, as listed.
    """

    uri: str
    basis: Basis
    digest: str
    content: str
    seal: Seal | None
    files: Mapping[str, Listed] = field(repr=False)


def look_at(uri: str, config: DataConfig) -> Outline:
    """Find out which catalogue stands behind a URI.

    Raises:
        DataError: There is no whole catalogue, or its seal tells of another content.
        StorageError: The place cannot be read.
    """
    seal = read_seal(uri)
    files = _listed(uri)
    with _skeleton(uri, files) as folder, _told_of(uri):
        reader = open_catalogue(folder, config.format)
        parts = {part: path.name for part, path in reader.parts.items()}
        if seal:
            _require_sealed(uri, seal, parts, files)
            return Outline(uri, "seal", seal.digest, seal.digest, seal, files)
        if not is_remote(uri):
            digest = catalogue_digest(folder, config.format)
            return Outline(uri, "content", digest, digest, None, files)
        return Outline(uri, "listing", _listing_digest(parts, files), "", None, files)


def labels_of(outline: Outline, config: DataConfig, folder: Path) -> LabelTable | str:
    """The labels of a catalogue, or why they cannot be known without reading the documents.

    Args:
        outline: The catalogue.
        config: How it is read.
        folder: Gets the tables.

    Raises:
        DataError: The file of the labels cannot be read.
        StorageError: It cannot be fetched.
    """
    with _skeleton(outline.uri, outline.files) as skeleton, _told_of(outline.uri):
        format_ = find_format(skeleton, config.format)
        reader = open_catalogue(skeleton, format_)
        if is_remote(outline.uri):
            name = reader.files["labels"].name
            if format_ not in _LABELS_ALONE:
                return f"the format {format_} numbers labels by what stands among the documents"
            if outline.files[name].size > LARGEST_LABELS:
                return f"{name} has {outline.files[name].size >> 20:,} MiB"
            reader.files["labels"].unlink()
            fetch_file(f"{outline.uri.rstrip('/')}/{name}", reader.files["labels"])
        return read_labels(reader, config.chunk_rows, folder)


def documents_of(outline: Outline, config: DataConfig) -> Hashes | int | str:
    """The documents of a catalogue as far as they are known.

    Returns:
        The hash of each document's id where the content was read anyway; how many there are where
        the seal says so; else why that is not known.

    Raises:
        DataError: A file cannot be read.
    """
    if outline.seal:
        return outline.seal.documents
    if outline.basis == "content":
        reader: CatalogueReader = open_catalogue(Path(outline.uri), config.format)
        return document_hashes(reader, config.chunk_rows)
    return f"the catalogue has no {NAME} (xcflow seal writes it)"


def _listed(uri: str) -> dict[str, Listed]:
    """Name -> file of the folder itself, where no file system would refuse the name."""
    found = {
        file.name: file
        for file in listing(uri)
        if "/" not in file.name and len(file.name.encode()) <= _LONGEST_NAME
    }
    if is_remote(uri) and not found:
        raise DataError("nothing is there: check bucket and prefix", uri)
    return found


@contextmanager
def _skeleton(uri: str, files: Mapping[str, Listed]) -> Iterator[Path]:
    """A folder by which readers find out what the catalogue's files are: by their names.

    That is the catalogue itself on this machine, else one with empty files of the same names.
    """
    if not is_remote(uri):
        yield Path(uri)
        return
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / copy_name(uri.rstrip("/"))
        folder.mkdir()
        for name in files:
            (folder / name).touch()
        yield folder


@contextmanager
def _told_of(uri: str) -> Iterator[None]:
    """Name the catalogue in errors, not the folder that stands for it."""
    try:
        yield
    except DataError as error:
        if not is_remote(uri) or error.file is None or str(error.file).startswith(uri):
            raise
        file = Path(error.file)
        where = f"{uri.rstrip('/')}/{file.name}" if file.is_file() else uri
        raise DataError(error.reason, where, error.line) from error


def _listing_digest(parts: Mapping[str, str], files: Mapping[str, Listed]) -> str:
    rows = [[part, files[name].size, files[name].identity] for part, name in sorted(parts.items())]
    return json_digest(["listing", rows])


def _require_sealed(
    uri: str, seal: Seal, parts: Mapping[str, str], files: Mapping[str, Listed]
) -> None:
    """Refuse a catalogue whose files are not those of its seal, as far as a listing tells."""
    where = f"{uri.rstrip('/')}/{NAME}"
    undone = "an upload is not finished, or it must be written again (xcflow seal)"
    if {part: file.name for part, file in seal.parts.items()} != dict(parts):
        sealed = ", ".join(sorted(file.name for file in seal.parts.values()))
        raise DataError(f"tells of other files ({sealed}) than are there: {undone}", where)
    for file in seal.parts.values():
        if files[file.name].size != file.size:
            found = files[file.name].size
            reason = f"{file.name} has {found:,} bytes, not {file.size:,}: {undone}"
            raise DataError(reason, where)
