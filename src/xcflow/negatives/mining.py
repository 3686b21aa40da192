"""Hard negatives from nearest-neighbour search: labels that a model takes for right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xcflow.config import RetrievalConfig
from xcflow.distributed.rankings import best_of_ranks
from xcflow.distributed.world import ALONE, World
from xcflow.progress import progress
from xcflow.retrieval.index import VectorIndex
from xcflow.topk import TopK
from xcflow.vectors import ShardedVectors

_BLOCK = 8192
_SEARCHED_EXACTLY = 50_000  # labels; with more, inverted lists are built and read in less time
_FEWER_LISTS = 3
_READ = 2_000  # labels that a document is compared with, about, however many there are


def mine(
    documents: ShardedVectors,
    rows: NDArray[np.int64],
    labels: NDArray[np.float32],
    depth: int,
    config: RetrievalConfig,
    world: World = ALONE,
) -> NDArray[np.int32]:
    """The labels nearest to each document; the true ones among them are harmless, being known.

    Args:
        documents: Unit vectors of documents.
        rows: [N] the documents to mine for.
        labels: [M, D] unit vectors, of which each rank brings those dealt to it.
        depth: Labels of a document.
        config: Which index; what ``auto`` means here is in ``_searched_once``.
        world: Ranks that search their own labels and put together what they found.

    Returns:
        [N, depth] label rows, ``NO_LABEL`` where there are fewer labels.
    """
    index = None
    if len(labels):  # more ranks than labels: some have none to search
        index = VectorIndex.build(labels, _searched_once(config, len(labels)))
    out = np.empty((len(rows), depth), np.int32)
    with progress("mining negatives", len(rows), "documents") as advance:
        for start in range(0, len(rows), _BLOCK):
            block = documents.take(rows[start : start + _BLOCK])
            top = index.search(block, depth) if index else TopK.none(len(block), depth)
            out[start : start + len(block)] = best_of_ranks(world, top).labels
            advance(len(block))
    return out


def _searched_once(config: RetrievalConfig, labels: int) -> RetrievalConfig:
    """How an index is built that serves a single search and may miss some of what is near.

    Documents ask by the thousand, which an exact search answers as fast as a scan. Of many labels
    some may be missed, for another negative will do: inverted lists are read, fewer than for
    answers, and never more of them the more labels there are.
    """
    if config.index != "auto":
        return config
    return replace(
        config,
        flat_limit=_SEARCHED_EXACTLY,
        scan_limit=0,
        ivf_probe=min(config.ivf_probe / _FEWER_LISTS, _READ / max(labels, 1)),
    )
