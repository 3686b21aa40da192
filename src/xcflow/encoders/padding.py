"""Token rows of different lengths as the rectangles that a transformer reads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.ragged import Ragged


def like_lengths(lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Cut rows into parts of like length, shortest first: padding costs little in each.

    Args:
        lengths: [N] tokens of each row.
        budget: Tokens of a padded part, at most; a longer row is a part of its own.

    Returns:
        The row numbers of each part.
    """
    order = np.argsort(lengths, kind="stable")
    parts = []
    start = 0
    for stop in range(1, len(order) + 1):
        if stop == len(order) or lengths[order[stop]] * (stop + 1 - start) > budget:
            parts.append(order[start:stop])
            start = stop
    return parts


def of_one_width(
    widths: NDArray[np.int64], budget: int, parts_at_least: int
) -> list[NDArray[np.int64]]:
    """Cut rows into parts of one width each, narrowest first.

    Args:
        widths: [N] of the rows, padded.
        budget: Tokens of a part, at most; a wider row is a part of its own.
        parts_at_least: Parts of like size wanted, where there are as many rows.

    Returns:
        The row numbers of each part.
    """
    share = -(-int(widths.sum()) // parts_at_least)
    parts = []
    for width in np.unique(widths).tolist():
        rows = np.flatnonzero(widths == width)
        most = max(min(budget, share) // width, 1)
        parts += np.array_split(rows, -(-len(rows) // most))
    return parts


def padded(
    tokens: Ragged, ends: tuple[int, int], limit: int, width: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask, both [B, width], of B rows between an opening and a closing token.

    Args:
        tokens: B rows.
        ends: The opening and the closing token.
        limit: Tokens of a row, at most, with these two; longer ones are cut.
        width: That of the longest row unless given.
    """
    lengths = np.minimum(tokens.lengths, limit - 2)
    width = width or int(lengths.max(initial=0)) + 2
    column = np.arange(width)
    mask = column < (lengths + 2)[:, None]
    inside = (column >= 1) & (column <= lengths[:, None])
    ids = np.zeros((len(lengths), width), np.int64)
    source: NDArray[Any] = tokens.offsets[:-1, None] + column - 1
    ids[inside] = tokens.data[source[inside]]
    ids[:, 0] = ends[0]
    ids[np.arange(len(lengths)), lengths + 1] = ends[1]
    return ids, mask.astype(np.int64)
