"""The validation split, carved from the training documents by a hash of their ids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.hashing import Hashes


def validation_split(
    hashes: Hashes, usable: NDArray[np.bool_], fraction: float, at_most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the usable documents into those to learn from and those held out.

    The documents with the smallest hashes are held out, so the choice depends on the ids alone and
    not on the order of the rows.

    Args:
        hashes: [N] hash of each document's id.
        usable: [N] whether the document has a text and a label.
        fraction: Share of the usable documents to hold out.
        at_most: Largest number of documents to hold out.

    Returns:
        Sorted rows to learn from and sorted rows held out. Of ``n >= 2`` usable documents at least
        one is in each; a single one is in both, so that nothing downstream meets an empty split.
    """
    rows = np.flatnonzero(usable)
    if len(rows) < 2:
        return rows, rows
    count = min(max(round(fraction * len(rows)), 1), max(at_most, 1), len(rows) - 1)
    order = np.argsort(hashes[rows], kind="stable")
    return np.sort(rows[order[count:]]), np.sort(rows[order[:count]])
