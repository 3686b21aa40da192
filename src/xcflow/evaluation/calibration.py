"""How far probabilities can be trusted: reliability bins and their error over the top k.

ECE@k: the pairs (probability, right or wrong) of the k best labels of all documents fall into ten
bins of equal width; the error is the mean over all pairs of the distance between a bin's mean
probability and its share of right labels. Over all L labels it would be meaningless, as nearly all
probabilities are near 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.ragged import Ragged
from xcflow.topk import NO_LABEL, TopK

BINS = 10
DEPTHS = (1, 3, 5, 10)


def reliability(
    probabilities: NDArray[np.floating[Any]], right: NDArray[np.bool_]
) -> list[dict[str, float]]:
    """The bins that hold something: their bounds, mean probability, share of right labels, size.

    Args:
        probabilities: [M] between 0 and 1.
        right: [M].
    """
    place = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    size = np.bincount(place, minlength=BINS)
    said = np.bincount(place, probabilities, BINS)
    true = np.bincount(place, right, BINS)
    return [
        {
            "low": i / BINS,
            "high": (i + 1) / BINS,
            "probability": float(said[i] / size[i]),
            "right": float(true[i] / size[i]),
            "pairs": int(size[i]),
        }
        for i in range(BINS)
        if size[i]
    ]


def calibration_error(bins: list[dict[str, float]]) -> float:
    """ECE: mean distance of probability and share of right labels, weighted by pairs."""
    pairs = sum(b["pairs"] for b in bins)
    return sum(b["pairs"] * abs(b["probability"] - b["right"]) for b in bins) / max(pairs, 1)


def scaled(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Scores of shown labels on a scale from 0 to 1: what "before calibration" means."""
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    return (np.asarray(scores, np.float64) - low) / ((high - low) or 1.0)


def calibration_facts(
    top: TopK, probabilities: NDArray[np.floating[Any]], truth: Ragged
) -> dict[str, Any]:
    """ECE@k and the bins over the top K, before and after calibration.

    Args:
        top: The K best labels of N documents.
        probabilities: [N, K] their calibrated probabilities.
        truth: N rows of true labels.

    Returns:
        ``before`` and ``after``: name as in ``ECE@5`` -> error; ``bins``: the same two -> bins.
    """
    shown = top.labels != NO_LABEL
    right, raw = np.zeros(shown.shape, np.bool_), np.zeros(shown.shape)
    right[shown] = top.rows().also_in(truth)
    raw[shown] = scaled(top.scores[shown])
    depths = [k for k in DEPTHS if k <= shown.shape[1]]
    facts: dict[str, Any] = {"bins": {}}
    for name, values in (("before", raw), ("after", np.asarray(probabilities, np.float64))):
        facts[name] = {}
        for k in depths:
            kept = shown[:, :k]
            bins = reliability(values[:, :k][kept], right[:, :k][kept])
            facts[name][f"ECE@{k}"] = calibration_error(bins)
        facts["bins"][name] = reliability(values[shown], right[shown])
    return facts
