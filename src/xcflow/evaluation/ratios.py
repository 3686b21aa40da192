"""Metrics by name, each as a ratio of two sums over documents.

Tables, paired comparisons and the gate all compute from the same two terms of each document, so
they cannot disagree.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from xcflow.config import METRIC_NAME
from xcflow.evaluation.metrics import Measure, RankingPart, TruthPart
from xcflow.evaluation.slices import SLICES
from xcflow.ragged import Ragged

KINDS = ("P", "nDCG", "PSP", "R")
SLICED_KINDS = ("P", "PSP", "R")


class MetricName(NamedTuple):
    """A metric such as ``P@5``, or what a slice of the labels adds to it, such as ``R@10/tail``."""

    kind: str
    k: int
    slice: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name.

        Raises:
            ValueError: It is none.
        """
        match = re.fullmatch(METRIC_NAME, text)
        if not match:
            raise ValueError(
                f"{text!r} is no metric: known are P@k, nDCG@k, PSP@k and R@k, and all but nDCG "
                f"for one slice too, as in R@10/tail ({', '.join(SLICES)})"
            )
        return cls(match[1], int(match[2]), match[3])

    def __str__(self) -> str:
        return f"{self.kind}@{self.k}" + (f"/{self.slice}" if self.slice else "")


class Ratio(NamedTuple):
    """A metric as two terms of each document; its value is the ratio of their sums.

    Attributes:
        numerator: [N] float64.
        denominator: [N] float64, the same for every model on the same documents.
    """

    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]

    @property
    def value(self) -> float:
        """The metric over all documents; nan when no document counts."""
        total = self.denominator.sum()
        return float(self.numerator.sum() / total) if total > 0 else float("nan")


def ratio(truth: TruthPart, ranking: RankingPart, name: MetricName, ks: tuple[int, ...]) -> Ratio:
    """The two terms of each document for one metric.

    A slice's P@k counts only hits on its labels, and its PSP@k only their weights over the best
    possible sum of all labels, so the slices' values add up to the whole. A slice's R@k is the
    share of its own true labels that were found, over the documents that have one. A document
    without any true label counts for nothing.
    """
    column = ks.index(name.k)
    counted = (truth.sizes.sum(axis=1) > 0).astype(np.float64)
    if name.kind == "nDCG":
        return Ratio(ranking.ndcg[:, column].astype(np.float64), counted)
    if name.kind == "PSP":
        best = truth.psp_best[:, column].astype(np.float64)
        return Ratio(_over_slices(ranking.psp[:, :, column], name.slice), best)
    hits = _over_slices(ranking.hits[:, :, column], name.slice)
    if name.kind == "P":
        return Ratio(hits / name.k, counted)
    sizes = _over_slices(truth.sizes, name.slice)
    return Ratio(hits / np.maximum(sizes, 1.0), (sizes > 0).astype(np.float64))


def _over_slices(array: NDArray[Any], name: str | None) -> NDArray[np.float64]:
    """[N] the sum over all slices of [N, S], or the column of one."""
    if name is None:
        return np.asarray(array.sum(axis=1, dtype=np.float64))
    return np.asarray(array[:, SLICES.index(name)], np.float64)


def summarise(
    truth: TruthPart, ranking: RankingPart, ks: tuple[int, ...], part: str | None = None
) -> dict[str, float]:
    """All metrics by name, or all that the slice ``part`` has."""
    return {
        f"{kind}@{k}": ratio(truth, ranking, MetricName(kind, k, part), ks).value
        for kind in (SLICED_KINDS if part else KINDS)
        for k in ks
    }


def slices_present(truth: TruthPart) -> list[str]:
    """The slices that have true labels in the test split."""
    totals = truth.sizes.sum(axis=0, dtype=np.int64)
    return [name for name, total in zip(SLICES, totals, strict=True) if total > 0]


def metrics_of(
    labels: NDArray[np.integer[Any]], truth: Ragged, measure: Measure
) -> dict[str, float]:
    """All metrics of a ranking that fits in memory, as on a validation split.

    Args:
        labels: [N, k] predicted label rows, best first, negative where there is none.
        truth: The true label rows; documents without one count for nothing.
        measure: Depths and inverse propensities.
    """
    rows = np.flatnonzero(truth.lengths)
    known = truth.take(rows)
    return summarise(measure.truth(known), measure.ranking(labels[rows], known), measure.ks)
