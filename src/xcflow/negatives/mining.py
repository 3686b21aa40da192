"""Hard negatives from nearest-neighbour search: labels that a model takes for right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xcflow.config import RetrievalConfig
from xcflow.progress import progress
from xcflow.retrieval.index import VectorIndex
from xcflow.vectors import ShardedVectors

_BLOCK = 8192


def mine(
    documents: ShardedVectors,
    rows: NDArray[np.int64],
    labels: NDArray[np.float32],
    depth: int,
    config: RetrievalConfig,
) -> NDArray[np.int32]:
    """The labels nearest to each document; the true ones among them are harmless, being known.

    Args:
        documents: Unit vectors of documents.
        rows: [N] the documents to mine for.
        labels: [M, D] unit vectors.
        depth: Labels of a document.
        config: Which index, by size; an exact search of many labels would take too long.

    Returns:
        [N, depth] label rows, ``NO_LABEL`` where there are fewer labels.
    """
    index = VectorIndex.build(labels, config)
    out = np.empty((len(rows), depth), np.int32)
    with progress("mining negatives", len(rows), "documents") as advance:
        for start in range(0, len(rows), _BLOCK):
            block = documents.take(rows[start : start + _BLOCK])
            out[start : start + len(block)] = index.search(block, depth).labels
            advance(len(block))
    return out
