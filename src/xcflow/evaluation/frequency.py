"""Recall by how often a label was seen in training, in groups finer than the slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.errors import ArtifactError
from xcflow.evaluation.bootstrap import Difference, paired_bootstrap
from xcflow.evaluation.comparison import ALPHA, RESAMPLES
from xcflow.evaluation.metrics import contains
from xcflow.evaluation.ratios import Ratio
from xcflow.evaluation.result import CANDIDATE, Evaluation
from xcflow.evaluation.slices import frequency_parts

GROUPS = 10
DEPTH = 10
NO_GROUP = -1
_BLOCK_DOCUMENTS = 10_000


@dataclass(frozen=True)
class FrequencyGroup:
    """Labels that were seen about equally often in training.

    Attributes:
        min_count: Training documents of the rarest.
        max_count: Training documents of the most frequent.
        labels: How many of them the test split asks for.
        test_positives: True pairs of the test split that they stand in.
    """

    min_count: int
    max_count: int
    labels: int
    test_positives: int

    @property
    def name(self) -> str:
        """The range of frequencies."""
        if self.min_count == self.max_count:
            return f"{self.min_count:,}"
        return f"{self.min_count:,}-{self.max_count:,}"


@dataclass(frozen=True, eq=False)
class FrequencyGroups:
    """The labels of a test split, cut by their frequency in training.

    Equally frequent labels stay together, so there may be fewer groups than were asked for, and
    the same training and test split give the same groups whatever rows the labels have.

    Attributes:
        groups: ``G`` groups, the most frequent labels first.
        group_of: [L] int8 the group of each label, ``NO_GROUP`` for labels that are in none:
            cold ones and those that the test split never asks for.
    """

    groups: tuple[FrequencyGroup, ...]
    group_of: NDArray[np.int8]

    @classmethod
    def of(cls, evaluation: Evaluation, most: int = GROUPS) -> FrequencyGroups:
        """Cut into at most ``most`` groups with about equal shares of the test's true pairs.

        Raises:
            ArtifactError: The evaluation does not say how often labels were seen.
        """
        counts = np.asarray(evaluation.label_counts())
        asked = evaluation.truth().counts(len(counts))
        rows = np.flatnonzero((counts > 0) & (asked > 0))
        part = frequency_parts(counts[rows], most, asked[rows])
        present, group = np.unique(part, return_inverse=True)
        group_of = np.full(len(counts), NO_GROUP, np.int8)
        group_of[rows] = group
        groups = []
        for number in range(len(present)):
            chosen = rows[group == number]
            seen = counts[chosen]
            positives = int(asked[chosen].sum())
            groups.append(FrequencyGroup(int(seen.min()), int(seen.max()), len(chosen), positives))
        return cls(tuple(groups), group_of)

    def recall(self, evaluation: Evaluation, model: str, k: int) -> list[Ratio]:
        """Share of each group's true pairs that are among a model's first ``k`` predictions.

        Args:
            evaluation: The evaluation that the groups were made of.
            model: One of its models.
            k: At most as many as it keeps of each document.

        Returns:
            ``G`` ratios; over all documents, each true pair weighs the same.
        """
        truth, predicted = evaluation.truth(), evaluation.predictions(model).labels
        found = np.zeros((len(truth), len(self.groups)))
        for start in range(0, len(truth), _BLOCK_DOCUMENTS):
            labels = np.asarray(predicted[start : start + _BLOCK_DOCUMENTS, :k])
            block = truth.slice(start, start + len(labels))
            row, rank = np.nonzero(contains(block, labels, len(self.group_of)))
            found[start : start + len(labels)] = self._counted(row, labels[row, rank], len(labels))
        true = self._counted(truth.row_ids(), truth.data, len(truth))
        return [Ratio(found[:, i], true[:, i]) for i in range(len(self.groups))]

    def _counted(
        self, rows: NDArray[np.int64], labels: NDArray[np.integer[Any]], documents: int
    ) -> NDArray[np.float64]:
        """[documents, G] how many of the pairs (row, label) fall into each group."""
        group = self.group_of[labels].astype(np.int64)
        cells = (rows * len(self.groups) + group)[group != NO_GROUP]
        counted = np.bincount(cells, minlength=documents * len(self.groups))
        return counted.reshape(documents, len(self.groups)).astype(np.float64)


@dataclass(frozen=True)
class FrequencyDifference:
    """How two models differ on labels that were seen about equally often in training.

    Attributes:
        group: The labels.
        recall: The share of their true pairs that was found.
    """

    group: FrequencyGroup
    recall: Difference


def frequency_differences(
    a: Evaluation, b: Evaluation, depth: int, *, a_model: str = CANDIDATE, b_model: str = CANDIDATE
) -> tuple[FrequencyDifference, ...]:
    """Recall by frequency, ``a - b``, the most frequent labels first.

    The groups are the same in both evaluations, whatever rows their labels have.

    Args:
        a: Where the one model was measured.
        b: Where the other was, on the same test split; it may be the same evaluation.
        depth: Predictions of each document that count.
        a_model: The one model.
        b_model: The other.

    Raises:
        ArtifactError: An evaluation does not say how often labels were seen, or the labels were
            seen with other frequencies.
    """
    if a.metrics["propensity"]["label_counts"] != b.metrics["propensity"]["label_counts"]:
        raise ArtifactError("the labels' frequencies differ, because the training splits do")
    groups = FrequencyGroups.of(a), FrequencyGroups.of(b)
    differences = paired_bootstrap(
        groups[0].recall(a, a_model, depth),
        groups[1].recall(b, b_model, depth),
        resamples=RESAMPLES,
        alpha=ALPHA,
        seed=0,
    )
    return tuple(map(FrequencyDifference, groups[0].groups, differences))


def kept_depth(evaluation: Evaluation) -> int:
    """How many predictions recall by frequency looks at: ten, or as many as are kept."""
    kept: int = evaluation.predictions(CANDIDATE).labels.shape[1]
    return min(DEPTH, evaluation.ks[-1], kept)
