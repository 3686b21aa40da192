"""Vectors on disk in shards: no file and no copy in memory has the size of the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

SHARD_ROWS = 100_000


class ShardedVectors:
    """[N, D] float16 vectors in memory-mapped files of at most ``SHARD_ROWS`` rows."""

    def __init__(self, shards: list[NDArray[np.float16]]) -> None:
        self._shards = shards
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def dim(self) -> int:
        """D."""
        return int(self._shards[0].shape[1])

    def take(self, rows: NDArray[np.integer[Any]], dtype: Any = np.float32) -> NDArray[Any]:
        """[B, D] vectors of the given rows, in their order."""
        out = np.empty((len(rows), self.dim), dtype)
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(shard_of):
            chosen = shard_of == number
            out[chosen] = self._shards[number][rows[chosen] - self._starts[number]]
        return out

    def all(self, dtype: Any = np.float32) -> NDArray[Any]:
        """[N, D]: everything, in memory."""
        return self.take(np.arange(len(self)), dtype)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the shards of a folder."""
        files = sorted(folder.glob("*.npy"))
        return cls([np.load(file, mmap_mode="r", allow_pickle=False) for file in files])

    @staticmethod
    def write(folder: Path, blocks: Iterator[NDArray[Any]]) -> None:
        """Write blocks of at most ``SHARD_ROWS`` rows, one shard each."""
        folder.mkdir(parents=True)
        for number, block in enumerate(blocks):
            np.save(folder / f"{number:05d}.npy", np.asarray(block, np.float16))
