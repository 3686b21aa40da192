"""64-bit hashes of strings: what remembers a document in 8 bytes."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]


def hash_strings(strings: Iterable[str]) -> Hashes:
    """[N] uint64 blake2b hashes, the same on every machine.

    Two different strings share a hash with probability 2^-64, so a false repetition among a
    hundred million documents has a probability of 3 in 10,000.
    """
    digests = (blake2b(s.encode(), digest_size=8).digest() for s in strings)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64, copy=False)


def hash_texts(texts: Iterable[str]) -> Hashes:
    """[N] hashes of texts that do not see case and white space."""
    return hash_strings(" ".join(text.split()).casefold() for text in texts)


def first_positions(hashes: Hashes) -> NDArray[np.int64]:
    """[N] the first position that holds the same value."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return first[inverse]


def find_hashes(table: Hashes, wanted: Hashes) -> NDArray[np.int64]:
    """[len(wanted)] the first position of each value in ``table``, -1 where it is absent."""
    values, first = np.unique(table, return_index=True)
    if not len(values):
        return np.full(len(wanted), -1, np.int64)
    place = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[place] == wanted, first[place], -1)


class SeenHashes:
    """Remembers the hashes of a stream: 8 bytes each."""

    def __init__(self) -> None:
        self._sorted: Hashes = np.empty(0, np.uint64)

    def add(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Remember hashes; [N] whether each came before, in this call or an earlier one."""
        is_later = first_positions(hashes) < np.arange(len(hashes))
        again = is_later | self._contains(hashes)
        self._sorted = _merged(self._sorted, np.sort(hashes[~again]))
        return again

    def _contains(self, hashes: Hashes) -> NDArray[np.bool_]:
        if not len(self._sorted):
            return np.zeros(len(hashes), bool)
        place = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        found: NDArray[np.bool_] = self._sorted[place] == hashes
        return found


def _merged(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    return np.insert(a, np.searchsorted(a, b), b)
