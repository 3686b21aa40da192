"""Distinct keys, as ``np.unique`` gives them, but in a fraction of its time for a few thousand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def distinct(keys: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """The keys, rising, each once."""
    keys = np.sort(keys)
    return keys[_first(keys)]


def summed(
    keys: NDArray[np.integer[Any]], values: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.integer[Any]], NDArray[np.float64]]:
    """The keys, rising, each once, and the sum of each one's values, added in their order."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = _first(keys)
    sums = np.bincount(np.cumsum(first) - 1, values[order])
    return keys[first], np.asarray(sums, np.float64)


def _first(rising: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which of the keys differ from the one before."""
    first = np.ones(len(rising), np.bool_)
    np.not_equal(rising[1:], rising[:-1], out=first[1:])
    return first
