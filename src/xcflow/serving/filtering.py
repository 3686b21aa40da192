"""Which labels may answer a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xcflow.ragged import Ragged

_NOTHING = np.empty(0, np.int64)


class Filter(NamedTuple):
    """Which labels may answer a text.

    Attributes:
        only: Rows of the labels that may, rising; None for all.
        without: Rows of labels that may not.
    """

    only: NDArray[np.int64] | None = None
    without: NDArray[np.int64] = _NOTHING


def only_of(filters: Sequence[Filter]) -> Ragged:
    """For each filter the rows that it names alone; none where it lets all pass."""
    named = [_NOTHING if each.only is None else each.only for each in filters]
    offsets = np.concatenate(([0], np.cumsum([len(rows) for rows in named], dtype=np.int64)))
    return Ragged(np.concatenate([_NOTHING, *named]), offsets)


def passing_of(filters: Sequence[Filter], labels: Ragged) -> NDArray[np.bool_]:
    """[T] which of N rows of labels the N filters let pass."""
    passing = np.ones(len(labels.data), np.bool_)
    for row, each in enumerate(filters):
        part = slice(labels.offsets[row], labels.offsets[row + 1])
        if each.only is not None:
            passing[part] &= np.isin(labels.data[part], each.only)
        if len(each.without):
            passing[part] &= ~np.isin(labels.data[part], each.without)
    return passing
