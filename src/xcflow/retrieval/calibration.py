"""From fused scores to the probability that a label is right.

The fusion is fitted to put right labels before wrong ones within a document; its scores have no
unit and need not mean the same for two documents. Two steps repair that, learned on validation
documents from scores by a network that had not seen them, and neither changes a ranking:

- a score that all documents share: a times the fused score plus b times its log odds against the
  document's other proposals. Where documents have one label each, the odds tell nearly all; where
  they have many, the score itself tells too. Logistic regression fits a and b, neither negative;
- a rising curve from that score to the share of right labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from xcflow.config import CalibrationConfig
from xcflow.ragged import Ragged
from xcflow.retrieval.ranking import top_of_rows

_LEAST = 1e-12  # share of the others where there are none
_KNOTS = 512  # of a Platt curve: linear between them it is exact to 1e-5
_REACH = 12.0  # a sigmoid is 0 or 1 beyond
_NEWTON_STEPS = 50


class Curve(NamedTuple):
    """A rising curve from score to probability, linear between knots and level beyond them.

    Attributes:
        method: ``isotonic`` or ``platt``.
        scores: [M] rising scores.
        probabilities: [M] rising probabilities.
    """

    method: str
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibrator:
    """A score that documents share, and a rising curve from it.

    Attributes:
        mix: Weights a and b of fused score and log odds.
        curve: From the score to the probability.
    """

    mix: tuple[float, float]
    curve: Curve

    def comparable(self, fused: NDArray[np.float32], proposals: Ragged) -> NDArray[np.float32]:
        """[T] the score that documents share, of all proposals of N documents by fused score."""
        shared = _parts(fused, proposals) @ np.asarray(self.mix)
        return np.asarray(shared, np.float32)

    def __call__(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Probabilities of scores, of any shape; 0 for -inf, which stands for no label."""
        found = np.interp(scores, self.curve.scores, self.curve.probabilities)
        return np.where(np.isneginf(scores), 0.0, found).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "mix": list(self.mix),
            "method": self.curve.method,
            "scores": self.curve.scores.tolist(),
            "probabilities": self.curve.probabilities.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        a, b = values["mix"]
        knots = (np.asarray(values[name], np.float64) for name in ("scores", "probabilities"))
        return cls((float(a), float(b)), Curve(str(values["method"]), *knots))


def fit_calibrator(
    scores: NDArray[np.float32], proposals: Ragged, truth: Ragged, config: CalibrationConfig
) -> Calibrator:
    """Learn from the best few proposals of each document, which are what is shown.

    Args:
        scores: [T] scores of the proposals, by a fusion that did not learn from their document.
        proposals: N rows of proposed label rows.
        truth: N rows of true label rows; a document that has none says nothing.
        config: Method and depth.
    """
    right = proposals.also_in(truth)
    shown = top_of_rows(proposals, scores, config.depth).rows()
    kept = proposals.also_in(shown) & (truth.lengths > 0)[proposals.row_ids()]
    parts = _parts(scores, proposals)[kept]
    a, b = _mix(parts, right[kept])
    return Calibrator((a, b), fit_curve(parts @ np.array([a, b]), right[kept], config))


def _parts(fused: NDArray[np.float32], proposals: Ragged) -> NDArray[np.float64]:
    """[T, 2] fused scores and their log odds against the document's other proposals."""
    rows = proposals.row_ids()
    scores = fused.astype(np.float64)
    best = np.full(len(proposals), -np.inf)
    np.maximum.at(best, rows, scores)
    below = scores - best[rows]
    shares = np.exp(below)
    others = np.bincount(rows, shares, len(proposals))[rows] - shares
    return np.stack([scores, below - np.log(np.maximum(others, _LEAST))], axis=1)


def _mix(parts: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, float]:
    """Weights of the two parts; the odds alone where nothing can be learned."""
    if right.all() or not right.any():
        return 0.0, 1.0
    from sklearn.linear_model import LogisticRegression

    a, b = LogisticRegression().fit(parts, right).coef_[0].tolist()
    if a <= 0.0:
        return 0.0, 1.0
    return (a, b) if b > 0.0 else (1.0, 0.0)


def fit_curve(
    scores: NDArray[np.float64], right: NDArray[np.bool_], config: CalibrationConfig
) -> Curve:
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


def _targets(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Platt's targets (1999), a little off 0 and 1: no label is certain for having been lucky."""
    positives, negatives = int(right.sum()), int((~right).sum())
    return np.where(right, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))


def _isotonic(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> Curve:
    from sklearn.isotonic import IsotonicRegression

    curve = IsotonicRegression(y_min=0.0, y_max=1.0).fit(scores, _targets(right))
    return Curve("isotonic", curve.X_thresholds_, curve.y_thresholds_)


def _platt(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> Curve:
    """sigmoid(a s + b), a not negative, by Newton steps."""
    positives, negatives = int(right.sum()), int((~right).sum())
    target = _targets(right)
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
        return Curve("platt", np.array([0.0]), np.array([share]))
    z = np.linspace(-_REACH, _REACH, _KNOTS)
    return Curve("platt", (z - b) / a * (spread or 1.0) + middle, 1.0 / (1.0 + np.exp(-z)))
