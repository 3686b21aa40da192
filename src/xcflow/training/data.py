"""The training documents as the two modules see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.dataset import Dataset
from xcflow.labels.identity import known_relations, never_itself, same_item_labels
from xcflow.ragged import Ragged


@dataclass(frozen=True, eq=False)
class Examples:
    """Some of a data set's training documents; tokens stay memory-mapped.

    Attributes:
        rows: [N] rows of ``dataset.train``.
        labels: N rows of true labels.
        same_item: [N] the label that is the document itself, -1 where there is none.
        label_count: L.
    """

    rows: NDArray[np.int64]
    labels: Ragged
    same_item: NDArray[np.int64]
    label_count: int
    _tokens: Ragged

    def __len__(self) -> int:
        return len(self.rows)

    def tokens(self, positions: NDArray[np.int64] | None = None) -> Ragged:
        """Token rows of some documents (positions in ``rows``), or of all of them."""
        return self._tokens.take(self.rows if positions is None else self.rows[positions])


@dataclass(frozen=True, eq=False)
class Splits:
    """What is learned from and what choices are made on; never the test split.

    Attributes:
        fit: Documents that are learned from.
        validation: Documents that choices are made on.
        excludes_itself: Whether predictions leave out the label that is the document itself:
            the catalogue relates items to items.
        left_out: Label rows that each validation document's truth and predictions are measured
            without: in a catalogue of related items itself, and the items that are known from
            ``fit`` to relate to it. The reverse of a known pair is remembered, not predicted.
    """

    fit: Examples
    validation: Examples
    excludes_itself: bool
    left_out: Ragged

    @classmethod
    def of(cls, dataset: Dataset) -> Splits:
        """The splits of a data set."""
        fit = _examples(dataset, dataset.fit_rows)
        validation = _examples(dataset, dataset.validation_rows)
        if never_itself(fit.same_item, fit.labels):
            left_out = known_relations(validation.same_item, fit.same_item, fit.labels)
            return cls(fit, validation, True, left_out)
        nothing = Ragged(np.empty(0, np.int32), np.zeros(len(validation) + 1, np.int64))
        return cls(fit, validation, False, nothing)


def _examples(dataset: Dataset, rows: NDArray[np.int64]) -> Examples:
    return Examples(
        rows=rows,
        labels=dataset.train.labels.take(rows),
        same_item=same_item_labels(dataset.train.texts, dataset.labels.texts, rows),
        label_count=len(dataset.labels),
        _tokens=dataset.train.tokens,
    )
