"""Balanced hierarchical 2-means on unit vectors.

The tree of Prabhu et al. (Parabel, WWW 2018), for any number of leaves: a node that stands for
``k`` leaves is halved into ``ceil(k / 2)`` and ``floor(k / 2)`` leaves with the share of points
that belongs to each, so leaf sizes differ by at most one. All nodes of a level are split in one
vectorised pass.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BLOCK = 8192  # rows scored at a time: the block stays in the processor's cache


def balanced_clusters(
    vectors: Tensor,
    clusters: int,
    *,
    seed: int,
    max_rounds: int = 20,
    tolerance: float = 1e-4,
) -> NDArray[np.int32]:
    """Assign points to clusters of equal size (within one).

    Args:
        vectors: [N, D] float32 rows of unit length; zero rows are allowed.
        clusters: Number of clusters, from 1 to N.
        seed: Decides the two starting points of every split.
        max_rounds: Bound on the rounds of one level.
        tolerance: A level ends when the mean similarity of points to their own centroid rises by
            less than this.

    Returns:
        [N] the cluster of each point, in ``0..clusters - 1``. Neighbouring numbers are siblings.

    Raises:
        ValueError: ``clusters`` is not in ``1..N``.
    """
    points = len(vectors)
    if not 1 <= clusters <= points:
        raise ValueError(f"cannot make {clusters} clusters of {points} points")
    rng = np.random.default_rng(seed)
    order = torch.arange(points)
    first = np.zeros(1, np.int64)  # first leaf of each node
    last = np.full(1, clusters, np.int64)  # one past its last leaf
    while np.any(last - first > 1):
        middle = np.where(last - first > 1, (first + last + 1) // 2, last)
        start, cut, stop = (
            _points_before(leaf, points, clusters) for leaf in (first, middle, last)
        )
        order = _split_level(vectors, order, start, cut, stop, rng, max_rounds, tolerance)
        children = np.stack([first, middle, last], 1)
        first = children[:, :2].ravel()
        last = children[:, 1:].ravel()
        first, last = first[last > first], last[last > first]
    sizes = np.diff(_points_before(np.arange(clusters + 1), points, clusters))
    assignment = np.empty(points, np.int32)
    assignment[order.numpy()] = np.repeat(np.arange(clusters, dtype=np.int32), sizes)
    return assignment


def _points_before(leaf: NDArray[np.int64], points: int, clusters: int) -> NDArray[np.int64]:
    """Points that lie before a leaf when ``points`` are dealt evenly to ``clusters`` leaves."""
    return leaf * points // clusters


def _split_level(
    vectors: Tensor,
    order: Tensor,
    start: NDArray[np.int64],
    middle: NDArray[np.int64],
    stop: NDArray[np.int64],
    rng: np.random.Generator,
    max_rounds: int,
    tolerance: float,
) -> Tensor:
    """Reorder points so that node ``start:stop`` has its left child at ``start:middle``."""
    nodes = len(start)
    sizes = stop - start
    one = start + rng.integers(0, sizes)
    shift = 1 + rng.integers(0, np.maximum(sizes - 1, 1))
    other = start + (one - start + shift) % sizes
    left, right = vectors[order[one]], vectors[order[other]]
    node_of = torch.repeat_interleave(torch.arange(nodes), torch.from_numpy(sizes))
    edges = torch.from_numpy(np.stack([start, middle], 1).ravel())
    best = -1.0
    for _ in range(max_rounds):
        # Points of a node stay together: the key is the node, then the lean to the right centroid.
        lean = _row_products(vectors, order, right - left, node_of)
        key = node_of.double() * 8.0 + lean.double().clamp(-3.0, 3.0)
        order = order[torch.argsort(key, stable=True)]
        sums = torch.nn.functional.embedding_bag(order, vectors, edges, mode="sum")
        lengths = sums.norm(dim=1, keepdim=True)
        # The similarity of unit points to their own centroid adds up to the centroid's length.
        mean = float(lengths.double().sum()) / len(order)
        centroids = sums / lengths.clamp_min(1e-12)
        left, right = centroids[0::2], centroids[1::2]
        if mean - best < tolerance:
            break
        best = mean
    return order


def _row_products(vectors: Tensor, order: Tensor, directions: Tensor, node_of: Tensor) -> Tensor:
    """[N] inner product of each ordered point with its node's direction, in cache-sized blocks."""
    out = torch.empty(len(order))
    for begin in range(0, len(order), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        # index_select copies whole rows; plain indexing goes value by value, many times as long.
        points = vectors.index_select(0, order[rows])
        torch.linalg.vecdot(points, directions.index_select(0, node_of[rows]), out=out[rows])
    return out
