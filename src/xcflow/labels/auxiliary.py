"""Auxiliary vectors: one trained vector per cluster of related labels, added on the label side.

Formula (DEXA, KDD 2023): z(l) = unit(unit(E(text_l)) + A[c(l)]). The authors' code adds the vector
to the un-normalised E instead; ``auxiliary_on = "raw"`` does that. Documents get nothing, and at
inference the vector is folded into the stored z(l). Where an encoder has parts that are trained
each for itself, the formula holds for each of them, and z(l) is made of them at equal length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xcflow.config import ClusteringConfig
from xcflow.encoders.parts import unit_parts
from xcflow.labels.clustering import balanced_clusters
from xcflow.row_table import RowTable

NO_VECTOR = -1


def map_labels(
    vectors: Tensor, counts: NDArray[np.int64], config: ClusteringConfig, seed: int
) -> tuple[NDArray[np.int32], int]:
    """Give each label the row of its auxiliary vector.

    The most frequent labels get a row of their own; the others share one within a balanced
    cluster of like labels.

    Args:
        vectors: [L, D] unit vectors of the labels, from the encoder before training.
        counts: [L] training documents of each label.
        config: Number of clusters and of private rows.
        seed: Seed of the clustering.

    Returns:
        [L] the row of each label (``NO_VECTOR`` everywhere if ``clusters`` is 0) and the number of
        rows. Shared rows come first.
    """
    labels = len(counts)
    rows = np.full(labels, NO_VECTOR, np.int32)
    if config.clusters == 0:
        return rows, 0
    frequent = np.argsort(-counts, kind="stable")[: config.private_labels]
    frequent = np.sort(frequent[counts[frequent] >= config.private_min_count])
    others = np.setdiff1d(np.arange(labels), frequent, assume_unique=True)
    shared = 0
    if len(others):
        shared = min(config.clusters, max(1, len(others) // config.min_cluster_size))
        rows[others] = balanced_clusters(
            vectors[torch.from_numpy(others)],
            shared,
            seed=seed,
            max_rounds=config.max_rounds,
            tolerance=config.tolerance,
        )
    rows[frequent] = shared + np.arange(len(frequent), dtype=np.int32)
    return rows, shared + len(frequent)


class AuxiliaryVectors:
    """The trained table A [K, D] and the map c from labels to its rows.

    Args:
        row_of_label: [L] row of each label.
        rows: K; 0 makes ``augment`` plain normalisation (NGAME).
        parts: Widths of the parts of E, which add up to D.
        on_unit: Whether E(text) is normalised before the vector joins (the paper) or not.
        norm: Norm of each initial vector's parts; their directions are random.
        generator: Source of the directions.
    """

    def __init__(
        self,
        row_of_label: NDArray[np.int32],
        rows: int,
        parts: tuple[int, ...],
        *,
        on_unit: bool,
        norm: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        self.row_of_label = torch.from_numpy(row_of_label.astype(np.int64))
        self._on_unit = on_unit
        self.parts = parts
        table = torch.randn(rows, sum(parts), generator=generator)
        self.table = RowTable(norm * len(parts) ** 0.5 * unit_parts(table, parts))

    def augment(self, encoded: Tensor, labels: Tensor, *, training: bool) -> Tensor:
        """Unit vectors z [U, D] of encoded label texts.

        Args:
            encoded: [U, D] the encoder's vectors of the labels' texts.
            labels: [U] label rows.
            training: Whether the auxiliary rows collect gradients.
        """
        if training:
            return self.augment_dealt(encoded, [labels])
        rows = self.row_of_label[labels]
        return self._sums(encoded, self.table.weight[rows] if len(self.table.weight) else None)

    def augment_dealt(self, encoded: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """The same for this rank's labels of a batch that all ranks know, in training.

        Args:
            encoded: [U, D] vectors of this rank's labels.
            labels: The label rows of each rank to which ``table`` is dealt.
        """
        if not len(self.table.weight):
            return self._sums(encoded, None)
        seen, place = torch.unique(self.row_of_label[torch.cat(list(labels))], return_inverse=True)
        columns = torch.nn.functional.embedding(place, self.table.gather(seen))
        return self._sums(encoded, self.table.own_rows(columns, [len(each) for each in labels]))

    def _sums(self, encoded: Tensor, vectors: Tensor | None) -> Tensor:
        # Parts of length 1, so that each vector weighs as much against its part as A's norm says.
        scale = len(self.parts) ** 0.5
        base = scale * (unit_parts(encoded, self.parts) if self._on_unit else encoded)
        return unit_parts(base if vectors is None else base + vectors, self.parts)

    def step(self, rate: float) -> None:
        """Update the rows that the last ``augment`` in training used."""
        if len(self.table.weight):
            self.table.step(rate)
