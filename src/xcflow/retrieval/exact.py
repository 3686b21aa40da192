"""Exact maximum inner product search, in blocks: the reference for every index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.topk import NO_LABEL, TopK

_QUERIES = 4096


def search(queries: NDArray[np.float32], keys: NDArray[np.float32], k: int) -> TopK:
    """The ``k`` keys with the largest inner product with each query.

    Args:
        queries: [N, D] float32.
        keys: [L, D] float32.
        k: Results wanted; where ``L`` is less, the rest is padded with ``NO_LABEL``.

    Returns:
        Key rows [N, k] and their inner products, best first.
    """
    import faiss

    labels = np.full((len(queries), k), NO_LABEL, np.int32)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    found = min(k, len(keys))
    if found:
        keys = _contiguous(keys)
        for start in range(0, len(queries), _QUERIES):
            block = _contiguous(queries[start : start + _QUERIES])
            values, rows = faiss.knn(block, keys, found, metric=faiss.METRIC_INNER_PRODUCT)
            scores[start : start + len(block), :found] = values
            labels[start : start + len(block), :found] = rows
    return TopK(labels, scores)


def _contiguous(array: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, np.float32)
