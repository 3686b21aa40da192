"""What each document adds to the ranking metrics of extreme classification.

With ``N`` documents, ``S`` slices of the labels and the depths ``ks`` (``K`` of them), document
``i`` with the true labels ``y_i`` and the predicted labels ``r_1, r_2, ...`` contributes

- hits@k: how many of ``r_1..r_k`` are in ``y_i``; P@k is their mean over ``k``, R@k the mean of
  hits@k / ``|y_i|``;
- nDCG@k: ``sum(1 / log2(j + 1) for hits at rank j <= k)`` over the same sum for the ideal order,
  whose first ``min(k, |y_i|)`` ranks are all hits;
- PSP@k: ``sum(q_l for hits l at rank <= k)``, and the same sum for the best possible ``k`` labels.
  The metric is the ratio of the two totals over all documents, not the mean of ratios.

``q_l`` is the inverse propensity of label ``l`` (Jain et al., KDD 2016): how much rarer it was
seen as true than it is true. Everything here is vectorised over a block of documents, and nothing
has the size documents x labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from xcflow.config import EvaluationConfig
from xcflow.evaluation.slices import SLICES, slice_labels
from xcflow.ragged import Ragged
from xcflow.topk import TopK


def inverse_propensity(
    counts: NDArray[np.integer[Any]], documents: int, a: float, b: float
) -> NDArray[np.float64]:
    """Inverse propensities ``q_l = 1 + C (n_l + b)^-a`` with ``C = (ln N - 1) (b + 1)^a``.

    Args:
        counts: [L] number of training documents ``n_l`` of each label.
        documents: Number ``N`` of training documents.
        a: Exponent of the propensity model.
        b: Offset of the propensity model.

    Returns:
        [L] at least 1: with fewer than three training documents ``C`` would be negative, is taken
        as 0, and every label weighs the same.
    """
    c = max(np.log(max(documents, 1)) - 1.0, 0.0) * (b + 1.0) ** a
    return np.asarray(1.0 + c * (np.asarray(counts, np.float64) + b) ** -a)


def contains(rows: Ragged, labels: NDArray[np.integer[Any]], size: int) -> NDArray[np.bool_]:
    """Which of a document's listed labels stand in its row.

    Args:
        rows: ``B`` rows of label rows below ``size``, in any order.
        labels: [B, k] label rows; negative ones are never contained.
        size: Number of labels ``L``.

    Returns:
        [B, k]
    """
    if len(rows.data) == 0:
        return np.zeros(labels.shape, np.bool_)
    keys = np.sort(rows.row_ids() * size + rows.data)
    wanted = np.arange(len(labels))[:, None] * size + labels
    found = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
    return np.asarray(found & (labels >= 0))


def without(rows: Ragged, removed: Ragged) -> Ragged:
    """Rows without the values that ``removed`` lists for the same row."""
    return rows.keep(~rows.also_in(removed))


def drop_filtered(top: TopK, filtered: Ragged, size: int, k: int) -> TopK:
    """The ``k`` best labels once the filtered pairs are taken out of ``top``.

    ``top`` must be wider than ``k`` by as many labels as the longest row of ``filtered``.
    """
    return top.keep((top.labels >= 0) & ~contains(filtered, top.labels, size), k)


class TruthPart(NamedTuple):
    """What the true labels alone determine, the same for every model.

    Attributes:
        sizes: [B, S] int32 number of true labels in each slice.
        psp_best: [B, K] float32 largest possible sum of inverse propensities within depth k.
    """

    sizes: NDArray[np.int32]
    psp_best: NDArray[np.float32]


class RankingPart(NamedTuple):
    """What one model's ranking contributes.

    Attributes:
        hits: [B, S, K] int16 true labels of each slice within depth k.
        psp: [B, S, K] float32 their sum of inverse propensities.
        ndcg: [B, K] float32 nDCG@k.
    """

    hits: NDArray[np.int16]
    psp: NDArray[np.float32]
    ndcg: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Measure:
    """Turns blocks of rankings into contributions.

    Attributes:
        ks: ``K`` depths, rising.
        gains: [L] inverse propensity of each label.
        slice_of: [L] int8 the slice of each label, an index into ``SLICES``.
    """

    ks: tuple[int, ...]
    gains: NDArray[np.float64]
    slice_of: NDArray[np.int8]

    @classmethod
    def of_training(
        cls, counts: NDArray[np.integer[Any]], documents: int, config: EvaluationConfig
    ) -> Self:
        """The measure that a training split determines.

        Args:
            counts: [L] training documents of each label, over the whole training split.
            documents: Number of training documents.
            config: Depths and constants of the propensity model.
        """
        gains = inverse_propensity(counts, documents, config.propensity_a, config.propensity_b)
        return cls(config.ks, gains, slice_labels(counts))

    @property
    def depth(self) -> int:
        """The largest k: how many predictions of a document are needed."""
        return self.ks[-1]

    @property
    def size(self) -> int:
        """Number of labels ``L``."""
        return len(self.gains)

    @cached_property
    def _discounts(self) -> NDArray[np.float64]:
        return np.asarray(1.0 / np.log2(np.arange(self.depth) + 2.0))

    @cached_property
    def _columns(self) -> NDArray[np.int64]:
        return np.asarray(self.ks) - 1

    def truth(self, truth: Ragged) -> TruthPart:
        """The part of the true labels (unique in each row) of ``B`` documents."""
        documents, row_ids = len(truth), truth.row_ids()
        cells = row_ids * len(SLICES) + self.slice_of[truth.data]
        sizes = np.bincount(cells, minlength=documents * len(SLICES))
        gains = self.gains[truth.data]
        order = np.lexsort((-gains, row_ids))
        gains = gains[order]
        ranks = np.arange(len(gains)) - np.repeat(truth.offsets[:-1], truth.lengths)
        best = [np.bincount(row_ids, gains * (ranks < k), documents) for k in self.ks]
        return TruthPart(
            sizes.reshape(documents, len(SLICES)).astype(np.int32),
            np.stack(best, axis=1).astype(np.float32),
        )

    def ranking(self, labels: NDArray[np.integer[Any]], truth: Ragged) -> RankingPart:
        """The part of a ranking.

        Args:
            labels: [B, k] predicted label rows, best first, no label twice in a row, negative
                where there is none. Ranks beyond ``depth`` count for nothing, missing ones are
                misses.
            truth: The true labels of the ``B`` documents, unique in each row.
        """
        labels = labels[:, : self.depth]
        documents, width = labels.shape
        hit = np.zeros((documents, self.depth), np.bool_)
        hit[:, :width] = contains(truth, labels, self.size)
        row, rank = np.nonzero(hit)
        label = labels[row, rank]

        in_slice = np.zeros((documents, len(SLICES), self.depth), np.int16)
        gain = np.zeros((documents, len(SLICES), self.depth), np.float32)
        where = (row, self.slice_of[label], rank)
        in_slice[where] = 1
        gain[where] = self.gains[label]
        hits = np.cumsum(in_slice, axis=2, dtype=np.int16)[:, :, self._columns]
        psp = np.cumsum(gain, axis=2, dtype=np.float32)[:, :, self._columns]
        return RankingPart(hits, psp, self._ndcg(hit, truth.lengths))

    def _ndcg(self, hit: NDArray[np.bool_], truth_sizes: NDArray[np.int64]) -> NDArray[np.float32]:
        gained = np.cumsum(hit * self._discounts, axis=1)[:, self._columns]
        ideal = np.concatenate(([0.0], np.cumsum(self._discounts)))
        best = ideal[np.minimum(truth_sizes[:, None], np.asarray(self.ks))]
        ndcg = np.divide(gained, best, out=np.zeros_like(gained), where=best > 0)
        return np.asarray(ndcg, np.float32)
