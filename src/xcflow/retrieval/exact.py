"""Exact maximum inner product search, in blocks: the reference for every index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.half import as_float32
from xcflow.topk import NO_LABEL, TopK

_QUERIES = 4096
# Keys that are searched at a time; of what is stored in half precision or comes in blocks, only so
# many are ever in memory as float32.
KEYS = 65_536


def search(queries: NDArray[np.float32], keys: NDArray[Any], k: int) -> TopK:
    """The ``k`` keys with the largest inner product with each query.

    Args:
        queries: [N, D] float32.
        keys: [L, D] of any floating type, possibly memory-mapped.
        k: Results wanted; where ``L`` is less, the rest is padded with ``NO_LABEL``.

    Returns:
        Key rows [N, k] and their inner products, best first.
    """
    return search_blocks(queries, _blocks(keys), k)


def search_blocks(queries: NDArray[np.float32], blocks: Iterable[NDArray[Any]], k: int) -> TopK:
    """The same where the keys come in consecutive blocks: the keys need not exist as a whole."""
    best, start = TopK.none(len(queries), k), 0
    for keys in blocks:
        found = _search(queries, keys, k)
        found.labels[found.labels != NO_LABEL] += start
        best = _better(best, found) if start else found
        start += len(keys)
    return best


def _search(queries: NDArray[np.float32], keys: NDArray[Any], k: int) -> TopK:
    import faiss

    best, found = TopK.none(len(queries), k), min(k, len(keys))
    if found:
        keys = as_float32(keys)
        for start in range(0, len(queries), _QUERIES):
            block = as_float32(queries[start : start + _QUERIES])
            values, rows = faiss.knn(block, keys, found, metric=faiss.METRIC_INNER_PRODUCT)
            best.scores[start : start + len(block), :found] = values
            best.labels[start : start + len(block), :found] = rows
    return best


def _better(a: TopK, b: TopK) -> TopK:
    """The best of both, as wide as each; of equal scores those of ``a`` come first."""
    labels, scores = (np.concatenate(pair, axis=1) for pair in zip(a, b, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")[:, : a.labels.shape[1]]
    return TopK(*(np.take_along_axis(part, order, axis=1) for part in (labels, scores)))


def _blocks(keys: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (keys[start : start + KEYS] for start in range(0, len(keys), KEYS))
