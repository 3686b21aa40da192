"""Orders of documents in which neighbours share a batch, so that batches hold hard negatives.

NGAME (WSDM 2023): cluster the documents by their embeddings, shuffle the clusters, cut the
sequence into batches. The labels of like documents are hard negatives for each other and cost
nothing. Clusters start small and double with the epochs: random batches first, hard ones later.
An order takes effect in the epoch whose embeddings it was made from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xcflow.distributed.collectives import dealt_rows_at_first
from xcflow.distributed.world import ALONE, World
from xcflow.labels.clustering import balanced_clusters

_ROUNDS = 4  # batches need like documents, not the best clusters


@dataclass(frozen=True)
class Curriculum:
    """When documents are clustered and how large clusters are.

    Attributes:
        start_epoch: Epochs before this one take documents in random order.
        initial_size: Mean documents in a cluster at the start.
        double_every: Epochs after which the size doubles; 0 keeps it.
    """

    start_epoch: int
    initial_size: int
    double_every: int

    def cluster_size(self, epoch: int) -> int:
        """Mean cluster size in an epoch; 1 means random order."""
        if epoch < self.start_epoch:
            return 1
        doublings = (epoch - self.start_epoch) // self.double_every if self.double_every else 0
        return self.initial_size * int(2 ** min(doublings, 20))


def document_order(
    epoch: int, memory: Tensor | None, documents: int, curriculum: Curriculum, seed: int
) -> NDArray[np.int64]:
    """The order of all documents in an epoch, a function of its arguments alone.

    Args:
        epoch: 0-based.
        memory: [N, d] unit vectors of the documents; None takes a random order.
        documents: N.
        curriculum: Cluster sizes.
        seed: The run's seed.

    Returns:
        [N] document positions, each once.
    """
    rng = np.random.default_rng([seed, epoch])
    size = curriculum.cluster_size(epoch)
    clusters = documents // size
    if memory is None or size <= 1 or clusters <= 1:
        return rng.permutation(documents)
    members = balanced_clusters(
        memory, clusters, seed=int(rng.integers(2**31)), max_rounds=_ROUNDS, tolerance=1e-3
    )
    place = rng.permutation(clusters)[members]
    return np.lexsort((rng.random(documents), place))


class DocumentMemory:
    """What the encoder last said of each document, in few dimensions.

    A random projection keeps cosines well enough to tell which documents are alike, at a fraction
    of the memory (4 d bytes a document) and of the clustering time.

    Args:
        documents: N.
        dim: Width D of the encoder's vectors.
        width: d; at least D keeps the vectors as they are.
        seed: Seed of the projection.
        world: Ranks that see the documents; the first remembers them all, for it makes the order.
    """

    def __init__(
        self, documents: int, dim: int, width: int, seed: int, world: World = ALONE
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._projection = torch.randn(dim, width, generator=generator) if width < dim else None
        self.vectors = torch.zeros(documents if world.first else 0, min(width, dim))
        self._world = world

    @torch.no_grad()
    def put(self, rows: NDArray[np.int64], vectors: Tensor) -> None:
        """Remember documents [B], of whose vectors [B, D] each rank brings those dealt to it."""
        kept = vectors if self._projection is None else vectors @ self._projection
        kept = torch.nn.functional.normalize(kept, dim=1)
        kept = dealt_rows_at_first(self._world, kept, len(rows))
        if self._world.first:
            self.vectors[torch.from_numpy(rows)] = kept
