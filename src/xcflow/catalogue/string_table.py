"""Many strings as two plain arrays: their UTF-8 bytes end to end, and where each begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.arrays import RaggedWriter
from xcflow.ragged import Ragged

# Long strings make a part shorter, so that they do not multiply its memory.
CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True, eq=False)
class StringTable:
    """``N`` strings; string ``i`` is the UTF-8 text of the bytes in row ``i``.

    Attributes:
        rows: The bytes (uint8) of each string; memory-mapped when loaded.
    """

    rows: Ragged

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> str:
        return self.rows[range(len(self))[row]].tobytes().decode()

    def take(self, rows: NDArray[np.integer[Any]]) -> list[str]:
        """The strings of the given rows, in the given order."""
        return _decoded(self.rows.take(rows))

    def slice(self, start: int, stop: int) -> list[str]:
        """The strings of rows ``start:stop``."""
        return _decoded(self.rows.slice(start, min(stop, len(self))))

    def spans(self, rows: int) -> Iterator[tuple[int, int]]:
        """Bounds of consecutive parts of at most ``rows`` strings and ``CHUNK_BYTES`` bytes.

        A single longer string is a part by itself.
        """
        offsets, start = self.rows.offsets, 0
        while start < len(self):
            fitting = int(np.searchsorted(offsets, offsets[start] + CHUNK_BYTES, side="right")) - 1
            stop = min(max(fitting, start + 1), start + rows, len(self))
            yield start, stop
            start = stop

    def chunks(self, rows: int) -> Iterator[list[str]]:
        """All strings in their order, a part (see ``spans``) at a time."""
        return (self.slice(start, stop) for start, stop in self.spans(rows))

    def char_counts(self) -> NDArray[np.int64]:
        """[N] characters of each string."""
        counts = [np.empty(0, np.int64)]
        for start, stop in self.spans(len(self)):
            part = self.rows.slice(start, stop)
            begins = (part.data & 0xC0) != 0x80  # all but the later bytes of a character in UTF-8
            before = np.concatenate([[0], np.cumsum(begins)])
            counts.append(np.diff(before[part.offsets]))
        return np.concatenate(counts)

    def to_list(self) -> list[str]:
        """All strings."""
        return self.slice(0, len(self))

    def find(self, strings: Sequence[str]) -> NDArray[np.int64]:
        """[len(strings)] the row of each string, -1 where the table lacks it.

        The first call builds an index in memory. Of equal strings in the table the first is found.
        """
        index = self._index
        return np.fromiter((index.get(s, -1) for s in strings), np.int64, len(strings))

    @cached_property
    def _index(self) -> dict[str, int]:
        last = len(self) - 1
        return {string: last - i for i, string in enumerate(reversed(self.to_list()))}

    @classmethod
    def from_list(cls, strings: Sequence[str]) -> Self:
        """Build in memory."""
        return cls(_encoded(strings))

    def save(self, prefix: Path) -> None:
        """Write ``<prefix>.data.npy`` (the bytes) and ``<prefix>.offsets.npy``."""
        self.rows.save(prefix)

    @classmethod
    def load(cls, prefix: Path) -> Self:
        """Open what ``save`` or a ``StringTableWriter`` wrote."""
        return cls(Ragged.load(prefix))


class StringTableWriter(RaggedWriter):
    """Appends strings to the files of a ``StringTable``."""

    def __init__(self, prefix: Path) -> None:
        super().__init__(prefix, np.uint8)

    def append_strings(self, strings: Sequence[str]) -> None:
        """Add strings."""
        self.append(_encoded(strings))


def _encoded(strings: Sequence[str]) -> Ragged:
    encoded = [string.encode() for string in strings]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
    return Ragged(np.frombuffer(b"".join(encoded), np.uint8), offsets)


def _decoded(rows: Ragged) -> list[str]:
    data, bounds = rows.data.tobytes(), rows.offsets.tolist()
    return [data[a:b].decode() for a, b in pairwise(bounds)]
