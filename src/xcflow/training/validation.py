"""Metrics on the validation split: what early stopping and every other choice looks at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xcflow.config import EvaluationConfig
from xcflow.distributed.rankings import best_of_ranks
from xcflow.distributed.world import ALONE, World
from xcflow.evaluation.metrics import Measure, drop_filtered, without
from xcflow.evaluation.ratios import metrics_of
from xcflow.retrieval.exact import search_blocks
from xcflow.topk import TopK
from xcflow.training.data import Splits

SELECTION = "nDCG@5"
_SHOWN = ("P@1", "P@5", SELECTION, "R@10", "R@100")
_DEPTHS = (1, 5, 10, 100)


def in_points(metrics: Mapping[str, float]) -> str:
    """Metrics as they stand in a line of the log."""
    return "  ".join(f"{name} {100 * value:.1f}" for name, value in metrics.items())


class Validation:
    """Measures rankings of the validation documents.

    Args:
        splits: Truth comes from the validation part.
        world: Ranks that each search some of the labels.
    """

    def __init__(self, splits: Splits, world: World = ALONE) -> None:
        self._world = world
        fit = splits.fit
        self._measure = Measure.of_training(
            fit.labels.counts(fit.label_count), len(fit), EvaluationConfig(ks=_DEPTHS)
        )
        self._left_out = splits.left_out
        self._truth = without(splits.validation.labels, splits.left_out)
        self.depth = self._measure.depth + int(splits.left_out.lengths.max(initial=0))

    def of_vectors(
        self,
        documents: Tensor,
        labels: Iterable[Tensor],
        rows: NDArray[np.integer[Any]] | None = None,
    ) -> dict[str, float]:
        """Metrics of exact search.

        Args:
            documents: [V, D] unit vectors.
            labels: Consecutive blocks of labels' unit vectors, best of ``exact.KEYS`` rows.
            rows: The label rows that this rank brings; without them, all.
        """
        blocks = (block.numpy() for block in labels)
        top = search_blocks(documents.numpy(), blocks, self.depth)
        return self.of_ranking(best_of_ranks(self._world, top, rows))

    def of_ranking(self, top: TopK) -> dict[str, float]:
        """Metrics of [V, depth] predictions that may still hold what is left out."""
        measure = self._measure
        top = drop_filtered(top, self._left_out, measure.size, measure.depth)
        metrics = metrics_of(top.labels, self._truth, measure)
        return {name: metrics[name] for name in _SHOWN}
