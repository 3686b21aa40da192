"""Metrics on the validation split: what early stopping and every other choice looks at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xcflow.config import EvaluationConfig
from xcflow.evaluation.metrics import Measure
from xcflow.evaluation.ratios import metrics_of
from xcflow.retrieval.exact import search
from xcflow.topk import TopK
from xcflow.training.data import Splits

SELECTION = "nDCG@5"
_SHOWN = ("P@1", "P@5", SELECTION, "R@10", "R@100")
_DEPTHS = (1, 5, 10, 100)


class Validation:
    """Measures rankings of the validation documents.

    Args:
        splits: Truth comes from the validation part.
    """

    def __init__(self, splits: Splits) -> None:
        fit = splits.fit
        self._measure = Measure.of_training(
            fit.labels.counts(fit.label_count), len(fit), EvaluationConfig(ks=_DEPTHS)
        )
        self._truth = splits.validation.labels
        self._same_item = splits.validation.same_item if splits.excludes_itself else None

    def of_vectors(self, documents: Tensor, labels: Tensor) -> dict[str, float]:
        """Metrics of exact search with unit vectors [V, D] and [L, D]."""
        top = search(documents.numpy(), labels.numpy(), self._measure.depth + 1)
        return self.of_ranking(top)

    def of_ranking(self, top: TopK) -> dict[str, float]:
        """Metrics of [V, 101] predictions that may still hold the document itself."""
        if self._same_item is not None:
            top = without_itself(top, self._same_item, self._measure.depth)
        metrics = metrics_of(top.labels, self._truth, self._measure)
        return {name: metrics[name] for name in _SHOWN}


def without_itself(top: TopK, same_item: NDArray[np.integer[Any]], k: int) -> TopK:
    """The ``k`` best labels that are not the document itself."""
    return top.keep(top.labels != same_item[:, None], k)
