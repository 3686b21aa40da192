"""The choice of the fusion, on the validation split alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xcflow.config import FusionConfig
from xcflow.evaluation.metrics import Measure
from xcflow.evaluation.ratios import metrics_of
from xcflow.progress import log
from xcflow.ragged import Ragged
from xcflow.retrieval.fusion import Fusion, fit_fusion, fixed_fusion
from xcflow.retrieval.ranking import top_of_rows
from xcflow.training.validation import SELECTION

_MIN_DOCUMENTS = 20  # a network fitted on fewer says nothing


def choose_fusion(
    features: NDArray[np.float32],
    proposals: Ragged,
    truth: Ragged,
    measure: Measure,
    config: FusionConfig,
    seed: int,
) -> Fusion:
    """The best of: the fitted network, all voices alike, one voice alone.

    The network is measured by cross-fitting: each half of the documents is ranked by what the other
    half taught. So with few documents, of which it would learn the noise, something simpler wins.

    Args:
        features: [T, F] of the proposals.
        proposals: N rows of proposed label rows.
        truth: N rows of true label rows.
        measure: Depths and inverse propensities.
        config: How the network is fitted.
        seed: Decides its start and the halves.
    """

    def quality(scores: NDArray[np.float32]) -> float:
        ranked = top_of_rows(proposals, scores, measure.depth)
        return metrics_of(ranked.labels, truth, measure)[SELECTION]

    fixed = fixed_fusion(features)
    found = {name: quality(fusion.score(features)) for name, fusion in fixed.items()}
    if int((truth.lengths > 0).sum()) >= _MIN_DOCUMENTS:
        found["network"] = quality(_cross_fitted(features, proposals, truth, measure, config, seed))
    best = max(found, key=lambda name: found[name])
    shown = "  ".join(f"{name} {100 * value:.1f}" for name, value in found.items())
    log(f"fusion, validation {SELECTION}: {shown}: taking {best}")
    if best == "network":
        return fit_fusion(features, proposals, truth, measure.gains, config, seed)
    return fixed[best]


def _cross_fitted(
    features: NDArray[np.float32],
    proposals: Ragged,
    truth: Ragged,
    measure: Measure,
    config: FusionConfig,
    seed: int,
) -> NDArray[np.float32]:
    """[T] each proposal's score by a network that did not see its document."""
    half = np.random.default_rng(seed).permutation(len(proposals)) % 2 == 0
    row_ids = proposals.row_ids()
    scores = np.empty(len(features), np.float32)
    for learned_from in (half, ~half):
        rows, seen = np.flatnonzero(learned_from), learned_from[row_ids]
        fusion = fit_fusion(
            features[seen], proposals.take(rows), truth.take(rows), measure.gains, config, seed
        )
        scores[~seen] = fusion.score(features[~seen])
    return scores
