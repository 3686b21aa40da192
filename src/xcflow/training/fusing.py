"""The choice of the fusion, on the validation split alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xcflow.config import FusionConfig
from xcflow.evaluation.metrics import Measure
from xcflow.evaluation.ratios import metrics_of
from xcflow.progress import log
from xcflow.ragged import Ragged
from xcflow.retrieval.fusion import Fusion, fixed_fusion
from xcflow.retrieval.ranking import top_of_rows
from xcflow.training.ranking_network import fit_fusion
from xcflow.training.validation import SELECTION, in_points

_SHOWN = ("P@1", "P@5", SELECTION, "PSP@1", "PSP@5", "R@10", "R@100")
_MIN_DOCUMENTS = 20  # a network fitted on fewer says nothing


class Look(NamedTuple):
    """One look at N validation documents.

    Attributes:
        features: [T, F] of the proposals.
        proposals: N rows of proposed label rows.
    """

    features: NDArray[np.float32]
    proposals: Ragged

    @classmethod
    def joined(cls, parts: Sequence[Look]) -> Look:
        """Consecutive documents in one."""
        return cls(
            np.concatenate([part.features for part in parts]),
            Ragged.concatenate([part.proposals for part in parts]),
        )

    def some(self, documents: NDArray[np.bool_]) -> Look:
        """The look at those documents that are marked in [N]."""
        chosen = documents[self.proposals.row_ids()]
        return Look(self.features[chosen], self.proposals.take(np.flatnonzero(documents)))


class Choice(NamedTuple):
    """The fusion that was chosen.

    Attributes:
        fusion: The fusion.
        scores: Of each look, [T] what its proposals score by it; by a network, each document's by
            one that did not learn from it.
        figures: Name of a metric -> its value on the documents as they are, by these scores.
    """

    fusion: Fusion
    scores: list[NDArray[np.float32]]
    figures: dict[str, float]


def choose_fusion(
    looks: Sequence[Look],
    truth: Ragged,
    measure: Measure,
    config: FusionConfig,
    seed: int,
) -> Choice:
    """The best of: the fitted network, all voices alike, one voice alone.

    The network is measured by cross-fitting: each half of the documents is ranked by what the other
    half taught. So with few documents, of which it would learn the noise, something simpler wins.

    Args:
        looks: The documents as they are, by which all are measured; the network learns from
            further looks at the same documents too.
        truth: N rows of true label rows.
        measure: Depths and inverse propensities.
        config: How the network is fitted.
        seed: Decides its start and the halves.
    """
    plain = looks[0]

    def figures_by(scores: NDArray[np.float32]) -> dict[str, float]:
        ranked = top_of_rows(plain.proposals, scores, measure.depth)
        return metrics_of(ranked.labels, truth, measure)

    fixed = fixed_fusion(plain.features)
    scores = {
        name: [fusion.score(look.features) for look in looks] for name, fusion in fixed.items()
    }
    if int((truth.lengths > 0).sum()) >= _MIN_DOCUMENTS:
        scores["network"] = _cross_fitted(looks, truth, measure, config, seed)
    found = {name: figures_by(values[0]) for name, values in scores.items()}
    best = max(found, key=lambda name: found[name][SELECTION])
    shown = in_points({name: values[SELECTION] for name, values in found.items()})
    log(f"fusion, validation {SELECTION}: {shown}: taking {best}")
    figures = {name: found[best][name] for name in _SHOWN}
    log(f"fusion: validation {in_points(figures)}")
    fitted = best == "network"
    fusion = _fitted(looks, truth, measure, config, seed) if fitted else fixed[best]
    return Choice(fusion, scores[best], figures)


def _fitted(
    looks: Sequence[Look], truth: Ragged, measure: Measure, config: FusionConfig, seed: int
) -> Fusion:
    all_looks = Look.joined(looks)
    return fit_fusion(
        all_looks.features,
        all_looks.proposals,
        Ragged.concatenate([truth] * len(looks)),
        measure.gains,
        config,
        seed,
    )


def _cross_fitted(
    looks: Sequence[Look],
    truth: Ragged,
    measure: Measure,
    config: FusionConfig,
    seed: int,
) -> list[NDArray[np.float32]]:
    """Of each look, [T] each proposal's score by a network that did not see its document."""
    half = np.random.default_rng(seed).permutation(len(truth)) % 2 == 0
    scores = [np.empty(len(look.features), np.float32) for look in looks]
    for learned_from in (half, ~half):
        seen = [look.some(learned_from) for look in looks]
        fusion = _fitted(seen, truth.take(np.flatnonzero(learned_from)), measure, config, seed)
        for look, values in zip(looks, scores, strict=True):
            measured = ~learned_from[look.proposals.row_ids()]
            values[measured] = fusion.score(look.features[measured])
    return scores
