"""The third voice: labels of the training documents that lie nearest to a document."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xcflow.ragged import Ragged
from xcflow.retrieval.distinct import summed
from xcflow.topk import NO_LABEL, TopK


def vote(
    neighbours: TopK, labels: Ragged, label_count: int, temperature: float
) -> tuple[Ragged, NDArray[np.float32]]:
    """Votes of neighbours for their labels.

    A neighbour's weight is the softmax over the neighbours' similarities; a label's vote is the
    sum of the weights of the neighbours that carry it.

    Args:
        neighbours: [N, n] document positions and their cosines.
        labels: Label rows of the documents searched.
        label_count: L.
        temperature: Of the softmax.

    Returns:
        N rows of label rows, rising, and the vote of each, aligned with the rows' data.
    """
    found = neighbours.labels != NO_LABEL
    similarity = np.where(found, neighbours.scores, -np.inf)
    best = similarity.max(axis=1, keepdims=True, initial=-1.0)
    weights = np.exp((similarity - best) / temperature)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    rows, _ = np.nonzero(found)
    carried = labels.take(neighbours.labels[found])
    keys = np.repeat(rows, carried.lengths) * label_count + carried.data
    carriers, votes = summed(keys, np.repeat(weights[found], carried.lengths))
    row_of, label_of = np.divmod(carriers, label_count)
    offsets = np.searchsorted(row_of, np.arange(len(found) + 1))
    return Ragged(label_of.astype(np.int32), offsets), votes.astype(np.float32)
