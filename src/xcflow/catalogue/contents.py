"""Which labels and documents a catalogue holds, by the ids that ``ingest`` would keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xcflow.catalogue.hashing import Hashes, SeenHashes, hash_strings
from xcflow.catalogue.readers import CatalogueReader, Chunk, Role
from xcflow.catalogue.string_table import StringTable, StringTableWriter


class LabelTable(NamedTuple):
    """The labels of a catalogue in its order: the id of each, and its text."""

    ids: StringTable
    texts: StringTable


def read_labels(reader: CatalogueReader, rows: int, folder: Path) -> LabelTable:
    """The labels of a catalogue.

    Args:
        reader: The catalogue.
        rows: Rows read at a time.
        folder: Gets the tables, which are memory-mapped.

    Raises:
        DataError: The file cannot be read (further).
    """
    seen = SeenHashes()
    ids, texts = folder / "ids", folder / "texts"
    with StringTableWriter(ids) as id_writer, StringTableWriter(texts) as text_writer:
        for chunk in _with_ids(reader, "labels", rows):
            first = np.flatnonzero(~seen.add(hash_strings(chunk.ids))).tolist()
            kept = chunk.take(first)
            id_writer.append_strings(kept.ids)
            pairs = zip(kept.ids, kept.texts, strict=True)
            text_writer.append_strings([text if text.strip() else label for label, text in pairs])
    return LabelTable(StringTable.load(ids), StringTable.load(texts))


def label_hashes(reader: CatalogueReader, rows: int) -> Hashes:
    """Hash of each label's id, sorted, each once; raises what ``read_labels`` does."""
    return _hashes_of_ids(reader, ("labels",), rows)


def document_hashes(reader: CatalogueReader, rows: int) -> Hashes:
    """Hash of each document's id, training and test, sorted, each once.

    Raises:
        DataError: A file cannot be read (further).
    """
    return _hashes_of_ids(reader, ("train", "test"), rows)


def _hashes_of_ids(reader: CatalogueReader, roles: tuple[Role, ...], rows: int) -> Hashes:
    parts = [hash_strings(c.ids) for role in roles for c in _with_ids(reader, role, rows)]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))


def _with_ids(reader: CatalogueReader, role: Role, rows: int) -> Iterator[Chunk]:
    """The rows that can be read and have an id."""
    for chunk in reader.chunks(role, rows):
        named = [i for i, row_id in enumerate(chunk.ids) if row_id.strip()]
        yield chunk if len(named) == len(chunk) else chunk.take(named)
