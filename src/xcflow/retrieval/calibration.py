"""From a fused score to the probability that the label is right.

The fusion is fitted to put right labels before wrong ones; its scores have no unit. A calibrator is
a rising curve from score to share of right labels, learned on validation documents from scores by a
network that had not seen them. It changes no ranking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from xcflow.config import CalibrationConfig
from xcflow.ragged import Ragged
from xcflow.retrieval.ranking import top_of_rows
from xcflow.topk import NO_LABEL

_KNOTS = 512  # of a Platt curve: linear between them it is exact to 1e-5
_REACH = 12.0  # a sigmoid is 0 or 1 beyond
_NEWTON_STEPS = 50


@dataclass(frozen=True, eq=False)
class Calibrator:
    """A rising curve, linear between its knots and level beyond them.

    Attributes:
        method: ``isotonic`` or ``platt``.
        scores: [M] rising scores.
        probabilities: [M] rising probabilities.
    """

    method: str
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]

    def __call__(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Probabilities of scores, of any shape; 0 for -inf, which stands for no label."""
        found = np.interp(scores, self.scores, self.probabilities)
        return np.where(np.isneginf(scores), 0.0, found).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "method": self.method,
            "scores": self.scores.tolist(),
            "probabilities": self.probabilities.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(
            str(values["method"]),
            np.asarray(values["scores"], np.float64),
            np.asarray(values["probabilities"], np.float64),
        )


def fit_calibrator(
    scores: NDArray[np.float32], proposals: Ragged, truth: Ragged, config: CalibrationConfig
) -> Calibrator:
    """Learn the curve from the best few proposals of each document, which are what is shown.

    Args:
        scores: [T] scores of the proposals, by a fusion that did not learn from their document.
        proposals: N rows of proposed label rows.
        truth: N rows of true label rows.
        config: Method and depth.
    """
    top = top_of_rows(proposals, scores, config.depth)
    shown = top.scores[top.labels != NO_LABEL].astype(np.float64)
    return fit_curve(shown, top.rows().also_in(truth), config)


def fit_curve(
    scores: NDArray[np.float64], right: NDArray[np.bool_], config: CalibrationConfig
) -> Calibrator:
    """Isotonic regression where data is plenty, else Platt's sigmoid.

    Args:
        scores: [M] scores of shown labels.
        right: [M] whether the label is right.
        config: ``method = auto`` takes the isotonic curve from ``min_right`` right and as many
            wrong labels on.
    """
    scarce = min(int(right.sum()), int((~right).sum())) < config.min_right
    if config.method == "platt" or (config.method == "auto" and scarce) or len(scores) == 0:
        return _platt(scores, right)
    return _isotonic(scores, right)


def _isotonic(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> Calibrator:
    from sklearn.isotonic import IsotonicRegression

    curve = IsotonicRegression(y_min=0.0, y_max=1.0).fit(scores, right.astype(np.float64))
    return Calibrator("isotonic", curve.X_thresholds_, curve.y_thresholds_)


def _platt(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> Calibrator:
    """sigmoid(a s + b), a not negative, with Platt's smoothed targets (1999), by Newton steps."""
    positives, negatives = int(right.sum()), int((~right).sum())
    target = np.where(right, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    middle = scores.mean() if len(scores) else 0.0
    spread = scores.std() if len(scores) else 1.0
    x = (scores - middle) / (spread or 1.0)
    a, b = 0.0, float(np.log((positives + 1.0) / (negatives + 1.0)))
    for _ in range(_NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-(a * x + b)))
        gap, weight = p - target, p * (1.0 - p) + 1e-12
        gradient = np.array([(gap * x).sum(), gap.sum()])
        cross = (weight * x).sum()
        hessian = np.array([[(weight * x * x).sum() + 1e-9, cross], [cross, weight.sum() + 1e-9]])
        step = np.linalg.solve(hessian, gradient)
        a, b = a - step[0], b - step[1]
        if np.abs(step).max() < 1e-10:
            break
    if a <= 0.0:  # scores that say nothing, or the reverse: the share of right labels is all
        share = (positives + 1.0) / (positives + negatives + 2.0)
        return Calibrator("platt", np.array([0.0]), np.array([share]))
    z = np.linspace(-_REACH, _REACH, _KNOTS)
    return Calibrator("platt", (z - b) / a * (spread or 1.0) + middle, 1.0 / (1.0 + np.exp(-z)))
