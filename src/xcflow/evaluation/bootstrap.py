"""Paired bootstrap: how sure a difference between two models on the same documents is.

Documents are drawn with replacement, the same draw for both models and for all metrics. A metric
is a ratio of sums (``ratios``), so a resample's difference is
``sum(w_i (a_i - b_i)) / sum(w_i d_i)`` with ``w_i`` how often document ``i`` was drawn, and all
resamples of all metrics are two matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xcflow.evaluation.ratios import Ratio

BLOCK_CELLS = 500_000


@dataclass(frozen=True)
class Difference:
    """By how much model a differs from model b in one metric.

    Attributes:
        a: The metric of a.
        b: The metric of b.
        difference: ``a - b``.
        low: Lower bound of the difference at the level ``1 - alpha``, one-sided.
        high: Upper bound at the same level; the two together hold at ``1 - 2 alpha``.
        p_better: One-sided p value against "a is no better than b".
        p_worse: One-sided p value against "a is no worse than b".
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_better: float
    p_worse: float


def paired_bootstrap(
    a: Sequence[Ratio], b: Sequence[Ratio], *, resamples: int, alpha: float, seed: int
) -> list[Difference]:
    """Compare two models on ``N`` documents in ``M`` metrics.

    Args:
        a: ``M`` metrics of the one model.
        b: The same metrics of the other model, on the same documents.
        resamples: Number ``R`` of resamples; 2,000 give p values of .05 to within .005.
        alpha: Error level of each bound.
        seed: Seed of the draws.

    Returns:
        One difference for each metric, bounds by the percentile method. A metric for which no
        document counts gives nan throughout.
    """
    if not a:
        return []
    change = np.stack([x.numerator - y.numerator for x, y in zip(a, b, strict=True)], axis=1)
    total = np.stack([x.denominator for x in a], axis=1)
    drawn = _resampled_differences(change, total, resamples, np.random.default_rng(seed))
    return [
        _difference(x.value, y.value, drawn[:, column], alpha)
        for column, (x, y) in enumerate(zip(a, b, strict=True))
    ]


def _difference(a: float, b: float, drawn: NDArray[np.float64], alpha: float) -> Difference:
    drawn = drawn[~np.isnan(drawn)]  # a draw may miss every document of a small slice
    if len(drawn) == 0:
        return Difference(a, b, *(math.nan,) * 5)
    low, high = np.quantile(drawn, (alpha, 1.0 - alpha))
    # One more resample, the data themselves, keeps a p value above 0 (Davison and Hinkley 1997).
    count = len(drawn) + 1
    p_better, p_worse = ((drawn <= 0).sum() + 1) / count, ((drawn >= 0).sum() + 1) / count
    return Difference(a, b, a - b, float(low), float(high), float(p_better), float(p_worse))


def _resampled_differences(
    change: NDArray[np.float64],
    total: NDArray[np.float64],
    resamples: int,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """[R, M] differences of all resamples, from [N, M] terms; memory is bounded by a block."""
    documents = len(change)
    terms = np.concatenate((change, total), axis=1)
    block = max(1, BLOCK_CELLS // max(documents, 1))
    sums = np.empty((resamples, terms.shape[1]))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = random.integers(documents, size=(count, documents), dtype=np.int64)
        drawn += np.arange(count)[:, None] * documents
        weights = np.bincount(drawn.ravel(), minlength=count * documents)
        sums[start : start + count] = weights.reshape(count, documents).astype(np.float64) @ terms
    numerators, denominators = np.hsplit(sums, 2)
    nothing = np.full_like(numerators, np.nan)
    differences = np.divide(numerators, denominators, out=nothing, where=denominators > 0)
    # Sums that cancel leave a rest of 1e-17 or so, which must not pass for a difference.
    return np.asarray(differences.round(12))
