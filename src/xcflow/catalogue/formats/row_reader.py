"""What all readers do: gather rows, one by one, into chunks of bounded memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from xcflow.catalogue.readers import Chunk, Fault, Role

# A chunk ends early at about this many bytes, so that long texts do not multiply its memory.
CHUNK_BYTES = 8 * 2**20
# What a label id takes in memory, roughly.
LABEL_BYTES = 64


class Row(NamedTuple):
    """One row; what is not of its role is empty (see ``Chunk``)."""

    line: int
    id: str
    text: str
    labels: list[str]


class RowReader(ABC):
    """A reader that knows one row at a time; see ``CatalogueReader`` for its attributes."""

    folder: Path
    files: Mapping[Role, Path]
    parts: Mapping[str, Path]

    def chunks(self, role: Role, rows: int) -> Iterator[Chunk]:
        """See ``CatalogueReader.chunks``."""
        return _chunks_of(self.rows(role), rows)

    @abstractmethod
    def rows(self, role: Role) -> Iterator[Row | Fault]:
        """The rows of a role in the order of its file.

        Raises:
            DataError: The file as a whole cannot be read (further).
        """


def _chunks_of(rows: Iterable[Row | Fault], limit: int) -> Iterator[Chunk]:
    """The rows in their order, at most ``limit`` with faults at a time, never none."""
    chunk, size = Chunk(), 0
    for row in rows:
        if isinstance(row, Fault):
            chunk.faults.append(row)
        else:
            chunk.lines.append(row.line)
            chunk.ids.append(row.id)
            chunk.texts.append(row.text)
            chunk.labels.append(row.labels)
            size += len(row.text) + LABEL_BYTES * len(row.labels)
        if len(chunk) + len(chunk.faults) >= limit or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = Chunk(), 0
    if chunk.ids or chunk.faults:
        yield chunk
