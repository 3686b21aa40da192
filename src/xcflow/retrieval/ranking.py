"""The best labels of rows of scored proposals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xcflow.ragged import Ragged
from xcflow.topk import NO_LABEL, TopK


def top_of_rows(rows: Ragged, scores: NDArray[np.float32], k: int) -> TopK:
    """The ``k`` best of each row; of equal scores the one that stands first.

    Args:
        rows: N rows of label rows.
        scores: The score of each of ``rows.data``.
        k: Width of the result.
    """
    row_ids = rows.row_ids()
    order = np.lexsort((-scores, row_ids))
    rank = np.arange(len(order)) - rows.offsets[row_ids]
    best = rank < k
    labels = np.full((len(rows), k), NO_LABEL, np.int32)
    values = np.full((len(rows), k), -np.inf, np.float32)
    labels[row_ids[best], rank[best]] = rows.data[order[best]]
    values[row_ids[best], rank[best]] = scores[order[best]]
    return TopK(labels, values)
