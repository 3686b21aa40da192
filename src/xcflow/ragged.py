"""Rows of different lengths as two plain arrays (token ids, label ids, neighbour lists)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Ragged:
    """``N`` rows of different lengths; row ``i`` is ``data[offsets[i]:offsets[i + 1]]``.

    Attributes:
        data: [T] values of all rows, end to end; may be memory-mapped.
        offsets: [N + 1] int64, starting at 0.
    """

    data: NDArray[Any]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.data[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[N] number of values of each row."""
        return self.offsets[1:] - self.offsets[:-1]  # np.diff takes several times as long

    def take(self, rows: NDArray[np.integer[Any]]) -> Ragged:
        """The given rows, in the given order, copied into memory; no Python loop over rows."""
        places, offsets = self.places(rows)
        return Ragged(np.asarray(self.data[places]), offsets)

    def places(self, rows: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where in ``data`` the values of the given rows stand, and where each row begins there."""
        rows = np.asarray(rows)
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), offsets

    def slice(self, start: int, stop: int) -> Ragged:
        """Rows ``start:stop``; ``data`` stays a view."""
        offsets = np.asarray(self.offsets[start : stop + 1])
        return Ragged(self.data[offsets[0] : offsets[-1]], offsets - offsets[0])

    def row_ids(self) -> NDArray[np.int64]:
        """[T] the row that each value of ``data`` belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def counts(self, size: int) -> NDArray[np.int64]:
        """[size] how often each value occurs in ``data``."""
        return np.bincount(self.data, minlength=size).astype(np.int64, copy=False)

    def also_in(self, other: Ragged) -> NDArray[np.bool_]:
        """[T] whether each value stands in the same row of ``other`` too (values not negative)."""
        size = int(max(self.data.max(initial=0), other.data.max(initial=0))) + 1
        keys = self.row_ids() * size + self.data
        return np.isin(keys, other.row_ids() * size + other.data)

    def keep(self, kept: NDArray[np.bool_]) -> Ragged:
        """The same rows with only the values that are marked in ``kept`` [T]."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return Ragged(self.data[kept], before[self.offsets])

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[int]], dtype: Any = np.int32) -> Self:
        """Build from Python sequences."""
        rows = list(rows)
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.fromiter(chain.from_iterable(rows), dtype, int(offsets[-1])), offsets)

    @classmethod
    def concatenate(cls, parts: Sequence[Ragged]) -> Self:
        """The rows of all parts (at least one), end to end."""
        lengths = np.concatenate([part.lengths for part in parts])
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(np.concatenate([part.data for part in parts]), offsets)

    def beside(self, other: Ragged) -> Ragged:
        """Each row followed by the same row of ``other``."""
        data = np.empty(len(self.data) + len(other.data), np.result_type(self.data, other.data))
        first = np.arange(len(self.data)) + np.repeat(other.offsets[:-1], self.lengths)
        second = np.arange(len(other.data)) + np.repeat(self.offsets[1:], other.lengths)
        data[first], data[second] = self.data, other.data
        return Ragged(data, self.offsets + other.offsets)

    def save(self, prefix: Path) -> None:
        """Write ``<prefix>.data.npy`` and ``<prefix>.offsets.npy``."""
        np.save(f"{prefix}.data.npy", self.data)
        np.save(f"{prefix}.offsets.npy", self.offsets)

    @classmethod
    def load(cls, prefix: Path, *, mmap: bool = True) -> Self:
        """Read what ``save`` wrote; ``data`` is memory-mapped unless told otherwise."""
        data = np.load(f"{prefix}.data.npy", mmap_mode="r" if mmap else None, allow_pickle=False)
        # As a plain array: each look at a memmap costs microseconds.
        return cls(np.asarray(data), np.load(f"{prefix}.offsets.npy", allow_pickle=False))
