"""The training documents as the two modules see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.dataset import Dataset
from xcflow.evaluation.metrics import without
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
            ``fit`` to relate to it (the reverse of a known pair is remembered, not predicted); and
            its true labels that holding it out left without a document, beyond the share that
            such labels have in the test split.
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
        excludes_itself = never_itself(fit.same_item, fit.labels)
        nothing = Ragged(np.empty(0, np.int32), np.zeros(len(validation) + 1, np.int64))
        left_out = (
            known_relations(validation.same_item, fit.same_item, fit.labels)
            if excludes_itself
            else nothing
        )
        truth = without(validation.labels, left_out)
        cold = truth.keep(_too_cold(truth, fit, _cold_share(dataset)))
        return cls(fit, validation, excludes_itself, left_out.beside(cold))


def _cold_share(dataset: Dataset) -> float:
    """Share of the test split's pairs whose label has no training document; 1 of no pairs."""
    pairs = without(dataset.test.labels, dataset.test_filter)
    return float((dataset.label_counts()[pairs.data] == 0).mean()) if len(pairs.data) else 1.0


def _too_cold(truth: Ragged, fit: Examples, share: float) -> NDArray[np.bool_]:
    """[T] cold pairs, without which ``share`` of those that remain is cold.

    Many labels have one training document. Held out, it takes them from those that are learned; a
    test split whose labels all have training documents holds none like them, and what was chosen
    to find them would answer the others worse.
    """
    cold: NDArray[np.bool_] = fit.labels.counts(fit.label_count)[truth.data] == 0
    pairs = np.flatnonzero(cold)
    wanted = (len(cold) - len(pairs)) * share / (1.0 - share) if share < 1.0 else len(pairs)
    kept = min(1.0, wanted / max(1, len(pairs)))
    # Spread evenly: the n-th is kept where the whole part of n * kept rises.
    rises = np.diff(np.floor(np.arange(len(pairs) + 1) * kept)) > 0
    cold[pairs[rises]] = False
    return cold


def _examples(dataset: Dataset, rows: NDArray[np.int64]) -> Examples:
    return Examples(
        rows=rows,
        labels=dataset.train.labels.take(rows),
        same_item=same_item_labels(dataset.train.texts, dataset.labels.texts, rows),
        label_count=len(dataset.labels),
        _tokens=dataset.train.tokens,
    )
