"""The best labels of each document: what predictors return and what metrics take."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xcflow.ragged import Ragged

NO_LABEL = -1


class TopK(NamedTuple):
    """The ``k`` best labels of ``N`` documents.

    Attributes:
        labels: [N, k] int32 label rows, best first, ``NO_LABEL`` after the last one.
        scores: [N, k] float32 in falling order, -inf where there is no label.
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.float32]

    @classmethod
    def none(cls, documents: int, k: int) -> TopK:
        """No label for any of ``documents``, to be filled."""
        return cls(
            np.full((documents, k), NO_LABEL, np.int32),
            np.full((documents, k), -np.inf, np.float32),
        )

    def first(self, documents: int) -> TopK:
        """The first documents alone."""
        return TopK(self.labels[:documents], self.scores[:documents])

    def rows(self) -> Ragged:
        """The labels as N rows, best first, without the padding."""
        shown = self.labels != NO_LABEL
        return Ragged(self.labels[shown], np.concatenate([[0], np.cumsum(shown.sum(axis=1))]))

    def keep(self, kept: NDArray[np.bool_], k: int) -> TopK:
        """The ``k`` best among the kept ones, which close ranks in their order.

        Args:
            kept: [N, k'] which entries stay.
            k: Width of the result, wider or narrower than this one.
        """
        order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
        rows = np.arange(len(kept))[:, None]
        stays = kept[rows, order]
        best, width = TopK.none(len(kept), k), order.shape[1]
        best.labels[:, :width] = np.where(stays, self.labels[rows, order], NO_LABEL)
        best.scores[:, :width] = np.where(stays, self.scores[rows, order], -np.inf)
        return best


def best_of(
    labels: NDArray[np.integer[Any]], scores: NDArray[np.floating[Any]], k: int
) -> tuple[NDArray[np.integer[Any]], NDArray[np.floating[Any]]]:
    """The ``k`` best labels, best first; of equal scores the lower row comes first."""
    if len(scores) > k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = scores >= threshold
        labels, scores = labels[chosen], scores[chosen]
    order = np.lexsort((labels, -scores))[:k]
    return labels[order], scores[order]
